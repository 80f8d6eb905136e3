//! Every store call of a backup and of a restore, failing in every way: what is told is the truth, earlier snapshots
//! always restore, and a second run completes.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ghostsync_core::ErrorKind;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, backup};
use ghostsync_core::history::judge::Overtaken;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{OpenOptions, Repository, Selector, hold, tag};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use ghostsync_core::testing::tree::{differences, noise};
use object_store::memory::InMemory;

use crate::restoring::{back_up, create, quick_folder};

const FAULTS: [Fault; 11] = [
    Fault::Before(Failure::Server),
    Fault::Before(Failure::Timeout),
    Fault::Before(Failure::Exists),
    Fault::Before(Failure::NotFound),
    Fault::Before(Failure::Denied),
    Fault::After(Failure::Server),
    Fault::After(Failure::Timeout),
    Fault::After(Failure::Exists),
    Fault::Truncated,
    Fault::FlippedBit,
    Fault::ShortList,
];

/// Lengths differ from seed to seed: files written in one tick of the clock have one mtime, and without a cache equal
/// lengths would then pass for unchanged.
fn fill(folder: &Path, seed: u64) {
    fs::create_dir_all(folder.join("d")).expect("a folder");
    let more = usize::try_from(seed).expect("small");
    for file in 0..30 {
        fs::write(folder.join(format!("d/{file}")), noise(seed * 100 + file, 300 + more)).expect("a file");
    }
    fs::write(folder.join("large"), noise(seed, (2 << 20) + more)).expect("a file");
}

fn settling(store: FaultStore) -> Store {
    Store::new(Arc::new(store), "memory").with_settle_time(Duration::from_millis(300))
}

async fn run(repository: &Repository, source: &Path) -> ghostsync_core::Result<BackupReport> {
    backup(repository, source, BackupOptions::default(), Arc::new(NoObserver)).await
}

async fn sound(store: &Arc<InMemory>) -> Repository {
    Repository::open(Store::new(store.clone(), "memory"), OpenOptions::default()).await.expect("a repository")
}

