//! Small changes, each one commit and a function of the state that it is built on: after a lost race it is made again
//! on the newer state.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Repository, State};
use crate::clock::SystemClock;
use crate::error::{Error, Result};
use crate::format::commit::{Snapshot, check_owner_name, check_written_branch_name};
use crate::history::{self, Session, holder_of};
use crate::id::SnapshotId;
use crate::interrupt::Interrupt;
use crate::receipt::Receipt;

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
    let function = |state: &State, _: &Session| {
        let op = json!({"kind": "tag", "snapshot": snapshot});
        Ok(history::with_tags(state, snapshot, set, remove)?.map(|commit| (commit, op)))
    };
    Ok(repository.change(writer, &SystemClock, function).await?.map(|state| state.commit.seq))
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
    let function = |state: &State, _: &Session| {
        let op = json!({"kind": if reason.is_some() { "hold" } else { "release-hold" }, "snapshot": snapshot});
        Ok(history::with_hold(state, snapshot, reason)?.map(|commit| (commit, op)))
    };
    Ok(repository.change(writer, &SystemClock, function).await?.map(|state| state.commit.seq))
}

/// Makes a quarantined or forked snapshot the head of the branch that it was meant for, or an older snapshot the
/// head of its own branch again; returns the record that is the branch's new head.
///
/// # Errors
/// As [`tag`]; `Invalid` if the branch's head has this very tree already.
pub async fn promote(repository: &Repository, snapshot: SnapshotId, writer: &str) -> Result<Snapshot> {
    let mut made = None;
    let function = |state: &State, session: &Session| {
        let (commit, record, op) = history::promoted(state, snapshot, session.id, &SystemClock)?;
        made = Some(record);
        Ok(Some((commit, op)))
    };
    repository.change(writer, &SystemClock, function).await?;
    made.ok_or_else(|| Error::internal("a promotion without a snapshot"))
}

/// A branch that was claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// Its epoch: only commits of this epoch move the branch from now on.
    pub epoch: u64,
    /// Its head in the claim's own commit: what the directory is to be restored from.
    pub head: Option<Snapshot>,
    /// Who held it, and had not released it.
    pub fenced: Option<String>,
    /// Forks of this very head: what predecessors had that came too late.
    pub forks: Vec<Snapshot>,
}

impl Claim {
    /// The receipt of a directory, as it is, under this claim: if the claimed head is what the directory came from, be it
    /// the snapshot that the receipt names, or one that the directory asked for and did not hear of. What was edited
    /// since is then compared with that head. `None` if the head is another's.
    #[must_use]
    pub fn adopt(&self, receipt: &Receipt) -> Option<Receipt> {
        let head = self.head.as_ref();
        let is_ours = match head {
            Some(head) => receipt.snapshot == Some(head.id) || receipt.awaits(head.session),
            None => receipt.snapshot.is_none(),
        };
        is_ours.then(|| Receipt {
            epoch: self.epoch,
            snapshot: head.map(|head| head.id),
            tree: head.map(|head| head.tree.page),
            entries: head.map_or(0, |head| head.entries),
            bytes: head.map_or(0, |head| head.bytes),
            // What was asked for under an earlier claim is in the head by now, or will never be.
            pending: None,
            unsettled: Vec::new(),
            quarantined: None,
            quarantined_under: None,
            ..receipt.clone()
        })
    }
}

/// Takes a branch for an owner, whoever holds it: earlier writers are fenced. The branch is made if it is not there.
///
/// # Errors
/// `Invalid` for a name that is none; otherwise as [`tag`].
pub async fn claim(repository: &Repository, branch: &str, owner: &str, writer: &str) -> Result<Claim> {
    check_names(branch, owner)?;
    let mut fenced = None;
    let function = |state: &State, session: &Session| {
        let before = state.commit.branches.get(branch).and_then(holder_of);
        fenced = before.map(|holder| holder.owner.clone());
        Ok(Some(history::claimed(state, branch, owner, session.id)))
    };
    let state = repository.change(writer, &SystemClock, function).await?;
    let state = state.ok_or_else(|| Error::internal("a claim without a commit"))?;
    let head = state.commit.head(branch).cloned();
    let is_late = |snapshot: &&Snapshot| {
        snapshot.branch.starts_with("fork/")
            && snapshot.onto.as_deref() == Some(branch)
            && snapshot.parent == head.as_ref().map(|head| head.id)
    };
    let forks = state.commit.snapshots.iter().filter(is_late).cloned().collect();
    Ok(Claim { epoch: state.commit.seq, head, fenced, forks })
}

/// Takes a branch again for a directory that goes on from its head, if nobody else holds it; returns the directory's
/// receipt under the new claim. `None`, and nothing is changed, if the branch or its head is another's by now.
///
/// # Errors
/// As [`claim`].
pub async fn reclaim(
    repository: &Repository,
    branch: &str,
    owner: &str,
    writer: &str,
    receipt: &Receipt,
) -> Result<Option<Receipt>> {
    check_names(branch, owner)?;
    let claim_of = |state: &State, epoch| Claim {
        epoch,
        head: state.commit.head(branch).cloned(),
        fenced: None,
        forks: Vec::new(),
    };
    let function = |state: &State, session: &Session| {
        let is_free = state.commit.branches.get(branch).and_then(holder_of).is_none_or(|holder| holder.owner == owner);
        let goes_on = is_free && claim_of(state, 0).adopt(receipt).is_some();
        Ok(goes_on.then(|| history::claimed(state, branch, owner, session.id)))
    };
    let state = repository.change(writer, &SystemClock, function).await?;
    Ok(state.and_then(|state| claim_of(&state, state.commit.seq).adopt(receipt)))
}

/// Gives a branch back; returns whether it had not been given back already. The commit says the note besides.
///
/// # Errors
/// `NotFound` if there is no such branch, `Conflict` if it belongs to another owner; otherwise as [`tag`].
pub async fn release(
    repository: &Repository,
    branch: &str,
    owner: &str,
    writer: &str,
    note: Option<&Value>,
) -> Result<bool> {
    check_names(branch, owner)?;
    let function = |state: &State, _: &Session| {
        let released = history::released(state, branch, owner)?;
        Ok(released.map(|(commit, op)| (commit, history::with_note(op, note))))
    };
    Ok(repository.change(writer, &SystemClock, function).await?.is_some())
}

/// Waits until nobody else holds a branch, but no longer than the limit; returns who still does then.
///
/// A claim is safe at any time: waiting is politeness to a predecessor that is about to end.
///
/// # Errors
/// `Interrupted`, and those of [`Repository::state`].
pub async fn wait_for_release(
    repository: &Repository,
    branch: &str,
    owner: &str,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<Option<String>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(250);
    loop {
        let state = interrupt.unless_set(repository.state()).await?;
        let holder = state.commit.branches.get(branch).and_then(holder_of);
        let other = holder.filter(|holder| holder.owner != owner).map(|holder| holder.owner.clone());
        let now = Instant::now();
        if other.is_none() || now >= deadline {
            return Ok(other);
        }
        let rest = async {
            tokio::time::sleep_until((now + pause).min(deadline)).await;
            Ok(())
        };
        interrupt.unless_set(rest).await?;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn check_names(branch: &str, owner: &str) -> Result<()> {
    let checked = check_written_branch_name(branch).and_then(|()| check_owner_name(owner));
    checked.map_err(|error| Error::invalid(error.to_string()))
}
