//! Counts the requests that go to a store, and what came of them.
//!
//! What a client repeats on its own, and the pages of a listing, are not seen here: the counts say what was asked
//! for, which is what a test can predict.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::RequestCounts;
use super::failure::code;

/// The running counts that several handles share.
#[derive(Debug, Default)]
pub(super) struct Counts {
    put: AtomicU64,
    get: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    head: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// By operation and code.
    answers: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl Counts {
    pub(super) fn answers(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn answer(&self, operation: &'static str, code: &'static str) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry((operation, code)).or_default() += 1;
    }

    /// Counts an answer, and passes it on.
    fn answered<T>(&self, operation: &'static str, answer: Result<T>) -> Result<T> {
        self.answer(operation, answer.as_ref().err().map_or("ok", code));
        answer
    }

    /// Counts a listing that begins, and at its end what came of it.
    fn listed<T: Send + 'static>(
        self: &Arc<Self>,
        listing: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        one_more(&self.list);
        let mut listed = Listed { counts: Arc::clone(self), code: "ok" };
        let look = move |found: &Result<T>| {
            // All of it belongs to the listing, and is dropped with it.
            let listed = &mut listed;
            listed.code = found.as_ref().err().map_or(listed.code, code);
        };
        listing.inspect(look).boxed()
    }

    pub(super) fn so_far(&self) -> RequestCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RequestCounts {
            put: read(&self.put),
            get: read(&self.get),
            list: read(&self.list),
            delete: read(&self.delete),
            head: read(&self.head),
        }
    }

    pub(super) fn receive(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn send(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// A listing under way: whoever asked for it may drop it before its end.
struct Listed {
    counts: Arc<Counts>,
    code: &'static str,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.counts.answer("list", self.code);
    }
}

/// Passes every call on, and counts it.
#[derive(Debug)]
pub(super) struct CountingStore {
    inner: Arc<dyn ObjectStore>,
    counts: Arc<Counts>,
}

impl CountingStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, counts: Arc<Counts>) -> Self {
        Self { inner, counts }
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for CountingStore {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        one_more(&self.counts.put);
        self.counts.send(payload.content_length());
        self.counts.answered("put", self.inner.put_opts(location, payload, opts).await)
    }

    async fn put_multipart_opts(&self, location: &Key, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        one_more(&self.counts.put);
        self.counts.answered("put", self.inner.put_multipart_opts(location, opts).await)
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { "head" } else { "get" };
        one_more(if options.head { &self.counts.head } else { &self.counts.get });
        self.counts.answered(operation, self.inner.get_opts(location, options).await)
    }

    async fn get_ranges(&self, location: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        one_more(&self.counts.get);
        self.counts.answered("get", self.inner.get_ranges(location, ranges).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        let (asked, told) = (Arc::clone(&self.counts), Arc::clone(&self.counts));
        let deleted = self.inner.delete_stream(locations.inspect(move |_| one_more(&asked.delete)).boxed());
        deleted.map(move |deleted| told.answered("delete", deleted)).boxed()
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counts.listed(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Key>, offset: &Key) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counts.listed(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        one_more(&self.counts.list);
        self.counts.answered("list", self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        one_more(&self.counts.put);
        self.counts.answered("put", self.inner.copy_opts(from, to, options).await)
    }

    async fn rename_opts(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<()> {
        one_more(&self.counts.put);
        self.counts.answered("put", self.inner.rename_opts(from, to, options).await)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::memory::InMemory;
    use object_store::{ObjectStoreExt, PutMode};

    use super::*;

    #[tokio::test]
    async fn every_answer_is_counted_by_what_it_says_and_none_before_it_has_come() {
        let counts = Arc::new(Counts::default());
        let store = CountingStore::new(Arc::new(InMemory::new()), Arc::clone(&counts));
        let (key, other) = (Key::from("key"), Key::from("other"));
        let create = || PutOptions::from(PutMode::Create);
        store.put_opts(&key, "1".into(), create()).await.expect("created");
        let tag = store.head(&key).await.expect("is there").e_tag;
        let there = store.put_opts(&key, "2".into(), create()).await;
        there.map(drop).expect_err("is there already");
        let unless = GetOptions { if_none_match: tag, ..GetOptions::default() };
        store.get_opts(&key, unless).await.map(drop).expect_err("has not moved");
        store.get(&other).await.map(drop).expect_err("is not there");
        let listing = store.list(None);
        assert_eq!(counts.answers().get(&("list", "ok")), None);
        listing.try_collect::<Vec<_>>().await.expect("listed");
        store.delete(&key).await.expect("deleted");
        let said = [
            (("delete", "ok"), 1),
            (("get", "not-found"), 1),
            (("get", "not-modified"), 1),
            (("head", "ok"), 1),
            (("list", "ok"), 1),
            (("put", "exists"), 1),
            (("put", "ok"), 1),
        ];
        assert_eq!(counts.answers(), said.into());
    }
}
