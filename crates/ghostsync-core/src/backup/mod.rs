//! The story of a backup: walk, compare, guard, read and chunk, pack, upload, guard again, pages, commit.
//!
//! What is known to be refused before contents are read costs no object. Packs that were uploaded before a late
//! refusal, a lost race or a crash are garbage that nothing refers to: a commit is the only thing that publishes.

mod blocks;
mod decide;
mod dedup;
mod known;
mod parent;
mod publish;
mod readers;
mod report;
mod seen;
mod store;
mod survey;
mod tally;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::error::{Error, Result};
use crate::format::commit::{Changes, check_branch_name};
use crate::guard::{self, Policy, Refusal};
use crate::history::Session;
use crate::id::{PageId, SnapshotId};
use crate::interrupt::{Interrupt, Waiter};
use crate::observer::Observer;
use crate::problem::Problem;
use crate::repository::{Repository, State};
use crate::source::{Matcher, SourceRoot};
use crate::store::RequestCounts;

pub use crate::source::Excludes;

use parent::Parent;
use publish::Published;
use report::Report;

/// What to do with what a guard refuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRefusal {
    /// Publish nothing.
    #[default]
    Fail,
    /// Keep it on a branch of its own, `quarantine/<branch>/<session>`.
    Quarantine,
}

/// How to back up.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The branch; default `main`.
    pub branch: String,
    /// Tags of the new snapshot.
    pub tags: BTreeMap<String, String>,
    /// What is left out.
    pub excludes: Excludes,
    /// Reads every file, whatever its metadata say.
    pub reread: bool,
    /// What the guards allow.
    pub policy: Policy,
    /// The receipt that is required, and kept current.
    pub receipt: Option<PathBuf>,
    /// What to do with what a guard refuses.
    pub on_refusal: OnRefusal,
    /// Makes a snapshot even of an unchanged tree.
    pub force: bool,
    /// Plans and guards, and uploads nothing.
    pub dry_run: bool,
    /// Who writes, for people.
    pub writer: String,
    /// The wish to stop.
    pub interrupt: Interrupt,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            branch: "main".into(),
            tags: BTreeMap::new(),
            excludes: Excludes::default(),
            reread: false,
            policy: Policy::default(),
            receipt: None,
            on_refusal: OnRefusal::Fail,
            force: false,
            dry_run: false,
            writer: String::new(),
            interrupt: Interrupt::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// How a backup ended, when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupOutcome {
    /// A snapshot was made.
    Done,
    /// Nothing had changed: no snapshot was made.
    Unchanged,
    /// A guard refused, and the tree was kept in quarantine.
    Quarantined,
    /// A dry run: this is what would have been done.
    Planned,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct BackupReport {
    /// How it ended.
    pub outcome: BackupOutcome,
    /// The new snapshot; the parent when unchanged; `None` in a dry run, or when an empty branch stays empty.
    pub snapshot: Option<SnapshotId>,
    /// Its tree.
    pub tree: Option<PageId>,
    /// The branch that it is on.
    pub branch: String,
    /// The branch that a quarantined one was meant for.
    pub onto: Option<String>,
    /// The snapshot that it was compared with.
    pub parent: Option<SnapshotId>,
    /// Entries, without the root and sockets.
    pub entries: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// What differs from the parent.
    pub changes: Changes,
    /// Entries of the parent that a changed exclude list hides now.
    pub excluded: u64,
    /// Sockets that were skipped.
    pub sockets: u64,
    /// Entries that could not be read, and others worth knowing.
    pub problems: Vec<Problem>,
    /// The refusal, when the outcome is `Quarantined`, or `Planned` and a guard would refuse.
    pub refusal: Option<Refusal>,
    /// Bytes sent to the store.
    pub uploaded_bytes: u64,
    /// Requests made.
    pub requests: RequestCounts,
    /// How long it took.
    pub seconds: f64,
}

impl BackupReport {
    /// Tells whether every entry could be read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.problems.iter().any(|problem| problem.incomplete)
    }
}

/// Makes one snapshot of a directory.
///
/// # Errors
/// `Refused` by a guard (nothing was published), `Conflict` when others kept moving the branch, `Unknown` when the
/// answer to the commit was lost, and whatever the store or the disk made fail.
pub async fn backup(
    repository: &Repository,
    source: &Path,
    options: BackupOptions,
    observer: Arc<dyn Observer>,
) -> Result<BackupReport> {
    check_branch_name(&options.branch).map_err(|error| Error::invalid(error.to_string()))?;
    if let Some((reserved @ ("quarantine" | "fork" | "wip"), _)) = options.branch.split_once('/') {
        return Err(Error::invalid(format!("branches under {reserved}/ are made by ghostsync itself")));
    }
    repository.config().check_writable()?;
    let requests = repository.store().requests();
    let state = options.interrupt.unless_set(repository.state()).await?;
    let (repository, source) = (repository.clone(), source.to_path_buf());
    let waiter = Waiter::new(options.interrupt.clone());
    let run = move || run(repository, &source, state, options, waiter, observer, requests);
    tokio::task::spawn_blocking(run)
        .await
        .map_err(|error| Error::internal(format!("the backup did not end: {error}")))?
}

