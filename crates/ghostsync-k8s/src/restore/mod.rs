//! The story of `restore`: wait, claim, compare, bring forward; the receipt comes last.
//!
//! What lies in the directory already decides what is done, and nothing that was edited there is ever written over
//! before it is kept in the store:
//!
//! | receipt | head | directory | what is done |
//! |---|---|---|---|
//! | whole | the receipt's | clean or edited | adopted: the next snapshot has the edits |
//! | whole | another's | clean | brought forward |
//! | whole | another's | edited | kept on a fork, then brought forward |
//! | none | any | empty, or left by a restore that was cut | restored |
//! | none | any | anything else | refused |
//!
//! Before the branch is claimed, everything that would make the restore fail anyway is looked at.

mod access;
mod marker;
mod report;
mod room;

use std::path::Path;
use std::sync::Arc;

use ghostsync_cli::causes::with_causes;
use ghostsync_cli::exit::Exit;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, OnRefusal, backup};
use ghostsync_core::clock::{Clock, SystemClock};
use ghostsync_core::guard::{Cap, Guard, Policy, Refusal};
use ghostsync_core::id::SnapshotId;
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::receipt::{DirectoryMark, Receipt, ReceiptError};
use ghostsync_core::repository::{Claim, Repository, State, claim, wait_for_release};
use ghostsync_core::restore::{Overwrite, RestoreOptions, RestoreReport, restore};
use ghostsync_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::args::{OnUnreachable, RestoreArgs};
use crate::hint;
use crate::log::{self, Level};
use crate::pod::{Pod, StoreSource};
use crate::terminate;

use marker::Marker;
pub use report::Restored;

/// Makes the directory equal to the head of its branch, and claims the branch. Why that failed is the last word too.
///
/// # Errors
/// Those of the store, the disk and the guards: the pod does not start.
pub async fn run(args: RestoreArgs, source: StoreSource, interrupt: Interrupt) -> Result<Exit> {
    let last_words = args.pod.termination_log.clone();
    let done = begin(args, source, interrupt).await;
    if let Err(error) = &done {
        let hint = hint::for_error(error).map(|hint| format!("; {hint}")).unwrap_or_default();
        terminate::write(&last_words, &format!("restore failed: {}{hint}", with_causes(error)));
    }
    done
}

async fn begin(args: RestoreArgs, source: StoreSource, interrupt: Interrupt) -> Result<Exit> {
    let mut pod = Pod::new(args.pod.clone(), source)?;
    access::check(pod.path(), &pod.args().place.state_dir)?;
    let repository = match interrupt.unless_set(pod.repository()).await {
        Err(error) => return without_store(&pod, error),
        Ok(repository) => repository,
    };
    let state = match interrupt.unless_set(repository.state()).await {
        Err(error) => return without_store(&pod, error),
        Ok(state) => state,
    };
    check_place(&repository, &state, &args)?;
    let found = Found::look(&pod, &repository)?;
    let state =
        if args.wait_predecessor.0.is_zero() { state } else { wait(&repository, &pod, &args, &interrupt).await? };
    tell_predecessor(&state, &args.pod.branch);
    if let (false, Some(head)) = (matches!(found, Found::Whole(_)), state.commit.head(&args.pod.branch)) {
        // What a restore that was cut has left is kept, or makes room.
        room::check(pod.path(), head.bytes, head.entries)?;
    }

    interrupt.check()?;
    let claimed = claim(&repository, &args.pod.branch, pod.owner(), &pod.writer()).await?;
    tell_claim(&claimed, &pod);
    if claimed.head.is_none() {
        tell_genesis(&state, &args.pod.branch);
    }

    // One's own earlier claim is nobody's unclean end: the directory is still here.
    let predecessor_unclean = claimed.fenced.as_ref().is_some_and(|fenced| fenced != pod.owner());
    let mut restored = Restored { predecessor_unclean, ..Restored::default() };
    if let Some(receipt) = found.receipt().and_then(|receipt| claimed.adopt(receipt)) {
        receipt.write(&pod.receipt())?;
        log::info("the directory is what the head was restored to or made from: nothing to do");
        restored.snapshot = receipt.snapshot;
    } else {
        if let Found::Whole(_) = found {
            keep_edits(&repository, &pod, &interrupt).await?;
        }
        let report = bring_forward(&repository, &pod, &args, &found, &interrupt).await?;
        if !is_complete(&report) {
            return Ok(Exit::Incomplete);
        }
        restored.snapshot = report.snapshot;
        restored.seconds = Some(report.seconds);
    }
    restored.time = Some(SystemClock.now());
    restored.write(&pod.args().place.state_dir);
    Ok(Exit::Done)
}

/// What is known about the directory before anything is done.
enum Found {
    /// Its receipt holds.
    Whole(Box<Receipt>),
    /// A restore into it was cut.
    Cut,
    /// There is nothing in it.
    Empty,
}

