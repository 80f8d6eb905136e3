//! A store that fails as told: by the number of the call, or by what is asked for.
//!
//! A plan sees every call before it happens and says what is to go wrong with it. To try a failure at every point
//! of a story, run it once without faults, ask for [`FaultStore::calls`], and run it again for each number:
//!
//! ```
//! # use std::sync::Arc;
//! # use ghostsync_core::testing::fault::{Failure, Fault, FaultStore};
//! # use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
//! # async fn story(store: &FaultStore) -> object_store::Result<()> {
//! #     store.put(&Path::from("a"), "1".into()).await?;
//! #     store.put(&Path::from("b"), "2".into()).await?;
//! #     Ok(())
//! # }
//! # futures::executor::block_on(async {
//! let whole = FaultStore::new(Arc::new(InMemory::new()), |_| None);
//! story(&whole).await.unwrap();
//! for number in 0..whole.calls() {
//!     let store = FaultStore::at(Arc::new(InMemory::new()), number, Fault::Before(Failure::Server));
//!     assert!(story(&store).await.is_err());
//! }
//! # });
//! ```

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

pub use super::operation::Operation;

/// One call, as the plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Counts all calls from 0; each key of a delete is a call.
    pub number: usize,
    /// What is asked.
    pub operation: Operation,
    /// The key, or the prefix of a listing; empty for a listing of everything.
    pub key: Key,
}

/// What is said when a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// An error of the server, such as 500 or 503.
    Server,
    /// No answer in time, or a broken connection.
    Timeout,
    /// "Already exists" (409 or 412), be it true or not.
    Exists,
    /// "Not found", be it true or not.
    NotFound,
    /// "Access denied".
    Denied,
}

/// What goes wrong with a call. One that does not fit the operation changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and the call fails.
    Before(Failure),
    /// It is done, and the call fails all the same.
    After(Failure),
    /// Nothing is done, and no answer ever comes.
    Never,
    /// Any write of one object: it fails with a timeout now and is done when [`FaultStore::land`] is called.
    Late,
    /// A create: it replaces what is there, as with stores that ignore the condition.
    Overwrite,
    /// A create: it looks, lets others go first, and then replaces what is there, as with stores that keep the
    /// condition for one writer and not for two at once.
    Race,
    /// A read of content: the body ends after half of the bytes that were promised.
    Truncated,
    /// A read of content: one bit in the middle is wrong.
    FlippedBit,
    /// A listing: what would come last is left out.
    ShortList,
}

type Plan = dyn Fn(&Call) -> Option<Fault> + Send + Sync;
type HeldWrite = (Key, PutPayload, PutOptions);

/// Passes calls on unless the plan says otherwise. Clones share the count and what is held back.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Plan>,
    calls: Arc<AtomicUsize>,
    held: Arc<Mutex<Vec<HeldWrite>>>,
}

impl FaultStore {
    /// Wraps a store with a plan.
    pub fn new(inner: Arc<dyn ObjectStore>, plan: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self { inner, plan: Arc::new(plan), calls: Arc::default(), held: Arc::default() }
    }

    /// The call with this number fails, and no other.
    pub fn at(inner: Arc<dyn ObjectStore>, number: usize, fault: Fault) -> Self {
        Self::new(inner, move |call| (call.number == number).then_some(fault))
    }

    /// Every call from this number on fails: the store is gone, or the process was.
    pub fn from(inner: Arc<dyn ObjectStore>, number: usize, fault: Fault) -> Self {
        Self::new(inner, move |call| (call.number >= number).then_some(fault))
    }

    /// How many calls there were.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// Lets the writes arrive that were held back by [`Fault::Late`], in order; returns what the store said to each.
    pub async fn land(&self) -> Vec<Result<PutResult>> {
        let held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        let mut answers = Vec::with_capacity(held.len());
        for (key, payload, options) in held {
            answers.push(self.inner.put_opts(&key, payload, options).await);
        }
        answers
    }

