//! A writer: begins a session, uploads, creates its commit, settles what became of it.

use super::control::Control;
use super::state::{Commit, Flight, Goes, Kind, NONE, Phase, Slot, State, Writer};
use super::store::Answer;
use super::{Policy, Protocol, invariants};

/// What a session that begins decides for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Start {
    /// The commit that it takes for the head.
    pub from: u8,
    /// It refers to the packs of its parent.
    pub reuses: bool,
    /// Its commit releases the branch too.
    pub releases: bool,
    pub edit: Edit,
}

/// What happened to the directory since its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Edit {
    #[default]
    Nothing,
    Adds,
    Removes,
    RemovesTooMuch,
}

impl Protocol {
    pub(super) fn starts(&self, state: &State, w: usize) -> Vec<Start> {
        let me = &state.writers[w];
        let (policy, sessions) = self.writers[w];
        let claims = policy == Policy::Claimer && me.claimed == NONE;
        let mut starts = Vec::new();
        for from in self.heads(state, 0) {
            if claims {
                if me.claims == 0 {
                    starts.push(Start { from, ..Start::default() });
                }
            } else if me.sessions < sessions {
                let edits: &[Edit] = match (self.guards, self.quarantines) {
                    (false, _) => &[Edit::Nothing],
                    (true, false) => &[Edit::Adds, Edit::Removes],
                    (true, true) => &[Edit::Adds, Edit::Removes, Edit::RemovesTooMuch],
                };
                for &edit in edits {
                    for reuses in [true, false] {
                        starts.push(Start { from, reuses, releases: false, edit });
                        if self.releases && me.claimed != NONE {
                            starts.push(Start { from, reuses, releases: true, edit });
                        }
                    }
                }
            }
        }
        starts
    }

    /// What may be taken for the head by someone who knows that number `at_least` is taken.
    pub(super) fn heads(&self, state: &State, at_least: u8) -> Vec<u8> {
        let stale = (at_least..state.head).filter(|&n| self.stale_heads && state.log[n as usize].0 == Slot::Full);
        stale.chain(std::iter::once(state.head)).collect()
    }

    pub(super) fn begin(&self, state: &mut State, w: usize, start: Start) {
        let newest = state.log[start.from as usize].1;
        let policy = self.writers[w].0;
        if policy == Policy::Claimer && state.writers[w].claimed == NONE {
            let me = &mut state.writers[w];
            me.claims += 1;
            (me.kind, me.session, me.phase) = (Kind::Claim, 5 + w as u8, Phase::Creates);
            (me.slot, me.base) = (start.from + 1, newest);
            return;
        }
        self.adopt(state, w, &newest);
        let me = &mut state.writers[w];
        me.sessions += 1;
        (me.kind, me.session, me.phase) = (Kind::Backup, 2 * w as u8 + me.sessions, Phase::Uploads);
        // A plain backup compares with the head, and so does a holder, whose own the head is. Whoever edits what was
        // restored and holds the branch no more compares with what its receipt names.
        let still_holds = newest.is_held() && newest.holder == w as u8 + 1 && newest.epoch == me.claimed;
        me.parent = if policy == Policy::Plain || still_holds { newest.head } else { me.receipt };
        if !newest.retains(me.parent) {
            me.parent = NONE;
        }
        (me.reuses, me.releases) = (start.reuses && me.parent != NONE, start.releases);
        me.epoch = if me.claimed == NONE { newest.epoch } else { me.claimed };
        me.holds = me.claimed != NONE;
        (me.slot, me.base) = (start.from + 1, newest);
        let (session, parent) = (me.session, me.parent);
        state.begin[session as usize] = start.from;
        if self.guards {
            let before = if parent == NONE { 0 } else { state.tree[parent as usize] };
            state.tree[session as usize] = edited(before, start.edit, session);
        }
        match self.decide(state, w, &newest, true) {
            Some(goes) => state.writers[w].goes = goes,
            None => self.leave_lost(state, w),
        }
    }

    /// Builds a session that lost its number on the newest commit, if it still may.
    pub(super) fn rebase(&self, state: &mut State, w: usize, from: u8) {
        let newest = state.log[from as usize].1;
        if state.writers[w].kind != Kind::Claim {
            self.adopt(state, w, &newest);
            match self.decide(state, w, &newest, false) {
                Some(goes) => state.writers[w].goes = goes,
                None => return self.leave_lost(state, w),
            }
        }
        let me = &mut state.writers[w];
        if !self.breaks(Control::CommitReplayed) {
            me.base = newest;
        }
        (me.slot, me.phase) = (from + 1, Phase::Creates);
    }

