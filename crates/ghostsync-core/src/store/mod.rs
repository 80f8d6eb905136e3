//! The object store: from a URL to requests with a limit on every length, and with every error told apart.

mod cloud;
mod count;
mod credentials;
mod failure;
pub mod keys;
mod limit;
mod local;
mod open;
mod probe;
mod range;
mod split;
pub(crate) mod variables;
mod webdav;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetResult, GetResultPayload, ObjectMeta, ObjectStore, PutMode, PutOptions, PutPayload};
use serde::Serialize;

use self::count::{CountingStore, Counts};
use self::failure::{failure, is_absent, is_out_of_range, is_unreachable};
use self::range::FileRange;
use crate::error::{Error, ErrorKind, Result};
use crate::rooms::Rooms;

pub use open::{StoreSettings, open_url};
pub use probe::{ProbeReport, probe};
pub(crate) use range::StoredRange;

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

impl RequestCounts {
    /// The requests made since an earlier count.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            put: self.put.saturating_sub(earlier.put),
            get: self.get.saturating_sub(earlier.get),
            list: self.list.saturating_sub(earlier.list),
            delete: self.delete.saturating_sub(earlier.delete),
            head: self.head.saturating_sub(earlier.head),
        }
    }
}

/// How long a lost answer is asked after, unless somebody says otherwise.
const SETTLE_TIME: Duration = Duration::from_secs(60);

/// How long a write is waited for that only saves others a request.
const HINT_TIME: Duration = Duration::from_secs(5);

/// Where a repository lies. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    commits: Arc<dyn ObjectStore>,
    counts: Arc<Counts>,
    location: String,
    /// Tells this place from every other; `None` where nothing outlives the process.
    identity: Option<String>,
    folder: Option<PathBuf>,
    settle_time: Duration,
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
    Unclear(Error),
}

impl Store {
    /// Takes any object store; the repository lies at its root (use `object_store::prefix::PrefixStore` to put it
    /// elsewhere). `location` is shown in messages. Retries, if any, are the store's own; a second handle without
    /// retries for commits is given by [`Store::with_commit_handle`].
    pub fn new(objects: Arc<dyn ObjectStore>, location: impl Into<String>) -> Self {
        let counts = Arc::new(Counts::default());
        let objects: Arc<dyn ObjectStore> = Arc::new(CountingStore::new(objects, Arc::clone(&counts)));
        let location = location.into();
        let identity = Some(location.clone());
        Self {
            commits: Arc::clone(&objects),
            objects,
            counts,
            location,
            identity,
            folder: None,
            settle_time: SETTLE_TIME,
        }
    }

    /// How long the lost answer to a commit is asked after, before its outcome is reported as unknown; default 60 s.
    #[must_use]
    pub fn with_settle_time(mut self, settle_time: Duration) -> Self {
        self.settle_time = settle_time;
        self
    }

    pub(crate) fn settle_time(&self) -> Duration {
        self.settle_time
    }

    /// Creates commits through this handle, whose own retries should be off: a retry inside a client can turn
    /// our own applied write into "already exists", which costs one more read.
    #[must_use]
    pub fn with_commit_handle(mut self, commits: Arc<dyn ObjectStore>) -> Self {
        self.commits = Arc::new(CountingStore::new(commits, Arc::clone(&self.counts)));
        self
    }

    /// Names the place for caches: a bucket of one name may lie behind several endpoints.
    fn known_as(mut self, identity: Option<String>) -> Self {
        self.identity = identity;
        self
    }

    /// Tells this place from every other, for caches; `None` where nothing outlives the process.
    pub(crate) fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    fn in_folder(mut self, folder: PathBuf) -> Self {
        self.folder = Some(folder);
        self
    }

    /// The folder of a local store, absolute; `None` for any other.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Where the repository lies, as it is shown in messages.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The requests made so far through this store and its clones.
    #[must_use]
    pub fn requests(&self) -> RequestCounts {
        self.counts.so_far()
    }

    /// The answers so far through this store and its clones, by what was asked (as in [`RequestCounts`]) and by a code:
    /// `ok`, `not-modified`, `exists`, `precondition`, or the kind of the error.
    #[must_use]
    pub fn answers(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        self.counts.answers()
    }

    /// The bytes of bodies received so far through this store and its clones.
    pub fn received_bytes(&self) -> u64 {
        self.counts.received_bytes()
    }

