//! What a restore brings back, what it leaves alone, and what it refuses.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ghostsync_core::backup::{BackupOptions, BackupOutcome, backup};
use ghostsync_core::guard::{Cap, Guard, Policy};
use ghostsync_core::id::{RepositoryId, SnapshotId};
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::observer::{NoObserver, Observer, Progress};
use ghostsync_core::receipt::{DirectoryMark, Receipt, ReceiptError};
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository};
use ghostsync_core::restore::{Overwrite, RestoreOptions, RestoreReport, Unstable, restore};
use ghostsync_core::store::{Store, StoreSettings, open_url};
use ghostsync_core::testing::cabinet::{SPARSE_BYTES, cabinet, make_removable};
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use ghostsync_core::testing::recording::RecordingStore;
use ghostsync_core::testing::restless::Restless;
use ghostsync_core::testing::tree::{TreeModel, apply, changes, differences, noise, tree};
use ghostsync_core::tree_path::TreePath;
use ghostsync_core::{ErrorKind, Result};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::test_runner::{Config, TestRunner};

pub(crate) async fn create(objects: Arc<dyn ObjectStore>) -> Repository {
    let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
    Repository::create(Store::new(objects, "memory"), create, OpenOptions::default()).await.expect("a new repository")
}

async fn open(objects: Arc<dyn ObjectStore>) -> Repository {
    Repository::open(Store::new(objects, "memory"), OpenOptions::default()).await.expect("a repository")
}

pub(crate) async fn back_up(repository: &Repository, source: &Path) -> SnapshotId {
    let policy = Policy { max_delete: Cap::Percent(100), allow_empty: true, ..Policy::default() };
    let options = BackupOptions { policy, force: true, ..BackupOptions::default() };
    let report = backup(repository, source, options, Arc::new(NoObserver)).await.expect("a backup");
    report.snapshot.expect("a snapshot")
}

async fn run(repository: &Repository, destination: &Path, options: RestoreOptions) -> Result<RestoreReport> {
    restore(repository, destination, options, Arc::new(NoObserver)).await
}

fn changed() -> RestoreOptions {
    RestoreOptions { overwrite: Some(Overwrite::Changed), ..RestoreOptions::default() }
}

/// Everything equal, whatever goes.
fn mirror() -> RestoreOptions {
    RestoreOptions { delete: true, max_delete: Cap::Percent(100), ..RestoreOptions::default() }
}

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let differences = differences(a, b);
    assert!(differences.is_empty(), "{differences:#?}");
}

#[track_caller]
fn assert_nothing_unfinished(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            assert!(!entry.file_name().to_string_lossy().starts_with(".ghostsync-"), "{:?}", entry.path());
            if entry.file_type().expect("a kind").is_dir() {
                folders.push(entry.path());
            }
        }
    }
}

/// A folder in memory where there is such a thing: making things durable is not what takes the time there.
pub(crate) fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

#[track_caller]
fn complete(report: &RestoreReport) {
    assert!(!report.damaged && report.problems.is_empty(), "{:?}", report.problems);
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text).expect("a path")
}

/// A tree of a few files, and one snapshot of it.
struct Sample {
    objects: Arc<dyn ObjectStore>,
    repository: Repository,
    source: tempfile::TempDir,
    folder: tempfile::TempDir,
    snapshot: SnapshotId,
}

impl Sample {
    async fn new() -> Self {
        Self::of(|source| {
            fs::create_dir_all(source.join("a/b"))?;
            fs::write(source.join("a/1"), b"one")?;
            fs::write(source.join("a/b/2"), noise(2, 200_000))?;
            fs::write(source.join("a/b/3"), noise(3, 3 << 20))?;
            fs::write(source.join("c"), b"see")?;
            symlink("a/1", source.join("d"))
        })
        .await
    }

    async fn of(fill: impl FnOnce(&Path) -> io::Result<()>) -> Self {
        let source = tempfile::tempdir().expect("a folder");
        fill(source.path()).expect("a tree");
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let repository = create(Arc::clone(&objects)).await;
        let snapshot = back_up(&repository, source.path()).await;
        let folder = tempfile::tempdir().expect("a folder");
        Self { objects, repository, source, folder, snapshot }
    }

    fn destination(&self) -> PathBuf {
        self.folder.path().join("destination")
    }

    fn receipt(&self) -> PathBuf {
        self.folder.path().join("receipt.json")
    }

    async fn restore(&self, options: RestoreOptions) -> Result<RestoreReport> {
        run(&self.repository, &self.destination(), options).await
    }

    /// The key of the largest data pack.
    async fn data_pack(&self) -> object_store::path::Path {
        let packs = list(&*self.objects).await.into_iter().filter(|meta| meta.location.as_ref().ends_with(".data"));
        packs.max_by_key(|meta| meta.size).expect("a pack").location
    }
}

