//! Claims, releases and forks: who may move a branch, and what becomes of what may not.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, OnRefusal, backup};
use ghostsync_core::guard::{Cap, Policy};
use ghostsync_core::history::judge::Overtaken;
use ghostsync_core::id::{SessionId, SnapshotId};
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::receipt::Receipt;
use ghostsync_core::repository::{OpenOptions, Repository, Selector, State, claim, promote, release, wait_for_release};
use ghostsync_core::restore::{Overwrite, RestoreOptions, restore};
use ghostsync_core::store::{Store, keys};
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use ghostsync_core::testing::tree::{differences, noise};
use ghostsync_core::{ErrorKind, Result};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path as Key;

use crate::restoring::{create, quick_folder};

/// A repository in memory, and directories of several writers.
struct Bench {
    store: Arc<InMemory>,
    repository: Repository,
    folder: tempfile::TempDir,
}

impl Bench {
    /// With a first snapshot of a directory `first`.
    async fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let repository = create(store.clone()).await;
        let bench = Self { store, repository, folder: quick_folder() };
        for file in 0..12 {
            bench.write("first", &format!("{file:02}"), &noise(file, 300));
        }
        assert_eq!(bench.back_up("first", plain()).await.expect("a backup").outcome, BackupOutcome::Done);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, directory: &str, name: &str, content: &[u8]) {
        fs::create_dir_all(self.path(directory)).expect("a folder");
        fs::write(self.path(directory).join(name), content).expect("written");
    }

    async fn back_up(&self, directory: &str, options: BackupOptions) -> Result<BackupReport> {
        backup(&self.repository, &self.path(directory), options, Arc::new(NoObserver)).await
    }

    /// As a pod begins: claims the branch, and restores what the claim says.
    async fn begin(&self, owner: &str) {
        claim(&self.repository, "main", owner, "test").await.expect("a claim");
        self.restore(owner).await;
    }

    async fn restore(&self, directory: &str) {
        let options = RestoreOptions {
            receipt: Some(self.receipt(directory)),
            overwrite: Some(Overwrite::Changed),
            ..RestoreOptions::default()
        };
        let restored = restore(&self.repository, &self.path(directory), options, Arc::new(NoObserver)).await;
        assert!(restored.expect("a restore").problems.is_empty());
    }

    fn receipt(&self, directory: &str) -> PathBuf {
        self.path(&format!("{directory}.receipt"))
    }

    /// As a pod backs up what it began with.
    fn holding(&self, owner: &str) -> BackupOptions {
        BackupOptions {
            owner: Some(owner.into()),
            exclusive: true,
            receipt: Some(self.receipt(owner)),
            ..BackupOptions::default()
        }
    }

    async fn state(&self) -> State {
        self.repository.state().await.expect("a state")
    }

    async fn head(&self) -> SnapshotId {
        self.state().await.commit.head("main").expect("a head").id
    }

    /// The report is of a fork, the branch did not move, and the fork is what the directory is.
    async fn assert_forked(&self, report: Result<BackupReport>, why: Overtaken, head: SnapshotId, directory: &str) {
        let report = report.expect("kept on a fork");
        assert_eq!((report.outcome, report.overtaken), (BackupOutcome::Forked, Some(why)));
        assert_eq!((self.head().await, report.onto.as_deref()), (head, Some("main")), "the branch never moved");
        let back = self.path("back");
        let options = RestoreOptions {
            snapshot: Selector::Id(report.snapshot.expect("a snapshot").to_string()),
            ..RestoreOptions::default()
        };
        restore(&self.repository, &back, options, Arc::new(NoObserver)).await.map(drop).expect("a restore");
        assert_eq!(differences(&self.path(directory), &back), Vec::<String>::new());
        fs::remove_dir_all(back).expect("removed");
    }
}

fn plain() -> BackupOptions {
    BackupOptions::default()
}

