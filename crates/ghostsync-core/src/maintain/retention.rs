//! Which snapshots a `forget` keeps: a pure function of a state, the rules, a calendar and a time.
//!
//! **Order.** The snapshots of a branch are taken in the order of their commits. Clocks jump, commits do not: a time
//! says only which hour, day or month a snapshot counts for. So the newest of a bucket is the one that was committed
//! last, and the newest buckets are those whose newest snapshot was committed last. A machine whose clock once ran ten
//! years ahead therefore does not fill `--keep-daily` with its days for the next ten years.
//!
//! **Doubt.** A snapshot that is incomplete, or much smaller than the last one before it that is not in doubt, never
//! displaces one that is not. Every rule that counts is applied twice: to all snapshots of the branch, and to those
//! that are not in doubt as if there were no others. What either keeps is kept. So snapshots in doubt cost no other
//! its place, they are kept like others (they may be all there is), and a rule for N keeps 2 N at the most.
//!
//! *Much smaller* is fewer than half of the entries or of the bytes. Half is where a backup refuses by default to
//! remove more, so somebody overruled a guard to make such a snapshot, or files lost their content and kept their
//! names. It is compared with the last one not in doubt, and not with its parent: after a wipe the second small
//! snapshot is as much in doubt as the first. The suspicion ends 30 days after that last one, so that what was deleted
//! on purpose is forgotten in the end, a month later than otherwise.
//!
//! **Time.** `within` counts back from the head's time, or from now if that is earlier: a branch that nobody backs up
//! to any more keeps its last days, and neither a clock that is ahead here nor one that was ahead there drops anything.
//!
//! **Never dropped**, whatever the rules say: heads and their parents (of a step also what else it refers to), held snapshots, the last complete snapshot of a
//! branch, and what a writer may be building on ([`ForgetOptions::protect`]). The hours of that protection are those
//! of UTC and stand still; hours counted back from now would leave a busy branch one snapshot, if this ran often.
//!
//! **Beside.** Forks, quarantine and `wip` branches have no days and weeks. Such a branch is kept whole until the
//! branch that it was meant for has a complete snapshot so much later than the newest one here (30 days, 7 for `wip`)
//! and as much time has passed; then it goes whole. While nobody backs up to that branch, what is kept beside it may
//! be the newest there is.

mod bucket;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::forget::ForgetOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::history::{SideKind, side_of};
use crate::id::SnapshotId;
use crate::repository::State;

pub use bucket::Bucket;
use bucket::Period;
pub use plan::{Cause, Doubt, ForgetPlan, Planned, Protection, Reason, Verdict};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Every head of so long is protected, if any is.
const RECENT: Duration = Duration::from_secs(600);
/// For how long a snapshot is called much smaller than an earlier one.
const SUSPICION: Duration = Duration::from_secs(30 * 24 * 3600);

/// How far behind the branch that it was meant for a branch beside it may fall.
fn age_limit(kind: SideKind) -> Duration {
    match kind {
        SideKind::Fork | SideKind::Quarantine => DAY * 30,
        SideKind::Wip => DAY * 7,
    }
}

/// What is kept, for each branch on its own. A rule of zero is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeepRules {
    /// So many newest snapshots.
    pub last: u32,
    /// The newest snapshot of each of so many hours that have one.
    pub hourly: u32,
    /// The same for days.
    pub daily: u32,
    /// The same for weeks by ISO 8601, from Monday.
    pub weekly: u32,
    /// The same for months.
    pub monthly: u32,
    /// The same for years.
    pub yearly: u32,
    /// Every snapshot that is not older than this, counted from the head of its branch, or from now if that is earlier.
    pub within: Duration,
    /// Every snapshot with one of these tags: a key, with this value or with any.
    pub tags: Vec<(String, Option<String>)>,
}

