//! Hard-link groups of the tree that is being written: every member has the content of the first.

use std::collections::{HashMap, HashSet};

use crate::entry::{Entry, FileContent};
use crate::format::page::Placement;
use crate::tree_path::TreePath;

/// Contents of hard-link groups, by the path of the first member.
#[derive(Default)]
pub(super) struct Groups {
    pub(super) contents: HashMap<TreePath, (FileContent, Placement, bool)>,
    /// Groups whose content has been read, or is the parent's.
    pub(super) read: HashSet<TreePath>,
    /// Groups whose first member was gone when it was to be read: another took its place.
    pub(super) renamed: HashMap<TreePath, TreePath>,
    /// The parent's groups whose first member is not in this tree as it was: the first that is carried forward.
    carried: HashMap<TreePath, TreePath>,
}

impl Groups {
    /// The group of an entry that is carried forward: the parent's, as long as its first member is still the same
    /// content. A link to anything else would be a tree that no restore accepts.
    pub(super) fn of_carried(&mut self, entry: &Entry) -> Option<TreePath> {
        let (group, content) = (entry.link.as_ref()?, entry.content()?);
        let first = self.carried.get(group).unwrap_or(group);
        let is_same =
            |(first, ..): &(FileContent, Placement, bool)| (first.hash, first.size) == (content.hash, content.size);
        if self.contents.get(first).is_some_and(is_same) {
            return Some(first.clone());
        }
        self.carried.insert(group.clone(), entry.path.clone());
        Some(entry.path.clone())
    }
}
