//! A repository: created once, opened by everyone, and looked at.

use std::path::PathBuf;

use crate::error::Result;
use crate::format::commit::{Commit, Snapshot};
use crate::format::config::Config;
use crate::format::page::Placed;
use crate::id::{CommitHash, RepositoryId, SnapshotId};
use crate::store::Store;
use crate::tree_path::TreePath;

/// How a repository is created.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
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
    pages: std::sync::Arc<crate::tree::Pages>,
}

/// The newest commit, as it was read: the whole state of the repository.
#[derive(Debug, Clone)]
pub struct State {
    /// The commit; number 0 is the empty state.
    pub commit: Commit,
    /// The hash of its stored bytes; of `config.json` for number 0.
    pub hash: CommitHash,
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
        let _ = (store, create, options);
        unimplemented!()
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Corrupt` if it has commits but no configuration, `Unsupported` if it is newer.
    pub async fn open(store: Store, options: OpenOptions) -> Result<Self> {
        let _ = (store, options);
        unimplemented!()
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
    pub(crate) fn pages(&self) -> &std::sync::Arc<crate::tree::Pages> {
        &self.pages
    }

    /// Reads the newest state.
    ///
    /// # Errors
    /// `Corrupt` if the chain of commits does not hold.
    pub async fn state(&self) -> Result<State> {
        unimplemented!()
    }

    /// Begins to read the entries of a snapshot at and below a path, in tree order.
    ///
    /// # Errors
    /// None yet; they come with the first page.
    pub fn entries(&self, snapshot: &Snapshot, below: &TreePath) -> Entries {
        let _ = (snapshot, below);
        unimplemented!()
    }

    /// Writes the verified content of a regular file, holes as zeros.
    ///
    /// # Errors
    /// `Invalid` if the entry is not a regular file; `Corrupt` if a chunk or the whole does not match its hash.
    pub async fn cat(&self, entry: &Placed, writer: &mut (dyn std::io::Write + Send)) -> Result<()> {
        crate::pack::write_content(&self.store, &self.pages, entry, writer).await
    }
}

/// The entries of a snapshot, a page at a time.
#[derive(Debug)]
pub struct Entries {}

impl Entries {
    /// Reads the next page of entries; `None` at the end.
    ///
    /// # Errors
    /// `Corrupt` if a page is missing or does not match its reference.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Placed>>> {
        unimplemented!()
    }
}

impl State {
    /// Finds the snapshot that is meant.
    ///
    /// # Errors
    /// `NotFound` if there is none, or no such branch; `Invalid` if the beginning of an id is ambiguous.
    pub fn select(&self, branch: &str, selector: &Selector) -> Result<&Snapshot> {
        let _ = (branch, selector);
        unimplemented!()
    }

    /// The retained snapshots of a branch, oldest first.
    pub fn snapshots_of<'a>(&'a self, branch: &'a str) -> impl Iterator<Item = &'a Snapshot> {
        self.commit.snapshots.iter().filter(move |snapshot| snapshot.branch == branch)
    }
}

impl std::str::FromStr for Selector {
    type Err = crate::error::Error;
    /// Parses `latest`, `latest~N`, `@TIME` (RFC 3339 with a zone), or at least 4 digits of an id.
    fn from_str(text: &str) -> Result<Self> {
        let _ = text;
        unimplemented!()
    }
}

/// Sets and removes tags of a snapshot; returns the number of the commit, or `None` if nothing changed.
///
/// # Errors
/// `NotFound` if the snapshot is not retained any more; `Conflict`, `Unknown` as any commit.
pub async fn tag(
    repository: &Repository,
    snapshot: SnapshotId,
    set: &[(String, String)],
    remove: &[String],
    writer: &str,
) -> Result<Option<u64>> {
    let _ = (repository, snapshot, set, remove, writer);
    unimplemented!()
}

/// Marks a snapshot so that it is never forgotten, with a reason, or takes the mark away (`None`).
///
/// # Errors
/// As [`tag`].
pub async fn hold(
    repository: &Repository,
    snapshot: SnapshotId,
    reason: Option<&str>,
    writer: &str,
) -> Result<Option<u64>> {
    let _ = (repository, snapshot, reason, writer);
    unimplemented!()
}

/// Makes a quarantined or forked snapshot the head of the branch that it was meant for, or an older snapshot the
/// head of its own branch again; returns the branch.
///
/// # Errors
/// As [`tag`]; `Invalid` if it is the head already.
pub async fn promote(repository: &Repository, snapshot: SnapshotId, writer: &str) -> Result<String> {
    let _ = (repository, snapshot, writer);
    unimplemented!()
}
