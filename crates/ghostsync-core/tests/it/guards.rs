//! The guards of a backup, end to end: what is refused changes nothing, and what passes never removed more than allowed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, Excludes, OnRefusal, backup};
use ghostsync_core::guard::{Cap, Guard, Policy, Refusal};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{OpenOptions, Repository};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore};
use ghostsync_core::testing::tree::{apply, changes, read_back, tree};
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

async fn objects(store: &InMemory) -> BTreeMap<Key, Bytes> {
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
    let before = bench.objects().await;
    let conflict = bench.run(with_receipt(&bench)).await.expect_err("a conflict");
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    assert!(bench.objects().await == before && fs::read(bench.receipt()).expect("a receipt") == receipt);
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
            let receipt: ghostsync_core::receipt::Receipt = serde_json::from_value(old).expect("a receipt");
            receipt.write(&bench.receipt()).expect("written");
        }
        let next = bench.run(with_receipt(&bench)).await.expect("goes on");
        let head = bench.repository.state().await.expect("a state").commit.head("main").expect("a head").id;
        assert_eq!(next.snapshot, Some(head), "call {call}");
        let receipt = ghostsync_core::receipt::Receipt::load(&bench.receipt()).expect("a receipt");
        assert_eq!((receipt.snapshot, receipt.pending), (Some(head), None));
    }
    assert!(crashes_after_commit > 0);
}

/// Files, links and special files of a directory by path, with their content where they have one: counted naively.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("an entry").path();
            let kind = fs::symlink_metadata(&path).expect("there").file_type();
            if kind.is_dir() {
                walk(root, &path, found);
            } else {
                let content = kind.is_file().then(|| fs::read(&path).expect("readable"));
                found.insert(path.strip_prefix(root).expect("below").to_owned(), content);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(directory, directory, &mut found);
    found
}

#[test]
fn whatever_tree_and_policy_a_refusal_changes_nothing_and_what_passes_kept_to_the_cap() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let caps = prop_oneof![(0..12_u64).prop_map(Cap::Count), (0..=100_u32).prop_map(Cap::Percent)];
    let cases = (tree(1..30), changes(0..25), caps, any::<bool>(), any::<bool>());
    runner
        .run(&cases, |(mut model, steps, cap, allow_empty, quarantine)| {
            runtime.block_on(async {
                let bench = Bench::new().await;
                model.write(&bench.source()).expect("a tree");
                let first = bench.run(BackupOptions::default()).await.expect("a first snapshot");
                let was = contents(&bench.source());
                for change in &steps {
                    apply(change, &mut model, &bench.source()).expect("a change");
                }
                let is = contents(&bench.source());
                let (before, head) = (bench.objects().await, first.snapshot);
                let policy = Policy { max_delete: cap, allow_empty, ..Policy::default() };
                let on_refusal = if quarantine { OnRefusal::Quarantine } else { OnRefusal::Fail };
                let ran = bench.run(BackupOptions { policy, on_refusal, ..BackupOptions::default() }).await;
                let after = bench.objects().await;
                let state = bench.repository.state().await.expect("a state");
                let new = |key: &&Key| !before.contains_key(*key);
                for (key, bytes) in before.iter().filter(|(key, _)| key.as_ref() != "head.json") {
                    assert!(after.get(key) == Some(bytes), "{key} was changed or deleted");
                }
                match ran {
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
                        assert!(!quarantine);
                        assert_eq!(state.commit.head("main").map(|head| head.id), head);
                        assert!(after.keys().filter(new).all(|key| key.as_ref().starts_with("packs/")), "{error}");
                    }
                    Ok(report) if report.outcome == BackupOutcome::Quarantined => {
                        assert!(quarantine && report.branch.starts_with("quarantine/main/"));
                        assert_eq!(state.commit.head("main").map(|head| head.id), head);
                    }
                    Ok(report) => {
                        // Gone, emptied, or of another kind, and its content under no path that is new.
                        let gone = was.iter().filter(|(path, content)| match is.get(*path) {
                            None => true,
                            Some(now) => {
                                now.is_some() != content.is_some()
                                    || (now.as_ref().is_some_and(Vec::is_empty)
                                        && content.as_ref().is_some_and(|content| !content.is_empty()))
                            }
                        });
                        let mut added: Vec<_> = is
                            .iter()
                            .filter(|(path, now)| was.get(*path).is_none_or(|old| old.is_some() != now.is_some()))
                            .map(|(_, now)| now)
                            .collect();
                        let mut removed = 0;
                        for (_, content) in gone {
                            match added.iter().position(|now| content.is_some() && *now == content) {
                                Some(at) => drop(added.swap_remove(at)),
                                None => removed += 1,
                            }
                        }
                        let emptied_on_purpose = allow_empty && report.entries == 0;
                        assert!(
                            cap.allows(removed, was.len() as u64) || emptied_on_purpose,
                            "{removed} of {} under {cap}: {report:?}",
                            was.len()
                        );
                    }
                }
                drop(read_back(&bench.source()));
            });
            Ok(())
        })
        .expect("the property");
}