    /// The bytes of bodies sent so far through this store and its clones, acknowledged or not.
    pub fn sent_bytes(&self) -> u64 {
        self.counts.sent_bytes()
    }

    /// Reads a whole object of at most `limit` bytes; `None` if it is not there.
    pub(crate) async fn get(&self, key: &Key, limit: u64) -> Result<Option<Bytes>> {
        let answer = match self.objects.get_opts(key, GetOptions::default()).await {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(self.failure("read", key, error)),
        };
        let size = answer.meta.size;
        if size > limit {
            return Err(self.corrupt(key, format!("has {size} bytes, at most {limit} are allowed")));
        }
        self.read_body(key, answer, size).await.map(Some)
    }

    /// Reads a range, exactly; an object that is not there or shorter is an error of kind `NotFound` or `Corrupt`.
    pub(crate) async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        match self.open_range(key, range).await? {
            StoredRange::Received(bytes) => Ok(bytes),
            StoredRange::InFile(file) => blocking(move || file.read(&Rooms::single_use())).await,
        }
    }

    /// Asks for a range as [`Store::get_range`] does; of a local store only its file is opened.
    pub(crate) async fn open_range(&self, key: &Key, range: Range<u64>) -> Result<StoredRange> {
        let Some(length) = range.end.checked_sub(range.start) else {
            return Err(Error::internal(format!("range {range:?} of {key} ends before it begins")));
        };
        // Stores differ on empty ranges; nobody needs to be asked for nothing.
        if length == 0 {
            return Ok(StoredRange::Received(Bytes::new()));
        }
        let answer = match self.objects.get_opts(key, GetOptions::new().with_range(Some(range.clone()))).await {
            Ok(answer) => answer,
            Err(error) if is_out_of_range(&error) => {
                return Err(self.corrupt(key, format!("ends before byte {}", range.start)));
            }
            Err(error) => return Err(self.failure("read", key, error)),
        };
        // A store that knows the object to be shorter answers with what there is.
        if answer.meta.size < range.end {
            return Err(self.corrupt(key, format!("has {} bytes, {} are expected", answer.meta.size, range.end)));
        }
        let GetResultPayload::File(file, _) = answer.payload else {
            return self.read_body(key, answer, length).await.map(StoredRange::Received);
        };
        self.counts.receive(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(StoredRange::InFile(FileRange::new(file, key, &self.location, range)))
    }

    /// Reads the body of an answer, which must be exactly so long: nothing is kept beyond that, whatever comes.
    ///
    /// A client tries again for a time that begins with its request, and a long body on a slow line outlasts that. So
    /// when a connection breaks, the rest is asked for anew, as long as each answer brings something.
    async fn read_body(&self, key: &Key, answer: GetResult, length: u64) -> Result<Bytes> {
        if matches!(answer.payload, GetResultPayload::File(..)) {
            // One read; as a stream a file comes in pieces of 8 KiB, each by way of another thread.
            let bytes = answer.bytes().await.map_err(|error| self.failure("read", key, error))?;
            self.counts.receive(bytes.len());
            return if bytes.len() as u64 == length {
                Ok(bytes)
            } else {
                Err(cut_short(key, bytes.len() as u64, length))
            };
        }
        let (begin, etag) = (answer.range.start, answer.meta.e_tag.clone());
        let mut body = answer.into_stream();
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut received = 0_u64;
        let mut received_before = 0;
        loop {
            let piece = match body.try_next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) if received > received_before && is_unreachable(&error) => {
                    received_before = received;
                    let rest = begin.saturating_add(received)..begin.saturating_add(length);
                    let options = GetOptions::new().with_range(Some(rest)).with_if_match(etag.clone());
                    let answer = self.objects.get_opts(key, options).await;
                    body = answer.map_err(|error| self.failure("read", key, error))?.into_stream();
                    continue;
                }
                Err(error) => return Err(self.failure("read", key, error)),
            };
            self.counts.receive(piece.len());
            received = received.saturating_add(piece.len() as u64);
            if received > length {
                break;
            }
            // A body that comes in one piece is handed on without a copy.
            if first.is_empty() && rest.is_empty() {
                first = piece;
            } else {
                if rest.is_empty() {
                    rest.reserve(usize::try_from(length).unwrap_or_default());
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&piece);
            }
        }
        if received != length {
            return Err(cut_short(key, received, length));
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }

    /// Writes an object, replacing what is there.
    pub(crate) async fn put(&self, key: &Key, payload: PutPayload) -> Result<()> {
        match self.objects.put_opts(key, payload, PutOptions::default()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure("write", key, error)),
        }
    }

    /// Writes an object that nobody relies on: one request, no retry, and no longer than [`HINT_TIME`].
    pub(crate) async fn try_put(&self, key: &Key, bytes: Bytes) {
        let put = self.commits.put_opts(key, bytes.into(), PutOptions::default());
        drop(tokio::time::timeout(HINT_TIME, put).await);
    }

    /// Creates an object through the commit handle, one request, no retry; `Overwrite` is for a key that nobody else
    /// ever uses.
    pub(crate) async fn create(&self, key: &Key, bytes: Bytes, mode: PutMode) -> CreateAnswer {
        match self.commits.put_opts(key, bytes.into(), PutOptions::from(mode)).await {
            Ok(_) => CreateAnswer::Created,
            Err(error) => CreateAnswer::Unclear(self.failure("create", key, error)),
        }
    }

    /// Lists objects below a prefix, in no order: at most `most` of them. Whatever lies there is listed, also what
    /// this library did not put there; a local store leaves out its own unfinished files.
    pub(crate) async fn list(&self, prefix: &Key, most: usize) -> Result<Vec<ObjectMeta>> {
        let prefix_or_all = (!prefix.as_ref().is_empty()).then_some(prefix);
        let listed = self.objects.list(prefix_or_all).take(most).try_collect().await;
        listed.map_err(|error| self.failure("list", prefix, error))
    }

    /// Calls a function for every object below a prefix, in no order, without keeping them all.
    pub(crate) async fn for_each(&self, prefix: &Key, mut each: impl FnMut(&ObjectMeta)) -> Result<()> {
        let mut listed = self.objects.list(Some(prefix));
        while let Some(object) = listed.try_next().await.map_err(|error| self.failure("list", prefix, error))? {
            each(&object);
        }
        Ok(())
    }

    /// The size in bytes of an object; `None` if it is not there.
    pub(crate) async fn size(&self, key: &Key) -> Result<Option<u64>> {
        match self.objects.get_opts(key, GetOptions::new().with_head(true)).await {
            Ok(answer) => Ok(Some(answer.meta.size)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failure("look at", key, error)),
        }
    }

    /// Deletes objects; one that is not there is as good as deleted. All are tried before an error is returned.
    pub(crate) async fn delete(&self, keys: Vec<Key>) -> Result<()> {
        let mut deleted = self.objects.delete_stream(futures::stream::iter(keys).map(Ok).boxed());
        let mut first_error = Ok(());
        while let Some(answer) = deleted.next().await {
            if let Err(error) = answer
                && !is_absent(&error)
                && first_error.is_ok()
            {
                first_error = Err(self.failure("delete objects such as", &key_of(&error), error));
            }
        }
        first_error
    }

    /// What interrupted writes left in a local store before a time (milliseconds since 1970): files that no listing
    /// shows. None on any other store.
    pub(crate) async fn unfinished(&self, before: i64) -> Result<Vec<PathBuf>> {
        let Some(folder) = self.folder.clone() else { return Ok(Vec::new()) };
        blocking(move || local::unfinished(&folder, before)).await
    }

    /// Deletes such files.
    pub(crate) async fn delete_unfinished(&self, files: Vec<PathBuf>) -> Result<()> {
        blocking(move || local::delete_unfinished(&files)).await
    }

    fn failure(&self, action: &'static str, key: &Key, error: object_store::Error) -> Error {
        failure(action, key, &self.location, error)
    }

    fn corrupt(&self, key: &Key, what: String) -> Error {
        Error::corrupt(format!("{key} in {} {what}", self.location))
    }
}

/// The key that an error names, for a message.
fn key_of(error: &object_store::Error) -> Key {
    use object_store::Error as E;
    match error {
        E::PermissionDenied { path, .. } | E::Unauthenticated { path, .. } | E::NotFound { path, .. } => {
            Key::from(path.as_str())
        }
        _ => Key::default(),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::internal(format!("work on the folder did not end: {error}")))?
}

fn cut_short(key: &Key, received: u64, length: u64) -> Error {
    let reason = format!("the store sent {received} bytes of {key} and had promised {length}");
    Error::new(ErrorKind::Unavailable, reason)
}
