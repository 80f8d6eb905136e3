//! How many requests things cost: counted, not timed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, Excludes, backup};
use ghostsync_core::format::config::CommitMode;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, claim};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Fault, FaultStore};
use ghostsync_core::testing::recording::{Operation, RecordingStore};
use ghostsync_core::testing::tree::noise;
use object_store::memory::InMemory;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// A recorded store, and a folder for a cache and a source.
struct Bench {
    objects: Arc<RecordingStore>,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let objects = Arc::new(RecordingStore::new(Arc::new(InMemory::new())));
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("source")).expect("a folder");
        let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
        let store = Store::new(objects.clone(), "recorded");
        Repository::create(store, create, OpenOptions::default()).await.expect("a repository");
        Self { objects, folder }
    }

    fn source(&self) -> std::path::PathBuf {
        self.folder.path().join("source")
    }

    /// As a new process does it: opens the repository, backs up, and is gone. Returns the requests by kind.
    async fn back_up(&self, cached: bool) -> (BackupReport, usize, usize, usize) {
        drop(self.objects.take());
        let cache_dir = cached.then(|| self.folder.path().join("cache"));
        let store = Store::new(self.objects.clone(), "recorded");
        let repository = Repository::open(store, OpenOptions { cache_dir }).await.expect("a repository");
        let options = BackupOptions::default();
        let report = backup(&repository, &self.source(), options, Arc::new(NoObserver)).await.expect("a backup");
        let count = |kinds: &[Operation]| kinds.iter().map(|kind| self.objects.count(*kind)).sum();
        let gets = count(&[Operation::Get, Operation::GetRange]);
        let puts = count(&[Operation::Put, Operation::Create]);
        let others = count(&[Operation::List, Operation::Head, Operation::Delete]);
        (report, gets, puts, others)
    }

    /// Backs up an unchanged tree until nothing of it is too fresh to be sure of, and no page is read.
    async fn settle(&self) -> BackupReport {
        for _ in 0..200 {
            for repository in fs::read_dir(self.folder.path().join("cache")).expect("a cache") {
                drop(fs::remove_dir_all(repository.expect("a folder").path().join("meta")));
            }
            let (report, gets, ..) = self.back_up(true).await;
            assert_eq!(report.outcome, BackupOutcome::Unchanged);
            if gets == 2 {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("pages are read again and again");
    }
}

/// So many files of so many bytes, no two alike, in folders of 250.
fn fill(folder: &Path, files: usize, bytes: usize) {
    let pool = noise(1, (4 << 20) + bytes);
    // Each begins elsewhere in the pool: neighbours share much, and compress together.
    fill_with(folder, files, |number| pool[number * 83 % (4 << 20)..][..bytes].to_vec());
}

fn fill_with(folder: &Path, files: usize, content: impl Fn(usize) -> Vec<u8>) {
    for number in 0..files {
        let folder = folder.join(format!("{:04}", number / 250));
        if number % 250 == 0 {
            fs::create_dir(&folder).expect("a folder");
        }
        let mut content = content(number);
        let number = number.to_le_bytes();
        let shared = number.len().min(content.len());
        content[..shared].copy_from_slice(&number[..shared]);
        fs::write(folder.join(format!("{:08}", u64::from_le_bytes(number))), content).expect("a file");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tree_is_told_without_a_page_and_any_change_is_noticed() {
    let bench = Bench::new().await;
    fill(&bench.source(), 300, 100);
    let _ = bench.back_up(true).await;
    let at = |name: &str| bench.source().join(name);
    let (first, second) = ("0000/00000000", "0001/00000260");
    let settled = bench.settle().await;
    assert_eq!((settled.entries, settled.bytes), (302, 30_000));
    type Change<'a> = (&'a str, &'a dyn Fn());
    let changes: [Change<'_>; 5] = [
        ("content, with the size and time that it had", &|| {
            let times = fs::metadata(at(first)).and_then(|there| there.modified()).expect("a time");
            fs::write(at(first), [7; 100]).expect("written");
            fs::File::open(at(first)).and_then(|file| file.set_modified(times)).expect("set");
        }),
        ("a mode", &|| fs::set_permissions(at(second), Permissions::from_mode(0o600)).expect("set")),
        ("a name", &|| fs::rename(at(second), at("0001/other")).expect("renamed")),
        ("one file more", &|| fs::write(at("0001/zzz"), b"").expect("written")),
        ("the last file gone", &|| fs::remove_file(at("0001/zzz")).expect("removed")),
    ];
    for (what, change) in changes {
        change();
        let (report, ..) = bench.back_up(true).await;
        assert_eq!(report.outcome, BackupOutcome::Done, "{what}");
        if what != "one file more" {
            let _ = bench.settle().await;
        }
    }
    // What is hidden from now on changes nothing on the disk.
    let cache_dir = Some(bench.folder.path().join("cache"));
    let store = Store::new(bench.objects.clone(), "recorded");
    let repository = Repository::open(store, OpenOptions { cache_dir }).await.expect("a repository");
    let excludes = Excludes { patterns: vec!["other".into()], ..Excludes::default() };
    let options = BackupOptions { excludes, ..BackupOptions::default() };
    let report = backup(&repository, &bench.source(), options, Arc::new(NoObserver)).await.expect("a backup");
    assert_eq!((report.outcome, report.excluded), (BackupOutcome::Done, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tree_is_walked_while_the_store_answers() {
    let bench = Bench::new().await;
    fill(&bench.source(), 300, 100);
    let _ = bench.back_up(true).await;

    let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("a watch");
    inotify::add_watch(&watch, bench.source().join("0001"), WatchFlags::OPEN).expect("watched");
    let was_opened = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&was_opened);
    // No answer comes before the walk has opened a folder; ten seconds without are taken for never.
    let slow = FaultStore::new(bench.objects.clone(), move |_| {
        for _ in 0..2000 {
            if seen.load(Ordering::SeqCst) || rustix::io::read(&watch, &mut [0; 1024]).is_ok() {
                seen.store(true, Ordering::SeqCst);
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    });
    let cache_dir = Some(bench.folder.path().join("cache"));
    let store = Store::new(Arc::new(slow), "recorded");
    let repository = Repository::open(store, OpenOptions { cache_dir }).await.expect("a repository");
    assert!(repository.has_cache() && !was_opened.load(Ordering::SeqCst), "nothing was asked for to open it");
    let options = BackupOptions::default();
    let report = backup(&repository, &bench.source(), options, Arc::new(NoObserver)).await.expect("a backup");
    assert_eq!(report.outcome, BackupOutcome::Unchanged);
    assert!(was_opened.load(Ordering::SeqCst), "the walk waited for the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_is_as_it_was_is_no_news_only_while_its_snapshot_is_the_head() {
    let bench = Bench::new().await;
    fill(&bench.source(), 300, 100);
    let (first, ..) = bench.back_up(true).await;
    assert_eq!(bench.settle().await.snapshot, first.snapshot);

    // Another machine publishes another tree; the cache here still tells of the first snapshot.
    let elsewhere = bench.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    fill(&elsewhere, 299, 100);
    let store = Store::new(bench.objects.clone(), "recorded");
    let repository = Repository::open(store, OpenOptions::default()).await.expect("a repository");
    let options = BackupOptions::default();
    let other = backup(&repository, &elsewhere, options, Arc::new(NoObserver)).await.expect("a backup");
    assert_eq!((other.outcome, other.parent), (BackupOutcome::Done, first.snapshot));

    let (back, ..) = bench.back_up(true).await;
    assert_eq!((back.outcome, back.parent), (BackupOutcome::Done, other.snapshot));
    assert_eq!((back.tree, back.changes.added), (first.tree, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tree_costs_two_gets_with_a_cache_and_six_without() {
    let bench = Bench::new().await;
    fill(&bench.source(), 1500, 100);
    let (first, ..) = bench.back_up(true).await;
    assert_eq!(first.outcome, BackupOutcome::Done);
    // The first run after files were made may look at them again: they were too fresh to be sure of.
    let (second, gets, puts, others) = bench.back_up(true).await;
    assert_eq!((second.outcome, gets, puts, others), (BackupOutcome::Unchanged, 2, 0, 0));
    let (third, gets, puts, others) = bench.back_up(false).await;
    assert_eq!((third.outcome, puts, others), (BackupOutcome::Unchanged, 0, 0));
    assert!(gets <= 6, "{gets} gets: {:?}", bench.objects.requests());

    // Another snapshot puts some of the head's pages into a second meta pack.
    fs::write(bench.source().join("0003/new"), "new").expect("a file");
    let _ = bench.back_up(true).await;
    let (fourth, gets, puts, others) = bench.back_up(false).await;
    assert_eq!((fourth.outcome, puts, others), (BackupOutcome::Unchanged, 0, 0));
    assert!(gets <= 7, "{gets} gets: {:?}", bench.objects.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_file_costs_at_most_four_puts() {
    let bench = Bench::new().await;
    fill(&bench.source(), 1500, 100);
    let _ = bench.back_up(true).await;
    fs::write(bench.source().join("0002/00000501"), "changed").expect("a file");
    let (report, gets, puts, _) = bench.back_up(true).await;
    assert_eq!((report.outcome, report.changes.changed), (BackupOutcome::Done, 1));
    assert!(puts <= 4, "{puts} puts: {:?}", bench.objects.requests());
    assert!(gets <= 3, "{gets} gets: {:?}", bench.objects.requests());
}

/// A first backup, and a restore of it: puts and gets against the bytes that were packed.
async fn costs_of(files: usize, fill: impl FnOnce(&Path)) {
    let bench = Bench::new().await;
    fill(&bench.source());
    let (report, _, puts, _) = bench.back_up(true).await;
    assert_eq!(report.entries as usize, files + files.div_ceil(250));
    let packed = report.uploaded_bytes as usize;
    assert!(puts <= packed.div_ceil(16 << 20) + 16, "{puts} puts for {packed} bytes");

    let store = Store::new(bench.objects.clone(), "recorded");
    let repository = Repository::open(store, OpenOptions::default()).await.expect("a repository");
    drop(bench.objects.take());
    let destination = bench.folder.path().join("back");
    let restored = restore(&repository, &destination, RestoreOptions::default(), Arc::new(NoObserver)).await;
    assert_eq!(restored.expect("a restore").written, report.entries);
    let gets = bench.objects.count(Operation::Get) + bench.objects.count(Operation::GetRange);
    assert!(gets <= packed.div_ceil(4 << 20) + 20, "{gets} gets for {packed} bytes");
    println!("{files} files, {packed} bytes packed: {puts} puts, {gets} gets");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_backup_packs_small_files_into_few_puts_and_few_gets_bring_them_back() {
    costs_of(10_000, |source| fill(source, 10_000, 6_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: 50,000 files in 600 MB; `just scale` runs it"]
async fn scale_fifty_thousand_files_in_few_puts_and_gets() {
    // Nothing of it compresses.
    costs_of(50_000, |source| fill_with(source, 50_000, |number| noise(number as u64, 12_000))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_changes_in_a_large_tree_upload_few_pages() {
    let bench = Bench::new().await;
    fill(&bench.source(), 20_000, 8);
    let (first, ..) = bench.back_up(true).await;
    for number in 0..20 {
        fs::write(bench.source().join(format!("{:04}/{:08}", number * 4, number * 1000)), "changed!!").expect("a file");
    }
    let (second, _, puts, _) = bench.back_up(true).await;
    assert_eq!((second.changes.changed, second.changes.added), (20, 0));
    assert!(puts <= 4, "{puts} puts");
    // 20 of about 40 leaves, and the page above them: what is sent is in proportion to what changed.
    assert!(
        second.uploaded_bytes * 10 < first.uploaded_bytes * 8,
        "{} {}",
        second.uploaded_bytes,
        first.uploaded_bytes
    );
}

/// A branch whose holder has saved ten files, and has edited them since; what the store answers no more from some call
/// on is never answered.
async fn edited(mode: CommitMode, folder: &Path, answered: usize) -> (RecordingStore, Repository) {
    let objects = Arc::new(InMemory::new());
    let create = CreateOptions { commit_mode: mode, skip_probe: true, ..CreateOptions::default() };
    let options = OpenOptions { cache_dir: Some(folder.join("cache")) };
    let store = Store::new(objects.clone(), "one place");
    let repository = Repository::create(store, create, options.clone()).await.expect("a repository");
    claim(&repository, "main", "pod", "test").await.expect("a claim");
    fs::create_dir_all(folder.join("source")).expect("a folder");
    for content in ["before", "edited"] {
        for file in 0..10 {
            fs::write(folder.join("source").join(file.to_string()), format!("{content} {file}")).expect("a file");
        }
        if content == "before" {
            let report = last_snapshot(&repository, folder, false).await;
            assert_eq!(report.outcome, BackupOutcome::Done);
        }
    }
    let silent = FaultStore::new(objects, move |call| (call.number >= answered).then_some(Fault::Never));
    let recording = RecordingStore::new(Arc::new(silent));
    let store = Store::new(Arc::new(recording.clone()), "one place");
    (recording, Repository::open(store, options).await.expect("a repository"))
}

async fn last_snapshot(repository: &Repository, folder: &Path, release: bool) -> BackupReport {
    let options = BackupOptions { owner: Some("pod".into()), exclusive: true, release, ..BackupOptions::default() };
    backup(repository, &folder.join("source"), options, Arc::new(NoObserver)).await.expect("a backup")
}

/// The requests of the last snapshot of a pod's life, those in one row at the same time.
fn comes_in(mode: CommitMode, rounds: &[&[Operation]]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let waits = runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let (recording, repository) = edited(mode, folder.path(), usize::MAX).await;
        let report = last_snapshot(&repository, folder.path(), true).await;
        assert_eq!((report.outcome, report.changes.changed), (BackupOutcome::Done, 10));
        let asked = recording.take();
        let operations: Vec<Operation> = asked.iter().map(|request| request.operation).collect();
        assert_eq!(operations, rounds.concat(), "{asked:#?}");
        let state = repository.state().await.expect("a state");
        assert!(state.commit.branches["main"].holder.as_ref().is_some_and(|holder| holder.released));

        let mut answered = 0;
        for round in rounds {
            let folder = tempfile::tempdir().expect("a folder");
            let (recording, repository) = edited(mode, folder.path(), answered).await;
            answered += round.len();
            let at = folder.path().to_owned();
            tokio::spawn(async move { last_snapshot(&repository, &at, true).await });
            let all = async {
                while recording.requests().len() < answered {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            if tokio::time::timeout(Duration::from_secs(30), all).await.is_err() {
                return Some((round, recording.requests()));
            }
        }
        None
    });
    // The store never answers.
    runtime.shutdown_background();
    assert!(waits.is_none(), "they wait for each other: {waits:#?}");
}

#[test]
fn the_last_snapshot_of_a_pod_takes_seven_requests_in_five_rounds() {
    use Operation::{Create, Get, Put};
    comes_in(CommitMode::Atomic, &[&[Get, Get], &[Put, Put], &[Get], &[Create], &[Put]]);
}

#[test]
fn in_commit_mode_detect_the_last_snapshot_of_a_pod_takes_nine_requests_in_six_rounds() {
    use Operation::{Get, List, Put};
    comes_in(CommitMode::Detect, &[&[List, Get], &[Put, Put], &[List, Get], &[Put], &[List], &[List]]);
}
