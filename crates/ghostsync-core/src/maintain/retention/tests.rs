//! A year of backups at irregular times, by clocks that jump, against an independent computation in the simplest
//! words: for each snapshot, look at all the others.

use std::collections::BTreeSet;

use jiff::tz::TimeZoneDatabase;
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::format::commit::{Branch, Changes, Commit, Holder, TreeRef};
use crate::id::{CommitHash, FrameHash, PackName, PageId, SessionId};

const HOUR: i64 = 3600;
const BRANCHES: [&str; 6] =
    ["main", "db", "fork/main/pod-1", "quarantine/main/00ff", "wip/db/pod", "quarantine/none/00ff"];
const ZONES: [&str; 4] = ["Europe/Berlin", "America/St_Johns", "Pacific/Apia", "UTC"];

fn id(number: usize) -> SnapshotId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    SnapshotId::from_bytes(bytes)
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn snapshot(number: usize, branch: &str, time: Timestamp) -> Snapshot {
    Snapshot {
        id: id(number),
        session: SessionId::from_bytes([1; 16]),
        branch: branch.into(),
        onto: None,
        parent: None,
        reuses: Vec::new(),
        promoted: None,
        repaired: None,
        was: None,
        time,
        source: String::new(),
        excludes: Vec::new(),
        tree: TreeRef {
            page: PageId::from_bytes([2; 32]),
            level: 0,
            pack: PackName { begin: 0, session: SessionId::from_bytes([1; 16]), number: 0 },
            offset: 0,
            length: 1,
            frame: FrameHash::from_bytes([3; 32]),
            pack_length: 1,
            extra: Map::new(),
        },
        entries: 100,
        bytes: 1000,
        changes: Changes::default(),
        complete: true,
        tags: BTreeMap::new(),
        hold: None,
        extra: Map::new(),
    }
}

/// A state with these snapshots: each has the one before it on its branch as its parent, if it has none yet.
fn state(snapshots: Vec<Snapshot>) -> State {
    let mut commit = Commit::empty(CommitHash::of(b"config"));
    for mut snapshot in snapshots {
        let head = commit.head(&snapshot.branch).map(|head| head.id);
        snapshot.parent = snapshot.parent.or(head);
        let branch = Branch { head: Some(snapshot.id), epoch: 0, holder: None, extra: Map::new() };
        commit.branches.insert(snapshot.branch.clone(), branch);
        commit.snapshots.push(snapshot);
    }
    State { hash: commit.prev, commit }
}

fn keeping(keep: KeepRules) -> ForgetOptions {
    ForgetOptions { keep, protect: Duration::ZERO, ..ForgetOptions::default() }
}

fn kept(plan: &ForgetPlan) -> BTreeSet<SnapshotId> {
    plan.snapshots.iter().filter(|planned| planned.is_kept()).map(|planned| planned.snapshot.id).collect()
}

fn numbers(state: &State, options: &ForgetOptions, now: &str) -> Vec<usize> {
    let kept = kept(&plan(state, options, at(now)).expect("a plan"));
    (0..state.commit.snapshots.len()).filter(|number| kept.contains(&id(*number))).collect()
}

/// The same set, computed by looking at all the others for each snapshot, and by dates as text.
mod naive {
    use super::*;

