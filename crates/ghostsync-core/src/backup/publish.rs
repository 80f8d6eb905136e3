//! Makes what was stored visible: one commit, made again on a newer state when another writer was first.
//!
//! Before every create the session is judged on the state that it is built on ([`judge`]): it follows the branch's
//! head, or goes to a fork, or begins anew because a prune may take what it uploaded for garbage. Nothing but uploaded
//! packs and pages is carried over from one attempt to the next.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::Context;
use super::aside::Aside;
use super::parent::Parent;
use super::steps::Steps;
use super::store::Stored;
use super::tally::{Tallied, compare_trees};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Changes, Commit, Snapshot, TreeRef};
use crate::format::config::CommitMode;
use crate::guard::{self, Approved};
use crate::history::judge::{Overtaken, Stale, Verdict, judge};
use crate::history::{self, Attempt, Session, situation, with_note, with_snapshot};
use crate::id::{CommitHash, PackName, SnapshotId};
use crate::repository::{State, release};
use crate::tree::{Merge, TreeIter, WrittenTree, refer_to};

/// How often a backup goes after the head of another that was first.
const MAX_APPENDS: u32 = 3;
/// How often it is made again because somebody changed something else.
pub(super) const MAX_REBASES: u32 = 50;

/// What became of a tree.
pub(super) enum Published {
    /// A snapshot, and what it changed against the head that it follows.
    Made(Box<Snapshot>, Changes),
    /// Somebody else had just published this very tree.
    EqualsHead(Box<Snapshot>),
    /// It is kept on a branch of its own.
    Aside(Box<Snapshot>, Aside),
}

/// Makes the one commit of a session.
pub(super) struct Publisher<'a> {
    pub(super) context: &'a Context,
    pub(super) parent: &'a Parent,
    pub(super) session: Session,
    /// What was read when it began, or later.
    pub(super) state: State,
    pub(super) steps: Steps,
}