impl KeepRules {
    /// # Errors
    /// `Invalid` if there is no rule: that would drop everything, by mere omission.
    pub(super) fn check(&self) -> Result<()> {
        let counted = self.periods().into_iter().any(|(_, count)| count > 0);
        if counted || self.last > 0 || !self.within.is_zero() || !self.tags.is_empty() {
            return Ok(());
        }
        Err(Error::invalid("no rule says what to keep, so nothing is dropped"))
    }

    fn periods(&self) -> [(Period, u32); 5] {
        [
            (Period::Hourly, self.hourly),
            (Period::Daily, self.daily),
            (Period::Weekly, self.weekly),
            (Period::Monthly, self.monthly),
            (Period::Yearly, self.yearly),
        ]
    }
}

/// Which branches are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every branch but forks and quarantine.
    #[default]
    AllButForksAndQuarantine,
    /// Every branch.
    All,
    /// These.
    Branches(Vec<String>),
}

impl Scope {
    fn branches<'a>(&self, state: &'a State) -> Result<Vec<&'a str>> {
        let all = state.commit.branches.keys().map(String::as_str);
        let Self::Branches(named) = self else {
            let aside = |name: &&str| matches!(side_of(name), Some((SideKind::Fork | SideKind::Quarantine, _)));
            return Ok(all.filter(|name| *self == Self::All || !aside(name)).collect());
        };
        if let Some(missing) = named.iter().find(|name| !state.commit.branches.contains_key(*name)) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no branch {missing}")));
        }
        Ok(all.filter(|name| named.iter().any(|named| named == name)).collect())
    }
}

/// Plans which snapshots of a state are dropped.
///
/// # Errors
/// `Invalid` if no rule is given; `NotFound` if a branch that is named does not exist.
pub(super) fn plan(state: &State, options: &ForgetOptions, now: Timestamp) -> Result<ForgetPlan> {
    options.keep.check()?;
    let mut kept = Kept::default();
    let mut doubts = HashMap::new();
    // Branches beside others whose time has come, unless something on them is kept for another reason.
    let mut ending = BTreeMap::new();
    let concerned: BTreeSet<&str> = options.scope.branches(state)?.into_iter().collect();
    for name in &concerned {
        let line = Line::new(state, name, now);
        kept.marked(&line, &options.keep.tags);
        kept.protected(&line, options.protect, now);
        match side_of(name) {
            None => kept.by_rules(&line, &options.keep, &options.zone, now),
            Some((kind, onto)) if has_ended(state, &line, kind, onto, now) => {
                ending.insert(*name, Cause::Beside(kind, onto.to_owned()));
            }
            Some((kind, onto)) => line.snapshots.iter().for_each(|snapshot| {
                kept.add(snapshot, Reason::Beside(kind, onto.to_owned()));
            }),
        }
        doubts.extend(line.snapshots.iter().map(|snapshot| snapshot.id).zip(line.doubts));
    }
    let ended = kept.heads(state, &ending);
    let planned = state.commit.snapshots.iter().filter(|snapshot| concerned.contains(snapshot.branch.as_str()));
    let snapshots = planned
        .map(|snapshot| Planned {
            doubt: doubts.get(&snapshot.id).copied().flatten(),
            verdict: match kept.0.remove(&snapshot.id) {
                Some(reasons) => Verdict::Kept(reasons),
                None => Verdict::Dropped(ending.get(&*snapshot.branch).cloned().unwrap_or(Cause::NoRule)),
            },
            snapshot: snapshot.clone(),
        })
        .collect();
    Ok(ForgetPlan { snapshots, branches: ended.into_iter().map(str::to_owned).collect() })
}

/// The snapshots of a branch in the order of their commits, and why some of them displace no other.
struct Line<'a> {
    name: &'a str,
    snapshots: Vec<&'a Snapshot>,
    doubts: Vec<Option<Doubt>>,
}

