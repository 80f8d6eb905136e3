//! The jobs of `sync`: what the lifecycle decided, done with the store. One runs at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ghostsync_cli::exit::Exit;
use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, OnRefusal, backup};
use ghostsync_core::guard::{Guard, Policy, Refusal};
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::observer::Progress;
use ghostsync_core::receipt::{DirectoryMark, Receipt};
use ghostsync_core::repository::{Repository, State, reclaim, release};
use ghostsync_core::{Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::args::{OnRefusalArg, OnUnreachable, SyncArgs};
use crate::hint;
use crate::lifecycle::{Began, Cause, Looked, Pass, Passed};
use crate::log::{self, Level};
use crate::maintain::maintain;
use crate::pod::{Pod, StoreSource};

/// Files that are larger are left for the last step of a final snapshot.
const SMALL_BYTES: u64 = 1 << 20;

/// What the jobs work with.
pub(crate) struct Work {
    args: SyncArgs,
    pod: Pod,
    /// The state that the last look found.
    state: Option<State>,
    /// Bytes that a pass still has to read and store.
    pub(crate) unsynced_bytes: Arc<AtomicU64>,
}

/// What a job tells besides how it ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// What is said about it, in words.
    pub(crate) message: String,
    /// The code that a process would end with after it.
    pub(crate) exit: Option<Exit>,
    /// What a person can do about it.
    pub(crate) hint: Option<&'static str>,
    /// The guard that refused.
    pub(crate) guard: Option<Guard>,
    /// The backup's own report.
    pub(crate) report: Option<Box<BackupReport>>,
    /// The receipt as it is now.
    pub(crate) receipt: Option<Box<Receipt>>,
    /// The receipt holds, as far as that can be told without the store.
    pub(crate) holds_locally: bool,
}

impl Work {
    pub(crate) fn new(args: SyncArgs, source: StoreSource) -> Result<Self> {
        let pod = Pod::new(args.pod.clone(), source)?;
        // A wrong path is told at the start.
        pod.never()?;
        Ok(Self { args, pod, state: None, unsynced_bytes: Arc::default() })
    }

