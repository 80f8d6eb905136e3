//! Verifies a repository: names what is damaged, and what that affects.

mod content;
mod find;
mod lists;
mod look;
mod print;
mod shape;
mod tables;
mod trace;

use std::sync::Arc;

use serde::Serialize;

use crate::error::{ErrorKind, Result};
use crate::format::config::MAX_CONFIG_BYTES;
use crate::id::{CommitHash, SnapshotId};
use crate::interrupt::Interrupt;
use crate::observer::Observer;
use crate::repository::{Repository, State};
use crate::store::keys;
use crate::tree::Pages;
use crate::tree_path::TreePath;

pub(super) use find::is_damage;
pub(super) use look::{Look, look};
pub(super) use print::Print;
pub(super) use tables::read_table;

/// How much content a check reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadData {
    /// None: only that every pack is there and long enough.
    #[default]
    No,
    /// All of it, and every file put together.
    All,
    /// About so many of a hundred blocks, another choice on every run.
    Percent(u32),
    /// The n-th of m about equal parts, counted from 1. Every block is in one of them, the same one in every run,
    /// on every machine and in every version.
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
    /// The number of the commit whose snapshots were looked at: the newest that can be read.
    pub commit: u64,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Page copies read.
    pub pages: u64,
    /// Packs referred to.
    pub packs: u64,
    /// Bytes of content read and verified.
    pub read_bytes: u64,
    /// In commit mode `detect`: commits beside the head that nobody takes over, by key, and why. They were never
    /// acknowledged, or a prune had not the repository to itself.
    pub void: Vec<(String, String)>,
    /// The damage; empty means sound, as far as was looked.
    #[serde(skip)]
    pub damage: Vec<Damage>,
}

/// Checks the log, every page copy that retained snapshots refer to, and the packs behind them.
///
/// Two passes: the first reads every page copy once and notes what is bad; only if anything is, the second goes
/// through the snapshots again and names what needs it. The cache is left out: what counts is what the store has.
/// It only serves to notice that the newest commit that this machine saw is gone.
///
/// Where the newest commit cannot be read, the newest one that can is looked at, so that it is known what there is.
/// A tree that [`restore`](crate::restore::restore) would refuse is damage, with or without reading content. With
/// [`ReadData::All`] every content is put together and compared with its hash, so that what is not named here can be
/// restored; with a part, chunks are verified and files are not put together.
///
/// Its time is that of reading what snapshots say they have, and it can be interrupted; its memory is bounded by a
/// few words for each page copy, pack and, where content is read, chunk.
///
/// # Errors
/// `Unavailable` or `Denied` if the store could not be read; damage is no error but a line of the report.
pub async fn check(repository: &Repository, options: CheckOptions, observer: &dyn Observer) -> Result<CheckReport> {
    let store = repository.store();
    let mut report = CheckReport::default();
    let Some(state) = newest_state(repository, &options.interrupt, &mut report).await? else { return Ok(report) };
    // Never from a cache: what is checked is what the store would give to somebody who has none.
    let pages = Arc::new(Pages::new(store.clone(), None));
    let mut look = look(store, &pages, &state.commit.snapshots, &options, observer).await?;
    report.commit = state.commit.seq;
    report.snapshots = state.commit.snapshots.len() as u64;
    report.pages = look.pages();
    report.packs = look.packs().len() as u64;
    report.read_bytes = look.read_bytes();
    report.damage.append(&mut look.damage);
    if options.read_data == ReadData::All {
        for (pack, message) in tables::check(store, look.packs(), &options.interrupt).await? {
            report.damage.push(Damage::alone(pack, message));
        }
    }
    Ok(report)
}

/// Checks configuration and log, and tells the newest state that can be read.
async fn newest_state(
    repository: &Repository,
    interrupt: &Interrupt,
    report: &mut CheckReport,
) -> Result<Option<State>> {
    let (store, config) = (repository.store(), repository.config_hash());
    let cached = repository.head_cache().and_then(|cache| cache.load());
    // As everybody finds it; a repository that is gone, or another, is no damage.
    let head = match repository.state().await {
        Err(error) if error.kind() == ErrorKind::Corrupt => Err(error),
        head => Ok(head?),
    };
    match store.get(&keys::config(), MAX_CONFIG_BYTES).await {
        Ok(Some(bytes)) if CommitHash::of(&bytes) == config => {}
        Ok(Some(_)) => report.note(keys::config(), "it is not what it was"),
        Ok(None) => report.note(keys::config(), "it is missing"),
        Err(error) if error.kind() == ErrorKind::Corrupt => report.note(keys::config(), &error.to_string()),
        Err(error) => return Err(error),
    }
    let log = repository.log().check(interrupt).await?;
    if let Err(error) = &head
        && log.broken.is_empty()
    {
        // The log holds together: it is this machine that has seen a newer one.
        let object = cached.map_or(keys::log(), |(seq, _)| keys::commit(seq));
        report.note(object, &error.to_string());
    }
    report.void = log.void;
    for (object, message) in log.broken {
        report.damage.push(Damage::alone(object, message));
    }
    // Behind a gap the log goes on, where nobody who asks for one number after the other finds it.
    let found = head.ok();
    Ok(match (log.newest, found) {
        (Some(newest), Some(found)) if newest.commit.seq < found.commit.seq => Some(found),
        (newest, found) => newest.or(found),
    })
}

impl CheckReport {
    fn note(&mut self, object: impl ToString, message: &str) {
        self.damage.push(Damage::alone(object.to_string(), message.to_owned()));
    }
}

impl Damage {
    /// Damage that no snapshot needs to be restored.
    fn alone(object: String, message: String) -> Self {
        Self { object, message, snapshots: Vec::new(), paths: Vec::new(), affected: 0 }
    }
}