impl<'a> Line<'a> {
    fn new(state: &'a State, name: &'a str, now: Timestamp) -> Self {
        let snapshots: Vec<&Snapshot> = state.snapshots_of(name).collect();
        let mut before = None;
        let doubts = snapshots
            .iter()
            .map(|snapshot| {
                let doubt = doubt(snapshot, before, now);
                before = if doubt.is_none() { Some(*snapshot) } else { before };
                doubt
            })
            .collect();
        Self { name, snapshots, doubts }
    }

    /// The newest snapshot of each of the `count` newest buckets, newest first.
    fn newest<K: Clone + Eq + Hash>(
        &self,
        count: u32,
        only: Counted,
        bucket: impl Fn(&Snapshot) -> K,
    ) -> Vec<(&'a Snapshot, K)> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut seen = HashSet::new();
        let counted = self.snapshots.iter().zip(&self.doubts).rev();
        counted
            .filter(|(_, doubt)| only == Counted::All || doubt.is_none())
            .map(|(snapshot, _)| (*snapshot, bucket(snapshot)))
            .filter(|(_, bucket)| seen.insert(bucket.clone()))
            .take(count)
            .collect()
    }
}

/// What a rule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    All,
    Undoubted,
}

/// Judges a snapshot by the last one before it that is not in doubt.
fn doubt(snapshot: &Snapshot, before: Option<&Snapshot>, now: Timestamp) -> Option<Doubt> {
    if !snapshot.complete {
        return Some(Doubt::Incomplete);
    }
    let before = before?;
    let is_smaller = snapshot.entries < before.entries.div_ceil(2) || snapshot.bytes < before.bytes.div_ceil(2);
    // A time that is still to come ends no suspicion.
    let passed = snapshot.time.min(now).duration_since(before.time);
    (is_smaller && passed < signed(SUSPICION)).then_some(Doubt::MuchSmaller)
}

/// Whether the branch that this one is beside has gone on for long enough.
fn has_ended(state: &State, line: &Line<'_>, kind: SideKind, onto: &str, now: Timestamp) -> bool {
    let is_held = state.commit.branches.get(line.name).and_then(|branch| branch.holder.as_ref());
    if is_held.is_some_and(|holder| !holder.released) {
        return false;
    }
    let gone_on = state.snapshots_of(onto).rev().find(|snapshot| snapshot.complete);
    let (Some(newest), Some(gone_on)) = (line.snapshots.last(), gone_on) else { return false };
    gone_on.time.min(now).duration_since(newest.time) >= signed(age_limit(kind))
}

/// Why each snapshot is kept that is.
#[derive(Debug, Default)]
struct Kept(HashMap<SnapshotId, Vec<Reason>>);

impl Kept {
    fn add(&mut self, snapshot: &Snapshot, reason: Reason) {
        self.0.entry(snapshot.id).or_default().push(reason);
    }

    fn by_rules(&mut self, line: &Line<'_>, keep: &KeepRules, zone: &TimeZone, now: Timestamp) {
        let last = |only| {
            let newest = line.newest(keep.last, only, |snapshot| snapshot.id).into_iter();
            newest.map(|(snapshot, _)| snapshot).zip(1..).collect::<Vec<_>>()
        };
        let (all, undoubted) = (last(Counted::All), last(Counted::Undoubted));
        self.add_counted(all, undoubted, |number, undisplaced| Reason::Last { number, undisplaced });
        for (period, count) in keep.periods() {
            let bucket = |snapshot: &Snapshot| Bucket::of(period, &snapshot.time.to_zoned(zone.clone()));
            let all = line.newest(count, Counted::All, bucket);
            let undoubted = line.newest(count, Counted::Undoubted, bucket);
            self.add_counted(all, undoubted, |bucket, undisplaced| Reason::Newest { bucket, undisplaced });
        }
        if let Some(head) = line.snapshots.last().filter(|_| !keep.within.is_zero()) {
            let from = head.time.min(now);
            for snapshot in &line.snapshots {
                if from.duration_since(snapshot.time) <= signed(keep.within) {
                    self.add(snapshot, Reason::Within(keep.within));
                }
            }
        }
        let complete = line.snapshots.iter().rposition(|snapshot| snapshot.complete);
        let undoubted = line.doubts.iter().rposition(Option::is_none);
        for index in BTreeSet::from([complete, undoubted]).into_iter().flatten() {
            if let Some(snapshot) = line.snapshots.get(index) {
                self.add(snapshot, Reason::LastComplete);
            }
        }
    }

