//! Keeps what is sent and received below a number of bytes per second.
//!
//! Each direction is paid for afterwards: a body goes at once if everything before it has been paid for, and its own
//! cost delays what follows. So one pack is sent at the speed of the line and the average over several holds the
//! limit; a body that is received is slowed down piece by piece. Deletes, listings and commits are small and free.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::time::{Instant, sleep_until};

/// What may be spent on one direction.
#[derive(Debug)]
struct Budget {
    bytes_per_second: u64,
    paid_at: Mutex<Option<Instant>>,
}

impl Budget {
    fn new(bytes_per_second: u64) -> Arc<Self> {
        Arc::new(Self { bytes_per_second: bytes_per_second.max(1), paid_at: Mutex::new(None) })
    }

    /// Waits until everything before is paid for, and owes `bytes` from then on.
    async fn spend(&self, bytes: u64) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let begin = {
            let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let begin = paid_at.map_or(now, |paid_at| paid_at.max(now));
            *paid_at = Some(begin + cost);
            begin
        };
        sleep_until(begin).await;
    }
}

async fn spend(budget: Option<&Arc<Budget>>, bytes: u64) {
    if let Some(budget) = budget {
        budget.spend(bytes).await;
    }
}

/// Passes every call on, not faster than allowed.
#[derive(Debug)]
pub(super) struct RateLimitedStore {
    inner: Arc<dyn ObjectStore>,
    upload: Option<Arc<Budget>>,
    download: Option<Arc<Budget>>,
}

impl RateLimitedStore {
    /// Limits in bytes per second; `None`: no limit.
    pub(super) fn new(inner: Arc<dyn ObjectStore>, upload: Option<u64>, download: Option<u64>) -> Self {
        Self { inner, upload: upload.map(Budget::new), download: download.map(Budget::new) }
    }
}

impl fmt::Display for RateLimitedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for RateLimitedStore {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        spend(self.upload.as_ref(), payload.content_length() as u64).await;
        self.inner.put_opts(location, payload, opts).await
    }

    /// Parts are not limited: this library writes every object in one request.
    async fn put_multipart_opts(&self, location: &Key, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        let answer = self.inner.get_opts(location, options).await?;
        let Some(budget) = self.download.clone() else { return Ok(answer) };
        let (meta, range) = (answer.meta.clone(), answer.range.clone());
        let (attributes, extensions) = (answer.attributes.clone(), answer.extensions.clone());
        let slowed = answer.into_stream().and_then(move |piece| {
            let budget = Arc::clone(&budget);
            async move {
                budget.spend(piece.len() as u64).await;
                Ok(piece)
            }
        });
        Ok(GetResult { payload: GetResultPayload::Stream(slowed.boxed()), meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, location: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let answer = self.inner.get_ranges(location, ranges).await?;
        spend(self.download.as_ref(), answer.iter().map(|range| range.len() as u64).sum()).await;
        Ok(answer)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Key>, offset: &Key) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    const KIB: u64 = 1024;

    fn limited(upload: Option<u64>, download: Option<u64>) -> RateLimitedStore {
        RateLimitedStore::new(Arc::new(InMemory::new()), upload, download)
    }

    // The clock of these tests stands still but for waiting, so they take no time and are exact.
    #[tokio::test(start_paused = true)]
    async fn the_average_of_uploads_holds_the_limit() {
        let store = limited(Some(10 * KIB), None);
        let begin = Instant::now();
        let put = |n: u32| {
            let (store, key) = (&store, Key::from(n.to_string()));
            async move { store.put(&key, vec![0; 5 * 1024].into()).await }
        };
        futures::future::try_join_all((0..9).map(put)).await.unwrap();
        // The first goes at once, each of the others waits half a second for the one before.
        assert_eq!(begin.elapsed().as_millis(), 4000);
        store.get(&Key::from("0")).await.unwrap().bytes().await.unwrap();
        assert_eq!(begin.elapsed().as_millis(), 4000, "a download is not limited");
    }

    #[tokio::test(start_paused = true)]
    async fn downloads_are_slowed_down_and_whole() {
        let store = limited(None, Some(2 * KIB));
        let key = Key::from("k");
        store.put(&key, vec![7; 3 * 1024].into()).await.unwrap();
        let begin = Instant::now();
        for _ in 0..3 {
            let body = store.get(&key).await.unwrap().bytes().await.unwrap();
            assert_eq!(body, vec![7; 3 * 1024]);
        }
        assert_eq!(begin.elapsed().as_millis(), 3000);
        assert_eq!(store.get_range(&key, 1..3).await.unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_passed_unused_is_not_saved_up() {
        let budget = Budget::new(KIB);
        budget.spend(KIB).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let begin = Instant::now();
        budget.spend(KIB).await;
        budget.spend(KIB).await;
        assert_eq!(begin.elapsed().as_millis(), 1000);
    }
}
