//! A repository with a history of which every snapshot's directory is kept, and a naive search for what it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;
use ghostsync_core::backup::{BackupOptions, BackupReport, backup};
use ghostsync_core::format::commit::{Commit, Snapshot};
use ghostsync_core::format::page::{Page, PageRef, Placement, decode};
use ghostsync_core::guard::{Cap, Policy};
use ghostsync_core::id::{CommitHash, SessionId, SnapshotId};
use ghostsync_core::maintain::{CheckOptions, PruneOptions, PruneReport, check, prune};
use ghostsync_core::observer::{NoObserver, Observer};
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, Selector, State};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::{Store, keys};
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use ghostsync_core::testing::tree::differences;
use ghostsync_core::{ErrorKind, Result};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

use crate::restoring::quick_folder;

pub(super) struct History {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) repository: Repository,
    pub(super) folder: tempfile::TempDir,
    /// Copies of the directories as they were.
    kept: Option<BTreeMap<SnapshotId, PathBuf>>,
}

/// Nothing waits for anything.
pub(super) fn at_once() -> PruneOptions {
    PruneOptions { grace: Duration::ZERO, session_idle: Duration::ZERO, ..PruneOptions::default() }
}

pub(super) async fn run(repository: &Repository, options: PruneOptions) -> Result<PruneReport> {
    prune(repository, options, Arc::new(NoObserver)).await
}

pub(super) async fn pruned(repository: &Repository) -> PruneReport {
    run(repository, at_once()).await.expect("a prune")
}

pub(super) async fn open(objects: Arc<dyn ObjectStore>) -> Repository {
    Repository::open(Store::new(objects, "memory"), OpenOptions::default()).await.expect("a repository")
}

impl History {
    pub(super) async fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self::in_store(Store::new(objects.clone(), "memory"), objects).await
    }

    pub(super) async fn in_store(store: Store, objects: Arc<dyn ObjectStore>) -> Self {
        let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
        let repository = Repository::create(store, create, OpenOptions::default()).await.expect("a new repository");
        Self::of(repository, objects)
    }

    pub(super) fn of(repository: Repository, objects: Arc<dyn ObjectStore>) -> Self {
        let folder = quick_folder();
        std::fs::create_dir(folder.path().join("source")).expect("a folder");
        Self { objects, repository, folder, kept: Some(BTreeMap::new()) }
    }

    pub(super) fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    pub(super) async fn state(&self) -> State {
        self.repository.state().await.expect("a state")
    }

    /// Makes a snapshot, also of an unchanged tree, and keeps a copy of the directory.
    pub(super) async fn back_up(&mut self, branch: &str) -> BackupReport {
        let repository = self.repository.clone();
        self.back_up_with(&repository, branch).await.expect("a backup")
    }

    pub(super) async fn back_up_with(&mut self, repository: &Repository, branch: &str) -> Result<BackupReport> {
        let report = backup(repository, &self.source(), options(branch), Arc::new(NoObserver)).await?;
        self.keep(report.snapshot.expect("a snapshot"));
        Ok(report)
    }

    pub(super) async fn back_up_watched(&mut self, observer: impl Observer + 'static) -> BackupReport {
        let report = backup(&self.repository, &self.source(), options("main"), Arc::new(observer)).await;
        let report = report.expect("a backup");
        self.keep(report.snapshot.expect("a snapshot"));
        report
    }

    /// Copies no directories any more: a check and the caller's own comparison have to do.
    pub(super) fn without_copies(mut self) -> Self {
        self.kept = None;
        self
    }

    fn keep(&mut self, snapshot: SnapshotId) {
        let Some(kept) = &mut self.kept else { return };
        let copy = self.folder.path().join(snapshot.to_string());
        let source = self.folder.path().join("source");
        let done = Command::new("cp").arg("-a").arg(source).arg(&copy).status().expect("cp runs");
        assert!(done.success());
        kept.insert(snapshot, copy);
    }

    /// Uploads packs for a snapshot, and is gone before it commits.
    pub(super) async fn crash(&self) {
        let dead = FaultStore::new(self.objects.clone(), |call| {
            let is_commit = call.operation == Operation::Create && call.key.as_ref().starts_with("log/");
            is_commit.then_some(Fault::Before(Failure::Denied))
        });
        // A branch of its own without a head: nothing is there to be reused.
        let options = BackupOptions { branch: "crashed".into(), ..options("crashed") };
        let ran = backup(&open(Arc::new(dead)).await, &self.source(), options, Arc::new(NoObserver)).await;
        assert_eq!(ran.expect_err("it is gone").kind(), ErrorKind::Denied);
    }

    /// Commits a state without the snapshots that are chosen; heads of branches stay.
    pub(super) async fn forget(&self, mut which: impl FnMut(&Snapshot) -> bool) {
        self.change(|commit| {
            let heads: BTreeSet<_> = commit.branches.values().filter_map(|branch| branch.head).collect();
            commit.snapshots.retain(|snapshot| !which(snapshot) || heads.contains(&snapshot.id));
        })
        .await;
    }

    /// Commits a state that was changed by hand.
    pub(super) async fn change(&self, change: impl FnOnce(&mut Commit)) {
        let state = self.state().await;
        let (seq, session, op) = (state.commit.seq + 1, SessionId::random(), json!({"kind": "forget"}));
        let mut commit = Commit { seq, prev: state.hash, session, op, ..state.commit };
        change(&mut commit);
        let bytes = commit.encode().expect("encodes");
        self.objects.put(&keys::commit(seq), bytes.into()).await.expect("put");
    }

    /// Every retained snapshot comes back as it was, and a check finds nothing.
    pub(super) async fn assert_all_restore(&self, case: &str) {
        let state = self.state().await;
        for snapshot in &state.commit.snapshots {
            let back = quick_folder();
            let back = back.path().join("back");
            let options =
                RestoreOptions { snapshot: Selector::Id(snapshot.id.to_string()), ..RestoreOptions::default() };
            let report = restore(&self.repository, &back, options, Arc::new(NoObserver)).await;
            let report = report.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(report.problems.is_empty(), "{case}: {report:?}");
            if let Some(kept) = &self.kept {
                let differences = differences(&kept[&snapshot.id], &back);
                assert!(differences.is_empty(), "{case}: {differences:#?}");
            }
        }
        let report = check(&self.repository, CheckOptions::default(), &NoObserver).await.expect("a check");
        assert!(report.damage.is_empty(), "{case}: {:#?}", report.damage);
    }

    /// The head comes back as the directory is.
    pub(super) async fn assert_head_restores(&self, case: &str) {
        let back = quick_folder();
        let back = back.path().join("back");
        let report = restore(&self.repository, &back, RestoreOptions::default(), Arc::new(NoObserver)).await;
        assert!(report.expect("a restore").problems.is_empty(), "{case}");
        let differences = differences(&self.source(), &back);
        assert!(differences.is_empty(), "{case}: {differences:#?}");
    }

    /// The bytes of all objects below a prefix.
    pub(super) async fn bytes(&self, prefix: &str) -> u64 {
        let listed: Vec<_> = self.objects.list(Some(&Key::from(prefix))).try_collect().await.expect("a listing");
        listed.iter().map(|object: &object_store::ObjectMeta| object.size).sum()
    }
}

