//! Receipt, restore and backup as a machine of states: random operations on directories that share a branch, cut at
//! random calls of the store, and after each of them a look at everything that was ever acknowledged.
//!
//! An operation fits whatever state it meets, so a list of them shrinks by itself, and what to expect is a function
//! of what was seen before (ids are not known in advance): no library for state machines would say it in less.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, OnRefusal, backup};
use ghostsync_core::guard::{Cap, Guard, Policy};
use ghostsync_core::id::SnapshotId;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::receipt::Receipt;
use ghostsync_core::repository::{OpenOptions, Repository, Selector};
use ghostsync_core::restore::{Overwrite, RestoreOptions, RestoreReport, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Failure, Fault, FaultStore, Operation};
use ghostsync_core::testing::tree::{Description, noise, read_back};
use ghostsync_core::tree_path::TreePath;
use ghostsync_core::{Error, ErrorKind, Result};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use proptest::bool::weighted;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::guards::objects;
use crate::restoring::{create, quick_folder};

/// One operation; a place is one of two directories with a receipt each.
#[derive(Debug, Clone)]
enum Step {
    Edit(usize, Vec<Edit>),
    /// With the receipt of the place.
    Backup {
        place: usize,
        first: Vec<Edit>,
        quarantine: bool,
        cut: Option<Cut>,
    },
    /// Another writer, from a third directory, without a receipt.
    Other(Vec<Edit>),
    /// With the receipt of the place, and the wish for a genesis receipt that does no harm when it stays.
    Restore {
        place: usize,
        first: Vec<Edit>,
        manner: Manner,
        cut: Option<Cut>,
    },
    /// A fresh empty directory takes the place, as on a new pod; the receipt lies outside and stays.
    Replace(usize),
    RemoveReceipt(usize),
    /// The receipt of the other place is copied over the one here.
    CopyReceipt(usize),
}

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, u64),
    Remove(usize),
    Rename(usize, usize),
    Clear,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Plain,
    Overwrite,
    Mirror,
}

/// Where the process is killed, and what becomes of the call that it was making.
#[derive(Debug, Clone)]
struct Cut {
    at: At,
    last_call: Fault,
    /// The same again, right afterwards.
    again: bool,
}

#[derive(Debug, Clone, Copy)]
enum At {
    Call(usize),
    /// The first call for a pack of contents: a restore has begun to change the directory then.
    Content,
    /// In a restore there is none: it comes to its end, and is killed before it writes the receipt.
    Commit,
}

const NAMES: [&str; 6] = ["a", "b", "c", "d/a", "d/b", "e/f/a"];

impl Edit {
    fn make(&self, directory: &Path) {
        match self {
            Self::Write(name, content) => {
                let path = directory.join(NAMES[*name]);
                fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                // Every content has a length of its own: what differs, a restore sees without reading it.
                fs::write(path, noise(*content, *content as usize * 3 + 1)).expect("written");
            }
            Self::Remove(name) => drop(fs::remove_file(directory.join(NAMES[*name]))),
            Self::Rename(from, to) => drop(fs::rename(directory.join(NAMES[*from]), directory.join(NAMES[*to]))),
            Self::Clear => {
                for entry in fs::read_dir(directory).expect("listed") {
                    let path = entry.expect("an entry").path();
                    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
                }
            }
        }
    }
}

fn edits(count: Range<usize>) -> impl Strategy<Value = Vec<Edit>> {
    let name = || 0..NAMES.len();
    let edit = prop_oneof![
        8 => (name(), 0..60_u64).prop_map(|(name, content)| Edit::Write(name, content)),
        2 => name().prop_map(Edit::Remove),
        1 => (name(), name()).prop_map(|(from, to)| Edit::Rename(from, to)),
        1 => Just(Edit::Clear),
    ];
    vec(edit, count)
}

fn cuts(share: f64) -> impl Strategy<Value = Option<Cut>> {
    let at = prop_oneof![2 => (0..20_usize).prop_map(At::Call), 2 => Just(At::Content), 3 => Just(At::Commit)];
    let last_call =
        prop_oneof![Just(Fault::Before(Failure::Denied)), Just(Fault::After(Failure::Timeout)), Just(Fault::Late),];
    option::weighted(
        share,
        (at, last_call, weighted(0.7)).prop_map(|(at, last_call, again)| Cut { at, last_call, again }),
    )
}

