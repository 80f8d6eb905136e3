//! Who works on the repository, and what: the real library, on directories of a few small files.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ghostsync_core::backup::{BackupOptions, BackupReport, backup};
use ghostsync_core::clock::Clock;
use ghostsync_core::guard::{Cap, Policy};
use ghostsync_core::id::SnapshotId;
use ghostsync_core::maintain::{ForgetOptions, KeepRules, PruneOptions, PruneReport, Scope, forget, prune};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::receipt::Receipt;
use ghostsync_core::repository::{Claim, OpenOptions, Repository, Selector, claim, hold, promote, release};
use ghostsync_core::restore::{Overwrite, RestoreOptions, RestoreReport, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::tree::noise;
use ghostsync_core::{Error, Result};
use jiff::Timestamp;

use super::ledger::Content;
use super::random::Random;
use super::store::{Shared, SimulatedStore};

/// How long a commit is tried. It passes only when the schedule says so.
pub(super) const SETTLE_TIME: Duration = Duration::from_secs(100 * 24 * 3600);

pub(super) const NAMES: [&str; 6] = ["a", "b", "c", "d", "e/f", "e/g"];

/// How people are in one simulation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    /// There are only so many contents, so that the trees of different writers have much in common; 0: each is new.
    pub(super) contents: usize,
    /// The first files are edited together, fewer or more of them, and no backup makes steps: packs have several files,
    /// and when only the last ones are needed they are moved out of.
    pub(super) leaves_ends: bool,
    /// The deletion cap of backups, in percent.
    pub(super) cap: u32,
}

/// What somebody does in one run.
#[derive(Debug, Clone)]
pub(super) enum Job {
    BackUp { exclusive: bool, release: bool, wip_every: Duration },
    Claim,
    Release,
    Restore,
    Read(SnapshotId),
    Forget { last: u32, scope: Scope },
    Prune { grace: Duration, session_idle: Duration },
    Promote(SnapshotId),
    Hold(SnapshotId, bool),
}

/// How that ended.
#[expect(clippy::large_enum_variant, reason = "there are as many as actors")]
pub(super) enum Ended {
    Backup(Result<BackupReport>),
    Claim(Result<Claim>),
    Restore(Result<RestoreReport>),
    /// The number of the commit, if one was made.
    Change(Result<Option<u64>>),
    Prune(Result<PruneReport>),
    Killed,
}

/// What is known of a process that writes.
#[derive(Clone)]
pub(super) struct Writer {
    pub(super) process: usize,
    pub(super) actor: usize,
    pub(super) name: String,
    pub(super) owner: Option<String>,
    /// As it was when the process started.
    pub(super) receipt: Option<Receipt>,
    pub(super) content: Content,
    /// The deletion cap of its backups, in percent.
    pub(super) cap: u32,
    /// It takes up a journal: it may make a snapshot of an unchanged tree, to take a number that was asked for.
    pub(super) may_repeat: bool,
    pub(super) backs_up: bool,
    /// When killed it is told an error instead of being torn down.
    pub(super) ends_by_error: bool,
}

impl Writer {
    pub(super) fn receipt_epoch(&self) -> Option<u64> {
        self.receipt.as_ref().map(|receipt| receipt.epoch)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The time of the store and of all machines.
#[derive(Clone)]
pub(super) struct SimulatedClock(pub(super) Shared);

impl fmt::Debug for SimulatedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedClock")
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.0.lock().now
    }
}

/// What a holder has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Begins,
    HasClaimed,
    HasRestored,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Backs up, and knows of no holders.
    Plain { cache: bool },
    /// Claims the branch, restores with a receipt, backs up, releases.
    Holder,
    /// Forgets and prunes.
    Keeper,
    /// Reads, promotes, marks snapshots.
    Person,
}

/// Somebody with a machine.
pub(super) struct Actor {
    pub(super) name: &'static str,
    pub(super) role: Role,
    pub(super) home: PathBuf,
    pub(super) content: Content,
    /// What the directory held before it was edited.
    before: Content,
    pub(super) stage: Stage,
    /// Its last backup may have been made or not: it tries again before anything is edited.
    pub(super) tries_again: bool,
    pub(super) running: Option<usize>,
}

