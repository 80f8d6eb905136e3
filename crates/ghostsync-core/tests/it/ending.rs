//! The end of a writer that may be stopped at any moment: what is small goes first, and the branch is given back with
//! the last commit.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ghostsync_core::ErrorKind;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, backup};
use ghostsync_core::clock::{Clock, SystemClock};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::receipt::{DirectoryMark, Receipt};
use ghostsync_core::repository::{OpenOptions, Repository, State, claim, reclaim, release};
use ghostsync_core::restore::{Overwrite, RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Call, Failure, Fault, FaultStore};
use ghostsync_core::testing::recording::{Operation, RecordingStore};
use ghostsync_core::testing::tree::{differences, noise};
use jiff::{SignedDuration, Timestamp};
use object_store::memory::InMemory;
use serde_json::json;

use crate::restoring::{create, quick_folder};

const SMALL_BYTES: u64 = 1000;

/// A directory whose branch belongs to `pod`.
struct Bench {
    objects: Arc<RecordingStore>,
    repository: Repository,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let objects = Arc::new(RecordingStore::new(Arc::new(InMemory::new())));
        let folder = quick_folder();
        create(objects.clone()).await;
        let store = Store::new(objects.clone(), "recorded");
        let cache_dir = Some(folder.path().join("cache"));
        let repository = Repository::open(store, OpenOptions { cache_dir }).await.expect("a repository");
        let bench = Self { objects, repository, folder };
        claim(&bench.repository, "main", "pod", "test").await.expect("a claim");
        for file in 0..12 {
            bench.write(&format!("{file:02}"), &noise(file, 300));
        }
        bench.write("large", &noise(50, 5000));
        assert_eq!(bench.back_up(BackupOptions::default()).await.outcome, BackupOutcome::Done);
        bench
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::create_dir_all(self.source()).expect("a folder");
        fs::write(self.source().join(name), content).expect("written");
    }

    async fn back_up(&self, options: BackupOptions) -> BackupReport {
        let options = BackupOptions { owner: Some("pod".into()), exclusive: true, ..options };
        backup(&self.repository, &self.source(), options, Arc::new(NoObserver)).await.expect("a backup")
    }

    async fn state(&self) -> State {
        self.repository.state().await.expect("a state")
    }

    async fn is_released(&self) -> bool {
        self.state().await.commit.branches["main"].holder.as_ref().expect("a holder").released
    }

    async fn restored(&self) -> PathBuf {
        let back = self.folder.path().join("back");
        drop(fs::remove_dir_all(&back));
        let restored = restore(&self.repository, &back, RestoreOptions::default(), Arc::new(NoObserver)).await;
        assert!(restored.expect("a restore").problems.is_empty());
        back
    }
}

/// An hour on, so that nothing counts as written this instant.
#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn now(&self) -> Timestamp {
        SystemClock.now() + SignedDuration::from_hours(1)
    }
}

fn first_step() -> BackupOptions {
    BackupOptions { defer_over: Some(SMALL_BYTES), release: true, ..BackupOptions::default() }
}

