//! `find`: entries that match a pattern, in every snapshot or in some.

use ghostsync_core::entry::Entry;
use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::repository::{Repository, State};
use ghostsync_core::tree_path::TreePath;
use ghostsync_core::{Error, ErrorKind, Result};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::entries::Reader;
use crate::args::FindArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;
use crate::render::json::EntryFields;

pub(super) async fn run(context: &mut Context, args: FindArgs) -> Result<Exit> {
    let pattern = parse(&args.pattern)?;
    let (repository, state) = context.open_state().await?;
    let ids: Vec<SnapshotId> = state.commit.snapshots.iter().map(|snapshot| snapshot.id).collect();
    for same in by_tree(&wanted(&state, &args)?) {
        search(context, &repository, &pattern, &same, &ids).await?;
        if context.output.is_broken() {
            break;
        }
    }
    Ok(Exit::Done)
}

fn parse(pattern: &str) -> Result<Gitignore> {
    let wrong = |reason: String| Error::new(ErrorKind::Invalid, format!("not a pattern: {pattern:?}: {reason}"));
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    builder.add_line(None, pattern).map_err(|error| wrong(error.to_string()))?;
    let built = builder.build().map_err(|error| wrong(error.to_string()))?;
    // A comment, an empty line or a negation would find nothing without a word.
    if built.num_ignores() == 1 { Ok(built) } else { Err(wrong("it matches nothing".into())) }
}

fn matches(pattern: &Gitignore, entry: &Entry) -> bool {
    let path = Path::new(OsStr::from_bytes(entry.path.as_bytes()));
    !entry.path.is_root() && pattern.matched(path, entry.is_directory()).is_ignore()
}

/// The snapshots to look into, newest first.
fn wanted<'a>(state: &'a State, args: &'a FindArgs) -> Result<Vec<&'a Snapshot>> {
    if let Some(selector) = &args.snapshot {
        return Ok(vec![state.select(args.branch.as_deref().unwrap_or("main"), selector)?]);
    }
    if let Some(branch) = args.branch.as_ref().filter(|branch| !state.commit.branches.contains_key(*branch)) {
        return Err(Error::new(ErrorKind::NotFound, format!("no branch {branch:?}")));
    }
    let on_branch = |snapshot: &&Snapshot| args.branch.as_ref().is_none_or(|branch| *branch == snapshot.branch);
    Ok(state.commit.snapshots.iter().rev().filter(on_branch).collect())
}

/// Groups snapshots with equal trees, which need to be read only once.
fn by_tree<'a>(snapshots: &[&'a Snapshot]) -> Vec<Vec<&'a Snapshot>> {
    let mut groups: Vec<Vec<&Snapshot>> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for snapshot in snapshots {
        let place = *places.entry(snapshot.tree.page).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(place) {
            group.push(snapshot);
        }
    }
    groups
}

#[derive(Serialize)]
struct Found<'a> {
    snapshot: SnapshotId,
    branch: &'a str,
    #[serde(flatten)]
    entry: EntryFields<'a>,
}

async fn search(
    context: &mut Context,
    repository: &Repository,
    pattern: &Gitignore,
    same: &[&Snapshot],
    ids: &[SnapshotId],
) -> Result<()> {
    let Some(first) = same.first() else { return Ok(()) };
    let mut reader = Reader::new(repository, first, TreePath::root());
    while let Some(page) = context.interrupt.unless_set(reader.next_page()).await? {
        for entry in page.iter().map(|placed| &placed.entry).filter(|entry| matches(pattern, entry)) {
            for snapshot in same {
                if context.output.is_json() {
                    let found = Found { snapshot: snapshot.id, branch: &snapshot.branch, entry: EntryFields(entry) };
                    context.output.json(&found)?;
                } else {
                    let id = human::short_id(snapshot.id, ids);
                    context.output.line(format!("{id} {}", human::long_entry(entry)))?;
                }
            }
        }
        if context.output.is_broken() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_find_nothing_are_refused() {
        for text in ["", "# a", "!a", "   ", "[a"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse("*.txt").is_ok());
    }

    #[test]
    fn matches_as_gitignore_does() {
        let file = |path: &str| Entry {
            path: TreePath::parse(path).expect("valid"),
            kind: ghostsync_core::entry::EntryKind::Fifo,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: ghostsync_core::entry::FileTime { seconds: 0, nanoseconds: 0 },
            xattrs: Vec::new(),
            link: None,
            unread: false,
            unstable: false,
        };
        for (pattern, path, found) in [
            ("*.txt", "a/b.txt", true),
            ("*.txt", "a/b.txt/c", false),
            ("/b.txt", "a/b.txt", false),
            ("a/*.txt", "a/b.txt", true),
            ("a/**/c", "a/x/y/c", true),
            ("b/", "b", false),
        ] {
            let pattern = parse(pattern).expect("a pattern");
            assert_eq!(matches(&pattern, &file(path)), found, "{pattern:?} {path}");
        }
    }
}