    pub(crate) fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Checks the receipt, and that the branch is ours; one that was given back by an earlier process of this pod, or
    /// could not be claimed while the store was away, is claimed if its head is what the directory came from.
    ///
    /// Nothing is ever restored here: the app may be writing.
    pub(crate) async fn begin(&mut self, interrupt: &Interrupt) -> (Began, Told) {
        let began = interrupt.unless_set(self.try_to_begin()).await;
        let (began, error) = match began {
            Ok(true) => (Began::Ready, None),
            Ok(false) => (Began::Fenced, None),
            Err(error) if error.kind() == ErrorKind::Refused => (Began::Refused, Some(error)),
            Err(error) => (Began::NotYet, Some(error)),
        };
        let mut told = Told { receipt: Receipt::load(&self.pod.receipt()).ok().map(Box::new), ..Told::default() };
        match &error {
            None if began == Began::Ready => log::info("the receipt holds, and the branch is ours"),
            None => log::warn("the branch is another's: it is not written to, what is edited here is kept on forks"),
            Some(error) => {
                told.guard = error.refusal().map(|refusal| refusal.guard);
                told.message = ghostsync_cli::causes::with_causes(error);
                told.exit = Some(Exit::of(error.kind()));
                let is_away = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied);
                told.holds_locally =
                    self.args.pod.on_unreachable == OnUnreachable::Cache && is_away && self.receipt_here().is_ok();
                log::error(Level::Warn, "cannot begin yet", error);
            }
        }
        (began, told)
    }

    async fn try_to_begin(&mut self) -> Result<bool> {
        // Without a receipt there is nothing to ask the store for.
        let receipt = self.receipt_here()?;
        let repository = self.pod.repository().await?;
        let branch = &self.args.pod.branch;
        if let Err(mismatch) = receipt.check(repository.id(), branch, receipt.directory) {
            return Err(self.refuse(mismatch.to_string()));
        }
        let state = repository.state().await?;
        let holder = state.commit.branches.get(branch).and_then(|branch| branch.holder.as_ref());
        if holder.is_some_and(|holder| holder.owner == self.pod.owner() && !holder.released) {
            self.state = Some(state);
            return Ok(true);
        }
        match reclaim(&repository, branch, self.pod.owner(), &self.pod.writer(), &receipt).await? {
            None => Ok(false),
            Some(adopted) => {
                adopted.write(&self.pod.receipt())?;
                log::line(Level::Info, "the branch was nobody's: it is claimed again", json!({"epoch": adopted.epoch}));
                Ok(true)
            }
        }
    }

    /// The receipt of this very directory, whatever the repository.
    fn receipt_here(&self) -> Result<Receipt> {
        let receipt = Receipt::load(&self.pod.receipt()).map_err(|error| self.refuse(error.to_string()))?;
        let here = DirectoryMark::of(self.pod.path()).map_err(|error| {
            let reason = format!("{} cannot be read: {error}", self.pod.path().display());
            Error::from(plain(Guard::Source, reason))
        })?;
        match receipt.check(receipt.repository, &self.args.pod.branch, here) {
            Ok(()) => Ok(receipt),
            Err(mismatch) => Err(self.refuse(mismatch.to_string())),
        }
    }

    fn refuse(&self, reason: String) -> Error {
        plain(Guard::Receipt, format!("{}: {reason}", self.pod.receipt().display())).into()
    }

    /// Asks whether the head has moved: one request while it has not.
    pub(crate) async fn look(&mut self, interrupt: &Interrupt) -> (Looked, Told) {
        match interrupt.unless_set(self.is_as_we_left_it()).await {
            Ok(true) => (Looked::Still, Told::default()),
            Ok(false) => {
                let branch = self.state.as_ref().and_then(|state| state.commit.branches.get(&self.args.pod.branch));
                let holder = branch.and_then(|branch| branch.holder.as_ref()).map(|holder| &holder.owner);
                let fields = json!({"holder": holder, "epoch": branch.map(|branch| branch.epoch),
                    "head": branch.map(|branch| branch.head)});
                log::line(Level::Info, "the branch was moved or taken since the last look", fields);
                (Looked::Moved, Told::default())
            }
            Err(error) => {
                // When the end begins, that is no trouble of the store.
                if error.kind() != ErrorKind::Interrupted {
                    log::error(Level::Warn, "cannot look at the head", &error);
                }
                (Looked::NotYet, Told { message: error.to_string(), ..Told::default() })
            }
        }
    }

    async fn is_as_we_left_it(&mut self) -> Result<bool> {
        let repository = self.pod.repository().await?;
        if let Some(state) = &self.state
            && !repository.has_moved(state).await?
        {
            return Ok(true);
        }
        let state = self.state.insert(repository.state().await?);
        let Ok(receipt) = Receipt::load(&self.pod.receipt()) else { return Ok(false) };
        let Some(branch) = state.commit.branches.get(&self.args.pod.branch) else { return Ok(false) };
        let holds = branch.holder.as_ref().is_some_and(|held| held.owner == self.pod.owner() && !held.released);
        Ok(holds && branch.epoch == receipt.epoch && branch.head == receipt.snapshot)
    }

    /// Saves the directory.
    pub(crate) async fn pass(&mut self, pass: Pass, note: Value, interrupt: &Interrupt) -> (Passed, Told) {
        let ended = self.try_to_pass(pass, note, interrupt).await;
        // Whatever came of it, the next look begins anew.
        self.state = None;
        let (passed, mut told) = match ended {
            Ok(report) => (passed(&report), told(report)),
            Err(error) => self.failed(&error).await,
        };
        if !matches!(passed, Passed::NotYet | Passed::Stopped) {
            self.unsynced_bytes.store(0, Ordering::Relaxed);
        }
        // A first step that is kept in quarantine is followed by the whole, which needs the branch.
        let is_last = match passed {
            Passed::Refused { kept } => !(kept && pass.small_first),
            _ => false,
        };
        if is_last && pass.release {
            self.give_back(&told).await;
        }
        told.receipt = Receipt::load(&self.pod.receipt()).ok().map(Box::new);
        tell(pass.cause, passed, &told);
        (passed, told)
    }

    async fn try_to_pass(&mut self, pass: Pass, note: Value, interrupt: &Interrupt) -> Result<BackupReport> {
        let repository = interrupt.unless_set(self.pod.repository()).await?;
        let args = &self.args;
        let options = BackupOptions {
            policy: Policy {
                max_delete: args.max_delete,
                max_change: args.max_change,
                strict: args.strict,
                ..Policy::default()
            },
            on_refusal: match args.on_refusal {
                OnRefusalArg::Fail => OnRefusal::Fail,
                OnRefusalArg::Quarantine => OnRefusal::Quarantine,
            },
            release: pass.release,
            note: (pass.cause == Cause::Final).then_some(note),
            // What is left for the next step counts as not read, which is what `strict` refuses.
            defer_over: (pass.small_first && !args.strict).then_some(SMALL_BYTES),
            interrupt: interrupt.clone(),
            ..self.pod.backup_options()?
        };
        let unsynced = Arc::clone(&self.unsynced_bytes);
        let observer = move |progress| match progress {
            Progress::Planned { bytes, .. } => unsynced.store(bytes, Ordering::Relaxed),
            Progress::Advanced { bytes, .. } => {
                let less = |left: u64| Some(left.saturating_sub(bytes));
                let _ = unsynced.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            }
            _ => {}
        };
        backup(&repository, self.pod.path(), options, Arc::new(observer)).await
    }

    async fn failed(&mut self, error: &Error) -> (Passed, Told) {
        let message = ghostsync_cli::causes::with_causes(error);
        let told =
            Told { message, exit: Some(Exit::of(error.kind())), hint: hint::for_error(error), ..Told::default() };
        match error.kind() {
            ErrorKind::Interrupted => (Passed::Stopped, told),
            ErrorKind::Refused => {
                let guard = error.refusal().map(|refusal| refusal.guard);
                (Passed::Refused { kept: false }, Told { guard, ..told })
            }
            // The branch is another's, and there was nothing to keep; or others kept winning, and it is tried again.
            ErrorKind::Conflict if !self.is_still_ours().await => (Passed::Fenced, told),
            ErrorKind::NotFound | ErrorKind::Corrupt => {
                // What is open may be about a repository that is gone.
                self.pod.close();
                (Passed::NotYet, told)
            }
            _ => (Passed::NotYet, told),
        }
    }

    /// Whether the branch is ours, as far as can be told: where it cannot, it is tried again.
    async fn is_still_ours(&mut self) -> bool {
        self.is_as_we_left_it().await.unwrap_or(true)
    }

    /// Gives the branch back although the last snapshot was refused: nothing more comes from here.
    async fn give_back(&mut self, told: &Told) {
        let note = json!({"cause": "SIGTERM", "refused": told.guard.map(Guard::name)});
        let (branch, owner, writer) = (self.args.pod.branch.clone(), self.pod.owner().to_owned(), self.pod.writer());
        let released = match self.pod.repository().await {
            Ok(repository) => release(&repository, &branch, &owner, &writer, Some(&note)).await,
            Err(error) => Err(error),
        };
        match released {
            // What is nobody's, or another's by now, is not to be given back.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => {}
            Err(error) => log::error(Level::Warn, "cannot give the branch back", &error),
        }
    }

    /// Forgets and prunes.
    pub(crate) async fn maintain(&mut self, interrupt: &Interrupt) {
        let done = match interrupt.unless_set(self.pod.repository()).await {
            Ok(repository) => maintain(&repository, &self.args, &self.pod.writer(), interrupt).await,
            Err(error) => Err(error),
        };
        self.state = None;
        if let Err(error) = done {
            log::error(Level::Warn, "cannot forget or prune", &error);
        }
    }

    /// The repository that is open, for its figures.
    pub(crate) fn opened(&self) -> Option<&Repository> {
        self.pod.opened()
    }
}

