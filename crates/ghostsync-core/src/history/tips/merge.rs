//! Takes over what lies beside the head: a pure function, so that every reader sees the same.
//!
//! A commit beside the head made at most one snapshot, and that goes to a fork of its own, under a new id because its
//! record says another branch; the id that it had finds it too. Tags and holds are set again. A claim, a release or a
//! forget that lost is not: the first two are advice here, and what was not forgotten can be forgotten again.

use std::collections::BTreeMap;

use crate::format::commit::{Commit, Snapshot, TipName};
use crate::history::branch::{fork_owner, set_head};
use crate::history::judge::Stale;
use crate::id::SnapshotId;

/// Why nobody may take a commit over.
pub(super) type Void = Stale;

/// The head's state with what lies beside it taken over, and what could not be.
pub(super) fn merge(head: &Commit, beside: &BTreeMap<TipName, Commit>) -> (Commit, Vec<(TipName, Void)>) {
    let mut merged = head.clone();
    let mut void = Vec::new();
    // In the order of their numbers: one may have the snapshot of another as its parent.
    for (name, commit) in beside {
        merged.merged.push(*name);
        if let Err(stale) = take_over(&mut merged, commit, head.session_floor) {
            void.push((*name, stale));
        }
    }
    // A floor never sinks, whoever set it: a prune may have been told that it holds.
    let floors = beside.values().map(|commit| commit.session_floor);
    let floor = floors.fold(head.session_floor, u64::max);
    merged.session_floor = floor;
    merged.merged.sort_unstable();
    merged.merged.retain(|name| name.seq > floor);
    (merged, void)
}

/// Tells whether a commit made anything that would be taken over.
pub(super) fn has_something(commit: &Commit) -> bool {
    made_by(commit).next().is_some() || marked_by(commit).is_some()
}

fn made_by(commit: &Commit) -> impl Iterator<Item = &Snapshot> {
    commit.snapshots.iter().filter(|snapshot| snapshot.session == commit.session)
}

/// The snapshot whose tags or hold a commit set.
fn marked_by(commit: &Commit) -> Option<&Snapshot> {
    let kind = commit.op.get("kind")?.as_str()?;
    let id = commit.op.get("snapshot")?.as_str()?.parse().ok()?;
    matches!(kind, "tag" | "hold" | "release-hold").then(|| commit.snapshot(id))?
}

fn take_over(merged: &mut Commit, commit: &Commit, floor: u64) -> Result<(), Stale> {
    // One that does not say when its session began could not be judged; this version always says so.
    if commit.begin.is_none_or(|begin| begin < floor) {
        return Err(Stale::BelowFloor);
    }
    for snapshot in made_by(commit) {
        let is_as_it_was = |id: &SnapshotId| match commit.snapshot(*id) {
            Some(then) => merged.retains(then),
            None => merged.snapshot(*id).is_some(),
        };
        if !snapshot.parent.iter().chain(&snapshot.reuses).all(is_as_it_was) {
            return Err(Stale::ParentForgotten);
        }
        let Ok(fork) = forked(snapshot, commit) else { continue };
        if merged.snapshot(fork.id).is_none() {
            set_head(merged, &fork.branch, fork.id);
            merged.snapshots.push(fork);
        }
    }
    if let Some(marked) = marked_by(commit)
        && let Some(id) = merged.snapshot(marked.id).map(|snapshot| snapshot.id)
        && let Some(snapshot) = merged.snapshots.iter_mut().find(|snapshot| snapshot.id == id)
    {
        snapshot.tags.clone_from(&marked.tags);
        snapshot.hold.clone_from(&marked.hold);
    }
    Ok(())
}

/// The snapshot on a fork of its own; one that was kept aside already stays where it is.
fn forked(snapshot: &Snapshot, commit: &Commit) -> crate::error::Result<Snapshot> {
    if snapshot.onto.is_some() {
        return Ok(snapshot.clone());
    }
    let owner = fork_owner(commit.writer.owner.as_deref(), &commit.writer.name);
    let mut fork = Snapshot {
        branch: format!("fork/{}/{owner}-{}", snapshot.branch, snapshot.session),
        onto: Some(snapshot.branch.clone()),
        was: Some(snapshot.id),
        ..snapshot.clone()
    };
    fork.id = fork.derive_id()?;
    Ok(fork)
}