async fn list(objects: &dyn ObjectStore) -> Vec<object_store::ObjectMeta> {
    use futures::TryStreamExt;
    objects.list(None).try_collect().await.expect("a listing")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cabinet_of_horrors_comes_back() {
    let source = tempfile::tempdir().expect("a folder");
    let folder = tempfile::tempdir().expect("a folder");
    let report = cabinet(source.path(), 3000).expect("a cabinet");
    for (what, why) in &report.skipped {
        eprintln!("skipped: {what}: {why}");
    }
    let repository = create(Arc::new(InMemory::new())).await;
    back_up(&repository, source.path()).await;
    let destination = folder.path().join("new/destination");
    let first = run(&repository, &destination, RestoreOptions::default()).await.expect("a restore");
    assert_same(source.path(), &destination);
    assert!(first.problems.is_empty(), "{:?}", first.problems);
    let sparse = destination.join("holes/10g");
    if source.path().join("holes/10g").exists() {
        let metadata = fs::metadata(sparse).expect("the sparse file");
        assert_eq!(metadata.len(), SPARSE_BYTES);
        assert!(metadata.blocks() < 10_000, "{} blocks", metadata.blocks());
    }

    let again = run(&repository, &destination, changed()).await.expect("a restore");
    assert_eq!((again.written, again.unchanged, again.block_bytes), (0, first.written, 0));
    assert_eq!(again.sockets, first.sockets);
    make_removable(source.path()).and_then(|()| make_removable(&destination)).expect("rights");
}

#[test]
fn random_trees_and_their_changes_come_back_and_only_what_differs_is_written() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
    let strategy = (tree(1..60), changes(1..25));
    let result = runner.run(&strategy, |(mut model, changes): (TreeModel, _)| {
        let (source, folder) = (quick_folder(), quick_folder());
        let destination = folder.path().join("destination");
        model.write(source.path()).expect("a tree");
        runtime.block_on(async {
            let repository = create(Arc::new(InMemory::new())).await;
            let first = back_up(&repository, source.path()).await;
            complete(&run(&repository, &destination, RestoreOptions::default()).await.expect("a restore"));
            assert_same(source.path(), &destination);
            for change in &changes {
                apply(change, &mut model, source.path()).expect("changed");
            }
            let second = back_up(&repository, source.path()).await;
            let planned = run(&repository, &destination, RestoreOptions { dry_run: true, ..mirror() }).await;
            let done = run(&repository, &destination, mirror()).await.expect("a restore");
            assert_same(source.path(), &destination);
            assert_nothing_unfinished(&destination);
            let planned = planned.expect("a plan");
            assert_eq!(
                (planned.written, planned.unchanged, planned.deleted),
                (done.written, done.unchanged, done.deleted)
            );
            let idle = run(&repository, &destination, RestoreOptions { verify: true, ..mirror() }).await;
            let idle = idle.expect("a restore");
            assert_eq!((idle.written, idle.deleted, idle.block_bytes), (0, 0, 0));

            // And back again, over whatever is there.
            let back = RestoreOptions { snapshot: first.to_string().parse().expect("an id"), ..mirror() };
            let report = run(&repository, &destination, back).await.expect("a restore");
            assert_eq!(report.snapshot, Some(first));
            let other = folder.path().join("other");
            let fresh =
                RestoreOptions { snapshot: first.to_string().parse().expect("an id"), ..RestoreOptions::default() };
            complete(&run(&repository, &other, fresh).await.expect("a restore"));
            assert_same(&other, &destination);
            assert_ne!(first, second);
        });
        Ok(())
    });
    result.expect("every tree comes back");
}

#[tokio::test]
async fn files_of_any_length_come_back_however_small_their_chunks_are() {
    use ghostsync_core::format::config::{Chunker, CommitMode, Config};
    let time = "2026-01-02T03:04:05Z".parse().expect("a time");
    let chunker =
        Chunker { whole_bytes: 1024, min_bytes: 64, average_bytes: 256, max_bytes: 1024, ..Chunker::default() };
    let config = Config { chunker, ..Config::new(RepositoryId::from_bytes([1; 16]), time, CommitMode::Atomic) };
    let objects = Arc::new(InMemory::new());
    objects.put(&"config.json".into(), config.encode().expect("encodes").into()).await.expect("stored");
    let repository = open(objects).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (source, destination) = (folder.path().join("source"), folder.path().join("destination"));
    fs::create_dir(&source).expect("made");
    // About one part, two, a block, and more than one piece of a file that is written in parts.
    for bytes in [1025, 5000, 65_535, 65_536, 65_537, 131_072, 600_000, 3_000_000] {
        fs::write(source.join(bytes.to_string()), noise(bytes, bytes as usize)).expect("written");
        // Its header is that of a database, so it is cut in windows.
        let mut database = noise(bytes, bytes as usize);
        database[..24].copy_from_slice(b"SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20");
        fs::write(source.join(format!("{bytes}.db")), database).expect("written");
    }
    back_up(&repository, &source).await;
    let report = run(&repository, &destination, RestoreOptions::default()).await.expect("restored");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(differences(&source, &destination), Vec::<String>::new());
}

#[tokio::test]
async fn the_receipt_is_written_last_and_names_what_was_restored() {
    let sample = Sample::new().await;
    let options = RestoreOptions { receipt: Some(sample.receipt()), ..RestoreOptions::default() };
    let report = sample.restore(options.clone()).await.expect("a restore");
    assert_eq!(report.snapshot, Some(sample.snapshot));
    let receipt = Receipt::load(&sample.receipt()).expect("a receipt");
    let id = DirectoryMark::of(&sample.destination()).expect("a directory");
    assert_eq!(receipt.check(sample.repository.id(), "main", id), Ok(()));
    assert_eq!((receipt.snapshot, receipt.entries), (Some(sample.snapshot), 7));
    // With a receipt of this repository nothing more need be said.
    fs::write(sample.destination().join("c"), b"changed").expect("written");
    complete(&sample.restore(options).await.expect("a restore"));
    assert_same(sample.source.path(), &sample.destination());
}

#[tokio::test]
async fn a_receipt_never_stands_for_a_directory_that_excludes_left_incomplete() {
    let sample = Sample::new().await;
    let with = |pattern: &str| RestoreOptions {
        receipt: Some(sample.receipt()),
        exclude: vec![pattern.to_owned()],
        ..RestoreOptions::default()
    };
    let error = sample.restore(with("c")).await.expect_err("a backup after that would take c for removed");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().starts_with("c is in the snapshot and excluded"), "{error}");
    assert!(!sample.receipt().exists() && !sample.destination().exists(), "nothing was done");
    complete(&sample.restore(with("*.nothing-like-it")).await.expect("a restore"));
    assert!(sample.receipt().exists());
}

#[tokio::test]
async fn a_receipt_inside_the_destination_is_no_content_and_changes_no_time() {
    let sample = Sample::new().await;
    let receipt = sample.destination().join(".receipt.json");
    let options = RestoreOptions { receipt: Some(receipt.clone()), ..mirror() };
    for _ in 0..2 {
        let report = sample.restore(options.clone()).await.expect("a restore");
        assert_eq!(report.deleted, 0);
        assert!(Receipt::load(&receipt).is_ok());
        let modified = |folder: &Path| fs::metadata(folder).and_then(|folder| folder.modified()).expect("a time");
        assert_eq!(modified(&sample.destination()), modified(sample.source.path()));
    }
}

