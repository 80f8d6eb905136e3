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
mod flight;
mod flow;
mod links;
mod metadata;
mod options;
mod pipeline;
mod place;
mod plan;
mod proof;
mod refuse;
mod remove;
mod scout;
mod selection;
mod special;
mod tally;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::metadata::User;
use self::pipeline::Pipeline;
use self::plan::Rules;
use self::selection::Selection;
use self::tally::Tally;
use crate::clock::Stopwatch;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::history::is_step;
use crate::observer::{Observer, Progress};
use crate::problem::Problem;
use crate::receipt;
use crate::repository::{Repository, State};
use crate::tree_path::TreePath;

pub use options::{MAX_UNSTABLE_PATHS, Overwrite, RestoreOptions, RestoreReport, Unstable};

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
    let store = repository.store();
    let (requests, received_bytes) = (store.requests(), store.received_bytes());
    refuse::contradictions(&options)?;
    let state = options.interrupt.unless_set(repository.state()).await?;
    let (id, tally) = if proof::genesis_is_due(&options, &state) {
        proof::write_genesis(repository.id(), &state, destination, &options)?;
        (None, Tally::default())
    } else {
        let snapshot = Arc::new(state.select(&options.branch, &options.snapshot)?.clone());
        let id = snapshot.id;
        let asked = Arc::clone(&snapshot);
        let restored = restore_snapshot(repository, &state, snapshot, destination, &options, observer).await;
        let something_is_missing = match &restored {
            Ok(tally) => tally.missing,
            Err(error) => matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound),
        };
        if something_is_missing {
            was_pruned(repository, &asked).await?;
        }
        (Some(id), restored?)
    };
    Ok(RestoreReport {
        snapshot: id,
        written: tally.written,
        unchanged: tally.unchanged,
        deleted: tally.deleted,
        sockets: tally.sockets,
        problems: tally.problems,
        unstable: tally.unstable,
        damaged: tally.damaged,
        downloaded_bytes: store.received_bytes().saturating_sub(received_bytes),
        block_bytes: tally.block_bytes,
        requests: store.requests().since(requests),
        seconds: stopwatch.seconds(),
    })
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
    options.interrupt.unless_set(pipeline.check_includes()).await?;

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
    let excludes_with_receipt = !options.exclude.is_empty() && options.receipt.is_some();
    let asks_first = options.delete || never_with_receipt;
    if options.dry_run || excludes_with_receipt || directory.is_some() && asks_first {
        let (survey, mut tally) = pipeline.survey(rules(false), directory.clone()).await?;
        refuse::excess(&survey, options)?;
        if options.dry_run {
            tally.problems.extend(what_it_lacks(&snapshot));
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
    tally.problems.extend(what_it_lacks(&snapshot));
    let is_idle = tally.written == 0 && tally.deleted == 0;
    if !is_idle || options.receipt.is_some() {
        directory.sync().map_err(|error| Error::local("make durable", destination.display(), error))?;
    }
    tally.problems.extend(std::mem::take(&mut tally.unsettable).into_problems());

    let is_complete = !tally.damaged && !tally.problems.iter().any(|problem| problem.incomplete);
    if let Some(path) = options.receipt.as_ref().filter(|_| is_complete) {
        proof::receipt(repository.id(), state, Some(&snapshot), &directory, options)?.write(path)?;
    }
    Ok(tally)
}

/// What looks like damage may be a snapshot that was forgotten or moved, and pruned, while it was restored.
///
/// # Errors
/// `NotFound` if it was forgotten, `Unavailable` if it is somewhere else by now.
async fn was_pruned(repository: &Repository, snapshot: &Snapshot) -> Result<()> {
    let id = snapshot.id;
    match repository.state().await {
        Ok(state) if state.commit.snapshot(id).is_none() => {
            Err(Error::new(ErrorKind::NotFound, format!("snapshot {id} was forgotten while it was restored")))
        }
        Ok(state) if !state.commit.retains(snapshot) => {
            let moved = format!("a prune moved snapshot {id} while it was restored; run it again");
            Err(Error::new(ErrorKind::Unavailable, moved))
        }
        _ => Ok(()),
    }
}

/// A step is whole in itself, but no whole directory.
fn what_it_lacks(snapshot: &Snapshot) -> Option<Problem> {
    let message = "the snapshot is a step of a backup that did not end: it holds a part of the directory".to_owned();
    is_step(snapshot).then(|| Problem { path: TreePath::root(), message, incomplete: true })
}

#[cfg(test)]
mod tests;
