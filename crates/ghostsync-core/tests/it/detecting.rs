//! Commit mode `detect`: of several writers at once none loses what it was told is there, and each is told the truth.

mod pruning;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, backup};
use ghostsync_core::format::commit::{Commit, EmptiedCommit, LogEntry, TipName, decode_log_entry};
use ghostsync_core::format::config::CommitMode;
use ghostsync_core::history::judge::Overtaken;
use ghostsync_core::id::{SessionId, SnapshotId};
use ghostsync_core::maintain::{CheckOptions, CheckReport, PruneOptions, check, prune};
use ghostsync_core::observer::{NoObserver, Progress};
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, Selector, hold, tag};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::{Store, keys};
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use ghostsync_core::{ErrorKind, Result};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

fn store(memory: &Arc<InMemory>) -> Store {
    Store::new(memory.clone(), "memory")
}

async fn create(memory: &Arc<InMemory>) -> Repository {
    let create = CreateOptions { commit_mode: CommitMode::Detect, skip_probe: true, ..CreateOptions::default() };
    Repository::create(store(memory), create, OpenOptions::default()).await.expect("a new repository")
}

async fn open(memory: &Arc<InMemory>) -> Repository {
    Repository::open(store(memory), OpenOptions::default()).await.expect("a repository")
}

async fn try_back_up(repository: &Repository, content: &str) -> Result<BackupReport> {
    let source = tempfile::tempdir().expect("a folder");
    fs::write(source.path().join("file"), content).expect("written");
    let options = BackupOptions { writer: "pod".into(), ..BackupOptions::default() };
    backup(repository, source.path(), options, Arc::new(NoObserver)).await
}

async fn back_up(repository: &Repository, content: &str) -> BackupReport {
    try_back_up(repository, content).await.expect("a backup")
}

async fn content_of(repository: &Repository, snapshot: SnapshotId) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let destination = folder.path().join("destination");
    let options = RestoreOptions { snapshot: Selector::Id(snapshot.to_string()), ..RestoreOptions::default() };
    let report = restore(repository, &destination, options, Arc::new(NoObserver)).await.expect("a restore");
    assert!(!report.damaged);
    fs::read_to_string(destination.join("file")).expect("restored")
}

async fn checked(repository: &Repository) -> CheckReport {
    check(repository, CheckOptions::default(), &NoObserver).await.expect("a check")
}

/// Puts everything that one memory has and another lacks into that other.
async fn pour(from: &Arc<InMemory>, into: &Arc<InMemory>) {
    for object in from.list(None).try_collect::<Vec<_>>().await.expect("listed") {
        if into.head(&object.location).await.is_err() {
            let bytes = from.get(&object.location).await.expect("there").bytes().await.expect("read");
            into.put(&object.location, bytes.into()).await.expect("written");
        }
    }
}

async fn copy(from: &Arc<InMemory>) -> Arc<InMemory> {
    let copy = Arc::new(InMemory::new());
    pour(from, &copy).await;
    copy
}

/// A commit as it is stored, in the log of a memory.
async fn commit(memory: &Arc<InMemory>, name: TipName) -> Commit {
    let bytes = memory.get(&keys::tip(name)).await.expect("there").bytes().await.expect("read");
    match decode_log_entry(&bytes).expect("decodes") {
        LogEntry::Commit(commit) => *commit,
        LogEntry::Emptied(_) => panic!("emptied"),
    }
}

async fn head(repository: &Repository) -> TipName {
    let state = repository.state().await.expect("a state");
    TipName { seq: state.commit.seq, session: state.commit.session }
}

#[tokio::test]
async fn a_single_writer_moves_its_branch_and_nothing_is_overwritten() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    for (seq, content) in [(1, "a"), (2, "bb"), (3, "ccc")] {
        let report = back_up(&repository, content).await;
        assert_eq!((report.outcome, report.branch.as_str()), (BackupOutcome::Done, "main"));
        assert_eq!(head(&repository).await.seq, seq);
        assert_eq!(content_of(&repository, report.snapshot.expect("made")).await, content);
    }
    let id = repository.state().await.expect("a state").commit.head("main").expect("a head").id;
    tag(&repository, id, &[("k".into(), "v".into())], &[], "pod").await.expect("tagged");
    let state = repository.state().await.expect("a state");
    assert_eq!(state.commit.snapshot(id).expect("there").tags["k"], "v");
    assert!(state.commit.merged.is_empty());
    let report = checked(&open(&memory).await).await;
    assert!(report.damage.is_empty() && report.void.is_empty(), "{report:?}");
    assert_eq!((report.commit, report.snapshots), (4, 3));
}