fn last_step() -> BackupOptions {
    BackupOptions { release: true, note: Some(json!({"cause": "SIGTERM"})), ..BackupOptions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_step_holds_what_is_small_and_the_last_one_everything() {
    let bench = Bench::new().await;
    let before = noise(50, 5000);
    bench.write("03", b"a small change");
    bench.write("added", b"small");
    bench.write("added large", &noise(60, 6000));
    bench.write("large", &noise(61, 7000));
    let step = bench.back_up(first_step()).await;
    assert_eq!((step.outcome, step.is_complete()), (BackupOutcome::Done, false), "{step:?}");
    let back = bench.restored().await;
    assert_eq!(fs::read(back.join("03")).expect("a file"), b"a small change");
    assert_eq!(fs::read(back.join("added")).expect("a file"), b"small");
    assert_eq!(fs::read(back.join("large")).expect("a file"), before, "the parent's version");
    assert!(!back.join("added large").exists());
    assert!(!bench.is_released().await, "there is more to come");

    let last = bench.back_up(last_step()).await;
    assert_eq!((last.outcome, last.is_complete(), last.changes.changed), (BackupOutcome::Done, true, 1));
    assert_eq!(differences(&bench.source(), &bench.restored().await), Vec::<String>::new());
    assert!(bench.is_released().await);
    assert_eq!(bench.state().await.commit.op["note"]["cause"], "SIGTERM");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_step_that_leaves_nothing_out_is_the_last() {
    let bench = Bench::new().await;
    bench.write("03", b"a small change");
    // What was written this instant is read once more, and would be left out for that.
    fs::remove_file(bench.source().join("large")).expect("removed");
    let step = bench.back_up(first_step()).await;
    assert_eq!((step.outcome, step.is_complete()), (BackupOutcome::Done, true));
    assert!(bench.is_released().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_first_step_left_out_is_not_taken_for_known() {
    let bench = Bench::new().await;
    let later = || BackupOptions { clock: Arc::new(Later), ..BackupOptions::default() };
    assert_eq!(bench.back_up(later()).await.outcome, BackupOutcome::Unchanged, "every file is known from now on");
    bench.write("large", &noise(61, 7000));
    let seq = bench.state().await.commit.seq;
    let step = bench.back_up(BackupOptions { clock: Arc::new(Later), ..first_step() }).await;
    assert_eq!((step.outcome, step.is_complete()), (BackupOutcome::Unchanged, false), "{step:?}");
    assert_eq!((bench.state().await.commit.seq, bench.is_released().await), (seq, false));
    let last = bench.back_up(last_step()).await;
    assert_eq!((last.outcome, last.changes.changed), (BackupOutcome::Done, 1));
    assert_eq!(differences(&bench.source(), &bench.restored().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_backup_has_uploaded_of_large_files_outlasts_a_first_step() {
    let bench = Bench::new().await;
    bench.write("large", &noise(61, 70_000));
    // Interrupted between the last data pack and the pages.
    let plan = |call: &Call| call.key.as_ref().ends_with(".meta").then_some(Fault::Before(Failure::Denied));
    let store = Store::new(Arc::new(FaultStore::new(bench.objects.clone(), plan)), "recorded");
    let open = OpenOptions { cache_dir: Some(bench.folder.path().join("cache")) };
    let repository = Repository::open(store, open).await.expect("a repository");
    let options = BackupOptions { owner: Some("pod".into()), exclusive: true, ..BackupOptions::default() };
    let cut = backup(&repository, &bench.source(), options, Arc::new(NoObserver)).await;
    assert_eq!(cut.expect_err("is cut").kind(), ErrorKind::Denied);

    bench.write("03", b"a small change");
    assert!(!bench.back_up(first_step()).await.is_complete());
    drop(bench.objects.take());
    assert!(bench.back_up(last_step()).await.is_complete());
    let sent_bytes = bench.objects.bytes(Operation::Put) + bench.objects.bytes(Operation::Create);
    assert!(sent_bytes < 20_000, "{sent_bytes}");
    assert_eq!(differences(&bench.source(), &bench.restored().await), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_end_says_why_too() {
    let bench = Bench::new().await;
    assert_eq!(bench.back_up(last_step()).await.outcome, BackupOutcome::Unchanged);
    let op = bench.state().await.commit.op;
    assert_eq!((op["kind"].as_str(), op["note"]["cause"].as_str()), (Some("release"), Some("SIGTERM")));
    assert!(bench.is_released().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_goes_on_under_a_new_claim_only_from_the_head_that_it_came_from() {
    let bench = Bench::new().await;
    let receipt = bench.folder.path().join("receipt");
    let with = |options| BackupOptions { receipt: Some(receipt.clone()), ..options };
    let asked = RestoreOptions {
        receipt: Some(receipt.clone()),
        overwrite: Some(Overwrite::Changed),
        ..RestoreOptions::default()
    };
    let restored = restore(&bench.repository, &bench.source(), asked, Arc::new(NoObserver)).await;
    assert!(restored.expect("a restore").problems.is_empty());
    let before = Receipt::load(&receipt).expect("a receipt");
    bench.write("03", b"an edit that nobody has saved");

    let again = claim(&bench.repository, "main", "pod", "test").await.expect("a claim");
    let adopted = again.adopt(&before).expect("the head is the receipt's");
    assert_eq!((adopted.epoch, adopted.snapshot), (again.epoch, before.snapshot));
    adopted.write(&receipt).expect("writes");
    assert_eq!(bench.back_up(with(BackupOptions::default())).await.outcome, BackupOutcome::Done);

    // As a crash between commit and receipt leaves it: the head is one that the directory asked for.
    let moved = claim(&bench.repository, "main", "pod", "test").await.expect("a claim");
    let session = moved.head.as_ref().expect("a head").session;
    assert_eq!(moved.adopt(&before), None, "another's head");
    let pending = Receipt { pending: Some(session), ..before };
    let adopted = moved.adopt(&pending).expect("its own head");
    assert_eq!((adopted.snapshot, adopted.pending), (moved.head.as_ref().map(|head| head.id), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_gave_its_branch_back_takes_it_again_only_while_it_is_nobody_elses() {
    let bench = Bench::new().await;
    let head = bench.state().await.commit.head("main").expect("a head").clone();
    let other = claim(&bench.repository, "main", "other", "test").await.expect("a claim");
    let receipt = Receipt {
        repository: bench.repository.id(),
        branch: "main".into(),
        epoch: other.epoch,
        snapshot: Some(head.id),
        tree: Some(head.tree.page),
        entries: head.entries,
        bytes: head.bytes,
        directory: DirectoryMark::of(&bench.source()).expect("a directory"),
        finished: SystemClock.now(),
        quarantined: None,
        quarantined_under: None,
        pending: None,
        unsettled: Vec::new(),
    };
    let again = async |receipt: &Receipt| {
        reclaim(&bench.repository, "main", "pod", "test", receipt).await.expect("a look").map(|receipt| receipt.epoch)
    };
    let seq = async || bench.state().await.commit.seq;
    assert_eq!((again(&receipt).await, seq().await), (None, other.epoch), "another holds it");
    assert!(release(&bench.repository, "main", "other", "test", None).await.expect("a release"));
    let moved = Receipt { snapshot: None, ..receipt.clone() };
    assert_eq!((again(&moved).await, seq().await), (None, other.epoch + 1), "the head is another's");
    assert_eq!(again(&receipt).await, Some(other.epoch + 2));
    assert!(!bench.is_released().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_the_head_costs_one_request() {
    let bench = Bench::new().await;
    let state = bench.state().await;
    drop(bench.objects.take());
    assert!(!bench.repository.has_moved(&state).await.expect("looks"));
    assert_eq!(bench.objects.take().len(), 1);
    claim(&bench.repository, "main", "another", "test").await.expect("a claim");
    drop(bench.objects.take());
    assert!(bench.repository.has_moved(&state).await.expect("looks"));
    assert_eq!((bench.objects.count(Operation::List), bench.objects.take().len()), (0, 1));
}
