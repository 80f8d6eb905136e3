//! The destination as directory handles: nothing is ever reached by a path that somebody could turn into a link.
//!
//! A [`Directory`] is opened from its parent's handle by one name, never through a link. Only so many handles
//! are open at once; one that was closed is opened again from the root down, and must then be the very same
//! directory (device and inode). So the depth of a tree, the length of a path and the number of directories in
//! flight have no limit of their own.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::entry::{DeviceNumber, FileTime};
use crate::receipt::{DirectoryId, DirectoryMark};
use crate::xattr::DEFAULT_ACL;

/// The most handles of directories that are kept open.
const MAX_OPEN: usize = 128;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One directory of the destination.
#[derive(Debug)]
pub(super) struct Directory {
    id: DirectoryId,
    place: Place,
    handles: Arc<Handles>,
    open: Mutex<Option<Arc<OwnedFd>>>,
    hands_acl_down: OnceLock<bool>,
}

#[derive(Debug)]
enum Place {
    Root(Arc<OwnedFd>),
    Below {
        parent: Arc<Directory>,
        name: Box<[u8]>,
    },
    /// Nobody holds it any more.
    Ended,
}

/// The handles that are open, and one of every file system that was met.
#[derive(Debug, Default)]
struct Handles {
    open: Mutex<VecDeque<Weak<Directory>>>,
    file_systems: Mutex<HashMap<u64, Arc<OwnedFd>>>,
}

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct There {
    pub(super) kind: FileType,
    pub(super) size: u64,
    /// The lowest 12 bits of `st_mode`.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: FileTime,
    pub(super) device: DeviceNumber,
    pub(super) id: DirectoryId,
    /// The number of hard links.
    pub(super) links: u64,
}

impl There {
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // the widths differ between processors
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: FileTime {
                seconds: stat.st_mtime as i64,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            device: DeviceNumber {
                major: rustix::fs::major(stat.st_rdev as u64),
                minor: rustix::fs::minor(stat.st_rdev as u64),
            },
            id: id_of(stat),
            links: stat.st_nlink as u64,
        }
    }
}

