//! `forget` on real repositories: what it commits, and what others do while it does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ghostsync_core::ErrorKind;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, OnRefusal, backup};
use ghostsync_core::clock::Clock;
use ghostsync_core::guard::{Cap, Policy};
use ghostsync_core::id::SnapshotId;
use ghostsync_core::maintain::{
    CheckOptions, ForgetOptions, KeepRules, Reason, Scope, Verdict, check, forget, plan_forget,
};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{OpenOptions, Repository, hold};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use jiff::{SignedDuration, Timestamp};
use object_store::memory::InMemory;
use serde_json::json;

use crate::restoring::{create, quick_folder};

/// Noon of a day, counted from 1 January 2026.
#[derive(Debug)]
struct Noon(i64);

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        let first: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        first + SignedDuration::from_hours(24 * self.0)
    }
}

async fn opened(store: &Arc<InMemory>) -> Repository {
    Repository::open(Store::new(store.clone(), "memory"), OpenOptions::default()).await.expect("a repository")
}

async fn run(repository: &Repository, source: &Path, day: i64) -> ghostsync_core::Result<BackupReport> {
    let policy = Policy { max_delete: Cap::Percent(100), ..Policy::default() };
    let options = BackupOptions { policy, force: true, clock: Arc::new(Noon(day)), ..BackupOptions::default() };
    backup(repository, source, options, Arc::new(NoObserver)).await
}

async fn back_up(repository: &Repository, source: &Path, day: i64) -> SnapshotId {
    fs::write(source.join("day"), day.to_string()).expect("written");
    run(repository, source, day).await.expect("a backup").snapshot.expect("a snapshot")
}

/// Keeps the newest two on this day, and protects nothing.
fn two(day: i64) -> ForgetOptions {
    ForgetOptions {
        keep: KeepRules { last: 2, ..KeepRules::default() },
        protect: Duration::ZERO,
        clock: Arc::new(Noon(day)),
        ..ForgetOptions::default()
    }
}

async fn retained(store: &Arc<InMemory>) -> BTreeSet<SnapshotId> {
    let state = opened(store).await.state().await.expect("a state");
    state.commit.snapshots.iter().map(|snapshot| snapshot.id).collect()
}

/// Does something in another process's stead, as it were: on a thread of its own, to its end.
fn elsewhere<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let other = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work());
    });
    other.join().expect("ends well");
}

