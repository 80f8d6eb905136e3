//! The guards of a backup, end to end: what is refused changes nothing, and what passes never removed more than allowed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, Excludes, OnRefusal, backup};
use ghostsync_core::guard::{Cap, Guard, Policy, Refusal};
use ghostsync_core::history::judge::Overtaken;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::observer::{NoObserver, Progress};
use ghostsync_core::receipt::{DirectoryMark, Receipt};
use ghostsync_core::repository::{OpenOptions, Repository};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore};
use ghostsync_core::testing::tree::{apply, changes, tree};
use ghostsync_core::{ErrorKind, Result};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::restoring::{create, quick_folder};

/// A repository in memory, and a folder with a source.
struct Bench {
    store: Arc<InMemory>,
    repository: Repository,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let repository = create(store.clone()).await;
        let folder = quick_folder();
        fs::create_dir(folder.path().join("source")).expect("a folder");
        Self { store, repository, folder }
    }

    /// With one snapshot of so many files of different contents.
    async fn with_files(files: usize) -> Self {
        let bench = Self::new().await;
        for number in 0..files {
            bench.write(&format!("{number:03}"), &format!("content {number}"));
        }
        let _ = bench.run(BackupOptions::default()).await.expect("a first snapshot");
        bench
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn receipt(&self) -> PathBuf {
        self.folder.path().join("receipt")
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.source().join(name), content).expect("written");
    }

    fn remove(&self, names: std::ops::Range<usize>) {
        for number in names {
            fs::remove_file(self.source().join(format!("{number:03}"))).expect("removed");
        }
    }

    async fn run(&self, options: BackupOptions) -> Result<BackupReport> {
        backup(&self.repository, &self.source(), options, Arc::new(NoObserver)).await
    }

    async fn objects(&self) -> BTreeMap<Key, Bytes> {
        objects(&self.store).await
    }

    /// Runs it; it must be refused, and not an object may have changed, come or gone.
    async fn refused(&self, options: BackupOptions) -> Refusal {
        let before = self.objects().await;
        let error = self.run(options).await.expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(self.objects().await == before, "objects changed: {error}");
        error.refusal().expect("a refusal").clone()
    }
}

pub(crate) async fn objects(store: &InMemory) -> BTreeMap<Key, Bytes> {
    let mut objects = BTreeMap::new();
    for meta in futures::TryStreamExt::try_collect::<Vec<_>>(store.list(None)).await.expect("a listing") {
        let bytes = store.get(&meta.location).await.expect("an object").bytes().await.expect("its bytes");
        objects.insert(meta.location, bytes);
    }
    objects
}

fn capped(cap: Cap) -> BackupOptions {
    BackupOptions { policy: Policy { max_delete: cap, ..Policy::default() }, ..BackupOptions::default() }
}

fn with_receipt(bench: &Bench) -> BackupOptions {
    BackupOptions { receipt: Some(bench.receipt()), ..BackupOptions::default() }
}

#[tokio::test]
async fn removals_at_the_cap_pass_and_one_over_is_refused() {
    let table = [
        // files, removed, cap, passes
        (20, 10, Cap::Percent(50), true),
        (20, 11, Cap::Percent(50), false),
        (21, 10, Cap::Percent(50), true),
        (21, 11, Cap::Percent(50), false),
        (20, 5, Cap::Count(5), true),
        (20, 6, Cap::Count(5), false),
        (20, 1, Cap::Count(0), false),
        (20, 1, Cap::Percent(0), false),
        (9, 1, Cap::Percent(0), true),
        (9, 2, Cap::Percent(0), false),
        (2, 1, Cap::Percent(10), true),
        (10, 1, Cap::Percent(0), false),
    ];
    for (files, removed, cap, passes) in table {
        let bench = Bench::with_files(files).await;
        bench.remove(0..removed);
        if passes {
            let report = bench.run(capped(cap)).await.expect("passes");
            assert_eq!(report.changes.removed, removed as u64);
            continue;
        }
        let refusal = bench.refused(capped(cap)).await;
        assert_eq!(
            (refusal.guard, refusal.actual),
            (Guard::MaxDelete, Some(removed as u64)),
            "{files} {removed} {cap}"
        );
        assert_eq!(refusal.paths.len(), removed.min(20));
        // The override lets this very plan pass, additions or not, and only once.
        bench.write("new", "new");
        let mut options = capped(cap);
        options.policy.override_plan = refusal.plan;
        assert_eq!(bench.run(options.clone()).await.expect("overridden").outcome, BackupOutcome::Done);
        // The same paths, but the head has moved: another plan.
        for number in 0..removed {
            bench.write(&format!("{number:03}"), "back again");
        }
        let _ = bench.run(capped(cap)).await.expect("additions pass");
        bench.remove(0..removed);
        let again = bench.run(BackupOptions { policy: options.policy, ..capped(cap) }).await;
        let parent_has = files + 1;
        match again {
            Ok(_) => assert!(cap.allows(removed as u64, parent_has as u64), "{files} {removed} {cap}"),
            Err(error) => assert_ne!(error.refusal().expect("a refusal").plan, refusal.plan),
        }
    }
}