/// A list of steps, most of them after a start that everybody has made.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let start = |place| Step::Restore { place, first: Vec::new(), manner: Manner::Overwrite, cut: None };
    let started = vec![Step::Other((0..4).map(|name| Edit::Write(name, 0)).collect()), start(0), start(1)];
    let begin = prop_oneof![3 => Just(started), 1 => Just(Vec::new())];
    let place = || prop_oneof![3 => Just(0_usize), 1 => Just(1)];
    let manner = prop_oneof![Just(Manner::Plain), Just(Manner::Overwrite), Just(Manner::Mirror)];
    let step = prop_oneof![
        2 => (place(), edits(1..5)).prop_map(|(place, edits)| Step::Edit(place, edits)),
        12 => (place(), edits(0..3), any::<bool>(), cuts(0.6))
            .prop_map(|(place, first, quarantine, cut)| Step::Backup { place, first, quarantine, cut }),
        1 => edits(1..3).prop_map(Step::Other),
        10 => (place(), edits(0..3), manner, cuts(0.25))
            .prop_map(|(place, first, manner, cut)| Step::Restore { place, first, manner, cut }),
        2 => prop_oneof![
            place().prop_map(Step::Replace),
            place().prop_map(Step::RemoveReceipt),
            place().prop_map(Step::CopyReceipt),
        ],
    ];
    (begin, vec(step, 1..40)).prop_map(|(begin, steps)| [begin, steps].concat())
}

/// Whose the receipt is that lies at a place.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Paper {
    None,
    /// Written for the directory that is there now, and not tampered with since.
    Own,
    Foreign,
}

/// What is known of a place.
#[derive(Debug, Clone, Copy)]
struct Place {
    paper: Paper,
    /// The head that the directory came from, by a whole restore of it or a backup to it: `Some(None)` is the branch
    /// without a head, `None` that it came from nowhere.
    origin: Option<Option<SnapshotId>>,
    /// A head made from this directory by a commit that arrived so late that the receipt need not know of it.
    perhaps: Option<SnapshotId>,
}

const NOWHERE: Place = Place { paper: Paper::None, origin: None, perhaps: None };

/// A write of a dead process that is still on its way.
struct Late {
    store: FaultStore,
    place: usize,
    place_went_on: bool,
}

struct World {
    store: Arc<InMemory>,
    repository: Repository,
    folder: tempfile::TempDir,
    places: [Place; 2],
    /// Every snapshot that was acknowledged or found, the newest last, and the directory as it was.
    kept: Vec<(SnapshotId, Description)>,
    late: Option<Late>,
    folders: usize,
    seen: Seen,
}

/// How often what came about; a test that never sees it proves nothing.
type Seen = BTreeMap<String, u32>;

impl World {
    async fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let repository = create(store.clone()).await;
        let folder = quick_folder();
        for name in ["0", "1", "other"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let (places, kept, late, folders) = ([NOWHERE; 2], Vec::new(), None, 0);
        Self { store, repository, folder, places, kept, late, folders, seen: Seen::new() }
    }

    fn directory(&self, place: usize) -> PathBuf {
        self.folder.path().join(place.to_string())
    }

    fn receipt(&self, place: usize) -> PathBuf {
        self.folder.path().join(format!("receipt{place}"))
    }

    fn receipt_bytes(&self, place: usize) -> Option<Vec<u8>> {
        fs::read(self.receipt(place)).ok()
    }

    fn is_empty(&self, place: usize) -> bool {
        fs::read_dir(self.directory(place)).expect("listed").next().is_none()
    }

    async fn head(&self) -> Option<SnapshotId> {
        self.repository.state().await.expect("a state").commit.head("main").map(|head| head.id)
    }

    async fn objects(&self) -> BTreeMap<Key, Bytes> {
        objects(&self.store).await
    }