impl Found {
    /// Looks at the directory and its receipt.
    ///
    /// # Errors
    /// `Refused` for content of which nothing is known, `LocalIo` if that cannot be found out.
    fn look(pod: &Pod, repository: &Repository) -> Result<Self> {
        let (path, branch) = (pod.path(), &pod.args().branch);
        let directory = DirectoryMark::of(path).map_err(|error| Error::new(ErrorKind::LocalIo, error))?;
        let why = match Receipt::load(&pod.receipt()) {
            Ok(receipt) => match receipt.check(repository.id(), branch, directory) {
                Ok(()) => return Ok(Self::Whole(Box::new(receipt))),
                Err(mismatch) => mismatch.to_string(),
            },
            // Whether there is a receipt is not known: neither is what the directory is.
            Err(ReceiptError::Unreadable(error)) => {
                let what = format!("cannot read the receipt {}: {error}", pod.receipt().display());
                return Err(Error::new(ErrorKind::LocalIo, what));
            }
            Err(error) => error.to_string(),
        };
        let names = access::first_names(path, &pod.never()?)?;
        if names.is_empty() {
            return Ok(Self::Empty);
        }
        if Marker::load(&pod.args().place.state_dir).is_some_and(|marker| marker.is_for(directory)) {
            return Ok(Self::Cut);
        }
        let reason = format!("{} holds something of which nothing is known: {why}", path.display());
        let (guard, paths) = (Guard::Destination, access::tree_paths(&names));
        Err(Refusal { guard, reason, limit: None, actual: None, paths, plan: None }.into())
    }

    fn receipt(&self) -> Option<&Receipt> {
        match self {
            Self::Whole(receipt) => Some(receipt),
            Self::Cut | Self::Empty => None,
        }
    }
}

/// The store cannot be used: that is never taken for an empty branch.
fn without_store(pod: &Pod, error: Error) -> Result<Exit> {
    let is_away = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied);
    if !is_away || pod.args().on_unreachable == OnUnreachable::Fail {
        return Err(error);
    }
    let receipt = Receipt::load(&pod.receipt()).map_err(|_| error)?;
    let here = DirectoryMark::of(pod.path()).map_err(|error| Error::new(ErrorKind::LocalIo, error))?;
    if let Err(mismatch) = receipt.check(receipt.repository, &pod.args().branch, here) {
        return Err(Error::new(ErrorKind::Unavailable, format!("the store cannot be reached, and {mismatch}")));
    }
    log::warn("the store cannot be reached: going on with the directory as it is, the branch is not claimed");
    Ok(Exit::Done)
}

/// Waits for the predecessor, and reads the state that it leaves.
async fn wait(repository: &Repository, pod: &Pod, args: &RestoreArgs, interrupt: &Interrupt) -> Result<State> {
    let branch = &args.pod.branch;
    let left = wait_for_release(repository, branch, pod.owner(), args.wait_predecessor.0, interrupt).await?;
    if let Some(owner) = left {
        log::warn(&format!("{owner} has not released branch {branch}: it is taken all the same"));
    }
    interrupt.unless_set(repository.state()).await
}

/// Refuses another repository than the one that is meant, and a branch that has nothing where nobody said so.
fn check_place(repository: &Repository, state: &State, args: &RestoreArgs) -> Result<()> {
    let id = repository.id();
    if let Some(meant) = args.genesis.filter(|meant| *meant != id) {
        let reason = format!("--genesis means repository {meant}, this is repository {id}");
        let guard = Guard::Receipt;
        return Err(Refusal { guard, reason, limit: None, actual: None, paths: Vec::new(), plan: None }.into());
    }
    let branch = &args.pod.branch;
    if args.genesis.is_none() && state.commit.head(branch).is_none() {
        let others = match others_with_snapshots(state, branch).join(", ") {
            others if others.is_empty() => others,
            others => format!(", and others have: {others}"),
        };
        let what = format!(
            "branch {branch} has no snapshot{others}; on its first boot '--genesis {id}' begins with an empty directory"
        );
        return Err(Error::new(ErrorKind::NotFound, what));
    }
    Ok(())
}

/// A first boot is told, and all the more where other branches have something: the name may be a typing error.
fn tell_genesis(state: &State, branch: &str) {
    let others = others_with_snapshots(state, branch);
    let (level, but) = match others.as_slice() {
        [] => (Level::Info, String::new()),
        _ => (Level::Warn, format!("; other branches have snapshots: {}", others.join(", "))),
    };
    log::line(level, &format!("branch {branch} has no snapshot: it begins with an empty directory{but}"), Value::Null);
}

/// The branches that a pod may have been meant for.
fn others_with_snapshots<'a>(state: &'a State, branch: &str) -> Vec<&'a str> {
    let is_aside = |name: &str| ["fork/", "quarantine/", "wip/"].iter().any(|begin| name.starts_with(begin));
    let names = state.commit.branches.keys().map(String::as_str);
    names.filter(|name| *name != branch && !is_aside(name) && state.commit.head(name).is_some()).collect()
}

