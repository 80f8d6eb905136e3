//! `backup`: makes one snapshot of a directory.

use std::ffi::OsString;
use std::path::PathBuf;

use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, Excludes, backup};
use ghostsync_core::guard::Policy;
use ghostsync_core::history::judge::Overtaken;
use ghostsync_core::id::{PageId, SnapshotId};
use ghostsync_core::store::RequestCounts;
use ghostsync_core::{Error, ErrorKind, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::BackupArgs;
use crate::context::{Context, writer};
use crate::exit::Exit;
use crate::hint::{self, Action};
use crate::progress::Shown;
use crate::render::json::{ErrorFields, ProblemFields};
use crate::render::{failure, human, message};

pub(super) async fn run(context: &mut Context, args: BackupArgs) -> Result<Exit> {
    context.action = Action::Backup { branch: args.branch.clone(), restore: restore_command(context, &args) };
    context.blank = blank(&args);
    // What a snapshot says about its source must mean something in another folder too.
    let source = std::path::absolute(&args.source).map_err(|error| Error::new(ErrorKind::Invalid, error))?;
    let options = options(context, &args)?;
    let repository = if args.init && !args.dry_run { context.open_or_create().await? } else { context.open().await? };
    let progress = Shown::start(&context.settings);
    let report = backup(&repository, &source, options, progress.clone()).await;
    progress.finish();
    let mut report = report?;
    // Opening the repository was a part of it.
    report.requests = repository.store().requests();
    tell(context, &report, &args)?;
    Ok(exit(&report))
}

fn options(context: &Context, args: &BackupArgs) -> Result<BackupOptions> {
    let mut patterns = Vec::new();
    for path in &args.exclude_from {
        patterns.extend(lines(path)?);
    }
    patterns.extend(args.exclude.iter().cloned());
    Ok(BackupOptions {
        branch: args.branch.clone(),
        tags: args.tags.iter().cloned().collect(),
        excludes: Excludes {
            patterns,
            caches: args.exclude_caches,
            one_file_system: args.one_file_system,
            never: context.never(args.receipt.as_deref())?,
        },
        reread: args.reread,
        policy: Policy {
            max_delete: args.max_delete,
            max_change: args.max_change,
            allow_empty: args.allow_empty,
            strict: args.strict,
            override_plan: args.override_plan,
        },
        receipt: args.receipt.clone(),
        on_refusal: args.on_refusal.into(),
        force: args.force,
        dry_run: args.dry_run,
        writer: writer(),
        owner: args.owner.clone(),
        exclusive: args.exclusive,
        interrupt: context.interrupt.clone(),
        ..BackupOptions::default()
    })
}

fn lines(path: &PathBuf) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::new(ErrorKind::Invalid, format!("cannot read the excludes in {}: {error}", path.display()))
    })?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The command that restores the source together with the receipt that the backup requires.
fn restore_command(context: &Context, args: &BackupArgs) -> Option<Vec<OsString>> {
    let receipt = args.receipt.as_ref()?;
    let mut words = context.command("restore");
    if args.branch != "main" {
        words.extend(["--branch".into(), OsString::from(&args.branch)]);
    }
    words.extend(["--receipt".into(), receipt.into(), OsString::from(&args.source)]);
    Some(words)
}

/// The command that makes a snapshot in quarantine the head of the branch that it was meant for.
fn promote_command(context: &Context, id: SnapshotId) -> Vec<OsString> {
    let mut words = context.command("promote");
    words.push(human::brief_id(id).into());
    words
}

fn claim_command(context: &Context, owner: &str, branch: &str) -> Vec<OsString> {
    let mut words = context.command("claim");
    words.extend(["--owner", owner, "--branch", branch].map(OsString::from));
    words
}

fn exit(report: &BackupReport) -> Exit {
    let refused = if report.refusal.is_some() { Exit::Refused } else { Exit::Done };
    let overtaken = if report.overtaken.is_some() { Exit::Conflict } else { Exit::Done };
    let incomplete = if report.is_complete() { Exit::Done } else { Exit::Incomplete };
    Exit::first_of(&[overtaken, refused, incomplete])
}

/// The document of a backup; what is not known is null.
#[derive(Debug, Default, Serialize)]
struct Document {
    snapshot: Option<SnapshotId>,
    tree: Option<PageId>,
    branch: String,
    parent: Option<SnapshotId>,
    entries: Option<u64>,
    bytes: Option<u64>,
    added: Option<u64>,
    changed: Option<u64>,
    removed: Option<u64>,
    moved: Option<u64>,
    problems: Vec<ProblemFields>,
    uploaded_bytes: Option<u64>,
    requests: Option<RequestCounts>,
    seconds: Option<f64>,
    excluded: Option<u64>,
    sockets: Option<u64>,
    onto: Option<String>,
    fork: Option<String>,
    outcome: Option<&'static str>,
    dry_run: bool,
    error: Option<ErrorFields>,
    refusal: Option<Value>,
    plan: Option<String>,
}