#[tokio::test]
async fn a_cut_restore_leaves_no_receipt_and_is_resumed() {
    struct StopAfter(Interrupt, u64, std::sync::atomic::AtomicU64);
    impl Observer for StopAfter {
        fn progress(&self, progress: Progress) {
            if let Progress::Advanced { files, .. } = progress
                && self.2.fetch_add(files, Ordering::SeqCst) + files >= self.1
            {
                self.0.set();
            }
        }
    }
    let sample = Sample::of(|source| {
        (0..200).try_for_each(|n| fs::write(source.join(format!("{n:03}")), noise(n, 60_000)))?;
        fs::write(source.join("zzz"), noise(999, 40 << 20))
    })
    .await;
    let whole = sample.restore(RestoreOptions::default()).await.expect("a restore").block_bytes;
    for files in [1, 150, 201] {
        fs::remove_dir_all(sample.destination()).expect("removed");
        let interrupt = Interrupt::default();
        let observer = StopAfter(interrupt.clone(), files, Default::default());
        let options = RestoreOptions { receipt: Some(sample.receipt()), interrupt, ..RestoreOptions::default() };
        fs::write(sample.receipt(), b"old").expect("written");
        let cut = restore(&sample.repository, &sample.destination(), options, Arc::new(observer)).await;
        assert_eq!(cut.expect_err("cut").kind(), ErrorKind::Interrupted);
        assert!(matches!(Receipt::load(&sample.receipt()), Err(ReceiptError::Absent)), "the receipt went first");
        assert_nothing_unfinished(&sample.destination());
        // What a killed process would have left.
        fs::write(sample.destination().join(".ghostsync-00112233445566ff.tmp"), b"half").expect("written");
        let options = RestoreOptions { receipt: Some(sample.receipt()), ..changed() };
        let resumed = sample.restore(options).await.expect("a restore");
        assert_same(sample.source.path(), &sample.destination());
        assert!(resumed.unchanged + resumed.written == 201 && resumed.unchanged > 0, "{resumed:?}");
        assert!(files == 1 || resumed.block_bytes < whole, "{} of {whole}", resumed.block_bytes);
        assert!(Receipt::load(&sample.receipt()).is_ok());
    }
}

#[tokio::test]
async fn a_destination_that_holds_something_is_not_touched_without_a_word() {
    let sample = Sample::new().await;
    fs::create_dir(sample.destination()).expect("made");
    fs::write(sample.destination().join("theirs"), b"x").expect("written");
    let error = sample.restore(RestoreOptions::default()).await.expect_err("refused");
    let refusal = error.refusal().expect("a refusal");
    assert_eq!((refusal.guard, &refusal.paths[..]), (Guard::Destination, &[path("theirs")][..]));
    let report = sample.restore(changed()).await.expect("a restore");
    assert_eq!((report.deleted, report.written), (0, 7));
    assert!(sample.destination().join("theirs").exists());
    fs::remove_file(sample.destination().join("theirs")).expect("removed");
    complete(&sample.restore(changed()).await.expect("a restore"));
    assert_same(sample.source.path(), &sample.destination());
}

#[tokio::test]
async fn deleting_is_refused_as_a_whole_beyond_the_cap() {
    let sample = Sample::new().await;
    let at = |name: &str| sample.destination().join(name);
    fs::create_dir_all(at("extra/deep")).expect("made");
    for name in ["extra/1", "extra/deep/2", "a", "x"] {
        fs::write(at(name), b"theirs").expect("written");
    }
    fs::write(at("c"), b"changed").expect("written");
    let options = RestoreOptions { delete: true, receipt: Some(sample.receipt()), ..RestoreOptions::default() };
    fs::write(sample.receipt(), b"old").expect("written");
    let error = sample.restore(options.clone()).await.expect_err("4 of 5 are too many");
    let refusal = error.refusal().expect("a refusal");
    assert_eq!((refusal.guard, refusal.actual, refusal.limit.as_deref()), (Guard::MaxDelete, Some(4), Some("50%")));
    let expected: Vec<_> = ["a", "extra/1", "extra/deep/2", "x"].map(path).into();
    assert_eq!(refusal.paths, expected);
    assert_eq!(fs::read(at("c")).expect("there"), b"changed", "nothing is half applied");
    assert_eq!(fs::read(at("a")).expect("there"), b"theirs");
    assert!(sample.receipt().exists(), "and the receipt stays");

    let keep = RestoreOptions {
        max_delete: Cap::Count(3),
        exclude: vec!["/extra/deep/".into()],
        never: vec![at("x")],
        ..options.clone()
    };
    let report = sample.restore(keep).await.expect("a restore");
    assert_eq!(report.deleted, 1);
    assert!(at("extra/deep/2").exists() && at("x").exists() && !at("extra/1").exists());
    let report = sample.restore(RestoreOptions { max_delete: Cap::Percent(100), ..options }).await.expect("a restore");
    assert_eq!(report.deleted, 4);
    assert_same(sample.source.path(), &sample.destination());
}

#[tokio::test]
async fn what_is_there_is_replaced_only_as_told() {
    let sample = Sample::new().await;
    let at = |name: &str| sample.destination().join(name);
    complete(&sample.restore(RestoreOptions::default()).await.expect("a restore"));
    let spoil = || {
        fs::write(at("a/1"), b"other").expect("written");
        fs::set_permissions(at("c"), PermissionsExt::from_mode(0o600)).expect("set");
        fs::remove_file(at("a/b/2")).expect("removed");
        // Kinds differ: a link where a directory was, a file where a link was.
        fs::remove_file(at("d")).expect("removed");
        fs::write(at("d"), b"file").expect("written");
    };
    spoil();
    let never = RestoreOptions { overwrite: Some(Overwrite::Never), ..RestoreOptions::default() };
    let refused = sample.restore(RestoreOptions { receipt: Some(sample.receipt()), ..never.clone() }).await;
    assert_eq!(refused.expect_err("something differs").kind(), ErrorKind::Invalid);
    assert!(!at("a/b/2").exists(), "nothing was changed");
    let report = sample.restore(never.clone()).await.expect("a restore");
    assert_eq!((report.written, report.deleted), (1, 0));
    assert_eq!(
        (fs::read(at("a/1")).expect("there"), fs::read(at("d")).expect("there")),
        (b"other".into(), b"file".into())
    );

    fs::remove_file(at("a/b/2")).expect("removed");
    let report = sample.restore(changed()).await.expect("a restore");
    assert_eq!(report.written, 5, "a/1, a/b/2, d, the mode of c, and the time of a/b");
    assert_same(sample.source.path(), &sample.destination());
    let report = sample.restore(RestoreOptions { receipt: Some(sample.receipt()), ..never }).await.expect("a restore");
    assert_eq!(report.written, 0, "nothing differs, so a receipt may be written");
    assert!(Receipt::load(&sample.receipt()).is_ok());
    let always = RestoreOptions { overwrite: Some(Overwrite::Always), ..RestoreOptions::default() };
    assert_eq!(sample.restore(always).await.expect("a restore").written, 7);
    assert_same(sample.source.path(), &sample.destination());
}

