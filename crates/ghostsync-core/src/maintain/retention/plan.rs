//! What a `forget` does, snapshot by snapshot, and why.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::bucket::Bucket;
use crate::format::commit::Snapshot;
use crate::history::SideKind;
use crate::id::SnapshotId;

/// What a `forget` does with each snapshot of the branches that it concerns.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ForgetPlan {
    /// The snapshots, in the order of their commits.
    pub snapshots: Vec<Planned>,
    /// Branches beside others that go with the last of their snapshots.
    pub branches: Vec<String>,
}

impl ForgetPlan {
    /// The snapshots that are dropped.
    pub fn dropped(&self) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.iter().filter(|planned| !planned.is_kept()).map(|planned| &planned.snapshot)
    }

    pub(crate) fn dropped_ids(&self) -> BTreeSet<SnapshotId> {
        self.dropped().map(|snapshot| snapshot.id).collect()
    }
}

/// One snapshot of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Why it displaces no other.
    pub doubt: Option<Doubt>,
    /// What becomes of it.
    pub verdict: Verdict,
}

impl Planned {
    /// Whether it is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self.verdict, Verdict::Kept(_))
    }
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is kept, for every one of these reasons; there is at least one.
    Kept(Vec<Reason>),
    /// It is dropped.
    Dropped(Cause),
}

/// Why a snapshot does not count when the others are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// Some of its entries could not be read.
    Incomplete,
    /// It has fewer than half the entries or bytes of the last one before it that is not in doubt itself.
    MuchSmaller,
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The so many newest of the branch are kept; this is the n-th, from 1.
    Last {
        /// Which one it is.
        number: u32,
        /// It is one of them only because those in doubt are not counted.
        undisplaced: bool,
    },
    /// The newest of an hour, a day, a week, a month or a year is kept.
    Newest {
        /// Of which.
        bucket: Bucket,
        /// It is that only because those in doubt are not counted.
        undisplaced: bool,
    },
    /// It is not older than this, counted from the head of its branch.
    Within(Duration),
    /// It has a tag that is kept.
    Tag(String),
    /// It is held, for a reason.
    Held(String),
    /// It is the head of this branch.
    Head(String),
    /// It is the parent of the head of this branch, or a step there refers to it.
    ParentOfHead(String),
    /// It is the last complete snapshot of its branch, or the last that is not in doubt.
    LastComplete,
    /// A writer may be building on it right now.
    Protected(Protection),
    /// The branch is beside this other one, which has not gone on for long enough.
    Beside(SideKind, String),
}

/// What a writer may be building on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// It was committed within the last minutes, or by a clock that is ahead.
    Recent,
    /// It was the last head of one of the last hours.
    OfItsHour,
}

/// Why a snapshot is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// None of the rules keeps it.
    NoRule,
    /// The branch is beside this other one, which has gone on for long enough.
    Beside(SideKind, String),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "incomplete",
            Self::MuchSmaller => "much smaller",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last { number, undisplaced } => write!(f, "last {number}{}", suffix(*undisplaced)),
            Self::Newest { bucket, undisplaced } => write!(f, "{bucket}{}", suffix(*undisplaced)),
            Self::Within(span) => write!(f, "within {}", Span(*span)),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Held(reason) => write!(f, "held: {reason}"),
            Self::Head(branch) => write!(f, "head of {branch}"),
            Self::ParentOfHead(branch) => write!(f, "parent of the head of {branch}"),
            Self::LastComplete => f.write_str("last complete"),
            Self::Protected(Protection::Recent) => write!(f, "protected: within {}", Span(super::RECENT)),
            Self::Protected(Protection::OfItsHour) => f.write_str("protected: newest of an hour"),
            Self::Beside(kind, branch) => {
                write!(f, "{}: until {branch} is {} past it", kind.name(), Span(super::age_limit(*kind)))
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule => f.write_str("no rule keeps it"),
            Self::Beside(kind, branch) => {
                write!(f, "{}: {branch} is {} past it", kind.name(), Span(super::age_limit(*kind)))
            }
        }
    }
}

fn suffix(undisplaced: bool) -> &'static str {
    if undisplaced { ", not displaced" } else { "" }
}

/// A length of time as it is written on a command line: `30d`.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
        let (unit, name) = units.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit)).unwrap_or((1, "s"));
        write!(f, "{}{name}", seconds / unit)
    }
}
