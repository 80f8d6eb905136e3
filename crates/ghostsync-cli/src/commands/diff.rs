//! `diff`: what differs between two snapshots, or a snapshot and a directory. Differences are no failure.

use ghostsync_core::diff::{After, Change, Difference, Differences, diff};
use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::repository::Selector;
use ghostsync_core::source::Excludes;
use ghostsync_core::{Error, ErrorKind, Result};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::args::DiffArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::json::{EntryFields, PathFields};
use crate::values::parse_selector;

/// The second side, as it was given.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    Snapshot(Selector),
    Directory(PathBuf),
}

pub(super) async fn run(context: &mut Context, args: DiffArgs) -> Result<Exit> {
    let given = parse_after(&args.after)?;
    let (repository, state) = context.open_state().await?;
    let before = state.select(&args.branch, &args.before)?;
    let after = match given {
        Given::Snapshot(selector) => After::Snapshot(Box::new(state.select(&args.branch, &selector)?.clone())),
        Given::Directory(path) => After::Directory { path, excludes: excludes(context, before)? },
    };
    tell_all(context, diff(&repository, before, after)).await
}

/// What a backup like that of the snapshot would leave out.
fn excludes(context: &Context, snapshot: &Snapshot) -> Result<Excludes> {
    Ok(Excludes { never: context.never(None)?, ..Excludes::from_rules(&snapshot.excludes) })
}

async fn tell_all(context: &mut Context, mut differences: Differences) -> Result<Exit> {
    let interrupt = context.interrupt.clone();
    let mut exit = Exit::Done;
    while let Some(difference) = interrupt.unless_set(differences.next()).await? {
        if let Some(reason) = &difference.reason {
            context.output.note(&format!("cannot read {}: {reason}", human::path(&difference.path)));
            exit = Exit::Incomplete;
        }
        tell(context, &difference)?;
        if context.output.is_broken() {
            break;
        }
    }
    Ok(exit)
}

/// What contains a slash is a directory, as are `.` and `..`; a name that no snapshot can have is one if it is there.
fn parse_after(text: &OsStr) -> Result<Given> {
    let bytes = text.as_bytes();
    let is_time = bytes.starts_with(b"@");
    if !is_time && (bytes.contains(&b'/') || bytes == b"." || bytes == b"..") {
        return Ok(Given::Directory(text.into()));
    }
    match parse_selector(&text.to_string_lossy()) {
        Ok(selector) => Ok(Given::Snapshot(selector)),
        Err(_) if !is_time && Path::new(text).is_dir() => Ok(Given::Directory(text.into())),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    before: Option<EntryFields<'a>>,
    after: Option<EntryFields<'a>>,
}

fn tell(context: &mut Context, difference: &Difference) -> Result<()> {
    let output = &mut context.output;
    let metadata = difference.metadata();
    if output.is_json() {
        return output.json(&Fields {
            path: (&difference.path).into(),
            change: difference.change.name(),
            metadata,
            reason: difference.reason.as_deref(),
            before: difference.before.as_ref().map(EntryFields),
            after: difference.after.as_ref().map(EntryFields),
        });
    }
    let fields = match difference.change {
        Change::Metadata => format!(" ({})", metadata.join(", ")),
        _ => String::new(),
    };
    output.line(format!("{:<10} {}{fields}", difference.change.name(), human::path(&difference.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_path_is_a_directory() {
        for text in [".", "..", "./latest", "/etc", "a/b"] {
            assert!(matches!(parse_after(OsStr::new(text)), Ok(Given::Directory(_))), "{text}");
        }
        for text in ["latest", "latest~1", "0123abcd", "@2026-01-31T18:30:00+01:00[Europe/Berlin]"] {
            assert!(matches!(parse_after(OsStr::new(text)), Ok(Given::Snapshot(_))), "{text}");
        }
        assert!(parse_after(OsStr::new("no such name")).is_err());
    }
}
