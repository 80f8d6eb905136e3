//! A maintainer: forgets, holds, promotes and deletes forks by commits, raises the floor, and prunes by a state that is
//! in the log.

use super::control::Control;
use super::state::{Commit, Flight, Kind, Maintainer, NONE, Phase, Plan, SESSIONS, Slot, State};
use super::store::Answer;
use super::{Protocol, invariants};

impl Protocol {
    /// The floor that a maintainer would set now: one above the newest commit, which is its own commit's number.
    fn floor_to_set(&self, state: &State) -> u8 {
        state.head + 1 + if self.breaks(Control::FloorRunsAhead) { 2 } else { 0 }
    }

    /// What a maintainer may plan now, and whether its commit raises the floor too.
    pub(super) fn plans(&self, state: &State) -> Vec<(Plan, bool)> {
        let now = state.newest();
        let mut plans = Vec::new();
        if now.floor < self.floor_to_set(state) {
            plans.push((Plan::RaiseFloor, true));
        }
        for snapshot in (0..SESSIONS as u8).filter(|&snapshot| now.retains(snapshot)) {
            for plan in [Plan::Forget(snapshot), Plan::DeleteFork(snapshot)] {
                if self.applies(plan, now) {
                    plans.extend([(plan, true), (plan, false)]);
                }
            }
            let others = [Plan::Promote(snapshot), Plan::Hold(snapshot), Plan::Unhold(snapshot)];
            plans.extend(others.into_iter().filter(|&plan| self.applies(plan, now)).map(|plan| (plan, false)));
        }
        plans
    }

    /// Whether a plan makes sense on a state. Asked when it is made, and again whenever its commit is built anew.
    fn applies(&self, plan: Plan, state: &Commit) -> bool {
        match plan {
            Plan::RaiseFloor => true,
            Plan::Forget(s) => self.forgets && state.may_forget(s),
            Plan::DeleteFork(s) => self.deletes_forks && state.may_delete_fork(s),
            Plan::Promote(s) => self.promotes && state.retains(s) && state.head != s,
            Plan::Hold(s) => self.holds && state.retains(s) && state.holds >> s & 1 == 0,
            Plan::Unhold(s) => self.holds && state.holds >> s & 1 == 1,
        }
    }

    pub(super) fn plan(&self, state: &mut State, m: usize, plan: Plan, raises: bool) {
        state.maintainers[m] = Maintainer {
            phase: Phase::Creates,
            commits: state.maintainers[m].commits + 1,
            plan,
            floor: if raises { self.floor_to_set(state) } else { NONE },
            slot: state.head + 1,
            base: *state.newest(),
        };
    }

    /// The commit that a maintainer makes of the state that it is built on.
    fn maintenance_of(&self, state: &State, m: usize) -> Commit {
        let me = &state.maintainers[m];
        let session = 8 + 4 * m as u8 + me.commits - 1;
        let mut commit = Commit { session, kind: Kind::Maintenance, by: 0, ..me.base };
        match me.plan {
            Plan::RaiseFloor => {}
            Plan::Forget(s) => commit.snapshots &= !(1 << s),
            Plan::DeleteFork(s) => {
                commit.snapshots &= !(1 << s);
                commit.forks &= !(1 << s);
            }
            Plan::Promote(s) => {
                commit.head = s;
                commit.forks &= !(1 << s);
                if !self.breaks(Control::PromoteKeepsTheEpoch) {
                    commit.epoch = me.slot;
                }
            }
            Plan::Hold(s) => commit.holds |= 1 << s,
            Plan::Unhold(s) => commit.holds &= !(1 << s),
        }
        if me.floor != NONE {
            commit.floor = if self.breaks(Control::FloorSinks) { me.floor } else { commit.floor.max(me.floor) };
        }
        commit
    }

