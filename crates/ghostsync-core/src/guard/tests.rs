//! Tables and properties of the judgement itself; `tests/it/guards.rs` tries the guards end to end.

use std::collections::{BTreeSet, HashSet};

use proptest::collection::btree_set;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const GUARDS: [Guard; 11] = [
    Guard::Receipt,
    Guard::Source,
    Guard::Empty,
    Guard::MaxDelete,
    Guard::MaxChange,
    Guard::Excluded,
    Guard::Unreadable,
    Guard::Destination,
    Guard::Init,
    Guard::Probe,
    Guard::Exclusive,
];

fn named(names: impl IntoIterator<Item = impl AsRef<str>>) -> Causes {
    let mut causes = Causes::default();
    names.into_iter().for_each(|name| causes.push(&TreePath::parse(name.as_ref()).expect("a path")));
    causes
}

fn so_many(count: u64) -> Causes {
    named((0..count).map(|number| format!("{number:06}")))
}

/// What is found when nothing differs from a parent of so many files.
fn unchanged(files: u64) -> Findings {
    let parent = Some(SnapshotId::from_bytes([1; 32]));
    Findings { parent, parent_entries: files, parent_files: files, entries: files, ..Findings::default() }
}

/// Puts causes where a guard looks for them.
fn with_causes(guard: Guard, causes: Causes, findings: Findings) -> Findings {
    match guard {
        Guard::Empty => Findings { removed: causes, entries: 0, ..findings },
        Guard::MaxDelete => Findings { removed: causes, ..findings },
        Guard::Excluded => Findings { excluded: causes, ..findings },
        Guard::MaxChange => Findings { changed: causes, ..findings },
        Guard::Unreadable => Findings { unreadable: causes, ..findings },
        Guard::Receipt | Guard::Source | Guard::Destination | Guard::Init | Guard::Probe | Guard::Exclusive => {
            unreachable!("judges no findings")
        }
    }
}

fn refused(findings: &Findings, policy: &Policy) -> Option<Guard> {
    judge(findings, policy).err().map(|refusal| refusal.guard)
}

#[test]
fn at_the_cap_passes_and_one_over_is_refused() {
    let table = [
        // cap, files of the parent, the most that passes
        (Cap::Percent(50), 20, 10),
        (Cap::Percent(50), 21, 10),
        (Cap::Percent(33), 100, 33),
        (Cap::Percent(33), 10, 3),
        (Cap::Percent(0), 1000, 0),
        (Cap::Percent(100), 20, 20),
        (Cap::Count(0), 20, 0),
        (Cap::Count(5), 20, 5),
        (Cap::Count(5), 6, 5),
        // In trees of fewer than 10 one always passes, whatever the percentage; a count means what it says.
        (Cap::Percent(0), 10, 0),
        (Cap::Percent(0), 9, 1),
        (Cap::Percent(0), 1, 1),
        (Cap::Percent(10), 2, 1),
        (Cap::Percent(50), 9, 4),
        (Cap::Count(0), 9, 0),
        (Cap::Count(0), 1, 0),
    ];
    for (cap, files, most) in table {
        let policy = Policy { max_delete: cap, max_change: Some(cap), ..Policy::default() };
        for guard in [Guard::MaxDelete, Guard::Excluded, Guard::MaxChange] {
            let at = |count| judge(&with_causes(guard, so_many(count), unchanged(files)), &policy);
            let case = format!("{guard:?}: {most} of {files} under {cap}");
            assert!(at(most).is_ok_and(|approved| !approved.is_for_quarantine()), "{case}");
            let refusal = at(most + 1).expect_err(&case);
            assert_eq!((refusal.guard, refusal.actual), (guard, Some(most + 1)), "{case}");
            assert_eq!(refusal.limit, Some(cap.to_string()), "{case}");
            assert!(refusal.reason.contains(&cap.to_string()) && refusal.plan.is_some(), "{case}");
        }
    }
}

#[test]
fn a_refusal_names_the_first_20_paths_and_counts_them_all() {
    let policy = Policy { max_delete: Cap::Count(0), ..Policy::default() };
    for count in [1, 19, 20, 21, 500] {
        let refusal =
            judge(&with_causes(Guard::MaxDelete, so_many(count), unchanged(1000)), &policy).expect_err("over");
        let paths: Vec<_> = refusal.paths.iter().map(ToString::to_string).collect();
        let first: Vec<_> = (0..count.min(20)).map(|number| format!("{number:06}")).collect();
        assert_eq!((paths, refusal.actual), (first, Some(count)));
    }
}

