//! `check`: verifies the repository.

use ghostsync_core::Result;
use ghostsync_core::maintain::{CheckOptions, CheckReport, Damage, ReadData, check};
use serde_json::{Value, json};

use crate::args::CheckArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::progress::Shown;
use crate::render::json::PathFields;
use crate::render::{human, message};

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
    for damage in &report.damage {
        tell(damage);
    }
    context.output.result(&document(&report), || summary(&report))?;
    Ok(if report.damage.is_empty() { Exit::Done } else { Exit::Damaged })
}

fn tell(damage: &Damage) {
    message(&format!("damage: {}: {}", damage.object, damage.message));
    if !damage.snapshots.is_empty() {
        let ids: Vec<_> = damage.snapshots.iter().map(|id| human::brief_id(*id)).collect();
        message(&format!("  snapshots that need it: {}", ids.join(", ")));
    }
    for path in &damage.paths {
        message(&format!("  {}", human::path(path)));
    }
    let more = damage.affected.saturating_sub(damage.paths.len() as u64);
    if more > 0 {
        message(&format!("  … and {} more", human::count(more, "path", "paths")));
    }
}

fn document(report: &CheckReport) -> Value {
    let damage: Vec<_> = report
        .damage
        .iter()
        .map(|damage| {
            json!({
                "object": damage.object,
                "message": damage.message,
                "snapshots": damage.snapshots,
                "paths": damage.paths.iter().map(PathFields::from).collect::<Vec<_>>(),
                "affected": damage.affected,
            })
        })
        .collect();
    json!({
        "outcome": if report.damage.is_empty() { "done" } else { "damaged" },
        "snapshots": report.snapshots,
        "pages": report.pages,
        "packs": report.packs,
        "read_bytes": report.read_bytes,
        "damage": damage,
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
