//! Comparison and policy in, `Approved` or [`Refusal`] out: the only door to a commit that moves a branch by a backup.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
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
    /// The store failed the probe for the commit mode that was asked for, and another one is possible.
    Probe,
    /// In commit mode `detect`, nobody has promised that no other process writes.
    Exclusive,
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
            Self::Probe => "probe",
            Self::Exclusive => "exclusive",
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

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(ErrorKind::Refused, refusal)
    }
}

impl Error {
    /// The guard's refusal, if this error is one.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.detail()
    }
}

impl Refusal {
    /// A refusal by a guard that counts nothing and that no override passes.
    pub(crate) fn plain(guard: Guard, reason: impl Into<String>) -> Self {
        Self { guard, reason: reason.into(), limit: None, actual: None, paths: Vec::new(), plan: None }
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
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || Error::invalid(format!("not a plan id of 16 hexadecimal digits: {text:?}"));
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
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || Error::invalid(format!("not a cap: {text:?}; give a number (10) or a percentage (50%)"));
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

/// Paths that cause a refusal, taken in tree order: how many, the first few, and a hash of them all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Causes {
    count: u64,
    first: Vec<TreePath>,
    hasher: blake3::Hasher,
}

impl Causes {
    pub(crate) fn push(&mut self, path: &TreePath) {
        self.count += 1;
        if self.first.len() < MAX_REFUSAL_PATHS {
            self.first.push(path.clone());
        }
        self.hasher.update(path.as_bytes());
        self.hasher.update(&[0]);
    }

    /// So many paths of which this one alone is known.
    pub(crate) fn push_unknown(&mut self, path: &TreePath, count: u64) {
        self.push(path);
        self.count = self.count.saturating_sub(1).saturating_add(count);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn plan(&self, guard: Guard, parent: Option<SnapshotId>) -> PlanId {
        let mut hasher = self.hasher.clone();
        hasher.update(guard.name().as_bytes());
        hasher.update(parent.as_ref().map_or(&[0; 32], SnapshotId::as_bytes).as_slice());
        let mut plan = [0; 8];
        plan.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        PlanId(plan)
    }
}

/// What a comparison with the parent snapshot and the problems met say, before any policy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    /// The snapshot that was compared with.
    pub(crate) parent: Option<SnapshotId>,
    /// Its entries, without the root and sockets.
    pub(crate) parent_entries: u64,
    /// Its files, links and special files.
    pub(crate) parent_files: u64,
    /// The entries that the new snapshot would have.
    pub(crate) entries: u64,
    /// The parent's files, links and special files that are gone, changed kind or became empty, did not move, and are no
    /// transients of a database.
    pub(crate) removed: Causes,
    /// The parent's files, links and special files that a changed exclude list hides.
    pub(crate) excluded: Causes,
    /// Files whose content differs for certain.
    pub(crate) changed: Causes,
    /// Entries that could not be read.
    pub(crate) unreadable: Causes,
}

/// Proof that a guard has judged: only this module makes one, and a commit of a snapshot asks for it.
#[derive(Debug)]
pub(crate) struct Approved {
    quarantine: bool,
}

impl Approved {
    pub(crate) fn is_for_quarantine(&self) -> bool {
        self.quarantine
    }
}

impl Refusal {
    /// Lets what was refused be kept on a quarantine branch, and nowhere else. A source that failed at its root and
    /// a receipt that does not hold are never kept.
    pub(crate) fn quarantine(&self) -> Option<Approved> {
        match self.guard {
            Guard::Empty | Guard::MaxDelete | Guard::MaxChange | Guard::Excluded | Guard::Unreadable => {
                Some(Approved { quarantine: true })
            }
            Guard::Receipt | Guard::Source | Guard::Destination | Guard::Init | Guard::Probe | Guard::Exclusive => None,
        }
    }
}

/// Judges findings by a policy. Pure: the same findings and policy give the same answer.
pub(crate) fn judge(findings: &Findings, policy: &Policy) -> Result<Approved, Box<Refusal>> {
    let overridden = |refusal: &Refusal| policy.override_plan.is_some() && refusal.plan == policy.override_plan;
    let empty = empty(findings, policy);
    // Emptying a tree on purpose is one decision, not two, in whichever way it is said.
    let emptied_on_purpose = findings.entries == 0 && (policy.allow_empty || empty.as_ref().is_some_and(overridden));
    let max_delete = max_delete(findings, policy).filter(|_| !emptied_on_purpose);
    let checks =
        [empty, max_delete, excluded(findings, policy), max_change(findings, policy), unreadable(findings, policy)];
    match checks.into_iter().flatten().find(|refusal| !overridden(refusal)) {
        Some(refusal) => Err(Box::new(refusal)),
        None => Ok(Approved { quarantine: false }),
    }
}

fn refusal(guard: Guard, findings: &Findings, causes: &Causes, limit: Option<Cap>, reason: String) -> Refusal {
    Refusal {
        guard,
        reason,
        limit: limit.map(|cap| cap.to_string()),
        actual: Some(causes.count),
        paths: causes.first.clone(),
        plan: Some(causes.plan(guard, findings.parent)),
    }
}

fn empty(findings: &Findings, policy: &Policy) -> Option<Refusal> {
    (findings.entries == 0 && findings.parent_entries > 0 && !policy.allow_empty).then(|| {
        let reason = format!("the source is empty, its parent snapshot has {} entries", findings.parent_entries);
        refusal(Guard::Empty, findings, &findings.removed, None, reason)
    })
}

fn max_delete(findings: &Findings, policy: &Policy) -> Option<Refusal> {
    let (removed, files) = (&findings.removed, findings.parent_files);
    (!policy.max_delete.allows(removed.count, files)).then(|| {
        let cap = policy.max_delete;
        let reason = format!("{} of the parent's {files} files would be removed, the cap is {cap}", removed.count);
        refusal(Guard::MaxDelete, findings, removed, Some(cap), reason)
    })
}

fn excluded(findings: &Findings, policy: &Policy) -> Option<Refusal> {
    let (excluded, files) = (&findings.excluded, findings.parent_files);
    (!policy.max_delete.allows(excluded.count, files)).then(|| {
        let cap = policy.max_delete;
        let reason = format!("excludes would hide {} of the parent's {files} files, the cap is {cap}", excluded.count);
        refusal(Guard::Excluded, findings, excluded, Some(cap), reason)
    })
}

fn max_change(findings: &Findings, policy: &Policy) -> Option<Refusal> {
    let cap = policy.max_change?;
    let (changed, files) = (&findings.changed, findings.parent_files);
    (!cap.allows(changed.count, files)).then(|| {
        let reason = format!("{} of the parent's {files} files would be rewritten, the cap is {cap}", changed.count);
        refusal(Guard::MaxChange, findings, changed, Some(cap), reason)
    })
}

fn unreadable(findings: &Findings, policy: &Policy) -> Option<Refusal> {
    let unreadable = &findings.unreadable;
    (policy.strict && unreadable.count > 0).then(|| {
        let reason = format!("{} entries could not be read, and the policy is strict", unreadable.count);
        refusal(Guard::Unreadable, findings, unreadable, None, reason)
    })
}

#[cfg(test)]
mod tests;
