//! Whether and where a session may commit: asked of the product's own [`judge`], before every create, on the state that
//! the commit is built on.

use super::control::Control;
use super::state::{Commit, Goes, NONE, Phase, State, Writer};
use super::{Policy, Protocol, invariants};
use crate::judge::{Situation, Standing, Verdict, judge, may_refer};

impl Protocol {
    /// What a writer's session knows, in the words of the product.
    fn standing(&self, me: &Writer, w: usize, state: &State) -> Standing<u8> {
        Standing {
            begin: state.begin[me.session as usize].into(),
            parent: (me.parent != NONE).then_some(me.parent),
            epoch: me.epoch.into(),
            holds: me.holds,
            appends: self.writers[w].0 == Policy::Plain,
        }
    }

    /// What a commit says about `main` to a session, in the words of the product. The controls lie here.
    fn situation(&self, commit: &Commit, standing: &Standing<u8>) -> Situation<u8> {
        let unchecked = self.breaks(Control::AppendOnAClaimedBranch) && standing.appends;
        let forgets_itself = self.breaks(Control::OwnLateCommitIsAConflict) && standing.holds;
        Situation {
            floor: if self.breaks(Control::NoCheckOfTheFloor) { 0 } else { commit.floor.into() },
            epoch: if unchecked { standing.epoch } else { commit.epoch.into() },
            head: Some(commit.head),
            is_held: commit.is_held() && !unchecked && !forgets_itself,
            retains_parent: standing.parent.is_none_or(|parent| commit.retains(parent))
                || self.breaks(Control::NoCheckThatTheParentIsRetained),
        }
    }

    /// A promote of a holder's own quarantined snapshot leaves it the branch, in a new epoch which it adopts. Any other
    /// new epoch fences it, as [`judge`] will say. (The product does this in `backup/parent.rs`.)
    pub(super) fn adopt(&self, state: &mut State, w: usize, newest: &Commit) {
        let me = &mut state.writers[w];
        let is_ours = newest.holder == w as u8 + 1 || self.breaks(Control::PromoteUnderAnotherHolderIsAdopted);
        let quarantined = state.quarantined & invariants::sessions_of(w);
        let is_own = quarantined >> newest.head & 1 == 1 || self.breaks(Control::AnyPromoteIsAdopted);
        if me.claimed != NONE && newest.is_held() && is_ours && is_own {
            me.claimed = newest.epoch;
            if me.phase != Phase::Idle {
                me.epoch = newest.epoch;
            }
        }
    }

    /// Files of a head that a tree has not.
    fn removed(head: u8, tree: u8) -> u32 {
        (head & !tree).count_ones()
    }

    pub(super) fn approves(head: u8, tree: u8) -> bool {
        Self::removed(head, tree) <= 1
    }

    /// Decides where a session's commit goes when it is built on this state, or that there is nothing to go on with.
    pub(super) fn decide(&self, state: &State, w: usize, newest: &Commit, is_first: bool) -> Option<Goes> {
        let me = &state.writers[w];
        let standing = self.standing(me, w, state);
        let situation = self.situation(newest, &standing);
        if me.goes == Goes::ToQuarantine {
            return may_refer(&standing, &situation).ok().map(|()| Goes::ToQuarantine);
        }
        match judge(&standing, &situation) {
            Verdict::BeginAnew(_) => None,
            Verdict::Fork(_) => Some(Goes::ToFork),
            Verdict::Follow => {
                let tree = state.tree[me.session as usize];
                let asks = self.guards && (is_first || !self.breaks(Control::GuardAskedOnce));
                let approved = !asks || Self::approves(state.tree[newest.head as usize], tree);
                if approved { Some(Goes::OnBranch) } else { self.quarantines.then_some(Goes::ToQuarantine) }
            }
        }
    }
}
