//! `restore`: makes a directory equal to a snapshot.

use ghostsync_core::Result;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::restore::{Overwrite, RestoreOptions, RestoreReport, restore};
use ghostsync_core::store::RequestCounts;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::args::RestoreArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::hint::{self, Action};
use crate::progress::Shown;
use crate::render::human;
use crate::render::json::{ProblemFields, UnstableFields};

pub(super) async fn run(context: &mut Context, args: RestoreArgs) -> Result<Exit> {
    context.action = Action::Restore { destination: args.destination.display().to_string() };
    context.blank = fields(&Document { dry_run: args.dry_run, ..Document::default() });
    let options = RestoreOptions {
        branch: args.branch.clone(),
        snapshot: args.snapshot.clone(),
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        never: context.never(args.receipt.as_deref())?,
        delete: args.delete,
        max_delete: args.max_delete,
        overwrite: args.overwrite.map(Overwrite::from),
        receipt: args.receipt.clone(),
        genesis: args.genesis,
        verify: args.verify,
        keep_going: args.keep_going,
        dry_run: args.dry_run,
        interrupt: context.interrupt.clone(),
        ..RestoreOptions::default()
    };
    let repository = context.open().await?;
    let progress = Shown::start(&context.settings);
    let report = restore(&repository, &args.destination, options, progress.clone()).await;
    progress.finish();
    let mut report = report?;
    // Opening the repository was a part of it.
    report.requests = repository.store().requests();
    tell(context, &report, &args)?;
    Ok(exit(&report))
}

fn exit(report: &RestoreReport) -> Exit {
    let damaged = if report.damaged { Exit::Damaged } else { Exit::Done };
    let incomplete = report.problems.iter().any(|problem| problem.incomplete);
    Exit::first_of(&[damaged, if incomplete { Exit::Incomplete } else { Exit::Done }])
}

/// The document of a restore; what is not known is null.
#[derive(Debug, Default, Serialize)]
struct Document {
    snapshot: Option<SnapshotId>,
    written: Option<u64>,
    unchanged: Option<u64>,
    deleted: Option<u64>,
    sockets: Option<u64>,
    problems: Vec<ProblemFields>,
    unstable: Option<UnstableFields>,
    damaged: bool,
    downloaded_bytes: Option<u64>,
    requests: Option<RequestCounts>,
    seconds: Option<f64>,
    outcome: Option<&'static str>,
    dry_run: bool,
}

fn fields(document: &Document) -> Map<String, Value> {
    match json!(document) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn tell(context: &mut Context, report: &RestoreReport, args: &RestoreArgs) -> Result<()> {
    if let Some(unstable) = human::unstable(&report.unstable) {
        context.output.note(&format!("warning: {unstable}"));
        context.output.note(&format!("hint: {}", hint::FOR_UNSTABLE));
    }
    context.output.note_beside(&report.problems, report.sockets, report.requests);
    let document = Document {
        snapshot: report.snapshot,
        written: Some(report.written),
        unchanged: Some(report.unchanged),
        deleted: Some(report.deleted),
        sockets: Some(report.sockets),
        problems: report.problems.iter().map(ProblemFields::from).collect(),
        unstable: Some((&report.unstable).into()),
        damaged: report.damaged,
        downloaded_bytes: Some(report.downloaded_bytes),
        requests: Some(report.requests),
        seconds: Some(report.seconds),
        outcome: Some(if args.dry_run { "planned" } else { "done" }),
        dry_run: args.dry_run,
    };
    context.output.result(&document, || summary(report, args))
}

fn summary(report: &RestoreReport, args: &RestoreArgs) -> String {
    let verb = if args.dry_run { "dry run: " } else { "" };
    let what = match report.snapshot {
        Some(id) => format!("snapshot {}", human::brief_id(id)),
        None => "the empty branch".to_owned(),
    };
    format!(
        "{verb}{what} in {}: {} written, {} unchanged, {} deleted; {} received in {:.1} s",
        args.destination.display(),
        report.written,
        report.unchanged,
        report.deleted,
        human::bytes(report.downloaded_bytes),
        report.seconds
    )
}
