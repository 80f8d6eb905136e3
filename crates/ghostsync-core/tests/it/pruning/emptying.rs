//! Old commits are emptied: the chain holds, heads are found, and who asks about an emptied commit is told the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ghostsync_core::ErrorKind;
use ghostsync_core::format::commit::{EmptiedCommit, LogEntry, decode_log_entry};
use ghostsync_core::maintain::{CheckOptions, check};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{OpenOptions, Repository, tag};
use ghostsync_core::store::{Store, keys};
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use super::support::{History, open, pruned, stored_commit};

/// A repository with so many commits.
async fn with_commits(objects: Arc<dyn ObjectStore>, count: u64) -> History {
    let mut history = History::new(objects).await;
    let id = history.back_up("main").await.snapshot.expect("a snapshot");
    for number in 1..count {
        let tags = [("number".to_owned(), number.to_string())];
        tag(&history.repository, id, &tags, &[], "test").await.expect("tagged");
    }
    assert_eq!(history.state().await.commit.seq, count);
    history
}

async fn is_stub(objects: &Arc<dyn ObjectStore>, seq: u64) -> bool {
    let (bytes, _) = stored_commit(objects, seq).await;
    matches!(decode_log_entry(&bytes), Ok(LogEntry::Emptied(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_older_than_the_last_64_are_emptied_and_the_chain_holds() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let cache = tempfile::tempdir().expect("a folder");
    let history = with_commits(objects.clone(), 40).await;
    let cached = || async {
        let options = OpenOptions { cache_dir: Some(cache.path().to_owned()) };
        Repository::open(Store::new(objects.clone(), "cached"), options).await.expect("opens")
    };
    assert_eq!(cached().await.state().await.expect("a state").commit.seq, 40);
    let id = history.state().await.commit.snapshots[0].id;
    for number in 40..100 {
        let tags = [("number".to_owned(), number.to_string())];
        tag(&history.repository, id, &tags, &[], "test").await.expect("tagged");
    }
    let (_, then) = stored_commit(&objects, 36).await;
    let report = pruned(&history.repository).await;
    assert_eq!((report.commit, report.emptied_commits), (None, 36));
    assert!(report.emptied_bytes > 36 * 100, "{report:?}");
    assert!(is_stub(&objects, 36).await && !is_stub(&objects, 37).await);
    let (stub, _) = stored_commit(&objects, 36).await;
    match decode_log_entry(&stored_commit(&objects, 36).await.0) {
        Ok(LogEntry::Emptied(stub)) => assert_eq!((stub.seq, stub.hash), (36, then)),
        other => panic!("{other:?}: {stub:?}"),
    }
    history.assert_all_restore("emptied").await;
    assert_eq!(pruned(&history.repository).await.emptied_commits, 0, "once is enough");

    // The head is found whoever looks, from whatever was known last, and from a stale hint.
    assert_eq!(cached().await.state().await.expect("a state").commit.seq, 100);
    for hint in [None, Some(1), Some(36), Some(37), Some(99), Some(100), Some(7000)] {
        match hint {
            Some(seq) => drop(objects.put(&keys::head(), format!("{{\"seq\":{seq}}}").into()).await.expect("put")),
            None => objects.delete(&keys::head()).await.expect("deleted"),
        }
        let found = open(objects.clone()).await.state().await.expect("a state");
        assert_eq!(found.commit.seq, 100, "from the hint {hint:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_commit_that_was_left_whole_below_stubs_is_not_the_head() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let history = with_commits(objects.clone(), 80).await;
    let (whole, _) = stored_commit(&objects, 5).await;
    let _ = pruned(&history.repository).await;
    assert!(is_stub(&objects, 5).await && is_stub(&objects, 6).await);
    objects.put(&keys::commit(5), whole.into()).await.expect("put");
    objects.put(&keys::head(), "{\"seq\":5}".into()).await.expect("put");
    assert_eq!(open(objects.clone()).await.state().await.expect("a state").commit.seq, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_does_not_belong_there_is_not_emptied() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let history = with_commits(objects.clone(), 80).await;
    let (other, _) = stored_commit(&objects, 9).await;
    objects.put(&keys::commit(10), other.clone().into()).await.expect("put");
    let error = super::support::run(&history.repository, super::support::at_once()).await.expect_err("damage");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("00010.json.zst"), "{error}");
    assert!(stored_commit(&objects, 10).await.0 == other && !is_stub(&objects, 9).await);
    let report = check(&history.repository, CheckOptions::default(), &NoObserver).await.expect("a check");
    assert!(!report.damage.is_empty());
}

/// Leaves a stub in the place of a commit.
async fn empty(objects: &Arc<dyn ObjectStore>, key: &Key) {
    let bytes = objects.get(key).await.expect("there").bytes().await.expect("its bytes");
    let Ok(LogEntry::Commit(commit)) = decode_log_entry(&bytes) else { panic!("no commit") };
    let hash = ghostsync_core::id::CommitHash::of(&bytes);
    let stub = EmptiedCommit { seq: commit.seq, prev: commit.prev, session: commit.session, hash, emptied: true };
    objects.put(key, stub.encode().expect("encodes").into()).await.expect("put");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_commit_was_emptied_while_it_waited_learns_that_it_was_its_own() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let history = with_commits(objects.clone(), 3).await;
    let id = history.state().await.commit.snapshots[0].id;
    let slot = keys::commit(4);
    let (created, inner) = (AtomicBool::new(false), objects.clone());
    // The create arrives, its answer is lost, and before the writer asks others commit and prune.
    let faulty = FaultStore::new(objects.clone(), move |call| match call.operation {
        Operation::Create if call.key == slot => {
            created.store(true, Ordering::SeqCst);
            Some(Fault::After(Failure::Timeout))
        }
        Operation::Get if call.key == slot && created.swap(false, Ordering::SeqCst) => {
            futures::executor::block_on(empty(&inner, &call.key));
            None
        }
        _ => None,
    });
    let store = Store::new(Arc::new(faulty), "faulty").with_settle_time(Duration::from_millis(50));
    let repository = Repository::open(store, OpenOptions::default()).await.expect("opens");
    let committed = tag(&repository, id, &[("late".into(), "1".into())], &[], "test").await;
    assert_eq!(committed.expect("settled"), Some(4));
    assert!(is_stub(&objects, 4).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_base_was_emptied_meanwhile_lost_and_is_not_told_of_damage() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let history = with_commits(objects.clone(), 3).await;
    let id = history.state().await.commit.snapshots[0].id;
    let (done, inner) = (AtomicBool::new(false), objects.clone());
    let reads = std::sync::atomic::AtomicUsize::new(0);
    let faulty = FaultStore::new(objects.clone(), move |call| {
        // The second read of commit 3 is the one right before the create.
        let again = call.key == keys::commit(3) && reads.fetch_add(1, Ordering::SeqCst) == 1;
        if again && !done.swap(true, Ordering::SeqCst) {
            let inner = inner.clone();
            let others = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    let repository = open(inner.clone()).await;
                    for other in ["a", "b"] {
                        let tags = [(other.to_owned(), "1".to_owned())];
                        tag(&repository, id, &tags, &[], "other").await.expect("tagged");
                    }
                    empty(&inner, &keys::commit(3)).await;
                });
            });
            others.join().expect("ends");
        }
        None
    });
    let repository = open(Arc::new(faulty)).await;
    let committed = tag(&repository, id, &[("late".into(), "1".into())], &[], "test").await;
    assert_eq!(committed.expect("made again"), Some(6));
}
