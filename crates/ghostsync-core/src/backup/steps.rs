//! Keeps what a backup that lasts long has stored so far, so that it is not lost when the backup is fenced, or killed
//! on a machine that keeps no cache.
//!
//! When a session has lasted for [`BackupOptions::wip_every`](super::BackupOptions::wip_every), the entries so far are
//! committed as an incomplete snapshot on `wip/<branch>/<owner>`, a **step**, and the backup goes on as another session,
//! which begins on the state that has the step. That one may refer to packs of the session before as far as the step
//! reaches them, for the reason that it may refer to what its parent reaches: the step must be retained in the state
//! that it commits on, like the parent. What the step does not reach (the content of a file that changed while it was
//! read, say) may be garbage from then on, and is stored again.
//!
//! Whoever backs the same directory up to the same branch under the same name takes the newest step up like a second
//! parent, and is not told by it what has changed: every file is read again, and what the step reaches is not uploaded
//! again. It makes a step only when it has come further than that one, so the newest step is always the longest.
//!
//! The commit that makes the snapshot in the end drops the steps: it reaches all of them that it needs. If there never
//! is one, a `forget` drops them, as it does in commit mode `detect`.
//!
//! A step is made between two files: a file that takes longer is not cut.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::publish::{MAX_REBASES, Publisher, Target, fenced, never_first, with_id};
use super::survey::Survey;
use super::{Context, Parent};
use crate::error::{ErrorKind, Result};
use crate::format::commit::{Changes, Snapshot};
use crate::history::judge::may_refer;
use crate::history::{Session, fork_owner, situation, with_step};
use crate::id::PackName;
use crate::pack::PackNames;
use crate::repository::State;
use crate::tree::{TreeIter, WrittenTree};
use crate::tree_path::TreePath;

/// The steps that a session goes on from.
pub(super) struct Steps {
    /// The branch that they are on.
    pub(super) branch: String,
    /// The one that was taken up, and those that were made since, oldest first. All of them must be retained.
    made: Vec<Snapshot>,
    /// How far the one that was taken up has come.
    until: Option<TreePath>,
    /// When the session began.
    since: Timestamp,
}

impl Steps {
    /// Finds the newest step of an earlier run, if that made no snapshot of the directory in the end.
    pub(super) fn find(context: &Context, state: &State) -> Self {
        let options = &context.options;
        let owner = fork_owner(options.owner.as_deref(), &options.writer);
        let branch = format!("wip/{}/{owner}", options.branch);
        let source = context.source.to_string_lossy();
        let is_ours = |snapshot: &&Snapshot| {
            (snapshot.branch == branch || snapshot.branch == options.branch) && snapshot.source == source
        };
        let newest = state.commit.snapshots.iter().rev().find(is_ours);
        let made = newest.filter(|newest| newest.branch == branch).cloned().into_iter().collect();
        Self { branch, made, until: None, since: options.clock.now() }
    }

    pub(super) fn made(&self) -> &[Snapshot] {
        &self.made
    }

    /// Adds what an earlier run's step reaches to what the parent reaches.
    ///
    /// # Errors
    /// The store's. What is damaged costs an upload, no more.
    pub(super) fn take_up(&mut self, context: &Context, survey: &mut Survey) -> Result<()> {
        let Some(step) = self.made.first() else { return Ok(()) };
        let mut entries = TreeIter::new(context.repository.pages(), Some(&step.tree), context.waiter.clone());
        while let Some(entry) = entries.next() {
            match entry {
                Ok(placed) => {
                    let page = survey.parent_pages.len() + entries.pages().len().saturating_sub(1);
                    survey.parent_chunks.push(&placed, page);
                    self.until = Some(placed.entry.path);
                }
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                    self.until = None;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        survey.parent_pages.extend_from_slice(entries.pages());
        Ok(())
    }
}

impl<'a> Publisher<'a> {
    /// Begins a session on a state.
    pub(super) fn begin(context: &'a Context, parent: &'a Parent, state: State) -> Self {
        let options = &context.options;
        let mut session = Session::begin(&state, &options.writer, options.owner.as_deref());
        if let Some(left) = context.journal.left() {
            session.begin = left.begin;
        }
        let steps = Steps::find(context, &state);
        Self { context, parent, session, state, steps }
    }

    /// The names of the session's packs.
    pub(super) fn pack_names(&self) -> PackNames {
        PackNames::new(self.session.begin, self.session.id)
    }

    /// Whether the session has lasted long enough, and got further than what was taken up; `last` is how far.
    pub(super) fn step_is_due(&self, last: Option<&TreePath>) -> bool {
        let options = &self.context.options;
        let lasted = options.clock.now().duration_since(self.steps.since);
        let is_long = Duration::try_from(lasted).is_ok_and(|lasted| lasted >= options.wip_every);
        is_long && last.is_some_and(|last| self.steps.until.as_ref().is_none_or(|until| last > until))
    }

    /// Commits what is stored so far as a step, and goes on as another session.
    ///
    /// # Errors
    /// As of every commit: `Fenced`, `Unknown`, `Conflict`, the store's.
    pub(super) fn step(&mut self, tree: &WrittenTree, pack_lengths: &HashMap<PackName, u64>) -> Result<()> {
        let step = self.make_step(tree, pack_lengths)?;
        self.go_on(step)
    }

    fn make_step(&self, tree: &WrittenTree, pack_lengths: &HashMap<PackName, u64>) -> Result<Snapshot> {
        let Self { context, parent, session, .. } = self;
        let onto = &context.options.branch;
        let tree_ref = self.tree_ref(tree, pack_lengths)?;
        let before = self.steps.made.last();
        let added = tree.entries.saturating_sub(before.map_or(0, |before| before.entries));
        let changes = Changes { added, ..Changes::default() };
        let mut base = self.state.clone();
        for _ in 0..MAX_REBASES {
            may_refer(&parent.standing(session), &situation(&base, onto, &self.reused())).map_err(fenced)?;
            let target = Target { branch: &self.steps.branch, onto: Some(onto), parent: before };
            let record = self.record(tree, &tree_ref, target, changes);
            let record = with_id(Snapshot { time: context.options.clock.now(), ..record })?;
            let op = json!({"kind": "wip", "branch": record.branch, "onto": onto, "snapshot": record.id});
            let next = with_step(&base, record.clone())?;
            if let Some(made) = self.create(&base, next, record, op)? {
                return Ok(made);
            }
            base = context.waiter.wait(context.repository.state())?;
        }
        Err(never_first(&self.steps.branch))
    }

    /// Goes on as another session, which begins on the state that has the step.
    fn go_on(&mut self, step: Snapshot) -> Result<()> {
        let Self { context, session, state, steps, .. } = self;
        *state = context.waiter.wait(context.repository.state())?;
        *session = Session::begin(state, &context.options.writer, context.options.owner.as_deref());
        steps.made.push(step);
        steps.since = context.options.clock.now();
        // What the journal holds is of sessions with another begin, and the step reaches what is wanted of it.
        context.journal.start(session.begin);
        context.made_a_step();
        Ok(())
    }
}