/// The story of a backup, on a thread of its own.
fn run(
    repository: Repository,
    source: &Path,
    state: State,
    options: BackupOptions,
    waiter: Waiter,
    observer: Arc<dyn Observer>,
    requests: RequestCounts,
) -> Result<BackupReport> {
    let watch = Stopwatch::start();
    let began = options.clock.now();
    let root = open_source(source)?;
    let parent = Parent::find(&repository, &state, &options, root.directory_id())?;
    let matcher = Matcher::new(&options.excludes)?;
    let context = Context { repository, root, matcher, options, waiter, observer, source: source.to_path_buf(), began };
    let policy = &context.options.policy;

    let mut survey = survey::survey(&context, &parent)?;
    let mut verdict = guard::judge(&survey.tallied.findings, policy);
    if verdict.as_ref().is_err_and(|refusal| refusal.guard == guard::Guard::MaxDelete) {
        survey::recount_with_moves(&context, &parent, &mut survey)?;
        verdict = guard::judge(&survey.tallied.findings, policy);
    }
    let mut report = Report::new(&context, &parent, requests, watch);
    report.found(&survey.tallied);
    if context.options.dry_run {
        return Ok(report.planned(verdict.err()));
    }
    let keeps_refused = context.options.on_refusal == OnRefusal::Quarantine;
    if let Err(refusal) = &verdict
        && !keeps_refused
    {
        return Err((**refusal).clone().into());
    }

    let nothing_to_do = survey.files == 0 && survey.tallied.differences == 0 && !context.options.force;
    if let (true, Some(snapshot)) = (nothing_to_do, parent.snapshot()) {
        survey::note_known(&context, &mut survey, snapshot.id)?;
        parent.keep_receipt(&context, snapshot)?;
        return Ok(report.unchanged(snapshot));
    }

    let session = Session::begin(&state, &context.options.writer);
    // What is in draining packs moves along with a backup that publishes anyway, and never makes one of its own.
    let publishes = survey.is_sure_to_differ || survey.tallied.differences > 0 || context.options.force;
    let draining = if publishes { state.commit.draining.iter().copied().collect() } else { HashSet::new() };
    let stored = store::store(&context, &parent, survey, &session, draining)?;
    report.stored(&stored);
    // Again, with what was learnt while reading: contents, moves, and what could not be read.
    let verdict = guard::judge(&stored.tallied.findings, policy);
    if verdict.is_ok()
        && let Some(snapshot) = parent.snapshot()
        && stored.tallied.differences == 0
        && !context.options.force
    {
        stored.known.finish(snapshot.id, context.root.directory_id());
        parent.keep_receipt(&context, snapshot)?;
        return Ok(report.unchanged(snapshot));
    }
    let published = match verdict {
        Ok(approved) => publish::on_branch(&context, &parent, &state, &session, &stored, approved)?,
        Err(refusal) if keeps_refused => {
            let kept = publish::in_quarantine(&context, &parent, &state, &session, &stored, &refusal)?;
            return Ok(report.quarantined(kept, *refusal));
        }
        Err(refusal) => return Err((*refusal).into()),
    };
    Ok(match published {
        Published::Made(snapshot, changes) => {
            stored.known.finish(snapshot.id, context.root.directory_id());
            report.done(&snapshot, changes)
        }
        Published::EqualsHead(snapshot) => report.unchanged(&snapshot),
    })
}

/// What every step of one backup needs.
struct Context {
    repository: Repository,
    root: SourceRoot,
    matcher: Matcher,
    options: BackupOptions,
    waiter: Waiter,
    observer: Arc<dyn Observer>,
    source: PathBuf,
    began: jiff::Timestamp,
}

impl Context {
    /// Where large lists are kept while the backup runs.
    fn folder(&self) -> Option<&Path> {
        self.repository.cache_folder()
    }

    /// The cache of inodes and ctimes for this branch and directory.
    fn known_file(&self) -> Option<PathBuf> {
        Some(known::file(self.folder()?, &self.options.branch, self.root.directory_id()))
    }
}

/// Opens the source, or refuses: a source that fails at its root never becomes a snapshot.
fn open_source(source: &Path) -> Result<SourceRoot> {
    SourceRoot::open(source).map_err(|error| {
        let shown = source.display();
        let reason = match error.io_error().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::NotFound) => format!("the source {shown} does not exist"),
            Some(std::io::ErrorKind::NotADirectory) => format!("the source {shown} is not a directory"),
            _ => format!("the source {shown} cannot be read: {error}"),
        };
        guard::Refusal::plain(guard::Guard::Source, reason).into()
    })
}
