//! Makes what was stored visible: one commit, made again on a newer state when another writer was first.

use serde_json::{Map, json};

use super::Context;
use super::parent::Parent;
use super::store::Stored;
use super::tally::compare_trees;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Changes, Snapshot, TreeRef};
use crate::guard::{self, Approved, Refusal};
use crate::history::{self, Attempt, Session, may_follow, with_snapshot};
use crate::repository::State;
use crate::store::keys;
use crate::tree::{Merge, TreeIter};

/// How often a backup goes after the head of another that was first.
const MAX_APPENDS: u32 = 3;
/// How often it is made again because somebody changed something else.
const MAX_REBASES: u32 = 50;

/// What became of an approved tree.
pub(super) enum Published {
    /// A snapshot, and what it changed against the head that it follows.
    Made(Box<Snapshot>, Changes),
    /// Somebody else had just published this very tree.
    EqualsHead(Box<Snapshot>),
}

/// Publishes an approved tree as the head of its branch.
pub(super) fn on_branch(
    context: &Context,
    parent: &Parent,
    state: &State,
    session: &Session,
    stored: &Stored,
    mut approved: Approved,
) -> Result<Published> {
    let branch = &context.options.branch;
    let epoch = state.commit.branches.get(branch).map_or(0, |branch| branch.epoch);
    let tree = tree_ref(context, parent, stored)?;
    let mut base = state.clone();
    let mut head = parent.snapshot().cloned();
    let mut changes = stored.tallied.changes;
    let mut appends = 0;
    parent.announce(context, session)?;
    for _ in 0..MAX_REBASES {
        if let Err(overtaken) = may_follow(&base, branch, epoch, parent.id()) {
            return conflict(context, parent, &overtaken.to_string());
        }
        let record = record(context, session, stored, &tree, Target { branch, onto: None }, head.as_ref(), changes)?;
        let op = json!({"kind": "backup", "branch": branch, "snapshot": record.id});
        if let Some(made) = attempt(context, session, &base, record, &approved, op)? {
            parent.keep_receipt(context, &made)?;
            return Ok(Published::Made(Box::new(made), changes));
        }
        base = context.waiter.wait(context.repository.state())?;
        let newest = base.commit.head(branch);
        if newest.map(|newest| newest.id) == head.as_ref().map(|head| head.id) {
            continue;
        }
        if parent.has_receipt() {
            return conflict(
                context,
                parent,
                "another writer moved the branch, and the directory was restored from the head before",
            );
        }
        let Some(newest) = newest.cloned() else { return conflict(context, parent, "the branch lost its head") };
        if newest.tree.page == tree.page && !context.options.force {
            return Ok(Published::EqualsHead(Box::new(newest)));
        }
        appends += 1;
        if appends > MAX_APPENDS {
            return conflict(context, parent, &format!("other writers were first {appends} times in a row"));
        }
        // The guard approves against the head that is followed, not only against the one that was read.
        let pages = context.repository.pages();
        let pairs = Merge::new(
            TreeIter::new(pages, Some(&tree), context.waiter.clone()),
            TreeIter::new(pages, Some(&newest.tree), context.waiter.clone()),
        );
        let mut compared = compare_trees(pairs, Some(newest.id), context.folder())?;
        compared.findings.unreadable = stored.tallied.findings.unreadable.clone();
        approved =
            guard::judge(&compared.findings, &context.options.policy).map_err(|refusal| Error::from(*refusal))?;
        changes = compared.changes;
        head = Some(newest);
    }
    conflict(context, parent, "other writers kept winning")
}

