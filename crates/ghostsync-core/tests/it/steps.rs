//! Backups that last for days: what they have so far is kept in steps, is not uploaded again, and is nowhere missing in
//! the end, whatever is forgotten, pruned or killed in between.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, backup};
use ghostsync_core::clock::Clock;
use ghostsync_core::format::commit::{Commit, Snapshot};
use ghostsync_core::format::config::CommitMode;
use ghostsync_core::guard::{Cap, Policy};
use ghostsync_core::maintain::{CheckOptions, ForgetOptions, KeepRules, PruneOptions, check, forget, prune};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, Selector, State, promote};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::{Store, keys};
use ghostsync_core::testing::fault::{Call, Failure, Fault, FaultStore, Operation};
use ghostsync_core::testing::tree::{differences, noise};
use ghostsync_core::{ErrorKind, Result};
use jiff::{SignedDuration, Timestamp};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::restoring::quick_folder;

const WIP: &str = "wip/main/writer";
const FILE_BYTES: usize = 3000;

/// A clock that is an hour further whenever somebody looks: a backup looks when it reads a file, and after each entry.
#[derive(Debug)]
struct Hasty(AtomicI64);

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        day(0) + SignedDuration::from_hours(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// A clock that the store moves.
#[derive(Debug, Default)]
struct Moved(AtomicU64);

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        day(0) + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

/// A clock that stands still.
#[derive(Debug)]
struct Stands(Timestamp);

impl Clock for Stands {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn day(number: i64) -> Timestamp {
    let first: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
    first + SignedDuration::from_hours(24 * number)
}

fn hasty() -> BackupOptions {
    BackupOptions { clock: Arc::new(Hasty(AtomicI64::new(0))), ..BackupOptions::default() }
}

struct Bench {
    folder: tempfile::TempDir,
    objects: Arc<InMemory>,
}

impl Bench {
    /// With so many files whose names begin with `m`.
    async fn with_files(files: u64, mode: CommitMode) -> Self {
        let bench = Self { folder: quick_folder(), objects: Arc::new(InMemory::new()) };
        let create = CreateOptions { skip_probe: true, commit_mode: mode, ..CreateOptions::default() };
        let store = Store::new(bench.objects.clone(), "memory");
        Repository::create(store, create, OpenOptions::default()).await.expect("a new repository");
        fs::create_dir(bench.source()).expect("a folder");
        for file in 0..files {
            bench.write(&format!("m{file:03}"), file);
        }
        bench
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn write(&self, name: &str, seed: u64) {
        fs::write(self.source().join(name), noise(seed, FILE_BYTES)).expect("a file");
    }

    async fn run(&self, store: FaultStore, options: BackupOptions) -> Result<BackupReport> {
        self.run_with(store, options, None).await
    }

    async fn run_with(
        &self,
        store: FaultStore,
        options: BackupOptions,
        cache_dir: Option<PathBuf>,
    ) -> Result<BackupReport> {
        let store = Store::new(Arc::new(store), "memory").with_settle_time(Duration::from_millis(100));
        let repository = Repository::open(store, OpenOptions { cache_dir }).await?;
        backup(&repository, &self.source(), options, Arc::new(NoObserver)).await
    }

    fn sound(&self) -> FaultStore {
        FaultStore::new(self.objects.clone(), |_| None)
    }

    /// A backup that is killed when it has made so many steps.
    async fn killed_after(&self, steps: usize, cache_dir: Option<PathBuf>) {
        let commits = AtomicUsize::new(0);
        let killed = FaultStore::new(self.objects.clone(), move |call| {
            let is_over = is_commit(call) && commits.fetch_add(1, Ordering::SeqCst) >= steps;
            is_over.then_some(Fault::Before(Failure::Denied))
        });
        let killed = self.run_with(killed, hasty(), cache_dir).await.expect_err("killed");
        assert_eq!(killed.kind(), ErrorKind::Denied);
        assert_eq!(steps_of(&self.state().await).len(), steps);
    }

    /// A store on which something is done after each of the first steps, before anything else is uploaded.
    fn after_steps(&self, steps: usize, act: fn(&Arc<InMemory>)) -> FaultStore {
        let (objects, seen) = (self.objects.clone(), Mutex::new(0));
        FaultStore::new(self.objects.clone(), move |call| {
            if call.operation == Operation::Put && call.key.as_ref().starts_with("packs/") {
                let mut seen = seen.lock().expect("no panic");
                let (objects, before) = (objects.clone(), *seen);
                let look = move || {
                    let mut made = 0;
                    block_on(async { made = steps_of(&open(&objects).await.state().await.expect("a state")).len() });
                    if made > before && made <= steps {
                        act(&objects);
                    }
                    made
                };
                *seen = before.max(std::thread::spawn(look).join().expect("it ends"));
            }
            None
        })
    }

    async fn repository(&self) -> Repository {
        open(&self.objects).await
    }

    async fn state(&self) -> State {
        self.repository().await.state().await.expect("a state")
    }

    /// The branch has the directory as it is, nothing is left of any step, and nothing is missing or damaged.
    async fn assert_whole(&self, case: &str) {
        let state = self.state().await;
        let head = state.commit.head("main").unwrap_or_else(|| panic!("{case}: no head"));
        assert!(head.complete, "{case}");
        assert!(state.commit.branches.keys().all(|branch| branch == "main"), "{case}: {:?}", state.commit.branches);
        self.assert_sound(case).await;
        let back = self.folder.path().join("back");
        drop(fs::remove_dir_all(&back));
        let options = RestoreOptions { snapshot: Selector::Id(head.id.to_string()), ..RestoreOptions::default() };
        let restored = restore(&self.repository().await, &back, options, Arc::new(NoObserver)).await;
        let restored = restored.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(restored.problems.is_empty(), "{case}: {:?}", restored.problems);
        let differences = differences(&self.source(), &back);
        assert!(differences.is_empty(), "{case}: {differences:#?}");
    }

    async fn assert_sound(&self, case: &str) {
        let report = check(&self.repository().await, CheckOptions::default(), &NoObserver).await.expect("a check");
        assert!(report.damage.is_empty(), "{case}: {:?}", report.damage);
    }
}

async fn open(objects: &Arc<InMemory>) -> Repository {
    Repository::open(Store::new(objects.clone(), "memory"), OpenOptions::default()).await.expect("a repository")
}

fn is_commit(call: &Call) -> bool {
    matches!(call.operation, Operation::Create | Operation::Put) && call.key.as_ref().starts_with("log/")
}

fn steps_of(state: &State) -> Vec<Snapshot> {
    state.snapshots_of(WIP).cloned().collect()
}

fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work);
}

/// A prune for which everybody is idle.
async fn prune_at_once(objects: &Arc<InMemory>) {
    let options = PruneOptions { grace: Duration::ZERO, session_idle: Duration::ZERO, ..PruneOptions::default() };
    let _ = prune(&open(objects).await, options, Arc::new(NoObserver)).await.expect("a prune");
}

/// Commits a floor, and lets a prune that sets none delete what may be deleted.
async fn raise_floor(objects: &Arc<InMemory>, raised: Commit) {
    objects.put(&keys::commit(raised.seq), raised.encode().expect("encoded").into()).await.expect("put");
    let idle = Duration::from_secs(1_000_000_000);
    let options = PruneOptions { grace: Duration::ZERO, session_idle: idle, ..PruneOptions::default() };
    let report = prune(&open(objects).await, options, Arc::new(NoObserver)).await.expect("a prune");
    assert!(report.deleted_packs > 0, "{report:?}");
}

/// Another writer goes on for so long that a `forget` drops the steps.
async fn forget_the_steps(objects: &Arc<InMemory>) {
    let repository = open(objects).await;
    let other = quick_folder();
    fs::write(other.path().join("other"), "other").expect("a file");
    let clock: Arc<dyn Clock> = Arc::new(Stands(day(30)));
    let options = BackupOptions { writer: "other".into(), clock: clock.clone(), ..BackupOptions::default() };
    let _ = backup(&repository, other.path(), options, Arc::new(NoObserver)).await.expect("a backup");
    let keep = KeepRules { last: 1, ..KeepRules::default() };
    let options = ForgetOptions { keep, clock, protect: Duration::ZERO, exclusive: true, ..ForgetOptions::default() };
    let forgotten = forget(&repository, &options).await.expect("forgotten");
    assert_eq!(forgotten.plan.branches, [WIP]);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_incomplete_follow_each_other_and_restore_what_they_hold() {
    let bench = Bench::with_files(40, CommitMode::Atomic).await;
    fs::hard_link(bench.source().join("m003"), bench.source().join("m004a")).expect("a link");
    fs::create_dir(bench.source().join("m005d")).expect("a folder");
    bench.write("m005d/file", 100);
    bench.killed_after(3, None).await;
    let state = bench.state().await;
    assert_eq!(state.commit.branches.keys().collect::<Vec<_>>(), [WIP]);
    let steps = steps_of(&state);
    let mut before: Option<&Snapshot> = None;
    for step in &steps {
        assert_eq!(
            (step.complete, step.onto.as_deref(), step.parent),
            (false, Some("main"), before.map(|step| step.id))
        );
        let (entries, session) = before.map_or((0, None), |before| (before.entries, Some(before.session)));
        assert!(step.entries > entries && session != Some(step.session), "{entries} {}", step.entries);
        assert_eq!((step.changes.added, step.changes.removed), (step.entries - entries, 0));
        before = Some(step);
    }
    for step in &steps {
        let (back, receipt) = (bench.folder.path().join("back"), bench.folder.path().join("receipt"));
        let snapshot = Selector::Id(step.id.to_string());
        let options = RestoreOptions { snapshot, receipt: Some(receipt.clone()), ..RestoreOptions::default() };
        let restored = restore(&bench.repository().await, &back, options, Arc::new(NoObserver)).await;
        let problems = restored.expect("restored").problems;
        assert!(problems.len() == 1 && problems[0].incomplete && !receipt.exists(), "{problems:?}");
        assert_eq!(assert_part(&back, &bench.source()), step.entries);
        fs::remove_dir_all(&back).expect("removed");
    }
    bench.assert_sound("three steps").await;
    let promoted = promote(&bench.repository().await, steps[2].id, "a person").await;
    assert_eq!(promoted.expect_err("it is a part").kind(), ErrorKind::Invalid);
}

/// Whatever is there is as it is in the whole; returns how much that is.
fn assert_part(part: &Path, whole: &Path) -> u64 {
    let mut entries = 0;
    for entry in fs::read_dir(part).expect("a folder") {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("listed");
        entries += 1;
        match path.is_dir() {
            true => entries += assert_part(&path, &whole.join(name)),
            false => assert_eq!(fs::read(path).expect("read"), fs::read(whole.join(name)).expect("read")),
        }
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_makes_steps_and_a_fast_one_none() {
    for (hours, made) in [(0, 0), (1, 0), (14, 2)] {
        let bench = Bench::with_files(3, CommitMode::Atomic).await;
        // Each is a pack of its own.
        for file in 0..3 {
            fs::write(bench.source().join(format!("m{file:03}")), noise(file, 17 << 20)).expect("a file");
        }
        let clock = Arc::new(Moved::default());
        let (moved, commits) = (clock.clone(), Arc::new(AtomicUsize::new(0)));
        let seen = commits.clone();
        let slow = FaultStore::new(bench.objects.clone(), move |call| {
            let is_data = call.operation == Operation::Put && call.key.as_ref().ends_with(".data");
            moved.0.fetch_add(if is_data { hours * 3600 } else { 0 }, Ordering::SeqCst);
            seen.fetch_add(usize::from(is_commit(call)), Ordering::SeqCst);
            None
        });
        let report = bench.run(slow, BackupOptions { clock, ..BackupOptions::default() }).await.expect("a backup");
        assert_eq!(report.outcome, BackupOutcome::Done);
        assert!(commits.load(Ordering::SeqCst).abs_diff(made + 1) <= made / 2, "{hours}: {commits:?}");
        bench.assert_whole("slow").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_two_steps_and_run_again_without_a_cache_it_uploads_only_the_rest() {
    for mode in [CommitMode::Atomic, CommitMode::Detect] {
        let bench = Bench::with_files(80, mode).await;
        bench.killed_after(2, None).await;
        let steps = steps_of(&bench.state().await);
        let report = bench.run(bench.sound(), BackupOptions::default()).await.expect("a backup");
        assert_eq!((report.outcome, report.branch.as_str(), report.parent), (BackupOutcome::Done, "main", None));
        let rest = report.bytes - steps[1].bytes;
        let (least, most) = (rest, rest + 20_000);
        assert!((least..most).contains(&report.uploaded_bytes), "{} of {rest}", report.uploaded_bytes);
        let state = bench.state().await;
        let head = state.commit.head("main").expect("a head");
        assert_eq!(head.reuses, [steps[1].id]);
        match mode {
            CommitMode::Atomic => {
                let dropped: Vec<_> = steps.iter().map(|step| step.id.to_string()).collect();
                assert_eq!(state.commit.op["dropped"], serde_json::json!(dropped));
                prune_at_once(&bench.objects).await;
                bench.assert_whole("in the end").await;
            }
            CommitMode::Detect => assert_eq!(steps_of(&state), steps, "a forget drops them"),
        }
        // What is done is not gone on from.
        bench.write("new", 1000);
        let report = bench.run(bench.sound(), BackupOptions::default()).await.expect("a backup");
        assert_eq!(bench.state().await.commit.head("main").expect("a head").reuses, []);
        assert_eq!(report.outcome, BackupOutcome::Done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_cache_the_journal_is_taken_up_besides_the_steps() {
    let bench = Bench::with_files(80, CommitMode::Atomic).await;
    let cache = bench.folder.path().join("cache");
    // It had uploaded all of the third step.
    bench.killed_after(2, Some(cache.clone())).await;
    let steps = steps_of(&bench.state().await);
    let report = bench.run_with(bench.sound(), BackupOptions::default(), Some(cache)).await.expect("a backup");
    let rest = report.bytes - steps[1].bytes - 2 * FILE_BYTES as u64;
    assert!(report.uploaded_bytes < rest, "{} of {rest}", report.uploaded_bytes);
    bench.assert_whole("in the end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_again_and_again_comes_to_an_end() {
    let bench = Bench::with_files(60, CommitMode::Atomic).await;
    for run in 1.. {
        let before = steps_of(&bench.state().await).len();
        let commits = AtomicUsize::new(0);
        let killed = FaultStore::new(bench.objects.clone(), move |call| {
            let is_over = is_commit(call) && commits.fetch_add(1, Ordering::SeqCst) >= 1;
            is_over.then_some(Fault::Before(Failure::Denied))
        });
        let ran = bench.run(killed, hasty()).await;
        let steps = steps_of(&bench.state().await);
        assert!(ran.is_ok() || steps.len() == before + 1, "run {run}");
        assert!(steps.is_sorted_by(|before, after| before.entries < after.entries), "{steps:#?}");
        if ran.is_ok() {
            assert!(run > 3, "it was to be killed: {run}");
            break;
        }
    }
    bench.assert_whole("in the end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prunes_that_count_everybody_as_idle_cost_what_came_after_the_last_step() {
    let bench = Bench::with_files(80, CommitMode::Atomic).await;
    // A prune that has nothing to delete sets no floor.
    let pruned = bench.after_steps(12, |objects| {
        block_on(async {
            let State { commit, hash } = open(objects).await.state().await.expect("a state");
            let raised = Commit { seq: commit.seq + 1, session_floor: commit.seq + 1, prev: hash, ..commit };
            objects.put(&keys::commit(raised.seq), raised.encode().expect("encoded").into()).await.expect("put");
            prune_at_once(objects).await;
        });
    });
    let report = bench.run(pruned, hasty()).await.expect("a backup");
    assert_eq!(report.outcome, BackupOutcome::Done);
    bench.assert_whole("in the end").await;
}

/// The floor is not above the begin of the session that goes on: only the steps themselves say that it may not commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_forgotten_meanwhile_is_not_built_on() {
    let bench = Bench::with_files(40, CommitMode::Atomic).await;
    let forgotten = bench.after_steps(1, |objects| {
        block_on(async {
            let begin = open(objects).await.state().await.expect("a state").commit.seq;
            forget_the_steps(objects).await;
            let State { commit, hash } = open(objects).await.state().await.expect("a state");
            raise_floor(objects, Commit { seq: commit.seq + 1, prev: hash, session_floor: begin, ..commit }).await;
        });
    });
    // The other's directory is not this one.
    let policy = Policy { max_delete: Cap::Percent(100), ..Policy::default() };
    let report = bench.run(forgotten, BackupOptions { policy, ..hasty() }).await.expect("a backup");
    assert_eq!(report.outcome, BackupOutcome::Done);
    bench.assert_whole("in the end").await;
}

/// What a run that was killed had uploaded may be referred to as long as its floor holds; a step raises the begin.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_knows_and_no_step_reaches_is_uploaded_again() {
    let bench = Bench::with_files(20, CommitMode::Atomic).await;
    let cache = bench.folder.path().join("cache");
    bench.killed_after(0, Some(cache.clone())).await;
    for file in 0..20 {
        fs::rename(bench.source().join(format!("m{file:03}")), bench.source().join(format!("z{file:03}")))
            .expect("moved");
        bench.write(&format!("a{file:03}"), 1000 + file);
    }
    let after = bench.after_steps(1, |objects| {
        block_on(async {
            let State { commit, hash } = open(objects).await.state().await.expect("a state");
            let session_floor = commit.seq;
            raise_floor(objects, Commit { seq: commit.seq + 1, prev: hash, session_floor, ..commit }).await;
        });
    });
    // One step, among the new files.
    let options = BackupOptions { wip_every: Duration::from_secs(3600 * 17), ..hasty() };
    let report = bench.run_with(after, options, Some(cache)).await.expect("a backup");
    assert_eq!(report.outcome, BackupOutcome::Done);
    bench.assert_whole("in the end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_a_backup_in_steps_may_fail() {
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    for fault in [
        Fault::Before(Failure::Timeout),
        Fault::Before(Failure::Exists),
        Fault::After(Failure::Server),
        Fault::After(Failure::Exists),
        Fault::FlippedBit,
    ] {
        for number in 0.. {
            let case = format!("{fault:?} at call {number}");
            let bench = Bench::with_files(30, CommitMode::Atomic).await;
            let faulty = FaultStore::at(bench.objects.clone(), number, fault);
            let ran = bench.run(faulty.clone(), hasty()).await;
            let state = bench.state().await;
            match &ran {
                Ok(report) => assert_eq!(report.outcome, BackupOutcome::Done, "{case}"),
                Err(error) if error.kind() == ErrorKind::Unknown => {}
                Err(error) => assert!(!state.commit.branches.contains_key("main"), "{case}: {error}"),
            }
            let outcome = ran.as_ref().map_or_else(|error| error.kind().name(), |_| "done");
            *outcomes.entry(outcome.to_owned()).or_default() += 1;
            bench.assert_sound(&case).await;
            let again = bench.run(bench.sound(), BackupOptions { force: true, ..hasty() }).await;
            assert_eq!(again.expect("a backup").outcome, BackupOutcome::Done, "{case}");
            bench.assert_whole(&case).await;
            if faulty.calls() <= number {
                assert!(number > 15, "{number} calls are too few for steps");
                break;
            }
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes["done"] > 0 && outcomes.len() > 2, "{outcomes:?}");
}

/// Whether a commit that lost a race may be taken over depends on all that its snapshot refers to.
#[tokio::test(flavor = "multi_thread")]
async fn in_mode_detect_a_late_snapshot_whose_steps_were_forgotten_is_void() {
    let bench = Bench::with_files(40, CommitMode::Detect).await;
    bench.killed_after(2, None).await;
    let elsewhere = Arc::new(bench.objects.fork());
    let store = FaultStore::new(elsewhere.clone(), |_| None);
    let late = bench.run(store, BackupOptions::default()).await.expect("a backup").snapshot.expect("made");
    forget_the_steps(&bench.objects).await;
    for object in elsewhere.list(None).try_collect::<Vec<_>>().await.expect("listed") {
        if bench.objects.head(&object.location).await.is_err() {
            let bytes = elsewhere.get(&object.location).await.expect("there").bytes().await.expect("read");
            bench.objects.put(&object.location, bytes.into()).await.expect("written");
        }
    }
    assert!(bench.state().await.commit.snapshot(late).is_none());
    let report = check(&bench.repository().await, CheckOptions::default(), &NoObserver).await.expect("a check");
    assert_eq!(report.void.len(), 1, "{report:?}");
}
