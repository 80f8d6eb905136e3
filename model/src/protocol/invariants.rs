//! What must hold in every state, what must not happen in a landing commit, and what a run should have seen.

use stateright::Property;

use super::control::Control;
use super::state::{Commit, Kind, Phase, Plan, SESSIONS, Slot, State};
use super::{Policy, Protocol};

// Bits of `State::broken`.
pub(super) const ONE_CONTENT: u16 = 0;
pub(super) const EXACT_OUTCOME: u16 = 1;
pub(super) const FENCED: u16 = 2;
pub(super) const ONCE: u16 = 3;
pub(super) const READER: u16 = 4;
pub(super) const LOST_UPDATE: u16 = 5;
pub(super) const SELF_FORK: u16 = 6;
pub(super) const HOLD: u16 = 7;
pub(super) const GUARD: u16 = 8;
pub(super) const UNSEEN: u16 = 9;

/// The snapshots that a writer may have made.
pub(super) fn sessions_of(w: usize) -> u8 {
    0b110 << (2 * w)
}

impl Protocol {
    /// Looks at a commit as the store takes it. These checks are the checker's, not the store's.
    pub(super) fn judge_landing(&self, state: &mut State, number: u8, commit: &Commit) {
        let (slot, old) = state.log[number as usize];
        let before = state.log[number as usize - 1].1;
        let is_same = slot != Slot::Absent && old == *commit;
        if slot != Slot::Absent && !is_same {
            state.breaks(ONE_CONTENT);
        }
        if number > state.head + 1 {
            state.breaks(LOST_UPDATE);
        }
        if state.committed >> commit.session & 1 == 1 && !is_same {
            state.breaks(ONCE);
        }
        if commit.session < SESSIONS as u8 && state.lost >> commit.session & 1 == 1 && !is_same {
            state.breaks(EXACT_OUTCOME);
        }
        state.committed |= 1 << commit.session;
        let both = |s: usize| state.committed >> s & 1 == 1 && state.committed >> state.resumes[s] & 1 == 1;
        if (1..SESSIONS).any(|s| state.resumes[s] != 0 && both(s)) {
            state.breaks(ONCE);
        }
        let gone = before.snapshots & !commit.snapshots;
        if gone & before.holds != 0 {
            state.breaks(HOLD);
        }
        match commit.kind {
            Kind::Maintenance => state.forgotten |= gone,
            _ if gone != 0 => state.breaks(LOST_UPDATE),
            Kind::Claim => state.restored[commit.session as usize - 5] = commit.head,
            Kind::Quarantine => state.quarantined |= 1 << commit.session,
            Kind::Backup => {}
        }
        // With `by_effects` only what is lost in the end counts, not that a rule was broken.
        if (commit.floor < before.floor || commit.epoch < before.epoch) && !self.by_effects {
            state.breaks(LOST_UPDATE);
        }
        if matches!(commit.kind, Kind::Backup | Kind::Quarantine) {
            self.judge_backup(state, &before, commit);
        }
    }

    fn judge_backup(&self, state: &mut State, before: &Commit, commit: &Commit) {
        let session = commit.session as usize;
        let w = (session - 1) / 2;
        if state.begin[session] < before.floor && !self.by_effects {
            state.breaks(FENCED);
        }
        let is_holder = before.is_held() && before.holder == w as u8 + 1;
        if commit.head == before.head {
            if commit.kind == Kind::Backup && is_holder && before.epoch == commit.by {
                state.breaks(SELF_FORK);
            }
            return;
        }
        if (commit.by != before.epoch || before.is_held() && !is_holder) && !self.by_effects {
            state.breaks(FENCED);
        }
        let made_it = sessions_of(w) >> before.head & 1 == 1;
        if self.writers[w].0 != Policy::Plain && !made_it && before.head != state.restored[w] {
            state.breaks(UNSEEN);
        }
        if self.guards && !Self::approves(state.tree[before.head as usize], state.tree[session]) {
            state.breaks(GUARD);
        }
    }

