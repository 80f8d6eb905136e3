//! Looks at everything that a repository rests on: the store, the clock, the cache, and the repository itself.
//!
//! What is found is data, each finding with what it means; what a person can do about it, the program at the edge says.
//! Nothing but the probe's own objects is written or deleted.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::config::CommitMode;
use crate::history::{HeadHint, read_hint};
use crate::id::SessionId;
use crate::repository::{OpenOptions, Repository};
use crate::store::{self, ProbeReport, Store, keys};

/// A clock that differs by so much is worth a warning; most stores refuse requests at fifteen minutes.
const MAX_CLOCK_SECONDS: i64 = 60;
/// A cache with less room than this will soon be of no use.
const MIN_CACHE_BYTES: u64 = 256 << 20;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Something works less well than it could.
    Warning,
    /// Something does not work, or is not safe.
    Problem,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// Whether the store creates an object at most once.
    Create,
    /// Whether the store shows what was written, and nothing that was deleted.
    Visibility,
    /// What no probe can tell.
    Provider,
    /// This machine's clock beside the store's.
    Clock,
    /// The cache folder.
    Cache,
    /// The repository and its configuration.
    Repository,
    /// The log and its head.
    Log,
    /// The hint at the head.
    Hint,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub subject: Subject,
    /// How much it matters.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What that means.
    pub meaning: String,
    /// For a problem, the kind of error that other calls would end with.
    #[serde(serialize_with = "kind_name")]
    pub kind: Option<ErrorKind>,
}

fn kind_name<S: serde::Serializer>(kind: &Option<ErrorKind>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    kind.map(ErrorKind::name).serialize(serializer)
}

/// What a look at everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[must_use]
pub struct DoctorReport {
    /// What the probe found.
    pub probe: ProbeReport,
    /// The commit modes that nothing was found against.
    pub possible_modes: Vec<CommitMode>,
    /// How many seconds the store's clock is ahead of this machine's; to the second, and the way is in it.
    pub clock_ahead_seconds: i64,
    /// Every finding, also the good ones.
    pub findings: Vec<Finding>,
}

/// Probes the store, compares the clocks, and looks at the cache folder and the repository.
///
/// # Errors
/// Whatever made the store unreachable; everything else is a finding.
pub async fn doctor(store: &Store, options: &OpenOptions, clock: &dyn Clock) -> Result<DoctorReport> {
    let mut report = DoctorReport { probe: store::probe(store).await?, ..DoctorReport::default() };
    let modes = [CommitMode::Atomic, CommitMode::Detect];
    report.possible_modes = modes.into_iter().filter(|mode| report.probe.allows(*mode)).collect();
    let opened = match Repository::open(store.clone(), options.clone()).await {
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied) => return Err(error),
        opened => opened,
    };
    report.judge_probe(opened.as_ref().ok().map(|repository| repository.config().commit_mode), store);
    report.compare_clocks(store, clock).await?;
    report.look_at_cache(options.cache_dir.as_deref());
    match opened {
        Ok(repository) => report.look_at_repository(&repository).await?,
        Err(error) if error.kind() == ErrorKind::NotFound => report.add(
            Subject::Repository,
            Severity::Note,
            error.to_string(),
            "a repository can be made here, in one of the commit modes that are possible",
        ),
        Err(error) => report.problem(Subject::Repository, &error, "no command opens the repository"),
    }
    Ok(report)
}

impl DoctorReport {
    fn add(&mut self, subject: Subject, severity: Severity, found: impl Into<String>, meaning: impl Into<String>) {
        let (found, meaning) = (found.into(), meaning.into());
        self.findings.push(Finding { subject, severity, found, meaning, kind: None });
    }

    fn problem(&mut self, subject: Subject, error: &Error, meaning: impl Into<String>) {
        self.add(subject, Severity::Problem, error.to_string(), meaning);
        if let Some(finding) = self.findings.last_mut() {
            finding.kind = Some(error.kind());
        }
    }

    /// What the probe means for the repository that is there, or for the one that would be made.
    fn judge_probe(&mut self, mode: Option<CommitMode>, store: &Store) {
        let refused = |lines: &[String]| Error::new(ErrorKind::Refused, lines.join("; "));
        match (self.probe.broken.is_empty(), mode) {
            (true, _) => self.add(
                Subject::Create,
                Severity::Good,
                "of several writers that create one object, exactly one was told that it did",
                "commit mode atomic was not falsified",
            ),
            (false, Some(CommitMode::Detect)) => self.add(
                Subject::Create,
                Severity::Good,
                self.probe.broken.join("; "),
                "commit mode detect, which this repository has, does not rest on it",
            ),
            (false, Some(CommitMode::Atomic)) => {
                let found = refused(&self.probe.broken);
                let meaning = "this repository has commit mode atomic: where two write at once, snapshots are lost";
                self.problem(Subject::Create, &found, meaning);
            }
            (false, None) => {
                let found = refused(&self.probe.broken);
                self.problem(Subject::Create, &found, "commit mode atomic would lose snapshots here");
            }
        }
        if self.probe.unusable.is_empty() {
            let found = "what was written was read and listed, what was deleted was gone";
            self.add(Subject::Visibility, Severity::Good, found, "commit mode detect was not falsified");
        } else {
            let found = refused(&self.probe.unusable);
            self.problem(Subject::Visibility, &found, "no commit mode is safe here");
        }
        if store.folder().is_none() {
            self.add(
                Subject::Provider,
                Severity::Note,
                "what a provider does on a bad day, and which rules a bucket has, no probe can see",
                "a probe can only falsify, and one of a single node on this machine proves nothing about a provider; \
                 a rule that expires objects destroys a repository, versioning and object lock do no harm",
            );
        }
    }

