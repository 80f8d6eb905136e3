//! `forget`: drops the snapshots that no rule keeps, and says why each is kept.

use std::time::Duration;

use ghostsync_core::Result;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::maintain::{
    ForgetOptions, ForgetPlan, ForgetReport, KeepRules, Planned, Reason, Scope, Verdict, forget, plan_forget,
};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::prune;
use crate::args::{ForgetArgs, KeepArgs, PruneHowArgs};
use crate::context::{Context, writer};
use crate::exit::Exit;
use crate::render::human;

pub(super) async fn run(context: &mut Context, args: ForgetArgs) -> Result<Exit> {
    let (dry_run, prunes) = (args.dry_run, args.prune);
    let (options, how) = options(args);
    let repository = context.open().await?;
    let report = if dry_run {
        let plan = context.interrupt.unless_set(plan_forget(&repository, &options)).await?;
        ForgetReport { plan, commit: None }
    } else {
        // A commit is not dropped half way by a signal: it is one small request.
        forget(&repository, &options).await?
    };
    if context.output.is_json() {
        for planned in &report.plan.snapshots {
            context.output.json(&line(planned))?;
        }
    }
    // What would be pruned depends on what was forgotten: a dry run does not tell.
    let pruned =
        if prunes && !dry_run { Some(prune::carry_out(context, &repository, &how, dry_run).await?) } else { None };
    let mut document = document(&report, dry_run);
    document["prune"] = json!(pruned.as_ref().map(|pruned| prune::document(pruned, dry_run)));
    context.output.result(&document, || {
        let mut lines = table(&report.plan);
        lines.push(summary(&report, dry_run));
        lines.extend(pruned.as_ref().map(|pruned| prune::summary(pruned, dry_run)));
        lines.join("\n")
    })?;
    Ok(Exit::Done)
}

fn options(args: ForgetArgs) -> (ForgetOptions, PruneHowArgs) {
    let scope = match (args.all, args.branch.is_empty()) {
        (true, _) => Scope::All,
        (false, true) => Scope::AllButForksAndQuarantine,
        (false, false) => Scope::Branches(args.branch),
    };
    let options = ForgetOptions {
        keep: keep_rules(args.keep),
        scope,
        protect: args.protect.0,
        exclusive: args.how.exclusive,
        zone: TimeZone::system(),
        writer: writer(),
        ..ForgetOptions::default()
    };
    (options, args.how)
}

fn keep_rules(args: KeepArgs) -> KeepRules {
    KeepRules {
        last: args.keep_last.unwrap_or(0),
        hourly: args.keep_hourly.unwrap_or(0),
        daily: args.keep_daily.unwrap_or(0),
        weekly: args.keep_weekly.unwrap_or(0),
        monthly: args.keep_monthly.unwrap_or(0),
        yearly: args.keep_yearly.unwrap_or(0),
        within: args.keep_within.map_or(Duration::ZERO, |span| span.0),
        tags: args.keep_tag,
    }
}

/// Why it is kept, or dropped.
fn why(planned: &Planned) -> Vec<String> {
    match &planned.verdict {
        Verdict::Kept(reasons) => reasons.iter().map(Reason::to_string).collect(),
        Verdict::Dropped(cause) => vec![cause.to_string()],
    }
}

fn line(planned: &Planned) -> Value {
    json!({
        "snapshot": planned.snapshot.id,
        "time": planned.snapshot.time,
        "branch": planned.snapshot.branch,
        "kept": planned.is_kept(),
        "why": why(planned),
        "doubt": planned.doubt.map(|doubt| doubt.to_string()),
    })
}

fn document(report: &ForgetReport, dry_run: bool) -> Value {
    let plan = &report.plan;
    let outcome = match (dry_run, report.commit) {
        (true, _) => "planned",
        (false, Some(_)) => "done",
        (false, None) => "unchanged",
    };
    json!({
        "outcome": outcome,
        "commit": report.commit,
        "kept": plan.snapshots.len() - plan.dropped().count(),
        "dropped": plan.dropped().count(),
        "dropped_branches": plan.branches,
        "dry_run": dry_run,
    })
}

fn table(plan: &ForgetPlan) -> Vec<String> {
    let ids: Vec<SnapshotId> = plan.snapshots.iter().map(|planned| planned.snapshot.id).collect();
    let rows: Vec<_> = plan
        .snapshots
        .iter()
        .map(|planned| {
            let doubt = planned.doubt.map(|doubt| format!(" ({doubt})"));
            vec![
                human::short_id(planned.snapshot.id, &ids),
                human::time(planned.snapshot.time),
                planned.snapshot.branch.clone(),
                if planned.is_kept() { "keep" } else { "drop" }.to_owned(),
                format!("{}{}", why(planned).join("; "), doubt.unwrap_or_default()),
            ]
        })
        .collect();
    human::table(&["ID", "TIME", "BRANCH", "PLAN", "WHY"], &rows)
}

fn summary(report: &ForgetReport, dry_run: bool) -> String {
    let plan = &report.plan;
    let dropped = plan.dropped().count() as u64;
    let kept = plan.snapshots.len() as u64 - dropped;
    let ended = match plan.branches.as_slice() {
        [] => String::new(),
        branches => format!("; with the last of its snapshots goes: {}", branches.join(", ")),
    };
    let dropped = human::count(dropped, "snapshot", "snapshots");
    let verb = if dry_run { "would drop" } else { "dropped" };
    format!("{verb} {dropped}, kept {kept}{ended}")
}
