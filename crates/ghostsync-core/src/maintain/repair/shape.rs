//! What is left of a tree made into a tree again: pure, an entry at a time, in order.
//!
//! An entry whose directory is lost gets one made anew, readable by its owner alone, with the owner and time of that
//! entry. Where the first member of a hard-link group is lost, the first that is left takes its place. What cannot stand
//! in a tree in any way is dropped.

use std::collections::{HashMap, HashSet};

use super::super::check::Print;
use crate::entry::{Entry, EntryKind};
use crate::tree_path::TreePath;

/// The mode of a directory that was made anew: what was in it may have been private.
const MADE_MODE: u32 = 0o700;

/// What has been put together so far.
#[derive(Debug, Default)]
pub(super) struct Shape {
    previous: Option<TreePath>,
    /// The directories that the next entry may lie in, the deepest last.
    open: Vec<TreePath>,
    firsts: HashSet<Print>,
    /// Who took the place of a first member that is lost.
    seconds: HashMap<Print, TreePath>,
}

/// Why an entry can stand in no tree.
pub(super) const NO_PLACE: &str = "it stands out of order, or in what is no directory";

impl Shape {
    /// Puts the next entry in its place, and returns the directories that had to be made before it; `None` if it has none.
    pub(super) fn take(&mut self, entry: &mut Entry) -> Option<Vec<Entry>> {
        if self.previous.as_ref().is_some_and(|previous| entry.path <= *previous) {
            return None;
        }
        while self.open.last().is_some_and(|directory| !entry.path.starts_with(directory)) {
            self.open.pop();
        }
        let mut missing = Vec::new();
        let mut above = entry.path.parent();
        while let Some(directory) = above.filter(|directory| self.open.last() != Some(directory)) {
            above = directory.parent();
            missing.push(directory);
        }
        // A file stands where a directory must.
        if missing.last().is_some_and(|first| self.previous.as_ref().is_some_and(|previous| first <= previous)) {
            return None;
        }
        missing.reverse();
        self.open.extend(missing.iter().cloned());
        if entry.is_directory() {
            self.open.push(entry.path.clone());
        }
        self.previous = Some(entry.path.clone());
        self.link(entry);
        Some(missing.into_iter().map(|path| made(path, entry)).collect())
    }

    fn link(&mut self, entry: &mut Entry) {
        let Some(first) = entry.link.clone() else { return };
        let group = Print::of_group(&first, entry);
        if first == entry.path {
            self.firsts.insert(group);
        } else if !self.firsts.contains(&group) {
            let second = self.seconds.entry(group).or_insert_with(|| entry.path.clone());
            entry.link = Some(second.clone());
        }
    }
}

fn made(path: TreePath, within: &Entry) -> Entry {
    Entry {
        path,
        kind: EntryKind::Directory,
        mode: MADE_MODE,
        uid: within.uid,
        gid: within.gid,
        mtime: within.mtime,
        xattrs: Vec::new(),
        link: None,
        unread: false,
        unstable: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::FileTime;

    /// `path`, or `path=first` for a hard link; directories end in a slash.
    fn entry(text: &str) -> Entry {
        let (path, link) = text.split_once('=').map_or((text, None), |(path, link)| (path, Some(link)));
        let parse = |text: &str| TreePath::parse(text.trim_end_matches('/')).expect("a path");
        let kind = if path.is_empty() || path.ends_with('/') { EntryKind::Directory } else { EntryKind::Fifo };
        let mtime = FileTime { seconds: 7, nanoseconds: 0 };
        Entry { kind, mode: 0o644, uid: 3, mtime, link: link.map(parse), ..made(parse(path), &bare()) }
    }

    fn bare() -> Entry {
        let mtime = FileTime { seconds: 0, nanoseconds: 0 };
        let (path, kind, xattrs) = (TreePath::root(), EntryKind::Directory, Vec::new());
        Entry { path, kind, mode: 0, uid: 0, gid: 0, mtime, xattrs, link: None, unread: false, unstable: false }
    }

    /// What comes out, with `+` before what was made, and how many were dropped.
    fn shaped(texts: &[&str]) -> (String, usize) {
        let (mut shape, mut out, mut dropped) = (Shape::default(), Vec::new(), 0);
        for text in texts {
            let mut entry = entry(text);
            let Some(made) = shape.take(&mut entry) else {
                dropped += 1;
                continue;
            };
            out.extend(made.iter().map(|made| {
                assert_eq!((made.mode, made.uid, made.mtime.seconds), (0o700, 3, 7));
                format!("+{}", made.path)
            }));
            let link = entry.link.map_or(String::new(), |link| format!("={link}"));
            out.push(format!("{}{link}", entry.path));
        }
        (out.join(" "), dropped)
    }

    #[test]
    fn what_is_left_is_a_tree_again() {
        let root = TreePath::root().to_string();
        let table: &[(&[&str], &str, usize)] = &[
            (&["", "a/", "a/b", "c"], "{} a a/b c", 0),
            (&["a/b/c", "a/d"], "+{} +a +a/b a/b/c a/d", 0),
            (&["", "a/b/c", "a/b/d/", "e/f"], "{} +a +a/b a/b/c a/b/d +e e/f", 0),
            (&["", "a", "a/b", "c"], "{} a c", 1),
            (&["", "b", "a", "c"], "{} b c", 1),
            (&["", "a", "a", "c/"], "{} a c", 1),
            (&["", "a=a", "b=a", "c=a"], "{} a=a b=a c=a", 0),
            (&["", "b=a", "c=a", "d=x", "e=x"], "{} b=b c=b d=d e=d", 0),
        ];
        for (texts, expected, dropped) in table {
            assert_eq!(shaped(texts), (expected.replace("{}", &root), *dropped), "{texts:?}");
        }
    }
}
