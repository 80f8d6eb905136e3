//! A directory as a stream of entries in tree order.
//!
//! Each directory is opened before it is reported, by its name in the open directory above and never through a
//! link; its metadata come from the handle that is then listed. So what is said about a directory and what is
//! listed in it are always of the same one, whatever is swapped meanwhile. An entry that vanishes before it is
//! looked at is not there; whatever else keeps an entry from being read is reported with its path.
//!
//! Memory: the sorted names of each directory on the way down, and the handles of the deepest [`MAX_OPEN`] of them.
//! What lies a few directories [`ahead`] is looked at by a thread of its own where that is asked for.

mod ahead;
mod looks;

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use self::ahead::{Ahead, Coming, Opened};
use self::looks::{Looks, SLICE, Slice};
use super::excludes::{Excludes, Matcher};
use super::found::{Found, Walked, kind_of};
use super::handle::{SourceRoot, id_of, open_beneath, stat};
use super::names::Names;
use super::never::Never;
use super::xattr;
use crate::entry::Xattr;
use crate::error::{Error, Result};
use crate::receipt::DirectoryId;
use crate::temporary;
use crate::tree_path::{MAX_PATH_BYTES, TreePath};

/// The most directory handles that are held at once, besides the root's and one in passing.
const MAX_OPEN: usize = 32;

/// Directories of one that are planned ahead at once.
const MAX_PLANNED: usize = 32;

/// How often an entry that keeps changing its kind is looked at.
const MAX_LOOKS: usize = 3;

const CACHE_TAG: &CStr = c"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The walk: an iterator over everything in a directory, itself first.
///
/// After an error, which only the root itself can cause, it ends.
#[derive(Debug)]
pub(crate) struct Walk {
    root: SourceRoot,
    matcher: Matcher,
    never: Never,
    caches: bool,
    one_file_system: bool,
    /// The directories from the root to the one being gone through; empty before the root was entered.
    levels: Vec<Level>,
    /// What to do before the next name is looked at.
    then: Then,
    ahead: Option<Ahead>,
}

/// A directory that is being gone through.
#[derive(Debug)]
struct Level {
    path: TreePath,
    id: DirectoryId,
    handle: Handle,
    names: Arc<Names>,
    /// The number of the next name.
    next: usize,
    /// What the names are found to be, if that is not left to the walk alone, and the slice that it is at.
    looks: Option<Arc<Looks>>,
    slice: std::vec::IntoIter<rustix::io::Result<Stat>>,
    /// Directories in it that were planned ahead, by the numbers of their names, and up to which number all are.
    coming: VecDeque<(usize, Coming)>,
    planned: usize,
    /// It has a valid cache tag: only that is kept.
    is_cache: bool,
}

#[derive(Debug)]
enum Handle {
    Open(Arc<OwnedFd>),
    /// Closed because the walk went deep below; opened again on the way back.
    Closed,
    /// It could not be opened again, or was another directory then.
    Lost(Errno),
}

#[derive(Debug)]
enum Then {
    Root,
    Look,
    Enter(TreePath, Box<Opened>),
    Say(Walked),
    End,
}

/// What a look at one name tells.
enum Look {
    /// It has vanished, or is never content.
    Nothing,
    Entry(Walked),
    Directory(Found, Box<Opened>),
    /// A directory whose content is not looked at: what to say after the directory itself.
    Closed(Found, Walked),
}

impl Level {
    /// What the next name was found to be, if another has looked at it, or could have.
    fn known(&mut self, ahead: Option<&mut Ahead>) -> Option<rustix::io::Result<Stat>> {
        let looks = self.looks.as_ref()?;
        self.slice.next().or_else(|| {
            let (slice, is_wanted) = looks.take();
            if let Some(ahead) = ahead.filter(|_| is_wanted) {
                ahead.look(looks);
            }
            self.slice = slice.into_iter();
            self.slice.next()
        })
    }
}

impl Walk {
    /// Starts a walk; nothing is read yet.
    pub(crate) fn new(root: &SourceRoot, matcher: Matcher, excludes: &Excludes) -> Self {
        Self {
            root: root.clone(),
            matcher,
            never: Never::new(&excludes.never),
            caches: excludes.caches,
            one_file_system: excludes.one_file_system,
            levels: Vec::new(),
            then: Then::Root,
            ahead: None,
        }
    }

