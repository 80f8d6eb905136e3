//! A repository: created once, opened by everyone, and looked at.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use object_store::PutMode;
use serde_json::Value;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Commit, Snapshot};
use crate::format::config::{CommitMode, Config, MAX_CONFIG_BYTES};
use crate::format::page::Placed;
use crate::guard::{Guard, Refusal};
use crate::history::{HeadCache, Log, Session};
use crate::id::{CommitHash, RepositoryId, SnapshotId};
use crate::store::{self, CreateAnswer, ProbeReport, Store, keys};
use crate::tree::{Pages, TreeReader};
use crate::tree_path::TreePath;

mod changes;

pub use crate::history::State;
pub use changes::{Claim, claim, hold, promote, reclaim, release, tag, wait_for_release};

/// More objects than cut-short probes leave.
const MAX_PROBE_LEFTOVERS: usize = 10_000;

/// How a repository is created.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// How commits are made visible.
    pub commit_mode: CommitMode,
    /// Trusts the store without probing it.
    pub skip_probe: bool,
    /// Opens the repository if there is one already, instead of refusing.
    pub if_missing: bool,
}

/// How a repository is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Where things are cached; losing it costs time, never data. `None`: a bounded cache in memory alone.
    pub cache_dir: Option<PathBuf>,
}

/// An open repository. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Store,
    config: Config,
    config_hash: CommitHash,
    pages: Arc<Pages>,
    /// This repository's own folder of the cache.
    cache: Option<PathBuf>,
}

/// Which snapshot is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The one whose id begins so.
    Id(String),
    /// The newest of the branch, or the n-th before it.
    Latest(u64),
    /// The newest of the branch that is not newer than this.
    At(jiff::Timestamp),
}

