//! What a list of the log says: which commit is the head, what lies beside it, and what is void.

use super::{Commit, Control, Detect, SESSIONS, SNAPSHOTS, State};

/// What follows from it.
pub(super) struct Survey {
    pub(super) head: usize,
    /// Snapshots beside the head, and the tips that hold them.
    pub(super) beside: u8,
    pub(super) tips: u16,
    pub(super) floor: u8,
}

impl Detect {
    /// A commit and all that it follows or has merged.
    pub(super) fn history(state: &State, of: usize) -> u16 {
        let (mut history, mut next) = (0_u16, 1_u16 << of);
        while next != 0 {
            let commit = next.trailing_zeros() as usize;
            history |= 1 << commit;
            next |= 1 << state.commits[commit].prev | state.commits[commit].merged;
            next &= !history;
        }
        history
    }

    pub(super) fn survey(&self, state: &State, missed: u8) -> Survey {
        let listed: Vec<usize> = (0..SESSIONS).filter(|&c| state.commits[c].is_there && c != missed as usize).collect();
        let histories: Vec<u16> = (0..SESSIONS).map(|c| Self::history(state, c)).collect();
        let mut upward = listed.clone();
        upward.sort_by_key(|&c| state.commits[c].number);
        // Of one number the highest floor comes first: what is beside it began below that, and is void.
        let floor = |c: usize| if self.breaks(Control::VoidTipMayBeHead) { 0 } else { state.commits[c].floor };
        let rank = |c: usize| if self.is_reversed { c } else { SESSIONS - c };
        let head = upward.iter().max_by_key(|&&c| (state.commits[c].number, floor(c), rank(c))).map_or(0, |c| *c);
        let is_void = |c: usize| state.begin[c] < state.commits[head].floor;
        let (mut beside, mut tips) = (0_u8, 0_u16);
        for &c in upward.iter().filter(|&&c| histories[head] >> c & 1 == 0) {
            let retained = state.commits[head].snapshots | beside;
            let has_parent = c >= SNAPSHOTS || retained >> state.parent[c] & 1 == 1;
            let is_valid = !is_void(c) && has_parent;
            if is_valid || self.breaks(Control::VoidTipsTakenOver) {
                tips = tips & !histories[c] | 1 << c;
                beside |= if c < SNAPSHOTS { 1 << c } else { 0 };
            }
        }
        if self.breaks(Control::TipsNotMerged) {
            (beside, tips) = (0, 0);
        }
        let floor = listed.iter().map(|&c| state.commits[c].floor).max().unwrap_or(0);
        Survey { head, beside, tips, floor }
    }

    /// The commit after the head that takes over what lies beside it.
    pub(super) fn follow(&self, state: &State, survey: &Survey) -> Commit {
        let base = state.commits[survey.head];
        Commit {
            is_there: false,
            number: base.number + 1,
            prev: survey.head as u8,
            merged: survey.tips,
            snapshots: base.snapshots | survey.beside,
            floor: survey.floor,
            ..base
        }
    }
}
