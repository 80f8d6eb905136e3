//! Tables and properties of the judgement itself; `tests/it/guards.rs` tries the guards end to end.

use super::*;

fn named<'a>(names: impl IntoIterator<Item = &'a String>) -> Causes {
    let mut causes = Causes::default();
    names.into_iter().for_each(|name| causes.push(&TreePath::parse(name.as_bytes()).expect("a path")));
    causes
}

fn so_many(count: u64) -> Causes {
    named(&(0..count).map(|number| format!("{number:06}")).collect::<Vec<_>>())
}

/// What is found when nothing differs from a parent of so many files.
fn unchanged(files: u64) -> Findings {
    let parent = Some(SnapshotId::from_bytes([1; 32]));
    Findings { parent, parent_entries: files, parent_files: files, entries: files, ..Findings::default() }
}

fn refused(findings: &Findings, policy: &Policy) -> Option<Guard> {
    judge(findings, policy).err().map(|refusal| refusal.guard)
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