#[test]
fn an_empty_source_follows_an_empty_snapshot_or_a_word() {
    let empty = |parent_entries, files| Findings {
        entries: 0,
        parent_entries,
        parent_files: files,
        removed: so_many(files),
        ..unchanged(0)
    };
    let generous = Policy { max_delete: Cap::Percent(100), ..Policy::default() };
    let strictest = Policy { max_delete: Cap::Count(0), ..Policy::default() };
    // No cap is large enough for it, and a tree of nothing but directories counts too.
    for (entries, files) in [(100, 100), (1, 1), (1, 0)] {
        assert_eq!(refused(&empty(entries, files), &generous), Some(Guard::Empty), "{entries} {files}");
        // Said once, it is enough: the cap on deletions is not asked again.
        let meant = Policy { allow_empty: true, ..strictest.clone() };
        assert_eq!(refused(&empty(entries, files), &meant), None, "{entries} {files}");
    }
    assert_eq!(refused(&empty(0, 0), &strictest), None);
    assert_eq!(refused(&Findings { parent: None, ..empty(0, 0) }, &strictest), None, "the first snapshot of a branch");
    // The word is for nothing at all, not for nearly nothing.
    let nearly = Findings { entries: 1, ..empty(100, 100) };
    assert_eq!(refused(&nearly, &Policy { allow_empty: true, ..Policy::default() }), Some(Guard::MaxDelete));
}

#[test]
fn an_override_of_an_emptied_source_is_one_decision_too() {
    let emptied = Findings { entries: 0, removed: so_many(100), ..unchanged(100) };
    let refusal = judge(&emptied, &Policy::default()).expect_err("empty");
    assert_eq!(refusal.guard, Guard::Empty);
    // It used to be refused again by the cap on deletions, whose own override was then refused by this guard.
    assert_eq!(refused(&emptied, &Policy { override_plan: refusal.plan, ..Policy::default() }), None);
    let nearly = Findings { entries: 1, ..emptied };
    let policy = Policy { override_plan: refusal.plan, ..Policy::default() };
    assert_eq!(refused(&nearly, &policy), Some(Guard::MaxDelete));
}

#[test]
fn what_cannot_be_read_is_refused_only_when_the_policy_is_strict() {
    let findings = with_causes(Guard::Unreadable, so_many(100), unchanged(100));
    let lenient = Policy { max_delete: Cap::Count(0), max_change: Some(Cap::Count(0)), ..Policy::default() };
    assert_eq!(refused(&findings, &lenient), None, "neither removed nor changed");
    let strict = Policy { strict: true, ..lenient };
    let refusal = judge(&findings, &strict).expect_err("strict");
    assert_eq!((refusal.guard, refusal.actual, refusal.limit), (Guard::Unreadable, Some(100), None));
    assert_eq!(refused(&unchanged(100), &strict), None);
}

#[test]
fn of_several_guards_the_first_one_speaks() {
    let policy =
        Policy { max_delete: Cap::Count(0), max_change: Some(Cap::Count(0)), strict: true, ..Policy::default() };
    let order = [Guard::Empty, Guard::MaxDelete, Guard::Excluded, Guard::MaxChange, Guard::Unreadable];
    for (at, first) in order.into_iter().enumerate() {
        let all = order.into_iter().skip(at).rev();
        let findings = all.fold(unchanged(20), |findings, guard| with_causes(guard, so_many(5), findings));
        assert_eq!(refused(&findings, &policy), Some(first));
        // One override passes one of them; the next one still speaks.
        let plan = judge(&findings, &policy).expect_err("refused").plan;
        let overridden = Policy { override_plan: plan, ..policy.clone() };
        let next = if first == Guard::Empty { Some(Guard::Excluded) } else { order.get(at + 1).copied() };
        assert_eq!(refused(&findings, &overridden), next);
    }
}

#[test]
fn only_what_findings_were_judged_by_is_ever_kept_in_quarantine() {
    for guard in GUARDS {
        let may_be_kept = match guard {
            Guard::Empty | Guard::MaxDelete | Guard::MaxChange | Guard::Excluded | Guard::Unreadable => true,
            Guard::Receipt | Guard::Source | Guard::Destination | Guard::Init | Guard::Probe | Guard::Exclusive => {
                false
            }
        };
        let approved = Refusal::plain(guard, "a reason").quarantine();
        assert_eq!(approved.is_some(), may_be_kept, "{guard:?}");
        assert!(approved.is_none_or(|approved| approved.is_for_quarantine()), "{guard:?}");
    }
}

#[test]
fn paths_that_run_into_one_another_are_other_plans() {
    let sets: [&[&str]; 4] = [&["a", "b"], &["ab"], &["a/b"], &["a", "a/b"]];
    let plans = HashSet::from(sets.map(|names| named(names).plan(Guard::MaxDelete, None)));
    assert_eq!(plans.len(), sets.len());
}

