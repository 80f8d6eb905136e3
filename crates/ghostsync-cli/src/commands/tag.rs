//! `tag`: sets and removes tags of a snapshot.

use ghostsync_core::Result;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::repository::tag;
use serde_json::json;

use crate::args::TagArgs;
use crate::context::{Context, writer};
use crate::exit::Exit;
use crate::render::human;

pub(super) async fn run(context: &mut Context, args: TagArgs) -> Result<Exit> {
    let (repository, snapshot) = context.open_snapshot(&args.branch, &args.snapshot).await?;
    // A commit is not dropped half way by a signal: it is one small request.
    let commit = tag(&repository, snapshot.id, &args.set, &args.remove, &writer()).await?;
    tell(context, snapshot.id, commit, "tagged")?;
    Ok(Exit::Done)
}

/// Tells that marks of a snapshot were changed by a commit, or were what they should be already.
pub(super) fn tell(context: &mut Context, snapshot: SnapshotId, commit: Option<u64>, what: &str) -> Result<()> {
    let outcome = if commit.is_some() { "done" } else { "unchanged" };
    let document = json!({"snapshot": snapshot, "commit": commit, "outcome": outcome});
    context.output.result(&document, || {
        let id = human::brief_id(snapshot);
        if commit.is_some() { format!("{what}: snapshot {id}") } else { format!("unchanged: snapshot {id}") }
    })
}
