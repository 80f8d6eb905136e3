//! The story of a backup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::format::commit::Changes;
use crate::guard::{Policy, Refusal};
use crate::id::{PageId, SnapshotId};
use crate::observer::{Interrupt, Observer};
use crate::problem::Problem;
use crate::repository::Repository;
pub use crate::source::Excludes;
use crate::store::RequestCounts;

/// What to do with what a guard refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRefusal {
    /// Publish nothing.
    #[default]
    Fail,
    /// Keep it on a branch of its own, `quarantine/<branch>/<session>`.
    Quarantine,
}

/// How to back up.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The branch; default `main`.
    pub branch: String,
    /// Tags of the new snapshot.
    pub tags: BTreeMap<String, String>,
    /// What is left out.
    pub excludes: Excludes,
    /// Reads every file, whatever its metadata say.
    pub reread: bool,
    /// What the guards allow.
    pub policy: Policy,
    /// The receipt that is required, and kept current.
    pub receipt: Option<PathBuf>,
    /// What to do with what a guard refuses.
    pub on_refusal: OnRefusal,
    /// Makes a snapshot even of an unchanged tree.
    pub force: bool,
    /// Plans and guards, and uploads nothing.
    pub dry_run: bool,
    /// Who writes, for people.
    pub writer: String,
    /// The wish to stop.
    pub interrupt: Interrupt,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            branch: "main".into(),
            tags: BTreeMap::new(),
            excludes: Excludes::default(),
            reread: false,
            policy: Policy::default(),
            receipt: None,
            on_refusal: OnRefusal::Fail,
            force: false,
            dry_run: false,
            writer: String::new(),
            interrupt: Interrupt::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// How a backup ended, when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupOutcome {
    /// A snapshot was made.
    Done,
    /// Nothing had changed: no snapshot was made.
    Unchanged,
    /// A guard refused, and the tree was kept in quarantine.
    Quarantined,
    /// A dry run: this is what would have been done.
    Planned,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct BackupReport {
    /// How it ended.
    pub outcome: BackupOutcome,
    /// The new snapshot; the parent when unchanged; `None` in a dry run, or when an empty branch stays empty.
    pub snapshot: Option<SnapshotId>,
    /// Its tree.
    pub tree: Option<PageId>,
    /// The branch that it is on.
    pub branch: String,
    /// The branch that a quarantined one was meant for.
    pub onto: Option<String>,
    /// The snapshot that it was compared with.
    pub parent: Option<SnapshotId>,
    /// Entries, without the root and sockets.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What differs from the parent.
    pub changes: Changes,
    /// Entries of the parent that a changed exclude list hides now.
    pub excluded: u64,
    /// Sockets that were skipped.
    pub sockets: u64,
    /// Entries that could not be read, and others worth knowing.
    pub problems: Vec<Problem>,
    /// The refusal, when the outcome is `Quarantined`, or `Planned` and a guard would refuse.
    pub refusal: Option<Refusal>,
    /// Bytes sent to the store.
    pub uploaded_bytes: u64,
    /// Requests made.
    pub requests: RequestCounts,
    /// How long it took.
    pub seconds: f64,
}

impl BackupReport {
    /// Tells whether every entry could be read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.problems.iter().any(|problem| problem.incomplete)
    }
}

/// Makes one snapshot of a directory.
///
/// # Errors
/// `Refused` by a guard (nothing was published), `Conflict` when others kept moving the branch, `Unknown` when the
/// answer to the commit was lost, and whatever the store or the disk made fail.
pub async fn backup(
    repository: &Repository,
    source: &Path,
    options: BackupOptions,
    observer: Arc<dyn Observer>,
) -> Result<BackupReport> {
    let _ = (repository, source, options, observer);
    unimplemented!()
}