/// Two writers made commits on one head, and the second commit of the two becomes visible only when the log has gone on.
#[tokio::test]
async fn a_commit_that_lands_late_is_kept_as_a_fork_under_its_old_id_too() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    let _ = back_up(&repository, "base").await;
    let elsewhere = copy(&memory).await;
    let late = back_up(&open(&elsewhere).await, "late").await.snapshot.expect("made");
    let late_name = head(&open(&elsewhere).await).await;
    for content in ["one more", "and another", "and a third"] {
        let _ = back_up(&repository, content).await;
    }
    let before = repository.state().await.expect("a state").commit;
    pour(&elsewhere, &memory).await;

    // Every reader sees it at once, and nothing else has moved.
    let state = open(&memory).await.state().await.expect("a state").commit;
    assert_eq!((state.seq, state.branches["main"].clone()), (before.seq, before.branches["main"].clone()));
    let fork = state.snapshot(late).expect("found by the id that was acknowledged");
    assert_eq!(fork.branch, format!("fork/main/pod-{}", late_name.session));
    assert_eq!((fork.onto.as_deref(), fork.was), (Some("main"), Some(late)));
    assert_ne!(fork.id, late);
    assert_eq!(content_of(&repository, late).await, "late");

    // The next commit takes it over for good, once.
    let _ = back_up(&repository, "the last of them").await;
    let stored = commit(&memory, head(&repository).await).await;
    assert_eq!(stored.merged, [late_name]);
    assert_eq!(stored.snapshots.iter().filter(|snapshot| snapshot.was == Some(late)).count(), 1);
    let _ = back_up(&repository, "unless there is still one").await;
    let stored = commit(&memory, head(&repository).await).await;
    assert_eq!(stored.snapshots.iter().filter(|snapshot| snapshot.was == Some(late)).count(), 1);
    let report = checked(&open(&memory).await).await;
    assert!(report.damage.is_empty() && report.void.is_empty(), "{report:?}");
}

/// Two lines of several commits that saw nothing of each other: the head's line stays, and the other is kept whole.
#[tokio::test]
async fn a_whole_line_beside_the_head_is_kept() {
    for longer in [false, true] {
        let memory = Arc::new(InMemory::new());
        let repository = create(&memory).await;
        let _ = back_up(&repository, "base").await;
        let elsewhere = copy(&memory).await;
        let other = open(&elsewhere).await;
        let mut acknowledged = Vec::new();
        for (on, content) in [(&repository, "a"), (&repository, "bb"), (&other, "ccc"), (&other, "dddd")] {
            acknowledged.push((back_up(on, content).await.snapshot.expect("made"), content));
        }
        // A mark that another machine set is kept too.
        hold(&other, acknowledged[3].0, Some("audit"), "pod").await.expect("held");
        if longer {
            for content in ["eeeee", "ffffff"] {
                acknowledged.push((back_up(&repository, content).await.snapshot.expect("made"), content));
            }
        }
        pour(&elsewhere, &memory).await;
        let _ = back_up(&repository, "after them all").await;
        let state = repository.state().await.expect("a state").commit;
        for (id, content) in acknowledged {
            assert!(state.snapshot(id).is_some(), "{content}");
            assert_eq!(content_of(&repository, id).await, content);
            let held = (content == "dddd").then_some("audit");
            assert_eq!(state.snapshot(id).expect("there").hold.as_deref(), held, "{content}");
        }
        let forks = state.snapshots.iter().filter(|snapshot| snapshot.branch.starts_with("fork/main/")).count();
        assert_eq!(forks, 2, "{longer}");
        assert!(checked(&open(&memory).await).await.damage.is_empty());
    }
}

