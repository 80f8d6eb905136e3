//! Pruning: what retained snapshots need stays, everything else goes, whatever happens in between.

mod draining;
mod emptying;
mod moving;
mod space;
pub(crate) mod support;

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ghostsync_core::ErrorKind;
use ghostsync_core::backup::BackupOutcome;
use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::maintain::PruneOptions;
use ghostsync_core::repository::{OpenOptions, Repository};
use ghostsync_core::store::{Store, StoreSettings, open_url};
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use ghostsync_core::testing::recording::{Operation as Recorded, RecordingStore};
use ghostsync_core::testing::tree::{TreeModel, apply, changes, tree};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestRunner};

use crate::restoring::quick_folder;
use support::{History, at_once, keys_of, open, packs_in, pruned, reachable, reachable_by_ids, run};

/// What happens to a repository.
#[derive(Debug, Clone)]
enum Event {
    /// The tree changes, and is backed up.
    BackUp(Vec<ghostsync_core::testing::tree::Change>, bool),
    /// A backup uploads its packs and is gone before it commits.
    Crash(Vec<ghostsync_core::testing::tree::Change>),
    /// These snapshots are forgotten, by the bits of a number; heads stay.
    Forget(u64),
    Prune,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = proptest::prop_oneof![
        4 => (changes(0..8), any::<bool>()).prop_map(|(changes, other)| Event::BackUp(changes, other)),
        2 => changes(1..8).prop_map(Event::Crash),
        2 => any::<u64>().prop_map(Event::Forget),
        2 => proptest::prelude::Just(Event::Prune),
    ];
    vec(event, 1..14)
}

