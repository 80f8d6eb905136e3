//! `repair`: rebuilds what can be rebuilt of damaged heads, and names what cannot.

use std::sync::Arc;

use ghostsync_core::Result;
use ghostsync_core::maintain::{HeadOutcome, Loss, RepairOptions, RepairReport, RepairedHead, repair};
use serde_json::{Map, Value, json};

use crate::args::RepairArgs;
use crate::context::{Context, writer};
use crate::exit::Exit;
use crate::hint::{self, Action};
use crate::progress::Shown;
use crate::render::json::{DamageFields, PathFields};
use crate::render::{failure, human, message};

pub(super) async fn run(context: &mut Context, args: RepairArgs) -> Result<Exit> {
    let repository = context.open().await?;
    let progress = Shown::start(&context.settings);
    let options = RepairOptions {
        read_data: args.read_data,
        max_delete: args.max_delete,
        override_plan: args.override_plan,
        dry_run: args.dry_run,
        writer: writer(),
        interrupt: context.interrupt.clone(),
        ..RepairOptions::default()
    };
    let report = repair(&repository, options, Arc::clone(&progress) as _).await;
    progress.finish();
    let mut report = report?;
    // Opening the repository was a part of it.
    report.requests = repository.store().requests();
    let heads: Vec<_> = report.heads.iter().map(|head| tell(context, head)).collect();
    for (object, why) in &report.tables {
        let why = human::plain(why);
        message(&format!("{object}: what this pack holds cannot be told, so no copies were looked for in it: {why}"));
    }
    tell_left(context, &report);
    let document = document(&report, heads, args.dry_run);
    context.output.result(&document, || summary(&report, args.dry_run))?;
    Ok(exit(&report))
}

fn exit(report: &RepairReport) -> Exit {
    let has = |outcome| report.heads.iter().any(|head| head.outcome == outcome);
    let damaged = if report.left.is_empty() { Exit::Done } else { Exit::Damaged };
    let forked = if has(HeadOutcome::Forked) { Exit::Conflict } else { Exit::Done };
    let refused = if has(HeadOutcome::Refused) { Exit::Refused } else { Exit::Done };
    Exit::first_of(&[damaged, forked, refused])
}

/// Says what is lost of a head, and how to go on; returns its fields.
fn tell(context: &Context, head: &RepairedHead) -> Map<String, Value> {
    let damaged = human::brief_id(head.damaged);
    message(&format!("branch {}: its head {damaged} is damaged", head.branch));
    let most = context.output.most_shown();
    head.losses.iter().take(most).for_each(|loss| message(&format!("  lost: {}", lost(loss))));
    if head.losses.len() > most {
        message(&format!("  … and {} more; -v prints all", head.losses.len() - most));
    }
    for directory in &head.directories {
        let path = human::path(directory);
        message(&format!("  made anew: {path}: what is known of this directory is what lies in it; its mode is 700"));
    }
    let mut fields = fields(head);
    match head.outcome {
        HeadOutcome::Refused => {
            let action = Action::Repair { branch: head.branch.clone() };
            if let Some(refusal) = &head.refusal {
                let command = hint::going_on(refusal, &action, &context.words);
                let lines = failure::refusal_lines(refusal, &action.not_done(), command.as_deref());
                lines.iter().for_each(|line| message(line));
                fields.extend(failure::refusal_fields(refusal, command.as_deref()));
            }
        }
        HeadOutcome::Held => {
            message("  the branch belongs to a writer that has not released it: let it come to its end, then repair");
        }
        HeadOutcome::BeyondHelp => message(
            "  nothing of it is left: 'ghostsync promote' makes an older snapshot the head, or back up to another branch",
        ),
        HeadOutcome::Forked => {
            let fork = head.fork.as_deref().unwrap_or_default();
            message(&format!(
                "  another writer committed at the same time: what is left of it is kept on branch {fork}"
            ));
        }
        HeadOutcome::Done if !head.losses.is_empty() => {
            message("  what the directory still has of it comes back with the next backup");
        }
        HeadOutcome::Done | HeadOutcome::Planned | HeadOutcome::Sound => {}
    }
    fields
}

