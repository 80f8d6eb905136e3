//! The story of a restore.
//!
//! ```text
//! tree -> plan -> fetch -> write      joined by bounded channels, each in tree order
//! ```
//! What may not happen is refused before anything is changed. Then the receipt goes first and comes back last:
//! between the two the directory counts as not restored, whatever happens. Nothing is written under its final
//! name before its content has been verified, and the receipt is written only when nothing of the snapshot is
//! lacking and everything is on the disk. A restore that was cut is simply run again: what is right is kept.

mod compare;
mod destination;
mod fetch;
mod flow;
mod genesis;
mod links;
mod metadata;
mod pipeline;
mod place;
mod plan;
mod recent;
mod remove;
mod selection;
mod special;
mod tally;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::destination::Directory;
use self::metadata::User;
use self::pipeline::Pipeline;
use self::plan::{Rules, Survey};
use self::selection::Selection;
use self::tally::Tally;
use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::guard::{Cap, Guard, Refusal};
use crate::id::{RepositoryId, SnapshotId};
use crate::observer::{Interrupt, Observer, Progress};
use crate::problem::Problem;
use crate::receipt::{self, Receipt};
use crate::repository::{Repository, Selector, State};
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
    /// Whether damage was met and stepped over (`keep_going`).
    pub damaged: bool,
    /// Bytes received from the store.
    pub downloaded_bytes: u64,
    /// Requests made.
    pub requests: RequestCounts,
    /// How long it took.
    pub seconds: f64,
}

/// Makes a directory equal to a snapshot.
///
/// # Errors
/// `Refused` for a destination that must not be touched, `NotFound` for a missing snapshot, `Corrupt` when a byte
/// does not match its hash (it is not written), `LocalIo` when the disk fails or is full.
pub async fn restore(
    repository: &Repository,
    destination: &Path,
    options: RestoreOptions,
    observer: Arc<dyn Observer>,
) -> Result<RestoreReport> {
    let stopwatch = Stopwatch::start();
    let requests = repository.store().requests();
    check(&options)?;
    let state = repository.state().await?;
    let done = if genesis::is_due(&options, &state) {
        genesis::write_receipt(repository.id(), &state, destination, &options)?;
        (None, Tally::default())
    } else {
        let snapshot = Arc::new(state.select(&options.branch, &options.snapshot)?.clone());
        let id = snapshot.id;
        match restore_snapshot(repository, &state, snapshot, destination, &options, observer).await {
            Ok(tally) => (Some(id), tally),
            Err(error) => return Err(damage_or_forgotten(repository, id, error).await),
        }
    };
    Ok(report(done, requests_since(requests, repository.store().requests()), stopwatch.seconds()))
}

fn check(options: &RestoreOptions) -> Result<()> {
    match &options.receipt {
        Some(_) if !options.include.is_empty() => Err(Error::invalid(
            "a receipt stands for a whole snapshot; it cannot be written when only some paths are restored",
        )),
        None if options.genesis.is_some() => Err(Error::invalid("a genesis receipt needs a place to be written to")),
        _ => Ok(()),
    }
}