    pub(super) struct Naive<'a> {
        pub(super) state: &'a State,
        pub(super) options: &'a ForgetOptions,
        pub(super) now: Timestamp,
    }

    impl Naive<'_> {
        fn all(&self) -> &[Snapshot] {
            &self.state.commit.snapshots
        }

        fn line(&self, branch: &str) -> Vec<Snapshot> {
            self.all().iter().filter(|snapshot| snapshot.branch == branch).cloned().collect()
        }

        /// Whether each of a line is complete and not much smaller than the last such before it.
        fn sound(&self, line: &[Snapshot]) -> Vec<bool> {
            let mut sound: Vec<bool> = Vec::new();
            for (number, snapshot) in line.iter().enumerate() {
                let before = (0..number).filter(|before| sound[*before]).max();
                let small = before.is_some_and(|before| {
                    let before = &line[before];
                    let seconds = snapshot.time.min(self.now).as_second() - before.time.as_second();
                    (2 * snapshot.entries < before.entries || 2 * snapshot.bytes < before.bytes)
                        && seconds < 30 * 24 * HOUR
                });
                sound.push(snapshot.complete && !small);
            }
            sound
        }

        /// A rule is how many it keeps, and what each of the line is called by it.
        fn rules(&self, line: &[Snapshot]) -> Vec<(u32, Vec<String>)> {
            let keep = &self.options.keep;
            let text = |format: &str| {
                let zoned = |snapshot: &Snapshot| snapshot.time.to_zoned(self.options.zone.clone());
                line.iter().map(|snapshot| zoned(snapshot).strftime(format).to_string()).collect()
            };
            vec![
                (keep.last, line.iter().map(|snapshot| snapshot.id.to_string()).collect()),
                (keep.hourly, text("%F %H %::z")),
                (keep.daily, text("%F")),
                (keep.weekly, text("%G-%V")),
                (keep.monthly, text("%Y-%m")),
                (keep.yearly, text("%Y")),
            ]
        }

        fn counted(&self, of: usize, (count, labels): &(u32, Vec<String>), sound: &[bool]) -> bool {
            [false, true].into_iter().any(|only_sound| {
                let counts = |number: usize| sound[number] || !only_sound;
                let later: Vec<&String> =
                    (of + 1..labels.len()).filter(|later| counts(*later)).map(|later| &labels[later]).collect();
                let buckets: BTreeSet<&String> = later.iter().copied().collect();
                counts(of) && !later.contains(&&labels[of]) && buckets.len() < *count as usize
            })
        }

        fn by_rules(&self, line: &[Snapshot], rules: &[(u32, Vec<String>)], sound: &[bool], of: usize) -> bool {
            let keep = &self.options.keep;
            let last = |wanted: &dyn Fn(usize) -> bool| (0..line.len()).filter(|number| wanted(*number)).max();
            let head = &line[line.len() - 1];
            let within = i64::try_from(keep.within.as_secs()).expect("not so long");
            rules.iter().any(|rule| self.counted(of, rule, sound))
                || within > 0 && head.time.min(self.now).as_second() - line[of].time.as_second() <= within
                || last(&|number| line[number].complete) == Some(of)
                || last(&|number| sound[number]) == Some(of)
        }

        fn protected(&self, line: &[Snapshot], of: usize) -> bool {
            let hour = |snapshot: &Snapshot| snapshot.time.strftime("%F %H").to_string();
            let protect = i64::try_from(self.options.protect.as_secs()).expect("not so long");
            let age = self.now.as_second() - line[of].time.as_second();
            let is_newest = line[of + 1..].iter().all(|later| hour(later) != hour(&line[of]));
            protect > 0 && (age < protect.min(600) || age < protect && is_newest)
        }

        fn is_over(&self, branch: &str) -> bool {
            let parts: Vec<&str> = branch.split('/').collect();
            let days = if parts[0] == "wip" { 7 } else { 30 };
            let holder = self.state.commit.branches[branch].holder.as_ref();
            let complete = self.line(parts[1]).into_iter().rfind(|snapshot| snapshot.complete);
            let newest = self.line(branch).pop().expect("has a head");
            holder.is_none_or(|holder| holder.released)
                && complete.is_some_and(|complete| {
                    complete.time.min(self.now).as_second() - newest.time.as_second() >= days * 24 * HOUR
                })
        }

        /// Every snapshot of the whole state that is left.
        pub(super) fn kept(&self) -> BTreeSet<SnapshotId> {
            let concerned = |branch: &str| match &self.options.scope {
                Scope::All => true,
                Scope::AllButForksAndQuarantine => !branch.starts_with("fork/") && !branch.starts_with("quarantine/"),
                Scope::Branches(named) => named.iter().any(|name| name == branch),
            };
            let mut kept = BTreeSet::new();
            for branch in self.state.commit.branches.keys() {
                let line = self.line(branch);
                let (rules, sound) = (self.rules(&line), self.sound(&line));
                for (number, snapshot) in line.iter().enumerate() {
                    let tagged = snapshot.tags.iter().any(|(key, value)| {
                        let tags = &self.options.keep.tags;
                        tags.contains(&(key.clone(), None)) || tags.contains(&(key.clone(), Some(value.clone())))
                    });
                    let by_rule = match branch.contains('/') {
                        true => !self.is_over(branch),
                        false => self.by_rules(&line, &rules, &sound, number),
                    };
                    let protected = self.protected(&line, number);
                    if !concerned(branch) || snapshot.hold.is_some() || tagged || protected || by_rule {
                        kept.insert(snapshot.id);
                    }
                }
            }
            // A branch of which anything is left keeps its head, and the head's parent: until nothing more comes.
            loop {
                let before = kept.len();
                for (name, branch) in &self.state.commit.branches {
                    let head = branch.head.expect("has a head");
                    if !name.contains('/') || self.line(name).iter().any(|snapshot| kept.contains(&snapshot.id)) {
                        kept.insert(head);
                        let parent = self.all().iter().find(|snapshot| snapshot.id == head).expect("there").parent;
                        kept.extend(parent.filter(|parent| self.all().iter().any(|other| other.id == *parent)));
                    }
                }
                if kept.len() == before {
                    return kept;
                }
            }
        }
    }
}

