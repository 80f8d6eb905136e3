//! Backups that were cut short and are run again: what was acknowledged is not uploaded again, and what is still on
//! its way does no harm, whenever it arrives.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, backup};
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::observer::{NoObserver, Observer, Progress};
use ghostsync_core::receipt::Receipt;
use ghostsync_core::repository::{OpenOptions, Repository, State};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::{Store, keys};
use ghostsync_core::testing::fault::{Call, Fault, FaultStore, Operation};
use ghostsync_core::testing::tree::{differences, noise};
use ghostsync_core::{ErrorKind, Result};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::restoring::{create, quick_folder};

const MIB: usize = 1 << 20;

/// A source, a repository and a cache.
struct Bench {
    folder: tempfile::TempDir,
    objects: Arc<InMemory>,
}

impl Bench {
    /// With so many files of 1 MiB, 16 of which fill a pack.
    async fn with_files(files: u64) -> Self {
        let folder = quick_folder();
        let objects = Arc::new(InMemory::new());
        create(objects.clone()).await;
        fs::create_dir(folder.path().join("source")).expect("a folder");
        let bench = Self { folder, objects };
        for file in 0..files {
            bench.write(&format!("{file:04}"), noise(file, MIB));
        }
        bench
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn receipt(&self) -> PathBuf {
        self.folder.path().join("receipt")
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.source().join(name), content).expect("a file");
    }

    /// A repository of these objects, that knows what a cache holds.
    async fn open(&self, objects: Arc<dyn ObjectStore>, cache: &Path) -> Result<Repository> {
        let store = Store::new(objects, "memory").with_settle_time(Duration::from_millis(200));
        Repository::open(store, OpenOptions { cache_dir: Some(cache.to_owned()) }).await
    }

    async fn run(&self, objects: Arc<dyn ObjectStore>, options: BackupOptions) -> Result<BackupReport> {
        let repository = self.open(objects, &self.cache()).await?;
        backup(&repository, &self.source(), options, Arc::new(NoObserver)).await
    }

    async fn again(&self) -> BackupReport {
        self.run(self.objects.clone(), BackupOptions::default()).await.expect("a backup")
    }

    /// With this cache, on a copy of the objects; returns that too.
    async fn again_on_a_copy(&self, cache: &Path) -> (BackupReport, Arc<InMemory>) {
        let objects = Arc::new(self.objects.fork());
        let repository = self.open(objects.clone(), cache).await.expect("a repository");
        let ran = backup(&repository, &self.source(), BackupOptions::default(), Arc::new(NoObserver)).await;
        (ran.expect("a backup"), objects)
    }

    /// A backup that gets no answer to its packs from the n-th on, and stops when all before are acknowledged
    /// and that one is on its way. Returns the names of all that it sent.
    async fn cut_after(&self, packs: u32) -> BTreeSet<Key> {
        let interrupt = Interrupt::default();
        let stop = Arc::new(StopAfter { left: AtomicU32::new(packs + 1), interrupt: interrupt.clone() });
        let sent = Arc::new(Mutex::new(BTreeSet::new()));
        let (seen, at_last) = (Arc::clone(&sent), Arc::clone(&stop));
        let store = FaultStore::new(self.objects.clone(), move |call| {
            let number = pack_number(call)?;
            seen.lock().expect("no panic").insert(call.key.clone());
            if number == packs {
                at_last.count();
            }
            (number >= packs).then_some(Fault::Never)
        });
        let repository = self.open(Arc::new(store), &self.cache()).await.expect("a repository");
        let options = BackupOptions { interrupt, ..BackupOptions::default() };
        let cut = backup(&repository, &self.source(), options, stop).await;
        assert_eq!(cut.expect_err("cut").kind(), ErrorKind::Interrupted);
        let sent = sent.lock().expect("no panic").clone();
        assert!(sent.len() > packs as usize, "one was on its way: {sent:?}");
        sent
    }

    /// The one journal of a cache, if there is one.
    fn journal(cache: &Path) -> Option<PathBuf> {
        let repository = fs::read_dir(cache).expect("a cache").next().expect("of a repository").expect("listed").path();
        let mut journals = fs::read_dir(repository.join("journal")).into_iter().flatten();
        let journal = journals.next().map(|journal| journal.expect("listed").path());
        assert!(journals.next().is_none(), "one journal for one branch and source");
        journal
    }

