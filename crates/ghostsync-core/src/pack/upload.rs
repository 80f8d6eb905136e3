//! Sends finished packs, a bounded number at a time, and knows when every one is acknowledged.

use std::sync::Arc;

use object_store::PutPayload;
use object_store::path::Path as Key;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::interrupt::Waiter;
use crate::observer::{Observer, Progress};
use crate::store::Store;

/// What is in flight at once, in units of 64 KiB: two packs of about 16 MiB, which take longer than the round trips that
/// they need, and beside them a small one, so that a line is not idle while both wait for their answers.
const SLOTS: u32 = 640;
const SLOT_BYTES: usize = 64 << 10;

/// Sends packs from a plain thread. Dropping it gives up what is in flight: garbage that nothing refers to.
#[derive(Debug)]
pub(crate) struct Uploader {
    store: Store,
    waiter: Waiter,
    observer: Observed,
    slots: Arc<Semaphore>,
    running: JoinSet<Result<()>>,
}

struct Observed(Arc<dyn Observer>);

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

impl Uploader {
    pub(crate) fn new(store: Store, waiter: Waiter, observer: Arc<dyn Observer>) -> Self {
        let slots = Arc::new(Semaphore::new(SLOTS as usize));
        Self { store, waiter, observer: Observed(observer), slots, running: JoinSet::new() }
    }

    /// Begins to send one pack; waits while too many are in flight. When it is acknowledged, `then` is called.
    ///
    /// # Errors
    /// That of any pack that failed since the last call; `Interrupted`.
    pub(crate) fn send(&mut self, key: Key, pack: PutPayload, then: impl FnOnce() + Send + 'static) -> Result<()> {
        while let Some(done) = self.running.try_join_next() {
            flatten(done)?;
        }
        let slots = Arc::clone(&self.slots);
        // A larger pack than usual takes no more than its half.
        let wanted = u32::try_from(pack.content_length() / SLOT_BYTES).unwrap_or(u32::MAX).clamp(1, SLOTS / 2);
        let permit = self.waiter.wait(async {
            slots.acquire_many_owned(wanted).await.map_err(|_| Error::internal("the upload was closed"))
        })?;
        let (store, observer) = (self.store.clone(), Arc::clone(&self.observer.0));
        let task = async move {
            let sent = pack.content_length() as u64;
            let result = store.put(&key, pack).await;
            drop(permit);
            result.inspect(|()| {
                then();
                observer.progress(Progress::Transferred { bytes: sent });
            })
        };
        self.running.spawn_on(task, self.waiter.runtime());
        Ok(())
    }

    /// Waits until every pack that was sent is acknowledged.
    ///
    /// # Errors
    /// That of the first pack that failed; `Interrupted`.
    pub(crate) fn settle(&mut self) -> Result<()> {
        while let Some(done) = self.waiter.wait(async { Ok(self.running.join_next().await) })? {
            flatten(done)?;
        }
        Ok(())
    }
}

fn flatten(done: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    done.map_err(|error| Error::internal(format!("an upload did not end: {error}")))?
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::interrupt::Interrupt;
    use crate::observer::NoObserver;
    use crate::testing::fault::{Fault, FaultStore};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_small_pack_goes_out_beside_two_large_ones_and_a_third_large_one_waits() {
        let silent = FaultStore::new(Arc::new(InMemory::new()), |_| Some(Fault::Never));
        let send = move || {
            let store = Store::new(Arc::new(silent), "memory");
            let mut uploader = Uploader::new(store, Waiter::new(Interrupt::default()), Arc::new(NoObserver));
            let mut left = Vec::new();
            for mebibytes in [16, 16, 7] {
                let pack = PutPayload::from(vec![0; mebibytes << 20]);
                uploader.send(Key::from("key"), pack, || ()).expect("is sent");
                left.push((uploader.slots.available_permits() * SLOT_BYTES) >> 20);
            }
            (uploader.running.len(), left)
        };
        // Nothing is ever answered: whoever had to wait would do so for good.
        let sent = tokio::time::timeout(std::time::Duration::from_secs(20), tokio::task::spawn_blocking(send)).await;
        assert_eq!(sent.expect("in time").expect("no panic"), (3, vec![24, 8, 1]));
    }
}