async fn restore_snapshot(
    repository: &Repository,
    state: &State,
    snapshot: Arc<Snapshot>,
    destination: &Path,
    options: &RestoreOptions,
    observer: Arc<dyn Observer>,
) -> Result<Tally> {
    let never: Vec<PathBuf> = options.never.iter().chain(&options.receipt).cloned().collect();
    let selection = Selection::new(options.include.clone(), &options.exclude, &never, destination)?;
    let mut directory = place::examine(destination, repository.id(), &selection, options)?;
    let pipeline = Pipeline {
        store: repository.store().clone(),
        pages: Arc::clone(repository.pages()),
        snapshot: Arc::clone(&snapshot),
        selection,
        keep_going: options.keep_going,
        interrupt: options.interrupt.clone(),
        observer: Arc::clone(&observer),
    };
    pipeline.check_includes().await?;

    let rules = |act| Rules {
        selection: pipeline.selection.clone(),
        overwrite: options.overwrite.unwrap_or_default(),
        delete: options.delete,
        // Contents are read again once: by whichever walk decides in the end.
        verify: options.verify && act != options.dry_run,
        act,
        user: User::current(),
        interrupt: options.interrupt.clone(),
        observer: Arc::clone(&observer),
    };
    let never_with_receipt = options.overwrite == Some(Overwrite::Never) && options.receipt.is_some();
    if options.dry_run || directory.is_some() && (options.delete || never_with_receipt) {
        let (survey, tally) = pipeline.survey(rules(false), directory.clone()).await?;
        judge(&survey, options)?;
        if options.dry_run {
            return Ok(tally);
        }
        observer.progress(Progress::Planned { files: survey.entries, bytes: survey.bytes });
    } else if pipeline.selection.is_everything() {
        observer.progress(Progress::Planned { files: snapshot.entries, bytes: snapshot.bytes });
    }

    if let Some(path) = &options.receipt {
        receipt::remove(path)?;
    }
    let directory = match directory.take() {
        Some(directory) => directory,
        None => place::create(destination)?,
    };
    let mut tally = pipeline.act(rules(true), &directory).await?;
    let is_idle = tally.written == 0 && tally.deleted == 0;
    if !is_idle || options.receipt.is_some() {
        directory.sync().map_err(|error| Error::local("make durable", destination.display(), error))?;
    }
    tally.problems.extend(std::mem::take(&mut tally.unsettable).into_problems());

    let is_complete = !tally.damaged && !tally.problems.iter().any(|problem| problem.incomplete);
    if let Some(path) = options.receipt.as_ref().filter(|_| is_complete) {
        receipt_for(repository.id(), state, &snapshot, &directory, options).write(path)?;
    }
    Ok(tally)
}

/// Holds what a survey found against what is allowed.
fn judge(survey: &Survey, options: &RestoreOptions) -> Result<()> {
    let losses = &survey.losses;
    if options.delete && !options.max_delete.allows(losses.removed, losses.there) {
        let (removed, there) = (losses.removed, losses.there);
        return Err(Refusal {
            guard: Guard::MaxDelete,
            reason: format!("{removed} of the {there} files that are there would be removed"),
            limit: Some(options.max_delete.to_string()),
            actual: Some(removed),
            paths: losses.paths.clone(),
            plan: None,
        }
        .into());
    }
    match &survey.stays {
        Some(path) if options.receipt.is_some() => Err(Error::invalid(format!(
            "{path} differs from the snapshot and would stay, so no receipt could be written"
        ))),
        _ => Ok(()),
    }
}

fn receipt_for(
    repository: RepositoryId,
    state: &State,
    snapshot: &Snapshot,
    directory: &Directory,
    options: &RestoreOptions,
) -> Receipt {
    Receipt {
        repository,
        branch: options.branch.clone(),
        epoch: state.commit.branches.get(&options.branch).map_or(0, |branch| branch.epoch),
        snapshot: Some(snapshot.id),
        tree: Some(snapshot.tree.page),
        entries: snapshot.entries,
        bytes: snapshot.bytes,
        directory: directory.id(),
        finished: options.clock.now(),
        pending: None,
    }
}

/// What looks like damage may be a snapshot that was forgotten, and pruned, while it was restored.
async fn damage_or_forgotten(repository: &Repository, snapshot: SnapshotId, error: Error) -> Error {
    if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) {
        return error;
    }
    match repository.state().await {
        Ok(state) if state.commit.snapshot(snapshot).is_none() => {
            Error::new(ErrorKind::NotFound, format!("snapshot {snapshot} was forgotten while it was restored"))
        }
        _ => error,
    }
}

fn report((snapshot, tally): (Option<SnapshotId>, Tally), requests: RequestCounts, seconds: f64) -> RestoreReport {
    RestoreReport {
        snapshot,
        written: tally.written,
        unchanged: tally.unchanged,
        deleted: tally.deleted,
        sockets: tally.sockets,
        problems: tally.problems,
        damaged: tally.damaged,
        downloaded_bytes: tally.downloaded_bytes,
        requests,
        seconds,
    }
}

fn requests_since(before: RequestCounts, now: RequestCounts) -> RequestCounts {
    RequestCounts {
        put: now.put.saturating_sub(before.put),
        get: now.get.saturating_sub(before.get),
        list: now.list.saturating_sub(before.list),
        delete: now.delete.saturating_sub(before.delete),
        head: now.head.saturating_sub(before.head),
    }
}

#[cfg(test)]
mod tests;
