//! Pages and placements: equal pages may lie in several packs, and place equal chunks in different ones.
//!
//! A tree has two pages of one chunk each; page ids and chunk ids are named by content, so that the same content,
//! uploaded again, gives the same ids with other placements. The log is one number that creates move by one: what a
//! store does wrong is the business of the other models. Sessions upload a data pack (bit `2 * s`) and a meta pack
//! (bit `2 * s + 1`). A maintainer may move the pages of an older snapshot: from then on it refers to the head's copies,
//! where the head has the same pages.

use stateright::{Model, Property};

use crate::judge::{Situation, Standing, Verdict, judge};

const SESSIONS: usize = 5;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// A prune reads one copy of pages that have the same id.
    EqualPagesReadOnce,
    /// A prune reads the pages and not where they place their chunks.
    PlacementsNotFollowed,
    /// A writer takes placements from a cache of what it once wrote instead of its parent's pages.
    CacheSuppliesPlacements,
    /// A page that the parent has is written again with the placements that another retained snapshot gives.
    AnySnapshotSuppliesPlacements,
    /// A parent counts as retained also when its pages were moved since it was read.
    MovedParentsCountAsRetained,
}

/// The bounds of a run.
#[derive(Clone, Debug)]
pub struct Placements {
    pub control: Option<Control>,
    /// Sessions of each of the two writers.
    pub sessions: [u8; 2],
    /// Commits of the maintainer.
    pub maintenance: u8,
    /// The maintainer also moves pages.
    pub moves: bool,
}

/// A page as a pack holds it: which chunk it has, and the session into whose data pack it places that.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Copy {
    chunk: u8,
    placed: u8,
}

/// How much a session takes from its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    PagesAndChunks,
    /// Pages are written again, chunks are taken where the parent's pages place them.
    Chunks,
    /// Everything is uploaded again, as content of draining packs is.
    Nothing,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Writer {
    begun: u8,
    /// The session that has uploaded and not committed, and its parent.
    session: Option<u8>,
    parent: u8,
    /// The parent's pages had been moved when they were read.
    parent_moved: bool,
    /// The newest snapshot that this writer made.
    last: Option<u8>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    number: u8,
    head: u8,
    snapshots: u8,
    floor: u8,
    begin: [u8; SESSIONS],
    /// The page copies in the meta pack of each session, and which copies its tree refers to.
    copies: [[Copy; 2]; SESSIONS],
    tree: [[u8; 2]; SESSIONS],
    /// Snapshots whose pages were moved, each at most once.
    moved: u8,
    present: u16,
    deleted: u16,
    writers: [Writer; 2],
    maintained: u8,
    /// Snapshots and floor of the state that the maintainer prunes by.
    prunes_by: Option<(u8, u8)>,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Upload { w: usize, chunks: [u8; 2], takes: Takes },
    Commit(usize),
    Forget { snapshot: u8, raises: bool },
    RaiseFloor,
    Move { snapshot: u8, raises: bool },
    Delete(u8),
}

impl Placements {
    fn breaks(&self, control: Control) -> bool {
        self.control == Some(control)
    }

    /// The packs that snapshots need, found as a prune does: by reading every copy that a tree refers to.
    fn reach(&self, state: &State, snapshots: u8, as_prune: bool) -> u16 {
        let (mut packs, mut read) = (0, [[false; 2]; 2]);
        for s in (0..SESSIONS).filter(|s| snapshots >> s & 1 == 1) {
            packs |= 2 << (2 * s);
            for leaf in 0..2 {
                let holder = state.tree[s][leaf];
                packs |= 2 << (2 * holder);
                let copy = state.copies[holder as usize][leaf];
                let read = &mut read[leaf][copy.chunk as usize];
                let skips =
                    self.breaks(Control::PlacementsNotFollowed) || *read && self.breaks(Control::EqualPagesReadOnce);
                if !(as_prune && skips) {
                    packs |= 1 << (2 * copy.placed);
                }
                *read = true;
            }
        }
        packs
    }

