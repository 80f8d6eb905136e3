//! The mode `detect`, for stores without an atomic create: commits are `log/<number>.<session>` and form a tree.
//!
//! Nothing keeps two commits from following the same one. Who looks lists the log, takes the highest commit for
//! the head, of several the one with the highest floor, and takes over what lies beside it as forks. A commit is acknowledged when a list *after* its
//! put shows it in the history of the head. What is promised: an acknowledged snapshot is in the head or beside it,
//! with all its packs, until a maintainer that saw it forgets it.
//!
//! Sessions and commits have the same number: 0 is the first commit, 1 to 4 are the writers', 5 and 6 the maintainer's.

mod survey;

use stateright::{Model, Property};

use crate::judge::{Situation, Standing, Verdict, judge};

const SESSIONS: usize = 7;
const SNAPSHOTS: usize = 5;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// What lies beside the head is not taken over.
    TipsNotMerged,
    /// Tips are taken over without a look at the floor and their parents.
    VoidTipsTakenOver,
    /// Of several commits of the highest number any may be the head, also one that a prune has made void.
    VoidTipMayBeHead,
    /// A maintainer does not wait until no writer is at work.
    PruneBesideWriters,
    /// A forget, though nothing is deleted by it, does not wait either.
    ForgetBesideWriters,
    /// A prune goes by a commit with the floor that an earlier one has set.
    FloorNotRaised,
    /// A maintainer's put lands when nobody waits for it any more.
    MaintenanceLandsLate,
    /// A list may miss a commit that was put before.
    ListMissesACommit,
}

/// The bounds of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Detect {
    pub control: Option<Control>,
    pub sessions: [u8; 2],
    pub maintenance: u8,
    /// Puts whose answer is an error, and that land later or never.
    pub faults: u8,
    /// Session names are random: of two commits with one number, the maintainer's or the later session's comes first.
    pub is_reversed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Commit {
    is_there: bool,
    number: u8,
    prev: u8,
    merged: u16,
    head: u8,
    snapshots: u8,
    floor: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Has uploaded; will list and build its commit.
    Uploaded,
    /// Has built its commit, and puts it.
    Puts,
    /// Its put succeeded; will list.
    Confirms,
    /// The maintainer deletes by its own commit.
    Prunes,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Actor {
    phase: Phase,
    begun: u8,
    session: u8,
    /// It forgets only, and will not prune.
    only_forgets: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    commits: [Commit; SESSIONS],
    begin: [u8; SESSIONS],
    parent: [u8; SNAPSHOTS],
    /// The packs that each snapshot needs; a session has one pack.
    needs: [u8; SNAPSHOTS],
    present: u8,
    writers: [Actor; 2],
    maintainer: Actor,
    /// Sessions whose put may still land.
    flights: u16,
    faults: u8,
    acknowledged: u8,
    forgotten: u8,
}

/// A step of writer `w`, or of the maintainer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Begin {
        w: usize,
        reuses: bool,
    },
    /// Lists the log and builds a commit on its head; `missed` is overlooked.
    Build {
        w: usize,
        missed: u8,
    },
    Put {
        w: usize,
    },
    PutFails {
        w: usize,
    },
    Confirm {
        w: usize,
        missed: u8,
    },
    Leave {
        w: usize,
    },
    Plan {
        forgets: Option<u8>,
        only_forgets: bool,
        missed: u8,
    },
    PutMaintenance,
    PutMaintenanceFails,
    Delete(u8),
    EndMaintenance,
    Land(u8),
}

const NOTHING: u8 = SESSIONS as u8;

impl Detect {
    fn breaks(&self, control: Control) -> bool {
        self.control == Some(control)
    }

    fn begin(&self, state: &mut State, w: usize, reuses: bool) {
        let survey = self.survey(state, NOTHING);
        let me = &mut state.writers[w];
        me.begun += 1;
        let session = 2 * w + me.begun as usize;
        (me.session, me.phase) = (session as u8, Phase::Uploaded);
        let base = state.commits[survey.head];
        state.begin[session] = base.number;
        state.parent[session] = base.head;
        state.present |= 1 << session;
        state.needs[session] = 1 << session | if reuses { state.needs[base.head as usize] } else { 0 };
    }

    fn build(&self, state: &mut State, w: usize, missed: u8) {
        let survey = self.survey(state, missed);
        let session = state.writers[w].session;
        let parent = state.parent[session as usize];
        let mut commit = self.follow(state, &survey);
        let standing = Standing {
            begin: state.begin[session as usize].into(),
            parent: Some(parent),
            epoch: 0,
            holds: false,
            appends: true,
        };
        let situation = Situation {
            floor: survey.floor.into(),
            epoch: 0,
            head: Some(commit.head),
            is_held: false,
            retains_parent: commit.snapshots >> parent & 1 == 1,
        };
        if judge(&standing, &situation) == Verdict::Follow {
            commit.head = session;
            commit.snapshots |= 1 << session;
            state.commits[session as usize] = commit;
            state.writers[w].phase = Phase::Puts;
        } else {
            self.leave(state, w);
        }
    }