#[tokio::test]
async fn a_file_that_moved_is_not_removed_and_one_that_became_empty_is() {
    let bench = Bench::with_files(20).await;
    fs::create_dir(bench.source().join("elsewhere")).expect("a folder");
    for number in 0..20 {
        let name = format!("{number:03}");
        fs::rename(bench.source().join(&name), bench.source().join("elsewhere").join(&name)).expect("moved");
    }
    let report = bench.run(capped(Cap::Count(0))).await.expect("moves pass");
    assert_eq!((report.changes.moved, report.changes.removed), (20, 0));

    for number in 0..11 {
        bench.write(&format!("elsewhere/{number:03}"), "");
    }
    let refusal = bench.refused(BackupOptions::default()).await;
    assert_eq!((refusal.guard, refusal.actual), (Guard::MaxDelete, Some(11)));
}

/// The header of a SQLite database, and whatever else it holds.
fn database(content: &str) -> String {
    format!("SQLite format 3\0\u{10}\0\u{1}\u{1}\0\u{40}\u{20}\u{20}{}{content}", "\0".repeat(76))
}

#[tokio::test]
async fn a_small_app_that_closes_its_sqlite_database_at_its_end_is_saved() {
    // The app stopped, SQLite took the log and its index away: two of four files, and the final snapshot was refused.
    let strict = || capped(Cap::Percent(25));
    for is_emptied in [false, true] {
        let bench = Bench::new().await;
        bench.write("blog.db", &database("1"));
        for name in ["blog.db-shm", "blog.db-wal", "image"] {
            bench.write(name, name);
        }
        let _ = bench.run(strict()).await.expect("a first snapshot");

        bench.write("blog.db", &database("1 and what the log had"));
        for name in ["blog.db-shm", "blog.db-wal"] {
            if is_emptied {
                bench.write(name, "")
            } else {
                fs::remove_file(bench.source().join(name)).expect("removed")
            }
        }
        let report = bench.run(strict()).await.expect("saved");
        assert_eq!((report.outcome, report.changes.removed), (BackupOutcome::Done, 2), "they are gone all the same");
    }
}

#[tokio::test]
async fn what_lay_beside_a_database_that_is_gone_too_counts_as_removed() {
    for database_now in [None, Some("no database any more")] {
        let bench = Bench::new().await;
        bench.write("blog.db", &database("1"));
        for name in ["blog.db-shm", "blog.db-wal", "image"] {
            bench.write(name, name);
        }
        let _ = bench.run(BackupOptions::default()).await.expect("a first snapshot");

        for name in ["blog.db", "blog.db-shm", "blog.db-wal"] {
            fs::remove_file(bench.source().join(name)).expect("removed");
        }
        if let Some(content) = database_now {
            bench.write("blog.db", content);
        }
        let refusal = bench.refused(capped(Cap::Percent(25))).await;
        let removed = if database_now.is_some() { 2 } else { 3 };
        assert_eq!((refusal.guard, refusal.actual), (Guard::MaxDelete, Some(removed)));
    }
}