fn plain(guard: Guard, reason: String) -> Refusal {
    Refusal { guard, reason, limit: None, actual: None, paths: Vec::new(), plan: None }
}

fn passed(report: &BackupReport) -> Passed {
    match report.outcome {
        BackupOutcome::Forked => Passed::Fenced,
        BackupOutcome::Quarantined => Passed::Refused { kept: true },
        BackupOutcome::Done | BackupOutcome::Unchanged | BackupOutcome::Planned => {
            Passed::Saved { complete: report.is_complete() }
        }
    }
}

fn told(report: BackupReport) -> Told {
    let id = report.snapshot.map_or_else(|| "none".to_owned(), |id| id.to_string()[..12].to_owned());
    let incomplete = if report.is_complete() { "" } else { ", without what could not be read" };
    let (message, exit) = match report.outcome {
        BackupOutcome::Done => (format!("snapshot {id} on {}{incomplete}", report.branch), Exit::Done),
        BackupOutcome::Unchanged => (format!("unchanged since {id} on {}{incomplete}", report.branch), Exit::Done),
        BackupOutcome::Planned => (String::new(), Exit::Failed),
        BackupOutcome::Quarantined => {
            let why = report.refusal.as_ref().map(ToString::to_string).unwrap_or_default();
            (
                format!("{why}; kept as snapshot {id} on {}; to accept it: ghostsync promote {id}", report.branch),
                Exit::Refused,
            )
        }
        BackupOutcome::Forked => {
            let why = report.overtaken.map(|overtaken| overtaken.to_string()).unwrap_or_default();
            let promote = format!("to make it the head: ghostsync promote {id}");
            (format!("{why}; kept as snapshot {id} on {}; {promote}", report.branch), Exit::Conflict)
        }
    };
    let incomplete = if report.is_complete() { Exit::Done } else { Exit::Incomplete };
    Told {
        message,
        exit: Some(Exit::first_of(&[exit, incomplete])),
        guard: report.refusal.as_ref().map(|refusal| refusal.guard),
        report: Some(Box::new(report)),
        ..Told::default()
    }
}

