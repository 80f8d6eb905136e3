//! `check`: verifies the repository.

use std::collections::HashSet;
use std::ffi::OsString;

use ghostsync_core::Result;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::maintain::{CheckOptions, CheckReport, Damage, ReadData, check};
use ghostsync_core::repository::Repository;
use serde_json::{Value, json};

use crate::args::CheckArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::progress::Shown;
use crate::render::json::DamageFields;
use crate::render::{human, message};
use crate::shell;

/// Snapshots that are named for each damaged object.
const MAX_SNAPSHOTS: usize = 20;

pub(super) async fn run(context: &mut Context, args: CheckArgs) -> Result<Exit> {
    let read_data = match (args.read_data, args.read_data_subset) {
        (true, _) => ReadData::All,
        (false, subset) => subset.unwrap_or(ReadData::No),
    };
    let repository = context.open().await?;
    let progress = Shown::start(&context.settings);
    let options = CheckOptions { read_data, interrupt: context.interrupt.clone() };
    let report = check(&repository, options, &*progress).await;
    progress.finish();
    let report = report?;
    let plan = Plan::new(context, &repository, &report, read_data).await;
    report.damage.iter().for_each(tell);
    for (object, why) in &report.void {
        message(&format!("void: {object} lost a race, and is not taken over: {why}"));
    }
    plan.lines(&report).iter().for_each(|line| message(line));
    context.output.result(&document(&report, &plan), || summary(&report))?;
    Ok(if report.damage.is_empty() { Exit::Done } else { Exit::Damaged })
}

/// How to go on after damage was found.
#[derive(Debug, Default)]
struct Plan {
    /// The newest snapshot that no damage affects, as far as was looked, and the command that restores it.
    whole: Option<(SnapshotId, String)>,
    /// The newest snapshot that some damage affects, and the command that restores the rest of it.
    damaged: Option<(SnapshotId, String)>,
    /// The command that rebuilds what can be rebuilt.
    repair: Option<String>,
    /// The head cannot be read, so no command can be given.
    is_headless: bool,
}

impl Plan {
    async fn new(context: &Context, repository: &Repository, report: &CheckReport, read_data: ReadData) -> Self {
        if report.damage.is_empty() {
            return Self::default();
        }
        let Ok(state) = repository.state().await else { return Self { is_headless: true, ..Self::default() } };
        let snapshots = &state.commit.snapshots;
        let ids: Vec<SnapshotId> = snapshots.iter().map(|snapshot| snapshot.id).collect();
        let affected: HashSet<SnapshotId> = report
            .damage
            .iter()
            .filter(|damage| damage.affected > 0)
            .flat_map(|damage| damage.snapshots.clone())
            .collect();
        let newest = |is_affected: bool, flags: &[&str]| {
            let id = ids.iter().rev().find(|id| affected.contains(id) == is_affected)?;
            let mut words = context.command("restore");
            words.extend(flags.iter().map(OsString::from));
            words.extend(["--snapshot".into(), human::short_id(*id, &ids).into(), "DIR".into()]);
            Some((*id, shell::quote(&words)))
        };
        let damaged = newest(true, &["--keep-going"]);
        let whole = damaged.as_ref().and_then(|_| newest(false, &[]));
        let repair = damaged.as_ref().map(|_| {
            let mut words = context.command("repair");
            // What was found by reading is found again by reading alone.
            words.extend((read_data != ReadData::No).then(|| "--read-data".into()));
            shell::quote(&words)
        });
        Self { whole, damaged, repair, is_headless: false }
    }

    fn lines(&self, report: &CheckReport) -> Vec<String> {
        let mut lines = Vec::new();
        if self.is_headless {
            lines.push(format!(
                "no command reads the repository as it is; the snapshots of commit {} were looked at, and \
                 docs/recover-by-hand.md gets files of them back",
                report.commit
            ));
        }
        if let Some((id, command)) = &self.damaged {
            lines.push(format!("to restore what is left of snapshot {}: {command}", human::brief_id(*id)));
        }
        match &self.whole {
            Some((id, command)) => {
                lines.push(format!("to restore {}, the newest without damage: {command}", human::brief_id(*id)));
            }
            None if self.damaged.is_some() => lines.push("no snapshot is without damage".to_owned()),
            None => {}
        }
        lines.extend(self.repair.iter().map(|command| format!("to rebuild what can be rebuilt: {command}")));
        lines
    }
}

fn tell(damage: &Damage) {
    message(&format!("damage: {}: {}", damage.object, human::plain(&damage.message)));
    if damage.snapshots.is_empty() {
        if damage.object.starts_with("packs/") {
            message("  no snapshot needs it to be restored");
        }
        return;
    }
    let ids: Vec<_> = damage.snapshots.iter().take(MAX_SNAPSHOTS).map(|id| human::brief_id(*id)).collect();
    let more = match damage.snapshots.len() - ids.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    message(&format!("  snapshots that need it: {}{more}", ids.join(", ")));
    if damage.affected == 0 {
        message("  every path of them can be restored");
    }
    for path in &damage.paths {
        message(&format!("  {}", human::path(path)));
    }
    let more = damage.affected.saturating_sub(damage.paths.len() as u64);
    if more > 0 {
        message(&format!("  … and {}", human::count(more, "more path", "more paths")));
    }
}

fn document(report: &CheckReport, plan: &Plan) -> Value {
    let commands: Vec<&String> =
        [&plan.damaged, &plan.whole].into_iter().flatten().map(|(_, command)| command).collect();
    json!({
        "outcome": if report.damage.is_empty() { "done" } else { "damaged" },
        "commit": report.commit,
        "snapshots": report.snapshots,
        "pages": report.pages,
        "packs": report.packs,
        "read_bytes": report.read_bytes,
        "damage": report.damage.iter().map(DamageFields::from).collect::<Vec<_>>(),
        "void": report.void.iter().map(|(object, why)| json!({"object": object, "message": why})).collect::<Vec<_>>(),
        "newest_whole": plan.whole.as_ref().map(|(id, _)| id),
        "commands": commands,
        "repair": plan.repair,
    })
}

fn summary(report: &CheckReport) -> String {
    let found = match report.damage.len() as u64 {
        0 => "no damage found".to_owned(),
        damaged => human::count(damaged, "object is damaged", "objects are damaged"),
    };
    format!(
        "{found}: {}, {}, {}; {} of content read",
        human::count(report.snapshots, "snapshot", "snapshots"),
        human::count(report.pages, "page", "pages"),
        human::count(report.packs, "pack", "packs"),
        human::bytes(report.read_bytes),
    )
}