#[tokio::test]
async fn a_writer_that_was_fenced_keeps_what_it_has_on_a_fork_and_the_branch_never_moves() {
    let bench = Bench::new().await;
    bench.begin("a").await;
    bench.write("a", "new", b"of a");
    assert_eq!(bench.back_up("a", bench.holding("a")).await.expect("a backup").outcome, BackupOutcome::Done);

    bench.begin("b").await;
    bench.write("b", "other", b"of b");
    assert_eq!(bench.back_up("b", bench.holding("b")).await.expect("a backup").outcome, BackupOutcome::Done);
    let head = bench.head().await;

    let receipt = fs::read(bench.receipt("a")).expect("a receipt");
    bench.write("a", "late", b"of a, too late");
    let late = bench.back_up("a", bench.holding("a")).await;
    bench.assert_forked(late, Overtaken::Held, head, "a").await;
    assert_eq!(fs::read(bench.receipt("a")).expect("a receipt"), receipt);
    // The holder is not disturbed.
    bench.write("b", "more", b"of b");
    assert_eq!(bench.back_up("b", bench.holding("b")).await.expect("a backup").outcome, BackupOutcome::Done);
}

#[tokio::test]
async fn a_second_process_of_the_same_name_fences_the_first() {
    let bench = Bench::new().await;
    bench.begin("a").await;
    let epoch = bench.state().await.commit.branches["main"].epoch;
    let again = claim(&bench.repository, "main", "a", "test").await.expect("a claim");
    assert!(again.epoch > epoch && again.fenced.as_deref() == Some("a"));
    let head = bench.head().await;
    bench.write("a", "late", b"of the first process");
    let late = bench.back_up("a", bench.holding("a")).await;
    bench.assert_forked(late, Overtaken::NewEpoch, head, "a").await;
    // With the head of the claim restored it goes on.
    bench.restore("a").await;
    bench.write("a", "late", b"of the second process");
    assert_eq!(bench.back_up("a", bench.holding("a")).await.expect("a backup").outcome, BackupOutcome::Done);
}

/// Backs up as a holder, while nobody answers about the commit once it was asked for.
async fn unheard(bench: &Bench, owner: &str, slot: &Key, create: Fault) {
    let (slot, is_asked) = (slot.clone(), AtomicBool::new(false));
    let store = FaultStore::new(bench.store.clone(), move |call| match call.operation {
        _ if call.key != slot => None,
        Operation::Create => {
            is_asked.store(true, Ordering::SeqCst);
            Some(create)
        }
        _ => is_asked.load(Ordering::SeqCst).then_some(Fault::Before(Failure::Timeout)),
    });
    let store = Store::new(Arc::new(store), "memory").with_settle_time(Duration::from_millis(200));
    let repository = Repository::open(store, OpenOptions::default()).await.expect("a repository");
    let ran = backup(&repository, &bench.path(owner), bench.holding(owner), Arc::new(NoObserver)).await;
    assert_eq!(ran.expect_err("not heard of").kind(), ErrorKind::Unknown);
}

#[tokio::test]
async fn a_commit_that_lands_after_two_backups_were_cut_short_is_the_holders_own() {
    let bench = Bench::new().await;
    bench.begin("a").await;
    bench.write("a", "new", b"of a");
    let slot = keys::commit(bench.state().await.commit.seq + 1);
    unheard(&bench, "a", &slot, Fault::After(Failure::Timeout)).await;
    // It is still on its way while the next one asks for the same number, and is not heard of either.
    let late = bench.store.get(&slot).await.expect("made").bytes().await.expect("read");
    bench.store.delete(&slot).await.expect("on its way");
    unheard(&bench, "a", &slot, Fault::Before(Failure::Timeout)).await;
    bench.store.put(&slot, late.into()).await.expect("landed");

    bench.write("a", "more", b"of a");
    let head = bench.head().await;
    let report = bench.back_up("a", bench.holding("a")).await.expect("a backup");
    assert_eq!((report.outcome, report.overtaken, report.parent), (BackupOutcome::Done, None, Some(head)));
    let receipt = Receipt::load(&bench.receipt("a")).expect("a receipt");
    assert_eq!((receipt.pending, receipt.unsettled), (None, Vec::new()));
}