#[tokio::test]
async fn what_began_below_the_floor_is_void_and_reported() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    let _ = back_up(&repository, "base").await;
    let elsewhere = copy(&memory).await;
    let late = back_up(&open(&elsewhere).await, "late").await.snapshot.expect("made");
    let _ = back_up(&repository, "one more").await;
    // What a prune does: a commit that sets the floor.
    let before = repository.state().await.expect("a state");
    let session = SessionId::random();
    let floor = Commit { seq: 3, prev: before.hash, session, session_floor: 2, begin: Some(2), ..before.commit };
    let key = keys::tip(TipName { seq: 3, session });
    memory.put(&key, floor.encode().expect("encodes").into()).await.expect("written");
    pour(&elsewhere, &memory).await;
    let state = repository.state().await.expect("a state").commit;
    assert!(state.snapshot(late).is_none());
    assert!(checked(&repository).await.damage.is_empty());
    let _ = back_up(&repository, "and on").await;
    assert!(repository.state().await.expect("a state").commit.snapshot(late).is_none());

    // One whose number is above the floor is void all the same, because of when it began; that is reported.
    let old = open(&elsewhere).await.state().await.expect("a state");
    let session = SessionId::random();
    let slow = Commit { seq: 3, prev: old.hash, session, begin: Some(1), ..old.commit };
    let key = keys::tip(TipName { seq: 3, session });
    memory.put(&key, slow.encode().expect("encodes").into()).await.expect("written");
    let report = checked(&repository).await;
    assert_eq!(report.void.iter().map(|(void, _)| void.clone()).collect::<Vec<_>>(), [key.to_string()]);
    assert!(report.damage.is_empty(), "{report:?}");
    assert_eq!(back_up(&repository, "on and on").await.outcome, BackupOutcome::Done);
}

#[tokio::test]
async fn a_log_with_a_gap_or_of_another_repository_is_corrupt() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    let mut names = Vec::new();
    for content in ["a", "bb", "ccc"] {
        let _ = back_up(&repository, content).await;
        names.push(head(&repository).await);
    }
    for (lost, says) in [(0, "no commit has this number"), (1, "no commit has this number")] {
        let thinned = copy(&memory).await;
        thinned.delete(&keys::tip(names[lost])).await.expect("deleted");
        let repository = open(&thinned).await;
        assert_eq!(repository.state().await.expect_err("a gap").kind(), ErrorKind::Corrupt);
        let report = checked(&repository).await;
        assert!(report.damage.iter().any(|damage| damage.message == says), "{report:?}");
    }
    let other = Arc::new(InMemory::new());
    let mixed = create(&other).await;
    let _ = back_up(&mixed, "x").await;
    let first = head(&mixed).await;
    other.delete(&keys::tip(first)).await.expect("deleted");
    pour(&memory, &other).await;
    // Whoever reads the head alone does not look so far down.
    assert!(!checked(&open(&other).await).await.damage.is_empty());
}

#[tokio::test]
async fn a_cached_head_that_is_gone_is_noticed() {
    let memory = Arc::new(InMemory::new());
    let cache = tempfile::tempdir().expect("a folder");
    let options = OpenOptions { cache_dir: Some(cache.path().to_owned()) };
    let _ = create(&memory).await;
    let repository = Repository::open(store(&memory), options.clone()).await.expect("a repository");
    for content in ["a", "bb"] {
        let _ = back_up(&repository, content).await;
    }
    let newest = head(&repository).await;
    memory.delete(&keys::tip(newest)).await.expect("deleted");
    let error = Repository::open(store(&memory), options).await.expect("opens").state().await.expect_err("rolled back");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("rolled back"), "{error}");
}

/// The log is listed and the head is read again, right before a commit is put.
#[tokio::test]
async fn a_head_that_is_gone_or_emptied_when_a_commit_is_to_follow_it_is_noticed() {
    for is_emptied in [false, true] {
        let memory = Arc::new(InMemory::new());
        let repository = create(&memory).await;
        let _ = back_up(&repository, "base").await;
        let name = head(&repository).await;
        let Commit { seq, prev, session, .. } = commit(&memory, name).await;
        let hash = repository.state().await.expect("a state").hash;
        let stub = EmptiedCommit { seq, prev, session, hash, emptied: true }.encode().expect("encodes");
        let source = tempfile::tempdir().expect("a folder");
        fs::write(source.path().join("file"), "edited").expect("written");
        let log = memory.clone();
        let meanwhile = move |progress| {
            if matches!(progress, Progress::Planned { .. }) {
                let key = keys::tip(name);
                let changed = async {
                    if is_emptied { log.put(&key, stub.clone().into()).await.map(drop) } else { log.delete(&key).await }
                };
                futures::executor::block_on(changed).expect("changed");
            }
        };
        let ended = backup(&repository, source.path(), BackupOptions::default(), Arc::new(meanwhile)).await;
        assert_eq!(ended.expect_err("rolled back").kind(), ErrorKind::Corrupt, "{is_emptied}");
        let log = memory.list(Some(&keys::log())).try_collect::<Vec<_>>().await.expect("listed");
        assert_eq!(log.len(), usize::from(is_emptied), "nothing was put");
    }
}

