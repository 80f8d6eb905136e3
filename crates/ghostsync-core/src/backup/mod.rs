//! The story of a backup: walk, compare, guard, read and chunk, pack, upload, guard again, pages, commit.
//!
//! What is known to be refused before contents are read costs no object, and what turns out to be refused or unchanged
//! when they have been read costs the packs that had become full by then. Packs that were uploaded before a late
//! refusal, a lost race or a crash are garbage that nothing refers to: a commit is the only thing that publishes.

mod aside;
mod blocks;
mod decide;
mod dedup;
mod journal;
mod known;
mod noise;
mod parent;
mod publish;
mod readers;
mod report;
mod resume;
mod seen;
mod steps;
mod store;
mod survey;
mod tally;
mod walking;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::clock::{Clock, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Changes, check_owner_name, check_written_branch_name};
use crate::guard::{self, Findings, Policy, Refusal};
use crate::history::judge::Overtaken;
use crate::id::{PageId, SnapshotId};
use crate::interrupt::{Interrupt, Waiter};
use crate::observer::Observer;
use crate::problem::Problem;
use crate::repository::{Repository, State};
use crate::source::{Matcher, SourceRoot};
use crate::store::RequestCounts;

pub use crate::source::Excludes;

use aside::Aside;
use journal::Journal;
use parent::{Parent, require_receipt};
use publish::{Published, Publisher};
use report::{Before, Report};
use survey::Surveyed;
use walking::Walking;

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
    /// On whose behalf: the owner who claimed the branch, or a name for the fork if there is to be one.
    pub owner: Option<String>,
    /// Moves the branch only while it belongs to `owner`.
    pub exclusive: bool,
    /// Gives the branch back with the same commit, if it belongs to `owner`: the last snapshot of a clean end.
    pub release: bool,
    /// What the commit says besides, for whoever looks at it later: why the backup was made, for instance.
    pub note: Option<Value>,
    /// Makes the first of two steps, for whoever may be stopped at any moment: files that must be read and are larger
    /// keep the parent's version, as if they could not be read. What was left out is in the problems, and the branch is
    /// given back only if nothing was.
    pub defer_over: Option<u64>,
    /// How long a session lasts before what it has stored is kept as an incomplete snapshot on a branch of its own, and
    /// the backup goes on as another session; default 12 h.
    pub wip_every: Duration,
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
            owner: None,
            exclusive: false,
            release: false,
            note: None,
            defer_over: None,
            wip_every: Duration::from_secs(12 * 60 * 60),
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
    /// The branch belongs to others by now, and the tree was kept on a fork.
    Forked,
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
    /// The branch that a quarantined or forked one was meant for.
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
    /// Why the branch could not be moved, when the outcome is `Forked`, or `Planned` and a fork would be made.
    pub overtaken: Option<Overtaken>,
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

/// How often a backup begins anew whose packs a prune takes for garbage, without any step in between.
const MAX_BEGINNINGS: usize = 3;

/// Makes one snapshot of a directory.
///
/// # Errors
/// `Refused` by a guard (nothing was published), `Conflict` when the branch belongs to others and there is nothing to
/// keep on a fork, `Fenced` when prunes went past it again and again, `Unknown` when the answer to the commit was
/// lost, and whatever the store or the disk made fail.
pub async fn backup(
    repository: &Repository,
    source: &Path,
    options: BackupOptions,
    observer: Arc<dyn Observer>,
) -> Result<BackupReport> {
    check(&options)?;
    repository.config().check_writable()?;
    let before = Before::now(repository.store());
    let (repository, source) = (repository.clone(), source.to_path_buf());
    let waiter = Waiter::new(options.interrupt.clone());
    let run = move || {
        let begun = Arc::new(AtomicUsize::new(0));
        let mut again = false;
        loop {
            begun.fetch_add(1, Ordering::Relaxed);
            let story =
                (repository.clone(), options.clone(), waiter.clone(), Arc::clone(&observer), Arc::clone(&begun));
            match run(story, &source, before, std::mem::replace(&mut again, true)) {
                Err(error) if error.kind() == ErrorKind::Fenced && begun.load(Ordering::Relaxed) < MAX_BEGINNINGS => {}
                ended => return ended,
            }
        }
    };
    tokio::task::spawn_blocking(run)
        .await
        .map_err(|error| Error::internal(format!("the backup did not end: {error}")))?
}

fn check(options: &BackupOptions) -> Result<()> {
    let named = check_written_branch_name(&options.branch);
    let owned = options.owner.as_deref().map_or(Ok(()), check_owner_name);
    named.and(owned).map_err(|error| Error::invalid(error.to_string()))?;
    if options.owner.is_none() && (options.exclusive || options.release) {
        return Err(Error::invalid("only an owner can write exclusively, or give a branch back"));
    }
    Ok(())
}

/// What a run is given: the last is how often it was begun since the last step.
type Story = (Repository, BackupOptions, Waiter, Arc<dyn Observer>, Arc<AtomicUsize>);