#[tokio::test]
async fn a_plain_backup_of_a_held_branch_goes_to_a_fork_until_it_is_released() {
    let bench = Bench::new().await;
    bench.begin("a").await;
    let head = bench.head().await;
    let nothing = bench.back_up("first", plain()).await.expect_err("nothing to keep, and not the branch's writer");
    assert_eq!(nothing.kind(), ErrorKind::Conflict);
    assert_eq!(bench.state().await.commit.seq, 2, "nothing was published");
    bench.write("first", "new", b"while a holds the branch");
    let forked = bench.back_up("first", plain()).await;
    bench.assert_forked(forked, Overtaken::Held, head, "first").await;
    let seq = bench.state().await.commit.seq;
    let again = bench.back_up("first", plain()).await.expect("kept already");
    assert_eq!((again.outcome, bench.state().await.commit.seq), (BackupOutcome::Forked, seq));

    assert!(release(&bench.repository, "main", "a", "test", None).await.expect("a release"));
    assert!(!release(&bench.repository, "main", "a", "test", None).await.expect("released already"));
    assert_eq!(bench.back_up("first", plain()).await.expect("a backup").outcome, BackupOutcome::Done);
    // Whoever released is a holder no longer.
    let head = bench.head().await;
    bench.write("a", "late", b"after the release");
    let late = bench.back_up("a", bench.holding("a")).await;
    bench.assert_forked(late, Overtaken::NotHeld, head, "a").await;
}