    /// Where a session finds what it does not upload: a snapshot whose pages give placements.
    fn source(&self, state: &State, w: usize, takes: Takes) -> u8 {
        let parent = state.head;
        if self.breaks(Control::CacheSuppliesPlacements) {
            return state.writers[w].last.unwrap_or(parent);
        }
        if self.breaks(Control::AnySnapshotSuppliesPlacements) && takes == Takes::Chunks {
            return state.snapshots.trailing_zeros() as u8;
        }
        parent
    }

    fn upload(&self, state: &mut State, w: usize, chunks: [u8; 2], takes: Takes) {
        let parent = state.head;
        let source = self.source(state, w, takes) as usize;
        let session = 1 + 2 * w as u8 + state.writers[w].begun;
        if let Some(crashed) = state.writers[w].session {
            Self::forget_session(state, crashed);
        }
        let own = session as usize;
        state.writers[w].begun += 1;
        (state.writers[w].session, state.writers[w].parent) = (Some(session), parent);
        state.writers[w].parent_moved = state.moved >> parent & 1 == 1;
        state.begin[own] = state.number;
        let given =
            [0, 1].map(|leaf: usize| (state.tree[source][leaf], state.copies[state.tree[source][leaf] as usize][leaf]));
        let mut uploads_data = false;
        for leaf in 0..2 {
            let (holder, copy) = given[leaf];
            if takes == Takes::PagesAndChunks && copy.chunk == chunks[leaf] {
                state.tree[own][leaf] = holder;
                continue;
            }
            let known = given.iter().find(|(_, copy)| copy.chunk == chunks[leaf]).map(|(_, copy)| copy.placed);
            let placed = known.filter(|_| takes != Takes::Nothing).unwrap_or(session);
            uploads_data |= placed == session;
            state.copies[own][leaf] = Copy { chunk: chunks[leaf], placed };
            state.tree[own][leaf] = session;
        }
        state.present |= 2 << (2 * own) | if uploads_data { 1 << (2 * own) } else { 0 };
    }

    /// Commits on the newest state, if the product's rules allow it.
    fn commit(&self, state: &mut State, w: usize) {
        let Some(session) = state.writers[w].session.take() else { return };
        let parent = state.writers[w].parent;
        let standing = Standing {
            begin: state.begin[session as usize].into(),
            parent: Some(parent),
            epoch: 0,
            holds: false,
            appends: true,
        };
        let stays = (state.moved >> parent & 1 == 1) == state.writers[w].parent_moved
            || self.breaks(Control::MovedParentsCountAsRetained);
        let situation = Situation {
            floor: state.floor.into(),
            epoch: 0,
            head: Some(state.head),
            is_held: false,
            retains_parent: state.snapshots >> parent & 1 == 1 && stays,
        };
        if judge(&standing, &situation) == Verdict::Follow {
            state.number += 1;
            state.head = session;
            state.snapshots |= 1 << session;
            state.writers[w].last = Some(session);
        } else {
            Self::forget_session(state, session);
        }
    }

    /// The state in which a snapshot refers to the head's copies of its pages; `None` if it has no others.
    fn moved(state: &State, snapshot: u8) -> Option<[u8; 2]> {
        let mut tree = state.tree[snapshot as usize];
        for (leaf, holder) in tree.iter_mut().enumerate() {
            let of_head = state.tree[state.head as usize][leaf];
            let chunk = |holder: u8| state.copies[holder as usize][leaf].chunk;
            if chunk(of_head) == chunk(*holder) {
                *holder = of_head;
            }
        }
        (tree != state.tree[snapshot as usize] && state.moved >> snapshot & 1 == 0).then_some(tree)
    }

    /// What a dead session wrote can no longer be referred to: equal futures are one state.
    fn forget_session(state: &mut State, session: u8) {
        state.copies[session as usize] = Default::default();
        state.tree[session as usize] = Default::default();
    }
}