/// What the last writer said at its end: nobody could ask it any more.
fn tell_predecessor(state: &State, branch: &str) {
    let commit = &state.commit;
    let note = commit.op.get("note").cloned().unwrap_or(Value::Null);
    let is_released = commit.branches.get(branch).and_then(|branch| branch.holder.as_ref()).map(|held| held.released);
    let fields = json!({"commit": commit.seq, "op": commit.op.get("kind"), "writer": commit.writer.name, "note": note,
        "released": is_released, "head": commit.head(branch).map(|head| head.id)});
    log::line(Level::Info, "the branch as its last writer left it", fields);
}

fn tell_claim(claimed: &Claim, pod: &Pod) {
    let fields = json!({"branch": pod.args().branch, "owner": pod.owner(), "epoch": claimed.epoch,
        "head": claimed.head.as_ref().map(|head| head.id), "fenced": claimed.fenced});
    log::line(Level::Info, "the branch is claimed", fields);
    for fork in &claimed.forks {
        let what = format!("a writer that came too late left a fork; to make it the head: {}", promote(fork.id));
        log::line(Level::Warn, &what, json!({"branch": fork.branch, "snapshot": fork.id}));
    }
}

/// Keeps what was edited since the receipt on a fork.
async fn keep_edits(repository: &Repository, pod: &Pod, interrupt: &Interrupt) -> Result<()> {
    let options = BackupOptions {
        // Nothing is published on the branch: whatever there is, is kept.
        policy: Policy { max_delete: Cap::Percent(100), allow_empty: true, ..Policy::default() },
        on_refusal: OnRefusal::Quarantine,
        interrupt: interrupt.clone(),
        ..pod.backup_options()?
    };
    let kept = match backup(repository, pod.path(), options, Arc::new(NoObserver)).await {
        // The directory equals the snapshot that it was restored from.
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
        kept => kept?,
    };
    if !kept.is_complete() {
        let what =
            format!("{} cannot be brought forward: what was edited there cannot all be read", pod.path().display());
        return Err(Error::new(ErrorKind::LocalIo, what));
    }
    if !matches!(kept.outcome, BackupOutcome::Forked | BackupOutcome::Quarantined) {
        return Err(Error::new(ErrorKind::Internal, "edits were published on a branch with another head"));
    }
    let promote = kept.snapshot.map(promote).unwrap_or_default();
    let what = format!("the head has moved: what was edited here is kept on a fork; to make it the head: {promote}");
    log::line(Level::Warn, &what, json!({"branch": kept.branch, "snapshot": kept.snapshot}));
    Ok(())
}

fn promote(id: SnapshotId) -> String {
    format!("ghostsync promote {}", &id.to_string()[..12])
}

/// Makes the directory equal to the head. A restore that is cut is seen by its marker, and run again.
async fn bring_forward(
    repository: &Repository,
    pod: &Pod,
    args: &RestoreArgs,
    found: &Found,
    interrupt: &Interrupt,
) -> Result<RestoreReport> {
    // What was there is nobody's, or kept: it may go, all of it.
    let is_known = !matches!(found, Found::Empty);
    let options = RestoreOptions {
        branch: pod.args().branch.clone(),
        never: pod.never()?,
        delete: is_known,
        max_delete: Cap::Percent(100),
        overwrite: is_known.then_some(Overwrite::Changed),
        receipt: Some(pod.receipt()),
        genesis: args.genesis,
        interrupt: interrupt.clone(),
        ..RestoreOptions::default()
    };
    let state_dir = &pod.args().place.state_dir;
    Marker::of(pod.path())?.write(state_dir)?;
    let report = restore(repository, pod.path(), options, Arc::new(NoObserver)).await?;
    if is_complete(&report) {
        Marker::remove(state_dir)?;
    }
    tell(&report, pod.path());
    Ok(report)
}

fn is_complete(report: &RestoreReport) -> bool {
    !report.damaged && !report.problems.iter().any(|problem| problem.incomplete)
}

fn tell(report: &RestoreReport, path: &Path) {
    for problem in report.problems.iter().take(20) {
        let level = if problem.incomplete { Level::Error } else { Level::Warn };
        log::line(level, &problem.message, json!({"path": problem.path.to_string()}));
    }
    if report.unstable.count > 0 {
        let paths: Vec<String> = report.unstable.paths.iter().map(ToString::to_string).collect();
        let fields = json!({"files": report.unstable.count, "paths": paths, "hint": ghostsync_cli::hint::FOR_UNSTABLE});
        log::line(Level::Warn, "files changed while the snapshot was made, and may mix several states", fields);
    }
    let fields = json!({"snapshot": report.snapshot, "written": report.written, "unchanged": report.unchanged,
        "deleted": report.deleted, "downloaded_bytes": report.downloaded_bytes, "seconds": report.seconds,
        "problems": report.problems.len()});
    let (level, what) = match is_complete(report) {
        true => (Level::Info, "is restored"),
        false => (Level::Error, "is not restored as a whole, and has no receipt"),
    };
    log::line(level, &format!("{} {what}", path.display()), fields);
}