/// The repository as one sees it during whose put of a commit everything else that another memory has lands.
async fn open_while_landing(memory: &Arc<InMemory>, elsewhere: &Arc<InMemory>) -> Repository {
    let (into, from) = (memory.clone(), elsewhere.clone());
    let landing = FaultStore::new(memory.clone(), move |call| {
        if call.operation == Operation::Put && call.key.to_string().starts_with("log/") {
            futures::executor::block_on(pour(&from, &into));
        }
        None
    });
    Repository::open(Store::new(Arc::new(landing), "memory"), OpenOptions::default()).await.expect("a repository")
}

#[tokio::test]
async fn of_two_at_the_same_moment_the_smaller_session_is_first_and_the_other_is_told() {
    let mut told = [0, 0];
    while told.contains(&0) {
        assert!(told[0] + told[1] < 64, "always the same one was first: {told:?}");
        let memory = Arc::new(InMemory::new());
        let _ = back_up(&create(&memory).await, "base").await;
        let elsewhere = copy(&memory).await;
        let theirs = back_up(&open(&elsewhere).await, "theirs").await.snapshot.expect("made");
        let their_session = head(&open(&elsewhere).await).await.session;
        let report = back_up(&open_while_landing(&memory, &elsewhere).await, "ours").await;
        let ours = report.snapshot.expect("made");

        let repository = open(&memory).await;
        let state = repository.state().await.expect("a state").commit;
        let our_session = state.snapshot(ours).expect("there").session;
        let first = our_session < their_session;
        told[usize::from(first)] += 1;
        let stored = commit(&memory, head(&repository).await).await;
        if first {
            assert_eq!((report.outcome, report.overtaken), (BackupOutcome::Done, None));
            assert_eq!(state.head("main").map(|head| head.id), Some(ours));
        } else {
            assert_eq!((report.outcome, report.overtaken), (BackupOutcome::Forked, Some(Overtaken::Raced)));
            assert_eq!(report.branch, format!("fork/main/pod-{our_session}"));
            assert_eq!(state.head("main").map(|head| head.id), Some(theirs));
            // Told only when the log itself says so, not only what this reader makes of it.
            assert_eq!(stored.merged, [TipName { seq: 2, session: our_session }]);
        }
        for (id, content) in [(ours, "ours"), (theirs, "theirs")] {
            assert_eq!(content_of(&repository, id).await, content);
        }
    }
}

#[tokio::test]
async fn a_floor_that_lands_at_the_same_moment_fences_and_never_sinks() {
    for _ in 0..8 {
        let memory = Arc::new(InMemory::new());
        let _ = back_up(&create(&memory).await, "base").await;
        let elsewhere = copy(&memory).await;
        let before = open(&elsewhere).await.state().await.expect("a state");
        let session = SessionId::random();
        let floor = Commit { seq: 2, prev: before.hash, session, session_floor: 2, begin: Some(1), ..before.commit };
        let key = keys::tip(TipName { seq: 2, session });
        elsewhere.put(&key, floor.encode().expect("encodes").into()).await.expect("written");
        let report = back_up(&open_while_landing(&memory, &elsewhere).await, "ours").await;
        // It began anew, above the floor; what its first session had made may be what it then found unchanged.
        assert!(matches!(report.outcome, BackupOutcome::Done | BackupOutcome::Unchanged), "{report:?}");
        let repository = open(&memory).await;
        assert_eq!(repository.state().await.expect("a state").commit.session_floor, 2);
        let _ = back_up(&repository, "and on").await;
        assert_eq!(commit(&memory, head(&repository).await).await.session_floor, 2);
    }
}

