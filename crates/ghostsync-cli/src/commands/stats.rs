//! `stats`: figures of the repository that its newest state holds.

use ghostsync_core::Result;
use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::id::{PageId, SnapshotId};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use std::collections::HashSet;

use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;

#[derive(Serialize)]
struct Head<'a> {
    branch: &'a str,
    snapshot: SnapshotId,
    time: Timestamp,
    entries: u64,
    bytes: u64,
    snapshots: usize,
}

pub(super) async fn run(context: &mut Context) -> Result<Exit> {
    let (repository, state) = context.open_state().await?;
    let commit = &state.commit;
    let heads: Vec<Head<'_>> = commit
        .branches
        .keys()
        .filter_map(|branch| {
            let head = commit.head(branch)?;
            let snapshots = state.snapshots_of(branch).count();
            Some(Head {
                branch,
                snapshot: head.id,
                time: head.time,
                entries: head.entries,
                bytes: head.bytes,
                snapshots,
            })
        })
        .collect();
    let trees: HashSet<PageId> = commit.snapshots.iter().map(|snapshot| snapshot.tree.page).collect();
    let count = |wanted: fn(&&Snapshot) -> bool| commit.snapshots.iter().filter(wanted).count();
    let (held, incomplete) = (count(|snapshot| snapshot.hold.is_some()), count(|snapshot| !snapshot.complete));
    let oldest = commit.snapshots.iter().map(|snapshot| snapshot.time).min();
    let newest = commit.snapshots.iter().map(|snapshot| snapshot.time).max();
    let document = json!({
        "repository": repository.id(),
        "format": repository.config().format,
        "created": repository.config().created,
        "commits": commit.seq,
        "branches": commit.branches.len(),
        "snapshots": commit.snapshots.len(),
        "trees": trees.len(),
        "held": held,
        "incomplete": incomplete,
        "oldest": oldest,
        "newest": newest,
        "heads": heads,
    });
    if context.output.is_json() {
        context.output.json(&document)?;
        return Ok(Exit::Done);
    }
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), human::time);
    for (name, value) in [
        ("repository", repository.id().to_string()),
        ("format", repository.config().format.to_string()),
        ("created", human::time(repository.config().created)),
        ("commits", commit.seq.to_string()),
        ("snapshots", format!("{} of {} different trees", commit.snapshots.len(), trees.len())),
        ("held", held.to_string()),
        ("incomplete", incomplete.to_string()),
        ("oldest", time(oldest)),
        ("newest", time(newest)),
    ] {
        context.output.line(format!("{name:<11} {value}"))?;
    }
    let rows: Vec<_> = heads
        .iter()
        .map(|head| {
            let (entries, bytes) = (head.entries.to_string(), human::bytes(head.bytes));
            vec![head.branch.to_owned(), head.snapshots.to_string(), entries, bytes]
        })
        .collect();
    for line in human::table(&["BRANCH", ">SNAPSHOTS", ">ENTRIES", ">SIZE"], &rows) {
        context.output.line(line)?;
    }
    Ok(Exit::Done)
}