/// A repository through a store on which, right before the first commit that goes through it, this is done.
async fn raced<F: Future<Output = ()>>(
    store: &Arc<InMemory>,
    others: impl FnOnce(Arc<InMemory>) -> F + Clone + Send + Sync + 'static,
) -> Repository {
    let (first, under) = (AtomicBool::new(true), Arc::clone(store));
    let racing = FaultStore::new(store.clone(), move |call| {
        let commits = call.operation == Operation::Create && call.key.as_ref().starts_with("log/");
        if commits && first.swap(false, Ordering::SeqCst) {
            let (others, under) = (others.clone(), Arc::clone(&under));
            elsewhere(move || others(under));
        }
        None
    });
    Repository::open(Store::new(Arc::new(racing), "memory"), OpenOptions::default()).await.expect("a repository")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_keeps_is_dropped_by_one_commit() {
    let folder = quick_folder();
    let store = Arc::new(InMemory::new());
    let repository = create(store.clone()).await;
    let mut made = Vec::new();
    for day in 0..5 {
        made.push(back_up(&repository, folder.path(), day).await);
    }
    let planned = plan_forget(&repository, &two(4)).await.expect("a plan");
    assert_eq!(retained(&store).await.len(), 5, "a plan drops nothing");
    let report = forget(&repository, &two(4)).await.expect("forgets");
    assert_eq!((&report.plan, report.commit), (&planned, Some(6)));
    assert_eq!(retained(&store).await, made[3..].iter().copied().collect());
    let state = repository.state().await.expect("a state");
    let mut dropped = made[..3].to_vec();
    dropped.sort();
    assert_eq!(state.commit.op, json!({"kind": "forget", "dropped": dropped}));
    let again = forget(&repository, &two(4)).await.expect("forgets");
    assert_eq!((again.commit, again.plan.dropped().count()), (None, 0));
    assert_eq!(repository.state().await.expect("a state").commit.seq, 6);
    let checked = check(&repository, CheckOptions::default(), &NoObserver).await.expect("checks");
    assert!(checked.damage.is_empty(), "{:?}", checked.damage);
    back_up(&repository, folder.path(), 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_lost_a_race_is_made_again_on_what_the_winner_left() {
    let folder = quick_folder();
    let source = folder.path().to_path_buf();
    let store = Arc::new(InMemory::new());
    let repository = create(store.clone()).await;
    let mut made = Vec::new();
    for day in 0..4 {
        made.push(back_up(&repository, &source, day).await);
    }
    let held = made[0];
    let racing = raced(&store, move |store| async move {
        let repository = opened(&store).await;
        hold(&repository, held, Some("audit"), "another").await.expect("held");
        back_up(&repository, &source, 4).await;
    })
    .await;
    let report = forget(&racing, &two(4)).await.expect("forgets");
    let newest = opened(&store).await.state().await.expect("a state").commit.head("main").expect("a head").id;
    // Alone, the first two would have gone and the third and fourth stayed.
    assert_eq!(retained(&store).await, BTreeSet::from([held, made[3], newest]));
    assert_eq!(report.commit, Some(7));
    let first = report.plan.snapshots.first().expect("one");
    assert_eq!(first.verdict, Verdict::Kept(vec![Reason::Held("audit".into())]));
    let dropped: BTreeSet<_> = report.plan.dropped().map(|snapshot| snapshot.id).collect();
    assert_eq!(dropped, BTreeSet::from([made[1], made[2]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_running_backup_builds_on_is_protected_and_without_that_the_backup_begins_anew() {
    for protected in [true, false] {
        let folder = quick_folder();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        fs::create_dir(&ours).and_then(|()| fs::create_dir(&theirs)).expect("folders");
        let store = Arc::new(InMemory::new());
        let parent = back_up(&create(store.clone()).await, &ours, 0).await;
        let racing = raced(&store, move |store| async move {
            let repository = opened(&store).await;
            for _ in 0..3 {
                back_up(&repository, &theirs, 0).await;
            }
            let protect = Duration::from_secs(if protected { 24 * 3600 } else { 0 });
            forget(&repository, &ForgetOptions { protect, ..two(0) }).await.expect("forgets");
        })
        .await;
        fs::write(ours.join("mine"), "mine").expect("written");
        let ran = run(&racing, &ours, 0).await;
        assert_eq!(retained(&store).await.contains(&parent), protected);
        let report = ran.expect("a backup");
        assert_eq!(report.outcome, BackupOutcome::Done);
        let begin = opened(&store).await.state().await.expect("a state").commit.head("main").expect("a head").tree.pack;
        // Nothing of the forgotten parent is referred to: a prune may have deleted it.
        assert_eq!(begin.begin > 1, !protected, "{begin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_tree_goes_with_its_branch_when_the_branch_it_was_meant_for_has_gone_on() {
    let folder = quick_folder();
    let store = Arc::new(InMemory::new());
    let repository = create(store.clone()).await;
    for number in 0..20 {
        fs::write(folder.path().join(number.to_string()), "x").expect("written");
    }
    back_up(&repository, folder.path(), 0).await;
    for number in 0..19 {
        fs::remove_file(folder.path().join(number.to_string())).expect("removed");
    }
    let options =
        BackupOptions { on_refusal: OnRefusal::Quarantine, clock: Arc::new(Noon(1)), ..BackupOptions::default() };
    let refused = backup(&repository, folder.path(), options, Arc::new(NoObserver)).await.expect("quarantined");
    assert_eq!(refused.outcome, BackupOutcome::Quarantined);
    let all = |day| ForgetOptions { scope: Scope::All, ..two(day) };
    for day in [30, 31] {
        back_up(&repository, folder.path(), day).await;
        let usual = forget(&repository, &two(day)).await.expect("forgets");
        assert!(usual.plan.branches.is_empty(), "quarantine is not of the usual branches");
        let report = forget(&repository, &all(day)).await.expect("forgets");
        let ended = if day == 31 { vec![refused.branch.clone()] } else { Vec::new() };
        assert_eq!(report.plan.branches, ended, "day {day}");
    }
    let state = repository.state().await.expect("a state");
    assert_eq!(state.commit.branches.keys().collect::<Vec<_>>(), ["main"]);
    assert_eq!(state.commit.snapshots.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_may_fail_and_what_is_told_is_the_truth() {
    let folder = quick_folder();
    let faults = [
        Fault::Before(Failure::Server),
        Fault::Before(Failure::Exists),
        Fault::Before(Failure::Denied),
        Fault::After(Failure::Timeout),
        Fault::After(Failure::Exists),
        Fault::FlippedBit,
    ];
    let mut told = BTreeSet::new();
    for fault in faults {
        for call in 0.. {
            let case = format!("{fault:?} at call {call}");
            let store = Arc::new(InMemory::new());
            let repository = create(store.clone()).await;
            for day in 0..3 {
                back_up(&repository, folder.path(), day).await;
            }
            let faulty = FaultStore::at(store.clone(), call, fault);
            let settling = Store::new(Arc::new(faulty.clone()), "memory").with_settle_time(Duration::from_millis(300));
            let ran = match Repository::open(settling, OpenOptions::default()).await {
                Err(error) => Err(error),
                Ok(repository) => forget(&repository, &two(2)).await,
            };
            let left = retained(&store).await.len();
            match &ran {
                Ok(report) => assert_eq!((left, report.commit), (2, Some(4)), "{case}"),
                Err(error) if error.kind() == ErrorKind::Unknown => {}
                Err(error) => assert_eq!(left, 3, "{case}: told {error}, but it is in the log"),
            }
            told.insert(ran.map_or_else(|error| error.kind().name(), |_| "done"));
            forget(&opened(&store).await, &two(2)).await.unwrap_or_else(|error| panic!("{case}: again: {error}"));
            assert_eq!(retained(&store).await.len(), 2, "{case}");
            if faulty.calls() <= call {
                break;
            }
        }
    }
    assert!(told.contains("done") && told.len() > 2, "{told:?}");
}
