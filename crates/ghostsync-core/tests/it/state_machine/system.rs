//! Does each step with the library, and compares everything with the model.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use ghostsync_core::Result;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, OnRefusal, backup};
use ghostsync_core::clock::Clock;
use ghostsync_core::format::commit::{Commit, Snapshot};
use ghostsync_core::format::config::CommitMode;
use ghostsync_core::guard::{Cap, Policy};
use ghostsync_core::id::SnapshotId;
use ghostsync_core::maintain::{
    CheckOptions, ForgetOptions, KeepRules, PruneOptions, ReadData, Scope, check, forget, prune,
};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{
    CreateOptions, OpenOptions, Repository, Selector, claim, hold, promote, release, tag,
};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{FaultStore, Operation};
use ghostsync_core::testing::tree::noise;
use jiff::{SignedDuration, Timestamp};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use tokio::runtime::Runtime;

use super::reference::{Branch, FILES, Handle, How, Model, Step, Told, Tree, WRITERS, owner};
use crate::restoring::quick_folder;

const TAG: &str = "tagged";

/// A repository in memory, and the machines of all writers.
pub(super) struct System {
    runtime: Runtime,
    world: Arc<World>,
    /// Steps so far.
    steps: usize,
    /// The epoch of main that belongs to the model's.
    epoch: (u32, u64),
    /// How many entries the log had.
    log: u64,
    _folder: tempfile::TempDir,
}

struct World {
    memory: Arc<InMemory>,
    /// The same, with somebody who comes in the way of the next commit.
    raced: Arc<dyn ObjectStore>,
    intruder: Arc<Mutex<Option<Step>>>,
    folder: PathBuf,
    /// The library's names of the snapshots that the model numbers.
    ids: Mutex<Vec<SnapshotId>>,
    told: Mutex<Vec<Told>>,
    kept: Mutex<Option<Repository>>,
    month: Mutex<u32>,
    /// Commits of a prune, which the model knows nothing of.
    prunes: Mutex<Option<u64>>,
    began: Timestamp,
}

#[derive(Debug)]
struct FixedClock(Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }
}

impl System {
    pub(super) fn new(model: &Model) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let (runtime, folder, memory) = (runtime.expect("a runtime"), quick_folder(), Arc::new(InMemory::new()));
        let world = Arc::new_cyclic(|world: &std::sync::Weak<World>| {
            let (intruder, weak) = (Arc::new(Mutex::new(None::<Step>)), world.clone());
            let next = Arc::clone(&intruder);
            let raced = FaultStore::new(memory.clone(), move |call| {
                let commits = call.operation == Operation::Create && call.key.as_ref().starts_with("log/");
                let step = commits.then(|| next.lock().expect("no panic").take()).flatten();
                if let (Some(step), Some(world)) = (step, weak.upgrade()) {
                    elsewhere(move || {
                        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                        runtime.expect("a runtime").block_on(world.act(&step, world.store(false)));
                    });
                }
                None
            });
            World {
                memory: memory.clone(),
                raced: Arc::new(raced),
                intruder,
                folder: folder.path().to_owned(),
                ids: Mutex::default(),
                told: Mutex::default(),
                kept: Mutex::default(),
                month: Mutex::default(),
                prunes: Mutex::default(),
                began: Timestamp::now(),
            }
        });
        let commit_mode = if model.detect { CommitMode::Detect } else { CommitMode::Atomic };
        runtime.block_on(async {
            let create = CreateOptions { commit_mode, skip_probe: true, ..CreateOptions::default() };
            let repository = Repository::create(world.store(true), create, OpenOptions::default()).await;
            *world.kept.lock().expect("no panic") = Some(repository.expect("a new repository"));
            for (number, name) in WRITERS.iter().enumerate() {
                fs::create_dir(world.source(number)).expect("a folder");
                let files: Vec<_> =
                    model.writers[number].tree.iter().map(|(name, content)| (*name, Some(*content))).collect();
                world.edit(number, &files);
                fs::create_dir(world.folder.join(format!("{name}.cache"))).expect("a folder");
            }
            let how = How { exclusive: false, release: false, quarantine: false, handle: Handle::Fresh };
            world.act(&Step::BackUp(0, Vec::new(), how), world.store(false)).await;
        });
        assert_eq!(world.take_told(), [Told::Made(0)]);
        Self { runtime, world, steps: 0, epoch: (0, 0), log: 1, _folder: folder }
    }

    pub(super) fn take(&mut self, step: &Step, model: &Model) {
        self.steps += 1;
        let world = &self.world;
        let snapshots = world.ids.lock().expect("no panic").len();
        let step = match step.resolved(snapshots) {
            Step::Raced(step, intruder) => {
                *world.intruder.lock().expect("no panic") = Some(*intruder);
                *step
            }
            step => step,
        };
        let raced = world.store(true);
        self.runtime.block_on(world.act(&step, raced));
        // Whoever had no commit to get in the way of never came.
        world.intruder.lock().expect("no panic").take();
        assert_eq!(world.take_told(), model.told, "what was told");
        self.check(&step, model);
    }

    /// Everything there is, at the end of a history.
    pub(super) fn end(self, model: &Model) {
        self.runtime.block_on(async {
            let repository = self.world.open().await;
            for (number, snapshot) in model.retained() {
                self.world.check_restores(&repository, number, &snapshot.tree).await;
            }
            self.world.act(&Step::Check, self.world.store(false)).await;
        });
        assert_eq!(self.world.take_told(), [Told::Nothing], "the check");
    }

    fn check(&mut self, step: &Step, model: &Model) {
        let (world, steps) = (Arc::clone(&self.world), self.steps);
        let (commit, log) = self.runtime.block_on(async {
            let repository = world.open().await;
            let commit = repository.state().await.expect("a state").commit;
            let retained: Vec<_> = model.retained().collect();
            // All of them would take long: the newest, and another one each time; after a deletion all.
            let is_due =
                |at: usize| at + 1 == retained.len() || at == steps % retained.len() || matches!(step, Step::Prune);
            for (_, (number, snapshot)) in retained.iter().enumerate().filter(|(at, _)| is_due(*at)) {
                world.check_restores(&repository, *number, &snapshot.tree).await;
            }
            (commit, log_entries(&world.memory).await)
        });
        world.check_state(&commit, model);
        for (writer, of) in model.writers.iter().enumerate() {
            assert_eq!(files_of(&world.source(writer)), bytes_of(&of.tree), "the directory of {}", WRITERS[writer]);
        }
        let epoch = commit.branches["main"].epoch;
        match model.epoch == self.epoch.0 {
            true => assert_eq!(epoch, self.epoch.1, "the epoch of main stays"),
            false => assert!(epoch > self.epoch.1, "the epoch of main rises from {}: {epoch}", self.epoch.1),
        }
        let made = world.prunes.lock().expect("no panic").take().unwrap_or(0);
        assert_eq!(log - self.log, model.commits + made, "commits");
        (self.epoch, self.log) = ((model.epoch, epoch), log);
    }
}