impl Actor {
    pub(super) fn new(name: &'static str, role: Role, folder: &Path) -> Self {
        let home = folder.join(name);
        fs::create_dir_all(home.join("source")).expect("a folder");
        let (content, before, stage) = (Content::new(), Content::new(), Stage::Begins);
        Self { name, role, home, content, before, stage, tries_again: false, running: None }
    }

    pub(super) fn source(&self) -> PathBuf {
        self.home.join("source")
    }

    fn receipt(&self) -> PathBuf {
        self.home.join("receipt")
    }

    pub(super) fn has_cache(&self) -> bool {
        self.cache().is_some()
    }

    fn cache(&self) -> Option<PathBuf> {
        let has_one = matches!(self.role, Role::Plain { cache: true } | Role::Holder);
        has_one.then(|| self.home.join("cache"))
    }

    pub(super) fn owner(&self) -> Option<String> {
        (self.role == Role::Holder).then(|| self.name.to_owned())
    }

    pub(super) fn last_receipt(&self) -> Option<Receipt> {
        (self.role == Role::Holder).then(|| Receipt::load(&self.receipt()).ok()).flatten()
    }

    pub(super) fn has_journal(&self) -> bool {
        let repositories = self.cache().and_then(|cache| fs::read_dir(cache).ok()).into_iter().flatten().flatten();
        let journals = repositories.filter_map(|repository| fs::read_dir(repository.path().join("journal")).ok());
        journals.flatten().next().is_some()
    }

    /// Makes the directory what it was before it was edited last.
    pub(super) fn take_back(&mut self) {
        for name in NAMES {
            match self.before.get(name).copied() {
                Some(version) => self.write(name, version),
                None => self.remove(name),
            }
        }
    }

    /// Edits a file or two, loses many, or takes back what was edited last; `next` counts contents.
    pub(super) fn edit(&mut self, random: &mut Random, habits: Habits, next: &mut u64) {
        if random.chance(15) && !self.before.is_empty() {
            return self.take_back();
        }
        self.before = self.content.clone();
        if habits.cap < 100 && random.chance(15) {
            for name in NAMES.iter().filter(|_| random.chance(60)) {
                self.remove(name);
            }
            return;
        }
        let names: Vec<&str> = match habits.leaves_ends {
            true => NAMES[..1 + random.below(NAMES.len())].to_vec(),
            false => (0..1 + random.below(2)).map(|_| *random.pick(&NAMES)).collect(),
        };
        for name in names {
            if self.content.len() > 2 && random.chance(20) {
                self.remove(name);
                continue;
            }
            // What was there before comes back now and then.
            let version = match habits.contents {
                0 if random.chance(80) => *next + 1,
                0 => 1 + random.below(*next as usize) as u64,
                contents => 1 + random.below(contents) as u64,
            };
            *next = (*next).max(version);
            self.write(name, version);
        }
    }