impl Repository {
    /// Creates a repository where nothing lies yet, after probing the store.
    ///
    /// # Errors
    /// `Refused` if anything lies under the prefix or the store fails the probe.
    pub async fn create(store: Store, create: CreateOptions, options: OpenOptions) -> Result<Self> {
        if create.if_missing {
            match Self::open(store.clone(), options.clone()).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                opened => return opened,
            }
        }
        // What a probe that was cut short left behind is nobody's.
        let found = store.list(&object_store::path::Path::default(), MAX_PROBE_LEFTOVERS).await?;
        if let Some(object) = found.iter().find(|object| !object.location.as_ref().starts_with("probe/")) {
            let reason = match store.size(&keys::config()).await? {
                Some(_) => format!("there is a repository at {} already", store.location()),
                None => format!("{} is not empty: {} lies there", store.location(), object.location),
            };
            return Err(Refusal::plain(Guard::Init, reason).into());
        }
        if !create.skip_probe {
            check_probe(&store::probe(&store).await?, create.commit_mode)?;
        }
        let config = Config::new(RepositoryId::random(), SystemClock.now(), create.commit_mode);
        let bytes = Bytes::from(config.encode()?);
        let mode = match create.commit_mode {
            CommitMode::Atomic => PutMode::Create,
            // The store cannot tell who is first; reading back finds most of those who make one at the same time.
            CommitMode::Detect => PutMode::Overwrite,
        };
        let unclear = match store.create(&keys::config(), bytes.clone(), mode).await {
            CreateAnswer::Created if create.commit_mode == CommitMode::Atomic => None,
            CreateAnswer::Created => Some(Error::internal("config.json was written and is not there")),
            CreateAnswer::Unclear(error) => Some(error),
        };
        if let Some(error) = unclear {
            match store.get(&keys::config(), MAX_CONFIG_BYTES).await? {
                Some(stored) if stored == bytes => {}
                Some(_) => {
                    let reason = format!("somebody else made a repository at {} just now", store.location());
                    return Err(Refusal::plain(Guard::Init, reason).into());
                }
                None => return Err(error),
            }
        }
        if let Some(folder) = cache_folder(&store, &options) {
            // What is cached for this place is about a repository that is gone.
            drop(std::fs::remove_dir_all(folder));
        }
        Self::with_config(store, &bytes, &options)
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Corrupt` if it has commits but no configuration, `Unsupported` if it is newer.
    pub async fn open(store: Store, options: OpenOptions) -> Result<Self> {
        // With a cached head the configuration need not be asked for: the first look at the head proves that
        // this is still the same repository.
        if let Some(folder) = cache_folder(&store, &options)
            && let Ok(bytes) = std::fs::read(folder.join("config.json"))
            && HeadCache::in_folder(&folder, CommitHash::of(&bytes)).load().is_some()
            && let Ok(repository) = Self::with_config(store.clone(), &bytes, &options)
        {
            return Ok(repository);
        }
        Self::open_afresh(store, options).await
    }

    async fn open_afresh(store: Store, options: OpenOptions) -> Result<Self> {
        let Some(bytes) = store.get(&keys::config(), MAX_CONFIG_BYTES).await? else {
            if store.list(&keys::log(), 1).await?.is_empty() {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no repository at {}", store.location())));
            }
            return Err(Error::corrupt(format!("{} has commits but no config.json", store.location())));
        };
        Self::with_config(store, &bytes, &options)
    }

    fn with_config(store: Store, bytes: &[u8], options: &OpenOptions) -> Result<Self> {
        let config = Config::decode(bytes)?;
        // A cache that cannot be written is none: everything works without, only slower.
        let cache = cache_folder(&store, options).filter(|folder| keep_config(folder, bytes).is_ok());
        let pages = Arc::new(Pages::new(store.clone(), cache.as_ref().map(|folder| folder.join("meta"))));
        Ok(Self { store, config, config_hash: CommitHash::of(bytes), pages, cache })
    }

    /// Which repository this is.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.config.repository
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The store that it lies in.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Reads pages of this repository's trees.
    pub(crate) fn pages(&self) -> &Arc<Pages> {
        &self.pages
    }

    /// Whether a cache folder is in use; `false` although one was given means that it cannot be written.
    #[must_use]
    pub fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// This repository's own folder of the cache.
    pub(crate) fn cache_folder(&self) -> Option<&std::path::Path> {
        self.cache.as_deref()
    }

    pub(crate) fn config_hash(&self) -> CommitHash {
        self.config_hash
    }

    pub(crate) fn head_cache(&self) -> Option<HeadCache> {
        self.cache.as_deref().map(|folder| HeadCache::in_folder(folder, self.config_hash))
    }

    /// The log of this repository's commits.
    pub(crate) fn log(&self) -> Log {
        let (store, mode) = (self.store.clone(), self.config.commit_mode);
        Log { store, config: self.config_hash, mode, cache: self.head_cache() }
    }

    /// Reads the newest state.
    ///
    /// # Errors
    /// `Corrupt` if the chain of commits does not hold.
    pub async fn state(&self) -> Result<State> {
        let cache = self.head_cache();
        let cached = cache.as_ref().and_then(HeadCache::load);
        let found = self.log().find_head(cached.as_ref()).await;
        let (state, bytes) = match found {
            Err(error) if error.kind() == ErrorKind::Corrupt && cached.is_some() => {
                self.check_still_there().await?;
                return Err(error);
            }
            found => found?,
        };
        if let (Some(cache), Some(bytes)) = (cache, bytes)
            && cached.is_none_or(|(_, cached)| cached != bytes)
        {
            cache.keep(state.commit.seq, &bytes);
        }
        Ok(state)
    }

    /// Tells whether anything was committed after a state: where commits are numbered, one request that asks for the
    /// next number alone. It does not notice a store that was wiped; [`Repository::state`] does.
    ///
    /// # Errors
    /// The store's.
    pub async fn has_moved(&self, since: &State) -> Result<bool> {
        self.log().has_moved(since).await
    }

    /// The cached head is gone from the store: tells a repository that is gone, or another, from one rolled back.
    async fn check_still_there(&self) -> Result<()> {
        let stored = self.store.get(&keys::config(), MAX_CONFIG_BYTES).await?;
        let location = self.store.location();
        let message = match stored {
            Some(bytes) if CommitHash::of(&bytes) == self.config_hash => return Ok(()),
            Some(_) => format!("{location} holds another repository than the cache knew; the cache was dropped"),
            None => format!("there is no repository at {location} any more"),
        };
        if let Some(folder) = &self.cache {
            // Everything in it is about a repository that is gone.
            drop(std::fs::remove_dir_all(folder));
        }
        Err(Error::new(ErrorKind::NotFound, message))
    }

    /// Begins to read the entries of a snapshot at and below a path, in tree order.
    pub fn entries(&self, snapshot: &Snapshot, below: &TreePath) -> Entries {
        Entries { reader: TreeReader::new(Arc::clone(&self.pages), &snapshot.tree, below.clone()) }
    }

    pub(crate) async fn change(
        &self,
        writer: &str,
        clock: &dyn Clock,
        function: impl FnMut(&State, &Session) -> Result<Option<(Commit, Value)>>,
    ) -> Result<Option<State>> {
        self.config.check_writable()?;
        self.log().change(writer, clock, function).await
    }

    /// Writes the verified content of a regular file, holes as zeros.
    ///
    /// # Errors
    /// `Invalid` if the entry is not a regular file; `Corrupt` if a chunk or the whole does not match its hash.
    pub async fn cat(&self, entry: &Placed, writer: &mut (dyn std::io::Write + Send)) -> Result<()> {
        crate::pack::write_content(&self.store, &self.pages, entry, writer).await
    }
}

/// Refuses a store that does not keep what a commit mode rests on, and tells whether another mode is possible.
fn check_probe(report: &ProbeReport, mode: CommitMode) -> Result<()> {
    if report.allows(mode) {
        return Ok(());
    }
    let broken = [&report.broken[..], &report.unusable].concat().join("; ");
    let refusal = if report.allows(CommitMode::Detect) {
        let reason = format!(
            "the store does not keep what commits rest on: {broken}; a repository in commit mode 'atomic' would lose \
             data here, and in commit mode 'detect' it would not"
        );
        Refusal::plain(Guard::Probe, reason)
    } else {
        let reason = format!("the store does not keep what commits rest on: {broken}; no commit mode is safe here");
        Refusal::plain(Guard::Init, reason)
    };
    Err(refusal.into())
}

/// The cache is kept by location, so that a repository can be opened without asking for its id.
fn cache_folder(store: &Store, options: &OpenOptions) -> Option<PathBuf> {
    let folder = options.cache_dir.as_ref()?;
    let name = blake3::hash(store.identity()?.as_bytes()).to_hex();
    Some(folder.join(&name.as_str()[..32]))
}

fn keep_config(folder: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let file = folder.join("config.json");
    if std::fs::read(&file).is_ok_and(|kept| kept == bytes) {
        // What is kept need not be written again, but the folder must still take other things.
        return tempfile::tempfile_in(folder).map(drop);
    }
    let temporary = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::write(temporary.path(), bytes)?;
    temporary.persist(file)?;
    Ok(())
}

/// The entries of a snapshot, a page at a time.
#[derive(Debug)]
pub struct Entries {
    reader: TreeReader,
}

impl Entries {
    /// Reads the next entries, never none; `None` at the end.
    ///
    /// # Errors
    /// `Corrupt` if a page does not match its reference, `NotFound` if its pack is gone.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Placed>>> {
        self.reader.next_page().await
    }
}

impl State {
    /// Finds the snapshot that is meant.
    ///
    /// # Errors
    /// `NotFound` if there is none, or no such branch; `Invalid` if the beginning of an id is ambiguous.
    pub fn select<'a>(&'a self, branch: &'a str, selector: &Selector) -> Result<&'a Snapshot> {
        let missing = |what: String| Error::new(ErrorKind::NotFound, what);
        if let Selector::Id(prefix) = selector {
            let begins = |id: SnapshotId| id.to_string().starts_with(prefix.as_str());
            let mut matching =
                self.commit.snapshots.iter().filter(|snapshot| begins(snapshot.id) || snapshot.was.is_some_and(begins));
            return match (matching.next(), matching.next()) {
                (Some(snapshot), None) => Ok(snapshot),
                (Some(_), Some(_)) => {
                    Err(Error::invalid(format!("several snapshots have ids that begin with {prefix}")))
                }
                (None, _) => Err(missing(format!("there is no snapshot {prefix}"))),
            };
        }
        if !self.commit.branches.contains_key(branch) {
            return Err(missing(format!("there is no branch {branch}")));
        }
        let mut newest_first = self.snapshots_of(branch).rev();
        let found = match selector {
            Selector::Id(_) => None,
            Selector::Latest(back) => usize::try_from(*back).ok().and_then(|back| newest_first.nth(back)),
            Selector::At(time) => newest_first.find(|snapshot| snapshot.time <= *time),
        };
        found.ok_or_else(|| {
            let count = self.snapshots_of(branch).count();
            missing(format!("branch {branch} has {count} snapshots, none of them is {selector}"))
        })
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(prefix) => f.write_str(prefix),
            Self::Latest(0) => f.write_str("latest"),
            Self::Latest(back) => write!(f, "latest~{back}"),
            Self::At(time) => write!(f, "@{time}"),
        }
    }
}

impl std::str::FromStr for Selector {
    type Err = Error;
    /// Parses `latest`, `latest~N`, `@TIME` (RFC 3339 with a zone), or at least 4 digits of an id.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!(
                "not a snapshot: {text:?}; give latest, latest~N, @TIME in RFC 3339, or at least 4 digits of an id"
            ))
        };
        if text == "latest" {
            return Ok(Self::Latest(0));
        }
        if let Some(back) = text.strip_prefix("latest~") {
            return back.parse().map(Self::Latest).map_err(|_| wrong());
        }
        if let Some(time) = text.strip_prefix('@') {
            return time.parse().map(Self::At).map_err(|_| wrong());
        }
        let is_id =
            (4..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_id { Ok(Self::Id(text.to_owned())) } else { Err(wrong()) }
    }
}
