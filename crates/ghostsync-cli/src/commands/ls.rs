//! `ls`: lists the entries of a snapshot, at and below a path.

use ghostsync_core::Result;

use super::entries::Reader;
use crate::args::LsArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::json::EntryFields;

pub(super) async fn run(context: &mut Context, args: LsArgs) -> Result<Exit> {
    let (repository, snapshot) = context.open_snapshot(&args.branch, &args.what.selector).await?;
    let mut reader = Reader::new(&repository, &snapshot, args.what.path);
    while let Some(page) = context.interrupt.unless_set(reader.next_page()).await? {
        for placed in page.iter().filter(|placed| !placed.entry.path.is_root()) {
            if context.output.is_json() {
                context.output.json(&EntryFields(&placed.entry))?;
            } else {
                context.output.line(human::long_entry(&placed.entry))?;
            }
        }
        if context.output.is_broken() {
            break;
        }
    }
    Ok(Exit::Done)
}
