//! The bucket is rolled back to an earlier state of the log while writers are at work.
//!
//! Nothing protects against a roll-back between two requests. What the checks promise: one that came before the base
//! was read again stops the writer; and on a commit that does not follow the one before it nobody ever builds.

use stateright::{Model, Property};

const SLOTS: usize = 6;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// The commit that a session builds on is not read again before its first create.
    BaseNotReadAgain,
    /// Whoever takes a commit for the head does not compare its `prev`.
    PrevNotCompared,
    /// A command that starts from a cached head asks for the next number alone.
    CachedHeadNotReadAgain,
    /// A cached head that is still the newest is not compared with the commit before it, though it may be an own commit
    /// that was created in the gap.
    OwnCommitTakenForChecked,
    /// A base that was emptied in the meantime is taken for one that was rolled back.
    StubTakenForRollBack,
}

/// The bounds of a run.
#[derive(Clone, Debug)]
pub struct RollBack {
    pub control: Option<Control>,
    /// Sessions of each of the two writers.
    pub sessions: u8,
    pub roll_backs: u8,
}

/// A commit: its own hash, and that of the one before it. Hash 1 is the configuration's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Entry {
    hash: u8,
    prev: u8,
    emptied: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Has a base; uploads.
    Uploads,
    /// Has read the base again; is about to create.
    Creates,
    Stopped,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Writer {
    phase: Phase,
    sessions: u8,
    /// Number and hash of the commit that it builds on, and of the head that its cache knows.
    base: (u8, u8),
    cached: (u8, u8),
    /// The bucket was rolled back since it last read its base.
    is_behind: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    log: [Option<Entry>; SLOTS],
    writers: [Writer; 2],
    hashes: u8,
    roll_backs: u8,
    built_on_wrong: bool,
    written_after_check: bool,
    false_unchanged: bool,
}

/// A step of writer `w`, or of somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Looks for the head, from its cache if it has one, and begins a session.
    Begin(usize),
    /// The same, and nothing has changed: says that all is stored.
    Unchanged(usize),
    ReadBaseAgain(usize),
    Create(usize),
    Empty(u8),
    RollBackTo(u8),
}

impl RollBack {
    fn breaks(&self, control: Control) -> bool {
        self.control == Some(control)
    }

    /// The number of the newest commit, found from the bottom: what lies above a gap is not seen.
    fn top(state: &State) -> u8 {
        (1..SLOTS).take_while(|&n| state.log[n].is_some()).last().unwrap_or(0) as u8
    }

    fn hash(state: &State, number: u8) -> u8 {
        if number == 0 { 1 } else { state.log[number as usize].map_or(0, |entry| entry.hash) }
    }

    fn follows(state: &State, number: u8) -> bool {
        let entry = state.log[number as usize];
        number == 0 || entry.is_some_and(|entry| entry.prev == Self::hash(state, number - 1))
    }

    /// The head as a command sees it: number and hash, or `None` for `Corrupt`.
    fn head(&self, state: &State, cached: (u8, u8)) -> Option<(u8, u8)> {
        let (number, hash) = cached;
        if number > 0 {
            let next_is_absent = state.log.get(number as usize + 1).is_none_or(|entry| entry.is_none());
            if self.breaks(Control::CachedHeadNotReadAgain) && next_is_absent {
                return Some(cached);
            }
            // A stub keeps the hash.
            if Self::hash(state, number) != hash {
                return None;
            }
        }
        let top = Self::top(state);
        let is_cached = number > 0 && number == top;
        let skips =
            self.breaks(Control::PrevNotCompared) || is_cached && self.breaks(Control::OwnCommitTakenForChecked);
        let is_right = skips || Self::follows(state, top);
        is_right.then(|| (top, Self::hash(state, top)))
    }
}