    fn count(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    async fn take(&mut self, step: &Step) {
        let before = self.objects().await;
        let late = self.late.take();
        match step {
            Step::Edit(place, edits) => edits.iter().for_each(|edit| edit.make(&self.directory(*place))),
            Step::Backup { place, first, quarantine, cut } => {
                first.iter().for_each(|edit| edit.make(&self.directory(*place)));
                if let Some(cut) = cut {
                    self.cut_backup(*place, *quarantine, cut).await;
                }
                if cut.as_ref().is_none_or(|cut| cut.again) {
                    self.back_up(*place, *quarantine).await;
                }
            }
            Step::Other(edits) => self.back_up_other(edits).await,
            Step::Restore { place, first, manner, cut } => {
                first.iter().for_each(|edit| edit.make(&self.directory(*place)));
                if let Some(cut) = cut {
                    self.cut_restore(*place, *manner, cut).await;
                }
                if cut.as_ref().is_none_or(|cut| cut.again) {
                    self.restore(*place, *manner).await;
                }
            }
            Step::Replace(place) => self.replace(*place),
            Step::RemoveReceipt(place) => {
                ghostsync_core::receipt::remove(&self.receipt(*place)).expect("removed");
                self.places[*place] = NOWHERE;
            }
            Step::CopyReceipt(place) => {
                // What is copied back to where it was written for is no copy that anything could tell.
                if self.places[1 - place].paper == Paper::Own {
                    fs::copy(self.receipt(1 - place), self.receipt(*place)).expect("copied");
                    self.places[*place] = Place { paper: Paper::Foreign, ..NOWHERE };
                }
            }
        }
        if let Some(late) = late {
            self.land(late, step).await;
        }
        let after = self.objects().await;
        for (key, bytes) in before.iter().filter(|(key, _)| key.as_ref() != "head.json") {
            assert!(after.get(key) == Some(bytes), "{key} was changed or deleted");
        }
        for place in 0..2 {
            let there = self.receipt(place).exists();
            assert_eq!(there, self.places[place].paper != Paper::None, "the receipt of {place}");
        }
        self.assert_kept(2).await;
    }

    /// The newest so many snapshots restore to what was backed up.
    async fn assert_kept(&mut self, newest: usize) {
        for (snapshot, description) in self.kept.iter().rev().take(newest) {
            self.folders += 1;
            let back = self.folder.path().join(format!("back{}", self.folders));
            let options = RestoreOptions { snapshot: Selector::Id(snapshot.to_string()), ..RestoreOptions::default() };
            let restored = restore(&self.repository, &back, options, Arc::new(NoObserver)).await;
            assert!(restored.expect("restored").problems.is_empty());
            assert_eq!(&read_back(&back).expect("readable"), description, "snapshot {snapshot}");
            fs::remove_dir_all(back).expect("removed");
        }
    }

    fn keep(&mut self, snapshot: SnapshotId, directory: &Path) {
        let description = read_back(directory).expect("readable");
        match self.kept.iter().find(|(kept, _)| *kept == snapshot) {
            Some((_, kept)) => assert_eq!(*kept, description, "the snapshot equals the directory"),
            None => self.kept.push((snapshot, description)),
        }
    }

    async fn run_backup(&self, repository: &Repository, place: usize, quarantine: bool) -> Result<BackupReport> {
        let options = BackupOptions {
            receipt: Some(self.receipt(place)),
            on_refusal: if quarantine { OnRefusal::Quarantine } else { OnRefusal::Fail },
            ..BackupOptions::default()
        };
        backup(repository, &self.directory(place), options, Arc::new(NoObserver)).await
    }

    async fn back_up(&mut self, place: usize, quarantine: bool) {
        let (head, objects, receipt) = (self.head().await, self.objects().await, self.receipt_bytes(place));
        let ran = self.run_backup(&self.repository, place, quarantine).await;
        let Place { paper, origin, perhaps } = self.places[place];
        let what = match &ran {
            Ok(report) => format!("{:?}", report.outcome),
            Err(error) => error.refusal().map_or(error.kind().name(), |refusal| refusal.guard.name()).to_owned(),
        };
        self.count(format!("backup: {what}"));
        // Told what stands in the way, nothing gets onto the branch and the receipt is as it was.
        if paper != Paper::Own {
            let error = ran.as_ref().expect_err("the tripwire");
            assert_eq!(error.refusal().map(|refusal| refusal.guard), Some(Guard::Receipt), "{error}");
        }
        let is_ours = paper == Paper::Own && (origin == Some(head) || (perhaps.is_some() && perhaps == head));
        match ran {
            Err(error) if error.kind() == ErrorKind::Refused => {
                let guard = error.refusal().expect("a refusal").guard;
                let of_the_tree = !quarantine && matches!(guard, Guard::MaxDelete | Guard::Empty);
                assert!(of_the_tree || paper != Paper::Own, "{error}");
                assert!(self.objects().await == objects && self.receipt_bytes(place) == receipt, "{error}");
            }
            Err(error) => {
                // The head is another's, and there is nothing to keep on a fork.
                assert!(error.kind() == ErrorKind::Conflict && origin != Some(head), "{error}");
                assert!(self.objects().await == objects && self.receipt_bytes(place) == receipt, "{error}");
            }
            Ok(report) if report.outcome == BackupOutcome::Forked => {
                assert!(origin != Some(head) && report.branch.starts_with("fork/main/"), "{report:?}");
                assert!(self.head().await == head && self.receipt_bytes(place) == receipt);
                self.keep(report.snapshot.expect("a snapshot"), &self.directory(place));
            }
            Ok(report) if report.outcome == BackupOutcome::Quarantined => {
                assert!(quarantine && self.head().await == head);
                let before = Receipt::decode(&receipt.expect("a receipt")).expect("a receipt");
                let noted = Receipt { quarantined: report.snapshot, ..before };
                assert_eq!(Receipt::load(&self.receipt(place)).expect("a receipt"), noted);
                self.keep(report.snapshot.expect("a snapshot"), &self.directory(place));
            }
            Ok(report) => {
                assert!(is_ours, "the tripwire: {report:?}");
                let newest = self.head().await;
                assert_eq!(report.snapshot, newest);
                assert_eq!(report.outcome == BackupOutcome::Unchanged, newest == head);
                self.acknowledged(place, newest);
            }
        }
    }

    /// The head equals the directory, and the receipt says so.
    fn acknowledged(&mut self, place: usize, head: Option<SnapshotId>) {
        let receipt = Receipt::load(&self.receipt(place)).expect("a receipt");
        assert_eq!((receipt.snapshot, receipt.pending), (head, None));
        self.keep(head.expect("a head"), &self.directory(place));
        self.places[place] = Place { paper: Paper::Own, origin: Some(head), perhaps: None };
    }

    async fn back_up_other(&mut self, edits: &[Edit]) {
        let directory = self.folder.path().join("other");
        edits.iter().for_each(|edit| edit.make(&directory));
        let policy = Policy { max_delete: Cap::Percent(100), allow_empty: true, ..Policy::default() };
        let options = BackupOptions { policy, ..BackupOptions::default() };
        let report = backup(&self.repository, &directory, options, Arc::new(NoObserver)).await.expect("a backup");
        self.keep(report.snapshot.expect("a snapshot"), &directory);
    }

    /// The store of a process that is killed, and the receipt of a place as it was at its last call.
    fn dying(&self, place: usize, cut: &Cut) -> (FaultStore, Arc<Mutex<Option<Vec<u8>>>>) {
        let left = Arc::new(Mutex::new(self.receipt_bytes(place)));
        let (witness, receipt, is_dead) = (Arc::clone(&left), self.receipt(place), AtomicBool::new(false));
        let (at, last_call) = (cut.at, cut.last_call);
        let store = FaultStore::new(self.store.clone(), move |call| {
            if is_dead.load(Ordering::SeqCst) {
                return Some(Fault::Before(Failure::Denied));
            }
            *witness.lock().unwrap_or_else(PoisonError::into_inner) = fs::read(&receipt).ok();
            let is_here = match at {
                At::Call(number) => call.number >= number,
                At::Content => call.key.as_ref().ends_with(".data"),
                At::Commit => call.operation == Operation::Create && call.key.as_ref().starts_with("log/"),
            };
            is_here.then(|| {
                is_dead.store(true, Ordering::SeqCst);
                last_call
            })
        });
        (store, left)
    }

    /// A backup that is killed at a call of the store, or, where there are not so many, before it rewrites the receipt.
    async fn cut_backup(&mut self, place: usize, quarantine: bool, cut: &Cut) {
        let head = self.head().await;
        let (dying, left) = self.dying(place, cut);
        let ran = match open(&dying).await {
            Ok(repository) => self.run_backup(&repository, place, quarantine).await,
            Err(error) => Err(error),
        };
        // Whoever is dead writes no receipt.
        match left.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(bytes) => fs::write(self.receipt(place), bytes).expect("written"),
            None => drop(fs::remove_file(self.receipt(place))),
        }
        let newest = self.head().await;
        self.count(match (&ran, newest == head) {
            (Ok(_), _) => "cut backup: at its end",
            (Err(_), true) => "cut backup: before the commit",
            (Err(_), false) => "cut backup: after the commit",
        });
        if newest != head {
            let Place { paper, origin, perhaps } = self.places[place];
            assert!(paper == Paper::Own && (origin == Some(head) || perhaps == head), "the tripwire");
            assert!(ran.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Unknown), "{ran:?}");
            self.keep(newest.expect("a head"), &self.directory(place));
            self.places[place] = Place { paper: Paper::Own, origin: Some(newest), perhaps: None };
        } else if let Ok(report) = ran
            && let Some(snapshot) = report.snapshot
        {
            self.keep(snapshot, &self.directory(place));
        }
        self.late = Some(Late { store: dying, place, place_went_on: cut.again });
    }

    /// Lets a write of a dead process arrive after all, one step later.
    async fn land(&mut self, late: Late, step: &Step) {
        let (went_on, overwritten) = match step {
            Step::Backup { place, .. } => (*place == late.place, false),
            // One that was cut before it began leaves the receipt, which knows what it waits for.
            Step::Restore { place, .. } if *place == late.place => {
                let waits = Receipt::load(&self.receipt(*place)).is_ok_and(|receipt| receipt.pending.is_some());
                (waits, !waits)
            }
            Step::Restore { .. } => (false, false),
            // A receipt that went shows below, and a copy of none overwrites nothing.
            Step::Replace(_) | Step::RemoveReceipt(_) | Step::CopyReceipt(_) => (false, false),
            Step::Edit(..) | Step::Other(_) => (false, false),
        };
        let head = self.head().await;
        let _ = late.store.land().await;
        let newest = self.head().await;
        if newest == head {
            return;
        }
        self.count("a commit arrives late");
        // Its content is what the directory was one step before: whether it still is does not matter to anybody.
        self.kept_as_found(newest.expect("a head")).await;
        if overwritten || self.places[late.place].paper != Paper::Own {
            return;
        }
        if went_on || late.place_went_on {
            self.places[late.place].perhaps = newest;
        } else {
            self.places[late.place].origin = Some(newest);
        }
    }

    /// Keeps a snapshot as a restore brings it back.
    async fn kept_as_found(&mut self, snapshot: SnapshotId) {
        let back = self.folder.path().join("found");
        let options = RestoreOptions { snapshot: Selector::Id(snapshot.to_string()), ..RestoreOptions::default() };
        let restored = restore(&self.repository, &back, options, Arc::new(NoObserver)).await;
        assert!(restored.expect("restored").problems.is_empty());
        self.keep(snapshot, &back);
        fs::remove_dir_all(back).expect("removed");
    }

    async fn run_restore(&self, repository: &Repository, place: usize, manner: Manner) -> Result<RestoreReport> {
        let options = RestoreOptions {
            receipt: Some(self.receipt(place)),
            genesis: Some(self.repository.id()),
            overwrite: (manner == Manner::Overwrite).then_some(Overwrite::Changed),
            delete: manner == Manner::Mirror,
            max_delete: Cap::Percent(100),
            ..RestoreOptions::default()
        };
        restore(repository, &self.directory(place), options, Arc::new(NoObserver)).await
    }

    async fn restore(&mut self, place: usize, manner: Manner) {
        let (head, receipt) = (self.head().await, self.receipt_bytes(place));
        let directory = read_back(&self.directory(place)).expect("readable");
        let is_strange = self.places[place].paper != Paper::Own && !self.is_empty(place);
        let ran = self.run_restore(&self.repository, place, manner).await;
        if head.is_some() && manner == Manner::Plain && is_strange {
            self.count("restore: refused");
            let error = ran.expect_err("refused");
            assert_eq!(error.refusal().map(|refusal| refusal.guard), Some(Guard::Destination), "{error}");
            assert_eq!(
                (self.receipt_bytes(place), read_back(&self.directory(place)).expect("readable")),
                (receipt, directory)
            );
            return;
        }
        let report = ran.expect("a restore");
        assert!(report.problems.is_empty() && report.snapshot == head, "{report:?}");
        let written = Receipt::load(&self.receipt(place)).expect("a receipt");
        assert_eq!((written.snapshot, written.pending), (head, None));
        self.places[place] = Place { paper: Paper::Own, origin: Some(head), perhaps: None };
        let Some(head) = head else {
            self.count("restore: genesis");
            assert_eq!(read_back(&self.directory(place)).expect("readable"), directory);
            return;
        };
        self.count("restore: done");
        if manner == Manner::Mirror {
            self.keep(head, &self.directory(place));
        }
        let restored = read_back(&self.directory(place)).expect("readable");
        let (_, description) = self.kept.iter().find(|(kept, _)| *kept == head).expect("known");
        for (path, described) in files(description) {
            assert_eq!(restored.get(path), Some(described), "{path}");
        }
    }

    /// A restore that is killed at a call of the store, or, where there are not so many, before it writes the receipt.
    async fn cut_restore(&mut self, place: usize, manner: Manner, cut: &Cut) {
        let receipt = self.receipt_bytes(place);
        let directory = read_back(&self.directory(place)).expect("readable");
        let (dying, _) = self.dying(place, cut);
        let ran = match open(&dying).await {
            Ok(repository) => self.run_restore(&repository, place, manner).await,
            Err(error) => Err(error),
        };
        match ran {
            Ok(RestoreReport { snapshot: None, .. }) => {
                self.places[place] = Place { paper: Paper::Own, origin: Some(None), perhaps: None };
            }
            Ok(_) => {
                self.count("cut restore: at its end");
                ghostsync_core::receipt::remove(&self.receipt(place)).expect("removed");
                self.places[place] = NOWHERE;
            }
            // It ended before anything was changed, or there is no receipt.
            Err(error) if self.receipt_bytes(place).is_some() => {
                self.count("cut restore: before it began");
                let left = (self.receipt_bytes(place), read_back(&self.directory(place)).expect("readable"));
                assert_eq!(left, (receipt, directory), "{error}");
            }
            Err(_) => {
                self.count(if receipt.is_some() { "cut restore: half way" } else { "cut restore: without a receipt" });
                self.places[place] = NOWHERE;
            }
        }
    }

    fn replace(&mut self, place: usize) {
        // Put aside, so that the new directory is another for certain.
        self.folders += 1;
        let directory = self.directory(place);
        fs::rename(&directory, self.folder.path().join(format!("old{}", self.folders))).expect("put aside");
        fs::create_dir(&directory).expect("a folder");
        if self.places[place].paper == Paper::Own {
            self.places[place] = Place { paper: Paper::Foreign, ..NOWHERE };
        }
    }
}

async fn open(store: &FaultStore) -> std::result::Result<Repository, Error> {
    let store = Store::new(Arc::new(store.clone()), "memory").with_settle_time(Duration::from_millis(20));
    Repository::open(store, OpenOptions::default()).await
}

fn files(description: &Description) -> impl Iterator<Item = (&TreePath, &ghostsync_core::testing::tree::Described)> {
    description.iter().filter(|(_, described)| described.kind == "file")
}

#[test]
fn whatever_is_done_and_cut_no_snapshot_comes_from_a_directory_that_came_from_elsewhere() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases: 45, failure_persistence: None, ..Config::default() });
    let seen = std::cell::RefCell::new(Seen::new());
    let ran = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in &steps {
                world.take(step).await;
            }
            world.assert_kept(usize::MAX).await;
            for (what, count) in world.seen {
                *seen.borrow_mut().entry(what).or_default() += count;
            }
        });
        Ok(())
    });
    let seen = seen.into_inner();
    println!("{seen:#?}");
    ran.expect("the property");
    for what in
        ["backup: Done", "backup: Forked", "backup: receipt", "cut backup: after the commit", "cut restore: half way"]
    {
        assert!(seen.contains_key(what), "{what} never came about: {seen:#?}");
    }
}
