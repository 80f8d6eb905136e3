//! Keeps a tree that may not move its branch on a branch of its own: what a guard refused in quarantine, what came too
//! late on a fork.

use serde_json::{Value, json};

use super::publish::{MAX_REBASES, Published, Publisher, Target, fenced, never_first};
use super::store::{Made, Stored};
use crate::error::Result;
use crate::format::commit::Snapshot;
use crate::guard::{Approved, Refusal};
use crate::history::judge::{Overtaken, may_refer};
use crate::history::{fork_owner, situation};
use crate::id::PageId;
use crate::repository::State;

/// Why a tree is kept aside.
#[derive(Debug)]
pub(super) enum Aside {
    /// The branch belongs to others by now.
    Fork(Approved, Overtaken),
    /// A guard refused.
    Quarantine(Box<Refusal>),
}

impl Publisher<'_> {
    /// Stores a tree and keeps it aside, unless it is kept there already.
    pub(super) fn aside(&self, made: Made, aside: Aside) -> Result<Published> {
        match self.kept_already(&self.state, made.tree.root.page, &aside) {
            Some(kept) => self.kept(kept.clone(), aside),
            None => self.keep(self.state.clone(), &made.send()?, aside),
        }
    }

    /// Keeps what was stored aside; what equals the newest that is kept there adds nothing.
    pub(super) fn keep(&self, mut base: State, stored: &Stored, aside: Aside) -> Result<Published> {
        let (parent, onto) = (self.parent, &self.context.options.branch);
        let quarantined;
        let approved = match &aside {
            Aside::Fork(approved, _) => approved,
            Aside::Quarantine(refusal) => {
                let Some(approved) = refusal.quarantine() else { return Err((**refusal).clone().into()) };
                quarantined = approved;
                &quarantined
            }
        };
        let branch = format!("{}{}", self.branches(&aside), self.session.id);
        let tree = self.tree_ref(&stored.tree, &stored.pack_lengths)?;
        for _ in 0..MAX_REBASES {
            may_refer(&parent.standing(&self.session), &situation(&base, onto, &self.reused())).map_err(fenced)?;
            if let Some(kept) = self.kept_already(&base, tree.page, &aside) {
                return self.kept(kept.clone(), aside);
            }
            let target = Target { branch: &branch, onto: Some(onto), parent: parent.snapshot() };
            let record = self.whole_record(stored, &tree, target, stored.tallied.changes)?;
            let op = aside.op(onto, &record);
            if let Some(made) = self.attempt(&base, record, approved, op)? {
                return self.kept(made, aside);
            }
            base = self.context.waiter.wait(self.context.repository.state())?;
        }
        Err(never_first(&branch))
    }

    fn kept(&self, snapshot: Snapshot, aside: Aside) -> Result<Published> {
        if matches!(aside, Aside::Quarantine(_)) {
            self.parent.note_quarantine(&snapshot)?;
        }
        Ok(Published::Aside(Box::new(snapshot), aside))
    }

    /// The newest snapshot that is kept there for the branch, if it has this very tree.
    fn kept_already<'a>(&self, state: &'a State, tree: PageId, aside: &Aside) -> Option<&'a Snapshot> {
        let branches = self.branches(aside);
        let newest = state.commit.snapshots.iter().rev().find(|snapshot| snapshot.branch.starts_with(&branches))?;
        (newest.tree.page == tree).then_some(newest)
    }

    /// What the names of such branches begin with; the session follows.
    fn branches(&self, aside: &Aside) -> String {
        let onto = &self.context.options.branch;
        match aside {
            Aside::Fork(..) => {
                let options = &self.context.options;
                format!("fork/{onto}/{}-", fork_owner(options.owner.as_deref(), &options.writer))
            }
            Aside::Quarantine(_) => format!("quarantine/{onto}/"),
        }
    }
}

impl Aside {
    /// What the commit says it did.
    fn op(&self, onto: &str, record: &Snapshot) -> Value {
        let mut op = json!({"branch": record.branch, "onto": onto, "snapshot": record.id});
        match self {
            Self::Fork(..) => op["kind"] = "fork".into(),
            Self::Quarantine(refusal) => {
                op["kind"] = "quarantine".into();
                op["guard"] = refusal.guard.name().into();
            }
        }
        op
    }
}