#[tokio::test]
async fn a_change_behind_the_metadata_is_found_by_verifying() {
    let sample = Sample::new().await;
    complete(&sample.restore(RestoreOptions::default()).await.expect("a restore"));
    let file = File::options().write(true).open(sample.destination().join("a/b/3")).expect("there");
    let modified = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
    file.write_all_at(b"bit rot", 1000).and_then(|()| file.set_modified(modified)).expect("spoiled");
    assert_eq!(sample.restore(changed()).await.expect("a restore").written, 0);
    let report = sample.restore(RestoreOptions { verify: true, ..changed() }).await.expect("a restore");
    assert_eq!(report.written, 1);
    assert_same(sample.source.path(), &sample.destination());
}

#[tokio::test]
async fn a_directory_in_the_way_goes_only_with_delete() {
    let sample = Sample::new().await;
    let at = |name: &str| sample.destination().join(name);
    fs::create_dir_all(at("c/full")).expect("made");
    fs::create_dir_all(at("d")).expect("made");
    for dry_run in [true, false] {
        let options = RestoreOptions { receipt: Some(sample.receipt()), dry_run, ..changed() };
        let report = sample.restore(options).await.expect("a restore");
        let incomplete: Vec<_> = report.problems.iter().filter(|problem| problem.incomplete).collect();
        assert_eq!(incomplete.len(), 1, "{incomplete:?}");
        assert_eq!((incomplete[0].path.clone(), report.written), (path("c"), 6));
    }
    assert!(at("c/full").exists() && !sample.receipt().exists());
    assert!(fs::symlink_metadata(at("d")).expect("there").is_symlink(), "an empty directory may go");
    complete(&sample.restore(mirror()).await.expect("a restore"));
    assert_same(sample.source.path(), &sample.destination());
}

