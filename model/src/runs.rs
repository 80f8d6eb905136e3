//! Which bounds are explored, and which broken rule is shown in which.

use crate::check::Checkable;
use crate::detect::{self, Detect};
use crate::finder::{self, Finder};
use crate::placements::{self, Placements};
use crate::protocol::{Control, Policy, Protocol};
use crate::roll_back::{self, RollBack};

/// A model within some bounds.
pub struct Run {
    pub name: String,
    /// What it is a run of: what should be seen is looked for in all runs of a model together.
    pub of: &'static str,
    /// Too large for every change: only in the whole.
    pub is_large: bool,
    pub model: Box<dyn Checkable>,
}

fn run(of: &'static str, name: &str, is_large: bool, model: impl Checkable + 'static) -> Run {
    Run { name: format!("{of}/{name}"), of, is_large, model: Box::new(model) }
}

const PLAIN: Policy = Policy::Plain;
const HOLDER: Policy = Policy::Holder;
const CLAIMER: Policy = Policy::Claimer;
const RESTORED: Policy = Policy::Restored;
const NOBODY: (Policy, u8) = (Policy::Plain, 0);

/// Runs that must hold.
pub fn designs() -> Vec<Run> {
    let base = Protocol::default();
    let detect = Detect { control: None, sessions: [2, 1], maintenance: 2, faults: 1, is_reversed: false };
    let protocol = |name: &str, is_large: bool, model: Protocol| run("protocol", name, is_large, model);
    vec![
        protocol("everybody", false, Protocol { maintainers: [1, 1], reads: true, last: 4, ..base.clone() }),
        protocol(
            "everybody, a fault",
            true,
            Protocol { maintainers: [1, 1], reads: true, last: 4, faults: 1, ..base.clone() },
        ),
        protocol(
            "everybody, two faults",
            true,
            Protocol { maintainers: [1, 1], reads: true, last: 4, faults: 2, ..base.clone() },
        ),
        protocol(
            "everybody, emptied",
            true,
            Protocol { maintainers: [1, 1], reads: true, empties: true, last: 4, ..base.clone() },
        ),
        protocol("plain", false, Protocol { faults: 1, maintainers: [1, 0], ..base.clone() }),
        protocol("plain, untidy", false, Protocol { faults: 1, maintainers: [1, 0], untidy: true, ..base.clone() }),
        protocol("plain, stale heads", false, Protocol { maintainers: [1, 0], stale_heads: true, ..base.clone() }),
        protocol("plain, two faults", true, Protocol { faults: 2, ..base.clone() }),
        protocol(
            "plain, two sessions",
            true,
            Protocol { faults: 1, writers: [(PLAIN, 2), (PLAIN, 1)], ..base.clone() },
        ),
        protocol(
            "resume",
            false,
            Protocol { writers: [(PLAIN, 2), NOBODY], packs: 2, restarts: 1, faults: 1, ..base.clone() },
        ),
        protocol(
            "resume, untidy",
            true,
            Protocol { writers: [(PLAIN, 2), NOBODY], packs: 2, restarts: 1, faults: 1, untidy: true, ..base.clone() },
        ),
        protocol(
            "resume, two writers",
            true,
            Protocol { writers: [(PLAIN, 2), (PLAIN, 1)], maintainers: [1, 0], restarts: 1, faults: 1, ..base.clone() },
        ),
        protocol("emptied", false, Protocol { empties: true, maintainers: [1, 0], faults: 1, last: 4, ..base.clone() }),
        protocol("emptied, two faults", true, Protocol { empties: true, faults: 2, ..base.clone() }),
        protocol(
            "two maintainers",
            false,
            Protocol { writers: [(PLAIN, 1), NOBODY], maintainers: [2, 2], faults: 1, ..base.clone() },
        ),
        protocol(
            "holder and claimer",
            false,
            Protocol { writers: [(HOLDER, 1), (CLAIMER, 1)], maintainers: [0, 0], faults: 2, ..base.clone() },
        ),
        protocol(
            "holder again, claimer",
            true,
            Protocol { writers: [(HOLDER, 2), (CLAIMER, 1)], maintainers: [0, 0], faults: 1, ..base.clone() },
        ),
        protocol(
            "holder again, prune",
            true,
            Protocol { writers: [(HOLDER, 2), NOBODY], maintainers: [1, 0], faults: 2, ..base.clone() },
        ),
        protocol(
            "plain and claimer",
            false,
            Protocol { writers: [(PLAIN, 1), (CLAIMER, 1)], maintainers: [1, 0], faults: 1, ..base.clone() },
        ),
        protocol(
            "release",
            false,
            Protocol {
                writers: [(HOLDER, 2), (PLAIN, 1)],
                releases: true,
                maintainers: [1, 0],
                faults: 1,
                ..base.clone()
            },
        ),
        protocol(
            "restored",
            false,
            Protocol { writers: [(RESTORED, 2), (PLAIN, 1)], maintainers: [0, 0], faults: 1, ..base.clone() },
        ),
        protocol(
            "promote",
            false,
            Protocol {
                writers: [(HOLDER, 2), (PLAIN, 1)],
                maintainers: [1, 0],
                forgets: false,
                promotes: true,
                guards: true,
                quarantines: true,
                ..base.clone()
            },
        ),
        protocol(
            "promote, claimer",
            true,
            Protocol {
                writers: [(HOLDER, 2), (CLAIMER, 1)],
                maintainers: [2, 0],
                forgets: false,
                promotes: true,
                guards: true,
                quarantines: true,
                last: 4,
                ..base.clone()
            },
        ),
        protocol(
            "guard",
            false,
            Protocol { maintainers: [0, 0], guards: true, quarantines: true, faults: 1, ..base.clone() },
        ),
        protocol(
            "holds",
            false,
            Protocol {
                writers: [(RESTORED, 1), (PLAIN, 1)],
                maintainers: [2, 1],
                holds: true,
                deletes_forks: true,
                packs: 1,
                ..base.clone()
            },
        ),
        run("finder", "from any hint", false, Finder { control: None, first: 6, last: 9 }),
        run("finder", "in a longer log", true, Finder { control: None, first: 8, last: 11 }),
        run(
            "placements",
            "two writers",
            false,
            Placements { control: None, sessions: [2, 1], maintenance: 2, moves: false },
        ),
        run("placements", "moved", false, Placements { control: None, sessions: [1, 1], maintenance: 3, moves: true }),
        run(
            "placements",
            "two sessions each",
            true,
            Placements { control: None, sessions: [2, 2], maintenance: 1, moves: false },
        ),
        run("roll_back", "once", false, RollBack { control: None, sessions: 3, roll_backs: 1 }),
        run("roll_back", "twice", true, RollBack { control: None, sessions: 3, roll_backs: 2 }),
        run("detect", "two writers", false, Detect { sessions: [1, 1], ..detect }),
        run("detect", "two writers, other names", false, Detect { sessions: [1, 1], is_reversed: true, ..detect }),
        run("detect", "three sessions", true, detect),
        run("detect", "three sessions, other names", true, Detect { is_reversed: true, ..detect }),
    ]
}

