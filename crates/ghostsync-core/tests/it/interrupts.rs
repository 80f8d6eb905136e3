//! The wish to stop is heard at once, also by those who wait for a store that never answers.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ghostsync_core::backup::{BackupOptions, backup};
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{OpenOptions, Repository};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Call, Fault, FaultStore, Operation};
use ghostsync_core::testing::tree::noise;
use ghostsync_core::{ErrorKind, Result};
use object_store::memory::InMemory;

use crate::restoring::{back_up, create};

/// Far more than anything here takes that does not hang.
const LIMIT: Duration = Duration::from_secs(20);

/// Runs a story on a store that does not answer one call, and sets the wish to stop when it hangs there.
async fn interrupted_at<T, F: Future<Output = Result<T>>>(
    objects: &Arc<InMemory>,
    hangs: impl Fn(&Call) -> bool + Send + Sync + 'static,
    story: impl FnOnce(Repository, Interrupt) -> F,
) -> Result<T> {
    let interrupt = Interrupt::default();
    let wish = interrupt.clone();
    let store = FaultStore::new(objects.clone(), move |call| {
        hangs(call).then(|| {
            wish.set();
            Fault::Never
        })
    });
    let open = Repository::open(Store::new(Arc::new(store), "memory"), OpenOptions::default());
    let repository = interrupt.unless_set(open).await?;
    tokio::time::timeout(LIMIT, story(repository, interrupt)).await.expect("it hangs")
}

/// Hangs at each call of a story in turn; returns at how many.
async fn interrupt_everywhere<T, F: Future<Output = Result<T>>>(
    objects: &Arc<InMemory>,
    story: impl Fn(Repository, Interrupt) -> F,
) -> usize {
    for number in 0.. {
        // A commit is waited for: its outcome is to be known.
        let hangs = move |call: &Call| call.number == number && !is_commit(call);
        match interrupted_at(objects, hangs, &story).await {
            Ok(_) => return number,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "call {number}: {error}"),
        }
    }
    unreachable!("a story has an end")
}

fn is_commit(call: &Call) -> bool {
    call.operation == Operation::Create
}

fn make_source(folder: &Path) {
    for number in 0..40 {
        fs::write(folder.join(format!("{number:02}")), noise(number, 1 << 20)).expect("a file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_waits_for_any_answer_stops_and_publishes_nothing() {
    let objects = Arc::new(InMemory::new());
    let repository = create(objects.clone()).await;
    let source = tempfile::tempdir().expect("a folder");
    make_source(source.path());
    let story = async |repository: Repository, interrupt: Interrupt| {
        let options = BackupOptions { interrupt, ..BackupOptions::default() };
        let report = backup(&repository, source.path(), options, Arc::new(NoObserver)).await;
        if report.is_err() {
            assert_eq!(newest_commit(&objects).await, 0, "nothing was published");
        }
        report
    };
    let calls = interrupt_everywhere(&objects, story).await;
    assert!(calls >= 5, "configuration, head, packs: {calls}");
    assert_eq!(repository.state().await.expect("a state").commit.seq, 1);
}

async fn newest_commit(objects: &Arc<InMemory>) -> u64 {
    let store = Store::new(objects.clone(), "memory");
    let repository = Repository::open(store, OpenOptions::default()).await.expect("a repository");
    repository.state().await.expect("a state").commit.seq
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_that_gets_no_answer_keeps_nobody_waiting_for_long() {
    let objects = Arc::new(InMemory::new());
    drop(create(objects.clone()).await);
    let source = tempfile::tempdir().expect("a folder");
    fs::write(source.path().join("a"), "a").expect("a file");
    let is_hint = |call: &Call| call.operation == Operation::Put && call.key.as_ref() == "head.json";
    let backed_up = interrupted_at(&objects, is_hint, async |repository, interrupt| {
        let options = BackupOptions { interrupt, ..BackupOptions::default() };
        backup(&repository, source.path(), options, Arc::new(NoObserver)).await
    });
    assert!(backed_up.await.expect("it is committed").snapshot.is_some());
    assert_eq!(newest_commit(&objects).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_waits_for_any_answer_stops_and_leaves_no_receipt() {
    let objects = Arc::new(InMemory::new());
    let repository = create(objects.clone()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("a folder");
    make_source(&source);
    back_up(&repository, &source).await;
    let receipt = folder.path().join("receipt");
    let story = async |repository: Repository, interrupt: Interrupt| {
        let destination = tempfile::tempdir_in(folder.path()).expect("a folder");
        let options = RestoreOptions { interrupt, receipt: Some(receipt.clone()), ..RestoreOptions::default() };
        let report = restore(&repository, destination.path(), options, Arc::new(NoObserver)).await;
        assert_eq!(receipt.exists(), report.is_ok());
        report
    };
    let calls = interrupt_everywhere(&objects, story).await;
    assert!(calls >= 6, "configuration, head, pages, three windows: {calls}");
}