    fn confirm(&self, state: &mut State, w: usize, missed: u8) {
        let survey = self.survey(state, missed);
        let session = state.writers[w].session;
        let is_in = Self::history(state, survey.head) >> session & 1 == 1;
        if is_in && survey.floor <= state.begin[session as usize] {
            state.acknowledged |= 1 << session;
            self.leave(state, w);
        }
    }

    fn leave(&self, state: &mut State, w: usize) {
        state.writers[w] = Actor { begun: state.writers[w].begun, ..Actor::default() };
    }

    fn plan(&self, state: &mut State, forgets: Option<u8>, only_forgets: bool, missed: u8) {
        let survey = self.survey(state, missed);
        let mut commit = self.follow(state, &survey);
        if let Some(snapshot) = forgets {
            commit.snapshots &= !(1 << snapshot);
        }
        if !only_forgets {
            let keeps = self.breaks(Control::FloorNotRaised) && commit.floor > 0;
            commit.floor = if keeps { commit.floor } else { commit.number };
        }
        let me = &mut state.maintainer;
        me.begun += 1;
        (me.session, me.phase, me.only_forgets) = (4 + me.begun, Phase::Puts, only_forgets);
        state.begin[me.session as usize] = commit.number - 1;
        state.commits[me.session as usize] = commit;
    }

    fn maintained(&self, state: &mut State) {
        let me = state.maintainer;
        state.commits[me.session as usize].is_there = true;
        if me.only_forgets {
            return self.end_maintenance(state);
        }
        state.maintainer.phase = Phase::Prunes;
    }

    fn end_maintenance(&self, state: &mut State) {
        state.maintainer = Actor { begun: state.maintainer.begun, ..Actor::default() };
    }

    /// What a maintainer may delete: what neither its own commit reaches nor what lies beside it, and is not void; of
    /// sessions below its floor.
    fn deletable(&self, state: &State) -> u8 {
        let mine = state.commits[state.maintainer.session as usize];
        let beside = self.survey(state, NOTHING).beside;
        let reached = Self::reach(state, mine.snapshots | beside);
        let old = (0..SNAPSHOTS).filter(|&s| state.begin[s] < mine.floor).fold(0, |all, s| all | 1 << s);
        state.present & !reached & old
    }

    fn reach(state: &State, snapshots: u8) -> u8 {
        (0..SNAPSHOTS).filter(|s| snapshots >> s & 1 == 1).fold(0, |all, s| all | state.needs[s])
    }

    fn land(state: &mut State, session: u8) {
        let commit = &mut state.commits[session as usize];
        commit.is_there = true;
        state.flights &= !(1 << session);
    }

    /// Forgets what can no longer matter, so that equal futures are one state.
    fn tidy(state: &mut State) {
        for session in 1..SESSIONS {
            let author = if session < SNAPSHOTS { state.writers[(session - 1) / 2] } else { state.maintainer };
            let lives = author.phase != Phase::Idle && author.session == session as u8;
            if lives || state.commits[session].is_there || state.flights >> session & 1 == 1 {
                continue;
            }
            state.commits[session] = Commit::default();
            if session < SNAPSHOTS {
                (state.parent[session], state.needs[session]) = (0, 0);
            }
            if state.present >> session & 1 == 0 {
                state.begin[session] = 0;
            }
        }
    }

    /// The commit that a list may miss: none, or with the control any but the first.
    fn misses(&self, state: &State) -> Vec<u8> {
        let any = (1..SESSIONS as u8).filter(|&c| state.commits[c as usize].is_there);
        let any = any.filter(|_| self.breaks(Control::ListMissesACommit));
        std::iter::once(NOTHING).chain(any).collect()
    }

    /// Whether writers and maintainer need not wait for each other, which is what `--exclusive` promises.
    fn may_overlap(&self, only_forgets: bool) -> bool {
        let forgets = only_forgets && self.breaks(Control::ForgetBesideWriters);
        self.breaks(Control::PruneBesideWriters) || forgets
    }

    fn may_maintain(&self, state: &State, only_forgets: bool) -> bool {
        self.may_overlap(only_forgets) || state.writers.iter().all(|writer| writer.phase == Phase::Idle)
    }

    fn may_write(&self, state: &State) -> bool {
        self.may_overlap(state.maintainer.only_forgets) || state.maintainer.phase == Phase::Idle
    }
}