#[tokio::test]
async fn only_included_paths_are_restored_with_the_directories_that_hold_them() {
    let sample = Sample::of(|source| {
        fs::create_dir_all(source.join("a/b/c"))?;
        fs::create_dir_all(source.join("x"))?;
        fs::write(source.join("a/b/c/first"), b"linked")?;
        fs::hard_link(source.join("a/b/c/first"), source.join("a/b/second"))?;
        fs::hard_link(source.join("a/b/c/first"), source.join("x/third"))?;
        fs::write(source.join("x/not"), b"not this")?;
        fs::set_permissions(source.join("a"), PermissionsExt::from_mode(0o711))
    })
    .await;
    let include = vec![path("x/third"), path("a/b/second")];
    let options = RestoreOptions { include: include.clone(), ..RestoreOptions::default() };
    let with_receipt = RestoreOptions { receipt: Some(sample.receipt()), ..options.clone() };
    assert_eq!(sample.restore(with_receipt).await.expect_err("no").kind(), ErrorKind::Invalid);
    complete(&sample.restore(options.clone()).await.expect("a restore"));
    let at = |name: &str| sample.destination().join(name);
    assert_eq!(fs::read(at("a/b/second")).expect("there"), b"linked");
    assert_eq!(at("x/third").metadata().expect("there").ino(), at("a/b/second").metadata().expect("there").ino());
    assert!(!at("a/b/c").exists() && !at("x/not").exists());
    let (there, wanted) =
        (at("a").metadata().expect("there"), sample.source.path().join("a").metadata().expect("there"));
    assert_eq!((there.mode(), there.mtime_nsec()), (wanted.mode(), wanted.mtime_nsec()));

    fs::set_permissions(at("a"), PermissionsExt::from_mode(0o755)).expect("set");
    fs::write(at("a/mine"), b"mine").expect("written");
    complete(
        &sample
            .restore(RestoreOptions { delete: true, max_delete: Cap::Count(0), ..options.clone() })
            .await
            .expect("a restore"),
    );
    assert!(at("a/mine").exists(), "what is not included is not deleted");
    assert_eq!(at("a").metadata().expect("there").mode() & 0o777, 0o755, "and what holds it keeps its metadata");
    let wrong = RestoreOptions { include: vec![path("a/nothing")], ..changed() };
    assert_eq!(sample.restore(wrong).await.expect_err("not there").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_excluded_is_neither_written_nor_deleted() {
    let sample = Sample::new().await;
    let at = |name: &str| sample.destination().join(name);
    fs::create_dir_all(at("a/b")).expect("made");
    fs::write(at("a/b/mine"), b"mine").expect("written");
    let options = RestoreOptions { exclude: vec!["/a/b/".into(), "c".into()], ..mirror() };
    complete(&sample.restore(options).await.expect("a restore"));
    assert!(at("a/b/mine").exists() && !at("a/b/2").exists() && !at("c").exists());
    assert_eq!(fs::read(at("a/1")).expect("there"), b"one");
}

#[tokio::test]
async fn links_that_stand_in_the_way_are_replaced_and_never_followed() {
    let sample = Sample::new().await;
    let outside = sample.folder.path().join("outside");
    fs::create_dir_all(outside.join("b")).expect("made");
    fs::write(outside.join("1"), b"outside").expect("written");
    fs::create_dir(sample.destination()).expect("made");
    symlink(&outside, sample.destination().join("a")).expect("linked");
    symlink(outside.join("1"), sample.destination().join("c")).expect("linked");
    complete(&sample.restore(changed()).await.expect("a restore"));
    assert_same(sample.source.path(), &sample.destination());
    assert_eq!(fs::read(outside.join("1")).expect("there"), b"outside");
    assert_eq!(fs::read_dir(outside.join("b")).expect("there").count(), 0);
}

#[tokio::test]
async fn a_hard_link_to_something_outside_does_not_carry_changes_there() {
    let sample = Sample::new().await;
    complete(&sample.restore(RestoreOptions::default()).await.expect("a restore"));
    let outside = sample.folder.path().join("outside");
    fs::hard_link(sample.destination().join("c"), &outside).expect("linked");
    fs::set_permissions(&outside, PermissionsExt::from_mode(0o640)).expect("set");
    complete(&sample.restore(changed()).await.expect("a restore"));
    assert_same(sample.source.path(), &sample.destination());
    assert_eq!(fs::metadata(&outside).expect("there").mode() & 0o777, 0o640);
}

#[tokio::test]
async fn damage_stops_the_restore_or_costs_only_what_it_concerns() {
    let sample = Sample::new().await;
    let pack = sample.data_pack().await;
    let key = pack.clone();
    let flipped = FaultStore::new(Arc::clone(&sample.objects), move |call| {
        (call.operation == Operation::GetRange && call.key == key).then_some(Fault::FlippedBit)
    });
    let key = pack.clone();
    let gone = FaultStore::new(Arc::clone(&sample.objects), move |call| {
        (call.operation == Operation::GetRange && call.key == key).then_some(Fault::Before(Failure::NotFound))
    });
    for store in [flipped, gone] {
        let repository = open(Arc::new(store)).await;
        let options = RestoreOptions { receipt: Some(sample.receipt()), ..changed() };
        let error = run(&repository, &sample.destination(), options.clone()).await.expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(pack.as_ref()), "{error}");
        assert_nothing_unfinished(&sample.destination());

        let report = run(&repository, &sample.destination(), RestoreOptions { keep_going: true, ..options }).await;
        let report = report.expect("the rest");
        assert!(report.damaged && !report.problems.is_empty());
        assert!(!sample.receipt().exists());
        assert_nothing_unfinished(&sample.destination());
        for problem in &report.problems {
            assert!(problem.incomplete && problem.message.contains(pack.as_ref()), "{problem:?}");
            assert!(!sample.destination().join(problem.path.to_string()).exists(), "{problem:?}");
        }
        for difference in differences(sample.source.path(), &sample.destination()) {
            assert!(difference.ends_with("only in the first"), "{difference}");
        }
        assert!(sample.destination().join("d").symlink_metadata().is_ok());
        fs::remove_dir_all(sample.destination()).expect("removed");
    }
    complete(&sample.restore(changed()).await.expect("the store itself is sound"));
    assert_same(sample.source.path(), &sample.destination());
}

/// In a folder, long reads are made by whoever decodes what they bring.
#[tokio::test]
async fn damage_to_the_files_of_a_local_store_costs_only_what_it_concerns() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, stored, destination) =
        (folder.path().join("source"), folder.path().join("stored"), folder.path().join("destination"));
    fs::create_dir(&source).expect("made");
    for number in 0..24 {
        fs::write(source.join(format!("{number:02}")), noise(number, 200_000)).expect("written");
    }
    let store = open_url(stored.to_str().expect("UTF-8"), &StoreSettings::default(), true).expect("a store");
    let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
    let repository = Repository::create(store, create, OpenOptions::default()).await.expect("a new repository");
    back_up(&repository, &source).await;
    let mut packs = Vec::new();
    let mut folders = vec![stored];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
            match entry.file_type().expect("a kind").is_dir() {
                true => folders.push(entry.path()),
                false => packs.extend(Some(entry.path()).filter(|path| path.extension().is_some_and(|e| e == "data"))),
            }
        }
    }
    let bytes_of = |path: &PathBuf| fs::metadata(path).expect("there").len();
    let pack = packs.into_iter().max_by_key(bytes_of).expect("a pack");
    let sound = fs::read(&pack).expect("there");
    assert!(sound.len() > 3 << 20, "{} bytes", sound.len());
    let mut flipped = sound.clone();
    flipped[2 << 20] ^= 1;

    // How many of its 24 files each damage may cost.
    let damages = [("nothing", Some(&sound[..]), 0..=0), ("a bit", Some(&flipped[..]), 1..=2)];
    let damages =
        damages.into_iter().chain([("its end", Some(&sound[..2 << 20]), 5..=16), ("all of it", None, 18..=24)]);
    for (what, content, cost) in damages {
        match content {
            Some(content) => fs::write(&pack, content).expect("written"),
            None => fs::remove_file(&pack).expect("removed"),
        }
        if what != "nothing" {
            let error = run(&repository, &destination, changed()).await.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
            assert_nothing_unfinished(&destination);
            fs::remove_dir_all(&destination).expect("removed");
        }
        let report = run(&repository, &destination, RestoreOptions { keep_going: true, ..changed() }).await;
        let report = report.expect("the rest");
        let differences = differences(&source, &destination);
        assert_eq!((report.damaged, report.problems.len()), (what != "nothing", differences.len()), "{what}");
        assert!(cost.contains(&differences.len()), "{what}: {differences:?}");
        assert!(differences.iter().all(|difference| difference.ends_with("only in the first")), "{differences:?}");
        assert_nothing_unfinished(&destination);
        fs::remove_dir_all(&destination).expect("removed");
    }
}

#[tokio::test]
async fn a_snapshot_that_is_forgotten_meanwhile_is_no_damage() {
    for keep_going in [false, true] {
        let sample = Sample::new().await;
        let pack = sample.data_pack().await;
        let state = sample.repository.state().await.expect("a state");
        let mut forgetting = state.commit.clone();
        forgetting.seq += 1;
        forgetting.prev = state.hash;
        forgetting.snapshots.clear();
        forgetting.branches.clear();
        let commit = forgetting.encode().expect("encodes");
        let objects = Arc::clone(&sample.objects);
        // The state is read, and then somebody forgets the snapshot and prunes.
        let pruned = FaultStore::new(Arc::clone(&sample.objects), move |call| {
            if call.operation != Operation::GetRange || call.key != pack {
                return None;
            }
            let key = ghostsync_core::store::keys::commit(forgetting.seq);
            futures::executor::block_on(objects.put(&key, commit.clone().into())).expect("written");
            Some(Fault::Before(Failure::NotFound))
        });
        let repository = open(Arc::new(pruned)).await;
        let options = RestoreOptions { keep_going, receipt: Some(sample.receipt()), ..changed() };
        let error = run(&repository, &sample.destination(), options).await.expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("was forgotten"), "{error}");
        assert!(!sample.receipt().exists());
    }
}

