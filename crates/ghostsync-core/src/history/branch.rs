//! What a commit may do to branches and snapshots: pure functions of the state that it is built on.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::judge::Situation;
use super::{SideKind, State, side_of};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Branch, Commit, Holder, Snapshot, check_owner_name};
use crate::guard::Approved;
use crate::id::{SessionId, SnapshotId};

/// What a state says about the branch of a session that refers to what these snapshots reach.
pub(crate) fn situation(state: &State, branch: &str, reused: &[&Snapshot]) -> Situation<SnapshotId> {
    let current = state.commit.branches.get(branch);
    Situation {
        floor: state.commit.session_floor,
        epoch: current.map_or(0, |branch| branch.epoch),
        head: current.and_then(|branch| branch.head),
        is_held: current.and_then(holder_of).is_some(),
        retains_parent: reused.iter().all(|snapshot| state.commit.retains(snapshot)),
    }
}

/// The holder of a branch, unless it has released it.
pub(crate) fn holder_of(branch: &Branch) -> Option<&Holder> {
    branch.holder.as_ref().filter(|holder| !holder.released)
}

/// Names the owner of a fork: the owner, or whatever of the writer's name an owner may be called.
pub(crate) fn fork_owner(owner: Option<&str>, writer: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let of_writer = || writer.chars().map(plain).take(63).collect::<String>();
    let owner = owner.map_or_else(of_writer, str::to_owned);
    if check_owner_name(&owner).is_ok() { owner } else { "writer".to_owned() }
}

/// The state with a new snapshot as the head of its branch. Only a guard makes the [`Approved`] that this asks for.
pub(crate) fn with_snapshot(state: &State, snapshot: Snapshot, approved: &Approved) -> Result<Commit> {
    if approved.is_for_quarantine() != snapshot.branch.starts_with("quarantine/") {
        return Err(Error::internal(format!("branch {} does not fit what the guard approved", snapshot.branch)));
    }
    let mut commit = state.commit.clone();
    set_head(&mut commit, &snapshot.branch, snapshot.id);
    commit.snapshots.push(snapshot);
    Ok(commit)
}

/// The state with a step of a backup that goes on as the head of its `wip` branch. No guard is asked: it moves no branch
/// that people back up to, and says that it is incomplete.
pub(crate) fn with_step(state: &State, step: Snapshot) -> Result<Commit> {
    if step.complete || !is_step(&step) {
        return Err(Error::internal(format!("a step on branch {}", step.branch)));
    }
    let mut commit = state.commit.clone();
    set_head(&mut commit, &step.branch, step.id);
    commit.snapshots.push(step);
    Ok(commit)
}

/// Tells whether a snapshot is a step: what a backup had so far, on a `wip` branch.
pub(crate) fn is_step(snapshot: &Snapshot) -> bool {
    matches!(side_of(&snapshot.branch), Some((SideKind::Wip, _)))
}

/// Drops the steps of a directory, but those that are held, and the branch with the last of them. Returns which.
pub(crate) fn without_steps(commit: &mut Commit, branch: &str, source: &str) -> Vec<SnapshotId> {
    let goes = |step: &Snapshot| step.branch == branch && step.source == source && step.hold.is_none();
    let (dropped, kept) = std::mem::take(&mut commit.snapshots).into_iter().partition(goes);
    commit.snapshots = kept;
    if !dropped.is_empty() {
        let left = commit.snapshots.iter().rev().find(|step| step.branch == branch).map(|step| step.id);
        match left {
            Some(head) => drop(set_head(commit, branch, head)),
            None => drop(commit.branches.remove(branch)),
        }
    }
    dropped.into_iter().map(|step: Snapshot| step.id).collect()
}

pub(super) fn set_head<'a>(commit: &'a mut Commit, branch: &str, head: SnapshotId) -> &'a mut Branch {
    let entry = entry(commit, branch);
    entry.head = Some(head);
    entry
}