    pub(super) fn write(&mut self, name: &str, version: u64) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, bytes_of(version)).expect("written");
        // Old, and another one for each content: a backup need not read it to be sure.
        let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + version);
        File::open(&path).and_then(|file| file.set_modified(then)).expect("a time");
        self.content.insert(name.to_owned(), version);
        self.set_folder_times();
    }

    fn remove(&mut self, name: &str) {
        if self.content.remove(name).is_some() {
            fs::remove_file(self.source().join(name)).expect("removed");
        }
        self.set_folder_times();
    }

    /// Equal files make equal trees, whenever and wherever they were written.
    fn set_folder_times(&self) {
        let source = self.source();
        fs::create_dir_all(source.join("e")).expect("a folder");
        for folder in [source.join("e"), source] {
            let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            File::open(folder).and_then(|folder| folder.set_modified(then)).expect("a time");
        }
    }

    /// A new machine takes the place of the old one.
    pub(super) fn replace_source(&mut self) {
        fs::remove_dir_all(self.source()).expect("removed");
        fs::create_dir(self.source()).expect("a folder");
        drop(fs::remove_file(self.receipt()));
    }

    /// Does a job with the real library.
    pub(super) fn job(
        &self,
        job: Job,
        store: SimulatedStore,
        clock: SimulatedClock,
        habits: Habits,
    ) -> impl Future<Output = Ended> + use<> {
        let (source, receipt, cache_dir) = (self.source(), self.receipt(), self.cache());
        let (owner, name, home) = (self.owner(), self.name, self.home.clone());
        let is_holder = self.role == Role::Holder;
        async move {
            let store = Store::new(Arc::new(store), "simulated").with_settle_time(SETTLE_TIME);
            let opened = Repository::open(store, OpenOptions { cache_dir }).await;
            let owner_name = owner.clone().unwrap_or_default();
            match job {
                Job::BackUp { exclusive, release, wip_every } => {
                    let options = BackupOptions {
                        policy: Policy { max_delete: Cap::Percent(habits.cap), ..Policy::default() },
                        writer: name.into(),
                        owner,
                        exclusive,
                        release,
                        receipt: is_holder.then_some(receipt),
                        wip_every,
                        clock: Arc::new(clock),
                        ..BackupOptions::default()
                    };
                    let backup = async |repository| backup(&repository, &source, options, Arc::new(NoObserver)).await;
                    Ended::Backup(then(opened, backup).await)
                }
                Job::Claim => {
                    let claim = async |repository| claim(&repository, "main", &owner_name, name).await;
                    Ended::Claim(then(opened, claim).await)
                }
                Job::Release => {
                    let release = async |repository| release(&repository, "main", &owner_name, name, None).await;
                    Ended::Change(then(opened, release).await.map(|_| None))
                }
                Job::Restore => {
                    let options = RestoreOptions {
                        overwrite: Some(Overwrite::Changed),
                        delete: true,
                        max_delete: Cap::Percent(100),
                        receipt: Some(receipt),
                        clock: Arc::new(clock),
                        ..RestoreOptions::default()
                    };
                    let restore = async |repository| restore(&repository, &source, options, Arc::new(NoObserver)).await;
                    Ended::Restore(then(opened, restore).await)
                }
                Job::Read(id) => {
                    let options =
                        RestoreOptions { snapshot: Selector::Id(id.to_string()), ..RestoreOptions::default() };
                    let back = home.join("back");
                    drop(fs::remove_dir_all(&back));
                    let restore = async |repository| restore(&repository, &back, options, Arc::new(NoObserver)).await;
                    Ended::Restore(then(opened, restore).await)
                }
                Job::Forget { last, scope } => {
                    let options = ForgetOptions {
                        keep: KeepRules { last, ..KeepRules::default() },
                        scope,
                        protect: Duration::ZERO,
                        writer: name.into(),
                        clock: Arc::new(clock),
                        ..ForgetOptions::default()
                    };
                    let forget = async |repository| forget(&repository, &options).await;
                    Ended::Change(then(opened, forget).await.map(|report| report.commit))
                }
                Job::Prune { grace, session_idle } => {
                    let clock = Arc::new(clock);
                    let options =
                        PruneOptions { grace, session_idle, writer: name.into(), clock, ..PruneOptions::default() };
                    let prune = async |repository| prune(&repository, options, Arc::new(NoObserver)).await;
                    Ended::Prune(then(opened, prune).await)
                }
                Job::Hold(id, is_held) => {
                    let reason = is_held.then_some("looked at");
                    let hold = async |repository| hold(&repository, id, reason, name).await;
                    Ended::Change(then(opened, hold).await)
                }
                Job::Promote(id) => {
                    let promote = async |repository| promote(&repository, id, name).await;
                    Ended::Change(then(opened, promote).await.map(|_| None))
                }
            }
        }
    }
}

async fn then<T>(opened: Result<Repository>, job: impl AsyncFnOnce(Repository) -> Result<T>) -> Result<T> {
    job(opened?).await
}

/// What a failed job says, if it failed.
impl Ended {
    pub(super) fn error(&self) -> Option<&Error> {
        match self {
            Self::Backup(result) => result.as_ref().err(),
            Self::Claim(result) => result.as_ref().err(),
            Self::Restore(result) => result.as_ref().err(),
            Self::Change(result) => result.as_ref().err(),
            Self::Prune(result) => result.as_ref().err(),
            Self::Killed => None,
        }
    }
}

fn bytes_of(version: u64) -> Vec<u8> {
    noise(version, 20 + (version as usize * 997) % 3000)
}

/// Where a directory differs from what it should hold.
pub(super) fn difference(directory: &Path, content: &Content) -> Option<String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below").to_string_lossy().into_owned();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    let expected: BTreeMap<_, _> = content.iter().map(|(name, version)| (name.clone(), bytes_of(*version))).collect();
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    (found != expected).then(|| format!("{:?} instead of {:?}, or other bytes", names(&found), names(&expected)))
}