#[tokio::test]
async fn rewritten_files_have_a_cap_of_their_own() {
    let bench = Bench::with_files(20).await;
    for number in 0..6 {
        bench.write(&format!("{number:03}"), "of another length");
    }
    let policy = |most| Policy { max_change: Some(Cap::Count(most)), ..Policy::default() };
    let refusal = bench.refused(BackupOptions { policy: policy(5), ..BackupOptions::default() }).await;
    assert_eq!((refusal.guard, refusal.actual), (Guard::MaxChange, Some(6)));
    let report = bench.run(BackupOptions { policy: policy(6), ..BackupOptions::default() }).await.expect("passes");
    assert_eq!(report.changes.changed, 6);
    // Contents of the same length are known only when they have been read: refused late, published never.
    for number in 0..6 {
        bench.write(&format!("{number:03}"), "of ANOTHER length");
    }
    let before = bench.objects().await;
    let late = bench.run(BackupOptions { policy: policy(5), ..BackupOptions::default() }).await.expect_err("refused");
    assert_eq!(late.refusal().map(|refusal| refusal.guard), Some(Guard::MaxChange));
    let after = bench.objects().await;
    assert!(before.iter().all(|(key, bytes)| after.get(key) == Some(bytes)));
    assert!(after.keys().filter(|key| !before.contains_key(key)).all(|key| key.as_ref().starts_with("packs/")));
}

#[tokio::test]
async fn what_new_excludes_hide_is_not_removed_but_guarded() {
    let bench = Bench::with_files(20).await;
    let excludes = |pattern: &str| Excludes { patterns: vec![pattern.into()], ..Excludes::default() };
    let refusal = bench.refused(BackupOptions { excludes: excludes("0*"), ..capped(Cap::Percent(90)) }).await;
    // Everything is hidden: nothing is left, so the source counts as empty.
    assert_eq!(refusal.guard, Guard::Empty);
    let refusal = bench.refused(BackupOptions { excludes: excludes("01*"), ..capped(Cap::Count(9)) }).await;
    assert_eq!((refusal.guard, refusal.actual), (Guard::Excluded, Some(10)));
    let report =
        bench.run(BackupOptions { excludes: excludes("01*"), ..capped(Cap::Count(10)) }).await.expect("passes");
    assert_eq!((report.excluded, report.changes.removed), (10, 0));
}

#[tokio::test]
async fn a_source_that_is_not_there_or_empty_is_refused() {
    let bench = Bench::with_files(3).await;
    for name in ["missing", "source/000"] {
        let before = bench.objects().await;
        let path = bench.folder.path().join(name);
        let run = backup(&bench.repository, &path, BackupOptions::default(), Arc::new(NoObserver)).await;
        assert_eq!(run.expect_err("refused").refusal().map(|refusal| refusal.guard), Some(Guard::Source), "{name}");
        assert!(bench.objects().await == before);
    }
    bench.remove(0..3);
    // Not even with every cap lifted.
    assert_eq!(bench.refused(capped(Cap::Percent(100))).await.guard, Guard::Empty);
    drop(std::os::unix::net::UnixListener::bind(bench.source().join("socket")).expect("a socket"));
    assert_eq!(bench.refused(capped(Cap::Percent(100))).await.guard, Guard::Empty, "a socket is no content");
    let mut options = BackupOptions::default();
    options.policy.allow_empty = true;
    assert_eq!(bench.run(options).await.expect("asked for").entries, 0);
}

#[tokio::test]
async fn a_mount_that_is_gone_is_refused_by_the_receipt() {
    let bench = Bench::with_files(3).await;
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(bench.source()).status();
    if !mount.is_ok_and(|mounted| mounted.success()) {
        println!("skipped: nothing can be mounted here");
        return;
    }
    let options = RestoreOptions { receipt: Some(bench.receipt()), ..RestoreOptions::default() };
    let restored = restore(&bench.repository, &bench.source(), options, Arc::new(NoObserver)).await;
    let first = bench.run(with_receipt(&bench)).await;
    assert!(std::process::Command::new("umount").arg(bench.source()).status().expect("runs").success());
    assert!(restored.expect("a restore").is_complete_for_test());
    assert_eq!(first.expect("a backup").outcome, BackupOutcome::Unchanged);
    bench.write("more", "written below the mount point");
    assert_eq!(bench.refused(with_receipt(&bench)).await.guard, Guard::Receipt);
}

trait Complete {
    fn is_complete_for_test(&self) -> bool;
}