impl Model for Detect {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State { present: 1, faults: self.faults, acknowledged: 1, ..State::default() };
        state.commits[0] = Commit { is_there: true, snapshots: 1, ..Commit::default() };
        state.needs[0] = 1;
        vec![state]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        for (w, me) in state.writers.iter().enumerate() {
            match me.phase {
                Phase::Idle if me.begun < self.sessions[w] && self.may_write(state) => {
                    out.extend([true, false].map(|reuses| Action::Begin { w, reuses }));
                }
                Phase::Uploaded => out.extend(self.misses(state).into_iter().map(|missed| Action::Build { w, missed })),
                Phase::Puts => {
                    out.push(Action::Put { w });
                    if state.faults > 0 {
                        out.push(Action::PutFails { w });
                    }
                }
                Phase::Confirms => {
                    out.extend(self.misses(state).into_iter().map(|missed| Action::Confirm { w, missed }));
                }
                _ => {}
            }
            if me.phase != Phase::Idle {
                out.push(Action::Leave { w });
            }
        }
        let me = &state.maintainer;
        match me.phase {
            Phase::Idle if me.begun < self.maintenance => {
                for missed in self.misses(state) {
                    let survey = self.survey(state, missed);
                    let commit = self.follow(state, &survey);
                    let old = (0..SNAPSHOTS as u8).filter(|&s| commit.snapshots >> s & 1 == 1 && commit.head != s);
                    for forgets in old.map(Some).chain([None]) {
                        for only_forgets in [true, false] {
                            let is_something = forgets.is_some() || !only_forgets;
                            if is_something && self.may_maintain(state, only_forgets) {
                                out.push(Action::Plan { forgets, only_forgets, missed });
                            }
                        }
                    }
                }
            }
            Phase::Puts => {
                out.extend([Action::PutMaintenance, Action::EndMaintenance]);
                if state.faults > 0 && self.breaks(Control::MaintenanceLandsLate) {
                    out.push(Action::PutMaintenanceFails);
                }
            }
            Phase::Prunes => {
                let packs = self.deletable(state);
                out.extend((0..8).filter(|pack| packs >> pack & 1 == 1).map(Action::Delete));
                out.push(Action::EndMaintenance);
            }
            _ => {}
        }
        out.extend((0..SESSIONS as u8).filter(|&c| state.flights >> c & 1 == 1).map(Action::Land));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        let s = &mut state;
        match action {
            Action::Begin { w, reuses } => self.begin(s, w, reuses),
            Action::Build { w, missed } => self.build(s, w, missed),
            Action::Put { w } => {
                Self::land(s, before.writers[w].session);
                s.writers[w].phase = Phase::Confirms;
            }
            Action::PutFails { w } => {
                s.faults -= 1;
                s.flights |= 1 << before.writers[w].session;
            }
            Action::Confirm { w, missed } => self.confirm(s, w, missed),
            Action::Leave { w } => self.leave(s, w),
            Action::Plan { forgets, only_forgets, missed } => {
                // What a maintainer decides to forget it has seen; whether its commit lands does not matter here.
                s.forgotten |= forgets.map_or(0, |snapshot| 1 << snapshot);
                self.plan(s, forgets, only_forgets, missed);
            }
            Action::PutMaintenance => self.maintained(s),
            Action::PutMaintenanceFails => {
                s.faults -= 1;
                s.flights |= 1 << before.maintainer.session;
            }
            Action::Delete(pack) => s.present &= !(1 << pack),
            Action::EndMaintenance => self.end_maintenance(s),
            Action::Land(session) => Self::land(s, session),
        }
        Self::tidy(s);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn view(model: &Detect, state: &State) -> u8 {
            let survey = model.survey(state, NOTHING);
            state.commits[survey.head].snapshots | survey.beside
        }
        vec![
            Property::always(
                "acknowledged snapshots are in the head or beside it until forgotten",
                |m: &Detect, s: &State| s.acknowledged & !s.forgotten & !view(m, s) == 0,
            ),
            Property::always("what is in the head or beside it has its packs", |m: &Detect, s: &State| {
                Detect::reach(s, view(m, s)) & !s.present == 0
            }),
            Property::sometimes("two commits of one number", |_, s: &State| {
                let numbers = || s.commits.iter().filter(|commit| commit.is_there).map(|commit| commit.number);
                numbers().any(|number| numbers().filter(|other| *other == number).count() > 1)
            }),
            Property::sometimes("an acknowledged snapshot moved to a fork", |_, s: &State| {
                s.commits.iter().any(|c| {
                    c.is_there && (1..SNAPSHOTS).any(|x| s.acknowledged >> x & 1 == 1 && c.merged >> x & 1 == 1)
                })
            }),
            Property::sometimes("a void commit", |m: &Detect, s: &State| {
                (1..SNAPSHOTS).any(|c| s.commits[c].is_there && view(m, s) >> c & 1 == 0 && s.forgotten >> c & 1 == 0)
            }),
            Property::sometimes("a pack deleted", |_, s: &State| {
                (0..SNAPSHOTS).any(|x| s.present >> x & 1 == 0 && s.commits[x].is_there)
            }),
        ]
    }
}
