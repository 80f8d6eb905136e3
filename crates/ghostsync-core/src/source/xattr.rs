//! Extended attributes of what the walk finds, by way of `/proc/self/fd`: links, pipes and devices cannot be opened
//! for it. Those of a file come from its handle, when it is read.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::Errno;

use crate::entry::Xattr;
use crate::xattr;

/// Reads the attributes of an entry of an open directory; `.` is the directory itself.
///
/// # Errors
/// The system's.
pub(super) fn read(directory: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<Vec<Xattr>> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let read = xattr::read(
        |buffer| llistxattr(&path, spare_capacity(buffer)),
        |name, buffer| lgetxattr(&path, name, spare_capacity(buffer)),
    );
    match read {
        Err(Errno::NOENT) if rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {
            Err(std::io::Error::other("cannot read extended attributes without /proc"))
        }
        other => Ok(other?),
    }
}

/// Reads the attributes of an open file.
///
/// # Errors
/// The system's.
pub(super) fn of_file(file: &File) -> std::io::Result<Vec<Xattr>> {
    Ok(xattr::read(
        |buffer| flistxattr(file, spare_capacity(buffer)),
        |name, buffer| fgetxattr(file, name, spare_capacity(buffer)),
    )?)
}
