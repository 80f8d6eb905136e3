//! `branches`: lists them.

use ghostsync_core::Result;
use ghostsync_core::id::SnapshotId;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;

pub(super) async fn run(context: &mut Context) -> Result<Exit> {
    let (_, state) = context.open_state().await?;
    let ids: Vec<SnapshotId> = state.commit.snapshots.iter().map(|snapshot| snapshot.id).collect();
    let mut rows = Vec::new();
    for (name, branch) in &state.commit.branches {
        let head = state.commit.head(name);
        let snapshots = state.snapshots_of(name).count();
        if context.output.is_json() {
            let holder = branch
                .holder
                .as_ref()
                .map(|holder| json!({"owner": holder.owner, "session": holder.session, "released": holder.released}));
            context.output.json(&json!({
                "branch": name,
                "head": branch.head,
                "epoch": branch.epoch,
                "holder": holder,
                "snapshots": snapshots,
                "time": head.map(|head| head.time),
                "entries": head.map(|head| head.entries),
                "bytes": head.map(|head| head.bytes),
            }))?;
            continue;
        }
        let dash = || "-".to_owned();
        rows.push(vec![
            name.clone(),
            head.map_or_else(dash, |head| human::short_id(head.id, &ids)),
            head.map_or_else(dash, |head| human::time(head.time)),
            snapshots.to_string(),
            head.map_or_else(dash, |head| head.entries.to_string()),
            head.map_or_else(dash, |head| human::bytes(head.bytes)),
            branch.holder.as_ref().filter(|holder| !holder.released).map_or_else(dash, |holder| holder.owner.clone()),
        ]);
    }
    if !context.output.is_json() {
        let heading = ["BRANCH", "HEAD", "TIME", ">SNAPSHOTS", ">ENTRIES", ">SIZE", "HOLDER"];
        for line in human::table(&heading, &rows) {
            context.output.line(line)?;
        }
    }
    Ok(Exit::Done)
}