fn elsewhere(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work).join().expect("ends well");
}

impl World {
    fn store(&self, raced: bool) -> Store {
        let objects: Arc<dyn ObjectStore> = if raced { Arc::clone(&self.raced) } else { self.memory.clone() };
        Store::new(objects, "memory")
    }

    async fn open(&self) -> Repository {
        Repository::open(self.store(false), OpenOptions::default()).await.expect("a repository")
    }

    fn source(&self, writer: usize) -> PathBuf {
        self.folder.join(WRITERS[writer])
    }

    fn receipt(&self, writer: usize) -> Option<PathBuf> {
        owner(writer).map(|name| self.folder.join(format!("{name}.receipt")))
    }

    fn take_told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().expect("no panic"))
    }

    fn id(&self, number: usize) -> SnapshotId {
        self.ids.lock().expect("no panic")[number]
    }

    /// The number of a snapshot; the next one if it is new.
    fn number(&self, id: SnapshotId) -> usize {
        let mut ids = self.ids.lock().expect("no panic");
        let known = ids.iter().position(|known| *known == id);
        known.unwrap_or_else(|| {
            ids.push(id);
            ids.len() - 1
        })
    }

    fn clock(&self) -> Arc<FixedClock> {
        let months = i64::from(*self.month.lock().expect("no panic"));
        Arc::new(FixedClock(self.began + SignedDuration::from_hours(31 * 24 * months)))
    }

    fn edit(&self, writer: usize, files: &[(&str, Option<u8>)]) {
        let source = self.source(writer);
        let then = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds);
        for (name, content) in files {
            let path = source.join(name);
            match content {
                Some(content) => {
                    fs::write(&path, content_of(name, *content)).expect("written");
                    let file = File::open(&path).expect("a file");
                    file.set_modified(then(u64::from(*content))).expect("a time");
                }
                None => drop(fs::remove_file(&path)),
            }
        }
        // Equal files make equal trees, whenever they were written.
        File::open(&source).and_then(|folder| folder.set_modified(then(0))).expect("a time");
    }

    async fn act(&self, step: &Step, store: Store) {
        let told = self.run(step, store).await.unwrap_or_else(|error| Told::Failed(error.kind()));
        self.told.lock().expect("no panic").push(told);
    }

    async fn run(&self, step: &Step, store: Store) -> Result<Told> {
        let opened = async |store| Repository::open(store, OpenOptions::default()).await.expect("a repository");
        let name = |writer: &usize| owner(*writer).expect("a pod");
        Ok(match step {
            Step::Empty(writer) => {
                self.edit(*writer, &FILES.map(|name| (name, None)));
                Told::Nothing
            }
            Step::Month => {
                *self.month.lock().expect("no panic") += 1;
                Told::Nothing
            }
            Step::BackUp(writer, edits, how) => {
                let files: Vec<_> = edits.iter().map(|(file, content)| (FILES[*file], *content)).collect();
                self.edit(*writer, &files);
                self.back_up(*writer, *how, store).await?
            }
            Step::Restore(writer) => {
                let options = RestoreOptions {
                    delete: true,
                    max_delete: Cap::Percent(100),
                    receipt: self.receipt(*writer),
                    ..RestoreOptions::default()
                };
                let repository = opened(store).await;
                let report = restore(&repository, &self.source(*writer), options, Arc::new(NoObserver)).await?;
                assert!(report.problems.is_empty(), "{:?}", report.problems);
                Told::Restored(self.number(report.snapshot.expect("a snapshot")))
            }
            Step::Claim(writer) => {
                let claim = claim(&opened(store).await, "main", name(writer), "test").await?;
                let head = self.number(claim.head.expect("a head").id);
                let forks = claim.forks.iter().map(|fork| self.number(fork.id)).collect();
                Told::Claimed { fenced: claim.fenced, head, forks }
            }
            Step::Release(writer) => {
                Told::Changed(release(&opened(store).await, "main", name(writer), "test", None).await?)
            }
            Step::Tag(number, set) => {
                let tags = [(TAG.to_owned(), "yes".to_owned())];
                let names = [TAG.to_owned()];
                let (set, remove): (&[_], &[_]) = if *set { (&tags, &[]) } else { (&[], &names) };
                Told::Changed(tag(&opened(store).await, self.id(*number), set, remove, "test").await?.is_some())
            }
            Step::Hold(number, set) => {
                let reason = set.then_some("looked at");
                Told::Changed(hold(&opened(store).await, self.id(*number), reason, "test").await?.is_some())
            }
            Step::Promote(number) => {
                Told::Promoted(self.number(promote(&opened(store).await, self.id(*number), "test").await?.id))
            }
            Step::Forget { last, all, tagged } => {
                let tags = if *tagged { vec![(TAG.to_owned(), None)] } else { Vec::new() };
                let options = ForgetOptions {
                    keep: KeepRules { last: *last, tags, ..KeepRules::default() },
                    scope: if *all { Scope::All } else { Scope::default() },
                    protect: Duration::ZERO,
                    clock: self.clock(),
                    exclusive: true,
                    ..ForgetOptions::default()
                };
                let report = forget(&opened(store).await, &options).await?;
                let mut dropped: Vec<_> = report.plan.dropped().map(|snapshot| self.number(snapshot.id)).collect();
                dropped.sort_unstable();
                Told::Forgotten(dropped)
            }
            Step::Prune => {
                let (grace, session_idle) = (Duration::ZERO, Duration::ZERO);
                let options = PruneOptions { grace, session_idle, exclusive: true, ..PruneOptions::default() };
                let repository = opened(store).await;
                let report = prune(&repository, options.clone(), Arc::new(NoObserver)).await?;
                *self.prunes.lock().expect("no panic") = Some(u64::from(report.commit.is_some()));
                assert_eq!(report.waiting_packs, 0, "all garbage goes");
                Told::Nothing
            }
            Step::Check => {
                let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
                let report = check(&opened(store).await, options, &NoObserver).await?;
                assert_eq!((report.damage, report.void), (Vec::new(), Vec::new()));
                Told::Nothing
            }
            Step::Raced(..) => unreachable!("one at a time"),
        })
    }

    async fn back_up(&self, writer: usize, how: How, store: Store) -> Result<Told> {
        let cache_dir = Some(self.folder.join(format!("{}.cache", WRITERS[writer])));
        let repository = match how.handle {
            Handle::Fresh => Repository::open(store, OpenOptions::default()).await?,
            Handle::Cached => Repository::open(store, OpenOptions { cache_dir }).await?,
            Handle::Kept => {
                let kept = self.kept.lock().expect("no panic").clone();
                kept.expect("kept since the beginning")
            }
        };
        let is_pod = owner(writer).is_some();
        let options = BackupOptions {
            policy: Policy::default(),
            writer: WRITERS[writer].into(),
            owner: owner(writer).map(str::to_owned),
            exclusive: is_pod && how.exclusive,
            release: is_pod && how.release,
            on_refusal: if how.quarantine { OnRefusal::Quarantine } else { OnRefusal::Fail },
            receipt: self.receipt(writer),
            clock: self.clock(),
            ..BackupOptions::default()
        };
        let report = backup(&repository, &self.source(writer), options, Arc::new(NoObserver)).await?;
        let number = self.number(report.snapshot.expect("a snapshot"));
        assert_eq!(report.refusal.is_some(), report.outcome == BackupOutcome::Quarantined);
        Ok(match report.outcome {
            BackupOutcome::Done => Told::Made(number),
            BackupOutcome::Unchanged => Told::Unchanged(number),
            BackupOutcome::Quarantined => Told::Quarantined(number),
            BackupOutcome::Forked => Told::Forked(number, report.overtaken.expect("a reason")),
            BackupOutcome::Planned => unreachable!("no dry run"),
        })
    }

    /// A snapshot comes back, byte for byte.
    async fn check_restores(&self, repository: &Repository, number: usize, tree: &Tree) {
        let destination = self.folder.join("back");
        let options =
            RestoreOptions { snapshot: Selector::Id(self.id(number).to_string()), ..RestoreOptions::default() };
        let restored = restore(repository, &destination, options, Arc::new(NoObserver)).await;
        let restored = restored.unwrap_or_else(|error| panic!("snapshot {number} does not come back: {error}"));
        assert!(restored.problems.is_empty(), "{:?}", restored.problems);
        assert_eq!(files_of(&destination), bytes_of(tree), "snapshot {number} comes back");
        fs::remove_dir_all(destination).expect("removed");
    }

    /// The repository has these snapshots, branches and marks, and no others.
    fn check_state(&self, commit: &Commit, model: &Model) {
        let (mut there, mut expected) = (Vec::new(), Vec::new());
        for snapshot in &commit.snapshots {
            there.push(self.describe(commit, snapshot));
        }
        for (number, of) in model.retained() {
            let (branch, onto) = match of.branch {
                Branch::Main => ("main".to_owned(), None),
                Branch::Fork(writer) => (format!("fork/main/{}", WRITERS[writer]), Some("main".to_owned())),
                Branch::Quarantine => ("quarantine/main".to_owned(), Some("main".to_owned())),
            };
            let is_head = of.branch != Branch::Main || number == model.head;
            let (parent, promoted) = (of.parent, of.promoted);
            let (is_held, is_tagged, files) = (of.is_held, of.is_tagged, of.tree.len() as u64);
            expected.push(Described { number, branch, onto, is_head, parent, promoted, is_held, is_tagged, files });
        }
        assert_eq!(there, expected, "snapshots");
        let beside = model.retained().filter(|(_, of)| of.branch != Branch::Main).count();
        assert_eq!(commit.branches.len(), 1 + beside, "branches: {:?}", commit.branches.keys());
        let holder = commit.branches["main"].holder.as_ref().map(|holder| (&*holder.owner, holder.released));
        assert_eq!(holder, model.holder.map(|(holder, is_released)| (WRITERS[holder], is_released)), "holder");
    }

    fn describe(&self, commit: &Commit, snapshot: &Snapshot) -> Described {
        let branch = match snapshot.branch.rsplit_once(['/', '-']) {
            // Without the random name of the session.
            Some((beside, _)) => beside.to_owned(),
            None => snapshot.branch.clone(),
        };
        Described {
            number: self.number(snapshot.id),
            branch,
            onto: snapshot.onto.clone(),
            is_head: commit.head(&snapshot.branch).map(|head| head.id) == Some(snapshot.id),
            parent: snapshot.parent.map(|parent| self.number(parent)),
            promoted: snapshot.promoted.map(|promoted| self.number(promoted)),
            is_held: snapshot.hold.is_some(),
            is_tagged: snapshot.tags.contains_key(TAG),
            files: snapshot.entries,
        }
    }
}

/// What is compared of a snapshot.
#[derive(Debug, PartialEq)]
struct Described {
    number: usize,
    branch: String,
    onto: Option<String>,
    is_head: bool,
    parent: Option<usize>,
    promoted: Option<usize>,
    is_held: bool,
    is_tagged: bool,
    files: u64,
}

/// Contents are of one length, and no two files ever have the same.
fn content_of(name: &str, content: u8) -> Vec<u8> {
    noise(u64::from(name.as_bytes()[0]) << 8 | u64::from(content), 300)
}

fn bytes_of(tree: &Tree) -> BTreeMap<String, Vec<u8>> {
    tree.iter().map(|(name, content)| ((*name).to_owned(), content_of(name, *content))).collect()
}

fn files_of(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).expect("a folder").map(|entry| entry.expect("an entry"));
    let file = |entry: fs::DirEntry| {
        (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file"))
    };
    entries.map(file).collect()
}

async fn log_entries(memory: &InMemory) -> u64 {
    use futures::StreamExt;
    memory.list(Some(&Key::from("log"))).count().await as u64
}