/// One backup of a generated year.
#[derive(Debug, Clone)]
struct Made {
    branch: usize,
    gap_seconds: i64,
    /// What the clock is set forward or back by.
    jump_seconds: i64,
    entries: u64,
    bytes: u64,
    complete: bool,
    hold: bool,
    tag: Option<u8>,
    /// The parent is any before it, on whatever branch, and not the one before it on its own.
    parent: Option<prop::sample::Index>,
}

fn made() -> impl Strategy<Value = Made> {
    let gap = prop_oneof![3 => 1..HOUR, 4 => HOUR..24 * HOUR, 3 => 24 * HOUR..10 * 24 * HOUR];
    let jump = prop_oneof![
        40 => Just(0),
        2 => -90 * HOUR..90 * HOUR,
        1 => -400 * 24 * HOUR..400 * 24 * HOUR,
    ];
    let size = prop_oneof![8 => 80..120_u64, 1 => 1..60_u64, 1 => 300..400_u64];
    let branch = prop_oneof![12 => Just(0_usize), 4 => Just(1), 2 => 2..BRANCHES.len()];
    let marks = (prop::bool::weighted(0.85), prop::bool::weighted(0.02), prop::option::weighted(0.05, 0..3_u8));
    let parent = prop::option::weighted(0.3, any::<prop::sample::Index>());
    (branch, gap, jump, size.clone(), size, marks, parent).prop_map(
        |(branch, gap_seconds, jump_seconds, entries, bytes, (complete, hold, tag), parent)| Made {
            branch,
            gap_seconds,
            jump_seconds,
            entries,
            bytes,
            complete,
            hold,
            tag,
            parent,
        },
    )
}

/// When it begins, how long it lasts, and whether clocks jump in it: a year, or a day on which a zone puts its clock
/// back, with so many backups that every hour has several.
fn span() -> impl Strategy<Value = (i64, i64, i64)> {
    let year =
        (0..365_i64).prop_map(|day| (at("2026-01-01T00:00:00Z").as_second() + day * 24 * HOUR, 365 * 24 * HOUR, 1));
    let day = |time: &str| Just((at(time).as_second(), 24 * HOUR, 0));
    prop_oneof![6 => year, 1 => day("2026-10-24T18:00:00Z"), 1 => day("2026-10-31T18:00:00Z")]
}

