//! The verdict over one run: pure.

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::time::Duration;

use crate::content::Versions;
use crate::journal::{Ack, What};

use super::End;

/// What a hard end may cost.
pub const TOLERANCE: Duration = Duration::from_secs(5);

/// What some place has.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Whole files.
    pub files: Versions,
    /// Rows of each pod's database, by the pod's name; none for one that is damaged.
    pub rows: std::collections::BTreeMap<String, BTreeSet<u64>>,
    /// Databases that are damaged, by the pod's name.
    pub torn: BTreeSet<String>,
}

impl Place {
    fn has(&self, pod: &str, what: &What) -> bool {
        match what {
            What::File { name, version } => self.files.get(name).is_some_and(|found| found >= version),
            What::Row(number) => self.rows.get(pod).is_some_and(|rows| rows.contains(number)),
        }
    }
}

/// What the store has.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// In the head of the branch.
    pub head: Place,
    /// On forks.
    pub forks: Vec<Fork>,
}

/// What a fork has.
#[derive(Debug, Clone, Default)]
pub struct Fork {
    /// Its name.
    pub branch: String,
    /// What it has.
    pub place: Place,
    /// Whether some pod's log names it.
    pub is_told: bool,
}

/// Figures, of one run or of many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Acknowledged files.
    pub files: u64,
    /// Of these, lost in the last seconds before a hard end.
    pub late: u64,
    /// Of these, lost although there was time.
    pub lost: u64,
    /// Of these, not in the head, but on a fork.
    pub forked: u64,
    /// Acknowledged rows of databases.
    pub rows: u64,
    /// Of these, lost in the last seconds before a hard end.
    pub rows_late: u64,
    /// Of these, lost although there was time.
    pub rows_lost: u64,
    /// Databases that are damaged in the head.
    pub torn: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.late += other.late;
        self.lost += other.lost;
        self.forked += other.forked;
        self.rows += other.rows;
        self.rows_late += other.rows_late;
        self.rows_lost += other.rows_lost;
        self.torn += other.torn;
    }
}

/// The verdict over what one pod has promised.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Figures.
    pub tally: Tally,
    /// What should not have been lost, for people.
    pub lost: Vec<String>,
    /// Forks that are needed to account for something, and that no log names.
    pub untold: BTreeSet<String>,
}

/// Judges.
#[must_use]
pub fn judge(pod: &str, promised: &[Ack], end: End, found: &Found) -> Verdict {
    let mut verdict = Verdict::default();
    for ack in promised {
        let is_file = matches!(ack.what, What::File { .. });
        *(if is_file { &mut verdict.tally.files } else { &mut verdict.tally.rows }) += 1;
        if found.head.has(pod, &ack.what) {
            continue;
        }
        let mut forks = found.forks.iter().filter(|fork| fork.place.has(pod, &ack.what)).peekable();
        if let Some(first) = forks.peek().map(|fork| fork.branch.clone()) {
            verdict.tally.forked += u64::from(is_file);
            if !forks.any(|fork| fork.is_told) {
                verdict.untold.insert(first);
            }
            continue;
        }
        let is_late = matches!(end, End::Hard(at) if ack.at + TOLERANCE >= at);
        let count = match (is_file, is_late) {
            (true, true) => &mut verdict.tally.late,
            (true, false) => &mut verdict.tally.lost,
            (false, true) => &mut verdict.tally.rows_late,
            (false, false) => &mut verdict.tally.rows_lost,
        };
        *count += 1;
        // A database that is copied while it is written is no promise of ours; its files are.
        if !is_late && (is_file || end == End::Graceful) {
            let before = match end {
                End::Hard(at) => format!(", {:.1} s before the end", at.saturating_sub(ack.at).as_secs_f64()),
                End::Graceful => String::new(),
            };
            verdict.lost.push(format!("{pod}: {:?}, acknowledged at {:.3}{before}", ack.what, ack.at.as_secs_f64()));
        }
    }
    verdict.tally.torn = u64::from(found.head.torn.contains(pod));
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(at: u64, name: &str, version: u64) -> Ack {
        Ack { at: Duration::from_secs(at), what: What::File { name: name.into(), version } }
    }

    fn row(at: u64, number: u64) -> Ack {
        Ack { at: Duration::from_secs(at), what: What::Row(number) }
    }

    fn place(files: &[(&str, u64)], rows: &[u64]) -> Place {
        Place {
            files: files.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect(),
            rows: [("pod".to_owned(), rows.iter().copied().collect())].into(),
            torn: BTreeSet::new(),
        }
    }

    fn head(files: &[(&str, u64)], rows: &[u64]) -> Found {
        Found { head: place(files, rows), forks: Vec::new() }
    }

    #[test]
    fn a_later_version_keeps_an_earlier_promise_and_an_earlier_one_does_not() {
        let promised = [file(1, "a", 1), file(2, "a", 2), file(3, "b", 1)];
        let verdict = judge("pod", &promised, End::Graceful, &head(&[("a", 2), ("b", 1)], &[]));
        assert_eq!((verdict.tally, verdict.lost.len()), (Tally { files: 3, ..Tally::default() }, 0));
        let verdict = judge("pod", &promised, End::Graceful, &head(&[("a", 1)], &[]));
        assert_eq!((verdict.tally.lost, verdict.lost.len()), (2, 2), "a 2, b 1");
    }

    #[test]
    fn a_hard_end_excuses_the_last_five_seconds_alone() {
        let promised = [file(94, "early", 1), file(96, "late", 1), file(101, "after", 1)];
        let verdict = judge("pod", &promised, End::Hard(Duration::from_secs(100)), &head(&[], &[]));
        assert_eq!(verdict.tally, Tally { files: 3, late: 2, lost: 1, ..Tally::default() });
        assert!(verdict.lost[0].contains("early"), "{:?}", verdict.lost);
        let verdict = judge("pod", &promised, End::Graceful, &head(&[], &[]));
        assert_eq!((verdict.tally.late, verdict.tally.lost), (0, 3));
    }

    #[test]
    fn a_row_is_promised_at_a_graceful_end_and_counted_at_a_hard_one() {
        let promised = [row(1, 1), row(2, 2)];
        let verdict = judge("pod", &promised, End::Graceful, &head(&[], &[1]));
        assert_eq!((verdict.tally.rows, verdict.tally.rows_lost, verdict.lost.len()), (2, 1, 1));
        let verdict = judge("pod", &promised, End::Hard(Duration::from_secs(100)), &head(&[], &[1]));
        assert_eq!((verdict.tally.rows_lost, verdict.lost.len()), (1, 0));
        let other = judge("other", &promised, End::Graceful, &head(&[], &[1, 2]));
        assert_eq!(other.tally.rows_lost, 2, "of another pod");
    }

    #[test]
    fn what_is_on_a_fork_is_kept_if_some_log_names_a_fork_that_has_it() {
        let promised = [file(1, "a", 1)];
        let fork = |branch: &str, is_told| Fork { branch: branch.into(), place: place(&[("a", 1)], &[]), is_told };
        let mut found = head(&[], &[]);
        found.forks = vec![fork("fork/main/one", false)];
        let verdict = judge("pod", &promised, End::Graceful, &found);
        assert_eq!((verdict.tally.forked, verdict.tally.lost, verdict.untold.len()), (1, 0, 1));
        found.forks.push(fork("fork/main/two", true));
        let verdict = judge("pod", &promised, End::Graceful, &found);
        assert_eq!((verdict.tally.forked, verdict.untold.len()), (1, 0));
    }
}