    fn copied_cache(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        copy(&self.cache(), &to);
        to
    }

    /// Another writer makes a snapshot of a small directory.
    async fn another_commits(&self, branch: &str) {
        let folder = quick_folder();
        fs::write(folder.path().join("other"), "other").expect("a file");
        let options = BackupOptions { branch: branch.to_owned(), ..BackupOptions::default() };
        let repository =
            self.open(self.objects.clone(), &self.folder.path().join("another cache")).await.expect("a repository");
        let ran = backup(&repository, folder.path(), options, Arc::new(NoObserver)).await;
        assert_eq!(ran.expect("a backup").outcome, BackupOutcome::Done);
    }

    async fn state(&self) -> State {
        state(&self.objects).await
    }

    async fn assert_newest_restores(&self, objects: &Arc<InMemory>) {
        let back = quick_folder();
        let store = Store::new(objects.clone(), "memory");
        let repository = Repository::open(store, OpenOptions::default()).await.expect("a repository");
        let restored =
            restore(&repository, &back.path().join("back"), RestoreOptions::default(), Arc::new(NoObserver)).await;
        assert!(restored.expect("restored").problems.is_empty());
        let differences = differences(&self.source(), &back.path().join("back"));
        assert!(differences.is_empty(), "{differences:#?}");
    }
}

struct StopAfter {
    left: AtomicU32,
    interrupt: Interrupt,
}

impl StopAfter {
    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.interrupt.set();
        }
    }
}

impl Observer for StopAfter {
    fn progress(&self, progress: Progress) {
        if matches!(progress, Progress::Transferred { .. }) {
            self.count();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).expect("copied");
        }
    }
}

/// The number of the data pack that is sent; a pack of pages comes after every one.
fn pack_number(call: &Call) -> Option<u32> {
    let name = call.key.as_ref().strip_prefix("packs/")?;
    let is_sent = matches!(call.operation, Operation::Put | Operation::Create);
    match name.rsplit('/').next().filter(|_| is_sent)?.split_once('.')? {
        (number, "data") => number.parse().ok(),
        _ => Some(u32::MAX),
    }
}

fn is_commit(call: &Call) -> bool {
    call.operation == Operation::Create && call.key.as_ref().starts_with("log/")
}

async fn state(objects: &Arc<InMemory>) -> State {
    let store = Store::new(objects.clone(), "memory");
    let repository = Repository::open(store, OpenOptions::default()).await.expect("a repository");
    repository.state().await.expect("a state")
}

/// Commits a floor as a prune does: sessions that began with the head of now are above it, older ones are not.
async fn raise_floor(objects: &Arc<InMemory>) {
    let State { commit, hash } = state(objects).await;
    let seq = commit.seq + 1;
    let raised = ghostsync_core::format::commit::Commit { seq, prev: hash, session_floor: commit.seq, ..commit };
    objects.put(&keys::commit(seq), raised.encode().expect("encoded").into()).await.expect("put");
}