impl Complete for ghostsync_core::restore::RestoreReport {
    fn is_complete_for_test(&self) -> bool {
        !self.damaged && self.problems.iter().all(|problem| !problem.incomplete)
    }
}

#[tokio::test]
async fn a_receipt_must_be_there_whole_and_of_this_place() {
    let bench = Bench::with_files(3).await;
    let refused = async |why: &str| {
        let refusal = bench.refused(with_receipt(&bench)).await;
        assert_eq!(refusal.guard, Guard::Receipt, "{why}");
        refusal.reason
    };
    assert!(refused("absent").await.contains("no receipt"));
    fs::write(bench.receipt(), "{").expect("written");
    assert!(refused("corrupt").await.contains("damaged"));
    fs::remove_file(bench.receipt()).and_then(|()| fs::create_dir(bench.receipt())).expect("a folder");
    assert!(refused("unreadable").await.contains("cannot be read"));
    fs::remove_dir(bench.receipt()).expect("removed");

    let mirror = RestoreOptions {
        receipt: Some(bench.receipt()),
        delete: true,
        max_delete: Cap::Percent(100),
        ..RestoreOptions::default()
    };
    let made = async |repository: &Repository, directory: &Path, branch: &str| {
        let options = RestoreOptions { branch: branch.into(), ..mirror.clone() };
        let report = restore(repository, directory, options, Arc::new(NoObserver)).await.expect("a restore");
        assert!(report.is_complete_for_test());
    };
    let other = Bench::with_files(3).await;
    made(&other.repository, &bench.source(), "main").await;
    assert!(refused("of another repository").await.contains("repository"));
    let branch = BackupOptions { branch: "other".into(), ..BackupOptions::default() };
    assert_eq!(bench.run(branch).await.expect("a snapshot").outcome, BackupOutcome::Done);
    made(&bench.repository, &bench.source(), "other").await;
    assert!(refused("of another branch").await.contains("branch"));
    made(&bench.repository, &bench.folder.path().join("elsewhere"), "main").await;
    assert!(refused("of another directory").await.contains("directory"));
    made(&bench.repository, &bench.source(), "main").await;
    assert_eq!(bench.run(with_receipt(&bench)).await.expect("holds").outcome, BackupOutcome::Unchanged);

    // Another writer moves the branch: nothing is published, and the receipt stays as it is.
    let receipt = fs::read(bench.receipt()).expect("a receipt");
    bench.write("more", "of another writer");
    assert_eq!(bench.run(BackupOptions::default()).await.expect("a snapshot").outcome, BackupOutcome::Done);
    bench.write("more", "of ours, which was restored from an older head");
    let head = bench.repository.state().await.expect("a state").commit.head("main").expect("a head").id;
    let forked = bench.run(with_receipt(&bench)).await.expect("kept on a fork");
    assert_eq!((forked.outcome, forked.onto.as_deref()), (BackupOutcome::Forked, Some("main")));
    assert_eq!(forked.overtaken, Some(Overtaken::OtherHead));
    let state = bench.repository.state().await.expect("a state");
    assert_eq!(state.commit.head("main").map(|head| head.id), Some(head), "the branch never moved");
    assert_eq!(fs::read(bench.receipt()).expect("a receipt"), receipt);
    // The same again adds nothing.
    let before = bench.objects().await;
    assert_eq!(bench.run(with_receipt(&bench)).await.expect("kept already").snapshot, forked.snapshot);
    assert!(bench.objects().await == before);
}

