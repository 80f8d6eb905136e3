//! A store that remembers what was asked of it, in order.

use std::fmt;
use std::ops::Range;
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

pub use super::operation::Operation;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What was asked.
    pub operation: Operation,
    /// The key, or the prefix of a listing; empty for a listing of everything.
    pub key: Key,
    /// How many bytes were to be written, or were found by a read; 0 for everything else and for a failed read.
    pub bytes: u64,
}

/// Passes every call on and remembers it. Clones share what they remember.
#[derive(Debug, Clone)]
pub struct RecordingStore {
    inner: Arc<dyn ObjectStore>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl RecordingStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, requests: Arc::default() }
    }

    /// The requests so far, in the order in which they were begun (deletes: in which they were asked for).
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.lock().clone()
    }

    /// The requests since the last call, which are forgotten.
    #[must_use]
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.lock())
    }

    /// How many requests of a kind there were.
    #[must_use]
    pub fn count(&self, operation: Operation) -> usize {
        self.lock().iter().filter(|request| request.operation == operation).count()
    }

    /// How many bytes the requests of a kind carried.
    #[must_use]
    pub fn bytes(&self, operation: Operation) -> u64 {
        self.lock().iter().filter(|request| request.operation == operation).map(|request| request.bytes).sum()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number under which the request is remembered.
    fn note(&self, operation: Operation, key: Option<&Key>, bytes: u64) -> usize {
        let mut requests = self.lock();
        requests.push(Request { operation, key: key.cloned().unwrap_or_default(), bytes });
        requests.len() - 1
    }

    fn note_bytes(&self, number: usize, bytes: u64) {
        // A list that was taken in between has no such number any more.
        if let Some(request) = self.lock().get_mut(number) {
            request.bytes = bytes;
        }
    }
}

impl fmt::Display for RecordingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordingStore({})", self.inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for RecordingStore {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.note(Operation::of_put(&opts.mode), Some(location), payload.content_length() as u64);
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, location: &Key, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.note(Operation::Multipart, Some(location), 0);
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let number = self.note(Operation::of_get(&options), Some(location), 0);
        let answer = self.inner.get_opts(location, options).await?;
        if !head {
            self.note_bytes(number, answer.range.end.saturating_sub(answer.range.start));
        }
        Ok(answer)
    }

    async fn get_ranges(&self, location: &Key, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let number = self.note(Operation::GetRange, Some(location), 0);
        let answer = self.inner.get_ranges(location, ranges).await?;
        self.note_bytes(number, answer.iter().map(|range| range.len() as u64).sum());
        Ok(answer)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        let this = self.clone();
        let note = move |location: &Result<Key>| {
            this.note(Operation::Delete, location.as_ref().ok(), 0);
        };
        self.inner.delete_stream(locations.inspect(note).boxed())
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.note(Operation::List, prefix, 0);
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Key>, offset: &Key) -> BoxStream<'static, Result<ObjectMeta>> {
        self.note(Operation::List, prefix, 0);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        self.note(Operation::List, prefix, 0);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.note(Operation::Copy, Some(to), 0);
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Key, to: &Key, options: RenameOptions) -> Result<()> {
        self.note(Operation::Copy, Some(to), 0);
        self.inner.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::PutMode;
    use object_store::memory::InMemory;

    use super::*;
    use crate::store::{RequestCounts, Store};

    #[tokio::test]
    async fn requests_are_remembered_in_order_and_counted_alike() {
        let recording = RecordingStore::new(Arc::new(InMemory::new()));
        let store = Store::new(Arc::new(recording.clone()), "test");
        let (a, b) = (Key::from("log/a"), Key::from("log/b"));
        store.put(&a, Bytes::from_static(b"12345").into()).await.unwrap();
        assert!(matches!(
            store.create(&b, Bytes::from_static(b"123"), PutMode::Create).await,
            crate::store::CreateAnswer::Created
        ));
        assert!(store.get(&b, 10).await.unwrap().is_some());
        store.get_range(&a, 1..3).await.unwrap();
        assert!(store.get(&Key::from("none"), 10).await.unwrap().is_none());
        assert_eq!(store.size(&a).await.unwrap(), Some(5));
        store.list(&Key::from("log"), 10).await.unwrap();
        store.delete(vec![a.clone(), b.clone()]).await.unwrap();

        let request = |operation, key: &Key, bytes| Request { operation, key: key.clone(), bytes };
        let expected = [
            request(Operation::Put, &a, 5),
            request(Operation::Create, &b, 3),
            request(Operation::Get, &b, 3),
            request(Operation::GetRange, &a, 2),
            request(Operation::Get, &Key::from("none"), 0),
            request(Operation::Head, &a, 0),
            request(Operation::List, &Key::from("log"), 0),
            request(Operation::Delete, &a, 0),
            request(Operation::Delete, &b, 0),
        ];
        assert_eq!(recording.requests(), expected);
        assert_eq!((recording.count(Operation::Get), recording.bytes(Operation::Get)), (2, 3));
        assert_eq!(store.requests(), RequestCounts { put: 2, get: 3, list: 1, delete: 2, head: 1 });
        assert_eq!(recording.take().len(), 9);
        assert!(recording.requests().is_empty());
    }
}
