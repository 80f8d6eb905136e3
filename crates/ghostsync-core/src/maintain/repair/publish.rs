//! Makes what was written the head of its branch: one commit, made again on a newer state if another was first.

use std::collections::HashMap;

use serde_json::json;

use super::RepairOptions;
use super::rebuild::Left;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Changes, Commit, Snapshot, TreeRef};
use crate::guard::Approved;
use crate::history::judge::{Standing, Verdict, judge};
use crate::history::{Attempt, Session, situation, with_repaired};
use crate::id::{PackName, SnapshotId};
use crate::interrupt::Waiter;
use crate::repository::{Repository, State};
use crate::tree::{WrittenTree, refer_to};

/// How often it is made again because somebody changed something else.
const MAX_REBASES: u32 = 50;

/// What is to be a branch's head.
pub(super) struct Candidate<'a> {
    /// The damaged head.
    pub(super) head: &'a Snapshot,
    /// The branch's epoch as it was read.
    pub(super) epoch: u64,
    pub(super) session: &'a Session,
    /// The state whose snapshots were looked at.
    pub(super) looked_at: &'a State,
    pub(super) tree: WrittenTree,
    /// Lengths of the meta packs that were made.
    pub(super) lengths: HashMap<PackName, u64>,
    pub(super) left: &'a Left,
}

/// What became of it.
pub(super) enum Ended {
    Made(SnapshotId),
    /// It is what the head is already.
    Same,
    /// It lost a race after it was made, and is kept there.
    Forked(SnapshotId, String),
    /// The branch, or what it may refer to, is not what was looked at.
    Changed,
}

/// Commits it on `newest`, which becomes the newest state.
pub(super) fn publish(
    repository: &Repository,
    options: &RepairOptions,
    waiter: &Waiter,
    newest: &mut State,
    candidate: Candidate<'_>,
    approved: &Approved,
) -> Result<Ended> {
    let Candidate { head, epoch, session, looked_at, .. } = candidate;
    let root = &candidate.tree.root;
    let tree = refer_to(root, &candidate.lengths, [&head.tree], repository.store(), waiter)?;
    let record = record(&candidate, tree)?;
    if record.tree == head.tree && (record.entries, record.bytes) == (head.entries, head.bytes) {
        return Ok(Ended::Same);
    }
    let standing = Standing { begin: session.begin, parent: Some(head.id), epoch, holds: false, appends: false };
    for _ in 0..MAX_REBASES {
        options.interrupt.check()?;
        // Packs of every snapshot that was looked at may be referred to, so all of them must still be retained.
        let retains = |snapshot: &Snapshot| newest.commit.retains(snapshot);
        let retains_all = looked_at.commit.snapshots.iter().all(retains);
        if !retains_all || judge(&standing, &situation(newest, &head.branch, &[head])) != Verdict::Follow {
            return Ok(Ended::Changed);
        }
        let op = json!({"kind": "repair", "branch": head.branch, "from": head.id, "snapshot": record.id});
        let next = session.next_commit(newest, &*options.clock, op);
        let state = with_repaired(newest, record.clone(), approved)?;
        let commit = Commit { branches: state.branches, snapshots: state.snapshots, ..next };
        let log = repository.log();
        match waiter.wait_for_the_end(log.attempt(session, newest, &commit))? {
            Attempt::Done(state) => {
                *newest = *state;
                return Ok(Ended::Made(record.id));
            }
            Attempt::TakenOver(state) => {
                *newest = *state;
                let missing = || Error::corrupt(format!("snapshot {} was taken over, and is not there", record.id));
                let fork = newest.commit.snapshot(record.id).ok_or_else(missing)?;
                return Ok(Ended::Forked(fork.id, fork.branch.clone()));
            }
            Attempt::Lost => *newest = waiter.wait(repository.state())?,
        }
    }
    let message = format!("branch {}: other writers were first {MAX_REBASES} times in a row", head.branch);
    Err(Error::new(ErrorKind::Conflict, message))
}

/// The record: what the damaged one says of its directory is true of what is left of it, its time too.
fn record(candidate: &Candidate<'_>, tree_ref: TreeRef) -> Result<Snapshot> {
    let Candidate { head, session, tree, left, .. } = candidate;
    let mut snapshot = Snapshot {
        session: session.id,
        parent: Some(head.id),
        promoted: None,
        repaired: Some(head.id),
        was: None,
        tree: tree_ref,
        entries: tree.entries,
        bytes: tree.bytes,
        changes: Changes { removed: left.findings.removed.count(), ..Changes::default() },
        complete: head.complete && left.losses.is_empty() && left.directories.is_empty(),
        hold: None,
        ..(*head).clone()
    };
    snapshot.id = snapshot.derive_id()?;
    Ok(snapshot)
}
