//! Makes what was stored visible: one commit, made again on a newer state when another writer was first.
//!
//! Before every create the session is judged on the state that it is built on ([`judge`]): it follows the branch's
//! head, or goes to a fork, or begins anew because a prune may take what it uploaded for garbage. Nothing but uploaded
//! packs and pages is carried over from one attempt to the next.

use serde_json::{Map, Value, json};

use super::Context;
use super::parent::Parent;
use super::store::Stored;
use super::tally::{Tallied, compare_trees};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Changes, Commit, Snapshot, TreeRef, check_owner_name};
use crate::guard::{self, Approved, Refusal};
use crate::history::judge::{Overtaken, Stale, Verdict, judge, may_refer};
use crate::history::{self, Attempt, Session, situation, with_snapshot};
use crate::repository::{State, release};
use crate::store::keys;
use crate::tree::{Merge, TreeIter};

/// How often a backup goes after the head of another that was first.
const MAX_APPENDS: u32 = 3;
/// How often it is made again because somebody changed something else.
const MAX_REBASES: u32 = 50;

/// What became of a tree.
pub(super) enum Published {
    /// A snapshot, and what it changed against the head that it follows.
    Made(Box<Snapshot>, Changes),
    /// Somebody else had just published this very tree.
    EqualsHead(Box<Snapshot>),
    /// It is kept on a fork, for this reason.
    Forked(Box<Snapshot>, Overtaken),
    /// The guard does not approve against the head that it would have to follow.
    Refused(Box<Refusal>),
}

/// Publishes an approved tree as the head of its branch, or else on a fork.
pub(super) fn publish(
    context: &Context,
    parent: &Parent,
    state: &State,
    session: &Session,
    stored: &Stored,
    mut approved: Approved,
) -> Result<Published> {
    let branch = &context.options.branch;
    let standing = parent.standing(session);
    let tree = tree_ref(context, parent, stored)?;
    let mut base = state.clone();
    let mut head = parent.snapshot().cloned();
    let mut changes = stored.tallied.changes;
    let mut appends = 0;
    if let Some(overtaken) = parent.overtaken() {
        return fork(context, parent, base, session, stored, &approved, overtaken);
    }
    parent.announce(context, session)?;
    for _ in 0..MAX_REBASES {
        match judge(&standing, &situation(&base, branch, parent.id())) {
            Verdict::Follow => {}
            Verdict::Fork(overtaken) => {
                parent.withdraw()?;
                return fork(context, parent, base, session, stored, &approved, overtaken);
            }
            Verdict::BeginAnew(stale) => {
                parent.withdraw()?;
                return Err(fenced(stale));
            }
        }
        let newest = base.commit.head(branch).cloned();
        if newest.as_ref().map(|newest| newest.id) != head.as_ref().map(|head| head.id) {
            let Some(newest) = newest else { return Err(Error::corrupt(format!("branch {branch} lost its head"))) };
            if newest.tree.page == tree.page && !context.options.force {
                nothing(context, parent, &newest)?;
                return Ok(Published::EqualsHead(Box::new(newest)));
            }
            appends += 1;
            if appends > MAX_APPENDS {
                parent.withdraw()?;
                return fork(context, parent, base, session, stored, &approved, Overtaken::Outrun);
            }
            // The guard approves against the head that is followed, not only against the one that was read.
            let compared = compare_with(context, stored, &tree, &newest)?;
            match guard::judge(&compared.findings, &context.options.policy) {
                Ok(approves) => approved = approves,
                Err(refusal) => return Ok(Published::Refused(refusal)),
            }
            changes = compared.changes;
            head = Some(newest);
        }
        let target = Target { branch, onto: None, parent: head.as_ref() };
        let record = record(context, session, stored, &tree, target, changes)?;
        let op = json!({"kind": "backup", "branch": branch, "snapshot": record.id});
        if let Some(made) = attempt(context, session, &base, record, &approved, op)? {
            parent.keep_receipt(context, &made)?;
            return Ok(Published::Made(Box::new(made), changes));
        }
        base = context.waiter.wait(context.repository.state())?;
    }
    parent.withdraw()?;
    Err(never_first(branch))
}

/// Publishes nothing, because the directory equals its parent snapshot.
///
/// # Errors
/// `Conflict` if the branch belongs to others: there is nothing to keep, and it is not the head that it equals.
pub(super) fn nothing(context: &Context, parent: &Parent, snapshot: &Snapshot) -> Result<()> {
    let branch = &context.options.branch;
    if let Some(overtaken) = parent.overtaken() {
        let equal = format!("the directory equals snapshot {}, so nothing was published", snapshot.id);
        return Err(Error::new(ErrorKind::Conflict, format!("branch {branch}: {overtaken}; {equal}")));
    }
    if let (true, Some(owner)) = (context.options.release && parent.holds(), &context.options.owner) {
        let released = release(&context.repository, branch, owner, &context.options.writer);
        context.waiter.wait_for_the_end(released)?;
    }
    parent.keep_receipt(context, snapshot)
}

