//! `cat`: prints a file of a snapshot, byte for byte, whatever `--json` says.

use ghostsync_core::format::page::Placed;
use ghostsync_core::{Error, ErrorKind, Result};

use super::entries::Reader;
use crate::args::CatArgs;
use crate::context::Context;
use crate::exit::Exit;

pub(super) async fn run(context: &mut Context, args: CatArgs) -> Result<Exit> {
    context.output.print_bytes_alone();
    let (repository, snapshot) = context.open_snapshot(&args.branch, &args.what.selector).await?;
    let mut reader = Reader::new(&repository, &snapshot, args.what.path.clone());
    let placed = context.interrupt.unless_set(first(&mut reader)).await?;
    if placed.entry.path != args.what.path || placed.entry.content().is_none() {
        let message = format!("{:?} is not a regular file", args.what.path);
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    context.interrupt.unless_set(repository.cat(&placed, &mut context.output)).await?;
    Ok(Exit::Done)
}

async fn first(reader: &mut Reader) -> Result<Placed> {
    loop {
        // The reader fails if the end comes before anything else.
        let page = reader.next_page().await?.unwrap_or_default();
        if let Some(placed) = page.into_iter().next() {
            return Ok(placed);
        }
    }
}