#[tokio::test]
async fn a_lost_page_costs_its_entries_alone() {
    let sample = Sample::of(|source| {
        for directory in 0..20 {
            let directory = source.join(format!("{directory:02}"));
            fs::create_dir(&directory)?;
            (0..300).try_for_each(|n| fs::write(directory.join(format!("{n:03}")), n.to_string()))?;
        }
        Ok(())
    })
    .await;
    // The last page of a pack is its root; the first ones are leaves.
    let metas = list(&*sample.objects).await.into_iter().filter(|meta| meta.location.as_ref().ends_with(".meta"));
    let key = metas.max_by_key(|meta| meta.size).expect("a pack").location;
    let stored = sample.objects.get(&key).await.expect("there").bytes().await.expect("there");
    let table = ghostsync_core::format::pack::TableOfContents::decode(&stored).expect("a table");
    assert!(table.pages.len() > 4, "{}", table.pages.len());
    let mut damaged = stored.to_vec();
    let offset = usize::try_from(table.pages[1].offset).expect("small");
    damaged[offset + 20] ^= 1;
    sample.objects.put(&key, damaged.into()).await.expect("written");

    let repository = open(Arc::clone(&sample.objects)).await;
    let options = RestoreOptions { receipt: Some(sample.receipt()), ..changed() };
    let error = run(&repository, &sample.destination(), options.clone()).await.expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let deletes = RestoreOptions { keep_going: true, ..mirror() };
    let error = run(&repository, &sample.destination(), deletes).await.expect_err("what is lost is not lacking");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let report = run(&repository, &sample.destination(), RestoreOptions { keep_going: true, ..options }).await;
    let report = report.expect("the rest");
    assert!(report.damaged && !sample.receipt().exists());
    assert!(report.written > 4000 && report.written < 6020, "{}", report.written);
    for difference in differences(sample.source.path(), &sample.destination()) {
        let of_a_directory = difference.contains("mode") || difference.contains("mtime");
        assert!(difference.ends_with("only in the first") || of_a_directory, "{difference}");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_no_damage_and_the_restore_goes_on_later() {
    let sample = Sample::new().await;
    let calls = {
        let counting = FaultStore::new(Arc::clone(&sample.objects), |_| None);
        let repository = open(Arc::new(counting.clone())).await;
        complete(&run(&repository, &sample.destination(), RestoreOptions::default()).await.expect("a restore"));
        counting.calls()
    };
    for number in 0..calls {
        fs::remove_dir_all(sample.destination()).expect("removed");
        fs::create_dir(sample.destination()).expect("made");
        let failing = FaultStore::from(Arc::clone(&sample.objects), number, Fault::Before(Failure::Server));
        let store = Store::new(Arc::new(failing), "memory");
        let options = RestoreOptions { receipt: Some(sample.receipt()), keep_going: true, ..changed() };
        let failed = match Repository::open(store, OpenOptions::default()).await {
            Err(error) => error,
            Ok(repository) => run(&repository, &sample.destination(), options).await.expect_err("unavailable"),
        };
        assert_eq!(failed.kind(), ErrorKind::Unavailable, "call {number}: {failed}");
        assert!(!sample.receipt().exists());
        assert_nothing_unfinished(&sample.destination());
        complete(&sample.restore(changed()).await.expect("a restore"));
        assert_same(sample.source.path(), &sample.destination());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_come_in_few_requests() {
    let source = quick_folder();
    for directory in 0..100 {
        let directory_path = source.path().join(format!("{directory:03}"));
        fs::create_dir(&directory_path).expect("made");
        for file in 0..100 {
            // Every tenth is like one far away.
            let seed = if file % 10 == 0 { file } else { directory * 1000 + file };
            fs::write(directory_path.join(format!("{file:03}")), noise(seed, 6000)).expect("written");
        }
    }
    let recording = RecordingStore::new(Arc::new(InMemory::new()));
    let repository = create(Arc::new(recording.clone())).await;
    back_up(&repository, source.path()).await;
    let packed: u64 = list(&recording).await.iter().map(|meta| meta.size).sum();
    let repository = open(Arc::new(recording.clone())).await;
    let _ = recording.take();
    let folder = quick_folder();
    let report = run(&repository, &folder.path().join("d"), RestoreOptions::default()).await.expect("a restore");
    let gets = recording.count(Operation::Get) + recording.count(Operation::GetRange);
    eprintln!("{gets} gets, {packed} bytes, {:.1} s", report.seconds);
    assert!(gets as u64 <= packed / (4 << 20) + 20, "{gets} gets for {packed} bytes");
    // The two blocks that files far away share come a second time, when that shows, and are then kept.
    assert!(report.block_bytes <= packed + (1 << 20), "{} of {packed}", report.block_bytes);
    assert_same(source.path(), &folder.path().join("d"));
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_of_a_tree_that_many_snapshots_have_made_are_asked_for_together() {
    let source = quick_folder();
    for file in 0..4000 {
        fs::write(source.path().join(format!("{file:04}")), b"").expect("written");
    }
    let objects = Arc::new(InMemory::new());
    let repository = create(objects.clone()).await;
    for file in (0..4000).step_by(200) {
        fs::write(source.path().join(format!("{file:04}")), b"x").expect("written");
        back_up(&repository, source.path()).await;
    }
    let is_of_pages = |operation, key: &str| operation == Operation::Get && key.ends_with(".meta");
    let asked = AtomicUsize::new(0);
    let silent = FaultStore::new(objects, move |call| {
        let is_later = is_of_pages(call.operation, call.key.as_ref()) && asked.fetch_add(1, Ordering::Relaxed) > 0;
        is_later.then_some(Fault::Never)
    });
    let recording = RecordingStore::new(Arc::new(silent));
    let repository = open(Arc::new(recording.clone())).await;
    let folder = quick_folder();
    let destination = folder.path().join("d");
    let restored = async { run(&repository, &destination, RestoreOptions::default()).await.expect("no answer comes") };
    let asked_for = async {
        // The root's pack, the first leaf's, and some of those ahead.
        while recording.requests().iter().filter(|asked| is_of_pages(asked.operation, asked.key.as_ref())).count() < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), asked_for);
    tokio::select! {
        _ = restored => panic!("it cannot end"),
        waited = waited => waited.expect("five requests, none of which waits for another but the first"),
    }
}

#[tokio::test]
async fn a_large_file_streams_through_several_windows() {
    let sample = Sample::of(|source| {
        // Over two windows of fetched data, with a hole between.
        let file = File::create(source.join("large"))?;
        for part in 0..20 {
            file.write_all_at(&noise(part, 4 << 20), part * (5 << 20))?;
        }
        fs::write(source.join("after"), b"x")
    })
    .await;
    let report = sample.restore(RestoreOptions::default()).await.expect("a restore");
    assert_same(sample.source.path(), &sample.destination());
    assert!(report.block_bytes > 80 << 20);
}

#[tokio::test]
async fn a_genesis_receipt_needs_the_right_repository_and_an_empty_branch() {
    let repository = create(Arc::new(InMemory::new())).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (destination, receipt) = (folder.path().join("destination"), folder.path().join("receipt.json"));
    let options = RestoreOptions { receipt: Some(receipt.clone()), ..RestoreOptions::default() };
    let error = run(&repository, &destination, options.clone()).await.expect_err("no branch");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let wrong = RestoreOptions { genesis: Some(RepositoryId::random()), ..options.clone() };
    let error = run(&repository, &destination, wrong).await.expect_err("another repository");
    assert_eq!(error.refusal().expect("a refusal").guard, Guard::Receipt);
    assert!(!receipt.exists() && !destination.exists());
    let no_place = RestoreOptions { genesis: Some(repository.id()), ..RestoreOptions::default() };
    assert_eq!(run(&repository, &destination, no_place).await.expect_err("no place").kind(), ErrorKind::Invalid);

    let genesis = RestoreOptions { genesis: Some(repository.id()), ..options.clone() };
    for _ in 0..2 {
        let report = run(&repository, &destination, genesis.clone()).await.expect("a receipt");
        assert_eq!(report.snapshot, None);
    }
    assert_eq!(Receipt::load(&receipt).expect("a receipt").snapshot, None);
    fs::write(destination.join("first"), b"x").expect("written");
    let snapshot = back_up(&repository, &destination).await;
    let report = run(&repository, &destination, genesis.clone()).await.expect("harmless afterwards");
    assert_eq!(report.snapshot, Some(snapshot));
    assert_eq!(Receipt::load(&receipt).expect("a receipt").snapshot, Some(snapshot));

    let other = RestoreOptions { branch: "other".into(), ..genesis };
    complete(&run(&repository, &destination, other).await.expect("another branch is empty still"));
}

/// Mounts a small file system that lives in memory; `None` where that is not allowed.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .stderr(std::process::Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: this user cannot mount a small file system");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_the_restore_goes_on_when_there_is_room() {
    for (options, room) in [("size=2m,nr_inodes=1000", "size=64m"), ("size=64m,nr_inodes=30", "nr_inodes=1000")] {
        let sample = Sample::of(|source| {
            (0..60).try_for_each(|n| fs::write(source.join(format!("{n:02}")), noise(n, 50_000)))?;
            fs::write(source.join("large"), noise(100, 2 << 20))
        })
        .await;
        let Some(mounted) = Mounted::new(options) else { return };
        let destination = mounted.0.path().join("destination");
        let receipt = Some(sample.receipt());
        let with_receipt = RestoreOptions { receipt: receipt.clone(), ..changed() };
        let error = run(&sample.repository, &destination, with_receipt.clone()).await.expect_err("full");
        assert_eq!(error.kind(), ErrorKind::LocalIo, "{error}");
        assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::StorageFull), "{error}");
        assert!(!sample.receipt().exists());
        assert_nothing_unfinished(&destination);
        let status = std::process::Command::new("mount")
            .args(["-o", &format!("remount,{room}")])
            .arg(mounted.0.path())
            .status()
            .expect("runs");
        assert!(status.success());
        let resumed = run(&sample.repository, &destination, with_receipt).await.expect("a restore");
        assert!(resumed.unchanged > 0, "{resumed:?}");
        assert_same(sample.source.path(), &destination);
        assert!(sample.receipt().exists());
    }
}

/// The name by which this test finds itself again as another user.
const AS_NOBODY: &str = "restoring::a_normal_user_gets_everything_but_owners";
const REPOSITORY: &str = "GHOSTSYNC_TEST_REPOSITORY";
const NOBODY: u32 = 65534;

#[tokio::test]
async fn a_normal_user_gets_everything_but_owners() {
    use std::os::unix::process::CommandExt;
    if let Some(folder) = std::env::var_os(REPOSITORY) {
        return as_a_normal_user(&PathBuf::from(folder)).await;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only the superuser can make files of others");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (source, store) = (folder.path().join("source"), folder.path().join("store"));
    for (name, mode) in [("", 0o755), ("source", 0o755), ("source/closed", 0o555), ("source/closed/in", 0o755)] {
        fs::create_dir_all(folder.path().join(name)).expect("made");
        fs::set_permissions(folder.path().join(name), PermissionsExt::from_mode(mode)).expect("set");
    }
    for (name, mode, owner) in [
        ("mine", 0o644, NOBODY),
        ("theirs", 0o640, 1234),
        ("program", 0o4755, 1234),
        ("closed/in/unreadable", 0o000, NOBODY),
        ("closed/file", 0o444, NOBODY),
    ] {
        fs::write(source.join(name), name).expect("written");
        std::os::unix::fs::chown(source.join(name), Some(owner), Some(owner)).expect("given");
        fs::set_permissions(source.join(name), PermissionsExt::from_mode(mode)).expect("set");
    }
    let objects = object_store::local::LocalFileSystem::new_with_prefix({
        fs::create_dir(&store).expect("made");
        &store
    });
    let repository = create(Arc::new(objects.expect("a store"))).await;
    back_up(&repository, &source).await;
    let device = rustix::fs::makedev(1, 3);
    let kind = rustix::fs::FileType::CharacterDevice;
    let made = rustix::fs::mknodat(rustix::fs::CWD, source.join("device"), kind, 0o600.into(), device);
    let with_device = BackupOptions { branch: "device".into(), ..BackupOptions::default() };
    let backed_up = backup(&repository, &source, with_device, Arc::new(NoObserver)).await;
    assert_eq!(backed_up.expect("a backup").outcome, BackupOutcome::Done);
    let itself = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().expect("a folder");
    let program = itself.path().join("test");
    fs::copy(std::env::current_exe().expect("a program"), &program).expect("copied");
    let outcome = std::process::Command::new(program)
        .args(["--exact", AS_NOBODY, "--nocapture"])
        .env(REPOSITORY, &store)
        .env("GHOSTSYNC_TEST_DEVICE", if made.is_ok() { "1" } else { "0" })
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&outcome.stdout).into_owned() + &String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success() && said.contains("1 passed"), "{said}");
}