/// Keeps a refused tree on a branch of its own; one that equals the newest kept there adds nothing.
pub(super) fn in_quarantine(
    context: &Context,
    parent: &Parent,
    state: &State,
    session: &Session,
    stored: &Stored,
    refusal: &Refusal,
) -> Result<Snapshot> {
    let Some(approved) = refusal.quarantine() else { return Err(refusal.clone().into()) };
    let onto = &context.options.branch;
    let branch = format!("quarantine/{onto}/{}", session.id);
    let tree = tree_ref(context, parent, stored)?;
    let mut base = state.clone();
    for _ in 0..MAX_REBASES {
        let kept = base
            .commit
            .snapshots
            .iter()
            .rev()
            .find(|snapshot| snapshot.onto.as_ref() == Some(onto) && snapshot.branch.starts_with("quarantine/"));
        if let Some(kept) = kept.filter(|kept| kept.tree.page == tree.page) {
            return Ok(kept.clone());
        }
        if parent.id().is_some_and(|parent| base.commit.snapshot(parent).is_none()) {
            return conflict(context, parent, "the snapshot that this one was compared with has been forgotten");
        }
        let target = Target { branch: &branch, onto: Some(onto) };
        let record = record(context, session, stored, &tree, target, parent.snapshot(), stored.tallied.changes)?;
        let op = json!({
            "kind": "quarantine", "branch": branch, "onto": onto, "snapshot": record.id, "guard": refusal.guard.name(),
        });
        if let Some(made) = attempt(context, session, &base, record, &approved, op)? {
            return Ok(made);
        }
        base = context.waiter.wait(context.repository.state())?;
    }
    conflict(context, parent, "other writers kept winning")
}

fn attempt(
    context: &Context,
    session: &Session,
    base: &State,
    record: Snapshot,
    approved: &Approved,
    op: serde_json::Value,
) -> Result<Option<Snapshot>> {
    context.options.interrupt.check()?;
    let repository = &context.repository;
    let next = session.next_commit(base, &*context.options.clock, op);
    let state = with_snapshot(base, record.clone(), approved)?;
    let commit = crate::format::commit::Commit { branches: state.branches, snapshots: state.snapshots, ..next };
    let cache = repository.head_cache();
    let attempt = history::attempt(repository.store(), cache.as_ref(), session, base, &commit);
    Ok(match context.waiter.wait_for_the_end(attempt)? {
        Attempt::Done(_) => Some(record),
        Attempt::Lost => None,
    })
}

fn conflict<T>(context: &Context, parent: &Parent, why: &str) -> Result<T> {
    parent.withdraw()?;
    let branch = &context.options.branch;
    Err(Error::new(ErrorKind::Conflict, format!("branch {branch}: {why}; nothing was published")))
}

/// Where a snapshot goes.
struct Target<'a> {
    branch: &'a str,
    onto: Option<&'a str>,
}

fn record(
    context: &Context,
    session: &Session,
    stored: &Stored,
    tree: &TreeRef,
    target: Target<'_>,
    parent: Option<&Snapshot>,
    changes: Changes,
) -> Result<Snapshot> {
    let mut snapshot = Snapshot {
        id: crate::id::SnapshotId::from_bytes([0; 32]),
        session: session.id,
        branch: target.branch.to_owned(),
        onto: target.onto.map(str::to_owned),
        parent: parent.map(|parent| parent.id),
        time: context.began,
        source: context.source.to_string_lossy().into_owned(),
        excludes: crate::source::rules(&context.options.excludes),
        tree: tree.clone(),
        entries: stored.tree.entries,
        bytes: stored.tree.bytes,
        changes,
        complete: stored.tallied.findings.unreadable.count() == 0,
        tags: context.options.tags.clone(),
        hold: None,
        extra: Map::new(),
    };
    snapshot.id = snapshot.derive_id()?;
    Ok(snapshot)
}

/// The reference to the stored tree, with the length of its root's pack.
fn tree_ref(context: &Context, parent: &Parent, stored: &Stored) -> Result<TreeRef> {
    let root = stored.tree.root;
    let pack = root.placement.pack;
    let of_parent = || parent.tree().filter(|tree| tree.pack == pack).map(|tree| tree.pack_length);
    let pack_length = match stored.pack_lengths.get(&pack).copied().or_else(of_parent) {
        Some(length) => length,
        // The root is a page that used to be further down in the parent's tree.
        None => context
            .waiter
            .wait(context.repository.store().size(&keys::meta_pack(pack)))?
            .ok_or_else(|| Error::corrupt(format!("pack {} is gone", keys::meta_pack(pack))))?,
    };
    Ok(TreeRef {
        page: root.page,
        level: root.level,
        pack,
        offset: root.placement.offset,
        length: root.placement.bytes,
        frame: root.placement.frame,
        pack_length,
        extra: Map::new(),
    })
}