#[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
pub(super) fn id_of(stat: &Stat) -> DirectoryId {
    DirectoryId { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the destination itself; links in the given path are followed, for it is the user's word.
pub(super) fn open_root(path: &Path) -> io::Result<Arc<Directory>> {
    let handle = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let id = id_of(&rustix::fs::fstat(&handle)?);
    let handle = Arc::new(handle);
    let handles = Arc::new(Handles::default());
    lock(&handles.file_systems).insert(id.device, Arc::clone(&handle));
    Ok(Arc::new(Directory {
        id,
        place: Place::Root(handle),
        handles,
        open: Mutex::new(None),
        hands_acl_down: OnceLock::new(),
    }))
}

impl Directory {
    /// Tells this directory also from one that is made in its place.
    pub(super) fn mark(self: &Arc<Self>) -> io::Result<DirectoryMark> {
        DirectoryMark::of_handle(self.handle()?.as_fd())
    }

    /// Which directory it is.
    pub(super) fn id(&self) -> DirectoryId {
        self.id
    }

    /// Its handle, opened again if it was closed.
    pub(super) fn handle(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        if let Some(handle) = self.open_handle() {
            return Ok(handle);
        }
        let mut closed: Vec<&Arc<Self>> = Vec::new();
        let mut nearest = self;
        let mut handle = loop {
            match (nearest.open_handle(), &nearest.place) {
                (Some(handle), _) => break handle,
                (None, Place::Below { parent, .. }) => {
                    closed.push(nearest);
                    nearest = parent;
                }
                (None, Place::Root(_) | Place::Ended) => return Err(io::ErrorKind::NotFound.into()),
            }
        };
        for (depth, directory) in closed.into_iter().enumerate().rev() {
            let Place::Below { name, .. } = &directory.place else { continue };
            let opened = rustix::fs::openat(&*handle, &name[..], DIRECTORY, Mode::empty())?;
            if id_of(&rustix::fs::fstat(&opened)?) != directory.id {
                return Err(io::Error::other("another directory has taken its place meanwhile"));
            }
            handle = Arc::new(opened);
            // The way back up leads through the parents.
            if depth < MAX_OPEN / 2 {
                directory.remember(&handle);
            }
        }
        Ok(handle)
    }

    fn open_handle(&self) -> Option<Arc<OwnedFd>> {
        match &self.place {
            Place::Root(handle) => Some(Arc::clone(handle)),
            Place::Below { .. } | Place::Ended => lock(&self.open).clone(),
        }
    }

    fn remember(self: &Arc<Self>, handle: &Arc<OwnedFd>) {
        *lock(&self.open) = Some(Arc::clone(handle));
        let mut open = lock(&self.handles.open);
        open.push_back(Arc::downgrade(self));
        while open.len() > MAX_OPEN {
            if let Some(oldest) = open.pop_front().and_then(|oldest| oldest.upgrade()) {
                lock(&oldest.open).take();
            }
        }
    }

    /// Opens a directory in it; a link of that name is an error.
    pub(super) fn open(self: &Arc<Self>, name: &[u8]) -> io::Result<Arc<Self>> {
        let handle = rustix::fs::openat(&*self.handle()?, name, DIRECTORY, Mode::empty())?;
        let id = id_of(&rustix::fs::fstat(&handle)?);
        let handle = Arc::new(handle);
        // Errors of writing back are told to handles that were open before the writing.
        lock(&self.handles.file_systems).entry(id.device).or_insert_with(|| Arc::clone(&handle));
        let directory = Arc::new(Self {
            id,
            place: Place::Below { parent: Arc::clone(self), name: name.into() },
            handles: Arc::clone(&self.handles),
            open: Mutex::new(None),
            hands_acl_down: OnceLock::new(),
        });
        directory.remember(&handle);
        Ok(directory)
    }

    /// Makes a directory in it that only this user may enter, and opens it.
    pub(super) fn create(self: &Arc<Self>, name: &[u8]) -> io::Result<Arc<Self>> {
        rustix::fs::mkdirat(&*self.handle()?, name, Mode::RWXU)?;
        self.open(name)
    }

    /// Tells whether what is made in it may get an ACL that nobody asked for. Looked at once, when the first is made:
    /// a directory that is restored gets its own ACL when everything in it is done.
    pub(super) fn hands_acl_down(self: &Arc<Self>) -> bool {
        let look = || match self.handle().map(|handle| rustix::fs::fgetxattr(&*handle, DEFAULT_ACL, &mut [0; 0])) {
            Ok(Err(Errno::NODATA | Errno::OPNOTSUPP)) => false,
            Ok(_) | Err(_) => true,
        };
        *self.hands_acl_down.get_or_init(look)
    }

    /// Lists its names, sorted.
    pub(super) fn names(self: &Arc<Self>) -> io::Result<Vec<Box<[u8]>>> {
        let handle = self.handle()?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&*handle)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.into());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Looks at a name without opening what it names; `None` if nothing is there.
    pub(super) fn look(self: &Arc<Self>, name: &[u8]) -> io::Result<Option<There>> {
        match rustix::fs::statat(&*self.handle()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(There::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a name that is no directory.
    pub(super) fn unlink(self: &Arc<Self>, name: &[u8]) -> io::Result<()> {
        absent_is_fine(rustix::fs::unlinkat(&*self.handle()?, name, AtFlags::empty()))
    }

    /// Removes an empty directory.
    pub(super) fn remove(self: &Arc<Self>, name: &[u8]) -> io::Result<()> {
        absent_is_fine(rustix::fs::unlinkat(&*self.handle()?, name, AtFlags::REMOVEDIR))
    }

    /// Gives what stands under one name another, replacing what is there.
    pub(super) fn rename(self: &Arc<Self>, from: &[u8], to: &[u8]) -> io::Result<()> {
        let handle = self.handle()?;
        Ok(rustix::fs::renameat(&*handle, from, &*handle, to)?)
    }

    /// Waits until everything written to the file systems that were met is on their disks.
    pub(super) fn sync(&self) -> io::Result<()> {
        let file_systems: Vec<_> = lock(&self.handles.file_systems).values().cloned().collect();
        file_systems.iter().try_for_each(|handle| rustix::fs::syncfs(handle.as_fd())).map_err(Into::into)
    }
}

impl Drop for Directory {
    /// A chain of thousands of parents ends one by one, not one inside the other.
    fn drop(&mut self) {
        let mut next = std::mem::replace(&mut self.place, Place::Ended);
        while let Place::Below { parent, .. } = next {
            let Some(mut parent) = Arc::into_inner(parent) else { break };
            next = std::mem::replace(&mut parent.place, Place::Ended);
        }
    }
}

fn absent_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::tests::temporary_root;

    fn is_open(directory: &Directory) -> bool {
        lock(&directory.open).is_some()
    }

    #[test]
    fn few_handles_are_open_and_any_directory_can_be_reached() {
        let (_folder, root) = temporary_root();
        let first = root.create(b"first").and_then(|first| first.create(b"below")).expect("makes");
        let others: Vec<_> =
            (0..500).map(|number| root.create(number.to_string().as_bytes()).expect("makes")).collect();
        assert!(others.iter().filter(|directory| is_open(directory)).count() <= MAX_OPEN);
        assert!(!is_open(&first));
        first.create(b"still").expect("reaches it");
        assert_eq!(first.names().expect("lists"), [Box::from(&b"still"[..])]);
    }

    #[test]
    fn a_directory_that_was_swapped_for_a_link_is_not_entered() {
        let (folder, root) = temporary_root();
        let outside = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(outside.path().join("below")).expect("makes");
        let below = root.create(b"a").and_then(|a| a.create(b"below")).expect("makes");
        lock(&below.open).take();
        let Place::Below { parent, .. } = &below.place else { panic!("not below") };
        lock(&parent.open).take();
        std::fs::rename(folder.path().join("a"), folder.path().join("moved")).expect("moves");
        std::os::unix::fs::symlink(outside.path(), folder.path().join("a")).expect("links");
        assert!(below.create(b"x").is_err());
        std::fs::remove_file(folder.path().join("a")).expect("removes");
        std::fs::create_dir_all(folder.path().join("a/below")).expect("makes");
        assert!(below.create(b"x").is_err(), "another directory of that name is not it either");
        std::fs::remove_dir_all(folder.path().join("a")).expect("removes");
        std::fs::rename(folder.path().join("moved"), folder.path().join("a")).expect("moves back");
        below.create(b"x").expect("the very same directory");
        assert_eq!(std::fs::read_dir(outside.path().join("below")).expect("lists").count(), 0);
    }

    #[test]
    fn links_are_not_opened_as_directories() {
        let (folder, root) = temporary_root();
        std::os::unix::fs::symlink("/", folder.path().join("a")).expect("links");
        assert!(root.open(b"a").is_err());
        assert_eq!(root.look(b"a").expect("looks").map(|there| there.kind), Some(FileType::Symlink));
        assert_eq!(root.look(b"b").expect("looks"), None);
    }

    #[test]
    fn a_chain_of_any_length_can_be_dropped() {
        let (_folder, mut directory) = temporary_root();
        for _ in 0..200_000 {
            directory = Arc::new(Directory {
                id: directory.id,
                handles: Arc::clone(&directory.handles),
                place: Place::Below { parent: directory, name: b"a"[..].into() },
                open: Mutex::new(None),
                hands_acl_down: OnceLock::new(),
            });
        }
        drop(directory);
    }
}
