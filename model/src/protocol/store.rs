//! The store, and what it may do wrong.
//!
//! A request, its effect and its answer are one step; a stall before or after it is the same as any other order of
//! steps. What is left for an adversary with a budget of faults is in [`Answer`].

use super::Protocol;
use super::control::Control;
use super::state::{Flight, Slot, State};

/// How a request ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    /// Applied, and a copy of the request arrives again later.
    DoneTwice,
    /// An error; applied later, or never.
    FailedLandsLater,
    /// An error; applied.
    FailedButDone,
    /// Applied, and a retry inside the client got `AlreadyExists`.
    OwnAlreadyExists,
    /// 409, and nothing is there.
    ConflictWithNothing,
}

impl Protocol {
    /// How a request may end: well, or in one of these ways while the store may still misbehave.
    pub(super) fn answers(&self, state: &State, faults: &[Answer]) -> Vec<Answer> {
        let faults = if state.faults > 0 { faults } else { &[] };
        std::iter::once(Answer::Done).chain(faults.iter().copied()).collect()
    }

    /// Keeps a request under way. Where three are already, this one never arrives.
    pub(super) fn send_off(&self, state: &mut State, flight: Flight) {
        if let Some(place) = state.flights.iter_mut().find(|f| **f == Flight::Nothing) {
            *place = flight;
            state.flights.sort();
        }
    }

    pub(super) fn land(&self, state: &mut State, index: usize) {
        let flight = std::mem::take(&mut state.flights[index]);
        state.flights.sort();
        match flight {
            Flight::Nothing => {}
            Flight::Create(number, commit) => {
                self.create(state, number, commit);
            }
            Flight::Pack(pack, other) => self.put_pack(state, pack, other),
            Flight::Delete(pack) => self.delete_pack(state, pack),
            Flight::Empty(number) => self.empty(state, number),
        }
    }

    /// Creates a commit if its number is free, and says whether it was taken.
    pub(super) fn create(&self, state: &mut State, number: u8, commit: super::state::Commit) -> bool {
        let taken = state.is_free(number) || self.breaks(Control::CreateThatIsIgnored);
        if taken {
            self.write_commit(state, number, commit);
        }
        taken
    }

    /// The store takes the bytes of a commit, whatever was there.
    pub(super) fn write_commit(&self, state: &mut State, number: u8, commit: super::state::Commit) {
        self.judge_landing(state, number, &commit);
        state.log[number as usize] = (Slot::Full, commit);
        state.head = state.head.max(number);
    }

    pub(super) fn put_pack(&self, state: &mut State, pack: u8, other: bool) {
        let bit = 1 << pack;
        if state.present & bit != 0 && (state.other_content & bit != 0) != other {
            state.breaks(super::invariants::ONE_CONTENT);
        }
        state.present |= bit;
        if other { state.other_content |= bit } else { state.other_content &= !bit }
    }

    pub(super) fn delete_pack(&self, state: &mut State, pack: u8) {
        let bit = 1 << pack;
        state.present &= !bit;
        state.other_content &= !bit;
        state.deleted |= bit;
    }

    pub(super) fn empty(&self, state: &mut State, number: u8) {
        let deletes = self.breaks(Control::LogEntriesDeleted);
        state.log[number as usize].0 = if deletes { Slot::Deleted } else { Slot::Emptied };
    }

    /// Forgets what can no longer matter, so that equal futures are one state.
    pub(super) fn tidy(&self, state: &mut State) {
        use super::state::{Commit, Phase, SESSIONS};
        let overwrites = [Control::CreateThatIsIgnored, Control::CreateThatRaces, Control::LogEntriesDeleted];
        if self.control.is_some_and(|control| overwrites.contains(&control)) || state.broken != 0 {
            return;
        }
        for index in 0..state.flights.len() {
            if let Flight::Create(number, _) = state.flights[index]
                && !state.is_free(number)
            {
                state.flights[index] = Flight::Nothing;
            }
        }
        state.flights.sort();
        // An old commit is read again only by someone whose own number that was.
        if !self.stale_heads {
            for number in 0..state.head {
                let asked = state.writers.iter().map(|w| (w.phase, w.slot));
                let mut asked = asked.chain(state.maintainers.iter().map(|m| (m.phase, m.slot)));
                if !asked.any(|(phase, slot)| slot == number && !matches!(phase, Phase::Idle | Phase::Prunes)) {
                    state.log[number as usize].1 = Commit::default();
                }
            }
        }
        // A session that is over without a commit, and of which none is under way.
        for session in 1..SESSIONS {
            let author = &state.writers[(session - 1) / 2];
            let lives = author.phase != Phase::Idle && [author.session, author.resumes].contains(&(session as u8));
            let under_way = state.flights.iter().any(|f| match f {
                Flight::Create(_, commit) => commit.session == session as u8,
                Flight::Pack(pack, _) => *pack as usize / 3 == session,
                _ => false,
            });
            if state.committed >> session & 1 == 0 && !lives && !under_way {
                state.needs[session] = (0, 0);
                state.tree[session] = 0;
                state.resumes[session] = 0;
                if state.present >> (3 * session) & 7 == 0 {
                    state.begin[session] = 0;
                }
            }
        }
    }
}