fn lost(loss: &Loss) -> String {
    let object = if loss.object.is_empty() { String::new() } else { format!("{}: ", loss.object) };
    let (path, why) = (human::path(&loss.path), human::plain(&loss.message));
    if loss.entries == 1 {
        return format!("{path}: {object}{why}");
    }
    let entries = human::count(loss.entries, "entry", "entries");
    format!("{entries}, the last of them {path}: {object}{why}")
}

fn tell_left(context: &Context, report: &RepairReport) {
    let heads: Vec<_> = report.heads.iter().map(|head| head.damaged).collect();
    let older: Vec<_> = report.left.iter().filter(|id| !heads.contains(id)).map(|id| human::brief_id(*id)).collect();
    let most = context.output.most_shown();
    if let Some((first, _)) = older.split_first() {
        let more = older.len().saturating_sub(most);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = older.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
        message(&format!(
            "snapshots that are damaged and no head of such a branch, so they stay as they are: {shown}{more}"
        ));
        let mut words = context.command("promote");
        words.push(first.into());
        message(&format!("to repair one of them too, make it a head first: {}", crate::shell::quote(&words)));
    }
}

fn fields(head: &RepairedHead) -> Map<String, Value> {
    let losses = head.losses.iter().map(|loss| {
        let mut fields = json!(PathFields::from(&loss.path));
        fields["entries"] = json!(loss.entries);
        fields["object"] = json!(loss.object);
        fields["message"] = json!(loss.message);
        fields
    });
    let fields = json!({
        "branch": head.branch,
        "damaged": head.damaged,
        "outcome": head.outcome.name(),
        "snapshot": head.snapshot,
        "fork": head.fork,
        "entries": head.entries,
        "bytes": head.bytes,
        "copied_bytes": head.copied_bytes,
        "losses": losses.collect::<Vec<_>>(),
        "directories": head.directories.iter().map(PathFields::from).collect::<Vec<_>>(),
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

fn document(report: &RepairReport, heads: Vec<Map<String, Value>>, dry_run: bool) -> Value {
    let outcome = match (report.left.is_empty(), dry_run) {
        (false, _) => "damaged",
        (true, true) => "planned",
        (true, false) => "done",
    };
    json!({
        "outcome": outcome,
        "dry_run": dry_run,
        "commit": report.commit,
        "snapshots": report.snapshots,
        "heads": heads,
        "damage": report.damage.iter().map(DamageFields::from).collect::<Vec<_>>(),
        "tables": report.tables.iter().map(|(object, why)| json!({"object": object, "message": why})).collect::<Vec<_>>(),
        "left": report.left,
        "requests": report.requests,
        "seconds": report.seconds,
    })
}

fn summary(report: &RepairReport, dry_run: bool) -> String {
    let looked_at = human::count(report.snapshots, "snapshot", "snapshots");
    if report.heads.is_empty() {
        return format!("no head is damaged: {looked_at} looked at");
    }
    let lines: Vec<_> = report
        .heads
        .iter()
        .map(|head| {
            let tree = format!("{}, {}", human::count(head.entries, "entry", "entries"), human::bytes(head.bytes));
            let lost: u64 = head.losses.iter().map(|loss| loss.entries).sum();
            let lost = if lost == 0 {
                "nothing is lost".into()
            } else {
                human::count(lost, "entry is lost", "entries are lost")
            };
            let what = match (head.outcome, head.snapshot) {
                (HeadOutcome::Done, Some(id)) => format!("its head is {} now: {tree}; {lost}", human::brief_id(id)),
                (HeadOutcome::Planned, _) => format!("would be left of it: {tree}; {lost}"),
                (HeadOutcome::Sound, _) => "read again its head is sound".to_owned(),
                _ => format!("its head is what it was; {lost}"),
            };
            format!("{}branch {}: {what}", if dry_run { "dry run: " } else { "" }, head.branch)
        })
        .collect();
    lines.join("\n")
}
