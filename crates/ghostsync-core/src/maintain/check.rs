//! Verifies a repository: names what is damaged, and what that affects.

use serde::Serialize;

use crate::error::Result;
use crate::id::SnapshotId;
use crate::observer::{Interrupt, Observer};
use crate::repository::Repository;
use crate::tree_path::TreePath;

/// How much content a check reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadData {
    /// None: only that every pack is there and long enough.
    #[default]
    No,
    /// Every block.
    All,
    /// About so many of a hundred blocks, another choice on every run.
    Percent(u32),
    /// The n-th of m equal parts, counted from 1.
    Part {
        /// Which part.
        n: u32,
        /// Of how many.
        m: u32,
    },
}

/// How to check.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// How much content is read.
    pub read_data: ReadData,
    /// The wish to stop.
    pub interrupt: Interrupt,
}

/// One damaged object, and what it affects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The object's key.
    pub object: String,
    /// What is wrong with it.
    pub message: String,
    /// The snapshots that need it.
    pub snapshots: Vec<SnapshotId>,
    /// Up to 20 of the paths that need it.
    pub paths: Vec<TreePath>,
    /// How many paths need it, in all those snapshots.
    pub affected: u64,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[must_use]
pub struct CheckReport {
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Page copies read.
    pub pages: u64,
    /// Packs referred to.
    pub packs: u64,
    /// Bytes of content read and verified.
    pub read_bytes: u64,
    /// The damage; empty means sound, as far as was looked.
    #[serde(skip)]
    pub damage: Vec<Damage>,
}

/// Checks the log, every page copy that retained snapshots refer to, and the packs behind them.
///
/// # Errors
/// `Unavailable` or `Denied` if the store could not be read; damage is no error but a line of the report.
pub async fn check(repository: &Repository, options: CheckOptions, observer: &dyn Observer) -> Result<CheckReport> {
    let _ = (repository, options, observer);
    unimplemented!()
}
