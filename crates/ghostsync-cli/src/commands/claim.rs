//! `claim` and `release`: take a branch for an owner, and give it back.

use std::time::Duration;

use ghostsync_core::Result;
use ghostsync_core::repository::{claim as take, release as give_back, wait_for_release};
use serde_json::json;

use crate::args::{ClaimArgs, ReleaseArgs};
use crate::context::{Context, writer};
use crate::exit::Exit;
use crate::render::human;

pub(super) async fn claim(context: &mut Context, args: ClaimArgs) -> Result<Exit> {
    let (branch, owner) = (args.which.branch, args.which.owner);
    let repository = context.open().await?;
    if args.wait.0 > Duration::ZERO {
        wait_for_release(&repository, &branch, &owner, args.wait.0, &context.interrupt).await?;
    }
    let claim = take(&repository, &branch, &owner, &writer()).await?;
    let document = json!({
        "branch": branch,
        "owner": owner,
        "epoch": claim.epoch,
        "snapshot": claim.head.as_ref().map(|head| head.id),
        "fenced": claim.fenced,
        "forks": claim.forks.iter().map(|fork| json!({"branch": fork.branch, "snapshot": fork.id})).collect::<Vec<_>>(),
        "outcome": "done",
    });
    if let Some(fenced) = &claim.fenced {
        context.output.note(&format!("{fenced} held branch {branch}, and had not released it: it is fenced now"));
    }
    for fork in &claim.forks {
        let (id, fork) = (human::brief_id(fork.id), &fork.branch);
        context.output.note(&format!(
            "a writer that came too late left snapshot {id} on {fork}; to make it the head: ghostsync promote {id}"
        ));
    }
    context.output.result(&document, || {
        let head = claim.head.as_ref().map_or_else(|| "no snapshot yet".to_owned(), |head| human::brief_id(head.id));
        format!("branch {branch} belongs to {owner}, epoch {}; its head is {head}: restore from that", claim.epoch)
    })?;
    Ok(Exit::Done)
}

pub(super) async fn release(context: &mut Context, args: ReleaseArgs) -> Result<Exit> {
    let (branch, owner) = (args.which.branch, args.which.owner);
    let repository = context.open().await?;
    let released = give_back(&repository, &branch, &owner, &writer(), None).await?;
    let outcome = if released { "done" } else { "unchanged" };
    context.output.result(&json!({"branch": branch, "owner": owner, "outcome": outcome}), || match released {
        true => format!("{owner} has released branch {branch}"),
        false => format!("{owner} had released branch {branch} already"),
    })?;
    Ok(Exit::Done)
}