    pub(super) fn try_maintenance(&self, state: &mut State, m: usize, answer: Answer) {
        let number = state.maintainers[m].slot;
        let bytes = self.maintenance_of(state, m);
        if answer != Answer::Done {
            state.faults -= 1;
        }
        if self.breaks(Control::CreateThatRaces) {
            if state.maintainers[m].phase == Phase::Races {
                self.write_commit(state, number, bytes);
                return self.committed(state, m, bytes);
            }
            if state.is_free(number) {
                state.maintainers[m].phase = Phase::Races;
                return;
            }
        }
        match answer {
            Answer::Done if self.create(state, number, bytes) => return self.committed(state, m, bytes),
            Answer::Done => {}
            Answer::OwnAlreadyExists => {
                self.create(state, number, bytes);
                if self.breaks(Control::ExistsTakenAsLost) {
                    state.maintainers[m].phase = Phase::Lost;
                    return;
                }
            }
            _ => self.send_off(state, Flight::Create(number, bytes)),
        }
        state.maintainers[m].phase = Phase::Unresolved;
    }

    pub(super) fn read_maintenance_slot(&self, state: &mut State, m: usize) {
        let bytes = self.maintenance_of(state, m);
        let (slot, commit) = state.log[state.maintainers[m].slot as usize];
        match slot {
            Slot::Absent | Slot::Deleted => state.maintainers[m].phase = Phase::Creates,
            _ if commit.session == bytes.session => self.committed(state, m, bytes),
            _ => state.maintainers[m].phase = Phase::Lost,
        }
    }

    /// From here on it prunes by the state that its commit made.
    fn committed(&self, state: &mut State, m: usize, bytes: Commit) {
        let Maintainer { commits, slot, .. } = state.maintainers[m];
        if state.is_free(slot) || state.log[slot as usize].1 != bytes {
            state.breaks(invariants::EXACT_OUTCOME);
        }
        state.maintainers[m] = Maintainer { phase: Phase::Prunes, commits, base: bytes, ..Maintainer::default() };
    }

    /// Builds a plan that lost its number on the newest commit, if it still applies there.
    pub(super) fn replan(&self, state: &mut State, m: usize) {
        let (newest, number) = (*state.newest(), state.head + 1);
        let me = state.maintainers[m];
        if self.applies(me.plan, &newest) || self.breaks(Control::PlanReplayed) {
            let me = &mut state.maintainers[m];
            if !self.breaks(Control::CommitReplayed) {
                me.base = newest;
            }
            (me.slot, me.phase) = (number, Phase::Creates);
        } else {
            self.stop_maintenance(state, m);
        }
    }

    /// A crash, or giving up.
    pub(super) fn stop_maintenance(&self, state: &mut State, m: usize) {
        state.maintainers[m] = Maintainer { commits: state.maintainers[m].commits, ..Maintainer::default() };
    }

    /// The packs that a maintainer may delete: what no retained snapshot reaches, of sessions below the floor.
    pub(super) fn deletable(&self, state: &State, m: usize) -> u16 {
        let me = &state.maintainers[m];
        let by = match me.phase {
            Phase::Prunes => me.base,
            Phase::Creates if self.breaks(Control::PruneBeforeTheCommit) => self.maintenance_of(state, m),
            _ => return 0,
        };
        let mut packs = state.present & !state.reach(self.read_for_reach(state, by.snapshots));
        for session in (0..SESSIONS).filter(|&session| state.begin[session] >= by.floor) {
            packs &= !(7 << (3 * session));
        }
        packs
    }

    /// The snapshots whose pages a prune reads: all retained ones.
    fn read_for_reach(&self, state: &State, mut snapshots: u8) -> u8 {
        if self.breaks(Control::EqualPagesReadOnce) {
            // Snapshots that reuse nothing hold the same tree here, uploaded again: the same page ids, in other packs.
            let same = |&s: &usize| snapshots >> s & 1 == 1 && state.needs[s].0 & !(7 << (3 * s)) == 0;
            for copy in (0..SESSIONS).filter(same).skip(1).collect::<Vec<_>>() {
                snapshots &= !(1 << copy);
            }
        }
        snapshots
    }

    pub(super) fn delete(&self, state: &mut State, pack: u8, answer: Answer) {
        if answer != Answer::Done {
            state.faults -= 1;
            self.send_off(state, Flight::Delete(pack));
        }
        if answer != Answer::FailedLandsLater {
            self.delete_pack(state, pack);
        }
    }

    pub(super) fn empty_entry(&self, state: &mut State, number: u8, answer: Answer) {
        if answer == Answer::Done {
            self.empty(state, number);
        } else {
            state.faults -= 1;
            self.send_off(state, Flight::Empty(number));
        }
    }
}
