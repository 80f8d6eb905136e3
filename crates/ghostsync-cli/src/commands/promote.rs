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
    let branch = promote(&repository, snapshot.id, &writer()).await?;
    let document = json!({"snapshot": snapshot.id, "branch": branch, "outcome": "done"});
    context.output.result(&document, || {
        format!("snapshot {} is the head of branch {branch} now", human::brief_id(snapshot.id))
    })?;
    Ok(Exit::Done)
}