    /// The commit that a session makes of the state that it is built on.
    fn commit_of(&self, state: &State, w: usize) -> Commit {
        let me = &state.writers[w];
        let mut commit = Commit { session: me.session, kind: me.kind, by: me.epoch, ..me.base };
        if me.kind == Kind::Claim {
            (commit.by, commit.epoch) = (me.slot, me.slot);
            (commit.holder, commit.released) = (w as u8 + 1, false);
            return commit;
        }
        let bit = 1 << me.session;
        commit.snapshots |= bit;
        match me.goes {
            Goes::OnBranch => {
                commit.head = me.session;
                commit.released |= me.releases;
            }
            Goes::ToFork => commit.forks |= bit,
            Goes::ToQuarantine => {
                commit.kind = Kind::Quarantine;
                commit.forks |= bit;
            }
        }
        commit
    }

    /// With packs named by content, a session that would reuse uploads the very content of the first snapshot instead.
    fn pack(&self, me: &Writer, k: u8) -> u8 {
        if self.breaks(Control::ContentNamedPacks) && me.reuses { 0 } else { 3 * me.session + k }
    }

    pub(super) fn upload(&self, state: &mut State, w: usize, answer: Answer) {
        let me = state.writers[w];
        let pack = self.pack(&me, me.next);
        // Read again after a restart, the directory differs, and so does what is uploaded.
        let other = me.resumed && self.breaks(Control::ResumeUsesANameAgain);
        if self.breaks(Control::ContentNamedPacks) && pack == 0 && answer != Answer::FailedLandsLater {
            // The fairest variant: the object's metadata name the session that put it last.
            state.begin[0] = state.begin[me.session as usize];
        }
        if answer != Answer::Done {
            state.faults -= 1;
        }
        if answer != Answer::FailedLandsLater {
            self.put_pack(state, pack, other);
        }
        if matches!(answer, Answer::FailedLandsLater | Answer::DoneTwice) {
            self.send_off(state, Flight::Pack(pack, other));
        }
        let me = &mut state.writers[w];
        if matches!(answer, Answer::FailedLandsLater | Answer::FailedButDone) {
            me.tried = true;
            return;
        }
        me.acknowledged |= 1 << me.next;
        me.next += 1;
        me.tried = false;
        if me.acknowledged.count_ones() + u32::from(me.have) == u32::from(self.packs) {
            me.phase = Phase::Creates;
            let me = *me;
            state.needs[me.session as usize] = self.needed(state, &me);
        }
    }

    /// The packs that a session's snapshot needs, and which of them with other content.
    fn needed(&self, state: &State, me: &Writer) -> (u16, u16) {
        let own = (0..3).filter(|k| me.acknowledged >> k & 1 == 1).fold(0, |all, k| all | 1_u16 << self.pack(me, k));
        let own = own | me.adopted;
        let mut needs = (own, state.other_content & own);
        if me.reuses && !self.breaks(Control::ContentNamedPacks) {
            let parent = state.needs[me.parent as usize];
            needs = (needs.0 | parent.0, needs.1 | parent.1);
        }
        needs
    }

    pub(super) fn try_create(&self, state: &mut State, w: usize, answer: Answer) {
        let number = state.writers[w].slot;
        let bytes = self.commit_of(state, w);
        if answer != Answer::Done {
            state.faults -= 1;
        }
        if self.breaks(Control::CreateThatRaces) && state.is_free(number) {
            state.writers[w].phase = Phase::Races;
            return;
        }
        let mut says_exists = true;
        match answer {
            Answer::Done | Answer::DoneTwice => {
                let taken = self.create(state, number, bytes);
                if answer == Answer::DoneTwice {
                    self.send_off(state, Flight::Create(number, bytes));
                }
                if taken {
                    return self.done(state, w);
                }
            }
            Answer::OwnAlreadyExists => {
                self.create(state, number, bytes);
            }
            Answer::ConflictWithNothing => {}
            Answer::FailedLandsLater | Answer::FailedButDone => {
                self.send_off(state, Flight::Create(number, bytes));
                says_exists = false;
            }
        }
        let taken_as_lost = if says_exists { Control::ExistsTakenAsLost } else { Control::ErrorTakenAsLost };
        state.writers[w].phase = if self.breaks(taken_as_lost) { Phase::Lost } else { Phase::Unresolved };
    }

