//! The object store: from a URL to requests with a limit on every length, and with every error told apart.

pub mod keys;
mod open;
mod probe;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path as Key;
use serde::Serialize;

use crate::error::Result;

pub use open::{StoreSettings, open_url};
pub use probe::{ProbeReport, probe};

/// Requests made so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RequestCounts {
    /// Objects written, commits included.
    pub put: u64,
    /// Objects or ranges read; one that was not there counts too.
    pub get: u64,
    /// Listings.
    pub list: u64,
    /// Objects deleted.
    pub delete: u64,
    /// Objects looked at without reading them.
    pub head: u64,
}

/// Where a repository lies. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    commits: Arc<dyn ObjectStore>,
    location: String,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.location)
    }
}

/// What one attempt to create an object said; only [`CreateAnswer::Created`] is proof of anything.
#[derive(Debug)]
pub(crate) enum CreateAnswer {
    /// The store says that it made the object.
    Created,
    /// Any error: the object may be ours, another's, or not there.
    Unclear(crate::error::Error),
}

impl Store {
    /// Takes any object store; the repository lies at its root (use `object_store::prefix::PrefixStore` to put it
    /// elsewhere). `location` is shown in messages. Retries, if any, are the store's own; a second handle without
    /// retries for commits is given by [`Store::with_commit_handle`].
    pub fn new(objects: Arc<dyn ObjectStore>, location: impl Into<String>) -> Self {
        Self { commits: Arc::clone(&objects), objects, location: location.into() }
    }

    /// Creates commits through this handle, whose own retries should be off: a retry inside a client can turn
    /// our own applied write into "already exists", which costs one more read.
    #[must_use]
    pub fn with_commit_handle(mut self, commits: Arc<dyn ObjectStore>) -> Self {
        self.commits = commits;
        self
    }

    /// Where the repository lies, as it is shown in messages.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The requests made so far through this store and its clones.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        unimplemented!()
    }

    /// Reads a whole object of at most `limit` bytes; `None` if it is not there.
    pub(crate) async fn get(&self, key: &Key, limit: u64) -> Result<Option<Bytes>> {
        let _ = (key, limit);
        unimplemented!()
    }

    /// Reads a range, exactly; an object that is not there or shorter is an error of kind `NotFound` or `Corrupt`.
    pub(crate) async fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes> {
        let _ = (key, range);
        unimplemented!()
    }

    /// Writes an object, replacing what is there.
    pub(crate) async fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        let _ = (key, bytes);
        unimplemented!()
    }

    /// Creates an object through the commit handle, one request, no retry.
    pub(crate) async fn create(&self, key: &Key, bytes: Bytes) -> CreateAnswer {
        let _ = (key, bytes);
        unimplemented!()
    }

    /// Lists objects below a prefix, in no order: at most `most` of them.
    pub(crate) async fn list(&self, prefix: &Key, most: usize) -> Result<Vec<object_store::ObjectMeta>> {
        let _ = (prefix, most);
        unimplemented!()
    }

    /// The size in bytes of an object; `None` if it is not there.
    pub(crate) async fn size(&self, key: &Key) -> Result<Option<u64>> {
        let _ = key;
        unimplemented!()
    }
}