/// The story of a backup, on a thread of its own.
fn run(
    (repository, options, waiter, observer, begun): Story,
    source: &Path,
    before: Before,
    again: bool,
) -> Result<BackupReport> {
    let mut context = Context {
        began: options.clock.now(),
        root: open_source(source)?,
        matcher: Matcher::new(&options.excludes)?,
        source: source.to_path_buf(),
        repository,
        options,
        waiter,
        observer,
        journal: Journal::default(),
        begun,
    };
    let receipt = require_receipt(&context.repository, &context.options, context.root.mark()?)?;
    let ahead = Walking::ahead(&context)?;
    let state = context.waiter.wait(context.repository.state())?;
    let parent = Parent::find(&state, &context.options, receipt, again)?;
    let journal = resume::take_up(&context, &state)?;
    context.journal = journal.clone();
    let ended = make_snapshot(&context, state, &parent, ahead, before);
    journal.end(ended.is_ok());
    ended
}

/// Makes a snapshot of what the source holds now, on what was found at the beginning.
fn make_snapshot(
    context: &Context,
    state: State,
    parent: &Parent,
    ahead: Option<Walking>,
    before: Before,
) -> Result<BackupReport> {
    let policy = &context.options.policy;
    // The commit of an earlier run may still be on its way: one of this run is to take its number.
    let force = context.options.force || (context.journal.is_open() && parent.overtaken().is_none());
    let mut publisher = Publisher::begin(context, parent, state);

    let mut report = Report::new(context, parent, before);
    let may_be_known = !force && !context.options.reread;
    let survey = |walking, may_be_known| survey::survey(context, parent, walking, may_be_known);
    let mut survey = match (survey(Walking::against(context, parent, ahead)?, may_be_known)?, parent.snapshot()) {
        (Surveyed::Compared(survey), _) => *survey,
        (Surveyed::Unchanged(tallied), Some(snapshot)) if guard::judge(&tallied.findings, policy).is_ok() => {
            report.found(&tallied);
            if context.options.dry_run {
                return Ok(report.planned(None));
            }
            publisher.nothing(snapshot, true)?;
            return Ok(report.unchanged(snapshot));
        }
        // A guard that refuses what it has accepted before was told to: the pages show what it is about.
        (Surveyed::Unchanged(_), _) => match survey(Walking::against(context, parent, None)?, false)? {
            Surveyed::Compared(survey) => *survey,
            Surveyed::Unchanged(_) => return Err(Error::internal("a survey did not compare")),
        },
    };
    let mut verdict = guard::judge(&survey.tallied.findings, policy);
    if verdict.as_ref().is_err_and(|refusal| refusal.guard == guard::Guard::MaxDelete) {
        survey::recount_with_moves(context, parent, &mut survey)?;
        verdict = guard::judge(&survey.tallied.findings, policy);
    }
    report.found(&survey.tallied);
    if context.options.dry_run {
        return Ok(report.planned(verdict.err()));
    }
    if let (Err(refusal), false) = (&verdict, context.keeps_refused()) {
        return Err((**refusal).clone().into());
    }

    let nothing_to_do = survey.files == 0 && survey.tallied.differences == 0 && !force;
    if let (true, Some(snapshot)) = (nothing_to_do, parent.snapshot()) {
        let is_all = !context.defers(&survey.tallied.findings);
        publisher.nothing(snapshot, is_all)?;
        if is_all {
            survey::note_known(context, &mut survey, snapshot.id)?;
        }
        return Ok(report.unchanged(snapshot));
    }

    // What is in draining packs moves along with a backup that publishes anyway, and never makes one of its own.
    let publishes = survey.is_sure_to_differ || survey.tallied.differences > 0 || context.options.force;
    let draining = if publishes { publisher.state.commit.draining.iter().copied().collect() } else { HashSet::new() };
    let made = store::make(&mut publisher, survey, draining)?;
    report.found(&made.tallied);
    // Again, with what was learnt while reading: contents, moves, and what could not be read.
    let verdict = guard::judge(&made.tallied.findings, policy);
    let nothing_to_do = verdict.is_ok() && made.tallied.differences == 0 && !force;
    if let (true, Some(snapshot)) = (nothing_to_do, parent.snapshot()) {
        publisher.nothing(snapshot, !context.defers(&made.tallied.findings))?;
        made.known.finish(snapshot.id, context.root.directory_id());
        return Ok(report.unchanged(snapshot));
    }
    let published = match (verdict, parent.overtaken()) {
        (Ok(approved), None) => publisher.on_branch(made.send()?, approved)?,
        (Ok(approved), Some(overtaken)) => publisher.aside(made, Aside::Fork(approved, overtaken))?,
        (Err(refusal), _) if context.keeps_refused() => publisher.aside(made, Aside::Quarantine(refusal))?,
        (Err(refusal), _) => return Err((*refusal).into()),
    };
    Ok(match published {
        Published::Made(snapshot, changes) => report.done(&snapshot, changes),
        Published::EqualsHead(snapshot) => report.unchanged(&snapshot),
        Published::Aside(snapshot, aside) => report.aside(*snapshot, aside),
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
    journal: Journal,
    source: PathBuf,
    began: jiff::Timestamp,
    begun: Arc<AtomicUsize>,
}

impl Context {
    fn keeps_refused(&self) -> bool {
        self.options.on_refusal == OnRefusal::Quarantine
    }

    /// Whether this is a first step that left something out.
    fn defers(&self, findings: &Findings) -> bool {
        self.options.defer_over.is_some() && findings.unreadable.count() > 0
    }

    /// Notes that the backup has got further, and may begin anew as often as at first.
    fn made_a_step(&self) {
        self.begun.store(1, Ordering::Relaxed);
    }

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