#[test]
fn after_any_history_exactly_what_snapshots_need_is_left_and_all_of_them_restore() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
    let result = runner.run(&(tree(1..40), events()), |(mut model, events): (TreeModel, _)| {
        runtime.block_on(async {
            let mut history = History::new(Arc::new(InMemory::new())).await;
            model.write(&history.source()).expect("a tree");
            for event in events.into_iter().chain([Event::BackUp(Vec::new(), false), Event::Forget(5), Event::Prune]) {
                match event {
                    Event::BackUp(changes, other) => {
                        for change in &changes {
                            apply(change, &mut model, &history.source()).expect("changed");
                        }
                        let _ = history.back_up(if other { "other" } else { "main" }).await;
                    }
                    Event::Crash(changes) => {
                        for change in &changes {
                            apply(change, &mut model, &history.source()).expect("changed");
                        }
                        history.crash().await;
                    }
                    Event::Forget(bits) => {
                        let mut bits = (0..).map(|bit| bits >> (bit % 64) & 1 == 1);
                        history.forget(|_| bits.next() == Some(true)).await;
                    }
                    Event::Prune => {
                        let before = packs_in(&history.objects).await;
                        let report = pruned(&history.repository).await;
                        let left = packs_in(&history.objects).await;
                        assert_eq!(left, reachable(&history.objects, &history.state().await).await);
                        assert_eq!(report.deleted_packs as usize, before.difference(&left).count());
                        let kept = before.intersection(&left).count();
                        assert_eq!((report.kept_packs as usize, report.waiting_packs), (kept, 0));
                        assert!(left.is_subset(&before) || report.moved_packs > 0);
                    }
                }
            }
            history.assert_all_restore("at the end").await;
        });
        Ok(())
    });
    result.expect("every history is pruned right");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_pages_in_different_packs_are_both_needed() {
    let mut history = History::new(Arc::new(InMemory::new())).await;
    fs::write(history.source().join("a"), "content").expect("a file");
    let _ = history.back_up("main").await;
    // A branch without a head reuses nothing: the same pages again, with chunks in packs of their own.
    let _ = history.back_up("other").await;
    let state = history.state().await;
    assert_eq!(state.commit.snapshots[0].tree.page, state.commit.snapshots[1].tree.page);
    let needed = reachable(&history.objects, &state).await;
    let by_ids = reachable_by_ids(&history.objects, &state).await;
    assert_eq!((needed.len(), by_ids.len()), (4, 2), "a prune by ids would delete what the second snapshot needs");
    assert_eq!(pruned(&history.repository).await.pages, 2);
    assert_eq!(packs_in(&history.objects).await, needed);
    history.assert_all_restore("pruned").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_copy_is_read_once_and_each_pack_fetched_once() {
    let objects = Arc::new(RecordingStore::new(Arc::new(InMemory::new())));
    let mut history = History::new(objects.clone()).await;
    for file in 0..1500 {
        fs::write(history.source().join(format!("{file:04}")), "x").expect("a file");
    }
    for change in 0..12 {
        fs::write(history.source().join(format!("{:04}", change * 119)), change.to_string()).expect("a file");
        let _ = history.back_up("main").await;
    }
    history.forget(|snapshot| snapshot.entries > 0).await;
    let _ = history.back_up("main").await;
    drop(objects.take());
    let report = pruned(&history.repository).await;
    assert!(report.deleted_packs > 5 && report.commit.is_some(), "{report:?}");
    let requests = objects.take();
    let fetched: Vec<_> = requests.iter().filter(|request| request.key.as_ref().ends_with(".meta")).collect();
    let fetched: Vec<_> = fetched.into_iter().filter(|request| request.operation != Recorded::Delete).collect();
    let distinct: BTreeSet<_> = fetched.iter().map(|request| request.key.clone()).collect();
    assert_eq!(fetched.len(), distinct.len(), "no pack is fetched twice: {fetched:#?}");
    let count = |operation| requests.iter().filter(|request| request.operation == operation).count() as u64;
    // The probe for the clock, and the hint; the head, its successor, and the head again before the commit.
    assert_eq!((count(Recorded::Put), count(Recorded::Create), count(Recorded::List)), (2, 1, 3), "{requests:#?}");
    assert_eq!(count(Recorded::Delete), report.deleted_packs + 1);
    assert!(count(Recorded::Get) <= distinct.len() as u64 + 5, "{requests:#?}");
    assert_eq!(count(Recorded::GetRange), 0);

    let again = pruned(&history.repository).await;
    assert_eq!((again.commit, again.deleted_packs, again.pages), (None, 0, report.pages));
    assert_eq!(objects.count(Recorded::Create), 0, "nothing comes of another commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_page_that_cannot_be_read_stops_it_and_nothing_is_deleted() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut history = History::new(objects.clone()).await;
    fs::write(history.source().join("a"), "1").expect("a file");
    let _ = history.back_up("main").await;
    history.crash().await;
    fs::write(history.source().join("a"), "2").expect("a file");
    let _ = history.back_up("main").await;
    let before = keys_of(&objects).await;
    for pack in before.iter().filter(|key| key.as_ref().ends_with(".meta")) {
        let is_needed = reachable(&objects, &history.state().await).await.contains(pack);
        let bytes = objects.get(pack).await.expect("there").bytes().await.expect("its bytes");
        let mut damaged = bytes.to_vec();
        damaged[10] ^= 1;
        for damage in [Some(damaged), None] {
            match damage {
                Some(damaged) => drop(objects.put(pack, damaged.into()).await.expect("damaged")),
                None => objects.delete(pack).await.expect("deleted"),
            }
            if is_needed {
                let left = packs_in(&objects).await;
                let error = run(&open(objects.clone()).await, at_once()).await.expect_err("stops");
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert!(error.to_string().contains("nothing was deleted"), "{error}");
                assert_eq!(packs_in(&objects).await, left);
            }
        }
        objects.put(pack, bytes.into()).await.expect("repaired");
    }
    assert_eq!(pruned(&history.repository).await.deleted_packs, 2);
    history.assert_all_restore("repaired").await;
}

/// A store on which something happens right before the first commit that goes through it.
fn before_the_commit<F: Future<Output = ()>>(
    objects: &Arc<dyn ObjectStore>,
    happens: impl Fn(Arc<dyn ObjectStore>) -> F + Send + Sync + 'static,
) -> FaultStore {
    let inner = Arc::clone(objects);
    let done = std::sync::atomic::AtomicBool::new(false);
    FaultStore::new(objects.clone(), move |call| {
        let is_commit = call.operation == Operation::Create && call.key.as_ref().starts_with("log/");
        if is_commit && !done.swap(true, std::sync::atomic::Ordering::SeqCst) {
            std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(happens(Arc::clone(&inner)));
                });
                other.join().expect("ends");
            });
        }
        None
    })
}