fn entry<'a>(commit: &'a mut Commit, branch: &str) -> &'a mut Branch {
    let empty = || Branch { head: None, epoch: 0, holder: None, extra: Map::new() };
    commit.branches.entry(branch.to_owned()).or_insert_with(empty)
}

/// The state in which a branch belongs to an owner: its epoch is the number of this commit, so that every earlier
/// writer is fenced, also one of the same owner.
pub(crate) fn claimed(state: &State, branch: &str, owner: &str, session: SessionId) -> (Commit, Value) {
    let mut commit = state.commit.clone();
    let entry = entry(&mut commit, branch);
    entry.epoch = state.commit.seq + 1;
    entry.holder = Some(Holder { owner: owner.to_owned(), session, released: false, extra: Map::new() });
    (commit, json!({"kind": "claim", "branch": branch, "owner": owner}))
}

/// What a commit did, and what is noted about it.
pub(crate) fn with_note(mut op: Value, note: Option<&Value>) -> Value {
    if let (Value::Object(fields), Some(note)) = (&mut op, note) {
        fields.insert("note".into(), note.clone());
    }
    op
}

/// Gives a branch back if it belongs to this owner.
pub(crate) fn give_back(commit: &mut Commit, branch: &str, owner: Option<&str>) {
    let holder = commit.branches.get_mut(branch).and_then(|branch| branch.holder.as_mut());
    if let Some(holder) = holder.filter(|holder| Some(holder.owner.as_str()) == owner) {
        holder.released = true;
    }
}

/// The state in which an owner has given its branch back; `None` if it has already.
///
/// # Errors
/// `NotFound` if there is no such branch, `Conflict` if it belongs to somebody else.
pub(crate) fn released(state: &State, branch: &str, owner: &str) -> Result<Option<(Commit, Value)>> {
    let mut commit = state.commit.clone();
    let Some(entry) = commit.branches.get_mut(branch) else {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no branch {branch}")));
    };
    match &mut entry.holder {
        Some(holder) if holder.owner == owner => {
            if std::mem::replace(&mut holder.released, true) {
                return Ok(None);
            }
        }
        other => {
            let whose = other.as_ref().map_or("nobody", |holder| holder.owner.as_str());
            return Err(Error::new(ErrorKind::Conflict, format!("branch {branch} belongs to {whose}, not to {owner}")));
        }
    }
    Ok(Some((commit, json!({"kind": "release", "branch": branch, "owner": owner}))))
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
    if is_step(source) {
        let what = format!("snapshot {id} is a step of a backup that did not end: it holds a part of its directory");
        return Err(Error::invalid(what));
    }
    let head = state.commit.head(&branch);
    if head.is_some_and(|head| head.id == id || head.tree.page == source.tree.page) {
        return Err(Error::invalid(format!("branch {branch} has this very tree as its head already")));
    }
    let mut snapshot = Snapshot {
        session,
        branch: branch.clone(),
        onto: None,
        parent: head.map(|head| head.id),
        promoted: Some(id),
        repaired: None,
        was: None,
        time: clock.now(),
        hold: None,
        ..source.clone()
    };
    snapshot.id = snapshot.derive_id()?;
    let op = json!({"kind": "promote", "branch": branch, "from": id, "snapshot": snapshot.id});
    let mut commit = state.commit.clone();
    set_head(&mut commit, &branch, snapshot.id).epoch = state.commit.seq + 1;
    commit.snapshots.push(snapshot.clone());
    Ok((commit, snapshot, op))
}

/// The state with what was rebuilt of a branch's head as its new head. The branch gets a new epoch, as with a promotion:
/// a backup that began before refers to what is damaged.
pub(crate) fn with_repaired(state: &State, snapshot: Snapshot, approved: &Approved) -> Result<Commit> {
    let branch = snapshot.branch.clone();
    let mut commit = with_snapshot(state, snapshot, approved)?;
    entry(&mut commit, &branch).epoch = state.commit.seq + 1;
    Ok(commit)
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