    /// The second half of a create that races: whatever is there by now is overwritten.
    pub(super) fn race(&self, state: &mut State, w: usize) {
        let bytes = self.commit_of(state, w);
        self.write_commit(state, state.writers[w].slot, bytes);
        self.done(state, w);
    }

    /// Reads back what became of a create.
    pub(super) fn read_slot(&self, state: &mut State, w: usize) {
        let me = state.writers[w];
        let (slot, commit) = state.log[me.slot as usize];
        match slot {
            Slot::Absent | Slot::Deleted => state.writers[w].phase = Phase::Creates,
            _ if commit.session == me.session => self.done(state, w),
            _ if me.resumes != 0 && commit.session == me.resumes => {
                state.acknowledged |= 1 << me.resumes;
                self.idle(state, w);
            }
            _ => state.writers[w].phase = Phase::Lost,
        }
    }

    fn done(&self, state: &mut State, w: usize) {
        let me = state.writers[w];
        let bytes = self.commit_of(state, w);
        if state.is_free(me.slot) || state.log[me.slot as usize].1 != bytes {
            state.breaks(invariants::EXACT_OUTCOME);
        }
        if me.kind == Kind::Claim {
            state.writers[w].claimed = bytes.epoch;
            state.writers[w].receipt = bytes.head;
        } else {
            state.acknowledged |= 1 << me.session;
            if me.goes == Goes::OnBranch {
                state.writers[w].receipt = me.session;
            }
        }
        self.idle(state, w);
    }

    fn idle(&self, state: &mut State, w: usize) {
        let Writer { claims, sessions, claimed, receipt, .. } = state.writers[w];
        state.writers[w] = Writer { claims, sessions, claimed, receipt, ..Writer::default() };
    }

    fn leave_lost(&self, state: &mut State, w: usize) {
        let me = state.writers[w];
        if me.kind == Kind::Backup {
            state.lost |= 1 << me.session;
            if state.committed >> me.session & 1 == 1 {
                state.breaks(invariants::EXACT_OUTCOME);
            }
        }
        self.idle(state, w);
    }

    /// A crash without a journal, or giving up with `Lost` or `Unknown`.
    pub(super) fn leave(&self, state: &mut State, w: usize) {
        let me = state.writers[w];
        if me.phase == Phase::Lost {
            return self.leave_lost(state, w);
        }
        if self.breaks(Control::CleanUpAfterUnknown) && me.phase == Phase::Unresolved {
            for k in 0..3 {
                if state.present >> (3 * me.session + k) & 1 == 1 {
                    self.delete_pack(state, 3 * me.session + k);
                }
            }
        }
        self.idle(state, w);
    }

    /// A crash, and a restart with the journal: a new session with the old one's begin and its acknowledged packs,
    /// which first settles the number that the old one noted.
    pub(super) fn resume(&self, state: &mut State, w: usize) {
        state.restarts -= 1;
        let (newest, head) = (*state.newest(), state.head);
        let me = &mut state.writers[w];
        let uploads = me.phase == Phase::Uploads;
        me.resumed = true;
        if self.breaks(Control::ResumeUsesANameAgain) {
            me.tried = false;
            return;
        }
        let (old, acknowledged) = (me.session, me.acknowledged);
        me.sessions += 1;
        me.session += 1;
        me.resumes = old;
        me.adopted = (0..3).filter(|k| acknowledged >> k & 1 == 1).fold(0, |all, k| all | 1 << (3 * old + k));
        me.have = acknowledged.count_ones() as u8;
        (me.acknowledged, me.next, me.tried) = (0, 0, false);
        let new = me.session;
        if self.breaks(Control::ResumeWithoutChecks) {
            (me.base, me.slot) = (newest, head + 1);
        }
        if !uploads {
            me.phase = if self.breaks(Control::ResumeWithoutChecks) {
                Phase::Creates
            } else if self.breaks(Control::ResumeWithoutSettlingItsSlot) {
                Phase::Lost
            } else {
                Phase::Unresolved
            };
        }
        let (old, new) = (old as usize, new as usize);
        state.begin[new] = state.begin[old];
        state.tree[new] = state.tree[old];
        state.resumes[new] = old as u8;
        if !uploads {
            state.needs[new] = state.needs[old];
        }
    }
}

/// Files are bits: two that every run begins with, and one more for each session that adds one.
fn edited(before: u8, edit: Edit, session: u8) -> u8 {
    match edit {
        Edit::Nothing => before,
        Edit::Adds => before | 2 << session,
        Edit::Removes => before & before.wrapping_sub(1),
        Edit::RemovesTooMuch => 0,
    }
}