async fn as_a_normal_user(store: &Path) {
    let objects = object_store::local::LocalFileSystem::new_with_prefix(store).expect("a store");
    let repository = open(Arc::new(objects)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (destination, receipt) = (folder.path().join("destination"), folder.path().join("receipt.json"));
    let has_device = std::env::var_os("GHOSTSYNC_TEST_DEVICE").is_some_and(|made| made == "1");
    if has_device {
        let options = RestoreOptions { branch: "device".into(), receipt: Some(receipt.clone()), ..changed() };
        let report = run(&repository, &destination, options).await.expect("a restore");
        assert!(!receipt.exists());
        let incomplete: Vec<_> = report.problems.iter().filter(|problem| problem.incomplete).collect();
        assert!(incomplete.len() == 1 && incomplete[0].path == path("device"), "{incomplete:?}");
    }
    for round in 0..2 {
        let options = RestoreOptions { receipt: Some(receipt.clone()), ..changed() };
        let report = run(&repository, &destination, options).await.expect("a restore");
        assert!(report.problems.len() <= 1 && report.problems.iter().all(|problem| !problem.incomplete), "{report:?}");
        assert!(round == 0 || report.written == 0, "{report:?}");
        assert!(Receipt::load(&receipt).is_ok());
    }
    let mode = |name: &str| fs::symlink_metadata(destination.join(name)).expect("there").mode() & 0o7777;
    let modes: BTreeMap<_, _> =
        ["closed", "closed/in/unreadable", "closed/file", "theirs", "program"].map(|name| (name, mode(name))).into();
    let expected = [("closed", 0o555), ("closed/in/unreadable", 0), ("closed/file", 0o444), ("theirs", 0o640)];
    for (name, mode) in expected {
        assert_eq!(modes[name], mode, "{name}");
    }
    assert_eq!(modes["program"], 0o755, "a program never runs as somebody else");
    fs::set_permissions(destination.join("closed"), PermissionsExt::from_mode(0o755)).expect("set");
}

#[tokio::test]
async fn progress_adds_up() {
    #[derive(Default)]
    struct Sums {
        planned: std::sync::Mutex<Option<(u64, u64)>>,
        files: std::sync::atomic::AtomicU64,
        bytes: std::sync::atomic::AtomicU64,
        transferred: std::sync::atomic::AtomicU64,
        listed: AtomicBool,
    }
    impl Observer for Sums {
        fn progress(&self, progress: Progress) {
            match progress {
                Progress::Planned { files, bytes } => *self.planned.lock().expect("a lock") = Some((files, bytes)),
                Progress::Advanced { files, bytes } => {
                    self.files.fetch_add(files, Ordering::SeqCst);
                    self.bytes.fetch_add(bytes, Ordering::SeqCst);
                }
                Progress::Transferred { bytes } => {
                    self.transferred.fetch_add(bytes, Ordering::SeqCst);
                }
                _ => self.listed.store(true, Ordering::SeqCst),
            }
        }
    }
    let sample = Sample::new().await;
    for options in [RestoreOptions::default(), changed(), mirror()] {
        let sums = Arc::new(Sums::default());
        let observer = Arc::clone(&sums) as Arc<dyn Observer>;
        let report = restore(&sample.repository, &sample.destination(), options, observer).await.expect("a restore");
        let done = (sums.files.load(Ordering::SeqCst), sums.bytes.load(Ordering::SeqCst));
        assert_eq!(*sums.planned.lock().expect("a lock"), Some(done));
        assert_eq!(sums.transferred.load(Ordering::SeqCst), report.block_bytes);
        assert!(sums.listed.load(Ordering::SeqCst));
    }
}

/// Backs up while a file is written to, until it was written to while it was read.
async fn back_up_unstable(sample: &Sample, name: &str) {
    let restless = Restless::begin(&sample.source.path().join(name)).expect("opened");
    for _ in 0..1000 {
        let options = BackupOptions::default();
        let report = backup(&sample.repository, sample.source.path(), options, Arc::new(NoObserver)).await;
        if report.expect("a backup").problems.iter().any(|problem| problem.path == path(name)) {
            return drop(restless);
        }
    }
    panic!("it never changed while it was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_changed_while_the_snapshot_was_made_are_named() {
    let sample = Sample::of(|source| {
        fs::write(source.join("calm"), b"still").and(fs::write(source.join("hot"), noise(7, 4 << 20)))
    })
    .await;
    complete(&sample.restore(RestoreOptions::default()).await.expect("a restore"));
    back_up_unstable(&sample, "hot").await;
    // Whatever is done with it: written, looked at, or found as it is.
    for (dry_run, written) in [(true, 1), (false, 1), (false, 0)] {
        let report = sample.restore(RestoreOptions { dry_run, ..mirror() }).await.expect("a restore");
        complete(&report);
        assert_eq!((report.written, report.unstable.count), (written, 1));
        assert_eq!(report.unstable.paths, [path("hot")]);
    }
    let report = sample.restore(RestoreOptions { include: vec![path("calm")], ..changed() }).await.expect("a restore");
    assert_eq!(report.unstable, Unstable::default(), "it is not restored");

    back_up(&sample.repository, sample.source.path()).await;
    let report = sample.restore(mirror()).await.expect("a restore");
    assert_eq!(report.unstable, Unstable::default(), "it was read again when it was still");
}