    async fn compare_clocks(&mut self, store: &Store, clock: &dyn Clock) -> Result<()> {
        let session = SessionId::random();
        let (folder, key) = (keys::probe_folder(session), keys::probe(session, "clock"));
        let before = clock.now();
        store.put(&key, "now".into()).await?;
        let after = clock.now();
        let listed = store.list(&folder, 1).await;
        // What cannot be deleted here is garbage that does no harm.
        let _ = store.delete(vec![key]).await;
        let Some(object) = listed?.pop() else { return Ok(()) };
        let Ok(stored) = Timestamp::from_second(object.last_modified.timestamp()) else { return Ok(()) };
        // A store tells whole seconds: whatever lies within the request is no difference.
        let ahead = match (stored.as_second(), before.as_second(), after.as_second()) {
            (stored, before, _) if stored < before => stored - before,
            (stored, _, after) if stored > after => stored - after,
            _ => 0,
        };
        self.clock_ahead_seconds = ahead;
        let (severity, meaning) = if ahead.abs() <= MAX_CLOCK_SECONDS {
            (Severity::Good, "no decision about safety rests on a clock; this one is right enough to sign requests")
        } else {
            (
                Severity::Warning,
                "the times of snapshots are wrong by as much, and so is what a retention policy makes of them; at a \
                 quarter of an hour most stores refuse requests",
            )
        };
        let found = match ahead {
            0 => "this machine's clock and the store's agree".to_owned(),
            ahead if ahead > 0 => format!("the store's clock is {ahead} s ahead of this machine's"),
            behind => format!("the store's clock is {} s behind this machine's", -behind),
        };
        self.add(Subject::Clock, severity, found, meaning);
        Ok(())
    }

    fn look_at_cache(&mut self, folder: Option<&Path>) {
        let Some(folder) = folder else {
            let meaning = "every command asks the store for what a cache would have known";
            return self.add(Subject::Cache, Severity::Note, "there is no cache folder", meaning);
        };
        let shown = folder.display();
        if let Err(error) = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder)) {
            let found = format!("the cache folder {shown} cannot be written: {error}");
            return self.add(Subject::Cache, Severity::Warning, found, "everything works without, only slower");
        }
        let free = rustix::fs::statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
        if free < MIN_CACHE_BYTES {
            let found = format!("the cache folder {shown} has {free} bytes of room");
            let meaning = "a cache that is full is as good as none: everything works, only slower";
            return self.add(Subject::Cache, Severity::Warning, found, meaning);
        }
        self.add(
            Subject::Cache,
            Severity::Good,
            format!("the cache folder {shown} can be written"),
            "it saves requests",
        );
    }

    async fn look_at_repository(&mut self, repository: &Repository) -> Result<()> {
        let config = repository.config();
        let mode = match config.commit_mode {
            CommitMode::Atomic => "atomic",
            CommitMode::Detect => "detect",
        };
        let found = format!("repository {}, format {}, commit mode {mode}", repository.id(), config.format);
        match config.check_writable() {
            Ok(()) => self.add(Subject::Repository, Severity::Good, found, "this version reads and writes it"),
            Err(error) => self.problem(Subject::Repository, &error.into(), "this version only reads it"),
        }
        // The hint is written after its commit: whatever it names is there by now.
        let hint = read_hint(repository.store()).await?;
        let head = match repository.state().await {
            Ok(state) => state.commit.seq,
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied) => return Err(error),
            Err(error) => {
                self.problem(Subject::Log, &error, "nobody reads or writes until that is settled");
                return Ok(());
            }
        };
        let missing = missing_numbers(repository.store(), head).await?;
        if missing.is_empty() {
            let found = format!("commit {head} is the head, and none before it is missing");
            self.add(Subject::Log, Severity::Good, found, "the repository is whole as far as its log goes");
        } else {
            let numbers: Vec<String> = missing.iter().take(20).map(u64::to_string).collect();
            let found = format!("of {head} commits {} are missing, among them {}", missing.len(), numbers.join(", "));
            let meaning = "somebody deleted them; snapshots are there, the history is not what it was";
            self.problem(Subject::Log, &Error::corrupt(found), meaning);
        }
        if config.commit_mode == CommitMode::Atomic {
            self.judge_hint(hint, head);
        }
        Ok(())
    }

    fn judge_hint(&mut self, hint: HeadHint, head: u64) {
        let cost = "it is only a hint: it costs whoever has no cache some requests, and the next commit writes it anew";
        match hint {
            HeadHint::Names(seq) if seq == head => {
                self.add(Subject::Hint, Severity::Good, "the hint names the head", "readers find it at once");
            }
            HeadHint::Names(seq) if seq > head => {
                let found = Error::corrupt(format!("the hint names commit {seq}, and the head is {head}"));
                self.problem(Subject::Hint, &found, "a commit was made and is gone: the bucket was rolled back");
            }
            HeadHint::Names(seq) => {
                let found = format!("the hint names commit {seq}, and the head is {head}");
                self.add(Subject::Hint, Severity::Note, found, cost);
            }
            HeadHint::Absent if head == 0 => {}
            HeadHint::Absent => self.add(Subject::Hint, Severity::Note, "there is no hint at the head", cost),
            HeadHint::Damaged => self.add(Subject::Hint, Severity::Note, "head.json is no hint", cost),
        }
    }
}

/// The numbers up to the head that no object of the log has.
async fn missing_numbers(store: &Store, head: u64) -> Result<Vec<u64>> {
    let mut there = std::collections::BTreeSet::new();
    store.for_each(&keys::log(), |object| there.extend(keys::log_number(&object.location))).await?;
    Ok((1..=head).filter(|seq| !there.contains(seq)).collect())
}
