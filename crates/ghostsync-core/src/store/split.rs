//! Sends writes through one client and everything else through another.
//!
//! A read that has been silent for a while is given up and repeated. The same limit on a write would count the time
//! that the body takes to be sent, and fail a large object on a slow line for ever; so a write goes through a client
//! whose only limit is that of the whole request, which is long. While a write takes its time, the store is asked
//! something small now and then: if that finds nobody for as long as a store is tried, the write has nobody to go to.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::BoxStream;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use tokio::time::timeout;

use super::failure::is_unreachable;

/// Two clients of one store.
#[derive(Debug)]
pub(super) struct SplitStore {
    pub(super) reads: Arc<dyn ObjectStore>,
    pub(super) writes: Arc<dyn ObjectStore>,
    /// How long a write goes on before the store is asked whether it is there.
    pub(super) ask_after: Duration,
}

impl fmt::Display for SplitStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reads.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for SplitStore {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let mut write = self.writes.put_opts(location, payload, opts);
        loop {
            if let Ok(answer) = timeout(self.ask_after, &mut write).await {
                return answer;
            }
            let asked = self.reads.get_opts(location, GetOptions::new().with_head(true));
            write = match select(write, asked).await {
                Either::Left((answer, _)) => return answer,
                Either::Right((Err(error), _)) if is_unreachable(&error) => return Err(error),
                Either::Right((_, write)) => write,
            };
        }
    }

    async fn put_multipart_opts(&self, location: &Key, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.writes.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        self.reads.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        self.reads.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reads.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Key>, offset: &Key) -> BoxStream<'static, Result<ObjectMeta>> {
        self.reads.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.reads.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.writes.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<()> {
        self.writes.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    use tokio::time::Instant;

    use super::*;
    use crate::testing::fault::{Failure, Fault, FaultStore};

    const HOUR: Duration = Duration::from_secs(3600);

    /// A store whose writes take an hour.
    fn split(reads: Arc<dyn ObjectStore>) -> SplitStore {
        let slow = ThrottleConfig { wait_put_per_call: HOUR, ..ThrottleConfig::default() };
        let writes = Arc::new(ThrottledStore::new(InMemory::new(), slow));
        SplitStore { reads, writes, ask_after: Duration::from_secs(10) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_may_take_its_time_while_the_store_answers() {
        let begin = Instant::now();
        split(Arc::new(InMemory::new())).put(&Key::from("k"), "content".into()).await.unwrap();
        assert!(begin.elapsed() >= HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_to_a_store_that_is_gone_ends_when_a_read_finds_nobody() {
        let begin = Instant::now();
        let gone = FaultStore::new(Arc::new(InMemory::new()), |_| Some(Fault::Before(Failure::Timeout)));
        let error = split(Arc::new(gone)).put(&Key::from("k"), "content".into()).await.unwrap_err();
        assert!(is_unreachable(&error), "{error}");
        assert!(begin.elapsed() < HOUR / 10);
    }
}