#[tokio::test]
async fn a_receipt_whose_snapshot_is_gone_is_refused_and_says_so() {
    let bench = Bench::with_files(3).await;
    let head = bench.repository.state().await.expect("a state").commit.head("main").cloned().expect("a head");
    let receipt = Receipt {
        repository: bench.repository.id(),
        branch: "main".into(),
        epoch: 0,
        snapshot: Some(head.id),
        tree: Some(head.tree.page),
        entries: head.entries,
        bytes: head.bytes,
        directory: DirectoryMark::of(&bench.source()).expect("a directory"),
        finished: head.time,
        quarantined: None,
        quarantined_under: None,
        pending: None,
        unsettled: Vec::new(),
    };
    receipt.write(&bench.receipt()).expect("written");
    assert_eq!(bench.run(with_receipt(&bench)).await.expect("holds").outcome, BackupOutcome::Unchanged);

    let gone = SnapshotId::from_bytes([7; 32]);
    let receipt = Receipt { snapshot: Some(gone), ..receipt };
    // On a branch with another head, and on one without any, where a genesis receipt would hold.
    for branch in ["main", "new"] {
        Receipt { branch: branch.into(), ..receipt.clone() }.write(&bench.receipt()).expect("written");
        let before = fs::read(bench.receipt()).expect("a receipt");
        for on_refusal in [OnRefusal::Fail, OnRefusal::Quarantine] {
            let options = BackupOptions { branch: branch.into(), on_refusal, ..with_receipt(&bench) };
            let refusal = bench.refused(options).await;
            assert_eq!((refusal.guard, refusal.plan), (Guard::Receipt, None));
            let named = format!("the receipt names snapshot {gone}, which the repository does not have");
            assert!(refusal.reason.contains(&named), "{}", refusal.reason);
        }
        assert!(fs::read(bench.receipt()).expect("a receipt") == before, "the receipt stays as it is");
    }
}

#[tokio::test]
async fn what_is_refused_is_kept_in_quarantine_once_and_the_branch_stays() {
    let bench = Bench::with_files(20).await;
    bench.remove(0..15);
    let options = || BackupOptions { on_refusal: OnRefusal::Quarantine, ..BackupOptions::default() };
    let head = bench.repository.state().await.expect("a state").commit.head("main").expect("a head").id;
    let first = bench.run(options()).await.expect("kept");
    assert_eq!((first.outcome, first.onto.as_deref()), (BackupOutcome::Quarantined, Some("main")));
    assert!(first.branch.starts_with("quarantine/main/"));
    let objects = bench.objects().await;
    let second = bench.run(options()).await.expect("kept already");
    assert!(bench.objects().await == objects, "and nothing is added");
    assert_eq!((second.outcome, second.snapshot), (BackupOutcome::Quarantined, first.snapshot));
    let state = bench.repository.state().await.expect("a state");
    assert_eq!(state.commit.head("main").expect("a head").id, head);
    assert_eq!(state.commit.snapshots.len(), 2);

    let promoted = ghostsync_core::repository::promote(&bench.repository, first.snapshot.expect("one"), "test").await;
    let promoted = promoted.expect("promoted");
    let state = bench.repository.state().await.expect("a state");
    assert_eq!(state.commit.head("main").expect("a head").id, promoted.id);
    assert_eq!((promoted.parent, state.commit.branches["main"].epoch), (Some(head), state.commit.seq));
    assert_eq!(bench.run(BackupOptions::default()).await.expect("same tree").outcome, BackupOutcome::Unchanged);
}

#[tokio::test]
async fn a_crash_between_commit_and_receipt_is_mended_by_the_next_run() {
    let bench = Bench::with_files(3).await;
    let options = RestoreOptions {
        receipt: Some(bench.receipt()),
        overwrite: Some(ghostsync_core::restore::Overwrite::Changed),
        ..RestoreOptions::default()
    };
    let report = restore(&bench.repository, &bench.source(), options, Arc::new(NoObserver)).await.expect("a restore");
    assert!(report.is_complete_for_test());
    let mut crashes_after_commit = 0;
    for call in 0..12 {
        bench.write("more", &format!("state {call}"));
        // The process is gone at this call: nothing after it reaches the store.
        let dying = FaultStore::new(bench.store.clone(), move |seen| {
            (seen.number >= call).then_some(Fault::Before(Failure::Denied))
        });
        let store = Store::new(Arc::new(dying), "memory").with_settle_time(Duration::from_millis(100));
        let before = bench.repository.state().await.expect("a state").commit.seq;
        let receipt = fs::read(bench.receipt()).expect("a receipt");
        let died = match Repository::open(store, OpenOptions::default()).await {
            Err(error) => Err(error),
            Ok(dying) => backup(&dying, &bench.source(), with_receipt(&bench), Arc::new(NoObserver)).await,
        };
        let after = bench.repository.state().await.expect("a state").commit.seq;
        if after > before {
            // The commit is in the log; a real crash would have left the receipt as it was before it was rewritten.
            crashes_after_commit += 1;
            assert!(died.is_ok(), "the hint alone may fail");
            let mut old: serde_json::Value = serde_json::from_slice(&receipt).expect("JSON");
            let head = bench.repository.state().await.expect("a state").commit.head("main").expect("a head").session;
            old["pending"] = head.to_string().into();
            old.as_object_mut().expect("an object").remove("checksum");
            let receipt: Receipt = serde_json::from_value(old).expect("a receipt");
            receipt.write(&bench.receipt()).expect("written");
        }
        let next = bench.run(with_receipt(&bench)).await.expect("goes on");
        let head = bench.repository.state().await.expect("a state").commit.head("main").expect("a head").id;
        assert_eq!(next.snapshot, Some(head), "call {call}");
        let receipt = Receipt::load(&bench.receipt()).expect("a receipt");
        assert_eq!((receipt.snapshot, receipt.pending), (Some(head), None));
    }
    assert!(crashes_after_commit > 0);
}

