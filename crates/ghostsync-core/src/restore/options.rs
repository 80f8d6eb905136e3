//! How to restore, and what came of it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::clock::{Clock, SystemClock};
use crate::guard::Cap;
use crate::id::{RepositoryId, SnapshotId};
use crate::interrupt::Interrupt;
use crate::problem::Problem;
use crate::repository::Selector;
use crate::store::RequestCounts;
use crate::tree_path::TreePath;

/// What happens to entries that are already there and differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Entries whose kind, size or mtime differ are replaced.
    #[default]
    Changed,
    /// Every entry is written again.
    Always,
    /// What is there stays.
    Never,
}

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The branch; default `main`.
    pub branch: String,
    /// Which snapshot; default the newest of the branch.
    pub snapshot: Selector,
    /// Only these paths and what lies below them; empty: everything.
    pub include: Vec<TreePath>,
    /// Lines of gitignore syntax; what they match is neither written nor deleted.
    pub exclude: Vec<String>,
    /// Absolute paths inside the destination that are never touched: the receipt, the cache, a repository.
    pub never: Vec<PathBuf>,
    /// Removes what the snapshot lacks, under the cap.
    pub delete: bool,
    /// How much `delete` may remove, of the files, links and special files that are there. Default 50 %.
    pub max_delete: Cap,
    /// What happens to what is there; `None` is [`Overwrite::Changed`], but refuses a non-empty destination that
    /// has no receipt of this repository unless `delete` is set.
    pub overwrite: Option<Overwrite>,
    /// Where to write the receipt: removed first, written last.
    pub receipt: Option<PathBuf>,
    /// On a branch without a head in this very repository: write a genesis receipt.
    pub genesis: Option<RepositoryId>,
    /// Reads again what is already there instead of trusting its metadata.
    pub verify: bool,
    /// Restores everything else when something is damaged; each loss is a problem, and there is no receipt.
    pub keep_going: bool,
    /// Plans only.
    pub dry_run: bool,
    /// The wish to stop.
    pub interrupt: Interrupt,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            branch: "main".into(),
            snapshot: Selector::Latest(0),
            include: Vec::new(),
            exclude: Vec::new(),
            never: Vec::new(),
            delete: false,
            max_delete: Cap::Percent(50),
            overwrite: None,
            receipt: None,
            genesis: None,
            verify: false,
            keep_going: false,
            dry_run: false,
            interrupt: Interrupt::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// What a restore did, or, in a dry run, would do.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct RestoreReport {
    /// The snapshot; `None` for a genesis receipt.
    pub snapshot: Option<SnapshotId>,
    /// Entries written or corrected.
    pub written: u64,
    /// Entries that were right already.
    pub unchanged: u64,
    /// Entries removed.
    pub deleted: u64,
    /// Sockets that were skipped.
    pub sockets: u64,
    /// Entries that could not be made, and others worth knowing.
    pub problems: Vec<Problem>,
    /// Files that are what the snapshot has, which may be no state that they ever had.
    pub unstable: Unstable,
    /// Whether damage was met and stepped over (`keep_going`).
    pub damaged: bool,
    /// Bytes received from the store: contents, pages and commits.
    pub downloaded_bytes: u64,
    /// Those of them that were blocks of content.
    pub block_bytes: u64,
    /// Requests made.
    pub requests: RequestCounts,
    /// How long it took.
    pub seconds: f64,
}

/// The most paths that [`Unstable`] names.
pub const MAX_UNSTABLE_PATHS: usize = 5;

/// Files of a snapshot that changed while the backup read them: their content may mix several states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unstable {
    /// How many.
    pub count: u64,
    /// Up to [`MAX_UNSTABLE_PATHS`] of them, in tree order.
    pub paths: Vec<TreePath>,
}

impl Unstable {
    pub(super) fn push(&mut self, path: &TreePath) {
        self.count += 1;
        if self.paths.len() < MAX_UNSTABLE_PATHS {
            self.paths.push(path.clone());
        }
    }
}