fn fields(document: &Document) -> Map<String, Value> {
    match json!(document) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn blank(args: &BackupArgs) -> Map<String, Value> {
    fields(&Document { branch: args.branch.clone(), dry_run: args.dry_run, ..Document::default() })
}

fn document(report: &BackupReport, dry_run: bool) -> Document {
    Document {
        snapshot: report.snapshot,
        tree: report.tree,
        branch: report.branch.clone(),
        parent: report.parent,
        entries: Some(report.entries),
        bytes: Some(report.bytes),
        added: Some(report.changes.added),
        changed: Some(report.changes.changed),
        removed: Some(report.changes.removed),
        moved: Some(report.changes.moved),
        problems: report.problems.iter().map(ProblemFields::from).collect(),
        uploaded_bytes: Some(report.uploaded_bytes),
        requests: Some(report.requests),
        seconds: Some(report.seconds),
        excluded: Some(report.excluded),
        sockets: Some(report.sockets),
        onto: report.onto.clone(),
        fork: (report.outcome == BackupOutcome::Forked).then(|| report.branch.clone()),
        outcome: Some(match (report.outcome, &report.refusal) {
            (BackupOutcome::Forked, _) => "conflict",
            (_, Some(_)) | (BackupOutcome::Quarantined, _) => "refused",
            (BackupOutcome::Done, _) => "done",
            (BackupOutcome::Unchanged, _) => "unchanged",
            (BackupOutcome::Planned, _) => "planned",
        }),
        dry_run,
        error: error(report),
        refusal: None,
        plan: None,
    }
}

/// What stood in the way of the branch, as an error that carries on.
fn error(report: &BackupReport) -> Option<ErrorFields> {
    let (kind, message) = match (&report.refusal, report.overtaken) {
        (_, Some(overtaken)) => (ErrorKind::Conflict, conflict(report, overtaken)),
        (Some(refusal), None) => (ErrorKind::Refused, refusal.to_string()),
        (None, None) => return None,
    };
    Some(ErrorFields { kind: kind.name(), message, hint: None })
}

fn conflict(report: &BackupReport, overtaken: Overtaken) -> String {
    let branch = report.onto.as_deref().unwrap_or(&report.branch);
    format!("conflict: branch {branch} was not moved: {overtaken}")
}

fn tell(context: &mut Context, report: &BackupReport, args: &BackupArgs) -> Result<()> {
    context.output.note_beside(&report.problems, report.sockets, report.requests);
    let mut fields = fields(&document(report, args.dry_run));
    if let Some(refusal) = &report.refusal {
        let not_done = match report.outcome {
            BackupOutcome::Quarantined => format!(
                "branch {} was not moved; what was refused is kept on branch {}",
                report.onto.as_deref().unwrap_or(&args.branch),
                report.branch
            ),
            _ => context.action.not_done(),
        };
        let promote = report.snapshot.filter(|_| report.outcome == BackupOutcome::Quarantined);
        let command = match promote {
            Some(id) => Some(promote_command(context, id)),
            None => hint::going_on(refusal, &context.action, &context.words),
        };
        let lines = failure::refusal_lines(refusal, &not_done, command.as_deref());
        lines.iter().for_each(|line| message(line));
        fields.extend(failure::refusal_fields(refusal, command.as_deref()));
    }
    if let Some(overtaken) = report.overtaken {
        message(&conflict(report, overtaken));
        if let Some(id) = report.snapshot.filter(|_| report.outcome == BackupOutcome::Forked) {
            message(&format!("what this directory had is kept on branch {}", report.branch));
            let command = crate::shell::quote(&promote_command(context, id));
            message(&format!("to make it the head of {}: {command}", report.onto.as_deref().unwrap_or(&args.branch)));
        }
        if let (Overtaken::NotHeld, Some(owner)) = (overtaken, &args.owner) {
            let command = crate::shell::quote(&claim_command(context, owner, &args.branch));
            message(&format!("to have it from the next backup on: {command}"));
        }
    }
    context.output.result(&fields, || summary(report))
}

fn summary(report: &BackupReport) -> String {
    let id = |id: Option<SnapshotId>| id.map_or_else(|| "none".to_owned(), human::brief_id);
    let tree = format!("{}, {}", human::count(report.entries, "entry", "entries"), human::bytes(report.bytes));
    let changes = format!(
        "{} added, {} changed, {} removed, {} moved",
        report.changes.added, report.changes.changed, report.changes.removed, report.changes.moved
    );
    let excluded = match report.excluded {
        0 => String::new(),
        excluded => format!(", {excluded} excluded"),
    };
    let cost = format!("{} sent in {:.1} s", human::bytes(report.uploaded_bytes), report.seconds);
    match report.outcome {
        BackupOutcome::Done | BackupOutcome::Quarantined | BackupOutcome::Forked => {
            let id = id(report.snapshot);
            format!("snapshot {id} on {}: {tree}; {changes}{excluded}; {cost}", report.branch)
        }
        BackupOutcome::Unchanged => format!("unchanged since {} on {}: {tree}", id(report.snapshot), report.branch),
        BackupOutcome::Planned => format!("dry run on {}: {tree}; {changes}{excluded}", report.branch),
    }
}