impl Publisher<'_> {
    /// Publishes an approved tree as the head of its branch, or else aside.
    pub(super) fn on_branch(&self, stored: Stored, mut approved: Approved) -> Result<Published> {
        let Self { context, parent, session, .. } = self;
        let branch = &context.options.branch;
        let tree = self.tree_ref(&stored.tree, &stored.pack_lengths)?;
        let mut base = self.state.clone();
        let mut head = parent.snapshot().cloned();
        let mut changes = stored.tallied.changes;
        let mut appends = 0;
        parent.announce(context, session)?;
        for _ in 0..MAX_REBASES {
            let standing = parent.standing_on(base.commit.head(branch), session);
            match judge(&standing, &situation(&base, branch, &self.reused())) {
                Verdict::Follow => {}
                Verdict::Fork(overtaken) => {
                    parent.withdraw()?;
                    return self.keep(base, &stored, Aside::Fork(approved, overtaken));
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
                    self.nothing(&newest, !context.defers(&stored.tallied.findings))?;
                    return Ok(Published::EqualsHead(Box::new(newest)));
                }
                appends += 1;
                if appends > MAX_APPENDS {
                    return self.keep(base, &stored, Aside::Fork(approved, Overtaken::Outrun));
                }
                // The guard approves against the head that is followed, not only against the one that was read.
                let compared = self.compare_with(&stored, &tree, &newest)?;
                match guard::judge(&compared.findings, &context.options.policy) {
                    Ok(approves) => approved = approves,
                    Err(refusal) if context.keeps_refused() => {
                        return self.keep(base, &stored, Aside::Quarantine(refusal));
                    }
                    Err(refusal) => return Err((*refusal).into()),
                }
                changes = compared.changes;
                head = Some(newest);
            }
            let target = Target { branch, onto: None, parent: head.as_ref() };
            let record = self.whole_record(&stored, &tree, target, changes)?;
            let op = json!({"kind": "backup", "branch": branch, "snapshot": record.id});
            if let Some(made) = self.attempt(&base, record, &approved, op)? {
                if made.branch != *branch {
                    parent.withdraw()?;
                    return Ok(Published::Aside(Box::new(made), Aside::Fork(approved, Overtaken::Raced)));
                }
                parent.keep_receipt(context, &made)?;
                stored.known.finish(made.id, context.root.directory_id());
                return Ok(Published::Made(Box::new(made), changes));
            }
            base = context.waiter.wait(context.repository.state())?;
        }
        parent.withdraw()?;
        Err(never_first(branch))
    }

    /// Publishes nothing, because the directory equals this snapshot; `is_all` unless something was left for a next step.
    ///
    /// # Errors
    /// `Conflict` if the branch belongs to others: there is nothing to keep, and it is not the head that it equals.
    pub(super) fn nothing(&self, snapshot: &Snapshot, is_all: bool) -> Result<()> {
        let Self { context, parent, .. } = self;
        let options = &context.options;
        if let Some(overtaken) = parent.overtaken() {
            let equal = format!("the directory equals snapshot {}, so nothing was published", snapshot.id);
            return Err(Error::new(ErrorKind::Conflict, format!("branch {}: {overtaken}; {equal}", options.branch)));
        }
        if let (true, Some(owner)) = (options.release && is_all && parent.holds(), &options.owner) {
            let released = release(&context.repository, &options.branch, owner, &options.writer, options.note.as_ref());
            context.waiter.wait_for_the_end(released)?;
        }
        parent.keep_receipt(context, snapshot)
    }

    /// Tries to make one commit on a state, and returns what is in the repository then: the record, or what was made of it
    /// where it lost a race after it was made. `None` if another was first.
    pub(super) fn attempt(
        &self,
        base: &State,
        record: Snapshot,
        approved: &Approved,
        mut op: Value,
    ) -> Result<Option<Snapshot>> {
        let options = &self.context.options;
        let mut next = with_snapshot(base, record.clone(), approved)?;
        // What a first step could not read is left out too: the next one gives the branch back.
        let is_last = record.complete || options.defer_over.is_none();
        if options.release && is_last && record.onto.is_none() {
            history::give_back(&mut next, &record.branch, options.owner.as_deref());
        }
        // The new snapshot reaches what it needs of them. In commit mode `detect` a commit that was made may lose a race
        // afterwards, and what it refers to is to be retained in the one that it lost to.
        if self.context.repository.config().commit_mode == CommitMode::Atomic {
            let steps = history::without_steps(&mut next, &self.steps.branch, &record.source);
            if !steps.is_empty() {
                op["dropped"] = json!(steps);
            }
        }
        self.create(base, next, record, op)
    }

    /// Tries to make one commit of this state, after `base`; as [`Publisher::attempt`].
    pub(super) fn create(&self, base: &State, next: Commit, record: Snapshot, op: Value) -> Result<Option<Snapshot>> {
        let Self { context, session, .. } = self;
        context.options.interrupt.check()?;
        let op = with_note(op, context.options.note.as_ref());
        let Commit { branches, snapshots, .. } = next;
        let commit = Commit { branches, snapshots, ..session.next_commit(base, &*context.options.clock, op) };
        let log = context.repository.log();
        context.journal.note_create(commit.seq, CommitHash::of(&commit.encode()?));
        let attempt = context.waiter.wait_for_the_end(log.attempt(session, base, &commit))?;
        context.journal.settled();
        Ok(match attempt {
            Attempt::Done(_) => Some(record),
            Attempt::TakenOver(state) => {
                let missing = || Error::corrupt(format!("snapshot {} was taken over, and is not there", record.id));
                Some(state.commit.snapshot(record.id).cloned().ok_or_else(missing)?)
            }
            Attempt::Lost => None,
        })
    }

    /// Compares what was stored with a head that came meanwhile.
    fn compare_with(&self, stored: &Stored, tree: &TreeRef, head: &Snapshot) -> Result<Tallied> {
        let context = self.context;
        let pages = context.repository.pages();
        let pairs = Merge::new(
            TreeIter::new(pages, Some(tree), context.waiter.clone()),
            TreeIter::new(pages, Some(&head.tree), context.waiter.clone()),
        );
        let mut compared = compare_trees(pairs, Some(head.id), context.folder(), &context.root)?;
        compared.findings.unreadable = stored.tallied.findings.unreadable.clone();
        Ok(compared)
    }

    /// The snapshots whose packs this session may refer to, besides its own.
    pub(super) fn reused(&self) -> Vec<&Snapshot> {
        self.parent.snapshot().into_iter().chain(self.steps.made()).collect()
    }

    /// The record of a snapshot of a whole directory.
    pub(super) fn whole_record(
        &self,
        stored: &Stored,
        tree: &TreeRef,
        target: Target<'_>,
        changes: Changes,
    ) -> Result<Snapshot> {
        let complete = stored.tallied.findings.unreadable.count() == 0;
        let tags = self.context.options.tags.clone();
        let record = self.record(&stored.tree, tree, target, changes);
        with_id(Snapshot { complete, tags, ..record })
    }

    /// The record of a snapshot of a part of a directory, without an id.
    pub(super) fn record(
        &self,
        written: &WrittenTree,
        tree: &TreeRef,
        target: Target<'_>,
        changes: Changes,
    ) -> Snapshot {
        let Self { context, session, .. } = self;
        let parent = target.parent.map(|parent| parent.id);
        Snapshot {
            id: SnapshotId::from_bytes([0; 32]),
            session: session.id,
            branch: target.branch.to_owned(),
            onto: target.onto.map(str::to_owned),
            parent,
            reuses: self.reused().into_iter().map(|reused| reused.id).filter(|id| Some(*id) != parent).collect(),
            promoted: None,
            repaired: None,
            was: None,
            time: context.began,
            source: context.source.to_string_lossy().into_owned(),
            excludes: crate::source::rules(&context.options.excludes),
            tree: tree.clone(),
            entries: written.entries,
            bytes: written.bytes,
            changes,
            complete: false,
            tags: BTreeMap::new(),
            hold: None,
            extra: Map::new(),
        }
    }

    /// The reference to the stored tree, with the length of its root's pack.
    pub(super) fn tree_ref(&self, tree: &WrittenTree, pack_lengths: &HashMap<PackName, u64>) -> Result<TreeRef> {
        let Self { context, parent, .. } = self;
        refer_to(&tree.root, pack_lengths, parent.tree(), context.repository.store(), &context.waiter)
    }
}

/// The record with its id.
pub(super) fn with_id(mut record: Snapshot) -> Result<Snapshot> {
    record.id = record.derive_id()?;
    Ok(record)
}

/// Where a snapshot goes.
pub(super) struct Target<'a> {
    pub(super) branch: &'a str,
    pub(super) onto: Option<&'a str>,
    pub(super) parent: Option<&'a Snapshot>,
}

pub(super) fn never_first(branch: &str) -> Error {
    let what = format!("other writers were first {MAX_REBASES} times in a row; nothing was published");
    Error::new(ErrorKind::Conflict, format!("branch {branch}: {what}"))
}

pub(super) fn fenced(stale: Stale) -> Error {
    Error::new(ErrorKind::Fenced, format!("{stale}; nothing was published"))
}
