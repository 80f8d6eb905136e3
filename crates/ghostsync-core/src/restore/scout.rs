//! Looks at files ahead of the walk, on threads of their own: over an intact directory these calls are most of what a
//! restore does. The scouts go one behind the other, each looks at its share of the files, and so the order stays.
//!
//! A scout changes nothing, decides nothing and has no errors: where it has seen nothing, the walk looks itself. What
//! it saw holds until the walk comes there, whatever the walk and the writers do meanwhile: they change nothing that
//! they have not come to, except through another name of the same file. So a file of several names is not for a
//! scout, and the walk believes what is said of a name in the very directory that it has opened, and no other.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tokio::sync::mpsc;

use super::compare::has_same_content;
use super::destination::{Directory, There, id_of};
use super::flow::Flow;
use super::metadata::{has_no_xattrs, xattrs_of_file};
use super::plan::FromTree;
use super::selection::Selection;
use crate::entry::{Entry, Xattr};
use crate::receipt::DirectoryId;
use crate::tree_path::TreePath;

/// How many there are.
pub(super) const SCOUTS: usize = 2;

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
    /// Which of them it is.
    number: usize,
    selection: Selection,
    /// The directories down to where it is, the destination first; none without a destination.
    levels: Vec<Level>,
}

struct Level {
    path: TreePath,
    handle: Arc<OwnedFd>,
    id: DirectoryId,
    /// Where the system finds it, ending with a slash; none if that leads elsewhere.
    located: Option<Vec<u8>>,
}

impl Scout {
    pub(super) fn new(number: usize, selection: Selection, destination: Option<&Arc<Directory>>) -> Self {
        let root = destination.and_then(|root| {
            let handle = root.handle().ok()?;
            let located = std::fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd()));
            let located = located.ok().map(|path| path.into_os_string().into_vec());
            Some(Level::new(TreePath::root(), handle, root.id(), located))
        });
        Self { number, selection, levels: root.into_iter().collect() }
    }

    /// Goes through what comes from the tree, and hands it on with what was seen.
    pub(super) fn run(mut self, mut tree: mpsc::Receiver<Flow<FromTree>>, next: &mpsc::Sender<Flow<FromTree>>) {
        while let Some(mut news) = tree.blocking_recv() {
            if let Flow::Next(FromTree::Entries(entries)) = &mut news {
                for (index, selected) in entries.iter_mut().enumerate() {
                    let entry = &selected.placed.entry;
                    if entry.is_directory() {
                        self.enter(entry);
                    } else if index % SCOUTS == self.number {
                        selected.seen = self.look(entry);
                    }
                }
            }
            if next.blocking_send(news).is_err() {
                return;
            }
        }
    }

    /// Follows the walk into a directory, if it is there.
    fn enter(&mut self, entry: &Entry) {
        let below = self.above(entry).and_then(|(level, name)| level.open(name, &entry.path));
        self.levels.extend(below.filter(|_| self.levels.len() < MAX_DEPTH));
    }

    fn look(&mut self, entry: &Entry) -> Option<Seen> {
        entry.content()?;
        let (level, name) = self.above(entry)?;
        level.file(name, entry)
    }

    /// The directory that an entry stands in, if that is open, and the entry's name in it.
    fn above<'a>(&mut self, entry: &'a Entry) -> Option<(&mut Level, &'a [u8])> {
        let name = entry.path.name()?;
        // People leave out what hangs.
        if self.selection.hides(&entry.path, entry.is_directory()) {
            return None;
        }
        while self.levels.last().is_some_and(|level| !entry.path.starts_with(&level.path)) {
            self.levels.pop();
        }
        let level = self.levels.last_mut()?;
        let above_bytes = (entry.path.as_bytes().len() - name.len()).saturating_sub(1);
        (level.path.as_bytes().len() == above_bytes).then_some((level, name))
    }
}

impl Level {
    fn new(path: TreePath, handle: Arc<OwnedFd>, id: DirectoryId, located: Option<Vec<u8>>) -> Self {
        let leads_here = |located: &Vec<u8>| rustix::fs::stat(&located[..]).is_ok_and(|stat| id_of(&stat) == id);
        let mut located = located.filter(leads_here);
        if let Some(located) = &mut located {
            located.push(b'/');
        }
        Self { path, handle, id, located }
    }

