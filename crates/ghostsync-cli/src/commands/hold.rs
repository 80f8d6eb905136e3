//! `hold` and `release-hold`: keep a snapshot from being forgotten, and no longer.

use ghostsync_core::Result;
use ghostsync_core::repository::hold as set_hold;

use super::tag::tell;
use crate::args::{HoldArgs, OneSnapshotArgs};
use crate::context::{Context, writer};
use crate::exit::Exit;

pub(super) async fn hold(context: &mut Context, args: HoldArgs) -> Result<Exit> {
    set(context, &args.which, Some(&args.reason), "held").await
}

pub(super) async fn release(context: &mut Context, args: OneSnapshotArgs) -> Result<Exit> {
    set(context, &args, None, "no longer held").await
}

async fn set(context: &mut Context, which: &OneSnapshotArgs, reason: Option<&str>, what: &str) -> Result<Exit> {
    let (repository, snapshot) = context.open_snapshot(&which.branch, &which.snapshot).await?;
    let commit = set_hold(&repository, snapshot.id, reason, &writer()).await?;
    tell(context, snapshot.id, commit, what)?;
    Ok(Exit::Done)
}
