//! What only older snapshots need of a pack that is mostly dead is moved by the prune itself.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use ghostsync_core::ErrorKind;
use ghostsync_core::backup::BackupOutcome;
use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::maintain::PruneOptions;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{OpenOptions, Repository, Selector};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Call, Failure, Fault, FaultStore, Operation};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use super::support::{History, at_once, open, packs_in, pruned, reachable, run, write_file};
use super::{Aged, before_the_commit, pruned_before_the_commit};

const FILE_BYTES: usize = 4000;

/// Nothing of which is fenced that is less than a day old.
fn politely() -> PruneOptions {
    PruneOptions { grace: Duration::ZERO, ..PruneOptions::default() }
}

/// A repository whose first pack has twenty files of which an old snapshot needs four and the head none; the keys of that
/// session's packs, and the old snapshot.
async fn needed_by_an_old_snapshot(objects: Arc<dyn ObjectStore>) -> (History, BTreeSet<Key>, SnapshotId) {
    let mut history = History::new(objects).await;
    let (first, old) = live(&mut history).await;
    (history, first, old)
}

async fn live(history: &mut History) -> (BTreeSet<Key>, SnapshotId) {
    (0..20).for_each(|file| write_file(&history.source(), file, 0, FILE_BYTES));
    let _ = history.back_up("main").await;
    let first = packs_in(&history.objects).await;
    (0..16).for_each(|file| write_file(&history.source(), file, 1, FILE_BYTES));
    let old = history.back_up("main").await.snapshot.expect("a snapshot");
    (16..20).for_each(|file| write_file(&history.source(), file, 1, FILE_BYTES));
    for version in [2, 3] {
        write_file(&history.source(), 0, version, FILE_BYTES);
        let _ = history.back_up("main").await;
    }
    let parent = history.state().await.commit.head("main").and_then(|head| head.parent);
    history.forget(|snapshot| snapshot.id != old && Some(snapshot.id) != parent).await;
    (first, old)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_an_old_snapshot_needs_is_stored_again_and_its_pack_goes() {
    let (history, first, old) = needed_by_an_old_snapshot(Arc::new(InMemory::new())).await;
    let before = history.state().await;
    let tells = run(&history.repository, PruneOptions { dry_run: true, ..at_once() }).await.expect("a dry run");
    assert_eq!(history.state().await.commit.seq, before.commit.seq);

    let report = pruned(&history.repository).await;
    assert_eq!((report.moved_packs, report.moved_bytes), (tells.moved_packs, tells.moved_bytes), "{report:?}");
    let alive = 4 * FILE_BYTES as u64;
    assert!(report.moved_packs > 0 && (alive * 3 / 4..alive * 3 / 2).contains(&report.moved_bytes), "{report:?}");
    let state = history.state().await;
    let (was, is) = (before.commit.snapshot(old).expect("retained"), state.commit.snapshot(old).expect("retained"));
    assert!(was.tree.page == is.tree.page && was.tree != is.tree, "the same tree elsewhere");
    assert_eq!(state.commit.head("main"), before.commit.head("main"), "the head is left to backups");
    let left = packs_in(&history.objects).await;
    assert!(left.is_disjoint(&first), "{left:?}");
    assert_eq!(left, reachable(&history.objects, &state).await);
    history.assert_all_restore("moved").await;

    let again = pruned(&history.repository).await;
    assert_eq!((again.moved_packs, again.deleted_packs), (0, 0), "nothing moves twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_moves_than_may_be_rewritten() {
    let (history, first, _) = needed_by_an_old_snapshot(Arc::new(InMemory::new())).await;
    let report = run(&history.repository, PruneOptions { max_rewrite: FILE_BYTES as u64, ..at_once() }).await;
    let report = report.expect("a prune");
    assert!(report.moved_bytes <= FILE_BYTES as u64, "{report:?}");
    assert!(!packs_in(&history.objects).await.is_disjoint(&first));
    history.assert_all_restore("left where it was").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_follows_a_head_that_has_moved_and_no_content_is_stored_again() {
    let mut history = History::new(Arc::new(InMemory::new())).await;
    (0..20).for_each(|file| write_file(&history.source(), file, 0, FILE_BYTES));
    let _ = history.back_up("main").await;
    let first = packs_in(&history.objects).await;
    (0..16).for_each(|file| write_file(&history.source(), file, 1, FILE_BYTES));
    let _ = history.back_up("main").await;
    history.forget(|_| true).await;
    let report = pruned(&history.repository).await;
    assert_eq!((report.draining_packs, report.moved_packs), (1, 0), "the head needs it");
    let _ = history.back_up("main").await;

    let before = packs_in(&history.objects).await;
    let report = pruned(&history.repository).await;
    assert!(report.moved_packs > 0, "{report:?}");
    let left = packs_in(&history.objects).await;
    assert!(left.is_disjoint(&first), "{left:?}");
    let is_new = |key: &&Key| !before.contains(*key) && key.as_ref().ends_with(".data");
    assert_eq!(left.iter().filter(is_new).count(), 0, "its content is in what the backup stored");
    history.assert_all_restore("following").await;
}

/// A parent of the same id whose pages lie elsewhere by now: what the writer refers to is being deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_parent_was_moved_begins_anew() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut history = History::new(objects.clone()).await;
    (0..20).for_each(|file| write_file(&history.source(), file, 0, FILE_BYTES));
    let _ = history.back_up("main").await;
    let first = packs_in(&objects).await;
    (0..16).for_each(|file| write_file(&history.source(), file, 1, FILE_BYTES));
    let _ = history.back_up("main").await;
    history.forget(|_| true).await;
    // The floor rises, and nothing drains yet.
    let _ = run(&history.repository, PruneOptions { max_rewrite: 0, ..at_once() }).await.expect("a prune");

    write_file(&history.source(), 0, 2, FILE_BYTES);
    let source = history.source();
    let racing = before_the_commit(&objects, move |inner| {
        let source = source.clone();
        async move {
            let repository = open(inner).await;
            let _ = run(&repository, politely()).await.expect("what drains is named");
            let _ = crate::restoring::back_up(&repository, &source).await;
            let moved = run(&repository, politely()).await.expect("the parent moves");
            assert!(moved.moved_packs > 0 && moved.deleted_packs > 0, "{moved:?}");
        }
    });
    let report = history.back_up_with(&open(Arc::new(racing)).await, "main").await.expect("it begins anew");
    assert_eq!(report.outcome, BackupOutcome::Done);
    let needed = reachable(&objects, &history.state().await).await;
    assert!(needed.is_disjoint(&first) && needed.is_subset(&packs_in(&objects).await));
    let left = history.state().await.commit.snapshots;
    assert_eq!(left.len(), 3);
    history.assert_head_restores("begun anew").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_call_of_a_move_costs_nothing_and_the_next_prune_completes() {
    let mut moves = 0;
    for (fault, stays) in [
        (Fault::Before(Failure::Server), true),
        (Fault::After(Failure::Timeout), true),
        (Fault::FlippedBit, false),
        (Fault::Before(Failure::NotFound), false),
    ] {
        for call in 0.. {
            let case = format!("{fault:?} at call {call}, from then on: {stays}");
            let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let (history, first, _) = needed_by_an_old_snapshot(objects.clone()).await;
            let inner = objects.clone();
            let faulty = if stays { FaultStore::from(inner, call, fault) } else { FaultStore::at(inner, call, fault) };
            let store = Store::new(Arc::new(faulty.clone()), "faulty").with_settle_time(Duration::from_millis(20));
            if let Ok(repository) = Repository::open(store, OpenOptions::default()).await {
                let ran = run(&repository, at_once()).await;
                moves += ran.map_or(0, |report| report.moved_packs);
            }
            let needed = reachable(&objects, &history.state().await).await;
            assert!(needed.is_subset(&packs_in(&objects).await), "{case}");
            history.assert_all_restore(&case).await;
            let _ = pruned(&history.repository).await;
            let left = packs_in(&objects).await;
            assert_eq!(left, reachable(&objects, &history.state().await).await, "{case}");
            assert!(left.is_disjoint(&first), "{case}");
            if faulty.calls() <= call {
                break;
            }
        }
    }
    assert!(moves > 0);
}

/// Its packs wait for their commit, which is made again for the newer state.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_loses_a_race_is_committed_on_the_newer_state() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (mut history, first, old) = needed_by_an_old_snapshot(objects.clone()).await;
    let source = history.source();
    write_file(&source, 3, 7, FILE_BYTES);
    let racing = before_the_commit(&objects, move |inner| {
        let source = source.clone();
        async move {
            let _ = crate::restoring::back_up(&open(inner).await, &source).await;
        }
    });
    let report = run(&open(Arc::new(racing)).await, politely()).await.expect("a prune");
    assert!(report.moved_packs > 0, "{report:?}");
    let state = history.state().await;
    assert_eq!(state.commit.snapshots.len(), 4);
    assert!(!first.contains(&Key::from(format!("packs/{}.meta", state.commit.snapshot(old).expect("it").tree.pack))));
    let _ = pruned(&history.repository).await;
    assert!(packs_in(&objects).await.is_disjoint(&first));

    // Another prune, right before its commit, takes what it has stored for garbage: it moves again.
    fs::write(history.source().join("more"), "x").expect("a file");
    let _ = history.back_up("main").await;
    let (history, first, _) = needed_by_an_old_snapshot(Arc::new(InMemory::new())).await;
    let racing = pruned_before_the_commit(&history.objects, at_once);
    let _ = run(&open(Arc::new(racing)).await, at_once()).await.expect("a prune");
    let left = packs_in(&history.objects).await;
    assert!(left.is_disjoint(&first));
    assert_eq!(left, reachable(&history.objects, &history.state().await).await);
    history.assert_all_restore("two prunes at once").await;
}

/// Two prunes without any grace, and a forget between them: what the first was about to move is gone, and is no damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_forgotten_and_pruned_while_it_is_moved_is_no_damage() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (history, first, old) = needed_by_an_old_snapshot(objects.clone()).await;
    let history = Arc::new(history);
    let (others, done) = (Arc::clone(&history), std::sync::atomic::AtomicBool::new(false));
    let inner = Arc::clone(&objects);
    let racing = FaultStore::new(objects.clone(), move |call| {
        let reads_content = call.operation == Operation::GetRange && call.key.as_ref().ends_with(".data");
        if reads_content && !done.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let (inner, others) = (Arc::clone(&inner), Arc::clone(&others));
            let other = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    others.forget(|snapshot| snapshot.id == old).await;
                    assert!(pruned(&open(inner).await).await.deleted_packs > 0);
                });
            });
            other.join().expect("ends");
        }
        None
    });
    let _ = run(&open(Arc::new(racing)).await, at_once()).await.expect("it begins anew");
    let state = history.state().await;
    assert!(state.commit.snapshot(old).is_none());
    let _ = pruned(&history.repository).await;
    let left = packs_in(&objects).await;
    assert!(left.is_disjoint(&first));
    assert_eq!(left, reachable(&objects, &history.state().await).await);
    history.assert_all_restore("forgotten on the way").await;
}

