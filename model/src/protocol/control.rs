//! Rules of the protocol, each of which can be taken away: the checker must notice.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Control {
    /// Packs are named by their content.
    ContentNamedPacks,
    /// Old log entries are deleted instead of emptied.
    LogEntriesDeleted,
    NoCheckOfTheFloor,
    NoCheckThatTheParentIsRetained,
    /// `AlreadyExists` is taken as lost without reading back.
    ExistsTakenAsLost,
    /// An error is taken as lost: rebase while unresolved.
    ErrorTakenAsLost,
    CleanUpAfterUnknown,
    CreateThatRaces,
    CreateThatIsIgnored,
    /// Prune by a state that is not in the log.
    PruneBeforeTheCommit,
    FloorSinks,
    FloorRunsAhead,
    /// A maintainer's plan is replayed on a newer state without a look at it.
    PlanReplayed,
    /// A commit that lost is created again as it was, only with the next number.
    CommitReplayed,
    ResumeWithoutChecks,
    ResumeWithoutSettlingItsSlot,
    ResumeUsesANameAgain,
    EqualPagesReadOnce,
    AppendOnAClaimedBranch,
    /// A holder that finds a late commit of its own takes that for somebody else's.
    OwnLateCommitIsAConflict,
    /// `promote` leaves the epoch as it is.
    PromoteKeepsTheEpoch,
    /// A holder adopts the epoch of any promote, also of a snapshot that is not its own.
    AnyPromoteIsAdopted,
    /// A holder adopts the epoch of a promote of its own snapshot although the branch was claimed by another.
    PromoteUnderAnotherHolderIsAdopted,
    /// The guard is asked when a session begins and not again when it is built on a newer head.
    GuardAskedOnce,
}