    /// Lets another thread look at what comes next. What it finds is some directories older than the rest.
    pub(crate) fn ahead(self) -> Self {
        // Another file system may lie anywhere, and is not to be touched.
        Self { ahead: (!self.one_file_system).then(Ahead::default), ..self }
    }

    /// Reads the extended attributes of the entry that the walk has just found.
    ///
    /// # Errors
    /// The system's; `NotFound` when the entry has vanished, `InvalidInput` for any other entry than the last.
    pub(crate) fn xattrs(&self, found: &Found) -> std::io::Result<Vec<Xattr>> {
        let Some(name) = found.path.name() else { return xattr::read(self.root.as_fd(), b".") };
        match self.levels.last() {
            Some(Level { path, handle: Handle::Open(handle), .. }) if found.path.parent().as_ref() == Some(path) => {
                xattr::read(handle.as_fd(), name)
            }
            _ => Err(std::io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Looks at the root, and opens it anew: a walk of its own needs a place in the listing of its own.
    fn find_root(&mut self) -> Result<Walked> {
        let failed = |errno| self.root.error(errno);
        let opened = Opened::open(self.root.as_fd(), c".").map_err(failed)?;
        let found = Found::from_stat(TreePath::root(), &opened.stat, None);
        let found = found.ok_or_else(|| Error::internal("the source directory is of no known kind"))?;
        self.then = Then::Enter(TreePath::root(), Box::new(opened));
        Ok(Walked::Found(found))
    }

    /// Lists a directory, and makes it the one that is gone through.
    fn enter(&mut self, path: TreePath, opened: Opened) -> rustix::io::Result<()> {
        let Opened { handle, stat, names, mut looks } = opened;
        let id = id_of(&stat);
        let names = match names.unwrap_or_else(|| Names::list(handle.as_fd(), longest_name(&path)).map(Arc::new)) {
            // Removed after it was opened: it was empty then. A root that was removed is no empty source.
            Err(Errno::NOENT) if !path.is_root() => Arc::default(),
            other => other?,
        };
        let is_cache = self.caches && names.contains(CACHE_TAG) && has_cache_tag(handle.as_fd());
        self.never.enter(&path, id);
        if let Some(ahead) = self.ahead.as_mut().filter(|_| looks.is_none() && names.len() > SLICE) {
            let planned = looks.insert(Looks::planned(&handle, &names));
            ahead.look(planned);
        }
        let (handle, slice, coming) = (Handle::Open(handle), Slice::new().into_iter(), VecDeque::new());
        self.levels.push(Level { path, id, handle, names, next: 0, looks, slice, coming, planned: 0, is_cache });
        self.plan_ahead();
        let deep = self.levels.len().checked_sub(MAX_OPEN + 1);
        if let Some(level) = deep.and_then(|deep| self.levels.get_mut(deep)) {
            (level.handle, level.looks) = (Handle::Closed, None);
        }
        Ok(())
    }

    /// Plans the next directories of the one that is gone through, unless some are still to come.
    fn plan_ahead(&mut self) {
        let (Some(ahead), Some(level)) = (&mut self.ahead, self.levels.last_mut()) else { return };
        let Handle::Open(handle) = &level.handle else { return };
        if level.is_cache || !level.coming.is_empty() {
            return;
        }
        let (mut numbers, mut names) = (Vec::new(), Vec::new());
        for (number, name) in level.names.directories(level.planned) {
            level.planned = number + 1;
            let Ok(path) = level.path.join(name.to_bytes()) else { continue };
            if !self.never.hides(&path) && !self.matcher.excludes(&path, true) {
                numbers.push(number);
                names.push((CString::from(name), longest_name(&path)));
            }
            if names.len() == MAX_PLANNED {
                break;
            }
        }
        level.coming = numbers.into_iter().zip(ahead.plan(handle, &names)).collect();
    }

    /// Leaves a directory for the one above, whose handle may have to be opened again.
    fn leave(&mut self) {
        let left = self.levels.pop();
        let Some(level) = self.levels.last_mut() else { return };
        if level.next < level.names.len() && matches!(level.handle, Handle::Closed) {
            level.handle = match reopen(&self.root, level, left.as_ref()) {
                Ok(handle) => Handle::Open(Arc::new(handle)),
                Err(errno) => Handle::Lost(errno),
            };
        }
    }

    /// Looks at one name of a directory, or takes what is known of it already.
    fn look(
        &self,
        level: &Level,
        name: &CStr,
        mut known: Option<rustix::io::Result<Stat>>,
        mut coming: Option<Coming>,
    ) -> Result<Look> {
        let path = level.path.join(name.to_bytes()).map_err(|error| Error::internal(error.to_string()))?;
        if self.never.hides(&path) {
            return Ok(Look::Nothing);
        }
        let handle = match &level.handle {
            Handle::Open(handle) => handle.as_fd(),
            Handle::Closed => return Err(Error::internal("a directory of the walk was left closed")),
            Handle::Lost(errno) => return Ok(self.unreadable(path, *errno)),
        };
        let hidden = level.is_cache && name != CACHE_TAG;
        for _ in 0..MAX_LOOKS {
            let looked = known.take().unwrap_or_else(|| stat(handle, name.to_bytes()));
            if let Some(look) = self.look_once(&path, handle, name, looked, coming.take(), hidden) {
                return Ok(look);
            }
        }
        Ok(self.unreadable(path, Errno::STALE))
    }

    /// One attempt at it; `None` if the entry became another between two calls.
    fn look_once(
        &self,
        path: &TreePath,
        parent: BorrowedFd<'_>,
        name: &CStr,
        looked: rustix::io::Result<Stat>,
        coming: Option<Coming>,
        hidden: bool,
    ) -> Option<Look> {
        let stat = match looked {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Some(Look::Nothing),
            Err(errno) => return Some(self.unreadable(path.clone(), errno)),
        };
        let kind = kind_of(&stat);
        if kind != FileType::Directory && temporary::is_temporary(name.to_bytes()) {
            // Of a restore or a receipt that is being written, or was cut.
            return Some(Look::Nothing);
        }
        if hidden || self.matcher.excludes(path, kind == FileType::Directory) {
            return Some(Look::Entry(Walked::Excluded { path: path.clone() }));
        }
        match kind {
            FileType::Directory => self.look_into(path, parent, name, &stat, coming),
            FileType::Symlink => match rustix::fs::readlinkat(parent, name, Vec::new()) {
                Ok(target) => Some(self.entry(path, &stat, Some(target.into_bytes()))),
                Err(Errno::NOENT) => Some(Look::Nothing),
                Err(Errno::INVAL) => None,
                Err(errno) => Some(self.unreadable(path.clone(), errno)),
            },
            _ => Some(self.entry(path, &stat, None)),
        }
    }

    /// Opens what was a directory when it was looked at.
    fn look_into(
        &self,
        path: &TreePath,
        parent: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        coming: Option<Coming>,
    ) -> Option<Look> {
        let excluded = || Walked::Excluded { path: path.clone() };
        if self.is_foreign(stat) {
            return Some(Look::Closed(Found::from_stat(path.clone(), stat, None)?, excluded()));
        }
        match coming.and_then(Coming::take).unwrap_or_else(|| Opened::open(parent, name)) {
            Ok(opened) => {
                let found = Found::from_stat(path.clone(), &opened.stat, None)?;
                let foreign = self.is_foreign(&opened.stat);
                Some(if foreign { Look::Closed(found, excluded()) } else { Look::Directory(found, Box::new(opened)) })
            }
            Err(Errno::NOENT) => Some(Look::Nothing),
            Err(Errno::NOTDIR | Errno::LOOP) => None,
            Err(errno) => {
                let unreadable = Walked::Unreadable { path: path.clone(), below: true, error: errno.into() };
                Some(Look::Closed(Found::from_stat(path.clone(), stat, None)?, unreadable))
            }
        }
    }

    fn entry(&self, path: &TreePath, stat: &Stat, target: Option<Vec<u8>>) -> Look {
        match Found::from_stat(path.clone(), stat, target) {
            Some(found) => Look::Entry(Walked::Found(found)),
            None => self.unreadable(path.clone(), Errno::OPNOTSUPP),
        }
    }

    /// Nothing could be learned about the entry, unless it does not matter: people exclude what hangs or fails.
    fn unreadable(&self, path: TreePath, errno: Errno) -> Look {
        Look::Entry(if self.matcher.excludes(&path, true) || self.matcher.excludes(&path, false) {
            Walked::Excluded { path }
        } else {
            Walked::Unreadable { path, below: false, error: errno.into() }
        })
    }

    fn is_foreign(&self, stat: &Stat) -> bool {
        self.one_file_system && id_of(stat).device != self.root.directory_id().device
    }

    /// Takes the next name of the innermost directory; `None` when there was nothing to tell about it.
    fn step(&mut self) -> Result<Option<Walked>> {
        let Some(level) = self.levels.last_mut() else {
            self.then = Then::End;
            return Ok(None);
        };
        let coming = level.coming.pop_front_if(|(number, _)| *number == level.next).map(|(_, coming)| coming);
        let was_planned = coming.is_some();
        let known = level.known(self.ahead.as_mut());
        let level = &self.levels[self.levels.len() - 1];
        let Some(name) = level.names.get(level.next) else {
            self.leave();
            return Ok(None);
        };
        let look = self.look(level, name, known, coming)?;
        if let Some(level) = self.levels.last_mut() {
            level.next += 1;
        }
        if was_planned {
            self.plan_ahead();
        }
        Ok(match look {
            Look::Nothing => None,
            Look::Entry(walked) => Some(walked),
            Look::Directory(found, opened) => {
                self.then = Then::Enter(found.path.clone(), opened);
                Some(Walked::Found(found))
            }
            Look::Closed(found, after) => {
                self.then = Then::Say(after);
                Some(Walked::Found(found))
            }
        })
    }

    fn advance(&mut self) -> Result<Option<Walked>> {
        loop {
            match std::mem::replace(&mut self.then, Then::Look) {
                Then::Root => return self.find_root().map(Some),
                Then::Say(walked) => return Ok(Some(walked)),
                Then::Enter(path, opened) => match self.enter(path.clone(), *opened) {
                    Ok(()) => {}
                    Err(errno) if path.is_root() => return Err(self.root.error(errno)),
                    Err(errno) => return Ok(Some(Walked::Unreadable { path, below: true, error: errno.into() })),
                },
                Then::Look => {
                    if let Some(walked) = self.step()? {
                        return Ok(Some(walked));
                    }
                }
                Then::End => {
                    self.then = Then::End;
                    return Ok(None);
                }
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Result<Walked>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.then = Then::End;
        }
        next.transpose()
    }
}

/// The most bytes that a name in a directory may have.
fn longest_name(directory: &TreePath) -> usize {
    MAX_PATH_BYTES.saturating_sub(directory.as_bytes().len() + 1)
}

/// Opens a directory on the way back up: as the parent of the one that is left, or else down from the root.
/// Either way it must be the very directory that was listed.
fn reopen(root: &SourceRoot, level: &Level, left: Option<&Level>) -> rustix::io::Result<OwnedFd> {
    let same = |handle: OwnedFd| {
        let id = id_of(&rustix::fs::fstat(&handle)?);
        if id == level.id { Ok(handle) } else { Err(Errno::STALE) }
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = match left {
        Some(Level { handle: Handle::Open(handle), .. }) => {
            rustix::fs::openat(handle, c"..", flags, Mode::empty()).and_then(same)
        }
        _ => Err(Errno::STALE),
    };
    above.or_else(|_| open_beneath(root.as_fd(), &level.path, flags).and_then(same))
}

/// Tells whether a directory's cache tag is one: a regular file that begins with the signature.
///
/// See <https://bford.info/cachedir/>. A tag that cannot be read is none: rather too much in a backup than too little.
fn has_cache_tag(directory: BorrowedFd<'_>) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(directory, CACHE_TAG, flags, Mode::empty()) else { return false };
    if !rustix::fs::fstat(&file).is_ok_and(|stat| kind_of(&stat) == FileType::RegularFile) {
        return false;
    }
    let mut begin = [0; CACHE_SIGNATURE.len()];
    std::fs::File::from(file).read_exact(&mut begin).is_ok() && begin == *CACHE_SIGNATURE
}

#[cfg(test)]
mod tests;
