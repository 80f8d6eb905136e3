//! Damage of every kind, and what a repair makes of it: what is found elsewhere is there again, what is not is named and
//! left out of the new head alone, and nothing that was there before is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, backup};
use ghostsync_core::format::config::{CommitMode, Config};
use ghostsync_core::format::pack::TableOfContents;
use ghostsync_core::format::page::{
    ChunkPlacement, Page, PageRef, Placement, decode, decode_unverified, ends_tree_page,
};
use ghostsync_core::guard::{Cap, Guard, Policy};
use ghostsync_core::history::judge::Overtaken;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::maintain::{
    CheckOptions, ForgetOptions, HeadOutcome, KeepRules, PruneOptions, ReadData, RepairOptions, RepairReport,
    RepairedHead, check, forget, prune, repair,
};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, Selector, claim, promote, release};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::{Store, keys};
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use ghostsync_core::testing::tree::{differences, noise};
use ghostsync_core::tree_path::TreePath;
use ghostsync_core::{ErrorKind, Result};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::restoring::quick_folder;

const FOLDERS: [&str; 3] = ["a", "b", "c"];
/// All files but the large one, the folders, and the large file.
const ENTRIES: u64 = 3 * 24 + 3 + 1;

/// Small files and a big one in each folder; three of the names in each end a page.
fn names() -> Vec<String> {
    let in_folder = |folder: &str| {
        let ends = |name: &String| ends_tree_page(0, &path(name));
        let (ends, others): (Vec<_>, Vec<_>) = (0..5000).map(|file| format!("{folder}/{file:04}")).partition(ends);
        let spread = others.into_iter().step_by(250);
        spread.take(20).chain(ends.into_iter().take(3)).chain([format!("{folder}/big")]).collect::<Vec<_>>()
    };
    FOLDERS.into_iter().flat_map(in_folder).collect()
}

/// A repository in memory, and folders.
struct Bench {
    objects: Arc<InMemory>,
    repository: Repository,
    folder: Arc<tempfile::TempDir>,
}

async fn open(objects: Arc<dyn ObjectStore>) -> Repository {
    let store = Store::new(objects, "memory").with_settle_time(Duration::from_millis(300));
    Repository::open(store, OpenOptions::default()).await.expect("a repository")
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text).expect("a path")
}

fn everything() -> RepairOptions {
    RepairOptions { read_data: true, ..RepairOptions::default() }
}

fn any(branch: &str) -> BackupOptions {
    let policy = Policy { max_delete: Cap::Percent(100), ..Policy::default() };
    BackupOptions { branch: branch.into(), policy, force: true, writer: "pod".into(), ..BackupOptions::default() }
}

impl Bench {
    async fn new() -> Self {
        Self::in_mode(CommitMode::Atomic).await
    }

    async fn in_mode(commit_mode: CommitMode) -> Self {
        let objects = Arc::new(InMemory::new());
        let create = CreateOptions { commit_mode, skip_probe: true, ..CreateOptions::default() };
        let store = Store::new(objects.clone(), "memory");
        drop(Repository::create(store, create, OpenOptions::default()).await.expect("a new repository"));
        // Chunks so small that a file of 2 MB has more of them than its entry can name.
        let config = Key::from("config.json");
        let mut changed = Config::decode(&bytes_of(&objects, &config).await).expect("a configuration");
        changed.chunker.whole_bytes = 4 << 10;
        changed.chunker.min_bytes = 1 << 10;
        changed.chunker.average_bytes = 4 << 10;
        changed.chunker.max_bytes = 16 << 10;
        objects.put(&config, changed.encode().expect("encodes").into()).await.expect("put");
        Self { repository: open(objects.clone()).await, objects, folder: Arc::new(quick_folder()) }
    }

    /// A directory of small files in three folders and a large file: several pages, blocks and a list of chunks.
    async fn with_snapshot() -> Self {
        let bench = Self::new().await;
        bench.fill();
        bench.back_up("main").await;
        bench
    }

    /// The same repository once more, with the same source.
    async fn once_more(&self) -> Self {
        let objects = Arc::new(InMemory::new());
        for key in self.keys("").await {
            objects.put(&key, bytes_of(&self.objects, &key).await.into()).await.expect("put");
        }
        Self { repository: open(objects.clone()).await, objects, folder: Arc::clone(&self.folder) }
    }

