//! The receipts that a restore writes.
//!
//! A genesis receipt is the proof that a branch was looked at, in the right repository, and has no snapshot yet. It
//! lets the first backup of a directory require a receipt like every other. It holds for one repository, and only
//! while the branch has no head; so the wish for it does no harm where it stays in a configuration.

use std::path::Path;
use std::sync::Arc;

use super::destination::Directory;
use super::{RestoreOptions, place};
use crate::error::{Error, Result};
use crate::format::commit::Snapshot;
use crate::guard::{Guard, Refusal};
use crate::id::RepositoryId;
use crate::receipt::Receipt;
use crate::repository::State;

/// Tells whether a genesis receipt is asked for and the branch is as empty as that takes.
pub(super) fn genesis_is_due(options: &RestoreOptions, state: &State) -> bool {
    options.genesis.is_some() && state.commit.head(&options.branch).is_none()
}

/// Writes it; the directory is made if it is not there, and otherwise not touched.
///
/// # Errors
/// `Refused` if another repository is meant, or if the receipt that is there names a snapshot: the branch has
/// lost what this directory came from.
pub(super) fn write_genesis(
    repository: RepositoryId,
    state: &State,
    destination: &Path,
    options: &RestoreOptions,
) -> Result<()> {
    let refuse = |reason: String| {
        Err(Refusal { guard: Guard::Receipt, reason, limit: None, actual: None, paths: Vec::new(), plan: None }.into())
    };
    let Some((path, expected)) = options.receipt.as_ref().zip(options.genesis) else { return Ok(()) };
    if expected != repository {
        return refuse(format!("the genesis receipt is meant for repository {expected}, this is {repository}"));
    }
    if let Ok(Receipt { snapshot: Some(snapshot), branch, .. }) = Receipt::load(path)
        && branch == options.branch
    {
        return refuse(format!("the receipt that is there names snapshot {snapshot}, but branch {branch} has none"));
    }
    let existing = place::open(destination)?;
    if options.dry_run {
        return Ok(());
    }
    let directory = match existing {
        Some(directory) => directory,
        None => place::create(destination)?,
    };
    receipt(repository, state, None, &directory, options)?.write(path)
}

/// The receipt that stands for a whole snapshot, or, without one, for a branch that has none yet.
///
/// # Errors
/// `LocalIo` if the directory cannot be looked at.
pub(super) fn receipt(
    repository: RepositoryId,
    state: &State,
    snapshot: Option<&Snapshot>,
    directory: &Arc<Directory>,
    options: &RestoreOptions,
) -> Result<Receipt> {
    let mark = directory.mark().map_err(|error| Error::local("look at", "the destination", error))?;
    Ok(Receipt {
        repository,
        branch: options.branch.clone(),
        epoch: state.commit.branches.get(&options.branch).map_or(0, |branch| branch.epoch),
        snapshot: snapshot.map(|snapshot| snapshot.id),
        tree: snapshot.map(|snapshot| snapshot.tree.page),
        entries: snapshot.map_or(0, |snapshot| snapshot.entries),
        bytes: snapshot.map_or(0, |snapshot| snapshot.bytes),
        directory: mark,
        finished: options.clock.now(),
        quarantined: None,
        quarantined_under: None,
        pending: None,
        unsettled: Vec::new(),
    })
}