/// Rules taken away: each must break an invariant.
pub fn controls() -> Vec<Run> {
    use Control::*;
    let base = Protocol::default();
    let protocol = |control: Control, model: Protocol| {
        run("protocol", &format!("{control:?}"), false, Protocol { control: Some(control), ..model })
    };
    let faulty = Protocol { faults: 1, ..base.clone() };
    let effects = Protocol { by_effects: true, ..base.clone() };
    let alone = [(PLAIN, 1), NOBODY];
    let again = [(PLAIN, 2), NOBODY];
    let maintained = Protocol { writers: alone, maintainers: [2, 2], by_effects: true, ..base.clone() };
    let resumed = Protocol { writers: again, packs: 2, restarts: 1, ..base.clone() };
    let promoted = Protocol { writers: [(HOLDER, 1), (PLAIN, 1)], maintainers: [1, 0], promotes: true, ..base.clone() };
    let mut runs = vec![
        protocol(ContentNamedPacks, faulty.clone()),
        protocol(LogEntriesDeleted, Protocol { empties: true, ..base.clone() }),
        protocol(NoCheckOfTheFloor, effects.clone()),
        protocol(NoCheckThatTheParentIsRetained, base.clone()),
        protocol(ExistsTakenAsLost, faulty.clone()),
        protocol(ErrorTakenAsLost, Protocol { writers: alone, ..faulty.clone() }),
        protocol(CleanUpAfterUnknown, Protocol { writers: again, ..faulty.clone() }),
        protocol(CreateThatRaces, base.clone()),
        protocol(CreateThatIsIgnored, base.clone()),
        protocol(PruneBeforeTheCommit, base.clone()),
        protocol(FloorSinks, maintained.clone()),
        protocol(FloorRunsAhead, effects.clone()),
        protocol(
            OwnLateCommitIsAConflict,
            Protocol { writers: [(HOLDER, 2), NOBODY], maintainers: [0, 0], ..faulty.clone() },
        ),
        protocol(CommitReplayed, maintained.clone()),
        protocol(PlanReplayed, Protocol { maintainers: [1, 1], promotes: true, ..base.clone() }),
        protocol(
            ResumeWithoutChecks,
            Protocol { by_effects: true, writers: [(PLAIN, 2), (PLAIN, 1)], packs: 1, ..resumed.clone() },
        ),
        protocol(ResumeWithoutSettlingItsSlot, Protocol { faults: 1, ..resumed.clone() }),
        protocol(ResumeUsesANameAgain, Protocol { faults: 1, ..resumed.clone() }),
        protocol(EqualPagesReadOnce, Protocol { writers: alone, ..base.clone() }),
        protocol(
            AppendOnAClaimedBranch,
            Protocol { writers: [(PLAIN, 1), (CLAIMER, 1)], maintainers: [0, 0], ..base.clone() },
        ),
        protocol(PromoteKeepsTheEpoch, promoted.clone()),
        protocol(AnyPromoteIsAdopted, promoted),
        protocol(GuardAskedOnce, Protocol { guards: true, ..base.clone() }),
        protocol(
            PromoteUnderAnotherHolderIsAdopted,
            Protocol {
                writers: [(HOLDER, 2), (CLAIMER, 1)],
                maintainers: [1, 0],
                forgets: false,
                promotes: true,
                guards: true,
                quarantines: true,
                ..base
            },
        ),
    ];
    {
        use finder::Control::*;
        for control in [StubEndsTheSearch, StubTakenForAbsent, HintIsBelieved, EntriesDeleted] {
            let model = Finder { control: Some(control), first: 5, last: 8 };
            runs.push(run("finder", &format!("{control:?}"), false, model));
        }
    }
    {
        use placements::Control::*;
        let all = [
            EqualPagesReadOnce,
            PlacementsNotFollowed,
            CacheSuppliesPlacements,
            AnySnapshotSuppliesPlacements,
            MovedParentsCountAsRetained,
        ];
        for control in all {
            let moves = control == MovedParentsCountAsRetained;
            let (sessions, maintenance) = if moves { ([1, 1], 3) } else { ([2, 1], 2) };
            let model = Placements { control: Some(control), sessions, maintenance, moves };
            runs.push(run("placements", &format!("{control:?}"), false, model));
        }
    }
    {
        use roll_back::Control::*;
        for control in
            [BaseNotReadAgain, PrevNotCompared, CachedHeadNotReadAgain, OwnCommitTakenForChecked, StubTakenForRollBack]
        {
            let model = RollBack { control: Some(control), sessions: 3, roll_backs: 1 };
            runs.push(run("roll_back", &format!("{control:?}"), false, model));
        }
    }
    {
        use detect::Control::*;
        let all = [
            TipsNotMerged,
            VoidTipsTakenOver,
            VoidTipMayBeHead,
            PruneBesideWriters,
            ForgetBesideWriters,
            FloorNotRaised,
            MaintenanceLandsLate,
            ListMissesACommit,
        ];
        for control in all {
            let model =
                Detect { control: Some(control), sessions: [2, 1], maintenance: 2, faults: 1, is_reversed: false };
            runs.push(run("detect", &format!("{control:?}"), false, model));
        }
    }
    runs
}