#[tokio::test]
async fn only_the_owner_releases_and_names_are_checked() {
    let bench = Bench::new().await;
    let kind = |result: Result<bool>| result.expect_err("fails").kind();
    assert_eq!(
        kind(release(&bench.repository, "main", "a", "test", None).await),
        ErrorKind::Conflict,
        "nobody holds it"
    );
    bench.begin("a").await;
    assert_eq!(kind(release(&bench.repository, "main", "b", "test", None).await), ErrorKind::Conflict);
    assert_eq!(kind(release(&bench.repository, "none", "a", "test", None).await), ErrorKind::NotFound);
    for (branch, owner) in [("main", "A"), ("main", ""), ("main", "a/b"), ("fork/main/a", "a"), ("", "a")] {
        let claimed = claim(&bench.repository, branch, owner, "test").await;
        assert_eq!(claimed.expect_err("fails").kind(), ErrorKind::Invalid, "{branch:?} {owner:?}");
    }
    for options in [
        BackupOptions { exclusive: true, ..plain() },
        BackupOptions { release: true, ..plain() },
        BackupOptions { owner: Some("A".into()), ..plain() },
        BackupOptions { branch: "wip/main/a".into(), ..plain() },
    ] {
        assert_eq!(bench.back_up("first", options).await.expect_err("fails").kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn the_last_snapshot_of_a_clean_end_gives_the_branch_back_also_when_nothing_changed() {
    let bench = Bench::new().await;
    for changes in [true, false] {
        bench.begin("a").await;
        if changes {
            bench.write("a", "last", b"words");
        }
        let seq = bench.state().await.commit.seq;
        let last = bench.back_up("a", BackupOptions { release: true, ..bench.holding("a") }).await.expect("a backup");
        assert_eq!(last.outcome == BackupOutcome::Done, changes);
        let state = bench.state().await;
        assert!(state.commit.branches["main"].holder.as_ref().expect("a holder").released);
        assert_eq!(state.commit.seq, seq + 1, "one commit");
    }
}

#[tokio::test]
async fn a_fork_never_releases_the_branch() {
    let bench = Bench::new().await;
    bench.begin("a").await;
    bench.begin("b").await;
    bench.write("a", "late", b"last words");
    let head = bench.head().await;
    let late = bench.back_up("a", BackupOptions { release: true, ..bench.holding("a") }).await;
    bench.assert_forked(late, Overtaken::Held, head, "a").await;
    assert!(!bench.state().await.commit.branches["main"].holder.as_ref().expect("a holder").released);
}

#[tokio::test]
async fn a_claim_reports_what_a_predecessor_had_that_came_too_late() {
    let bench = Bench::new().await;
    bench.begin("a").await;
    bench.begin("b").await;
    bench.write("a", "late", b"of a");
    let late = bench.back_up("a", bench.holding("a")).await.expect("a fork");
    let claimed = claim(&bench.repository, "main", "b", "test").await.expect("a claim");
    assert_eq!(claimed.forks.iter().map(|fork| fork.id).collect::<Vec<_>>(), [late.snapshot.expect("a snapshot")]);
    assert_eq!(claimed.head.map(|head| head.id), Some(bench.head().await));
}

#[tokio::test]
async fn a_holder_goes_on_from_its_own_quarantine_when_a_person_promotes_it_and_others_are_fenced() {
    let bench = Bench::new().await;
    bench.begin("a").await;
    for file in 0..9 {
        fs::remove_file(bench.path("a").join(format!("{file:02}"))).expect("removed");
    }
    let quarantined = BackupOptions { on_refusal: OnRefusal::Quarantine, ..bench.holding("a") };
    let kept = bench.back_up("a", quarantined).await.expect("kept");
    assert_eq!(kept.outcome, BackupOutcome::Quarantined);
    promote(&bench.repository, kept.snapshot.expect("a snapshot"), "a person").await.expect("promoted");
    let epoch = bench.state().await.commit.branches["main"].epoch;

    bench.write("a", "on", b"and on");
    let on = bench.back_up("a", bench.holding("a")).await.expect("goes on");
    assert_eq!((on.outcome, on.changes.added, on.changes.removed), (BackupOutcome::Done, 1, 0));
    assert_eq!(Receipt::load(&bench.receipt("a")).expect("a receipt").epoch, epoch);

    // A promotion of anything else fences the holder.
    let first = bench.state().await.commit.snapshots[0].id;
    promote(&bench.repository, first, "a person").await.expect("a roll-back");
    let head = bench.head().await;
    bench.write("a", "late", b"after the roll-back");
    let late = bench.back_up("a", bench.holding("a")).await;
    bench.assert_forked(late, Overtaken::OtherHead, head, "a").await;
}

/// Two machines of one name, as when a pod is started again elsewhere: the later claim has fenced the first, for good.
#[tokio::test]
async fn a_promotion_under_a_later_claim_is_not_for_whoever_that_has_fenced() {
    let bench = Bench::new().await;
    bench.begin("a").await;
    for file in 0..9 {
        fs::remove_file(bench.path("a").join(format!("{file:02}"))).expect("removed");
    }
    let quarantined = BackupOptions { on_refusal: OnRefusal::Quarantine, ..bench.holding("a") };
    let kept = bench.back_up("a", quarantined).await.expect("kept").snapshot.expect("a snapshot");
    claim(&bench.repository, "main", "a", "another machine").await.expect("a claim");
    promote(&bench.repository, kept, "a person").await.expect("promoted");

    let head = bench.head().await;
    bench.write("a", "late", b"of the first machine");
    let policy = Policy { max_delete: Cap::Percent(100), ..Policy::default() };
    let late = bench.back_up("a", BackupOptions { policy, ..bench.holding("a") }).await;
    bench.assert_forked(late, Overtaken::OtherHead, head, "a").await;
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_release_ends_with_it_or_with_its_limit() {
    let bench = Bench::new().await;
    let wait = async |limit| {
        let limit = Duration::from_secs(limit);
        wait_for_release(&bench.repository, "main", "b", limit, &Interrupt::default()).await.expect("a state")
    };
    assert_eq!(wait(3600).await, None, "nobody holds it");
    bench.begin("a").await;
    assert_eq!(wait(60).await.as_deref(), Some("a"));
    let (waited, ()) = tokio::join!(wait(3600), async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        release(&bench.repository, "main", "a", "test", None).await.map(drop).expect("a release");
    });
    assert_eq!(waited, None);
    claim(&bench.repository, "main", "b", "test").await.expect("a claim");
    assert_eq!(wait(3600).await, None, "one's own hold is no reason to wait");
}

/// Commits a change to the newest state, as another program would.
async fn commit_by_hand(
    store: &InMemory,
    state: &State,
    change: impl FnOnce(&mut ghostsync_core::format::commit::Commit),
) {
    let mut commit = state.commit.clone();
    commit.seq += 1;
    commit.prev = state.hash;
    commit.session = SessionId::from_bytes([9; 16]);
    change(&mut commit);
    store.put(&keys::commit(commit.seq), commit.encode().expect("encodes").into()).await.expect("stored");
}

/// Runs a backup of `first` during which, just before its commit, somebody changes the state.
async fn overtaken_by(
    bench: &Bench,
    change: impl Fn(&mut ghostsync_core::format::commit::Commit) + Send + Sync + Clone + 'static,
) -> BackupReport {
    let (inner, base) = (Arc::clone(&bench.store), bench.state().await);
    let store = FaultStore::new(bench.store.clone(), move |call| {
        if call.operation == Operation::Create && call.key == keys::commit(base.commit.seq + 1) {
            futures::executor::block_on(commit_by_hand(&inner, &base, change.clone()));
        }
        None::<Fault>
    });
    let store = Store::new(Arc::new(store), "memory").with_settle_time(Duration::from_millis(200));
    let repository = Repository::open(store, OpenOptions::default()).await.expect("a repository");
    backup(&repository, &bench.path("first"), plain(), Arc::new(NoObserver)).await.expect("a backup")
}

async fn assert_restores_to(bench: &Bench, report: &BackupReport, directory: &Path) {
    let options = RestoreOptions {
        snapshot: Selector::Id(report.snapshot.expect("a snapshot").to_string()),
        ..RestoreOptions::default()
    };
    let back = bench.path("back");
    restore(&bench.repository, &back, options, Arc::new(NoObserver)).await.map(drop).expect("a restore");
    assert_eq!(differences(directory, &back), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_below_a_new_floor_begins_anew_and_uploads_afresh() {
    let bench = Bench::new().await;
    bench.write("first", "new", &noise(77, 5000));
    let report = overtaken_by(&bench, |commit| commit.session_floor = commit.seq).await;
    assert_eq!(report.outcome, BackupOutcome::Done);
    let state = bench.state().await;
    let head = state.commit.head("main").expect("a head");
    assert_eq!((Some(head.id), head.tree.pack.begin), (report.snapshot, state.commit.session_floor));
    assert_restores_to(&bench, &report, &bench.path("first")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_parent_was_forgotten_refers_to_nothing_of_it() {
    let bench = Bench::new().await;
    bench.write("first", "new", &noise(78, 5000));
    let report = overtaken_by(&bench, |commit| {
        commit.snapshots.clear();
        commit.branches.get_mut("main").expect("a branch").head = None;
    })
    .await;
    assert_eq!((report.outcome, report.parent), (BackupOutcome::Done, None));
    // As a prune may do by now: everything of the forgotten snapshot is deleted.
    let state = bench.state().await;
    let session = state.commit.head("main").expect("a head").session.to_string();
    let objects: Vec<_> =
        futures::TryStreamExt::try_collect(object_store::ObjectStore::list(&*bench.store, Some(&keys::packs())))
            .await
            .expect("a listing");
    let objects: Vec<object_store::ObjectMeta> = objects;
    for object in objects.iter().filter(|object| !object.location.as_ref().contains(&session)) {
        bench.store.delete(&object.location).await.expect("deleted");
    }
    assert_restores_to(&bench, &report, &bench.path("first")).await;
}