/// The second has listed what the first stored for its move, and read the state before it: the same snapshots lie
/// elsewhere in the newer state, on which it commits in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_loses_to_a_move_learns_where_its_snapshots_lie_now() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (history, first, _) = needed_by_an_old_snapshot(objects.clone()).await;
    let is_commit = |call: &Call| call.operation == Operation::Create && call.key.as_ref().starts_with("log/");
    let (arrived, arrives) = std::sync::mpsc::channel();
    let second = std::sync::Mutex::new(None);
    let second = Arc::new(second);

    let (inner, started) = (Arc::clone(&objects), Arc::clone(&second));
    let arrives = std::sync::Mutex::new(arrives);
    let moving = FaultStore::new(objects.clone(), move |call| {
        let mut started = started.lock().expect("no panic");
        if is_commit(call) && started.is_none() {
            let (arrived, waited) = (arrived.clone(), std::sync::atomic::AtomicBool::new(false));
            let log = Arc::clone(&inner);
            let late = FaultStore::new(inner.clone(), move |call| {
                if is_commit(call) && !waited.swap(true, std::sync::atomic::Ordering::SeqCst) {
                    arrived.send(()).expect("somebody waits");
                    // The number is taken by the other before this one asks for it.
                    while futures::executor::block_on(log.head(&call.key)).is_err() {
                        std::thread::yield_now();
                    }
                }
                None
            });
            *started = Some(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async { run(&open(Arc::new(late)).await, at_once()).await })
            }));
            arrives.lock().expect("no panic").recv().expect("it arrives");
        }
        None
    });
    let report = run(&open(Arc::new(moving)).await, at_once()).await.expect("a prune");
    assert!(report.moved_packs > 0, "{report:?}");
    let second = second.lock().expect("no panic").take().expect("started");
    let _ = second.join().expect("ends").expect("a prune");

    history.assert_all_restore("two prunes at once").await;
    let _ = pruned(&history.repository).await;
    let left = packs_in(&objects).await;
    assert!(left.is_disjoint(&first));
    assert_eq!(left, reachable(&objects, &history.state().await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_out_of_waits_for_whoever_still_reads_it() {
    let mut aged = Aged::new().await;
    let (first, _) = live(&mut aged.history).await;
    aged.age("packs", 25);
    aged.age("log", 25);
    let stays = PruneOptions { max_rewrite: 0, ..PruneOptions::default() };
    let raised = run(&aged.history.repository, stays).await.expect("a floor");
    assert!(raised.commit.is_some() && raised.moved_packs == 0, "{raised:?}");
    aged.age("log", 2);

    let moved = run(&aged.history.repository, PruneOptions::default()).await.expect("a prune");
    assert!(moved.moved_packs > 0 && moved.waiting_packs > 0, "{moved:?}");
    assert!(!packs_in(&aged.history.objects).await.is_disjoint(&first), "the state of two hours ago needs it");
    aged.history.assert_all_restore("moved").await;
    aged.age("log", 2);
    let _ = run(&aged.history.repository, PruneOptions::default()).await.expect("a prune");
    let left = packs_in(&aged.history.objects).await;
    assert!(left.is_disjoint(&first), "{left:?}");
    aged.history.assert_all_restore("gone").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_what_is_moved_meanwhile_says_so_and_succeeds_when_it_is_run_again() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (history, _, old) = needed_by_an_old_snapshot(objects.clone()).await;
    let (inner, done) = (Arc::clone(&objects), std::sync::atomic::AtomicBool::new(false));
    let racing = FaultStore::new(objects.clone(), move |call| {
        let reads_content = call.operation == Operation::GetRange && call.key.as_ref().ends_with(".data");
        if reads_content && !done.swap(true, std::sync::atomic::Ordering::SeqCst) {
            let inner = Arc::clone(&inner);
            let other = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                let moved = runtime.block_on(async { pruned(&open(inner).await).await });
                assert!(moved.moved_packs > 0 && moved.deleted_packs > 0, "{moved:?}");
            });
            other.join().expect("ends");
        }
        None
    });
    let repository = open(Arc::new(racing)).await;
    let back = crate::restoring::quick_folder();
    let options = RestoreOptions { snapshot: Selector::Id(old.to_string()), ..RestoreOptions::default() };
    let ran = restore(&repository, &back.path().join("back"), options, Arc::new(NoObserver)).await;
    let error = ran.expect_err("what it was reading is gone");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("moved"), "{error}");
    history.assert_all_restore("again").await;
}