/// The state after a year of backups, and the time at its end by a clock that is right.
fn year() -> impl Strategy<Value = (State, Timestamp)> {
    let held = prop::option::weighted(0.1, any::<bool>());
    let rest = prop_oneof![1 => 0..HOUR, 2 => 0..10 * 24 * HOUR];
    (prop::collection::vec(made(), 1..200), span(), rest, held).prop_map(
        |(made, (begins, length, jumps), rest, held)| {
            // However many backups there are, their gaps are stretched or pressed.
            let whole: i64 = made.iter().map(|made| made.gap_seconds).sum::<i64>().max(1);
            let (mut right, mut wrong) = (0, 0);
            let mut snapshots: Vec<Snapshot> = Vec::new();
            for (number, made) in made.iter().enumerate() {
                right += made.gap_seconds;
                wrong += made.jump_seconds * jumps;
                let passed = (right as f64 / whole as f64 * length as f64) as i64;
                let time = Timestamp::from_second(begins + passed + wrong).expect("a time");
                let mut snapshot = snapshot(number, BRANCHES[made.branch], time);
                snapshot.parent = made.parent.filter(|_| number > 0).map(|parent| parent.get(&snapshots).id);
                snapshot.hold = made.hold.then(|| "audit".into());
                snapshot.tags.extend(made.tag.map(|tag| ("release".to_owned(), tag.to_string())));
                snapshots.push(Snapshot {
                    entries: made.entries,
                    bytes: made.bytes,
                    complete: made.complete,
                    ..snapshot
                });
            }
            let mut state = state(snapshots);
            if let Some(wip) = state.commit.branches.get_mut("wip/db/pod") {
                let owner = |released| Holder {
                    owner: "pod".into(),
                    session: SessionId::from_bytes([1; 16]),
                    released,
                    extra: Map::new(),
                };
                wip.holder = held.map(owner);
            }
            (state, Timestamp::from_second(begins + length + rest).expect("a time"))
        },
    )
}

fn keep_rules() -> impl Strategy<Value = KeepRules> {
    let count = |most: u32| prop_oneof![2 => Just(0), 1 => 1..most];
    let counts = (count(9), count(30), count(15), count(9), count(13), count(3));
    let days = prop_oneof![2 => Just(0), 1 => 1..60_u64];
    let tags = prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(vec![("release".to_owned(), None)]),
        1 => Just(vec![("release".to_owned(), Some("1".to_owned())), ("other".to_owned(), None)]),
    ];
    (counts, days, tags).prop_filter_map("no rule", |((last, hourly, daily, weekly, monthly, yearly), days, tags)| {
        let within = DAY * u32::try_from(days).expect("few");
        let keep = KeepRules { last, hourly, daily, weekly, monthly, yearly, within, tags };
        keep.check().is_ok().then_some(keep)
    })
}

fn options() -> impl Strategy<Value = ForgetOptions> {
    let scope = prop_oneof![
        1 => Just(Scope::AllButForksAndQuarantine),
        3 => Just(Scope::All),
        1 => Just(Scope::Branches(vec!["main".into()])),
    ];
    let protect = prop_oneof![1 => Just(0), 1 => Just(300), 3 => Just(24 * 3600), 1 => Just(90 * 24 * 3600)];
    (keep_rules(), scope, protect, 0..ZONES.len()).prop_map(|(keep, scope, protect, zone)| ForgetOptions {
        keep,
        scope,
        protect: Duration::from_secs(protect),
        zone: TimeZoneDatabase::bundled().get(ZONES[zone]).expect("a zone"),
        ..ForgetOptions::default()
    })
}

