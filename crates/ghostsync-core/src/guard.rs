//! Comparison and policy in, [`Approved`] or [`Refusal`] out: the only door to a commit that moves a branch by a backup.

use std::fmt;
use std::str::FromStr;

use crate::id::SnapshotId;
use crate::tree_path::TreePath;

/// The most paths that a refusal names.
pub const MAX_REFUSAL_PATHS: usize = 20;

/// Which check refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Guard {
    /// The receipt is absent, unreadable, or does not match.
    Receipt,
    /// The source is missing, not a directory, or cannot be read at its root.
    Source,
    /// An empty source would follow a non-empty snapshot.
    Empty,
    /// More would be removed than the deletion cap allows.
    MaxDelete,
    /// More files would be rewritten than the change cap allows.
    MaxChange,
    /// A changed exclude list hides more than the deletion cap allows.
    Excluded,
    /// An entry could not be read, and the policy is strict.
    Unreadable,
    /// The destination of a restore is not empty, or not a place to restore to.
    Destination,
    /// `init` found something under the prefix, or the store failed the probe.
    Init,
}

impl Guard {
    /// Names the guard as it appears in JSON output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Source => "source",
            Self::Empty => "empty",
            Self::MaxDelete => "max-delete",
            Self::MaxChange => "max-change",
            Self::Excluded => "excluded",
            Self::Unreadable => "unreadable",
            Self::Destination => "destination",
            Self::Init => "init",
        }
    }
}

/// Why nothing was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The guard that refused.
    pub guard: Guard,
    /// What it found, in one line without a full stop.
    pub reason: String,
    /// What the policy allows, for the guards that count, as the user gave it (`50%`, `10`).
    pub limit: Option<String>,
    /// What was found, for the guards that count.
    pub actual: Option<u64>,
    /// Up to [`MAX_REFUSAL_PATHS`] of the paths that caused it, in tree order.
    pub paths: Vec<TreePath>,
    /// Names the refused plan, for a one-shot override; `None` where there is nothing to override.
    pub plan: Option<PlanId>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by the guard {:?}: {}", self.guard.name(), self.reason)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for crate::error::Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(crate::error::ErrorKind::Refused, refusal)
    }
}

/// Names one refused plan: derived from the parent snapshot, the guard and the sorted paths that caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanId([u8; 8]);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for PlanId {
    type Err = crate::error::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || crate::error::Error::invalid(format!("not a plan id of 16 hexadecimal digits: {text:?}"));
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let value = u64::from_str_radix(text, 16).map_err(|_| wrong())?;
        Ok(Self(value.to_be_bytes()))
    }
}

/// How much may go at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// So many.
    Count(u64),
    /// So many of a hundred that the parent has; in trees of fewer than 10, one always passes.
    Percent(u32),
}

impl Cap {
    /// Tells whether `actual` of `parent` are within the cap.
    #[must_use]
    pub fn allows(self, actual: u64, parent: u64) -> bool {
        match self {
            Self::Count(most) => actual <= most,
            Self::Percent(percent) => {
                (parent < 10 && actual <= 1) || u128::from(actual) * 100 <= u128::from(percent) * u128::from(parent)
            }
        }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(most) => write!(f, "{most}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for Cap {
    type Err = crate::error::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || crate::error::Error::invalid(format!("not a cap: {text:?}; give a number (10) or a percentage (50%)"));
        match text.strip_suffix('%') {
            Some(percent) => {
                percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent).ok_or_else(wrong)
            }
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

/// What the guards of a backup allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The deletion cap; also the cap of what a changed exclude list hides. Default 50 %.
    pub max_delete: Cap,
    /// The change cap; `None` (the default) is no cap.
    pub max_change: Option<Cap>,
    /// Lets an empty source follow a non-empty snapshot.
    pub allow_empty: bool,
    /// Refuses when an entry cannot be read, instead of carrying its parent's version forward.
    pub strict: bool,
    /// One refused plan that may pass.
    pub override_plan: Option<PlanId>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_delete: Cap::Percent(50), max_change: None, allow_empty: false, strict: false, override_plan: None }
    }
}

#[allow(unused)]
fn placeholder(_: SnapshotId) {}