impl Model for RollBack {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State { hashes: 2, ..State::default() };
        state.log[1] = Some(Entry { hash: 2, prev: 1, emptied: false });
        vec![state]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        for (w, me) in state.writers.iter().enumerate() {
            match me.phase {
                Phase::Idle if me.sessions < self.sessions => out.extend([Action::Begin(w), Action::Unchanged(w)]),
                Phase::Uploads => out.push(Action::ReadBaseAgain(w)),
                Phase::Creates if (me.base.0 as usize) < SLOTS - 1 => out.push(Action::Create(w)),
                _ => {}
            }
        }
        let top = Self::top(state);
        let old = 1..top.saturating_sub(1);
        let full = old.filter(|&n| state.log[n as usize].is_some_and(|entry| !entry.emptied));
        out.extend(full.map(Action::Empty));
        if state.roll_backs < self.roll_backs {
            out.extend((0..top).map(Action::RollBackTo));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        let s = &mut state;
        match action {
            Action::Begin(w) => {
                s.writers[w].sessions += 1;
                match self.head(before, before.writers[w].cached) {
                    Some(base) => {
                        s.writers[w].phase = Phase::Uploads;
                        (s.writers[w].base, s.writers[w].cached) = (base, base);
                        s.writers[w].is_behind = false;
                    }
                    None => s.writers[w].phase = Phase::Stopped,
                }
            }
            Action::Unchanged(w) => {
                s.writers[w].sessions += 1;
                match self.head(before, before.writers[w].cached) {
                    Some((number, hash)) => s.false_unchanged |= Self::hash(before, number) != hash,
                    None => s.writers[w].phase = Phase::Stopped,
                }
            }
            Action::ReadBaseAgain(w) => {
                let (number, hash) = before.writers[w].base;
                let emptied = before.log[number as usize].is_some_and(|entry| entry.emptied);
                let is_wrong = Self::hash(before, number) != hash;
                let stops = is_wrong || emptied && self.breaks(Control::StubTakenForRollBack);
                if stops && !self.breaks(Control::BaseNotReadAgain) {
                    s.writers[w].phase = Phase::Stopped;
                } else {
                    s.writers[w].phase = Phase::Creates;
                    s.writers[w].is_behind = false;
                }
            }
            Action::Create(w) => {
                let (number, hash) = before.writers[w].base;
                let next = number as usize + 1;
                if before.log[next].is_none() {
                    s.hashes += 1;
                    let follows = Self::hash(before, number) == hash;
                    s.written_after_check |= !follows && !before.writers[w].is_behind;
                    s.built_on_wrong |= follows && !Self::follows(before, number);
                    s.log[next] = Some(Entry { hash: s.hashes, prev: hash, emptied: false });
                    s.writers[w].cached = (next as u8, s.hashes);
                    s.writers[w].phase = Phase::Idle;
                } else {
                    // Lost: on to the newest commit, which was just read.
                    match self.head(before, (0, 0)) {
                        Some(base) => {
                            s.writers[w].base = base;
                            s.writers[w].is_behind = false;
                        }
                        None => s.writers[w].phase = Phase::Stopped,
                    }
                }
            }
            Action::Empty(n) => s.log[n as usize].as_mut()?.emptied = true,
            Action::RollBackTo(n) => {
                s.log[n as usize + 1..].fill(None);
                s.roll_backs += 1;
                s.writers.iter_mut().for_each(|writer| writer.is_behind = true);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a roll-back before the base was read again stops the writer", |_, s: &State| {
                !s.written_after_check
            }),
            Property::always("nobody builds on a commit that does not follow its predecessor", |_, s: &State| {
                !s.built_on_wrong
            }),
            Property::always("nothing is called stored that the log has lost", |_, s: &State| !s.false_unchanged),
            Property::always("without a roll-back nobody stops", |_, s: &State| {
                s.roll_backs > 0 || s.writers.iter().all(|writer| writer.phase != Phase::Stopped)
            }),
            Property::sometimes("a writer stopped by a roll-back", |_, s: &State| {
                s.writers.iter().any(|writer| writer.phase == Phase::Stopped)
            }),
            Property::sometimes(
                "a commit that follows none, written in the gap that no check closes",
                |_, s: &State| (1..SLOTS as u8).any(|n| s.log[n as usize].is_some() && !Self::follows(s, n)),
            ),
        ]
    }
}