pub(super) fn options(branch: &str) -> BackupOptions {
    let policy = Policy { max_delete: Cap::Percent(100), allow_empty: true, ..Policy::default() };
    BackupOptions { branch: branch.into(), policy, force: true, ..BackupOptions::default() }
}

pub(super) async fn keys_of(objects: &Arc<dyn ObjectStore>) -> BTreeSet<Key> {
    let listed: Vec<_> = objects.list(None).try_collect().await.expect("a listing");
    listed.into_iter().map(|object: object_store::ObjectMeta| object.location).collect()
}

pub(crate) async fn packs_in(objects: &Arc<dyn ObjectStore>) -> BTreeSet<Key> {
    keys_of(objects).await.into_iter().filter(|key| key.as_ref().starts_with("packs/")).collect()
}

/// The packs that a state needs, found without any of the code that prunes.
pub(crate) async fn reachable(objects: &Arc<dyn ObjectStore>, state: &State) -> BTreeSet<Key> {
    search(objects, state, |page| format!("{} {}", page.placement.pack, page.placement.offset)).await
}

/// What a prune would find that takes pages of one id for one page.
pub(super) async fn reachable_by_ids(objects: &Arc<dyn ObjectStore>, state: &State) -> BTreeSet<Key> {
    search(objects, state, |page| page.page.to_string()).await
}

async fn search(objects: &Arc<dyn ObjectStore>, state: &State, name: fn(&PageRef) -> String) -> BTreeSet<Key> {
    let (mut packs, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut ahead: Vec<PageRef> = state.commit.snapshots.iter().map(|snapshot| snapshot.tree.root()).collect();
    while let Some(page) = ahead.pop() {
        if !seen.insert(name(&page)) {
            continue;
        }
        let key = keys::meta_pack(page.placement.pack);
        let end = page.placement.offset + u64::from(page.placement.bytes);
        let frame = objects.get_range(&key, page.placement.offset..end).await.expect("a page");
        packs.insert(key);
        match decode(&page, &frame).expect("a page") {
            Page::Children(children) => ahead.extend(children.iter().map(|child| child.page)),
            Page::ListChildren(children) => ahead.extend(children.iter().map(|child| child.page)),
            Page::Chunks(chunks) => packs.extend(chunks.iter().map(|(_, place)| keys::data_pack(place.pack))),
            Page::Entries(entries) => {
                for placed in entries {
                    match placed.content {
                        Placement::Chunks(chunks) => {
                            packs.extend(chunks.iter().map(|place| keys::data_pack(place.pack)));
                        }
                        Placement::List(root) => ahead.push(*root),
                    }
                }
            }
        }
    }
    packs
}

/// The stored bytes of a commit, and their hash.
pub(super) async fn stored_commit(objects: &Arc<dyn ObjectStore>, seq: u64) -> (bytes::Bytes, CommitHash) {
    let bytes = objects.get(&keys::commit(seq)).await.expect("a commit").bytes().await.expect("its bytes");
    let hash = CommitHash::of(&bytes);
    (bytes, hash)
}

/// Writes a file that does not compress, in folders of 100; no two versions are alike.
pub(super) fn write_file(source: &Path, number: u64, version: u64, bytes: usize) {
    let folder = source.join(format!("{:03}", number / 100));
    std::fs::create_dir_all(&folder).expect("a folder");
    let content = ghostsync_core::testing::tree::noise(number * 100_000 + version, bytes);
    write_old(&folder.join(format!("{number:05}")), &content, version);
}

/// Writes a file with an old time, another one for each version: no backup reads it again to be sure.
pub(super) fn write_old(path: &Path, content: &[u8], version: u64) {
    std::fs::write(path, content).expect("a file");
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + version);
    std::fs::File::open(path).and_then(|file| file.set_modified(then)).expect("a time");
}