/// What a prune may do when a floor above their begin is in the log.
async fn delete(objects: &Arc<InMemory>, packs: &BTreeSet<Key>) {
    for pack in packs {
        drop(objects.delete(pack).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_cut_at_nine_tenths_uploads_the_last_from_the_same_or_a_copied_cache() {
    /// Of 4, 4, 4, 6, 9, 14 MiB, and seven of 16: all but 7 of 160.
    const SENT: u32 = 13;
    let bench = Bench::with_files(160).await;
    let sent = bench.cut_after(SENT).await;
    let copied = bench.copied_cache("copied");
    for cache in [copied, bench.cache()] {
        let (report, objects) = bench.again_on_a_copy(&cache).await;
        assert_eq!(report.outcome, BackupOutcome::Done);
        assert!(report.uploaded_bytes <= report.bytes / 10, "{} of {}", report.uploaded_bytes, report.bytes);
        let packs: Vec<Key> =
            objects.list(Some(&keys::packs())).map_ok(|pack| pack.location).try_collect().await.expect("listed");
        assert_eq!(packs.len(), SENT as usize + 3, "the last 7 MiB in two, and the pages: {packs:?}");
        let again: Vec<&Key> = packs.iter().filter(|pack| sent.contains(pack)).collect();
        assert_eq!(again.len(), SENT as usize, "no name that was not acknowledged is used again: {again:?}");
        assert_eq!(Bench::journal(&cache), None);
        bench.assert_newest_restores(&objects).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_cache_everything_is_uploaded_again() {
    let bench = Bench::with_files(40).await;
    bench.cut_after(1).await;
    let (report, _) = bench.again_on_a_copy(&bench.folder.path().join("empty")).await;
    assert!(report.uploaded_bytes > report.bytes, "{} of {}", report.uploaded_bytes, report.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_nothing_is_taken_up_whether_it_rose_before_or_meanwhile() {
    let bench = Bench::with_files(40).await;
    let sent = bench.cut_after(2).await;
    bench.another_commits("other").await;
    let meanwhile = bench.copied_cache("meanwhile");

    let objects = Arc::new(bench.objects.fork());
    raise_floor(&objects).await;
    let report = bench.run(objects.clone(), BackupOptions::default()).await.expect("a backup");
    assert!(report.uploaded_bytes > report.bytes, "{} of {}", report.uploaded_bytes, report.bytes);
    delete(&objects, &sent).await;
    bench.assert_newest_restores(&objects).await;

    let objects = Arc::new(bench.objects.fork());
    let (pruned, is_raised) = (Arc::clone(&objects), AtomicBool::new(false));
    let store = FaultStore::new(objects.clone(), move |call| {
        if is_commit(call) && !is_raised.swap(true, Ordering::SeqCst) {
            futures::executor::block_on(raise_floor(&pruned));
        }
        None
    });
    let repository = bench.open(Arc::new(store), &meanwhile).await.expect("a repository");
    let report = backup(&repository, &bench.source(), BackupOptions::default(), Arc::new(NoObserver)).await;
    let report = report.expect("a backup");
    assert!(report.uploaded_bytes > report.bytes, "{} of {}", report.uploaded_bytes, report.bytes);
    delete(&objects, &sent).await;
    bench.assert_newest_restores(&objects).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_below_what_the_journal_built_on_was_rolled_back() {
    let bench = Bench::with_files(1).await;
    assert_eq!(bench.again().await.outcome, BackupOutcome::Done);
    bench.write("more", "more");
    bench.late(None).await;
    bench.objects.delete(&keys::commit(1)).await.expect("deleted");
    // The head that was cached says so too.
    let cached =
        fs::read_dir(bench.cache()).expect("a cache").next().expect("one").expect("listed").path().join("head");
    fs::remove_file(cached).expect("removed");
    let ran = bench.run(bench.objects.clone(), BackupOptions::default()).await;
    assert_eq!(ran.expect_err("rolled back").kind(), ErrorKind::Corrupt);
}

impl Bench {
    /// A backup whose commit is on its way when it is given up: nothing of it is in the log yet.
    async fn late(&self, receipt: Option<PathBuf>) -> FaultStore {
        let before = self.state().await.commit.seq;
        let store = FaultStore::new(self.objects.clone(), |call| is_commit(call).then_some(Fault::Late));
        let options = BackupOptions { receipt, ..BackupOptions::default() };
        let ran = self.run(Arc::new(store.clone()), options).await;
        assert_eq!(ran.expect_err("no answer").kind(), ErrorKind::Unknown);
        assert_eq!(self.state().await.commit.seq, before);
        assert!(Self::journal(&self.cache()).is_some());
        store
    }
}

/// When the commit of the run that was cut short arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lands {
    Before,
    /// After the next run has read the head, and right before it creates its own commit.
    While,
    After,
}

/// What happens to the source between the two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    MoreChanges,
    /// It is again what the parent has.
    Undone,
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_commit_on_its_way_and_the_one_of_the_next_run_exactly_one_gets_the_number() {
    for with_receipt in [false, true] {
        for then in [Then::Nothing, Then::MoreChanges, Then::Undone] {
            for lands in [Lands::Before, Lands::While, Lands::After] {
                let case = format!("{lands:?} {then:?} {with_receipt}");
                assert_one_of_two(with_receipt, then, lands, &case).await;
            }
        }
    }
}

async fn assert_one_of_two(with_receipt: bool, then: Then, lands: Lands, case: &str) {
    let bench = Bench::with_files(1).await;
    let first = bench.again().await.snapshot;
    let receipt = with_receipt.then(|| bench.receipt());
    if let Some(receipt) = &receipt {
        fs::remove_dir_all(bench.source()).expect("removed");
        let repository = bench.open(bench.objects.clone(), &bench.cache()).await.expect("a repository");
        let options = RestoreOptions { receipt: Some(receipt.clone()), ..RestoreOptions::default() };
        let restored = restore(&repository, &bench.source(), options, Arc::new(NoObserver)).await.expect("restored");
        assert!(restored.problems.is_empty());
    }
    let source = fs::File::open(bench.source()).expect("a folder");
    let modified = source.metadata().and_then(|metadata| metadata.modified()).expect("a time");
    bench.write("new", "new");
    let late = bench.late(receipt.clone()).await;
    match then {
        Then::Nothing => {}
        Then::MoreChanges => bench.write("more", "more"),
        Then::Undone => {
            fs::remove_file(bench.source().join("new")).expect("removed");
            source.set_times(fs::FileTimes::new().set_modified(modified)).expect("set");
        }
    }
    if lands == Lands::Before {
        assert!(late.land().await.remove(0).is_ok());
    }
    let arriving = late.clone();
    let store = FaultStore::new(bench.objects.clone(), move |call| {
        if lands == Lands::While && is_commit(call) {
            futures::executor::block_on(arriving.land());
        }
        None
    });
    let options = BackupOptions { receipt: receipt.clone(), ..BackupOptions::default() };
    let report = bench.run(Arc::new(store), options).await.unwrap_or_else(|error| panic!("{case}: {error}"));
    if lands == Lands::After {
        let landed = late.land().await;
        assert!(!landed.is_empty() && landed.iter().all(|answer| answer.is_err()), "{case}: {landed:?}");
    }

    let state = bench.state().await;
    let main: Vec<_> = state.snapshots_of("main").collect();
    assert_eq!(main.len(), state.commit.snapshots.len(), "{case}: no fork from itself");
    assert_eq!((main[0].id, main.last().map(|head| head.id)), (first.expect("one"), report.snapshot), "{case}");
    let chain = main.windows(2).all(|pair| pair[1].parent == Some(pair[0].id));
    assert!(chain, "{case}: {main:?}");
    // The work of the first run is done once: by its own commit, or by the one that took its number.
    let (outcome, snapshots) = match (lands, then) {
        (Lands::Before | Lands::While, Then::Nothing) => (BackupOutcome::Unchanged, 2),
        (Lands::Before | Lands::While, _) => (BackupOutcome::Done, 3),
        (Lands::After, _) => (BackupOutcome::Done, 2),
    };
    assert_eq!((report.outcome, main.len()), (outcome, snapshots), "{case}");
    assert_eq!(Bench::journal(&bench.cache()), None, "{case}");
    if let Some(receipt) = &receipt {
        let receipt = Receipt::load(receipt).expect("a receipt");
        assert_eq!((receipt.snapshot, receipt.pending), (report.snapshot, None), "{case}");
    }
    bench.assert_newest_restores(&bench.objects).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_lost_to_another_writer_leaves_its_packs_to_the_next_run() {
    let bench = Bench::with_files(1).await;
    let late = bench.late(None).await;
    bench.another_commits("main").await;
    assert!(late.land().await.iter().all(|answer| answer.is_err()));
    let report = bench.again().await;
    assert!(report.uploaded_bytes < report.bytes / 5, "{} of {}", report.uploaded_bytes, report.bytes);
    assert_eq!(bench.state().await.commit.seq, 2);
    bench.assert_newest_restores(&bench.objects).await;
}

/// Where each record of a journal begins, and where the last one ends.
fn records(journal: &[u8]) -> Vec<usize> {
    let mut bounds = vec![0];
    while let Some(length) = journal.get(bounds[bounds.len() - 1] + 32..) {
        let Some(length) = length.first_chunk::<4>() else { break };
        bounds.push(bounds[bounds.len() - 1] + 36 + u32::from_le_bytes(*length) as usize);
    }
    bounds
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_damaged_anywhere_costs_time_alone() {
    let bench = Bench::with_files(6).await;
    bench.late(None).await;
    let path = Bench::journal(&bench.cache()).expect("a journal");
    let whole = fs::read(&path).expect("a journal");
    let bounds = records(&whole);
    assert_eq!(bounds.len(), 5, "begin, two packs, a commit");
    // Whichever of the two was acknowledged first; that of more chunks has the longer record.
    let first_mib = if bounds[2] - bounds[1] > bounds[3] - bounds[2] { 4 } else { 2 };
    let mut uploaded = BTreeSet::new();
    for (number, bounds) in bounds.windows(2).enumerate() {
        for (how, damaged) in [
            ("cut before it", whole[..bounds[0]].to_vec()),
            ("cut in it", whole[..(bounds[0] + bounds[1]) / 2].to_vec()),
            ("flipped in it", {
                let mut flipped = whole.clone();
                flipped[(bounds[0] + bounds[1]) / 2] ^= 1;
                flipped
            }),
            ("without it", [&whole[..bounds[0]], &whole[bounds[1]..]].concat()),
        ] {
            let case = format!("record {number} {how}");
            let cache = bench.copied_cache(&case);
            fs::write(Bench::journal(&cache).expect("copied"), damaged).expect("damaged");
            let (report, objects) = bench.again_on_a_copy(&cache).await;
            assert_eq!(report.outcome, BackupOutcome::Done, "{case}");
            assert_eq!(state(&objects).await.commit.snapshots.len(), 1, "{case}");
            let kept = [0, 0, first_mib, 6][number];
            let expected = report.bytes - kept * MIB as u64;
            assert!((expected..expected + MIB as u64 / 2).contains(&report.uploaded_bytes), "{case}: {report:?}");
            uploaded.insert(report.uploaded_bytes / MIB as u64);
            bench.assert_newest_restores(&objects).await;
            fs::remove_dir_all(cache).expect("removed");
        }
    }
    assert_eq!(uploaded.len(), 3, "{uploaded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runs_on_one_cache_the_second_works_without_the_journal() {
    let bench = Bench::with_files(1).await;
    let is_reached = Arc::new(tokio::sync::Notify::new());
    let reached = Arc::clone(&is_reached);
    let store = FaultStore::new(bench.objects.clone(), move |call| {
        pack_number(call).map(|_| {
            reached.notify_one();
            Fault::Never
        })
    });
    let interrupt = Interrupt::default();
    let options = BackupOptions { interrupt: interrupt.clone(), ..BackupOptions::default() };
    let first = bench.run(Arc::new(store), options);
    let second = async {
        is_reached.notified().await;
        let report = bench.again().await;
        assert!(report.outcome == BackupOutcome::Done && report.uploaded_bytes > report.bytes, "{report:?}");
        assert!(Bench::journal(&bench.cache()).is_some(), "it is the first one's");
        interrupt.set();
    };
    let (first, ()) = futures::join!(first, second);
    assert_eq!(first.expect_err("interrupted").kind(), ErrorKind::Interrupted);
    assert_eq!(bench.again().await.outcome, BackupOutcome::Unchanged);
    assert_eq!(Bench::journal(&bench.cache()), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_that_took_up_copies_of_one_journal_do_the_work_once() {
    let bench = Arc::new(Bench::with_files(1).await);
    let late = bench.late(None).await;
    let copied = bench.copied_cache("copied");
    let (first, is_over) = (Arc::clone(&bench), AtomicBool::new(false));
    let store = FaultStore::new(bench.objects.clone(), move |call| {
        if is_commit(call) && !is_over.swap(true, Ordering::SeqCst) {
            let first = Arc::clone(&first);
            let ran = std::thread::spawn(move || {
                tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("one").block_on(first.again())
            });
            assert_eq!(ran.join().expect("ends").outcome, BackupOutcome::Done);
        }
        None
    });
    let repository = bench.open(Arc::new(store), &copied).await.expect("a repository");
    let second = backup(&repository, &bench.source(), BackupOptions::default(), Arc::new(NoObserver)).await;
    let second = second.expect("a backup");
    assert!(second.uploaded_bytes < second.bytes / 5, "{second:?}");
    let state = bench.state().await;
    assert_eq!((second.outcome, state.commit.seq), (BackupOutcome::Unchanged, 1));
    assert_eq!(second.snapshot, state.commit.head("main").map(|head| head.id));
    assert!(late.land().await.iter().all(|answer| answer.is_err()));
    bench.assert_newest_restores(&bench.objects).await;
}