    /// Adds what a rule keeps of all snapshots, and what more it keeps when those in doubt are not counted.
    fn add_counted<T>(
        &mut self,
        all: Vec<(&Snapshot, T)>,
        undoubted: Vec<(&Snapshot, T)>,
        reason: impl Fn(T, bool) -> Reason,
    ) {
        let among_all: HashSet<SnapshotId> = all.iter().map(|(snapshot, _)| snapshot.id).collect();
        all.into_iter().for_each(|(snapshot, what)| self.add(snapshot, reason(what, false)));
        for (snapshot, what) in undoubted.into_iter().filter(|(snapshot, _)| !among_all.contains(&snapshot.id)) {
            self.add(snapshot, reason(what, true));
        }
    }

    /// What people have marked.
    fn marked(&mut self, line: &Line<'_>, tags: &[(String, Option<String>)]) {
        for snapshot in &line.snapshots {
            if let Some(reason) = &snapshot.hold {
                self.add(snapshot, Reason::Held(reason.clone()));
            }
            for (key, value) in &snapshot.tags {
                let is_kept = |(kept, with): &(String, Option<String>)| {
                    kept == key && with.as_ref().is_none_or(|with| with == value)
                };
                if tags.iter().any(is_kept) {
                    self.add(snapshot, Reason::Tag(format!("{key}={value}")));
                }
            }
        }
    }

    /// What a writer may be building on.
    fn protected(&mut self, line: &Line<'_>, protect: Duration, now: Timestamp) {
        if protect.is_zero() {
            return;
        }
        let mut hours = HashSet::new();
        for snapshot in line.snapshots.iter().rev() {
            let age = now.duration_since(snapshot.time);
            let is_of_its_hour = hours.insert(snapshot.time.as_second().div_euclid(3600));
            if age < signed(protect.min(RECENT)) {
                self.add(snapshot, Reason::Protected(Protection::Recent));
            } else if age < signed(protect) && is_of_its_hour {
                self.add(snapshot, Reason::Protected(Protection::OfItsHour));
            }
        }
    }

    /// The heads of all branches, and their parents. A branch that would end stays while anything on it is kept,
    /// if only as a parent. Returns the branches that end.
    fn heads<'a>(&mut self, state: &'a State, ending: &BTreeMap<&'a str, Cause>) -> BTreeSet<&'a str> {
        let mut ended: BTreeSet<&str> = ending.keys().copied().collect();
        let mut staying: Vec<&str> =
            state.commit.branches.keys().map(String::as_str).filter(|name| !ended.contains(name)).collect();
        let kept = state.commit.snapshots.iter().filter(|snapshot| self.0.contains_key(&snapshot.id));
        staying.extend(kept.map(|snapshot| snapshot.branch.as_str()).filter(|name| ended.remove(name)));
        while let Some(name) = staying.pop() {
            let Some(head) = state.commit.head(name) else { continue };
            self.add(head, Reason::Head(name.to_owned()));
            // The backup that made the newest step may go on, and refers to what its steps do.
            let is_step = matches!(side_of(name), Some((SideKind::Wip, _)));
            let reused = head.reuses.iter().filter(|_| is_step);
            for parent in head.parent.iter().chain(reused).filter_map(|id| state.commit.snapshot(*id)) {
                self.add(parent, Reason::ParentOfHead(name.to_owned()));
                if ended.remove(parent.branch.as_str()) {
                    staying.push(&parent.branch);
                }
            }
        }
        ended
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
