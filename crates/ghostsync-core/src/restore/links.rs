//! Hard links: the first member of a group that is restored is the original, the others are linked to it.
//!
//! Every member of a group names its first member in tree order. This is the one thing whose memory grows with
//! what is restored: one record a group.

use std::collections::HashMap;
use std::sync::Arc;

use super::destination::Directory;
use super::write::FileJob;
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Result};
use crate::id::ContentHash;
use crate::receipt::DirectoryId;
use crate::tree_path::TreePath;

/// What the other members of a group are linked to.
#[derive(Debug, Clone)]
pub(super) enum Original {
    /// It is being written.
    Job(Arc<FileJob>),
    /// It is there.
    There { directory: Arc<Directory>, name: Box<[u8]>, id: DirectoryId },
    /// It would be written: this is a survey.
    Planned,
}

/// What an entry is to its group.
#[derive(Debug)]
pub(super) enum Role {
    /// It stands for itself, and maybe for those that follow.
    Original,
    /// It is to be one file with this.
    Member(Original),
}

/// The groups that were met.
#[derive(Debug)]
pub(super) struct Links {
    groups: HashMap<TreePath, Option<(Sameness, Original)>>,
    /// Every first member is met, so that one that is not there is damage.
    all_are_met: bool,
}

/// What all members of a group have in common.
#[derive(Debug, PartialEq, Eq)]
enum Sameness {
    File(ContentHash, u64),
    Other(EntryKind),
}

impl Sameness {
    fn of(entry: &Entry) -> Self {
        match &entry.kind {
            EntryKind::File(content) => Self::File(content.hash, content.size),
            kind => Self::Other(kind.clone()),
        }
    }
}

impl Links {
    pub(super) fn new(all_are_met: bool) -> Self {
        Self { groups: HashMap::new(), all_are_met }
    }

    /// From now on a first member may be missing because a page of the tree is lost.
    pub(super) fn expect_losses(&mut self) {
        self.all_are_met = false;
    }

    /// Tells what an entry is to its group.
    ///
    /// # Errors
    /// `Corrupt` if its group has no first member, or one of another content.
    pub(super) fn role(&self, entry: &Entry) -> Result<Role> {
        let Some(group) = &entry.link else { return Ok(Role::Original) };
        match self.groups.get(group) {
            Some(Some((sameness, original))) => {
                if *sameness == Sameness::of(entry) {
                    Ok(Role::Member(original.clone()))
                } else {
                    Err(Error::corrupt(format!("{} is said to be a hard link of {group}, but differs", entry.path)))
                }
            }
            None if self.all_are_met && *group != entry.path => {
                Err(Error::corrupt(format!("{} is said to be a hard link of {group}, which is not there", entry.path)))
            }
            Some(None) | None => Ok(Role::Original),
        }
    }

    /// Notes an entry that the others of its group can be linked to.
    pub(super) fn note(&mut self, entry: &Entry, original: Original) {
        if let Some(group) = &entry.link {
            self.groups.insert(group.clone(), Some((Sameness::of(entry), original)));
        }
    }

    /// Notes an entry that was met, and that nothing can be linked to.
    pub(super) fn pass(&mut self, entry: &Entry) {
        if let Some(group) = &entry.link {
            self.groups.entry(group.clone()).or_insert(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::tests::file;

    fn member(path: &str, group: &str, content: &[u8]) -> Entry {
        Entry { link: Some(TreePath::parse(group).expect("a path")), ..file(path, content) }
    }

    #[test]
    fn the_first_that_is_restored_stands_for_the_group() {
        let mut links = Links::new(false);
        assert!(matches!(links.role(&file("x", b"1")), Ok(Role::Original)));
        assert!(matches!(links.role(&member("b", "a", b"1")), Ok(Role::Original)), "the first is not selected");
        links.note(&member("b", "a", b"1"), Original::Planned);
        assert!(matches!(links.role(&member("c", "a", b"1")), Ok(Role::Member(Original::Planned))));
        assert!(links.role(&member("c", "a", b"2")).is_err(), "another content");
        let directory = Entry { kind: EntryKind::Fifo, ..member("c", "a", b"1") };
        assert!(links.role(&directory).is_err(), "another kind");
    }

    #[test]
    fn a_group_without_its_first_member_is_damage_only_where_it_must_have_been_met() {
        let mut links = Links::new(true);
        let error = links.role(&member("b", "a", b"1")).expect_err("a is not there");
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
        assert!(matches!(links.role(&member("a", "a", b"1")), Ok(Role::Original)));
        links.pass(&member("a", "a", b"1"));
        assert!(matches!(links.role(&member("b", "a", b"1")), Ok(Role::Original)), "the first was not restored");
        links.expect_losses();
        assert!(matches!(links.role(&member("d", "c", b"1")), Ok(Role::Original)));
    }
}