#[test]
fn plan_ids_and_caps_read_as_they_are_printed() {
    let plan = so_many(3).plan(Guard::MaxDelete, None);
    assert_eq!(plan.to_string().parse::<PlanId>().expect("a plan id"), plan);
    for wrong in ["", "12", "+123456789abcdef", "0123456789abcdefg", "0123456789abcde "] {
        assert!(wrong.parse::<PlanId>().is_err(), "{wrong:?}");
    }
    for cap in [Cap::Count(0), Cap::Count(u64::MAX), Cap::Percent(0), Cap::Percent(100)] {
        assert_eq!(cap.to_string().parse::<Cap>().expect("a cap"), cap);
    }
    for wrong in ["", "%", "101%", "-1", "1.5%", "50 %", "many"] {
        assert!(wrong.parse::<Cap>().is_err(), "{wrong:?}");
    }
}

/// The most that so many percent of a number are, by long division: nothing here exceeds 64 bits.
fn percent_of(percent: u32, number: u64) -> u64 {
    let percent = u64::from(percent);
    number / 100 * percent + number % 100 * percent / 100
}

fn caps() -> impl Strategy<Value = Cap> {
    prop_oneof![(0..12_u64).prop_map(Cap::Count), (0..=100_u32).prop_map(Cap::Percent)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn percentages_are_exact(percent in 0..=100_u32, parent in prop_oneof![0..12_u64, 0..5000_u64, any::<u64>()]) {
        let most = percent_of(percent, parent).max(u64::from(parent < 10));
        let cap = Cap::Percent(percent);
        prop_assert!(cap.allows(most, parent) && cap.allows(0, parent));
        if let Some(over) = most.checked_add(1) {
            prop_assert!(!cap.allows(over, parent) && !cap.allows(u64::MAX, parent));
        }
    }

    #[test]
    fn the_first_guard_that_does_not_hold_refuses_and_what_passes_kept_to_the_policy(
        counts in [0..14_u64, 0..14, 0..14, 0..3],
        (entries, parent_entries, parent_files) in (0..3_u64, 0..25_u64, 0..25_u64),
        (max_delete, max_change) in (caps(), option::of(caps())),
        (allow_empty, strict) in any::<(bool, bool)>(),
    ) {
        let [removed, excluded, changed, unreadable] = counts;
        let findings = Findings {
            entries,
            parent_entries,
            parent_files,
            removed: so_many(removed),
            excluded: so_many(excluded),
            changed: so_many(changed),
            unreadable: so_many(unreadable),
            ..unchanged(0)
        };
        let policy = Policy { max_delete, max_change, allow_empty, strict, override_plan: None };
        let over = |cap: Cap, count: u64| match cap {
            Cap::Count(most) => count > most,
            Cap::Percent(percent) => count > percent_of(percent, parent_files).max(u64::from(parent_files < 10)),
        };
        let expected = if entries == 0 && parent_entries > 0 && !allow_empty {
            Some(Guard::Empty)
        } else if over(max_delete, removed) && !(entries == 0 && allow_empty) {
            Some(Guard::MaxDelete)
        } else if over(max_delete, excluded) {
            Some(Guard::Excluded)
        } else if max_change.is_some_and(|cap| over(cap, changed)) {
            Some(Guard::MaxChange)
        } else {
            (strict && unreadable > 0).then_some(Guard::Unreadable)
        };
        prop_assert_eq!(refused(&findings, &policy), expected);
    }

    #[test]
    fn an_override_is_bound_to_one_parent_one_guard_and_one_set_of_paths(
        plans in [refused_plans(), refused_plans()],
        additions in 0..1000_u64,
    ) {
        let policy =
            Policy { max_delete: Cap::Count(0), max_change: Some(Cap::Count(0)), strict: true, ..Policy::default() };
        let [one, other] = plans.each_ref().map(|(parent, guard, names)| {
            let findings = Findings { parent: parent.map(|byte| SnapshotId::from_bytes([byte; 32])), ..unchanged(20) };
            with_causes(*guard, named(names), findings)
        });
        let plan = judge(&one, &policy).expect_err("refused").plan;
        prop_assert!(plan.is_some());
        let overridden = Policy { override_plan: plan, ..policy };
        prop_assert_eq!(judge(&other, &overridden).is_ok(), plans[0] == plans[1]);
        // Something in an empty source would be another plan.
        let more = if one.entries == 0 { 0 } else { additions };
        let with_additions = Findings { entries: one.entries + more, ..one };
        prop_assert!(judge(&with_additions, &overridden).is_ok());
    }
}

/// Parents, guards and causes that often come again; the names are those that a careless hash would confuse.
fn refused_plans() -> impl Strategy<Value = (Option<u8>, Guard, BTreeSet<String>)> {
    let guards = [Guard::Empty, Guard::MaxDelete, Guard::Excluded, Guard::MaxChange, Guard::Unreadable];
    let names = ["a", "a/b", "ab", "b"].map(str::to_owned).to_vec();
    (option::of(1..3_u8), select(guards.to_vec()), btree_set(select(names), 1..3))
}