    /// Creates as a store does that looks first and writes then.
    async fn create_by_looking(&self, key: &Key, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.inner.head(key).await.is_ok() {
            return Err(Failure::Exists.error(Some(key)));
        }
        tokio::task::yield_now().await;
        self.inner.put_opts(key, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
    }

    fn fault(&self, operation: Operation, key: Option<&Key>) -> Option<Fault> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        (self.plan)(&Call { number, operation, key: key.cloned().unwrap_or_default() })
    }

    fn listed(
        &self,
        prefix: Option<&Key>,
        list: impl FnOnce() -> BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.fault(Operation::List, prefix) {
            Some(Fault::Before(failure)) => stream::iter([Err(failure.error(prefix))]).boxed(),
            Some(Fault::Never) => stream::pending().boxed(),
            Some(Fault::After(failure)) => list().chain(stream::iter([Err(failure.error(prefix))])).boxed(),
            Some(Fault::ShortList) => {
                let listed = list().try_collect::<Vec<_>>();
                let shortened = async move {
                    let mut listed = listed.await?;
                    listed.pop();
                    Ok::<_, object_store::Error>(stream::iter(listed.into_iter().map(Ok)))
                };
                stream::once(shortened).try_flatten().boxed()
            }
            _ => list(),
        }
    }
}

/// Makes a call, or not, and fails or not. A call that is not made is dropped before it began.
async fn with_fault<T>(fault: Option<Fault>, key: Option<&Key>, call: impl Future<Output = Result<T>>) -> Result<T> {
    match fault {
        Some(Fault::Before(failure)) => Err(failure.error(key)),
        Some(Fault::After(failure)) => {
            // What the store itself says is as lost as everything else.
            let _ = call.await;
            Err(failure.error(key))
        }
        Some(Fault::Never) => std::future::pending().await,
        _ => call.await,
    }
}

impl Failure {
    fn error(self, key: Option<&Key>) -> object_store::Error {
        let path = key.map(ToString::to_string).unwrap_or_default();
        let injected = |text: &str| -> Box<dyn std::error::Error + Send + Sync> { format!("{text} (injected)").into() };
        match self {
            Self::Server => object_store::Error::Generic {
                store: "FaultStore",
                source: injected("Server returned non-2xx status code: 503 Service Unavailable: "),
            },
            Self::Timeout => object_store::Error::Generic { store: "FaultStore", source: injected("timed out") },
            Self::Exists => object_store::Error::AlreadyExists { path, source: injected("exists") },
            Self::NotFound => object_store::Error::NotFound { path, source: injected("not found") },
            Self::Denied => object_store::Error::PermissionDenied { path, source: injected("denied") },
        }
    }
}