async fn assert_restores(repository: &Repository, snapshot: &str, source: &Path, case: &str) {
    let folder = quick_folder();
    let options = RestoreOptions { snapshot: Selector::Id(snapshot.to_owned()), ..RestoreOptions::default() };
    let back = folder.path().join("back");
    let report = restore(repository, &back, options, Arc::new(NoObserver)).await;
    let report = report.unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(report.problems.is_empty(), "{case}: {report:?}");
    let differences = differences(source, &back);
    assert!(differences.is_empty(), "{case}: {differences:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_a_backup_may_fail_in_each_way() {
    let folder = quick_folder();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    fill(&old, 1);
    fill(&new, 2);
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    for fault in FAULTS {
        for call in 0.. {
            let case = format!("{fault:?} at call {call}");
            let store = Arc::new(InMemory::new());
            let first = back_up(&create(store.clone()).await, &old).await.to_string();
            let faulty = FaultStore::at(store.clone(), call, fault);
            let ran = match Repository::open(settling(faulty.clone()), OpenOptions::default()).await {
                Err(error) => Err(error),
                Ok(repository) => run(&repository, &new).await,
            };
            let repository = sound(&store).await;
            let state = repository.state().await.unwrap_or_else(|error| panic!("{case}: {error}"));
            let snapshots = state.commit.snapshots.len();
            match &ran {
                Ok(report) => {
                    assert_eq!((report.outcome, snapshots), (BackupOutcome::Done, 2), "{case}");
                    assert_restores(&repository, &report.snapshot.expect("one").to_string(), &new, &case).await;
                }
                Err(error) if error.kind() == ErrorKind::Unknown => {}
                Err(error) => assert_eq!(snapshots, 1, "{case}: told {error}, but it is in the log"),
            }
            let outcome = ran.as_ref().map_or_else(|error| error.kind().name(), |_| "done");
            *outcomes.entry(outcome.to_owned()).or_default() += 1;
            assert_restores(&repository, &first, &old, &case).await;
            let again = run(&repository, &new).await.unwrap_or_else(|error| panic!("{case}: again: {error}"));
            assert_restores(&repository, &again.snapshot.expect("one").to_string(), &new, &case).await;
            if faulty.calls() <= call {
                break;
            }
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes["done"] > 0 && outcomes.len() > 2, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_a_restore_may_fail_in_each_way() {
    let folder = quick_folder();
    let source = folder.path().join("source");
    fill(&source, 3);
    let store = Arc::new(InMemory::new());
    back_up(&create(store.clone()).await, &source).await;
    for fault in FAULTS {
        for call in 0.. {
            let case = format!("{fault:?} at call {call}");
            let (back, receipt) = (folder.path().join("back"), folder.path().join("receipt"));
            drop(fs::remove_dir_all(&back));
            drop(fs::remove_file(&receipt));
            let faulty = FaultStore::at(store.clone(), call, fault);
            let options = RestoreOptions {
                receipt: Some(receipt.clone()),
                overwrite: Some(ghostsync_core::restore::Overwrite::Changed),
                ..RestoreOptions::default()
            };
            let ran = match Repository::open(settling(faulty.clone()), OpenOptions::default()).await {
                Err(error) => Err(error),
                Ok(repository) => restore(&repository, &back, options.clone(), Arc::new(NoObserver)).await,
            };
            assert_eq!(ran.is_ok(), receipt.exists(), "{case}: a receipt exactly when it was complete");
            if ran.is_ok() {
                let differences = differences(&source, &back);
                assert!(differences.is_empty(), "{case}: {differences:#?}");
            }
            let again = restore(&sound(&store).await, &back, options, Arc::new(NoObserver)).await;
            assert!(again.is_ok_and(|report| report.problems.is_empty()), "{case}");
            let differences = differences(&source, &back);
            assert!(differences.is_empty() && receipt.exists(), "{case}: {differences:#?}");
            if faulty.calls() <= call {
                break;
            }
        }
    }
}

/// A store on which somebody else commits right before each of the first so many commits that go through it.
fn raced(store: &Arc<InMemory>, source: &Path, races: usize) -> FaultStore {
    let (others, source) = (Arc::clone(store), source.to_path_buf());
    let count = Arc::new(AtomicUsize::new(0));
    FaultStore::new(store.clone(), move |call| {
        if call.operation == Operation::Create && call.key.as_ref().starts_with("log/") {
            let number = count.fetch_add(1, Ordering::SeqCst);
            if number < races {
                fs::write(source.join("racer"), number.to_string()).expect("a file");
                let (store, source) = (Arc::clone(&others), source.clone());
                let other = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(async { run(&sound(&store).await, &source).await.map(|report| report.outcome) })
                });
                assert_eq!(other.join().expect("ends").expect("a backup"), BackupOutcome::Done);
            }
        }
        None
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loser_of_a_race_compares_again_and_keeps_what_it_has_on_a_fork_after_three_times() {
    for races in 0..6 {
        let folder = quick_folder();
        let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
        fill(&ours, 1);
        fill(&theirs, 1);
        let store = Arc::new(InMemory::new());
        back_up(&create(store.clone()).await, &ours).await;
        fs::write(ours.join("mine"), "mine").expect("a file");
        let racing = settling(raced(&store, &theirs, races));
        let repository = Repository::open(racing, OpenOptions::default()).await.expect("a repository");
        let ran = run(&repository, &ours).await;
        let state = sound(&store).await.state().await.expect("a state");
        let others = state.commit.snapshots.len() - 1;
        if races <= 3 {
            let report = ran.unwrap_or_else(|error| panic!("{races} races: {error}"));
            assert_eq!((report.outcome, others), (BackupOutcome::Done, races + 1));
            // Compared with the head that it follows: what the others had and it has not counts as removed.
            assert_eq!(report.changes.removed, u64::from(races > 0), "{races} races: {report:?}");
            assert_restores(&sound(&store).await, &report.snapshot.expect("one").to_string(), &ours, "the winner")
                .await;
        } else {
            let report = ran.unwrap_or_else(|error| panic!("{races} races: {error}"));
            assert_eq!((report.outcome, report.overtaken), (BackupOutcome::Forked, Some(Overtaken::Outrun)));
            assert!(report.branch.starts_with("fork/main/") && others == races + 1, "{races} races: {report:?}");
            assert_restores(&sound(&store).await, &report.snapshot.expect("one").to_string(), &ours, "the fork").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_judges_again_against_the_head_that_won() {
    let folder = quick_folder();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    fill(&ours, 1);
    fill(&theirs, 1);
    for file in 0..100 {
        fs::write(theirs.join(format!("more{file}")), noise(file, 50)).expect("a file");
    }
    let store = Arc::new(InMemory::new());
    back_up(&create(store.clone()).await, &ours).await;
    fs::write(ours.join("mine"), "mine").expect("a file");
    let repository = Repository::open(settling(raced(&store, &theirs, 1)), OpenOptions::default()).await;
    let refused = run(&repository.expect("a repository"), &ours).await.expect_err("a refusal");
    assert_eq!(refused.refusal().map(|refusal| refusal.actual), Some(Some(101)), "{refused}");
    assert_eq!(sound(&store).await.state().await.expect("a state").commit.snapshots.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_set_while_others_commit_are_all_there() {
    let folder = quick_folder();
    fill(&folder.path().join("theirs"), 1);
    let store = Arc::new(InMemory::new());
    let id = back_up(&create(store.clone()).await, &folder.path().join("theirs")).await;
    let racing = settling(raced(&store, &folder.path().join("theirs"), 3));
    let repository = Repository::open(racing, OpenOptions::default()).await.expect("a repository");
    tag(&repository, id, &[("a".into(), "1".into())], &[], "test").await.expect("tagged");
    hold(&repository, id, Some("because"), "test").await.expect("held");
    let state = sound(&store).await.state().await.expect("a state");
    let snapshot = state.commit.snapshot(id).expect("retained");
    assert_eq!((snapshot.tags["a"].as_str(), snapshot.hold.as_deref()), ("1", Some("because")));
    assert_eq!(state.commit.snapshots.len(), 4);
}

/// A directory with a receipt went to a fork from itself when the commit of its own earlier run, whose answer had been
/// lost, landed after the next run had read the head.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_this_very_directory_that_lands_late_is_followed_and_not_forked_from() {
    let folder = quick_folder();
    let (first, source, receipt) =
        (folder.path().join("first"), folder.path().join("source"), folder.path().join("receipt"));
    fill(&first, 1);
    let store = Arc::new(InMemory::new());
    back_up(&create(store.clone()).await, &first).await;
    let with_receipt = RestoreOptions { receipt: Some(receipt.clone()), ..RestoreOptions::default() };
    let restored = restore(&sound(&store).await, &source, with_receipt, Arc::new(NoObserver)).await;
    assert!(restored.expect("restored").problems.is_empty());

    let options = BackupOptions { receipt: Some(receipt), ..BackupOptions::default() };
    let is_commit =
        |operation, key: &object_store::path::Path| operation == Operation::Create && key.as_ref().starts_with("log/");
    let late = FaultStore::new(store.clone(), move |call| is_commit(call.operation, &call.key).then_some(Fault::Late));
    fs::write(source.join("one"), "1").expect("a file");
    let repository = Repository::open(settling(late.clone()), OpenOptions::default()).await.expect("a repository");
    let ran = backup(&repository, &source, options.clone(), Arc::new(NoObserver)).await;
    assert_eq!(ran.expect_err("no answer").kind(), ErrorKind::Unknown);

    fs::write(source.join("two"), "2").expect("a file");
    let landing = FaultStore::new(store.clone(), move |call| {
        if is_commit(call.operation, &call.key) {
            futures::executor::block_on(late.land());
        }
        None
    });
    let repository = Repository::open(settling(landing), OpenOptions::default()).await.expect("a repository");
    let report = backup(&repository, &source, options, Arc::new(NoObserver)).await.expect("a backup");
    assert_eq!((report.outcome, report.branch.as_str(), report.changes.added), (BackupOutcome::Done, "main", 1));
    assert_eq!(sound(&store).await.state().await.expect("a state").commit.snapshots.len(), 3);
    assert_restores(&sound(&store).await, &report.snapshot.expect("one").to_string(), &source, "the second").await;
}
