//! Commit, fence, forget, prune, restore: two writers, two maintainers and a reader on one store that misbehaves.

mod control;
mod invariants;
mod maintainer;
mod reader;
mod standing;
mod state;
mod store;
mod writer;

pub use control::Control;
use state::{Commit, Kind, NONE, Phase, Plan, Slot, State};
use stateright::{Model, Property};
use store::Answer;
use writer::Start;

/// How a writer goes about its branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// It may follow a head that is not its parent.
    Plain,
    /// Its directory was restored with a receipt: it edits what that names.
    Restored,
    /// Holds the branch from the beginning.
    Holder,
    /// Claims the branch first.
    Claimer,
}

/// The bounds of a run.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// The rule that is broken, if any.
    pub control: Option<Control>,
    /// The policy of each writer and how many sessions it may begin.
    pub writers: [(Policy, u8); 2],
    /// Commits that each maintainer may make.
    pub maintainers: [u8; 2],
    pub forgets: bool,
    pub deletes_forks: bool,
    pub promotes: bool,
    pub holds: bool,
    /// Old log entries are emptied.
    pub empties: bool,
    /// A holder may release the branch with a backup.
    pub releases: bool,
    pub guards: bool,
    /// What the guard refuses is put into quarantine.
    pub quarantines: bool,
    pub reads: bool,
    /// Packs of a session.
    pub packs: u8,
    /// The last number that the log may have.
    pub last: u8,
    /// What the store may do wrong in all.
    pub faults: u8,
    /// Restarts with a journal.
    pub restarts: u8,
    /// A head that is read may be an older one. Without it the same is reached by a stall.
    pub stale_heads: bool,
    /// Nothing is forgotten that can no longer matter: shows that forgetting it hides nothing.
    pub untidy: bool,
    /// Judge by effects alone: that a fenced session commits is not reported in itself.
    pub by_effects: bool,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            control: None,
            writers: [(Policy::Plain, 1), (Policy::Plain, 1)],
            maintainers: [2, 0],
            forgets: true,
            deletes_forks: false,
            promotes: false,
            holds: false,
            empties: false,
            releases: false,
            guards: false,
            quarantines: false,
            reads: false,
            packs: 1,
            last: 5,
            faults: 0,
            restarts: 0,
            stale_heads: false,
            untidy: false,
            by_effects: false,
        }
    }
}

/// A step of somebody: `w` a writer, `m` a maintainer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Action {
    Begin { w: usize, start: Start },
    Upload { w: usize, answer: Answer },
    Create { w: usize, answer: Answer },
    Race { w: usize },
    ReadSlot { w: usize },
    Rebase { w: usize, from: u8 },
    Leave { w: usize },
    Resume { w: usize },
    Plan { m: usize, plan: Plan, raises: bool },
    CreateMaintenance { m: usize, answer: Answer },
    ReadMaintenanceSlot { m: usize },
    Replan { m: usize },
    Stop { m: usize },
    Delete { pack: u8, answer: Answer },
    Empty { number: u8, answer: Answer },
    Land { flight: usize },
    Restore { snapshot: u8 },
    Fetch,
}

impl Protocol {
    fn breaks(&self, control: Control) -> bool {
        self.control == Some(control)
    }

    fn writer_actions(&self, state: &State, w: usize, out: &mut Vec<Action>) {
        use Answer::{ConflictWithNothing, DoneTwice, FailedButDone, FailedLandsLater, OwnAlreadyExists};
        let me = &state.writers[w];
        let sessions = self.writers[w].1;
        match me.phase {
            Phase::Idle if state.head < self.last => {
                out.extend(self.starts(state, w).into_iter().map(|start| Action::Begin { w, start }));
            }
            Phase::Uploads if me.next < 3 => {
                let answers = self.answers(state, &[DoneTwice, FailedLandsLater, FailedButDone]);
                out.extend(answers.into_iter().map(|answer| Action::Upload { w, answer }));
            }
            Phase::Creates if me.slot <= self.last => {
                let may_fail = state.is_free(me.slot) && !self.breaks(Control::CreateThatRaces);
                let faults: &[Answer] =
                    if may_fail { &[DoneTwice, FailedLandsLater, OwnAlreadyExists, ConflictWithNothing] } else { &[] };
                out.extend(self.answers(state, faults).into_iter().map(|answer| Action::Create { w, answer }));
            }
            Phase::Races => out.push(Action::Race { w }),
            Phase::Unresolved => out.push(Action::ReadSlot { w }),
            Phase::Lost if state.head < self.last => {
                out.extend(self.heads(state, me.slot).into_iter().map(|from| Action::Rebase { w, from }));
            }
            _ => {}
        }
        if matches!(me.phase, Phase::Idle | Phase::Races) {
            return;
        }
        // To leave the last session is to stall for ever, which needs no step.
        if me.sessions < sessions || me.phase == Phase::Lost {
            out.push(Action::Leave { w });
        }
        if state.restarts > 0 && !me.resumed && me.kind == Kind::Backup && me.sessions < 2 {
            out.push(Action::Resume { w });
        }
    }

