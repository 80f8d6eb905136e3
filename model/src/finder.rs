//! Finding the newest commit from a hint that may be stale, missing or wrong, while others append and empty old entries.
//!
//! The finder goes step by step as `history/head.rs` does, one request a step. What it returns must have been the
//! newest commit at some moment of the search, and a log that is whole must never be called corrupt.

use stateright::{Model, Property};

/// A rule of the finder that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// A stub where a commit was expected ends the search.
    StubEndsTheSearch,
    /// A stub right after the commit that the search begins with is taken for nothing there.
    StubTakenForAbsent,
    /// The hint is believed if its commit is there.
    HintIsBelieved,
    /// Log entries are deleted instead of emptied.
    EntriesDeleted,
}

/// The bounds of a run.
#[derive(Clone, Debug)]
pub struct Finder {
    pub control: Option<Control>,
    /// The log has at most this many commits when the search begins, and at most this many at its end.
    pub first: u8,
    pub last: u8,
}

/// Where the search is; each but the last two is a request that is about to be made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Search {
    Hint,
    /// Reads the commit that the hint names.
    Hinted(u8),
    /// Asks whether there is anything under the number that the hint names.
    Exists(u8),
    /// Has commit n, reads the next one.
    After(u8),
    /// Doubles its steps: something is at `low`, is there at `low + step`?
    Gallop {
        low: u8,
        step: u8,
    },
    /// Something is at `low`, and nothing was at `high`.
    Bisect {
        low: u8,
        high: u8,
    },
    /// Reads what should be the newest.
    Top(u8),
    Found(u8),
    Corrupt,
}

/// The log, and one search in it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub head: u8,
    pub emptied: u16,
    /// What the hint says; `None` if it is missing.
    pub hint: Option<u8>,
    pub search: Search,
    /// The head when the search began.
    pub began: u8,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Step,
    Append,
    Empty(u8),
}

impl Finder {
    fn breaks(&self, control: Control) -> bool {
        self.control == Some(control)
    }

    fn exists(&self, state: &State, number: u8) -> bool {
        let deleted = self.breaks(Control::EntriesDeleted) && self.is_stub(state, number);
        (1..=state.head).contains(&number) && !deleted
    }

    fn is_stub(&self, state: &State, number: u8) -> bool {
        state.emptied >> number & 1 == 1
    }

    fn is_commit(&self, state: &State, number: u8) -> bool {
        self.exists(state, number) && !self.is_stub(state, number)
    }

    /// One request, and what follows from its answer.
    fn step(&self, state: &State) -> Search {
        match state.search {
            Search::Hint => Search::Hinted(state.hint.unwrap_or(1).max(1)),
            Search::Hinted(n) if self.is_commit(state, n) => {
                if self.breaks(Control::HintIsBelieved) {
                    Search::Found(n)
                } else {
                    Search::After(n)
                }
            }
            Search::Hinted(n) => Search::Exists(n),
            Search::Exists(n) => Search::Gallop { low: if self.exists(state, n) { n } else { 0 }, step: 1 },
            Search::After(n) => {
                let next = n + 1;
                let seen = self.is_commit(state, next)
                    || self.exists(state, next) && !self.breaks(Control::StubTakenForAbsent);
                if seen { Search::Gallop { low: next, step: 1 } } else { Search::Found(n) }
            }
            Search::Gallop { low, step } if self.exists(state, low + step) => {
                Search::Gallop { low: low + step, step: step * 2 }
            }
            Search::Gallop { low, step } => narrow(low, low + step),
            Search::Bisect { low, high } => {
                let middle = low + (high - low) / 2;
                if self.exists(state, middle) { narrow(middle, high) } else { narrow(low, middle) }
            }
            // State 0 has no object.
            Search::Top(0) => Search::Found(0),
            Search::Top(n) if self.is_commit(state, n) => Search::Found(n),
            Search::Top(n) if self.exists(state, n) && !self.breaks(Control::StubEndsTheSearch) => {
                Search::Gallop { low: n, step: 1 }
            }
            Search::Top(_) => Search::Corrupt,
            end @ (Search::Found(_) | Search::Corrupt) => end,
        }
    }
}

fn narrow(low: u8, high: u8) -> Search {
    if high - low > 1 { Search::Bisect { low, high } } else { Search::Top(low) }
}

impl Model for Finder {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let hints = || std::iter::once(None).chain((0..=self.last + 2).map(Some));
        let heads = (0..=self.first).flat_map(|head| hints().map(move |hint| (head, hint)));
        // Any of the old entries may have been emptied, in any order.
        let states = heads.flat_map(|(head, hint)| {
            let old = 1_u16 << head.saturating_sub(1);
            (0..old).step_by(2).map(move |emptied| State { head, emptied, hint, search: Search::Hint, began: head })
        });
        states.collect()
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        if matches!(state.search, Search::Found(_) | Search::Corrupt) {
            return;
        }
        out.push(Action::Step);
        if state.head < self.last {
            out.push(Action::Append);
        }
        // Never the head, or the one before it.
        let old = (1..state.head.saturating_sub(1)).filter(|&n| !self.is_stub(state, n));
        out.extend(old.map(Action::Empty));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Step => state.search = self.step(before),
            Action::Append => state.head += 1,
            Action::Empty(n) => state.emptied |= 1 << n,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the commit found was the newest during the search", |_, s: &State| match s.search {
                Search::Found(n) => (s.began..=s.head).contains(&n),
                _ => true,
            }),
            Property::always("a log that is whole is not called corrupt", |_, s: &State| s.search != Search::Corrupt),
            Property::sometimes(
                "a stub where the head was expected",
                |m: &Finder, s: &State| matches!(s.search, Search::Top(n) if m.is_stub(s, n)),
            ),
            Property::sometimes(
                "a commit found that was appended meanwhile",
                |_, s: &State| matches!(s.search, Search::Found(n) if n > s.began),
            ),
            Property::sometimes(
                "a hint beyond the log",
                |_, s: &State| matches!(s.search, Search::Exists(n) if n > s.head),
            ),
        ]
    }
}