fn pruned_before_the_commit(objects: &Arc<dyn ObjectStore>, options: fn() -> PruneOptions) -> FaultStore {
    before_the_commit(objects, move |inner| async move {
        let _ = run(&open(inner).await, options()).await.expect("a prune");
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_below_the_floor_is_fenced_and_one_above_it_keeps_its_packs() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut history = History::new(objects.clone()).await;
    fs::write(history.source().join("a"), "1").expect("a file");
    let _ = history.back_up("main").await;
    history.crash().await;
    let _ = pruned(&history.repository).await;
    let floor = history.state().await.commit.session_floor;
    assert_eq!(floor, 2, "the crashed session began at commit 1");

    fs::write(history.source().join("a"), "2").expect("a file");
    let polite = || PruneOptions { grace: Duration::ZERO, ..PruneOptions::default() };
    let racing = open(Arc::new(pruned_before_the_commit(&objects, polite))).await;
    let _ = history.back_up_with(&racing, "main").await.expect("a session above the floor commits");
    history.assert_all_restore("a polite prune in between").await;

    fs::write(history.source().join("a"), "3").expect("a file");
    let before = history.state().await;
    let racing = open(Arc::new(pruned_before_the_commit(&objects, at_once))).await;
    let report = history.back_up_with(&racing, "main").await.expect("it begins anew");
    assert_eq!(report.outcome, BackupOutcome::Done);
    let after = history.state().await;
    assert_eq!(after.commit.session_floor, before.commit.seq + 1);
    let head = after.commit.head("main").expect("a head");
    assert!(head.tree.pack.begin >= after.commit.session_floor, "nothing that the prune took for garbage is needed");
    assert_eq!(packs_in(&objects).await, reachable(&objects, &after).await, "what it uploaded first is gone");
    history.assert_all_restore("begun anew").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_loses_a_race_looks_again_at_what_the_winner_needs() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut history = History::new(objects.clone()).await;
    fs::write(history.source().join("a"), "1").expect("a file");
    let _ = history.back_up("main").await;
    history.crash().await;
    let source = history.source();
    let racing = before_the_commit(&objects, move |inner| {
        fs::write(source.join("b"), "2").expect("a file");
        let source = source.clone();
        async move {
            let _ = crate::restoring::back_up(&open(inner).await, &source).await;
        }
    });
    let report = run(&open(Arc::new(racing)).await, at_once()).await.expect("a prune");
    // What the winner made after the look is not counted, and must not be deleted.
    assert_eq!((report.commit, report.session_floor, report.deleted_packs), (Some(3), 3, 2), "{report:?}");
    let state = history.state().await;
    assert_eq!(state.commit.snapshots.len(), 2);
    assert_eq!(packs_in(&objects).await, reachable(&objects, &state).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_call_costs_nothing_and_the_next_prune_completes() {
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    let faults = [Fault::Before(Failure::Server), Fault::After(Failure::Timeout)];
    let single = [Fault::Before(Failure::NotFound), Fault::FlippedBit, Fault::ShortList, Fault::After(Failure::Exists)];
    let all = faults.map(|fault| (fault, true)).into_iter().chain(single.map(|fault| (fault, false)));
    for (fault, stays) in all {
        for call in 0.. {
            let case = format!("{fault:?} at call {call}, from then on: {stays}");
            let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let mut history = History::new(objects.clone()).await;
            for file in 0..3 {
                fs::write(history.source().join(file.to_string()), case.as_bytes()).expect("a file");
                let _ = history.back_up("main").await;
            }
            history.crash().await;
            history.forget(|snapshot| snapshot.entries == 2).await;
            let inner = objects.clone();
            let faulty = if stays { FaultStore::from(inner, call, fault) } else { FaultStore::at(inner, call, fault) };
            let store = Store::new(Arc::new(faulty.clone()), "faulty").with_settle_time(Duration::from_millis(20));
            let ran = match Repository::open(store, OpenOptions::default()).await {
                Err(error) => Err(error),
                Ok(repository) => run(&repository, at_once()).await,
            };
            let outcome = ran.as_ref().map_or_else(|error| error.kind().name(), |_| "done");
            *outcomes.entry(outcome.to_owned()).or_default() += 1;
            let needed = reachable(&objects, &history.state().await).await;
            assert!(needed.is_subset(&packs_in(&objects).await), "{case}");
            history.assert_all_restore(&case).await;
            let _ = pruned(&history.repository).await;
            assert_eq!(packs_in(&objects).await, needed, "{case}");
            if faulty.calls() <= call {
                break;
            }
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes["done"] > 0 && outcomes["unknown"] > 0 && outcomes["unavailable"] > 0, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_outcome_of_its_commit_is_unknown_nothing_is_deleted() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut history = History::new(objects.clone()).await;
    let _ = history.back_up("main").await;
    history.crash().await;
    let before = packs_in(&objects).await;
    let slot = Key::from("log/00000000000000000002.json.zst");
    let tried = std::sync::atomic::AtomicBool::new(false);
    let faulty = FaultStore::new(objects.clone(), move |call| {
        let is_create = call.key == slot && call.operation == Operation::Create;
        let was_tried = tried.fetch_or(is_create, std::sync::atomic::Ordering::SeqCst);
        let lost = is_create || was_tried && call.key == slot;
        lost.then_some(Fault::Before(Failure::Timeout))
    });
    let store = Store::new(Arc::new(faulty), "faulty").with_settle_time(Duration::from_millis(20));
    let repository = Repository::open(store, OpenOptions::default()).await.expect("opens");
    let error = run(&repository, at_once()).await.expect_err("unknown");
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert_eq!(packs_in(&objects).await, before, "a floor that may not be in the log deletes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_delete_is_told_what_a_prune_needs() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut history = History::new(objects.clone()).await;
    let _ = history.back_up("main").await;
    history.crash().await;
    let before = packs_in(&objects).await;
    let denied = FaultStore::new(objects.clone(), |call| {
        (call.operation == Operation::Delete).then_some(Fault::Before(Failure::Denied))
    });
    let error = run(&open(Arc::new(denied)).await, at_once()).await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("list, read, write and delete"), "{error}");
    assert_eq!(packs_in(&objects).await, before);
    assert_eq!(history.state().await.commit.seq, 1, "it was told before anything was committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_the_same_and_changes_nothing() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut history = History::new(objects.clone()).await;
    for name in ["a", "b", "c"] {
        fs::write(history.source().join(name), name).expect("a file");
        let _ = history.back_up("main").await;
    }
    history.crash().await;
    history.forget(|snapshot| snapshot.entries == 1).await;
    let before = keys_of(&objects).await;
    let planned = run(&history.repository, PruneOptions { dry_run: true, ..at_once() }).await.expect("a plan");
    assert_eq!(keys_of(&objects).await, before);
    let done = pruned(&history.repository).await;
    let figures = |report: ghostsync_core::maintain::PruneReport| ghostsync_core::maintain::PruneReport {
        requests: Default::default(),
        seconds: 0.0,
        ..report
    };
    assert_eq!(figures(planned), figures(done));
    assert!(done.deleted_packs > 0 && done.commit == Some(5), "{done:?}");
}

/// A repository in a folder, whose files can be made old.
struct Aged {
    folder: tempfile::TempDir,
    history: History,
}

impl Aged {
    async fn new() -> Self {
        let folder = quick_folder();
        let url = folder.path().join("repository");
        let store = || open_url(url.to_str().expect("UTF-8"), &StoreSettings::default(), true).expect("a store");
        let local = object_store::local::LocalFileSystem::new_with_prefix(store().folder().expect("a folder"));
        let history = History::in_store(store(), Arc::new(local.expect("a folder"))).await;
        Self { folder, history }
    }

    /// Makes everything below a part of the repository so old.
    fn age(&self, part: &str, hours: u64) {
        let mut folders = vec![self.folder.path().join("repository").join(part)];
        let then = SystemTime::now() - Duration::from_secs(hours * 3600 + 60);
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
                match path.is_dir() {
                    true => folders.push(path),
                    false => fs::File::open(&path).and_then(|file| file.set_modified(then)).expect("aged"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_wait_for_readers_and_floors_for_sessions() {
    let mut aged = Aged::new().await;
    let write = |aged: &Aged, text: &str| fs::write(aged.history.source().join("a"), text).expect("a file");
    write(&aged, "1");
    let _ = aged.history.back_up("main").await;
    aged.history.crash().await;
    write(&aged, "2");
    let _ = aged.history.back_up("main").await;
    aged.history.forget(|snapshot: &Snapshot| snapshot.changes.added > 0).await;
    let polite = async |aged: &Aged| run(&aged.history.repository, PruneOptions::default()).await.expect("a prune");

    let report = polite(&aged).await;
    assert_eq!((report.commit, report.deleted_packs, report.waiting_packs), (None, 0, 4), "all is too young");

    aged.age("packs", 25);
    aged.age("log", 25);
    let report = polite(&aged).await;
    assert_eq!((report.commit, report.session_floor), (Some(4), 3), "nobody below commit 3 has been active for a day");
    assert_eq!((report.deleted_packs, report.waiting_packs), (0, 4), "the state that carries the floor is too young");

    // The head is always young where backups are frequent: an older state serves as well.
    aged.age("log", 2);
    write(&aged, "3");
    let _ = aged.history.back_up("main").await;
    let report = polite(&aged).await;
    assert_eq!((report.commit, report.deleted_packs, report.waiting_packs), (None, 4, 0));
    let left = packs_in(&aged.history.objects).await;
    assert_eq!(left, reachable(&aged.history.objects, &aged.history.state().await).await);
    aged.history.assert_all_restore("pruned").await;

    // Forgotten just now: the state that is old enough still has it.
    aged.history.forget(|_| true).await;
    let report = polite(&aged).await;
    assert_eq!((report.deleted_packs, report.waiting_packs), (0, 2), "somebody may still be restoring it");
    aged.age("log", 2);
    assert_eq!(polite(&aged).await.deleted_packs, 2);
}

/// Simulated seed 3320: the old state still has what another prune did not wait for.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_prune_without_grace_has_deleted_is_no_damage_to_one_with_it() {
    let mut aged = Aged::new().await;
    for text in ["1", "2"] {
        fs::write(aged.history.source().join("a"), text).expect("a file");
        let _ = aged.history.back_up("main").await;
    }
    aged.age("packs", 25);
    aged.age("log", 25);
    aged.history.forget(|_| true).await;
    assert!(pruned(&aged.history.repository).await.deleted_packs > 0);

    aged.history.crash().await;
    let report =
        run(&aged.history.repository, PruneOptions { session_idle: Duration::ZERO, ..PruneOptions::default() });
    let report = report.await.expect("it waits");
    assert_eq!((report.deleted_packs, report.waiting_packs), (0, 2), "{report:?}");
    aged.age("log", 2);
    assert_eq!(run(&aged.history.repository, PruneOptions::default()).await.expect("a prune").deleted_packs, 2);
    aged.history.assert_all_restore("in the end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_that_began_at_the_head_is_deleted_in_the_end_although_nobody_commits() {
    let mut aged = Aged::new().await;
    let _ = aged.history.back_up("main").await;
    aged.history.crash().await;
    let mut commits = Vec::new();
    for _ in 0..5 {
        aged.age("packs", 25);
        aged.age("log", 25);
        let report = run(&aged.history.repository, PruneOptions::default()).await.expect("a prune");
        commits.push(report.commit);
    }
    let state = aged.history.state().await;
    assert_eq!(packs_in(&aged.history.objects).await, reachable(&aged.history.objects, &state).await);
    assert_eq!(commits, [Some(2), Some(3), None, None, None], "and no commit is made for nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_probes_and_of_killed_writes_are_swept_when_they_are_old() {
    let mut aged = Aged::new().await;
    let _ = aged.history.back_up("main").await;
    let repository = aged.folder.path().join("repository");
    for (name, old) in [("probe/x/twice", true), ("probe/y/twice", false), ("packs/a#1", true), ("log/b#2", false)] {
        let path = repository.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, "x").expect("a file");
        if old {
            let then = SystemTime::now() - Duration::from_secs(25 * 3600);
            fs::File::open(&path).and_then(|file| file.set_modified(then)).expect("aged");
        }
    }
    assert_eq!(run(&aged.history.repository, at_once()).await.expect("a prune").leftovers, 2);
    let exists = |name: &str| repository.join(name).exists();
    assert_eq!(
        ["probe/x/twice", "probe/y/twice", "packs/a#1", "log/b#2"].map(exists),
        [false, true, false, true],
        "the young ones may belong to somebody"
    );
    aged.history.assert_all_restore("swept").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_commits_has_nothing_to_prune() {
    let history = History::new(Arc::new(InMemory::new())).await;
    let report = pruned(&history.repository).await;
    assert_eq!((report.commit, report.kept_packs, report.deleted_packs), (None, 0, 0));
}
