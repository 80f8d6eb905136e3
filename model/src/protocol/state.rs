//! The state of the store, of those who use it, and what the checker remembers beside them.
//!
//! Numbers are small on purpose: millions of states are compared. Sessions: 0 wrote the snapshot that every run begins
//! with, 1 and 2 are the first writer's, 3 and 4 the second's, 5 and 6 their claims, 8 to 11 and 12 to 15 the
//! maintainers'. A snapshot has the number of its session; pack `k` of session `s` is bit `3 * s + k`.

/// Commits that fit into the log.
pub const SLOTS: usize = 8;
/// Sessions that make snapshots, the first one included.
pub const SESSIONS: usize = 5;
/// No snapshot, no epoch, no number.
pub const NONE: u8 = 255;

/// The bytes of a commit: the whole state of the repository. Number 0 is whatever a run begins with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub struct Commit {
    pub session: u8,
    pub kind: Kind,
    /// The epoch in which its author believes to write.
    pub by: u8,
    pub epoch: u8,
    /// 0 nobody, 1 and 2 the writers.
    pub holder: u8,
    pub released: bool,
    /// The head of `main`.
    pub head: u8,
    /// Retained snapshots; those that are heads of forks or of quarantine branches; those with a hold.
    pub snapshots: u8,
    pub forks: u8,
    pub holds: u8,
    pub floor: u8,
}

impl Commit {
    pub fn retains(&self, snapshot: u8) -> bool {
        self.snapshots >> snapshot & 1 == 1
    }

    pub fn is_held(&self) -> bool {
        self.holder != 0 && !self.released
    }

    /// What forget never drops: the head of a branch, and a snapshot with a hold.
    pub fn may_forget(&self, snapshot: u8) -> bool {
        self.retains(snapshot) && self.head != snapshot && (self.forks | self.holds) >> snapshot & 1 == 0
    }

    /// A fork is deleted with its snapshot, unless that has a hold.
    pub fn may_delete_fork(&self, snapshot: u8) -> bool {
        self.forks >> snapshot & 1 == 1 && self.holds >> snapshot & 1 == 0 && self.head != snapshot
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub enum Kind {
    #[default]
    Backup,
    Quarantine,
    Claim,
    Maintenance,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Slot {
    #[default]
    Absent,
    Full,
    Emptied,
    /// Only with the control that deletes log entries.
    Deleted,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Phase {
    #[default]
    Idle,
    Uploads,
    Creates,
    /// Between the check and the write of a create that races.
    Races,
    Unresolved,
    Lost,
    Prunes,
}

/// Where a session's snapshot goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Goes {
    #[default]
    OnBranch,
    ToFork,
    ToQuarantine,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Writer {
    pub phase: Phase,
    pub claims: u8,
    pub sessions: u8,
    /// The epoch that this process has claimed or adopted, and the snapshot that its receipt names.
    pub claimed: u8,
    pub receipt: u8,
    pub kind: Kind,
    pub session: u8,
    pub parent: u8,
    pub reuses: bool,
    pub releases: bool,
    pub goes: Goes,
    pub epoch: u8,
    pub holds: bool,
    /// Packs whose upload was acknowledged, the next one, and whether it was tried.
    pub acknowledged: u8,
    pub next: u8,
    pub tried: bool,
    pub resumed: bool,
    /// The session that this one resumes, its packs, and how many they are.
    pub resumes: u8,
    pub adopted: u16,
    pub have: u8,
    pub slot: u8,
    pub base: Commit,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            phase: Phase::Idle,
            claims: 0,
            sessions: 0,
            claimed: NONE,
            receipt: 0,
            kind: Kind::Backup,
            session: 0,
            parent: 0,
            reuses: false,
            releases: false,
            goes: Goes::OnBranch,
            epoch: 0,
            holds: false,
            acknowledged: 0,
            next: 0,
            tried: false,
            resumed: false,
            resumes: 0,
            adopted: 0,
            have: 0,
            slot: 0,
            base: Commit::default(),
        }
    }
}

/// What a maintainer wants of the next commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Plan {
    #[default]
    RaiseFloor,
    Forget(u8),
    DeleteFork(u8),
    Promote(u8),
    Hold(u8),
    Unhold(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Maintainer {
    pub phase: Phase,
    pub commits: u8,
    pub plan: Plan,
    /// The floor that it wants, or none.
    pub floor: u8,
    pub slot: u8,
    /// What its commit is built on; when it prunes, the state that it prunes by.
    pub base: Commit,
}

impl Default for Maintainer {
    fn default() -> Self {
        let (phase, plan, base) = (Phase::Idle, Plan::RaiseFloor, Commit::default());
        Self { phase, commits: 0, plan, floor: NONE, slot: 0, base }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Reader {
    pub restores: u8,
    pub snapshot: u8,
    pub left: u16,
}

/// A request that is still under way: its client may be dead, or busy with something else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Default)]
pub enum Flight {
    #[default]
    Nothing,
    Create(u8, Commit),
    Pack(u8, bool),
    Delete(u8),
    Empty(u8),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    pub log: [(Slot, Commit); SLOTS],
    pub head: u8,
    /// Packs that exist, those of them with other content than first uploaded under that name, all ever deleted.
    pub present: u16,
    pub other_content: u16,
    pub deleted: u16,
    /// Of each session: its begin, what it resumes, the files of its tree; the packs that its snapshot needs and
    /// which of them with the other content.
    pub begin: [u8; SESSIONS],
    pub resumes: [u8; SESSIONS],
    pub tree: [u8; SESSIONS],
    pub needs: [(u16, u16); SESSIONS],
    pub writers: [Writer; 2],
    pub maintainers: [Maintainer; 2],
    pub reader: Reader,
    pub flights: [Flight; 3],
    /// What the store may still do wrong, and how often a process may still be restarted with its journal.
    pub faults: u8,
    pub restarts: u8,
    // What follows is the checker's memory: nobody in the model sees it, except a holder its own quarantined snapshots.
    /// Snapshots that were acknowledged, lost, ever forgotten, quarantined.
    pub acknowledged: u8,
    pub lost: u8,
    pub forgotten: u8,
    pub quarantined: u8,
    pub committed: u16,
    /// The head in the claim of each writer.
    pub restored: [u8; 2],
    /// Broken invariants, by bit.
    pub broken: u16,
}

impl State {
    pub fn newest(&self) -> &Commit {
        &self.log[self.head as usize].1
    }

    pub fn is_free(&self, number: u8) -> bool {
        matches!(self.log[number as usize].0, Slot::Absent | Slot::Deleted)
    }

    /// The packs that these snapshots need.
    pub fn reach(&self, snapshots: u8) -> u16 {
        (0..SESSIONS).filter(|s| snapshots >> s & 1 == 1).fold(0, |all, s| all | self.needs[s].0)
    }

    pub fn breaks(&mut self, invariant: u16) {
        self.broken |= 1 << invariant;
    }
}