/// Keeps a tree that came too late on a branch of its own.
fn fork(
    context: &Context,
    parent: &Parent,
    state: State,
    session: &Session,
    stored: &Stored,
    approved: &Approved,
    overtaken: Overtaken,
) -> Result<Published> {
    let onto = &context.options.branch;
    let owner = fork_owner(context);
    let aside = Aside { kind: "fork", branches: format!("fork/{onto}/{owner}-"), op: json!({"onto": onto}) };
    let kept = keep_aside(context, parent, state, session, stored, approved, &aside)?;
    Ok(Published::Forked(Box::new(kept), overtaken))
}

/// The owner, or whatever of the writer's name an owner may be called.
fn fork_owner(context: &Context) -> String {
    let plain = |byte: char| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { '-' };
    let of_writer = || context.options.writer.chars().map(plain).take(63).collect::<String>();
    let owner = context.options.owner.clone().unwrap_or_else(of_writer);
    if check_owner_name(&owner).is_ok() { owner } else { "writer".to_owned() }
}

/// Keeps a refused tree on a branch of its own.
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
    let op = json!({"onto": onto, "guard": refusal.guard.name()});
    let aside = Aside { kind: "quarantine", branches: format!("quarantine/{onto}/"), op };
    let kept = keep_aside(context, parent, state.clone(), session, stored, &approved, &aside)?;
    parent.note_quarantine(&kept)?;
    Ok(kept)
}

/// Where a tree is kept that may not move its branch.
struct Aside {
    kind: &'static str,
    /// What the names of such branches begin with; the session follows.
    branches: String,
    /// What the commit's `op` says beside its kind, branch and snapshot.
    op: Value,
}

/// Commits a tree on a branch of its own; one that equals the newest kept there adds nothing.
fn keep_aside(
    context: &Context,
    parent: &Parent,
    mut base: State,
    session: &Session,
    stored: &Stored,
    approved: &Approved,
    aside: &Aside,
) -> Result<Snapshot> {
    let onto = &context.options.branch;
    let branch = format!("{}{}", aside.branches, session.id);
    let tree = tree_ref(context, parent, stored)?;
    for _ in 0..MAX_REBASES {
        may_refer(&parent.standing(session), &situation(&base, onto, parent.id())).map_err(fenced)?;
        let is_kept = |snapshot: &&Snapshot| snapshot.branch.starts_with(&aside.branches);
        let kept = base.commit.snapshots.iter().rev().find(is_kept);
        if let Some(kept) = kept.filter(|kept| kept.tree.page == tree.page) {
            return Ok(kept.clone());
        }
        let target = Target { branch: &branch, onto: Some(onto), parent: parent.snapshot() };
        let record = record(context, session, stored, &tree, target, stored.tallied.changes)?;
        let mut op = aside.op.clone();
        op["kind"] = aside.kind.into();
        op["branch"] = branch.as_str().into();
        op["snapshot"] = json!(record.id);
        if let Some(made) = attempt(context, session, &base, record, approved, op)? {
            return Ok(made);
        }
        base = context.waiter.wait(context.repository.state())?;
    }
    Err(never_first(&branch))
}

fn never_first(branch: &str) -> Error {
    let message =
        format!("branch {branch}: other writers were first {MAX_REBASES} times in a row; nothing was published");
    Error::new(ErrorKind::Conflict, message)
}

fn fenced(stale: Stale) -> Error {
    Error::new(ErrorKind::Fenced, format!("{stale}; nothing was published"))
}

/// Compares what was stored with a head that came meanwhile.
fn compare_with(context: &Context, stored: &Stored, tree: &TreeRef, head: &Snapshot) -> Result<Tallied> {
    let pages = context.repository.pages();
    let pairs = Merge::new(
        TreeIter::new(pages, Some(tree), context.waiter.clone()),
        TreeIter::new(pages, Some(&head.tree), context.waiter.clone()),
    );
    let mut compared = compare_trees(pairs, Some(head.id), context.folder())?;
    compared.findings.unreadable = stored.tallied.findings.unreadable.clone();
    Ok(compared)
}

fn attempt(
    context: &Context,
    session: &Session,
    base: &State,
    record: Snapshot,
    approved: &Approved,
    op: Value,
) -> Result<Option<Snapshot>> {
    context.options.interrupt.check()?;
    let repository = &context.repository;
    let next = session.next_commit(base, &*context.options.clock, op);
    let mut state = with_snapshot(base, record.clone(), approved)?;
    if context.options.release && record.onto.is_none() {
        history::give_back(&mut state, &record.branch, context.options.owner.as_deref());
    }
    let commit = Commit { branches: state.branches, snapshots: state.snapshots, ..next };
    let cache = repository.head_cache();
    let attempt = history::attempt(repository.store(), cache.as_ref(), session, base, &commit);
    Ok(match context.waiter.wait_for_the_end(attempt)? {
        Attempt::Done(_) => Some(record),
        Attempt::Lost => None,
    })
}

/// Where a snapshot goes.
struct Target<'a> {
    branch: &'a str,
    onto: Option<&'a str>,
    parent: Option<&'a Snapshot>,
}

fn record(
    context: &Context,
    session: &Session,
    stored: &Stored,
    tree: &TreeRef,
    target: Target<'_>,
    changes: Changes,
) -> Result<Snapshot> {
    let mut snapshot = Snapshot {
        id: crate::id::SnapshotId::from_bytes([0; 32]),
        session: session.id,
        branch: target.branch.to_owned(),
        onto: target.onto.map(str::to_owned),
        parent: target.parent.map(|parent| parent.id),
        promoted: None,
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
