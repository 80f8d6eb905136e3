//! `diff`: what differs between two snapshots. Differences are no failure.

use ghostsync_core::entry::Entry;
use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::repository::{Repository, Selector};
use ghostsync_core::tree::{Change, Difference, diff};
use ghostsync_core::tree_path::TreePath;
use ghostsync_core::{Error, ErrorKind, Result};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::entries::Reader;
use crate::args::{DiffArgs, parse_selector};
use crate::context::Context;
use crate::exit::Exit;
use crate::render::json::{EntryFields, PathFields};
use crate::render::{Output, human};

/// The second side.
#[derive(Debug, PartialEq, Eq)]
enum After {
    Snapshot(Selector),
    Directory(PathBuf),
}

pub(super) async fn run(context: &mut Context, args: DiffArgs) -> Result<Exit> {
    let after = parse_after(&args.after)?;
    let (repository, state) = context.open_state().await?;
    let mut before = Reader::new(&repository, state.select(&args.branch, &args.before)?, TreePath::root());
    let before = async || next_entries(&mut before).await;
    let signals = context.signals.clone();
    let tell = |difference: Difference| tell(&mut context.output, &difference);
    match after {
        After::Snapshot(selector) => {
            let mut after = Reader::new(&repository, state.select(&args.branch, &selector)?, TreePath::root());
            let compared = diff(before, async || next_entries(&mut after).await, tell);
            signals.unless_interrupted(compared).await?;
        }
    }
    Ok(Exit::Done)
}

async fn next_entries(reader: &mut Reader) -> Result<Option<Vec<Entry>>> {
    let page = reader.next_page().await?;
    Ok(page.map(|page| page.into_iter().map(|placed| placed.entry).collect()))
}

/// What contains a slash is a directory, as are `.` and `..`; a name that no snapshot can have is one if it is there.
fn parse_after(text: &OsStr) -> Result<After> {
    let bytes = text.as_bytes();
    let is_time = bytes.starts_with(b"@");
    if !is_time && (bytes.contains(&b'/') || bytes == b"." || bytes == b"..") {
        return Ok(After::Directory(text.into()));
    }
    match parse_selector(&text.to_string_lossy()) {
        Ok(selector) => Ok(After::Snapshot(selector)),
        Err(_) if !is_time && Path::new(text).is_dir() => Ok(After::Directory(text.into())),
        Err(message) => Err(Error::new(ErrorKind::Invalid, message)),
    }
}

#[derive(Serialize)]
struct Fields<'a> {
    #[serde(flatten)]
    path: PathFields,
    change: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metadata: Vec<&'static str>,
    before: Option<EntryFields<'a>>,
    after: Option<EntryFields<'a>>,
}

fn tell(output: &mut Output, difference: &Difference) -> Result<()> {
    if output.is_broken() {
        // Nobody reads any more: this ends the comparison, and is no failure.
        return Err(Error::new(ErrorKind::LocalIo, "nobody reads stdout any more"));
    }
    let metadata = difference.metadata();
    if output.is_json() {
        return output.json(&Fields {
            path: (&difference.path).into(),
            change: difference.change.name(),
            metadata,
            before: difference.before.as_ref().map(EntryFields),
            after: difference.after.as_ref().map(EntryFields),
        });
    }
    let fields = match difference.change {
        Change::Metadata => format!(" ({})", metadata.join(", ")),
        _ => String::new(),
    };
    output.line(format!("{:<8} {}{fields}", difference.change.name(), human::path(&difference.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_path_is_a_directory() {
        for text in [".", "..", "./latest", "/etc", "a/b"] {
            assert!(matches!(parse_after(OsStr::new(text)), Ok(After::Directory(_))), "{text}");
        }
        for text in ["latest", "latest~1", "0123abcd", "@2026-01-31T18:30:00+01:00[Europe/Berlin]"] {
            assert!(matches!(parse_after(OsStr::new(text)), Ok(After::Snapshot(_))), "{text}");
        }
        assert!(parse_after(OsStr::new("no such name")).is_err());
    }
}