/// The content of a file, or the kind of something else that counts for the caps.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    File(Vec<u8>),
    Link,
    Special,
}

/// What a directory holds, found naively.
struct Held {
    /// Files, links and special files by path.
    contents: BTreeMap<PathBuf, Content>,
    /// All entries, directories too.
    entries: usize,
}

/// Whether a pattern like `a*` hides a path: a name that begins so, or a directory of such a name above it.
fn hides(prefix: Option<&str>, path: &Path) -> bool {
    prefix.is_some_and(|prefix| path.iter().any(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes())))
}

fn held(directory: &Path, excluded: Option<&str>) -> Held {
    let mut found = Held { contents: BTreeMap::new(), entries: 0 };
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(directory).expect("below").to_owned();
            if hides(excluded, &name) {
                continue;
            }
            found.entries += 1;
            let kind = fs::symlink_metadata(&path).expect("there").file_type();
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let content = match () {
                () if kind.is_file() => Content::File(fs::read(&path).expect("readable")),
                () if kind.is_symlink() => Content::Link,
                () => Content::Special,
            };
            found.contents.insert(name, content);
        }
    }
    found
}

/// What a backup of one directory over the other comes to, counted naively.
#[derive(Debug)]
struct Counted {
    removed: u64,
    excluded: u64,
    changed: u64,
    /// Of the changed ones, those that their length gives away.
    changed_for_sure: u64,
}

fn counted(was: &Held, is: &Held, excluded: Option<&str>) -> Counted {
    let mut counted = Counted { removed: 0, excluded: 0, changed: 0, changed_for_sure: 0 };
    let is_added = |path: &PathBuf, now: &Content| {
        was.contents.get(path).is_none_or(|old| std::mem::discriminant(old) != std::mem::discriminant(now))
    };
    let mut added: Vec<_> = is.contents.iter().filter(|(path, now)| is_added(path, now)).map(|(_, now)| now).collect();
    for (path, old) in &was.contents {
        let now = is.contents.get(path);
        match (old, now) {
            _ if hides(excluded, path) => counted.excluded += 1,
            (Content::File(old), Some(Content::File(now))) if !now.is_empty() || old.is_empty() => {
                counted.changed += u64::from(old != now);
                counted.changed_for_sure += u64::from(old.len() != now.len());
            }
            (Content::Link, Some(Content::Link)) | (Content::Special, Some(Content::Special)) => {}
            // Gone, emptied, or of another kind: unless its content is found under a name that is new.
            _ => match added.iter().position(|now| matches!(now, Content::File(_)) && *now == old) {
                Some(at) => drop(added.swap_remove(at)),
                None => counted.removed += 1,
            },
        }
    }
    counted
}

/// The guard that is to refuse.
fn expected(counted: &Counted, was: &Held, is: &Held, policy: &Policy) -> Option<Guard> {
    let files = was.contents.len() as u64;
    let is_emptied = is.entries == 0 && was.entries > 0;
    if is_emptied && !policy.allow_empty {
        Some(Guard::Empty)
    } else if !policy.max_delete.allows(counted.removed, files) && !is_emptied {
        Some(Guard::MaxDelete)
    } else if !policy.max_delete.allows(counted.excluded, files) {
        Some(Guard::Excluded)
    } else {
        policy.max_change.filter(|cap| !cap.allows(counted.changed, files)).map(|_| Guard::MaxChange)
    }
}