/// Damages the body of an answer and leaves everything else as it was.
async fn damaged(answer: GetResult, fault: Fault) -> Result<GetResult> {
    let (meta, range) = (answer.meta.clone(), answer.range.clone());
    let (attributes, extensions) = (answer.attributes.clone(), answer.extensions.clone());
    let body = damaged_bytes(answer.bytes().await?, fault);
    let payload = GetResultPayload::Stream(stream::iter([Ok(body)]).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

fn damaged_bytes(body: Bytes, fault: Fault) -> Bytes {
    let middle = body.len() / 2;
    match fault {
        Fault::Truncated => body.slice(..middle),
        Fault::FlippedBit => {
            let mut body = body.to_vec();
            if let Some(byte) = body.get_mut(middle) {
                *byte ^= 1;
            }
            body.into()
        }
        _ => body,
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStore").field("inner", &self.inner).field("calls", &self.calls()).finish_non_exhaustive()
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let operation = Operation::of_put(&opts.mode);
        match self.fault(operation, Some(location)) {
            Some(Fault::Overwrite) if operation == Operation::Create => {
                let opts = PutOptions { mode: PutMode::Overwrite, ..opts };
                self.inner.put_opts(location, payload, opts).await
            }
            Some(Fault::Race) if operation == Operation::Create => {
                self.create_by_looking(location, payload, opts).await
            }
            Some(Fault::Late) => {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                held.push((location.clone(), payload, opts));
                Err(Failure::Timeout.error(Some(location)))
            }
            fault => with_fault(fault, Some(location), self.inner.put_opts(location, payload, opts)).await,
        }
    }

    async fn put_multipart_opts(&self, location: &Key, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.fault(Operation::Multipart, Some(location));
        with_fault(fault, Some(location), self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        match self.fault(Operation::of_get(&options), Some(location)) {
            Some(fault @ (Fault::Truncated | Fault::FlippedBit)) if !head => {
                damaged(self.inner.get_opts(location, options).await?, fault).await
            }
            fault => with_fault(fault, Some(location), self.inner.get_opts(location, options)).await,
        }
    }

    async fn get_ranges(&self, location: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.fault(Operation::GetRange, Some(location)) {
            Some(fault @ (Fault::Truncated | Fault::FlippedBit)) => {
                let bodies = self.inner.get_ranges(location, ranges).await?;
                Ok(bodies.into_iter().map(|body| damaged_bytes(body, fault)).collect())
            }
            fault => with_fault(fault, Some(location), self.inner.get_ranges(location, ranges)).await,
        }
    }

    /// Deletes one by one, whatever the wrapped store could do at once, so that each key can fail on its own.
    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        let this = self.clone();
        let delete = move |location: Result<Key>| {
            let this = this.clone();
            async move {
                let location = location?;
                let fault = this.fault(Operation::Delete, Some(&location));
                with_fault(fault, Some(&location), this.inner.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, || self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Key>, offset: &Key) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, || self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        match self.fault(Operation::List, prefix) {
            Some(Fault::ShortList) => {
                let mut listed = self.inner.list_with_delimiter(prefix).await?;
                listed.objects.pop();
                Ok(listed)
            }
            fault => with_fault(fault, prefix, self.inner.list_with_delimiter(prefix)).await,
        }
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        let fault = self.fault(Operation::Copy, Some(to));
        with_fault(fault, Some(to), self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<()> {
        let fault = self.fault(Operation::Copy, Some(to));
        with_fault(fault, Some(to), self.inner.rename_opts(from, to, options)).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::error::ErrorKind;
    use crate::store::{CreateAnswer, Store};

    /// A store whose first call goes wrong, over a memory that holds `k` and what is below `k`.
    async fn first_call(fault: Fault) -> (Store, Arc<InMemory>, FaultStore) {
        let memory = Arc::new(InMemory::new());
        memory.put(&Key::from("k"), "0123456789".into()).await.unwrap();
        let faulty = FaultStore::at(Arc::clone(&memory) as Arc<dyn ObjectStore>, 0, fault);
        (Store::new(Arc::new(faulty.clone()), "test"), memory, faulty)
    }

    async fn body(memory: &InMemory, key: &Key) -> Option<Bytes> {
        memory.get(key).await.ok()?.bytes().await.ok()
    }

    #[tokio::test]
    async fn a_write_fails_before_or_after_it_is_done() {
        let new = Key::from("new");
        for (fault, done) in [
            (Fault::Before(Failure::Server), false),
            (Fault::Before(Failure::Exists), false),
            (Fault::After(Failure::Timeout), true),
            (Fault::After(Failure::Exists), true),
        ] {
            let (store, memory, _) = first_call(fault).await;
            assert!(
                matches!(store.create(&new, "1".into(), PutMode::Create).await, CreateAnswer::Unclear(_)),
                "{fault:?}"
            );
            assert_eq!(body(&memory, &new).await.is_some(), done, "{fault:?}");
            let (store, memory, _) = first_call(fault).await;
            assert_eq!(store.put(&new, "1".into()).await.unwrap_err().kind(), ErrorKind::Unavailable, "{fault:?}");
            assert_eq!(body(&memory, &new).await.is_some(), done, "{fault:?}");
            let (store, memory, _) = first_call(fault).await;
            assert!(store.delete(vec![Key::from("k")]).await.is_err(), "{fault:?}");
            assert_eq!(body(&memory, &Key::from("k")).await.is_none(), done, "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_late_write_lands_later_and_may_find_its_place_taken() {
        let (store, memory, faulty) = first_call(Fault::Late).await;
        let key = Key::from("new");
        assert!(matches!(store.create(&key, "late".into(), PutMode::Create).await, CreateAnswer::Unclear(_)));
        assert_eq!(body(&memory, &key).await, None);
        assert!(matches!(store.create(&key, "other".into(), PutMode::Create).await, CreateAnswer::Created));
        let landed = faulty.land().await;
        assert!(matches!(landed.as_slice(), [Err(object_store::Error::AlreadyExists { .. })]), "{landed:?}");
        assert_eq!(body(&memory, &key).await, Some("other".into()));
        assert!(faulty.land().await.is_empty());
    }

    #[tokio::test]
    async fn conditions_are_ignored_or_raced_for() {
        let key = Key::from("k");
        let (store, memory, _) = first_call(Fault::Overwrite).await;
        assert!(matches!(store.create(&key, "new".into(), PutMode::Create).await, CreateAnswer::Created));
        assert_eq!(body(&memory, &key).await, Some("new".into()));

        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let store = Store::new(Arc::new(FaultStore::from(memory, 0, Fault::Race)), "test");
        let both = futures::join!(
            store.create(&key, "1".into(), PutMode::Create),
            store.create(&key, "2".into(), PutMode::Create)
        );
        assert!(matches!(both, (CreateAnswer::Created, CreateAnswer::Created)));
        assert!(matches!(store.create(&key, "3".into(), PutMode::Create).await, CreateAnswer::Unclear(_)));
    }

    #[tokio::test]
    async fn reads_are_damaged() {
        let key = Key::from("k");
        let (store, ..) = first_call(Fault::Truncated).await;
        assert_eq!(store.get(&key, 100).await.unwrap_err().kind(), ErrorKind::Unavailable);
        let (store, ..) = first_call(Fault::Truncated).await;
        assert_eq!(store.get_range(&key, 2..8).await.unwrap_err().kind(), ErrorKind::Unavailable);
        let (store, ..) = first_call(Fault::FlippedBit).await;
        assert_eq!(store.get(&key, 100).await.unwrap().unwrap(), "0123446789");
        let (store, ..) = first_call(Fault::Before(Failure::NotFound)).await;
        assert_eq!(store.get(&key, 100).await.unwrap(), None);
        assert_eq!(store.get(&key, 100).await.unwrap().unwrap(), "0123456789");
    }

    #[tokio::test]
    async fn lists_are_short_or_end_with_an_error() {
        let (store, ..) = first_call(Fault::ShortList).await;
        assert!(store.list(&Key::default(), 10).await.unwrap().is_empty());
        assert_eq!(store.list(&Key::default(), 10).await.unwrap().len(), 1);
        for fault in [Fault::Before(Failure::Server), Fault::After(Failure::Server)] {
            let (store, ..) = first_call(fault).await;
            assert_eq!(store.list(&Key::default(), 10).await.unwrap_err().kind(), ErrorKind::Unavailable);
        }
    }

    #[tokio::test]
    async fn calls_are_counted_and_plans_see_them() {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let plan = |call: &Call| {
            let hit = call.operation == Operation::Delete && call.key.as_ref() == "b";
            hit.then_some(Fault::Before(Failure::Denied))
        };
        let faulty = FaultStore::new(Arc::clone(&memory), plan);
        let store = Store::new(Arc::new(faulty.clone()), "test");
        let keys = ["a", "b", "c"].map(Key::from);
        for key in &keys {
            store.put(key, "x".into()).await.unwrap();
        }
        assert_eq!(store.delete(keys.to_vec()).await.unwrap_err().kind(), ErrorKind::Denied);
        let left: Vec<_> = memory.list(None).map_ok(|object| object.location).try_collect().await.unwrap();
        assert_eq!(left, [Key::from("b")], "the others were deleted all the same");
        assert_eq!(faulty.calls(), 6);

        let gone = FaultStore::from(memory, 1, Fault::Before(Failure::Timeout));
        assert!(gone.get(&keys[1]).await.is_ok());
        assert!(gone.get(&keys[1]).await.is_err() && gone.head(&keys[1]).await.is_err());
    }
}
