//! Looks at files ahead of the walk, on a thread of its own: over an intact directory these calls are most of what a
//! restore does.
//!
//! A scout changes nothing, decides nothing and has no errors: where it has seen nothing, the walk looks itself. What
//! it saw holds until the walk comes there, whatever the walk and the writers do meanwhile: they change nothing that
//! they have not come to, except through another name of the same file. So a file of several names is not for a
//! scout, and the walk believes what is said of a name in the very directory that it has opened, and no other.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tokio::sync::mpsc;

use super::compare::has_same_content;
use super::destination::{Directory, There, id_of};
use super::flow::{Flow, Outcome};
use super::metadata::xattrs_of_file;
use super::plan::FromTree;
use super::tally::Tally;
use crate::entry::{Entry, EntryKind, Xattr};
use crate::receipt::DirectoryId;
use crate::tree_path::TreePath;

/// The deepest that a scout goes: it holds a handle of each directory on the way down.
const MAX_DEPTH: usize = 64;

/// What a scout has seen of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The directory that it stands in.
    pub(super) within: DirectoryId,
    pub(super) there: There,
    /// Its attributes, if it looks as if it had the entry's content.
    pub(super) xattrs: Option<Vec<Xattr>>,
}

/// Looks at what stands in the place of entries.
pub(super) struct Scout {
    /// The directories down to where it is, the destination first; none without a destination.
    levels: Vec<Level>,
}

struct Level {
    path: TreePath,
    handle: Arc<OwnedFd>,
    id: DirectoryId,
}

impl Scout {
    pub(super) fn new(destination: Option<&Arc<Directory>>) -> Self {
        let root = destination
            .and_then(|root| Some(Level { path: TreePath::root(), handle: root.handle().ok()?, id: root.id() }));
        Self { levels: root.into_iter().collect() }
    }

    /// Goes through what comes from the tree, and hands it on with what was seen.
    pub(super) fn run(
        mut self,
        mut tree: mpsc::Receiver<Flow<FromTree>>,
        walk: &mpsc::Sender<Flow<FromTree>>,
    ) -> Outcome {
        while let Some(mut news) = tree.blocking_recv() {
            if let Flow::Next(FromTree::Entries(entries)) = &mut news {
                for selected in entries {
                    selected.seen = self.look(&selected.placed.entry);
                }
            }
            let is_end = matches!(news, Flow::End);
            if walk.blocking_send(news).is_err() {
                break;
            }
            if is_end {
                return Outcome::Done(Tally::default());
            }
        }
        Outcome::CutOff
    }

    fn look(&mut self, entry: &Entry) -> Option<Seen> {
        let name = entry.path.name()?;
        while self.levels.last().is_some_and(|level| !entry.path.starts_with(&level.path)) {
            self.levels.pop();
        }
        let level = self.levels.last()?;
        let above = entry.path.as_bytes().len() - name.len();
        if above.saturating_sub(1) != level.path.as_bytes().len() {
            return None;
        }
        match &entry.kind {
            EntryKind::File(_) => level.file(name, entry),
            EntryKind::Directory => {
                let below = level.open(name, &entry.path).filter(|_| self.levels.len() < MAX_DEPTH);
                self.levels.extend(below);
                None
            }
            _ => None,
        }
    }
}

impl Level {
    fn open(&self, name: &[u8], path: &TreePath) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&*self.handle, name, flags, Mode::empty()).ok()?;
        let id = id_of(&rustix::fs::fstat(&handle).ok()?);
        Some(Self { path: path.clone(), handle: Arc::new(handle), id })
    }

    fn file(&self, name: &[u8], entry: &Entry) -> Option<Seen> {
        let there = There::of(&rustix::fs::statat(&*self.handle, name, AtFlags::SYMLINK_NOFOLLOW).ok()?);
        if there.kind != FileType::RegularFile || there.links != 1 {
            return None;
        }
        let is_alike = has_same_content(entry, &there, None);
        let xattrs = is_alike.then(|| xattrs_of_file(self.handle.as_fd(), name).ok()).flatten();
        Some(Seen { within: self.id, there, xattrs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::FileTime;
    use crate::restore::tests::{entry, file, temporary_root};

    fn names(folder: &tempfile::TempDir, root: &Arc<Directory>) -> Entry {
        let path = folder.path().join("a/b");
        std::fs::write(&path, b"x").expect("writes");
        let metadata = rustix::fs::stat(&path).expect("is there");
        let mtime = There::of(&metadata).mtime;
        drop(root.handle());
        Entry { mtime, ..file("a/b", b"x") }
    }

    #[test]
    fn a_file_is_seen_in_its_directory_with_its_attributes() {
        let (folder, root) = temporary_root();
        let within = root.create(b"a").expect("makes");
        let wanted = names(&folder, &root);
        let has_attributes =
            rustix::fs::setxattr(folder.path().join("a/b"), "user.one", b"1", rustix::fs::XattrFlags::empty()).is_ok();
        let mut scout = Scout::new(Some(&root));
        assert_eq!(scout.look(&entry("", EntryKind::Directory)), None);
        assert_eq!(scout.look(&wanted), None, "the directory did not come");
        assert_eq!(scout.look(&entry("a", EntryKind::Directory)), None);
        let seen = scout.look(&wanted).expect("is there");
        assert_eq!((seen.within, Some(seen.there)), (within.id(), within.look(b"b").expect("looks")));
        assert_eq!(seen.xattrs.map(|xattrs| xattrs.len()), Some(usize::from(has_attributes)));
        let other = Entry { mtime: FileTime { seconds: 0, nanoseconds: 0 }, ..wanted };
        assert_eq!(scout.look(&other).expect("is there").xattrs, None, "nobody will ask");
        assert_eq!(scout.look(&file("a/c", b"x")), None);
        assert_eq!(scout.look(&file("d", b"x")), None);
    }

    #[test]
    fn what_can_change_through_another_name_and_what_a_link_leads_to_is_not_seen() {
        let (folder, root) = temporary_root();
        root.create(b"a").expect("makes");
        let wanted = names(&folder, &root);
        std::fs::hard_link(folder.path().join("a/b"), folder.path().join("a/c")).expect("links");
        std::os::unix::fs::symlink("a", folder.path().join("link")).expect("links");
        let mut scout = Scout::new(Some(&root));
        scout.look(&entry("a", EntryKind::Directory));
        assert_eq!(scout.look(&wanted), None, "two names");
        std::fs::remove_file(folder.path().join("a/c")).expect("removes");
        assert!(scout.look(&wanted).is_some());
        scout.look(&entry("link", EntryKind::Directory));
        let through = Entry { path: TreePath::parse("link/b").expect("a path"), ..wanted };
        assert_eq!(scout.look(&through), None);
    }
}