    fn fill(&self) {
        for (number, name) in (0..).zip(names()) {
            let path = self.source().join(&name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            let bytes = if name.ends_with("big") { 600_000 } else { 3000 };
            fs::write(path, noise(number, bytes)).expect("a file");
        }
        fs::write(self.source().join("large"), noise(1000, 2 << 20)).expect("a file");
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    async fn back_up(&self, branch: &str) -> SnapshotId {
        let report = backup(&self.repository, &self.source(), any(branch), Arc::new(NoObserver)).await;
        report.expect("a backup").snapshot.expect("a snapshot")
    }

    /// Uploads all that a snapshot of the source needs, and is gone before it commits.
    async fn crash(&self) {
        let dead = FaultStore::new(self.objects.clone(), |call| {
            is_commit(call.operation, &call.key).then_some(Fault::Before(Failure::Denied))
        });
        let ran = backup(&open(Arc::new(dead)).await, &self.source(), any("crashed"), Arc::new(NoObserver)).await;
        assert_eq!(ran.expect_err("it is gone").kind(), ErrorKind::Denied);
    }

    async fn repair(&self, options: RepairOptions) -> RepairReport {
        repair(&self.repository, options, Arc::new(NoObserver)).await.expect("a repair")
    }

    async fn head(&self, branch: &str) -> SnapshotId {
        let state = self.repository.state().await.expect("a state");
        state.commit.head(branch).expect("a head").id
    }

    async fn restored(&self, snapshot: SnapshotId) -> (tempfile::TempDir, PathBuf) {
        let folder = quick_folder();
        let back = folder.path().join("back");
        let options = RestoreOptions { snapshot: Selector::Id(snapshot.to_string()), ..RestoreOptions::default() };
        let report = restore(&self.repository, &back, options, Arc::new(NoObserver)).await.expect("a restore");
        assert!(!report.damaged && report.problems.is_empty(), "{report:?}");
        (folder, back)
    }

    /// A branch's head restores to exactly the source without some paths, and no damage concerns it.
    async fn assert_head_is_source_without(&self, branch: &str, lost: &BTreeSet<String>, case: &str) {
        let head = self.head(branch).await;
        let (_folder, back) = self.restored(head).await;
        let expected = quick_folder();
        let expected = expected.path().join("expected");
        let copied = std::process::Command::new("cp").arg("-a").arg(self.source()).arg(&expected).status();
        assert!(copied.expect("cp runs").success());
        // What lies in a folder before the folder.
        for path in lost.iter().rev() {
            let path = expected.join(path);
            let removed = if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
            removed.unwrap_or_else(|error| panic!("{case}: {}: {error}", path.display()));
        }
        // What was in a folder when it was backed up made its time.
        let differences: Vec<_> = differences(&expected, &back)
            .into_iter()
            .filter(|line| lost.is_empty() || !line.contains("mtime"))
            .collect();
        assert!(differences.is_empty(), "{case}: {differences:#?}");
        let checked = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        let checked = check(&self.repository, checked, &NoObserver).await.expect("a check");
        let of_head: Vec<_> = checked.damage.iter().filter(|damage| damage.snapshots.contains(&head)).collect();
        assert!(of_head.is_empty(), "{case}: {of_head:#?}");
    }

    async fn keys(&self, end: &str) -> BTreeSet<Key> {
        let listed: Vec<_> = self.objects.list(None).try_collect().await.expect("a listing");
        let keys = listed.into_iter().map(|object: object_store::ObjectMeta| object.location);
        keys.filter(|key| key.as_ref().ends_with(end)).collect()
    }

    async fn delete(&self, keys: &BTreeSet<Key>) {
        for key in keys {
            self.objects.delete(key).await.expect("deleted");
        }
    }

    async fn flip(&self, key: &Key, at: u64) {
        let mut bytes = bytes_of(&self.objects, key).await.to_vec();
        bytes[usize::try_from(at).expect("small")] ^= 4;
        self.objects.put(key, bytes.into()).await.expect("put");
    }

    /// Every page below a branch's head, with the key of its pack.
    async fn pages(&self, branch: &str) -> Vec<(PageRef, Page)> {
        let state = self.repository.state().await.expect("a state");
        let mut ahead = vec![state.commit.head(branch).expect("a head").tree.root()];
        let mut pages = Vec::new();
        while let Some(page) = ahead.pop() {
            let place = page.placement;
            let end = place.offset + u64::from(place.bytes);
            let frame = self.objects.get_range(&keys::meta_pack(place.pack), place.offset..end).await.expect("a frame");
            let decoded = decode(&page, &frame).expect("a page");
            match &decoded {
                Page::Children(children) => ahead.extend(children.iter().map(|child| child.page)),
                Page::ListChildren(children) => ahead.extend(children.iter().map(|child| child.page)),
                Page::Entries(entries) => ahead.extend(entries.iter().filter_map(|placed| match &placed.content {
                    Placement::List(root) => Some(**root),
                    Placement::Chunks(_) => None,
                })),
                Page::Chunks(_) => {}
            }
            pages.push((page, decoded));
        }
        pages
    }

    /// Damages one page.
    async fn flip_page(&self, page: &PageRef) {
        self.flip(&keys::meta_pack(page.placement.pack), page.placement.offset + u64::from(page.placement.bytes) / 2)
            .await;
    }

    /// Damages the begin of the block that holds a file's first chunk, so that nothing in it can be read; tells all files
    /// that have a chunk in it.
    async fn flip_block_of(&self, file: &str) -> BTreeSet<String> {
        let files = self.places().await;
        let at = files[file][0];
        self.flip(&keys::data_pack(at.pack), at.frame_offset).await;
        let shares = |chunk: &ChunkPlacement| (chunk.pack, chunk.frame_offset) == (at.pack, at.frame_offset);
        files.into_iter().filter(|(_, chunks)| chunks.iter().any(shares)).map(|(name, _)| name).collect()
    }

    /// Where each file's chunks lie.
    async fn places(&self) -> BTreeMap<String, Vec<ChunkPlacement>> {
        let mut files = BTreeMap::<String, Vec<ChunkPlacement>>::new();
        for (_, page) in self.pages("main").await {
            match page {
                Page::Entries(entries) => files.extend(entries.into_iter().filter_map(|placed| match placed.content {
                    Placement::Chunks(chunks) => Some((placed.entry.path.to_string(), chunks)),
                    Placement::List(_) => None,
                })),
                Page::Chunks(chunks) => {
                    files.entry("large".to_owned()).or_default().extend(chunks.iter().map(|(_, at)| *at));
                }
                Page::Children(_) | Page::ListChildren(_) => {}
            }
        }
        files
    }
}

fn is_commit(operation: Operation, key: &Key) -> bool {
    operation == Operation::Create && key.as_ref().starts_with("log/")
}

async fn bytes_of(objects: &Arc<InMemory>, key: &Key) -> Bytes {
    objects.get(key).await.expect("an object").bytes().await.expect("its bytes")
}

#[track_caller]
fn only(report: &RepairReport) -> &RepairedHead {
    assert_eq!(report.heads.len(), 1, "{report:#?}");
    &report.heads[0]
}

fn lost(head: &RepairedHead) -> BTreeSet<String> {
    head.losses.iter().map(|loss| loss.path.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_done_about_what_is_sound() {
    let bench = Bench::with_snapshot().await;
    let before = bench.keys("").await;
    let report = bench.repair(everything()).await;
    assert!(report.damage.is_empty() && report.heads.is_empty() && report.left.is_empty(), "{report:?}");
    assert_eq!((report.commit, report.snapshots, report.requests.put), (1, 1, 0));
    assert_eq!(bench.keys("").await, before);
}

/// Each page of the tree and of the large file's list, alone and all of them, with another copy in the packs of another
/// branch, which are referred to, and in those of a backup that never committed, which are copied from.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_found_elsewhere_is_there_again() {
    for has_crashed in [false, true] {
        let sample = Bench::with_snapshot().await;
        let (pages, metas) = (sample.pages("main").await, sample.keys(".meta").await);
        assert!(pages.len() >= 10, "{} pages", pages.len());
        if has_crashed {
            sample.crash().await;
        } else {
            sample.back_up("other").await;
        }
        for damaged in (0..pages.len()).map(Some).chain([None]) {
            let case = format!("crashed {has_crashed}, page {damaged:?}");
            let bench = sample.once_more().await;
            let first = bench.head("main").await;
            match damaged {
                Some(number) => bench.flip_page(&pages[number].0).await,
                None => bench.delete(&metas).await,
            }
            let report = bench.repair(RepairOptions::default()).await;
            let head = only(&report);
            assert_eq!((head.outcome, head.damaged, &head.losses[..]), (HeadOutcome::Done, first, &[][..]), "{case}");
            // What lies in packs that a snapshot refers to stays there.
            let is_root_lost = damaged.is_none_or(|number| number == 0);
            assert_eq!(head.copied_bytes > 0, has_crashed && is_root_lost, "{case}: {head:?}");
            assert!(report.left.is_empty(), "{case}: {report:?}");
            let state = bench.repository.state().await.expect("a state");
            let (old, new) =
                (state.commit.snapshot(first).expect("retained"), state.commit.head("main").expect("a head"));
            assert_eq!((new.parent, new.repaired, new.complete), (Some(first), Some(first), true), "{case}");
            assert_eq!(
                (new.tree.page, new.entries, new.bytes, new.time),
                (old.tree.page, old.entries, old.bytes, old.time)
            );
            assert_eq!(state.commit.branches["main"].epoch, state.commit.seq, "{case}");
            bench.assert_head_is_source_without("main", &BTreeSet::new(), &case).await;
            let again = bench.repair(RepairOptions::default()).await;
            assert!(again.heads.is_empty() && again.requests.put == 0, "{case}: {again:?}");
        }
    }
}

/// That a copy is there says nothing: a prune takes what no snapshot needs. So it is not referred to.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_needs_is_copied_and_not_relied_on() {
    let bench = Bench::with_snapshot().await;
    let data = bench.keys(".data").await;
    bench.crash().await;
    bench.delete(&data).await;
    let report = bench.repair(RepairOptions::default()).await;
    let head = only(&report);
    assert!(head.losses.is_empty() && head.copied_bytes > 2 << 20, "{head:?}");
    let at_once = PruneOptions { grace: Duration::ZERO, session_idle: Duration::ZERO, ..PruneOptions::default() };
    let pruned = prune(&bench.repository, at_once, Arc::new(NoObserver)).await.expect("a prune");
    assert!(pruned.deleted_packs > 0, "{pruned:?}");
    bench.assert_head_is_source_without("main", &BTreeSet::new(), "pruned").await;
}

/// What cannot be compressed is stored as it is: the block of small files still holds the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_of_noise_that_is_damaged_costs_its_file_alone() {
    let bench = Bench::with_snapshot().await;
    let at = bench.places().await["c/big"][0];
    let behind_header = at.frame_offset + 12 + u64::from(at.offset) + u64::from(at.bytes) / 2;
    bench.flip(&keys::data_pack(at.pack), behind_header).await;
    let report = bench.repair(RepairOptions { max_delete: Cap::Percent(100), ..everything() }).await;
    assert_eq!(lost(only(&report)).len(), 1, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_without_another_copy_is_lost_alone_and_comes_back_with_the_next_backup() {
    let bench = Bench::with_snapshot().await;
    let first = bench.head("main").await;
    // The last block: small files that share it.
    let gone = bench.flip_block_of("c/big").await;
    assert!(gone.len() > 2, "{gone:?}");
    let unread = bench.repair(RepairOptions::default()).await;
    assert!(unread.damage.is_empty() && unread.heads.is_empty(), "without reading nobody can know");

    let dry = bench.repair(RepairOptions { dry_run: true, max_delete: Cap::Percent(100), ..everything() }).await;
    assert_eq!((only(&dry).outcome, lost(only(&dry)), dry.requests.put), (HeadOutcome::Planned, gone.clone(), 0));
    assert_eq!((bench.head("main").await, &dry.left[..]), (first, &[first][..]));

    let report = bench.repair(RepairOptions { max_delete: Cap::Percent(100), ..everything() }).await;
    assert_eq!(lost(only(&report)), gone);
    assert!(only(&report).losses.iter().all(|loss| loss.object.ends_with(".data") && loss.entries == 1), "{report:?}");
    assert_eq!(report.left, [first], "the old snapshot stays as it is");
    let state = bench.repository.state().await.expect("a state");
    let head = state.commit.head("main").expect("a head");
    assert_eq!((head.complete, head.changes.removed), (false, gone.len() as u64));
    bench.assert_head_is_source_without("main", &gone, "repaired").await;
    assert!(bench.repair(everything()).await.heads.is_empty(), "there is nothing to do a second time");

    // What is still in the directory is stored again, elsewhere than where it was lost.
    bench.back_up("main").await;
    bench.assert_head_is_source_without("main", &BTreeSet::new(), "backed up").await;
    let folder = fs::File::open(bench.source()).expect("a folder");
    let then = folder.metadata().and_then(|folder| folder.modified()).expect("a time");
    fs::write(bench.source().join("more"), "more").expect("a file");
    bench.back_up("main").await;
    fs::remove_file(bench.source().join("more")).expect("removed");
    folder.set_modified(then).expect("set");
    // And then the old snapshot is whole again too, once it is the head.
    promote(&bench.repository, first, "test").await.expect("promoted");
    let report = bench.repair(everything()).await;
    assert_eq!((only(&report).outcome, &only(&report).losses[..]), (HeadOutcome::Done, &[][..]));
    assert!(report.left.is_empty(), "its tree is that of a sound snapshot now: {report:?}");
    bench.assert_head_is_source_without("main", &BTreeSet::new(), "promoted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_a_list_is_found_elsewhere_or_its_file_is_lost() {
    for has_copy in [true, false] {
        let bench = Bench::with_snapshot().await;
        let pages = bench.pages("main").await;
        let lists: Vec<_> =
            pages.iter().filter_map(|(_, page)| if let Page::Chunks(all) = page { Some(all) } else { None }).collect();
        let chunks: usize = lists.iter().map(|chunks| chunks.len()).sum();
        assert!(chunks > 256, "{chunks} chunks");
        let (chunk, at) = lists[0][lists[0].len() / 2];
        if has_copy {
            bench.crash().await;
        }
        bench.flip(&keys::data_pack(at.pack), at.frame_offset + u64::from(at.frame_bytes) / 2).await;
        let report = bench.repair(everything()).await;
        let head = only(&report);
        let gone = if has_copy { BTreeSet::new() } else { BTreeSet::from(["large".to_owned()]) };
        assert_eq!(lost(head), gone, "{chunk}: {report:?}");
        assert_eq!(head.copied_bytes > 0, has_copy);
        bench.assert_head_is_source_without("main", &gone, &format!("copy {has_copy}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_another_copy_takes_what_is_on_it_and_nothing_else() {
    let sample = Bench::with_snapshot().await;
    for (number, (page, content)) in sample.pages("main").await.into_iter().enumerate() {
        let bench = sample.once_more().await;
        bench.flip_page(&page).await;
        let report = bench.repair(RepairOptions { max_delete: Cap::Percent(100), ..RepairOptions::default() }).await;
        let head = only(&report);
        let case = format!("page {number}: {:?}", head.losses);
        let gone = match &content {
            Page::Entries(entries) => entries
                .iter()
                .map(|placed| placed.entry.path.clone())
                .filter(|path| !path.is_root())
                .map(|path| path.to_string())
                .collect(),
            Page::Chunks(_) | Page::ListChildren(_) => BTreeSet::from(["large".to_owned()]),
            Page::Children(_) => {
                assert_eq!((head.outcome, head.snapshot), (HeadOutcome::BeyondHelp, None), "{case}");
                assert_eq!((head.losses[0].entries, &report.left[..]), (ENTRIES, &[head.damaged][..]), "{case}");
                assert_eq!(bench.head("main").await, head.damaged, "{case}");
                continue;
            }
        };
        assert_eq!((head.outcome, head.losses.len()), (HeadOutcome::Done, 1), "{case}");
        assert!(head.losses[0].object.ends_with(".meta") && head.losses[0].message.contains("no good copy"), "{case}");
        if let Page::Entries(entries) = &content {
            let counted = entries.iter().filter(|placed| placed.entry.counts()).count();
            assert_eq!(head.losses[0].entries, counted as u64, "{case}");
            // Directories whose entry is lost were made anew for what lies in them, for the owner alone.
            let made: Vec<_> = head.directories.iter().map(ToString::to_string).collect();
            let (_folder, back) = bench.restored(bench.head("main").await).await;
            for directory in &head.directories {
                let made = fs::metadata(back.join(directory.to_string().trim_matches('.'))).expect("a folder");
                assert_eq!(std::os::unix::fs::PermissionsExt::mode(&made.permissions()) & 0o7777, 0o700);
            }
            let survivors = |folder: &str| names().iter().any(|name| name.starts_with(folder) && !gone.contains(name));
            let is_lost = |path: &str| entries.iter().any(|placed| placed.entry.path == self::path(path));
            let expected = FOLDERS.into_iter().filter(|folder| is_lost(folder) && survivors(folder)).count();
            assert_eq!(made.len(), expected + usize::from(is_lost("")), "{case}: {made:?}");
            if !made.is_empty() {
                continue;
            }
        }
        bench.assert_head_is_source_without("main", &gone, &case).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_contents_that_is_damaged_hides_a_copy_and_is_named() {
    let bench = Bench::with_snapshot().await;
    let (first, data) = (bench.head("main").await, bench.keys(".data").await);
    bench.crash().await;
    for key in bench.keys(".data").await.difference(&data) {
        let bytes = bytes_of(&bench.objects, key).await;
        bench.flip(key, bytes.len() as u64 - 1).await;
    }
    bench.delete(&data).await;
    let report = bench.repair(RepairOptions::default()).await;
    assert_eq!((only(&report).outcome, report.left[0]), (HeadOutcome::Refused, first), "{report:?}");
    assert!(!report.tables.is_empty() && report.tables.iter().all(|(key, _)| key.ends_with(".data")), "{report:?}");
}

/// A table is no proof: a copy whose bytes are damaged too is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_damaged_is_passed_over_for_the_next() {
    for copies in [1, 2] {
        let bench = Bench::with_snapshot().await;
        let data = bench.keys(".data").await;
        bench.crash().await;
        for key in bench.keys(".data").await.difference(&data) {
            let table = TableOfContents::decode(&bytes_of(&bench.objects, key).await).expect("a table");
            for block in &table.blocks {
                bench.flip(key, block.offset).await;
            }
        }
        if copies == 2 {
            bench.crash().await;
        }
        bench.delete(&data).await;
        let report = bench.repair(RepairOptions::default()).await;
        let expected = if copies == 2 { HeadOutcome::Done } else { HeadOutcome::Refused };
        assert_eq!(only(&report).outcome, expected);
        if copies == 2 {
            bench.assert_head_is_source_without("main", &BTreeSet::new(), "the next").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_which_little_is_left_is_replaced_only_if_somebody_says_so() {
    let bench = Bench::with_snapshot().await;
    let (first, data, before) = (bench.head("main").await, bench.keys(".data").await, bench.keys("").await);
    bench.delete(&data).await;
    let report = bench.repair(RepairOptions::default()).await;
    let refusal = only(&report).refusal.clone().expect("a refusal");
    assert_eq!((refusal.guard, refusal.actual), (Guard::MaxDelete, Some(ENTRIES - 3)));
    assert_eq!((only(&report).losses.len() as u64, report.requests.put), (ENTRIES - 3, 0));
    assert_eq!((bench.head("main").await, bench.keys("").await), (first, before.difference(&data).cloned().collect()));
    let dry = bench.repair(RepairOptions { dry_run: true, ..RepairOptions::default() }).await;
    assert_eq!(only(&dry).outcome, HeadOutcome::Refused);
    let with_plan = |plan| RepairOptions { override_plan: plan, ..RepairOptions::default() };
    let overridden = bench.repair(with_plan(refusal.plan)).await;
    assert_eq!((only(&overridden).outcome, only(&overridden).entries), (HeadOutcome::Done, 3));
    bench.back_up("main").await;
    bench.assert_head_is_source_without("main", &BTreeSet::new(), "backed up again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hard_link_whose_first_member_is_lost_is_still_one() {
    let bench = Bench::new().await;
    fs::create_dir_all(bench.source()).expect("a folder");
    for file in 0..1200 {
        fs::write(bench.source().join(format!("m{file:04}")), "m").expect("a file");
    }
    fs::write(bench.source().join("a first"), "linked").expect("a file");
    for link in ["z second", "z third"] {
        fs::hard_link(bench.source().join("a first"), bench.source().join(link)).expect("a link");
    }
    bench.back_up("main").await;
    let pages = bench.pages("main").await;
    let first_leaf = pages.iter().find(|(_, page)| {
        matches!(page, Page::Entries(entries) if entries.iter().any(|placed| placed.entry.path == path("a first")))
    });
    let (page, Page::Entries(entries)) = first_leaf.expect("a leaf") else { panic!("a leaf") };
    assert!(entries.iter().all(|placed| placed.entry.path != path("z second")));
    bench.flip_page(page).await;
    let report = bench.repair(RepairOptions { max_delete: Cap::Percent(100), ..RepairOptions::default() }).await;
    assert_eq!(only(&report).outcome, HeadOutcome::Done);
    let (_folder, back) = bench.restored(bench.head("main").await).await;
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(back.join(name)).expect("there"));
    assert_eq!(inode("z second"), inode("z third"));
    assert_eq!(fs::read(back.join("z third")).expect("read"), b"linked");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_branch_that_people_back_up_to_is_repaired_and_a_held_one_is_left() {
    let bench = Bench::with_snapshot().await;
    let data = bench.keys(".data").await;
    bench.back_up("second").await;
    bench.back_up("third").await;
    claim(&bench.repository, "third", "pod-1", "test").await.expect("claimed");
    let third = bench.head("third").await;
    // Now that each has packs of its own all copies are lost but those of one branch, which refers to them.
    let mut third_data = bench.keys(".data").await;
    third_data.retain(|key| !data.contains(key));
    let pages = bench.pages("second").await;
    let of_second: BTreeSet<Key> = pages
        .iter()
        .filter_map(|(_, page)| if let Page::Entries(all) = page { Some(all) } else { None })
        .flatten()
        .filter_map(|placed| match &placed.content {
            Placement::Chunks(chunks) => {
                Some(chunks.iter().map(|chunk| keys::data_pack(chunk.pack)).collect::<Vec<_>>())
            }
            Placement::List(_) => None,
        })
        .flatten()
        .collect();
    third_data.retain(|key| !of_second.contains(key));
    bench.delete(&data).await;
    bench.delete(&third_data).await;
    let report = bench.repair(RepairOptions::default()).await;
    let outcomes: Vec<_> = report.heads.iter().map(|head| (head.branch.as_str(), head.outcome)).collect();
    assert_eq!(outcomes, [("main", HeadOutcome::Done), ("third", HeadOutcome::Held)]);
    assert!(report.left.is_empty(), "its tree is that of the others: {report:?}");
    assert_eq!((bench.head("third").await, report.heads[0].copied_bytes), (third, 0));
    release(&bench.repository, "third", "pod-1", "test", None).await.expect("released");
    let report = bench.repair(RepairOptions::default()).await;
    assert_eq!((only(&report).branch.as_str(), only(&report).outcome), ("third", HeadOutcome::Done));
    for branch in ["main", "second", "third"] {
        bench.assert_head_is_source_without(branch, &BTreeSet::new(), branch).await;
    }
}

/// Two heads with damage at once: one session each, and one commit.
#[tokio::test(flavor = "multi_thread")]
async fn two_damaged_heads_are_repaired_in_one_run() {
    let bench = Bench::with_snapshot().await;
    fs::write(bench.source().join("more"), "more").expect("a file");
    bench.back_up("second").await;
    let data = bench.keys(".data").await;
    bench.crash().await;
    bench.delete(&data).await;
    fs::remove_file(bench.source().join("more")).expect("removed");
    let report = bench.repair(RepairOptions::default()).await;
    let outcomes: Vec<_> = report.heads.iter().map(|head| (head.outcome, head.losses.len())).collect();
    assert_eq!(outcomes, [(HeadOutcome::Done, 0), (HeadOutcome::Done, 0)], "{report:?}");
    let state = bench.repository.state().await.expect("a state");
    assert_eq!(state.commit.seq, 4);
    assert_eq!(state.commit.branches["second"].epoch, 4);
    bench.restored(bench.head("second").await).await;
}

/// A directory that was restored from what is damaged now is no stranger to what is left of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_directory_goes_on_from_what_a_repair_has_left_of_its_snapshot() {
    let bench = Bench::with_snapshot().await;
    let (place, receipt) = (bench.folder.path().join("place"), bench.folder.path().join("receipt"));
    let options = RestoreOptions { receipt: Some(receipt.clone()), ..RestoreOptions::default() };
    assert!(!restore(&bench.repository, &place, options, Arc::new(NoObserver)).await.expect("restored").damaged);
    for round in 0..2 {
        // Twice before it backs up: what is left of what was left.
        bench.flip_block_of(["c/big", "a/big"][round]).await;
        let report = bench.repair(RepairOptions { max_delete: Cap::Percent(100), ..everything() }).await;
        assert_eq!(only(&report).outcome, HeadOutcome::Done);
    }
    let with_receipt = BackupOptions { receipt: Some(receipt), ..any("main") };
    let report = backup(&bench.repository, &place, with_receipt.clone(), Arc::new(NoObserver)).await.expect("a backup");
    assert_eq!((report.outcome, report.branch.as_str()), (BackupOutcome::Done, "main"), "{report:?}");
    bench.assert_head_is_source_without("main", &BTreeSet::new(), "all of it is back").await;
    // Another's head still is another's.
    fs::write(bench.source().join("theirs"), "theirs").expect("a file");
    bench.back_up("main").await;
    fs::write(place.join("ours"), "ours").expect("a file");
    let late = backup(&bench.repository, &place, with_receipt, Arc::new(NoObserver)).await.expect("a backup");
    assert_eq!((late.outcome, late.overtaken), (BackupOutcome::Forked, Some(Overtaken::OtherHead)));
}

/// A store on which something happens right before the first commit that goes through it.
fn before_the_commit<F: Future<Output = ()> + Send>(
    objects: &Arc<InMemory>,
    what: impl Fn(Arc<InMemory>) -> F + Send + Sync + 'static,
) -> FaultStore {
    let (inner, count) = (Arc::clone(objects), AtomicUsize::new(0));
    let what = Arc::new(what);
    FaultStore::new(objects.clone(), move |call| {
        if is_commit(call.operation, &call.key) && count.fetch_add(1, Ordering::SeqCst) == 0 {
            let (what, inner) = (Arc::clone(&what), Arc::clone(&inner));
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
                    runtime.block_on(what(inner));
                });
            });
        }
        None
    })
}

/// A backup that is first makes the repair look again; one that began before the repair and comes after it refers to
/// what is damaged, and goes to a fork.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_and_a_backup_at_once_leave_a_sound_head_whoever_is_first() {
    let bench = Bench::with_snapshot().await;
    let gone = bench.flip_block_of("c/big").await;
    let source = bench.source();
    let racing = before_the_commit(&bench.objects, move |inner| {
        let source = source.clone();
        async move {
            fs::write(source.join("theirs"), "theirs").expect("a file");
            let ran = backup(&open(inner).await, &source, any("main"), Arc::new(NoObserver)).await;
            assert_eq!(ran.expect("a backup").outcome, BackupOutcome::Done);
        }
    });
    let most = || RepairOptions { max_delete: Cap::Percent(100), ..everything() };
    let report = repair(&open(Arc::new(racing)).await, most(), Arc::new(NoObserver)).await.expect("a repair");
    assert_eq!((only(&report).outcome, report.snapshots), (HeadOutcome::Done, 2));
    bench.assert_head_is_source_without("main", &gone, "the backup was first").await;

    let bench = Bench::with_snapshot().await;
    let gone = bench.flip_block_of("c/big").await;
    let racing = before_the_commit(&bench.objects, move |inner| async move {
        let most = RepairOptions { max_delete: Cap::Percent(100), ..everything() };
        let report = repair(&open(inner).await, most, Arc::new(NoObserver)).await.expect("a repair");
        assert_eq!(report.heads[0].outcome, HeadOutcome::Done);
    });
    fs::write(bench.source().join("theirs"), "theirs").expect("a file");
    let ran = backup(&open(Arc::new(racing)).await, &bench.source(), any("main"), Arc::new(NoObserver)).await;
    let ran = ran.expect("a backup");
    assert_eq!((ran.outcome, ran.overtaken), (BackupOutcome::Forked, Some(Overtaken::NewEpoch)));
    fs::remove_file(bench.source().join("theirs")).expect("removed");
    bench.assert_head_is_source_without("main", &gone, "the repair was first").await;
    // A fork is no branch that people back up to: what is damaged there is told, and left.
    let again = bench.repair(everything()).await;
    assert!(again.heads.is_empty() && again.left.contains(&ran.snapshot.expect("a snapshot")), "{again:?}");
}

/// A repair may refer to the packs of any snapshot that it looked at, so none of them may be forgotten meanwhile: a
/// prune would take what it refers to.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_forgotten_and_pruned_meanwhile_is_not_relied_on() {
    let bench = Bench::new().await;
    fs::create_dir_all(bench.source()).expect("a folder");
    fs::write(bench.source().join("file"), noise(1, 100_000)).expect("a file");
    bench.back_up("main").await;
    let data = bench.keys(".data").await;
    // Another branch has the file, in packs of its own, in a snapshot that is not its head nor the parent of one.
    bench.back_up("other").await;
    fs::write(bench.source().join("file"), noise(2, 100_000)).expect("a file");
    bench.back_up("other").await;
    bench.back_up("other").await;
    fs::write(bench.source().join("file"), noise(1, 100_000)).expect("a file");
    // A floor above the sessions of all of these: a later prune needs none, so it fences nobody.
    bench.crash().await;
    let at_once = PruneOptions { grace: Duration::ZERO, session_idle: Duration::ZERO, ..PruneOptions::default() };
    assert!(prune(&bench.repository, at_once, Arc::new(NoObserver)).await.expect("a prune").commit.is_some());
    bench.delete(&data).await;
    let racing = before_the_commit(&bench.objects, |inner| async move {
        let repository = open(inner).await;
        let keep = KeepRules { last: 1, ..KeepRules::default() };
        let options = ForgetOptions { keep, protect: Duration::ZERO, ..ForgetOptions::default() };
        let report = forget(&repository, &options).await.expect("forgotten");
        assert_eq!(report.plan.dropped().count(), 1);
        let at_once = PruneOptions { grace: Duration::ZERO, ..PruneOptions::default() };
        assert!(prune(&repository, at_once, Arc::new(NoObserver)).await.expect("a prune").deleted_packs > 0);
    });
    let options = RepairOptions { max_delete: Cap::Percent(100), ..RepairOptions::default() };
    let report = repair(&open(Arc::new(racing)).await, options, Arc::new(NoObserver)).await.expect("a repair");
    assert_eq!((only(&report).outcome, only(&report).losses.len()), (HeadOutcome::Refused, 1), "{report:?}");
}

const FAULTS: [Fault; 9] = [
    Fault::Before(Failure::Server),
    Fault::Before(Failure::Timeout),
    Fault::Before(Failure::Exists),
    Fault::Before(Failure::Denied),
    Fault::After(Failure::Server),
    Fault::After(Failure::Timeout),
    Fault::After(Failure::Exists),
    Fault::Truncated,
    Fault::FlippedBit,
];

/// Each call fails in each way, or all from there on as when it is killed: the old snapshot stays, what is told is true,
/// and a second run does the work once.
#[tokio::test(flavor = "multi_thread")]
async fn each_call_of_a_repair_may_fail_in_each_way_or_be_its_last() {
    let folder = quick_folder();
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("a folder");
    for file in 0..20 {
        fs::write(source.join(file.to_string()), noise(file, 3000)).expect("a file");
    }
    let sample = Bench { folder: Arc::new(folder), ..Bench::new().await };
    let first = sample.back_up("main").await;
    let damaged = sample.keys("").await.into_iter().filter(|key| key.as_ref().starts_with("packs/")).collect();
    sample.crash().await;
    sample.delete(&damaged).await;
    let mut objects = Vec::new();
    for key in sample.keys("").await {
        objects.push((key.clone(), bytes_of(&sample.objects, &key).await));
    }
    let mut outcomes = BTreeMap::<String, u32>::new();
    for (fault, is_killed) in
        FAULTS.map(|fault| (fault, false)).into_iter().chain([(Fault::Before(Failure::Denied), true)])
    {
        for call in 0.. {
            let case = format!("{fault:?} at call {call}, killed {is_killed}");
            let store = Arc::new(InMemory::new());
            for (key, bytes) in &objects {
                store.put(key, bytes.clone().into()).await.expect("put");
            }
            let faulty = if is_killed {
                FaultStore::from(store.clone(), call, fault)
            } else {
                FaultStore::at(store.clone(), call, fault)
            };
            let opened = Store::new(Arc::new(faulty.clone()), "memory").with_settle_time(Duration::from_millis(200));
            let ran: Result<RepairReport> = match Repository::open(opened, OpenOptions::default()).await {
                Err(error) => Err(error),
                Ok(repository) => repair(&repository, everything(), Arc::new(NoObserver)).await,
            };
            let folder = Arc::new(quick_folder());
            let bench = Bench { objects: store.clone(), repository: open(store.clone()).await, folder };
            let state = bench.repository.state().await.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(state.commit.snapshot(first).is_some(), "{case}");
            let made = state.commit.snapshots.len() - 1;
            let outcome = match &ran {
                Ok(report) if report.heads.iter().any(|head| head.snapshot.is_some()) => {
                    assert_eq!(made, 1, "{case}: {report:?}");
                    "done".to_owned()
                }
                Ok(report) => {
                    assert_eq!((made, &report.left[..]), (0, &[first][..]), "{case}: {report:?}");
                    "left".to_owned()
                }
                Err(error) => {
                    assert!(made == 0 || error.kind() == ErrorKind::Unknown, "{case}: {error}");
                    error.kind().name().to_owned()
                }
            };
            *outcomes.entry(outcome).or_default() += 1;
            let again = bench.repair(everything()).await;
            let all = bench.repository.state().await.expect("a state").commit.snapshots;
            assert!(again.left.is_empty() && all.len() == 2, "{case}: {again:?}");
            let (_folder, back) = bench.restored(bench.head("main").await).await;
            let differences = differences(&sample.source(), &back);
            assert!(differences.is_empty(), "{case}: {differences:#?}");
            if faulty.calls() <= call {
                break;
            }
        }
    }
    println!("{outcomes:?}");
    assert!(outcomes["done"] > 0 && outcomes.len() > 3, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_commit_mode_detect_too() {
    let bench = Bench::in_mode(CommitMode::Detect).await;
    bench.fill();
    let first = bench.back_up("main").await;
    let data = bench.keys(".data").await;
    bench.crash_in_detect().await;
    bench.delete(&data).await;
    let report = bench.repair(RepairOptions::default()).await;
    assert_eq!((only(&report).outcome, only(&report).losses.len()), (HeadOutcome::Done, 0), "{report:?}");
    assert_eq!(
        bench.repository.state().await.expect("a state").commit.head("main").expect("one").repaired,
        Some(first)
    );
    bench.assert_head_is_source_without("main", &BTreeSet::new(), "detect").await;
    assert!(bench.repair(RepairOptions::default()).await.heads.is_empty());
}

impl Bench {
    /// As [`Bench::crash`], where commits are no creates.
    async fn crash_in_detect(&self) {
        let dead = FaultStore::new(self.objects.clone(), |call| {
            let is_write = matches!(call.operation, Operation::Put | Operation::Create);
            (is_write && call.key.as_ref().starts_with("log/")).then_some(Fault::Before(Failure::Denied))
        });
        let ran = backup(&open(Arc::new(dead)).await, &self.source(), any("crashed"), Arc::new(NoObserver)).await;
        assert_eq!(ran.expect_err("it is gone").kind(), ErrorKind::Denied);
    }
}

/// The page that a table names is only what it is when its lines hash to the id.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_id_is_never_taken() {
    let bench = Bench::with_snapshot().await;
    let metas = bench.keys(".meta").await;
    bench.crash().await;
    let copies: Vec<Key> = bench.keys(".meta").await.difference(&metas).cloned().collect();
    // The copies' tables name one page for another.
    for key in &copies {
        let bytes = bytes_of(&bench.objects, key).await;
        let mut table = TableOfContents::decode(&bytes).expect("a table");
        let frames = table.pages.iter().map(|page| page.length as usize).sum::<usize>();
        let ids: Vec<_> = table.pages.iter().map(|page| page.page).collect();
        assert!(ids.len() > 2 && decode_unverified(&bytes[..table.pages[0].length as usize]).is_ok());
        for (number, page) in table.pages.iter_mut().enumerate() {
            page.page = ids[(number + 1) % ids.len()];
        }
        let wrong = [&bytes[..frames], &table.encode().expect("encodes").concat()].concat();
        bench.objects.put(key, wrong.into()).await.expect("put");
    }
    bench.delete(&metas).await;
    let report = bench.repair(RepairOptions::default()).await;
    assert_eq!((only(&report).outcome, only(&report).losses[0].entries), (HeadOutcome::BeyondHelp, ENTRIES));
}