    fn maintainer_actions(&self, state: &State, m: usize, out: &mut Vec<Action>) {
        use Answer::{DoneTwice, FailedLandsLater, OwnAlreadyExists};
        let me = &state.maintainers[m];
        let may_go_on = me.commits < self.maintainers[m];
        match me.phase {
            Phase::Idle | Phase::Prunes if may_go_on && state.head < self.last => {
                out.extend(self.plans(state).into_iter().map(|(plan, raises)| Action::Plan { m, plan, raises }));
            }
            Phase::Creates if me.slot <= self.last => {
                let may_fail = state.is_free(me.slot) && !self.breaks(Control::CreateThatRaces);
                let faults: &[Answer] = if may_fail { &[FailedLandsLater, OwnAlreadyExists] } else { &[] };
                out.extend(
                    self.answers(state, faults).into_iter().map(|answer| Action::CreateMaintenance { m, answer }),
                );
            }
            Phase::Races => out.push(Action::CreateMaintenance { m, answer: Answer::Done }),
            Phase::Unresolved => out.push(Action::ReadMaintenanceSlot { m }),
            Phase::Lost if state.head < self.last => out.push(Action::Replan { m }),
            _ => {}
        }
        if may_go_on && matches!(me.phase, Phase::Creates | Phase::Unresolved | Phase::Lost) {
            out.push(Action::Stop { m });
        }
        let packs = self.deletable(state, m);
        for pack in (0..15).filter(|pack| packs >> pack & 1 == 1) {
            let answers = self.answers(state, &[DoneTwice, FailedLandsLater]);
            out.extend(answers.into_iter().map(|answer| Action::Delete { pack, answer }));
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            present: 1,
            faults: self.faults,
            restarts: self.restarts,
            acknowledged: 1,
            committed: 1,
            ..State::default()
        };
        let is_held = self.writers[0].0 == Policy::Holder;
        state.log[0] = (Slot::Full, Commit { snapshots: 1, holder: is_held.into(), ..Commit::default() });
        state.needs[0] = (1, 0);
        state.tree[0] = 0b11;
        state.writers[0].claimed = if is_held { 0 } else { NONE };
        vec![state]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        if state.broken != 0 {
            return;
        }
        for w in 0..2 {
            self.writer_actions(state, w, out);
        }
        for m in 0..2 {
            self.maintainer_actions(state, m, out);
        }
        if self.empties {
            for number in (1..state.head).filter(|&number| state.log[number as usize].0 == Slot::Full) {
                let answers = self.answers(state, &[Answer::FailedLandsLater]);
                out.extend(answers.into_iter().map(|answer| Action::Empty { number, answer }));
            }
        }
        let flights = state.flights.iter().enumerate().filter(|(_, f)| **f != state::Flight::Nothing);
        out.extend(flights.map(|(flight, _)| Action::Land { flight }));
        if state.reader.left != 0 {
            out.push(Action::Fetch);
        }
        out.extend(self.readable(state).into_iter().map(|snapshot| Action::Restore { snapshot }));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        let s = &mut state;
        match action {
            Action::Begin { w, start } => self.begin(s, w, start),
            Action::Upload { w, answer } => self.upload(s, w, answer),
            Action::Create { w, answer } => self.try_create(s, w, answer),
            Action::Race { w } => self.race(s, w),
            Action::ReadSlot { w } => self.read_slot(s, w),
            Action::Rebase { w, from } => self.rebase(s, w, from),
            Action::Leave { w } => self.leave(s, w),
            Action::Resume { w } => self.resume(s, w),
            Action::Plan { m, plan, raises } => self.plan(s, m, plan, raises),
            Action::CreateMaintenance { m, answer } => self.try_maintenance(s, m, answer),
            Action::ReadMaintenanceSlot { m } => self.read_maintenance_slot(s, m),
            Action::Replan { m } => self.replan(s, m),
            Action::Stop { m } => self.stop_maintenance(s, m),
            Action::Delete { pack, answer } => self.delete(s, pack, answer),
            Action::Empty { number, answer } => self.empty_entry(s, number, answer),
            Action::Land { flight } => self.land(s, flight),
            Action::Restore { snapshot } => self.begin_restore(s, snapshot),
            Action::Fetch => self.fetch(s),
        }
        if !self.untidy {
            self.tidy(s);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.all_properties()
    }
}