    fn open(&self, name: &[u8], path: &TreePath) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&*self.handle, name, flags, Mode::empty()).ok()?;
        let id = id_of(&rustix::fs::fstat(&handle).ok()?);
        let located = self.located.as_ref().map(|located| [located, name].concat());
        Some(Self::new(path.clone(), Arc::new(handle), id, located))
    }

    fn file(&mut self, name: &[u8], entry: &Entry) -> Option<Seen> {
        let there = There::of(&rustix::fs::statat(&*self.handle, name, AtFlags::SYMLINK_NOFOLLOW).ok()?);
        if there.kind != FileType::RegularFile || there.links != 1 {
            return None;
        }
        let is_alike = has_same_content(entry, &there, None);
        let xattrs = if is_alike { self.xattrs(name) } else { None };
        Some(Seen { within: self.id, there, xattrs })
    }

    /// The attributes of a file in it: hardly any has some.
    fn xattrs(&mut self, name: &[u8]) -> Option<Vec<Xattr>> {
        if let Some(located) = &mut self.located {
            let bytes = located.len();
            located.extend_from_slice(name);
            let has_none = has_no_xattrs(located);
            located.truncate(bytes);
            if has_none {
                return Some(Vec::new());
            }
        }
        xattrs_of_file(self.handle.as_fd(), name).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{EntryKind, FileTime};
    use crate::format::page::{Placed, Placement};
    use crate::interrupt::Interrupt;
    use crate::observer::NoObserver;
    use crate::restore::Overwrite;
    use crate::restore::destination::open_root;
    use crate::restore::metadata::User;
    use crate::restore::plan::{Planner, Rules};
    use crate::restore::selection::Selected;
    use crate::restore::tests::{entry, file, temporary_root};

    fn scout(root: &Arc<Directory>, exclude: &[&str]) -> Scout {
        let exclude: Vec<_> = exclude.iter().map(|line| (*line).to_owned()).collect();
        let selection = Selection::new(Vec::new(), &exclude, &[], std::path::Path::new("/no/such/destination"));
        Scout::new(0, selection.expect("good patterns"), Some(root))
    }

    /// Makes a file, and the entry that it has the content of.
    fn make(folder: &tempfile::TempDir) -> Entry {
        let path = folder.path().join("a/b");
        std::fs::write(&path, b"x").expect("writes");
        let mtime = There::of(&rustix::fs::stat(&path).expect("is there")).mtime;
        Entry { mtime, ..file("a/b", b"x") }
    }

    #[test]
    fn a_file_is_seen_in_its_directory_with_its_attributes() {
        let (folder, root) = temporary_root();
        let within = root.create(b"a").expect("makes");
        let wanted = make(&folder);
        let has_attributes =
            rustix::fs::setxattr(folder.path().join("a/b"), "user.one", b"1", rustix::fs::XattrFlags::empty()).is_ok();
        let mut scout = scout(&root, &[]);
        scout.enter(&entry("", EntryKind::Directory));
        assert_eq!(scout.look(&wanted), None, "the directory did not come");
        scout.enter(&entry("a", EntryKind::Directory));
        let seen = scout.look(&wanted).expect("is there");
        assert_eq!((seen.within, Some(seen.there)), (within.id(), within.look(b"b").expect("looks")));
        assert_eq!(seen.xattrs.map(|xattrs| xattrs.len()), Some(usize::from(has_attributes)));
        let other = Entry { mtime: FileTime { seconds: 0, nanoseconds: 0 }, ..wanted };
        assert_eq!(scout.look(&other).expect("is there").xattrs, None, "nobody will ask");
        assert_eq!(scout.look(&file("a/c", b"x")), None);
        assert_eq!(scout.look(&file("d", b"x")), None);
    }

    #[test]
    fn attributes_are_never_those_of_what_has_taken_the_place_of_the_destination() {
        let folder = tempfile::tempdir().expect("a folder");
        let [place, elsewhere] = ["place", "elsewhere"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(place.join("a")).expect("makes");
        std::fs::write(place.join("a/b"), b"x").expect("writes");
        let marked = rustix::fs::setxattr(place.join("a/b"), "user.one", b"1", rustix::fs::XattrFlags::empty());
        let expected = usize::from(marked.is_ok());
        let root = open_root(&place).expect("opens");
        let mtime = There::of(&rustix::fs::stat(place.join("a/b")).expect("is there")).mtime;
        let wanted = Entry { mtime, ..file("a/b", b"x") };
        let attributes = |mut scout: Scout| {
            scout.enter(&entry("a", EntryKind::Directory));
            scout.look(&wanted).expect("is there").xattrs.expect("looked").len()
        };
        let before = scout(&root, &[]);
        std::fs::rename(&place, &elsewhere).expect("moves");
        std::fs::create_dir_all(place.join("a")).expect("makes");
        std::fs::write(place.join("a/b"), b"x").expect("writes");
        assert_eq!(attributes(before), expected, "by the path that was");
        assert_eq!(attributes(scout(&root, &[])), expected, "by the path that is");
    }

    #[test]
    fn what_can_change_through_another_name_and_what_a_link_leads_to_is_not_seen() {
        let (folder, root) = temporary_root();
        root.create(b"a").expect("makes");
        let wanted = make(&folder);
        std::fs::hard_link(folder.path().join("a/b"), folder.path().join("a/c")).expect("links");
        std::os::unix::fs::symlink("a", folder.path().join("link")).expect("links");
        let mut scout = scout(&root, &[]);
        scout.enter(&entry("a", EntryKind::Directory));
        assert_eq!(scout.look(&wanted), None, "two names");
        std::fs::remove_file(folder.path().join("a/c")).expect("removes");
        assert!(scout.look(&wanted).is_some());
        scout.enter(&entry("link", EntryKind::Directory));
        let through = Entry { path: TreePath::parse("link/b").expect("a path"), ..wanted };
        assert_eq!(scout.look(&through), None);
    }

    #[test]
    fn what_is_left_out_is_not_looked_at() {
        let (folder, root) = temporary_root();
        root.create(b"a").expect("makes");
        let wanted = make(&folder);
        for (exclude, sees) in [(&[][..], true), (&["b"], false), (&["/a/"], false), (&["c"], true)] {
            let mut scout = scout(&root, exclude);
            scout.enter(&entry("a", EntryKind::Directory));
            assert_eq!(scout.look(&wanted).is_some(), sees, "{exclude:?}");
        }
    }

    #[test]
    fn the_walk_believes_what_is_said_of_the_directory_that_it_has_opened_and_of_no_other() {
        let (folder, root) = temporary_root();
        let elsewhere = root.create(b"a").expect("makes");
        std::fs::write(folder.path().join("b"), b"longer").expect("writes");
        let wanted = file("b", b"x");
        let there = root.look(b"b").expect("looks").expect("is there");
        let said = There { size: 1, mode: wanted.mode, mtime: wanted.mtime, ..there };
        for (within, believed) in [(root.id(), true), (elsewhere.id(), false)] {
            let seen = Seen { within, there: said, xattrs: Some(Vec::new()) };
            let select = |entry, seen| {
                let content = Placement::Chunks(Vec::new());
                Selected { placed: Placed { entry, content }, on_the_way: false, seen }
            };
            let entries = vec![select(entry("", EntryKind::Directory), None), select(wanted.clone(), Some(seen))];
            let (sender, receiver) = mpsc::channel(2);
            sender.blocking_send(Flow::Next(FromTree::Entries(entries))).expect("room");
            sender.blocking_send(Flow::End).expect("room");
            let rules = Rules {
                selection: scout(&root, &[]).selection,
                overwrite: Overwrite::Changed,
                delete: false,
                verify: false,
                act: false,
                user: User::current(),
                interrupt: Interrupt::default(),
                observer: Arc::new(NoObserver),
            };
            let walked = Planner::new(rules, Some(Arc::clone(&root))).survey(receiver).expect("walks");
            let (_, tally) = walked.expect("to the end");
            assert_eq!((tally.unchanged, tally.written), if believed { (1, 0) } else { (0, 1) });
        }
    }
}
