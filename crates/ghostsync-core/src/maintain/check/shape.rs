//! Whether entries are a tree: pure, a page at a time, so that a page that many snapshots share is judged once.
//!
//! In tree order an entry's directory is open when the entry comes: it is the entry before it, or holds that. Of a
//! page this needs its first and its last path alone, and so it does of everything below a page.

use super::print::Print;
use crate::entry::Entry;
use crate::format::page::Placed;
use crate::tree_path::TreePath;

/// Entries and bytes below a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// A part of a tree that is sound in itself: the entries of a page, or of all pages below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) sums: Sums,
    pub(super) first: TreePath,
    pub(super) last: TreePath,
    last_is_directory: bool,
}

/// What a page says of hard links that are not all on it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Links {
    /// Groups whose first member is here.
    pub(super) firsts: Vec<Print>,
    /// Groups that have members here, and whose first member is not.
    pub(super) wanted: Vec<Print>,
}

impl Part {
    /// Judges the entries of a page, which are in order.
    pub(super) fn of_entries(entries: &[Placed]) -> Result<Self, String> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err("it has no entries".into());
        };
        let (first, last) = (&first.entry, &last.entry);
        // The directory of the first entry is open, if the tree is one: that is looked at where pages meet.
        let above = first.path.parent();
        let mut open: Vec<&TreePath> = Vec::new();
        let mut sums = Sums::default();
        for entry in entries.iter().map(|placed| &placed.entry) {
            while open.last().is_some_and(|directory| !entry.path.starts_with(directory)) {
                open.pop();
            }
            if let Some(parent) = entry.path.parent() {
                let is_open = match open.last() {
                    Some(directory) => **directory == parent,
                    None => above.as_ref().is_some_and(|above| above.starts_with(&parent)),
                };
                if !is_open {
                    return Err(no_directory(&entry.path));
                }
            }
            if entry.is_directory() {
                open.push(&entry.path);
            }
            sums.entries += u64::from(entry.counts());
            sums.bytes = sums.bytes.saturating_add(entry.size());
        }
        let (first, last_is_directory) = (first.path.clone(), last.is_directory());
        Ok(Self { sums, first, last: last.path.clone(), last_is_directory })
    }

    /// Adds the part that follows.
    pub(super) fn join(self, next: &Self) -> Result<Self, String> {
        if next.first <= self.last {
            return Err(format!("the tree is out of order at {}", next.first));
        }
        let parent = next.first.parent().unwrap_or_default();
        let is_open = (self.last_is_directory && self.last == parent)
            || self.last.parent().is_some_and(|above| above.starts_with(&parent));
        if !is_open {
            return Err(no_directory(&next.first));
        }
        Ok(Self {
            sums: Sums {
                entries: self.sums.entries.saturating_add(next.sums.entries),
                bytes: self.sums.bytes.saturating_add(next.sums.bytes),
            },
            first: self.first,
            last: next.last.clone(),
            last_is_directory: next.last_is_directory,
        })
    }
}

impl Links {
    /// Looks at the entries of a page; `None` if none of them is a hard link.
    pub(super) fn of_entries(entries: &[Placed]) -> Option<Self> {
        let mut links = Self::default();
        for entry in entries.iter().map(|placed| &placed.entry) {
            let Some(group) = &entry.link else { continue };
            let print = Print::of_group(group, entry);
            if *group == entry.path {
                links.firsts.push(print);
            } else if !links.wanted.contains(&print) {
                links.wanted.push(print);
            }
        }
        links.wanted.retain(|wanted| !links.firsts.contains(wanted));
        (!links.firsts.is_empty() || !links.wanted.is_empty()).then_some(links)
    }
}

/// The group of a member other than its first.
pub(super) fn wanted_group(entry: &Entry) -> Option<Print> {
    let group = entry.link.as_ref().filter(|group| **group != entry.path)?;
    Some(Print::of_group(group, entry))
}

fn no_directory(path: &TreePath) -> String {
    format!("the tree has an entry {path} in what is no directory of it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{EntryKind, FileTime};
    use crate::format::page::Placement;

    /// Entries by their paths; those that end in a slash are directories.
    fn entries(paths: &[&str]) -> Vec<Placed> {
        let entry = |text: &&str| Entry {
            path: TreePath::parse(text.trim_end_matches('/')).expect("a path"),
            kind: if text.is_empty() || text.ends_with('/') { EntryKind::Directory } else { EntryKind::Fifo },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: FileTime { seconds: 0, nanoseconds: 0 },
            xattrs: Vec::new(),
            link: None,
            unread: false,
            unstable: false,
        };
        paths.iter().map(|text| Placed { entry: entry(text), content: Placement::Chunks(Vec::new()) }).collect()
    }

    fn whole(paths: &[&str]) -> Result<Part, String> {
        Part::of_entries(&entries(paths))
    }

    #[test]
    fn a_tree_is_judged_the_same_however_it_is_cut() {
        let table: &[(&[&str], bool)] = &[
            (&["", "a/", "a/b/", "a/b/c", "a/d", "e/", "f"], true),
            (&["", "a/", "a/b", "a!/", "a!/b"], true),
            (&["", "a", "a/b"], false),
            (&["", "a/b"], false),
            (&["", "a/", "a/b/c"], false),
            (&["", "a/", "a/b/", "a/c/d"], false),
            (&["", "a/", "b", "c/d/e"], false),
            (&["", "a/", "a/b/", "a/b/c/", "b/c"], false),
        ];
        for (paths, is_tree) in table {
            assert_eq!(whole(paths).is_ok(), *is_tree, "{paths:?}");
            for cut in 1..paths.len() {
                let (left, right) = paths.split_at(cut);
                let joined = whole(left).and_then(|left| left.join(&whole(right)?));
                assert_eq!(joined.is_ok(), *is_tree, "{left:?} {right:?}");
                assert!(joined.is_err() || joined == whole(paths), "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn parts_that_overlap_are_out_of_order() {
        let (left, right) = (whole(&["", "b"]).expect("sound"), whole(&["a"]).expect("sound"));
        assert!(left.clone().join(&right).expect_err("no tree").contains("out of order at a"));
        assert!(left.clone().join(&left).is_err());
    }
}
