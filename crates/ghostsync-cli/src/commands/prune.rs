//! `prune`: deletes packs that no snapshot needs.

use ghostsync_core::Result;
use ghostsync_core::format::config::CommitMode;
use ghostsync_core::maintain::{PruneOptions, PruneReport, prune};
use ghostsync_core::repository::Repository;
use serde_json::{Value, json};

use crate::args::{PruneArgs, PruneHowArgs};
use crate::config::Verbosity;
use crate::context::{Context, writer};
use crate::exit::Exit;
use crate::progress::Shown;
use crate::render::human;

pub(super) async fn run(context: &mut Context, args: PruneArgs) -> Result<Exit> {
    let repository = context.open().await?;
    let report = carry_out(context, &repository, &args.how, args.dry_run).await?;
    context.output.result(&document(&report, args.dry_run), || summary(&report, args.dry_run))?;
    Ok(Exit::Done)
}

/// Prunes, for `forget --prune` too.
pub(super) async fn carry_out(
    context: &mut Context,
    repository: &Repository,
    how: &PruneHowArgs,
    dry_run: bool,
) -> Result<PruneReport> {
    if how.grace.0.is_zero() {
        context.output.note("warning: --grace 0: whoever restores a snapshot that was just forgotten will fail");
    }
    if how.session_idle.0.is_zero() && repository.config().commit_mode == CommitMode::Atomic {
        context
            .output
            .note("warning: --session-idle 0: every backup that is running now will be fenced and begin anew");
    }
    let options = PruneOptions {
        grace: how.grace.0,
        session_idle: how.session_idle.0,
        exclusive: how.exclusive,
        max_rewrite: how.max_rewrite.0,
        dry_run,
        writer: writer(),
        interrupt: context.interrupt.clone(),
        ..PruneOptions::default()
    };
    let progress = Shown::start(&context.settings);
    let report = prune(repository, options, progress.clone()).await;
    progress.finish();
    let mut report = report?;
    // Opening the repository was a part of it.
    report.requests = repository.store().requests();
    context.output.note_at(Verbosity::Verbose, &format!("requests: {}", human::requests(report.requests)));
    Ok(report)
}

pub(super) fn document(report: &PruneReport, dry_run: bool) -> Value {
    let mut document = json!(report);
    document["outcome"] = json!(if dry_run { "planned" } else { "done" });
    document["dry_run"] = json!(dry_run);
    document
}

pub(super) fn summary(report: &PruneReport, dry_run: bool) -> String {
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
    if report.moved_packs > 0 {
        let moved = packs(report.moved_packs, report.moved_bytes);
        let moved_them = if dry_run { "would move" } else { "moved" };
        lines.push(format!("{moved_them} what older snapshots need out of {moved}"));
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