fn dropped(state: &State, options: &ForgetOptions, now: Timestamp) -> BTreeSet<SnapshotId> {
    match plan(state, options, now) {
        Ok(plan) => plan.dropped_ids(),
        // `main` is in nearly every year.
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            BTreeSet::new()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_kept_of_a_year_equals_a_naive_computation(year in year(), options in options()) {
        let (state, now) = year;
        let dropped = dropped(&state, &options, now);
        let all: BTreeSet<_> = state.commit.snapshots.iter().map(|snapshot| snapshot.id).collect();
        let kept: BTreeSet<_> = all.difference(&dropped).copied().collect();
        prop_assert_eq!(kept, naive::Naive { state: &state, options: &options, now }.kept());
    }

    #[test]
    fn heads_holds_and_the_last_complete_snapshot_are_never_dropped(
        year in year(),
        options in options(),
        only_new in any::<bool>(),
    ) {
        let (state, now) = year;
        // A rule that keeps hardly anything by itself.
        let new = KeepRules { within: Duration::from_secs(1), ..KeepRules::default() };
        let options = if only_new { ForgetOptions { scope: options.scope, ..keeping(new) } } else { options };
        let dropped = dropped(&state, &options, now);
        // The commit is made, which refuses by itself what must never be.
        let after = crate::history::without_snapshots(&state, &dropped).expect("a commit");
        for snapshot in &state.commit.snapshots {
            prop_assert!(snapshot.hold.is_none() || after.snapshot(snapshot.id).is_some());
        }
        for (name, branch) in &state.commit.branches {
            let Some(left) = after.branches.get(name) else {
                prop_assert!(name.contains('/'), "{} vanished", name);
                prop_assert!(after.snapshots.iter().all(|snapshot| snapshot.branch != *name));
                continue;
            };
            prop_assert_eq!(left, branch);
            let head = after.head(name).expect("is retained");
            let parent = head.parent.filter(|parent| state.commit.snapshot(*parent).is_some());
            prop_assert!(parent.is_none_or(|parent| after.snapshot(parent).is_some()));
            let last = state.snapshots_of(name).rfind(|snapshot| snapshot.complete);
            let last = last.filter(|_| !name.contains('/'));
            prop_assert!(last.is_none_or(|last| after.snapshot(last.id).is_some()));
        }
    }

    #[test]
    fn what_writers_may_be_building_on_is_never_dropped(year in year(), options in options(), ago in 0..24 * HOUR) {
        let (mut state, now) = year;
        let options = ForgetOptions { protect: Duration::from_secs(24 * 3600), ..options };
        // The last of `main` is brought near to now, or near to ahead of it, and another one after it.
        let near = |seconds: i64| Timestamp::from_second(now.as_second() - seconds).expect("a time");
        let count = state.commit.snapshots.len();
        let more = [(0, near(ago)), (1, near(ago.min(400) / 2)), (2, near(-ago)), (3, near(0))];
        let mut snapshots = std::mem::take(&mut state.commit.snapshots);
        snapshots.extend(more.map(|(number, time)| snapshot(count + number, "main", time)));
        let state = super::tests::state(snapshots);
        let dropped = dropped(&state, &options, now);
        for number in 1..4 {
            prop_assert!(!dropped.contains(&id(count + number)));
        }
        let hour = |seconds: i64| near(seconds).as_second().div_euclid(HOUR);
        let is_newest = [ago.min(400) / 2, -ago, 0].into_iter().all(|later| hour(later) != hour(ago));
        prop_assert!(!is_newest || !dropped.contains(&id(count)));
    }

    #[test]
    fn one_more_rule_never_drops_more(year in year(), options in options(), more in keep_rules()) {
        let (state, now) = year;
        let keep = &options.keep;
        let both = KeepRules {
            last: keep.last.max(more.last),
            hourly: keep.hourly.max(more.hourly),
            daily: keep.daily.max(more.daily),
            weekly: keep.weekly.max(more.weekly),
            monthly: keep.monthly.max(more.monthly),
            yearly: keep.yearly.max(more.yearly),
            within: keep.within.max(more.within),
            tags: [keep.tags.clone(), more.tags.clone()].concat(),
        };
        let fewer = dropped(&state, &ForgetOptions { keep: both, ..options.clone() }, now);
        prop_assert!(fewer.is_subset(&dropped(&state, &options, now)));
    }

    #[test]
    fn snapshots_in_doubt_take_no_place_from_others(year in year(), options in options()) {
        let (state, now) = year;
        let kept_of = |state: &State| kept(&plan(state, &options, now).unwrap_or_default());
        let doubted: BTreeSet<_> = plan(&state, &ForgetOptions { scope: Scope::All, ..options.clone() }, now)
            .expect("a plan")
            .snapshots
            .iter()
            .filter(|planned| planned.doubt.is_some() && !planned.snapshot.branch.contains('/'))
            .map(|planned| planned.snapshot.id)
            .collect();
        let without = super::tests::state(
            state.commit.snapshots.iter().filter(|snapshot| !doubted.contains(&snapshot.id)).cloned().collect(),
        );
        // Each that the rules keep where nothing is in doubt is kept beside those in doubt too.
        let by_rule = |planned: &&Planned| match &planned.verdict {
            Verdict::Kept(reasons) => reasons
                .iter()
                .any(|reason| matches!(reason, Reason::Last { .. } | Reason::Newest { .. } | Reason::Tag(_))),
            Verdict::Dropped(_) => false,
        };
        let expected: BTreeSet<_> = plan(&without, &options, now)
            .unwrap_or_default()
            .snapshots
            .iter()
            .filter(by_rule)
            .map(|planned| planned.snapshot.id)
            .collect();
        prop_assert!(expected.is_subset(&kept_of(&state)));
    }
}

#[test]
fn no_rule_at_all_drops_nothing() {
    let state = state(vec![snapshot(0, "main", at("2026-01-01T00:00:00Z"))]);
    let error = plan(&state, &keeping(KeepRules::default()), at("2027-01-01T00:00:00Z")).expect_err("no rule");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_branch_that_is_not_there_is_told() {
    let state = state(vec![snapshot(0, "main", at("2026-01-01T00:00:00Z"))]);
    let keep = KeepRules { last: 1, ..KeepRules::default() };
    let options = ForgetOptions { scope: Scope::Branches(vec!["none".into()]), ..keeping(keep) };
    let error = plan(&state, &options, at("2027-01-01T00:00:00Z")).expect_err("no branch");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_clock_that_once_ran_ten_years_ahead_fills_no_rule_for_ten_years() {
    let times = [
        "2026-03-01T12:00:00Z",
        "2036-03-02T12:00:00Z",
        "2036-03-03T12:00:00Z",
        "2026-03-04T12:00:00Z",
        "2026-03-05T12:00:00Z",
        "2026-03-06T12:00:00Z",
    ];
    let state = state(times.iter().enumerate().map(|(number, time)| snapshot(number, "main", at(time))).collect());
    let options = keeping(KeepRules { daily: 3, ..KeepRules::default() });
    assert_eq!(numbers(&state, &options, "2026-03-06T13:00:00Z"), [3, 4, 5]);
}

#[test]
fn nothing_is_too_old_by_a_clock_that_is_wrong() {
    let times = ["2026-03-01T12:00:00Z", "2026-03-20T12:00:00Z", "2026-03-25T12:00:00Z"];
    let state = state(times.iter().enumerate().map(|(number, time)| snapshot(number, "main", at(time))).collect());
    let options = keeping(KeepRules { within: DAY * 20, ..KeepRules::default() });
    for now in ["2026-03-25T13:00:00Z", "2046-01-01T00:00:00Z"] {
        assert_eq!(numbers(&state, &options, now), [1, 2], "{now}");
    }
    assert_eq!(numbers(&state, &options, "1970-01-01T00:00:00Z"), [0, 1, 2]);
}

#[test]
fn a_wiped_source_does_not_push_out_what_there_was_and_is_believed_after_thirty_days() {
    let day = |day: usize| Timestamp::from_second(at("2026-01-01T12:00:00Z").as_second() + day as i64 * 24 * HOUR);
    let wiped = |number| {
        let mut snapshot = snapshot(number, "main", day(number).expect("a time"));
        if number >= 3 {
            snapshot.entries = 49;
        }
        snapshot
    };
    let options = keeping(KeepRules { last: 2, ..KeepRules::default() });
    let after = |days: usize| {
        let state = state((0..days).map(wiped).collect());
        let now = day(days - 1).expect("a time");
        numbers(&state, &options, &now.to_string())
    };
    assert_eq!(after(10), [1, 2, 8, 9]);
    assert_eq!(after(32), [1, 2, 30, 31]);
    // Number 32 is thirty days after number 2.
    assert_eq!(after(33), [2, 31, 32]);
    assert_eq!(after(34), [32, 33]);
}

#[test]
fn the_plan_names_the_reasons() {
    let fill = |number, branch, time, change: &dyn Fn(&mut Snapshot)| {
        let mut made = snapshot(number, branch, at(time));
        change(&mut made);
        made
    };
    let state = state(vec![
        fill(0, "main", "2026-03-01T12:00:00Z", &|made| made.hold = Some("audit".into())),
        fill(1, "main", "2026-03-02T11:00:00Z", &|_| {}),
        fill(2, "main", "2026-03-02T12:00:00Z", &|made| made.complete = false),
        fill(3, "quarantine/main/00ff", "2026-03-02T13:00:00Z", &|made| made.parent = Some(id(2))),
        fill(4, "main", "2026-04-01T11:00:00Z", &|made| made.tags = [("v".into(), "1".into())].into()),
        fill(5, "main", "2026-04-01T12:00:00Z", &|made| made.bytes = 499),
    ]);
    let keep = KeepRules {
        last: 1,
        daily: 2,
        within: Duration::from_secs(5400),
        tags: vec![("v".into(), None)],
        ..KeepRules::default()
    };
    let options = ForgetOptions { scope: Scope::All, protect: DAY, ..keeping(keep) };
    let told = |now: &str| {
        let plan = plan(&state, &options, at(now)).expect("a plan");
        let lines = plan.snapshots.iter().map(|planned| match &planned.verdict {
            Verdict::Kept(reasons) => reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join("; "),
            Verdict::Dropped(cause) => format!("dropped: {cause}"),
        });
        (lines.collect::<Vec<_>>(), plan.branches)
    };
    let (lines, ended) = told("2026-04-01T12:05:00Z");
    assert_eq!(
        lines,
        [
            "held: audit",
            "daily 2026-03-02, not displaced",
            "daily 2026-03-02; parent of the head of quarantine/main/00ff",
            "quarantine: until main is 30d past it; head of quarantine/main/00ff",
            "tag v=1; protected: newest of an hour; last 1, not displaced; daily 2026-04-01, not displaced; \
             within 90m; last complete; parent of the head of main",
            "protected: within 10m; last 1; daily 2026-04-01; within 90m; last complete; head of main",
        ]
    );
    assert!(ended.is_empty());
}

#[test]
fn a_branch_beside_another_goes_when_that_one_has_gone_on() {
    let days = |days: i64| Timestamp::from_second(at("2026-01-01T00:00:00Z").as_second() + days * 24 * HOUR);
    let aside = |name: &str, newest: i64| {
        state(vec![
            snapshot(0, "main", days(0).expect("a time")),
            snapshot(1, name, days(1).expect("a time")),
            snapshot(2, name, days(2).expect("a time")),
            snapshot(3, "main", days(newest).expect("a time")),
        ])
    };
    let keep = KeepRules { last: 9, ..KeepRules::default() };
    let options = ForgetOptions { scope: Scope::All, ..keeping(keep) };
    for (name, limit) in [("fork/main/pod-1", 30), ("quarantine/main/00ff", 30), ("wip/main/pod", 7)] {
        let ends = |newest, now| {
            let plan = plan(&aside(name, newest), &options, days(now).expect("a time")).expect("a plan");
            assert_eq!(plan.dropped().count() / 2, plan.branches.len(), "whole or not at all");
            plan.branches == [name]
        };
        assert!(ends(2 + limit, 2 + limit), "{name}");
        assert!(!ends(1 + limit, 300), "{name}: main has not gone on for so long");
        assert!(!ends(300, 1 + limit), "{name}: so much time has not passed");
    }
    let mut held = aside("fork/main/pod-1", 300);
    held.commit.snapshots[1].hold = Some("audit".into());
    assert!(plan(&held, &options, days(300).expect("a time")).expect("a plan").branches.is_empty());
}

#[test]
fn what_the_newest_step_refers_to_stays_for_the_backup_that_goes_on() {
    let mut step = snapshot(1, "wip/main/pod", at("2026-01-01T01:00:00Z"));
    step.reuses = vec![id(0)];
    let main = |number| snapshot(number, "main", at("2026-01-01T02:00:00Z"));
    let mut state = state(vec![main(0), step, main(2), main(3), main(4)]);
    let options = keeping(KeepRules { last: 1, ..KeepRules::default() });
    assert_eq!(numbers(&state, &options, "2026-01-02T00:00:00Z"), [0, 1, 3, 4]);
    state.commit.snapshots[1].reuses.clear();
    assert_eq!(numbers(&state, &options, "2026-01-02T00:00:00Z"), [1, 3, 4]);
}