/// A backup that goes on from it refers to its pages where they lie: moved, it would cost all that was uploaded since.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_stays_where_it_is_although_its_branch_has_another_head() {
    let (history, first, old) = needed_by_an_old_snapshot(Arc::new(InMemory::new())).await;
    history.change(|commit| commit.snapshots.iter_mut().filter(|step| step.id == old).for_each(into_step)).await;
    let before = history.state().await.commit;
    let report = pruned(&history.repository).await;
    assert_eq!(report.moved_packs, 0, "{report:?}");
    assert_eq!(history.state().await.commit.snapshots, before.snapshots);
    assert!(!packs_in(&history.objects).await.is_disjoint(&first));
}

fn into_step(snapshot: &mut Snapshot) {
    (snapshot.branch, snapshot.onto, snapshot.complete) = ("wip/main/writer".into(), Some("main".into()), false);
    snapshot.id = snapshot.derive_id().expect("an id");
}

/// The copies that the old snapshot was to refer to went with the head that had them.
#[tokio::test(flavor = "multi_thread")]
async fn a_move_onto_a_head_that_was_forgotten_meanwhile_is_made_again() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut history = History::new(objects.clone()).await;
    (0..20).for_each(|file| write_file(&history.source(), file, 0, FILE_BYTES));
    let _ = history.back_up("main").await;
    (0..16).for_each(|file| write_file(&history.source(), file, 1, FILE_BYTES));
    let old = history.back_up("main").await.snapshot.expect("a snapshot");
    history.forget(|_| true).await;
    assert_eq!(pruned(&history.repository).await.draining_packs, 1);
    let head = history.back_up("main").await.snapshot.expect("a snapshot");
    // Whoever begins from now on is above the floor, and the head's packs are below it.
    history.crash().await;
    let _ = run(&history.repository, PruneOptions { max_rewrite: 0, ..at_once() }).await.expect("a floor");

    let history = Arc::new(history);
    let others = Arc::clone(&history);
    let racing = before_the_commit(&objects, move |inner| {
        let others = Arc::clone(&others);
        async move {
            let repository = open(inner).await;
            (0..20).for_each(|file| write_file(&others.source(), file, 5, FILE_BYTES));
            let _ = crate::restoring::back_up(&repository, &others.source()).await;
            others.forget(|snapshot| snapshot.id == head).await;
            let stays = PruneOptions { max_rewrite: 0, ..politely() };
            assert!(run(&repository, stays).await.expect("a prune").deleted_packs > 0);
        }
    });
    let _ = run(&open(Arc::new(racing)).await, politely()).await.expect("a prune");
    let state = history.state().await;
    assert!(state.commit.snapshot(old).is_some() && state.commit.snapshot(head).is_none());
    let needed = reachable(&objects, &state).await;
    assert!(needed.is_subset(&packs_in(&objects).await), "{needed:?}");
}
