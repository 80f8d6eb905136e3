//! `snapshots`: lists them, oldest first.

use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::repository::State;
use ghostsync_core::{Error, ErrorKind, Result};

use crate::args::SnapshotsArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::json::SnapshotFields;

pub(super) async fn run(context: &mut Context, args: SnapshotsArgs) -> Result<Exit> {
    let (_, state) = context.open_state().await?;
    if let Some(branch) = args.branch.as_ref().filter(|branch| !state.commit.branches.contains_key(*branch)) {
        return Err(Error::new(ErrorKind::NotFound, format!("no branch {branch:?}")));
    }
    let wanted = |snapshot: &&Snapshot| {
        args.branch.as_ref().is_none_or(|branch| *branch == snapshot.branch)
            && args.tags.iter().all(|tag| has_tag(snapshot, tag))
    };
    let listed: Vec<_> = state.commit.snapshots.iter().filter(wanted).collect();
    if context.output.is_json() {
        for snapshot in listed {
            context.output.json(&SnapshotFields::new(snapshot, is_head(&state, snapshot)))?;
        }
    } else {
        for line in table(&state, &listed) {
            context.output.line(line)?;
        }
    }
    Ok(Exit::Done)
}

fn has_tag(snapshot: &Snapshot, tag: &str) -> bool {
    match tag.split_once('=') {
        Some((key, value)) => snapshot.tags.get(key).is_some_and(|given| given == value),
        None => snapshot.tags.contains_key(tag),
    }
}

fn is_head(state: &State, snapshot: &Snapshot) -> bool {
    state.commit.branches.get(&snapshot.branch).is_some_and(|branch| branch.head == Some(snapshot.id))
}

fn table(state: &State, listed: &[&Snapshot]) -> Vec<String> {
    let heading = ["ID", "TIME", "BRANCH", ">ENTRIES", ">SIZE", "CHANGES", "MARKS"];
    let ids: Vec<SnapshotId> = state.commit.snapshots.iter().map(|snapshot| snapshot.id).collect();
    let rows: Vec<_> = listed
        .iter()
        .map(|snapshot| {
            let changes = &snapshot.changes;
            let mut marks = Vec::new();
            if is_head(state, snapshot) {
                marks.push("head".to_owned());
            }
            if !snapshot.complete {
                marks.push("incomplete".to_owned());
            }
            marks.extend(snapshot.onto.as_ref().map(|onto| format!("for {onto}")));
            marks.extend(snapshot.hold.as_ref().map(|reason| format!("held ({reason})")));
            marks.extend(snapshot.tags.iter().map(|(key, value)| format!("{key}={value}")));
            vec![
                human::short_id(snapshot.id, &ids),
                human::time(snapshot.time),
                snapshot.branch.clone(),
                snapshot.entries.to_string(),
                human::bytes(snapshot.bytes),
                format!("+{} ~{} -{} >{}", changes.added, changes.changed, changes.removed, changes.moved),
                marks.join(", "),
            ]
        })
        .collect();
    human::table(&heading, &rows)
}