impl Model for Placements {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State { snapshots: 1, present: 3, ..State::default() };
        state.copies[0] = [Copy { chunk: 0, placed: 0 }; 2];
        vec![state]
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        for w in 0..2 {
            let me = &state.writers[w];
            if me.session.is_some() {
                out.push(Action::Commit(w));
            }
            // To begin anew while one is under way is to crash.
            if me.begun < self.sessions[w] {
                for chunks in [[0, 0], [0, 1]] {
                    let all = [Takes::PagesAndChunks, Takes::Chunks, Takes::Nothing];
                    out.extend(all.map(|takes| Action::Upload { w, chunks, takes }));
                }
            }
        }
        if state.maintained < self.maintenance {
            out.push(Action::RaiseFloor);
            let old = (0..SESSIONS as u8).filter(|&s| state.snapshots >> s & 1 == 1 && s != state.head);
            for snapshot in old {
                out.extend([true, false].map(|raises| Action::Forget { snapshot, raises }));
                if self.moves && Self::moved(state, snapshot).is_some() {
                    out.extend([true, false].map(|raises| Action::Move { snapshot, raises }));
                }
            }
        }
        if let Some((snapshots, floor)) = state.prunes_by {
            let reached = self.reach(state, snapshots, true);
            let garbage = (0..2 * SESSIONS as u8).filter(|&pack| (state.present & !reached) >> pack & 1 == 1);
            out.extend(garbage.filter(|&pack| state.begin[pack as usize / 2] < floor).map(Action::Delete));
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Upload { w, chunks, takes } => self.upload(&mut state, w, chunks, takes),
            Action::Commit(w) => self.commit(&mut state, w),
            Action::Forget { .. } | Action::RaiseFloor | Action::Move { .. } => {
                state.number += 1;
                let raises = match action {
                    Action::Forget { snapshot, raises } => {
                        state.snapshots &= !(1 << snapshot);
                        raises
                    }
                    Action::Move { snapshot, raises } => {
                        state.tree[snapshot as usize] = Self::moved(&state, snapshot)?;
                        state.moved |= 1 << snapshot;
                        raises
                    }
                    _ => true,
                };
                if raises {
                    state.floor = state.number;
                }
                state.maintained += 1;
                state.prunes_by = Some((state.snapshots, state.floor));
            }
            Action::Delete(pack) => {
                state.present &= !(1 << pack);
                state.deleted |= 1 << pack;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every placement of a retained snapshot leads to a pack", |m: &Placements, s: &State| {
                m.reach(s, s.snapshots, false) & !s.present == 0
            }),
            Property::always("what was deleted is unreachable from then on", |m: &Placements, s: &State| {
                m.reach(s, s.snapshots, false) & s.deleted == 0
            }),
            Property::sometimes("equal pages retained with different placements", |_, s: &State| {
                let retained = |x: &usize| s.snapshots >> x & 1 == 1;
                let leaf = |x: usize| s.copies[s.tree[x][0] as usize][0];
                let pair = |x: usize, y: usize| leaf(x).chunk == leaf(y).chunk && leaf(x).placed != leaf(y).placed;
                (0..SESSIONS).filter(retained).any(|x| (0..x).filter(retained).any(|y| pair(x, y)))
            }),
            Property::sometimes(
                "a moved snapshot retained while a pack that it needed is gone",
                |m: &Placements, s: &State| {
                    !m.moves
                        || (0..SESSIONS).any(|x| {
                            s.moved & s.snapshots & !(1 << s.head) & 1 << x != 0 && s.deleted & 1 << (2 * x) != 0
                        })
                },
            ),
            Property::sometimes("a copy pruned while an equal page is retained", |_, s: &State| {
                let leaf = |x: usize| s.copies[s.tree[x][0] as usize][0];
                let gone = |x: usize| s.snapshots >> x & 1 == 0 && s.deleted >> (2 * x) & 3 == 3;
                (0..SESSIONS).filter(|&x| gone(x)).any(|x| leaf(x).chunk == leaf(s.head as usize).chunk)
            }),
        ]
    }
}
