//! What a commit may do to branches and snapshots: pure functions of the state that it is built on.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{State, side_of};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Branch, Commit, Snapshot};
use crate::guard::Approved;
use crate::id::{SessionId, SnapshotId};

/// Why a backup may not move its branch any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overtaken {
    /// The branch was claimed, promoted or rolled back since the backup began.
    NewEpoch,
    /// The branch belongs to a holder that has not released it.
    Held,
    /// The snapshot that ours was compared with has been forgotten.
    ParentForgotten,
}

impl std::fmt::Display for Overtaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NewEpoch => "the branch was claimed, promoted or rolled back in the meantime",
            Self::Held => "the branch belongs to a holder that has not released it",
            Self::ParentForgotten => "the snapshot that this one was compared with has been forgotten",
        })
    }
}

/// Judges by policy `append` whether a plain backup may follow the head of `state`, given the epoch that it read at
/// its beginning and the snapshot that it reuses chunks of. The guard must approve against that head as well.
pub(crate) fn may_follow(
    state: &State,
    branch: &str,
    epoch: u64,
    parent: Option<SnapshotId>,
) -> std::result::Result<(), Overtaken> {
    let current = state.commit.branches.get(branch);
    if current.map_or(0, |branch| branch.epoch) != epoch {
        return Err(Overtaken::NewEpoch);
    }
    if current.and_then(|branch| branch.holder.as_ref()).is_some_and(|holder| !holder.released) {
        return Err(Overtaken::Held);
    }
    if parent.is_some_and(|parent| state.commit.snapshot(parent).is_none()) {
        return Err(Overtaken::ParentForgotten);
    }
    Ok(())
}

/// The state with a new snapshot as the head of its branch. Only a guard makes the [`Approved`] that this asks for.
pub(crate) fn with_snapshot(state: &State, snapshot: Snapshot, approved: &Approved) -> Result<Commit> {
    if approved.is_for_quarantine() != snapshot.branch.starts_with("quarantine/") {
        return Err(Error::internal(format!("branch {} does not fit what the guard approved", snapshot.branch)));
    }
    let mut commit = state.commit.clone();
    set_head(&mut commit, &snapshot.branch, snapshot.id, None);
    commit.snapshots.push(snapshot);
    Ok(commit)
}

fn set_head(commit: &mut Commit, branch: &str, head: SnapshotId, epoch: Option<u64>) {
    let entry = commit.branches.entry(branch.to_owned()).or_insert_with(|| Branch {
        head: None,
        epoch: 0,
        holder: None,
        extra: Map::new(),
    });
    entry.head = Some(head);
    if let Some(epoch) = epoch {
        entry.epoch = epoch;
    }
}

/// The state with tags of a snapshot set and removed; `None` if that changes nothing.
pub(crate) fn with_tags(
    state: &State,
    id: SnapshotId,
    set: &[(String, String)],
    remove: &[String],
) -> Result<Option<Commit>> {
    with_marks(state, id, |snapshot| {
        for name in remove {
            snapshot.tags.remove(name);
        }
        snapshot.tags.extend(set.iter().cloned());
    })
}

/// The state with a snapshot held for a reason, or not held any more; `None` if that changes nothing.
pub(crate) fn with_hold(state: &State, id: SnapshotId, reason: Option<&str>) -> Result<Option<Commit>> {
    with_marks(state, id, |snapshot| snapshot.hold = reason.map(str::to_owned))
}

fn with_marks(state: &State, id: SnapshotId, mark: impl FnOnce(&mut Snapshot)) -> Result<Option<Commit>> {
    let mut commit = state.commit.clone();
    let snapshot = commit.snapshots.iter_mut().find(|snapshot| snapshot.id == id).ok_or_else(|| not_retained(id))?;
    let before = snapshot.clone();
    mark(snapshot);
    Ok((*snapshot != before).then_some(commit))
}

fn not_retained(id: SnapshotId) -> Error {
    Error::new(ErrorKind::NotFound, format!("snapshot {id} is not in the repository"))
}

/// The state in which a branch has a copy of a snapshot's record as its new head: a quarantined or forked snapshot on
/// the branch that it was meant for, or an older one on its own branch again. The branch gets a new epoch, the number
/// of this commit, so that no backup that began before moves it; the holder keeps it under that epoch.
pub(crate) fn promoted(
    state: &State,
    id: SnapshotId,
    session: SessionId,
    clock: &dyn Clock,
) -> Result<(Commit, Snapshot, Value)> {
    let source = state.commit.snapshot(id).ok_or_else(|| not_retained(id))?;
    let branch = source.onto.clone().unwrap_or_else(|| source.branch.clone());
    let head = state.commit.head(&branch);
    if head.is_some_and(|head| head.id == id || head.tree.page == source.tree.page) {
        return Err(Error::invalid(format!("branch {branch} has this very tree as its head already")));
    }
    let mut snapshot = Snapshot {
        session,
        branch: branch.clone(),
        onto: None,
        parent: head.map(|head| head.id),
        time: clock.now(),
        hold: None,
        ..source.clone()
    };
    snapshot.id = snapshot.derive_id()?;
    let op = json!({"kind": "promote", "branch": branch, "from": id, "snapshot": snapshot.id});
    let mut commit = state.commit.clone();
    set_head(&mut commit, &branch, snapshot.id, Some(state.commit.seq + 1));
    commit.snapshots.push(snapshot.clone());
    Ok((commit, snapshot, op))
}

/// The state without some of its snapshots. A branch beside another goes with the last of its snapshots; every other
/// branch, and every held snapshot, stays, whatever the caller has computed.
pub(crate) fn without_snapshots(state: &State, dropped: &BTreeSet<SnapshotId>) -> Result<Commit> {
    let mut commit = state.commit.clone();
    if let Some(held) =
        commit.snapshots.iter().find(|snapshot| snapshot.hold.is_some() && dropped.contains(&snapshot.id))
    {
        return Err(Error::internal(format!("snapshot {} is held and was to be dropped", held.id)));
    }
    commit.snapshots.retain(|snapshot| !dropped.contains(&snapshot.id));
    for (name, branch) in &state.commit.branches {
        if branch.head.is_none_or(|head| !dropped.contains(&head)) {
            continue;
        }
        if side_of(name).is_none() || commit.snapshots.iter().any(|snapshot| snapshot.branch == *name) {
            return Err(Error::internal(format!("the head of branch {name} was to be dropped")));
        }
        commit.branches.remove(name);
    }
    Ok(commit)
}
