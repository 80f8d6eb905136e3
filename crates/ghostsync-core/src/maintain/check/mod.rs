//! Verifies a repository: names what is damaged, and what that affects.

mod content;
mod find;
mod trace;

use std::sync::Arc;

use serde::Serialize;

use crate::error::{ErrorKind, Result};
use crate::format::config::MAX_CONFIG_BYTES;
use crate::history;
use crate::id::{CommitHash, SnapshotId};
use crate::interrupt::Interrupt;
use crate::observer::Observer;
use crate::repository::Repository;
use crate::store::keys;
use crate::tree::Pages;
use crate::tree_path::TreePath;

use find::Finder;

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
/// Two passes: the first reads every page copy once and notes what is bad; only if anything is, the second goes
/// through the snapshots again and names what needs it. The cache is left out: what counts is what the store has.
///
/// # Errors
/// `Unavailable` or `Denied` if the store could not be read; damage is no error but a line of the report.
pub async fn check(repository: &Repository, options: CheckOptions, observer: &dyn Observer) -> Result<CheckReport> {
    let store = repository.store();
    let mut report = CheckReport::default();
    let state = match repository.state().await {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            report.damage.push(Damage::alone(keys::log().to_string(), error.to_string()));
            return Ok(report);
        }
        state => state?,
    };
    match store.get(&keys::config(), MAX_CONFIG_BYTES).await? {
        Some(bytes) if CommitHash::of(&bytes) == repository.config_hash() => {}
        Some(_) => report.damage.push(Damage::alone(keys::config().to_string(), "it is not what it was".into())),
        None => report.damage.push(Damage::alone(keys::config().to_string(), "it is missing".into())),
    }
    for (object, message) in history::check_chain(store, repository.config_hash(), &state).await? {
        report.damage.push(Damage::alone(object, message));
    }
    // Never from a cache: what is checked is what the store would give to somebody who has none.
    let pages = Arc::new(Pages::new(store.clone(), None));
    let mut finder = Finder::new(store, &pages, &options, observer);
    for snapshot in &state.commit.snapshots {
        finder.snapshot(snapshot).await?;
    }
    let found = finder.finish().await?;
    report.snapshots = state.commit.snapshots.len() as u64;
    report.pages = found.pages;
    report.packs = found.packs;
    report.read_bytes = found.read_bytes;
    if !found.bad.is_empty() {
        report.damage.extend(trace::affected(&pages, &state.commit.snapshots, &found.bad, &options.interrupt).await?);
    }
    for (pack, message) in found.tables {
        report.damage.push(Damage::alone(pack, message));
    }
    Ok(report)
}

impl Damage {
    /// Damage that no snapshot needs to be restored.
    fn alone(object: String, message: String) -> Self {
        Self { object, message, snapshots: Vec::new(), paths: Vec::new(), affected: 0 }
    }
}