/// A head that was read long ago is not built on: that would take the place of one who was told that he was first.
#[tokio::test]
async fn who_comes_late_follows_the_head_that_is_there_by_then() {
    let memory = Arc::new(InMemory::new());
    let repository = create(&memory).await;
    let _ = back_up(&repository, "base").await;
    let source = tempfile::tempdir().expect("a folder");
    fs::write(source.path().join("file"), "of one who takes his time").expect("written");
    let others = memory.clone();
    let meanwhile = move |progress| {
        if matches!(progress, Progress::Planned { .. }) {
            let others = others.clone();
            let run = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async { back_up(&open(&others).await, "of a quick one").await })
            };
            assert_eq!(std::thread::spawn(run).join().expect("ends").outcome, BackupOutcome::Done);
        }
    };
    let report = backup(&repository, source.path(), BackupOptions::default(), Arc::new(meanwhile)).await;
    assert_eq!(report.expect("a backup").outcome, BackupOutcome::Done);
    assert_eq!(head(&repository).await.seq, 3);
    let log = memory.list(Some(&keys::log())).try_collect::<Vec<_>>().await.expect("listed");
    assert_eq!(log.len(), 3, "one commit of each number");
}

/// Every answer to the put of a commit may be lost: then it is found, or put again, and never made twice.
#[tokio::test]
async fn a_lost_answer_is_settled_by_reading_back() {
    for (fault, ends) in [
        (Fault::After(Failure::Timeout), Some(BackupOutcome::Done)),
        (Fault::Before(Failure::Timeout), None),
        (Fault::After(Failure::Exists), Some(BackupOutcome::Done)),
    ] {
        let memory = Arc::new(InMemory::new());
        let _ = create(&memory).await;
        let faulty = FaultStore::new(memory.clone(), move |call| {
            (call.operation == Operation::Put && call.key.to_string().starts_with("log/")).then_some(fault)
        });
        let faulty = Store::new(Arc::new(faulty), "memory").with_settle_time(Duration::from_millis(300));
        let repository = Repository::open(faulty, OpenOptions::default()).await.expect("a repository");
        let outcome = try_back_up(&repository, "a").await;
        match ends {
            Some(ends) => assert_eq!(outcome.expect("a backup").outcome, ends, "{fault:?}"),
            None => assert_eq!(outcome.expect_err("never arrived").kind(), ErrorKind::Unknown, "{fault:?}"),
        }
        let log = memory.list(Some(&keys::log())).try_collect::<Vec<_>>().await.expect("listed");
        assert_eq!(log.len(), usize::from(ends.is_some()), "{fault:?}");
    }
}

/// Nothing that a writer was told is there is ever missing, whatever raced.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_writers_at_once_are_told_is_true() {
    const WRITERS: usize = 6;
    let memory = Arc::new(InMemory::new());
    let _ = create(&memory).await;
    let mut acknowledged: Vec<(SnapshotId, String)> = Vec::new();
    let mut raced = 0;
    for round in 0..8 {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let memory = memory.clone();
            writers.spawn(async move {
                let content = format!("{}{writer} in {round}", "x".repeat(writer));
                (back_up(&open(&memory).await, &content).await, content)
            });
        }
        while let Some(ended) = writers.join_next().await {
            let (report, content) = ended.expect("ends");
            match report.outcome {
                BackupOutcome::Done => assert_eq!(report.branch, "main"),
                BackupOutcome::Forked => {
                    raced += 1;
                    assert!(matches!(report.overtaken, Some(Overtaken::Raced | Overtaken::Outrun)), "{report:?}");
                    assert!(report.branch.starts_with("fork/main/pod-"), "{}", report.branch);
                }
                other => panic!("{other:?}"),
            }
            acknowledged.push((report.snapshot.expect("made"), content));
        }
        let state = open(&memory).await.state().await.expect("a state").commit;
        for (id, content) in &acknowledged {
            assert!(state.snapshot(*id).is_some(), "round {round}: {content}");
        }
    }
    println!("{raced} of {} went to a fork", acknowledged.len());
    let repository = open(&memory).await;
    for (id, content) in acknowledged {
        assert_eq!(content_of(&repository, id).await, content);
    }
    let report = checked(&repository).await;
    assert!(report.damage.is_empty() && report.void.is_empty(), "{report:?}");
}