/// One line a cycle.
fn tell(cause: Cause, passed: Passed, told: &Told) {
    let level = match passed {
        Passed::Saved { complete: true } | Passed::Stopped => Level::Info,
        Passed::Saved { complete: false } | Passed::NotYet => Level::Warn,
        Passed::Refused { .. } | Passed::Fenced => Level::Error,
    };
    let mut fields = json!({"cause": cause.name(), "result": result_name(passed, told)});
    if let Some(hint) = told.hint {
        fields["hint"] = hint.into();
    }
    if let Some(report) = &told.report {
        let problems: Vec<_> = report.problems.iter().take(20).map(|p| format!("{}: {}", p.path, p.message)).collect();
        let more = json!({"snapshot": report.snapshot, "branch": report.branch, "entries": report.entries,
            "bytes": report.bytes, "changes": report.changes, "uploaded_bytes": report.uploaded_bytes,
            "requests": report.requests, "seconds": report.seconds, "problems": problems});
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        if report.problems.iter().any(|problem| problem.message.contains("ermission denied")) {
            fields["hint"] =
                "the files belong to somebody else than this container: one securityContext with runAsUser, \
                runAsGroup and fsGroup for the whole pod"
                    .into();
        }
        if let Some(refusal) = &report.refusal {
            fields["refusal"] = log::refusal_fields(refusal);
        }
    }
    log::line(level, &told.message, fields);
}

/// What a pass is called in metrics.
pub(crate) fn result_name(passed: Passed, told: &Told) -> &'static str {
    match passed {
        Passed::Saved { .. } => match told.report.as_ref().map(|report| report.outcome) {
            Some(BackupOutcome::Unchanged) => "noop",
            _ => "ok",
        },
        Passed::Refused { .. } => "refused",
        Passed::Fenced => "fenced",
        Passed::NotYet => "error",
        // No metric has it: another pass follows, or the end does.
        Passed::Stopped => "stopped",
    }
}

/// How long a step took, for the note in the commit.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