    pub(super) fn all_properties(&self) -> Vec<Property<Self>> {
        fn unbroken(state: &State, invariant: u16) -> bool {
            state.broken >> invariant & 1 == 0
        }
        vec![
            Property::always("I1 retained snapshots have their objects", |_, s: &State| {
                let now = s.newest();
                (0..SESSIONS as u8).filter(|&snapshot| now.retains(snapshot)).all(|snapshot| {
                    let (packs, other) = s.needs[snapshot as usize];
                    packs & !s.present == 0 && (s.other_content ^ other) & packs == 0
                })
            }),
            Property::always("I1 acknowledged snapshots are retained until forgotten", |_, s: &State| {
                s.acknowledged & !s.forgotten & !s.newest().snapshots == 0
            }),
            Property::always("I1 the head of the branch is retained", |_, s: &State| {
                s.newest().retains(s.newest().head)
            }),
            Property::always("I1 a snapshot with a hold is not forgotten", |_, s: &State| unbroken(s, HOLD)),
            Property::always("I2 one commit per number, one content per name", |_, s: &State| unbroken(s, ONE_CONTENT)),
            Property::always("I3 outcomes are exact", |_, s: &State| unbroken(s, EXACT_OUTCOME)),
            Property::always("I4 what was deleted is unreachable from then on", |m: &Protocol, s: &State| {
                m.breaks(Control::ContentNamedPacks) || s.reach(s.newest().snapshots) & s.deleted == 0
            }),
            Property::always("I5 a fenced or overtaken session moves no branch", |_, s: &State| unbroken(s, FENCED)),
            Property::always("I5 only append follows a head that it has not seen", |_, s: &State| unbroken(s, UNSEEN)),
            Property::always("I6 a session commits once", |_, s: &State| unbroken(s, ONCE)),
            Property::always("I7 a reader of a retained snapshot finds all of it", |_, s: &State| unbroken(s, READER)),
            Property::always("I8 the next prune can delete all garbage", |_, s: &State| {
                // Its floor may be head + 1, so that every session that began at or before the head lies below it.
                (0..SESSIONS).all(|session| s.begin[session] <= s.head)
            }),
            Property::always("a session that begins now is not below the floor", |_, s: &State| {
                s.newest().floor <= s.head
            }),
            Property::always("no update is lost, floor and epoch never sink, the log has no gap", |_, s: &State| {
                unbroken(s, LOST_UPDATE)
            }),
            Property::always("a holder never forks from itself", |_, s: &State| unbroken(s, SELF_FORK)),
            Property::always("no backup moves a branch past the guard", |_, s: &State| unbroken(s, GUARD)),
            Property::sometimes("a rebased backup acknowledged", |_, s: &State| {
                s.log.iter().enumerate().any(|(n, (slot, commit))| {
                    let session = commit.session as usize;
                    let acknowledged = (1..SESSIONS).contains(&session) && s.acknowledged >> session & 1 == 1;
                    *slot != Slot::Absent && acknowledged && n > s.begin[session] as usize + 1
                })
            }),
            Property::sometimes("garbage of a dead session deleted", |_, s: &State| {
                (1..SESSIONS).any(|x| s.deleted >> (3 * x) & 7 != 0 && s.committed >> x & 1 == 0)
            }),
            Property::sometimes("a pack of a forgotten snapshot deleted", |_, s: &State| {
                (0..SESSIONS).any(|x| s.deleted >> (3 * x) & 7 != 0 && s.forgotten >> x & 1 == 1)
            }),
            Property::sometimes("a session lost", |_, s: &State| s.lost != 0),
            Property::sometimes("a fork", |_, s: &State| s.newest().forks & !s.quarantined != 0),
            Property::sometimes("the deletion of a fork lost its number", |_, s: &State| {
                s.maintainers.iter().any(|m| m.phase == Phase::Lost && matches!(m.plan, Plan::DeleteFork(_)))
            }),
            Property::sometimes("a resumed session acknowledged", |_, s: &State| {
                (1..SESSIONS).any(|x| s.resumes[x] != 0 && s.acknowledged >> x & 1 == 1)
            }),
            Property::sometimes("a commit landed after its author had gone", |_, s: &State| {
                let gone = |x: usize| s.writers[(x - 1) / 2].phase == Phase::Idle && s.acknowledged >> x & 1 == 0;
                (1..SESSIONS).any(|x| s.committed >> x & 1 == 1 && gone(x))
            }),
            Property::sometimes("a holder went on after the promote of its quarantined snapshot", |_, s: &State| {
                let now = s.newest();
                now.kind == Kind::Backup
                    && now.is_held()
                    && now.epoch != 0
                    && now.by == now.epoch
                    && now.head == now.session
                    && s.quarantined & !now.forks & now.snapshots & sessions_of(now.holder as usize - 1) != 0
            }),
            Property::sometimes("a hold set", |_, s: &State| s.newest().holds != 0),
            Property::sometimes("a snapshot put into quarantine when it was rebased", |_, s: &State| {
                let now = s.newest();
                now.kind == Kind::Quarantine && s.head > s.begin[now.session as usize] + 1
            }),
            Property::sometimes("a restore finished", |_, s: &State| s.reader.restores == 1 && s.reader.left == 0),
        ]
    }
}
