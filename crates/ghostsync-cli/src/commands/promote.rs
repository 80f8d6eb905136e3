//! `promote`: makes a snapshot the head of the branch that it was meant for, or of its own again.

use ghostsync_core::Result;
use ghostsync_core::repository::promote;
use serde_json::json;

use crate::args::OneSnapshotArgs;
use crate::context::{Context, writer};
use crate::exit::Exit;
use crate::render::human;

pub(super) async fn run(context: &mut Context, args: OneSnapshotArgs) -> Result<Exit> {
    let (repository, snapshot) = context.open_snapshot(&args.branch, &args.snapshot).await?;
    let head = promote(&repository, snapshot.id, &writer()).await?;
    let document = json!({
        "snapshot": head.id,
        "promoted": snapshot.id,
        "branch": head.branch,
        "tree": head.tree.page,
        "parent": head.parent,
        "outcome": "done",
    });
    context.output.result(&document, || {
        let (head_id, promoted) = (human::brief_id(head.id), human::brief_id(snapshot.id));
        format!("snapshot {head_id}, with the tree of {promoted}, is the head of branch {} now", head.branch)
    })?;
    Ok(Exit::Done)
}
