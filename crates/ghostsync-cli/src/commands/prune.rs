//! `prune`: deletes packs that no snapshot needs.

use ghostsync_core::Result;
use ghostsync_core::maintain::{PruneOptions, PruneReport, prune};
use serde_json::{Value, json};

use crate::args::PruneArgs;
use crate::config::Verbosity;
use crate::context::{Context, writer};
use crate::exit::Exit;
use crate::progress::Shown;
use crate::render::human;

pub(super) async fn run(context: &mut Context, args: PruneArgs) -> Result<Exit> {
    if args.grace.0.is_zero() {
        context.output.note("warning: --grace 0: whoever restores a snapshot that was just forgotten will fail");
    }
    if args.session_idle.0.is_zero() {
        context
            .output
            .note("warning: --session-idle 0: every backup that is running now will be fenced and begin anew");
    }
    let options = PruneOptions {
        grace: args.grace.0,
        session_idle: args.session_idle.0,
        max_rewrite: args.max_rewrite.0,
        dry_run: args.dry_run,
        writer: writer(),
        interrupt: context.interrupt.clone(),
        ..PruneOptions::default()
    };
    let repository = context.open().await?;
    let progress = Shown::start(&context.settings);
    let report = prune(&repository, options, &*progress).await;
    progress.finish();
    let mut report = report?;
    // Opening the repository was a part of it.
    report.requests = repository.store().requests();
    context.output.note_at(Verbosity::Verbose, &format!("requests: {}", human::requests(report.requests)));
    context.output.result(&document(&report, args.dry_run), || summary(&report, args.dry_run))?;
    Ok(Exit::Done)
}

fn document(report: &PruneReport, dry_run: bool) -> Value {
    let mut document = json!(report);
    document["outcome"] = json!(if dry_run { "planned" } else { "done" });
    document["dry_run"] = json!(dry_run);
    document
}

fn summary(report: &PruneReport, dry_run: bool) -> String {
    let packs = |packs, bytes| format!("{} of {}", human::count(packs, "pack", "packs"), human::bytes(bytes));
    let mut lines = vec![format!(
        "{}deleted {}, kept {}; {:.1} s",
        if dry_run { "dry run: " } else { "" },
        packs(report.deleted_packs, report.deleted_bytes),
        packs(report.kept_packs, report.kept_bytes),
        report.seconds,
    )];
    if report.waiting_packs > 0 {
        let waiting = packs(report.waiting_packs, report.waiting_bytes);
        lines.push(format!("needed by no snapshot, but too young to be deleted: {waiting}; prune again later"));
    }
    if report.draining_packs > 0 {
        let draining = packs(report.draining_packs, report.draining_bytes);
        lines.push(format!("backups will move what is needed out of {draining}"));
    }
    if report.emptied_commits > 0 {
        let commits = human::count(report.emptied_commits, "old commit", "old commits");
        lines.push(format!("emptied {commits} of {}", human::bytes(report.emptied_bytes)));
    }
    if report.leftovers > 0 {
        let leftovers = human::count(report.leftovers, "leftover", "leftovers");
        lines.push(format!("swept {leftovers} of probes and of interrupted writes"));
    }
    lines.join("\n")
}