fn policies() -> impl Strategy<Value = Policy> {
    let cap = || prop_oneof![(0..12_u64).prop_map(Cap::Count), (0..=100_u32).prop_map(Cap::Percent)];
    (cap(), proptest::option::weighted(0.4, cap()), any::<bool>(), any::<bool>()).prop_map(
        |(max_delete, max_change, allow_empty, strict)| Policy {
            max_delete,
            max_change,
            allow_empty,
            strict,
            override_plan: None,
        },
    )
}

#[test]
fn whatever_tree_and_policy_a_refusal_changes_nothing_and_what_passes_kept_to_the_policy() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases: 80, failure_persistence: None, ..Config::default() });
    let excluded = proptest::option::weighted(0.3, proptest::sample::select(vec!["a", "b", "aa", ""]));
    let cases = (tree(1..30), changes(0..25), policies(), excluded, any::<bool>());
    runner
        .run(&cases, |(mut model, steps, policy, excluded, quarantine)| {
            runtime.block_on(async {
                let bench = Bench::new().await;
                model.write(&bench.source()).expect("a tree");
                let first = bench.run(BackupOptions::default()).await.expect("a first snapshot");
                let was = held(&bench.source(), None);
                for change in &steps {
                    apply(change, &mut model, &bench.source()).expect("a change");
                }
                let is = held(&bench.source(), excluded);
                let counted = counted(&was, &is, excluded);
                let expected = expected(&counted, &was, &is, &policy);
                let before = bench.objects().await;
                let patterns = excluded.iter().map(|prefix| format!("{prefix}*")).collect();
                let options = BackupOptions {
                    policy: policy.clone(),
                    excludes: Excludes { patterns, ..Excludes::default() },
                    on_refusal: if quarantine { OnRefusal::Quarantine } else { OnRefusal::Fail },
                    ..BackupOptions::default()
                };
                let contents_were_read = Arc::new(AtomicBool::new(false));
                let read = Arc::clone(&contents_were_read);
                let observer = move |progress| {
                    if matches!(progress, Progress::Planned { .. } | Progress::Advanced { .. }) {
                        read.store(true, Ordering::SeqCst);
                    }
                };
                let ran = backup(&bench.repository, &bench.source(), options, Arc::new(observer)).await;
                let after = bench.objects().await;
                let state = bench.repository.state().await.expect("a state");
                for (key, bytes) in before.iter().filter(|(key, _)| key.as_ref() != "head.json") {
                    assert!(after.get(key) == Some(bytes), "{key} was changed or deleted");
                }
                let new: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).map(Key::as_ref).collect();
                let commits = new.iter().filter(|key| key.starts_with("log/")).count();
                let head = state.commit.head("main").map(|head| head.id);
                match ran {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
                        assert!(!quarantine && head == first.snapshot, "{error}");
                        let guard = error.refusal().map(|refusal| refusal.guard);
                        assert_eq!(guard, expected, "{error}: {counted:?}");
                        // Lengths alone may tell that too much was rewritten; else contents have to be read for it.
                        let files = was.contents.len() as u64;
                        let is_late = guard == Some(Guard::MaxChange)
                            && policy.max_change.is_some_and(|cap| cap.allows(counted.changed_for_sure, files));
                        if is_late {
                            assert!(new.iter().all(|key| key.starts_with("packs/")), "{error}: {new:?}");
                        } else {
                            assert!(!contents_were_read.load(Ordering::SeqCst), "known before that: {error}");
                            assert!(after == before, "{error}: {new:?}");
                        }
                    }
                    Ok(report) if report.outcome == BackupOutcome::Quarantined => {
                        assert!(quarantine && report.branch.starts_with("quarantine/main/"));
                        assert_eq!(report.refusal.map(|refusal| refusal.guard), expected, "{counted:?}");
                        assert_eq!((head, commits), (first.snapshot, 1));
                    }
                    Ok(report) => {
                        assert_eq!(expected, None, "{counted:?}: {report:?}");
                        let figures = (report.changes.removed, report.changes.changed);
                        assert_eq!(figures, (counted.removed, counted.changed));
                        assert_eq!(commits, usize::from(report.outcome == BackupOutcome::Done));
                    }
                }
            });
            Ok(())
        })
        .expect("the property");
}
