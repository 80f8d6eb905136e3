//! A file, directory or link whose metadata are looked at and set, each by a handle and never by a path.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use crate::entry::{FileTime, Xattr};
use crate::restore::destination::There;
use crate::xattr;

/// What metadata are set on.
#[derive(Debug, Clone, Copy)]
pub(in crate::restore) enum Target<'a> {
    /// A file or directory that is open for reading or writing.
    Open(BorrowedFd<'a>),
    /// Anything, a link included, opened only to name it.
    Named(BorrowedFd<'a>),
}

/// Opens whatever stands under a name, only to name it: no link is followed, no pipe waited for.
pub(in crate::restore) fn open_named(directory: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
}

impl Target<'_> {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) | Self::Named(fd) => fd.as_fd(),
        }
    }

    /// A path that leads to exactly this file, for the calls that take no handle of this sort.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd().as_raw_fd())
    }

    pub(in crate::restore) fn look(&self) -> io::Result<There> {
        Ok(There::of(&rustix::fs::fstat(self.fd())?))
    }

    pub(super) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        rustix::fs::chownat(self.fd(), "", uid, gid, AtFlags::EMPTY_PATH)
    }

    pub(super) fn set_mode(&self, mode: u32) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Self::Open(fd) => rustix::fs::fchmod(fd, mode),
            Self::Named(_) => rustix::fs::chmod(self.path(), mode),
        }
    }

    pub(super) fn set_mtime(&self, mtime: FileTime) -> rustix::io::Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) as _ },
        };
        match self {
            Self::Open(fd) => rustix::fs::futimens(fd, &times),
            Self::Named(_) => rustix::fs::utimensat(CWD, self.path(), &times, AtFlags::empty()),
        }
    }

    pub(super) fn set_xattr(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named(_) => rustix::fs::setxattr(self.path(), name, value, XattrFlags::empty()),
        }
    }

    pub(super) fn remove_xattr(&self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Named(_) => rustix::fs::removexattr(self.path(), name),
        }
    }

    /// The attributes that a snapshot would hold, sorted; none where the file system has none.
    pub(in crate::restore) fn xattrs(&self) -> rustix::io::Result<Vec<Xattr>> {
        none_if_absent(xattr::read(
            |buffer| match self {
                Self::Open(fd) => rustix::fs::flistxattr(fd, spare_capacity(buffer)),
                Self::Named(_) => rustix::fs::listxattr(self.path(), spare_capacity(buffer)),
            },
            |name, buffer| match self {
                Self::Open(fd) => rustix::fs::fgetxattr(fd, name, spare_capacity(buffer)),
                Self::Named(_) => rustix::fs::getxattr(self.path(), name, spare_capacity(buffer)),
            },
        ))
    }
}

/// The same of whatever stands under a name, without a handle of its own: a restore asks it of every file that is
/// right already.
pub(in crate::restore) fn xattrs_within(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<Xattr>> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    none_if_absent(xattr::read(
        |buffer| rustix::fs::llistxattr(&path, spare_capacity(buffer)),
        |name, buffer| rustix::fs::lgetxattr(&path, name, spare_capacity(buffer)),
    ))
}

/// The same of what was a regular file when it was looked at: to open it costs less than the way through `/proc`.
pub(in crate::restore) fn xattrs_of_file(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<Xattr>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => Target::Open(file.as_fd()).xattrs(),
        // It may not be read, but its attributes may be listed.
        Err(_) => xattrs_within(directory, name),
    }
}

/// Tells by its path that a file has none. Half of what a handle costs; and whoever leads the path elsewhere meanwhile
/// can give the file attributes just as well a moment later.
pub(in crate::restore) fn has_no_xattrs(path: &[u8]) -> bool {
    xattr::are_none(|buffer| rustix::fs::llistxattr(path, spare_capacity(buffer)))
}

/// Where `/proc` is not mounted, restores go on without attributes.
fn none_if_absent(xattrs: rustix::io::Result<Vec<Xattr>>) -> rustix::io::Result<Vec<Xattr>> {
    match xattrs {
        Err(Errno::NOENT) => Ok(Vec::new()),
        other => other,
    }
}
