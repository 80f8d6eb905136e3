//! Extended attributes of anything, by way of `/proc/self/fd`: links, pipes and devices cannot be opened for it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, OFlags, lgetxattr, llistxattr};
use rustix::io::Errno;

use super::handle::{SourceRoot, open_beneath};
use crate::entry::Xattr;
use crate::tree_path::TreePath;

/// Enough for the attributes of nearly every file in one call.
const FIRST_BYTES: usize = 1024;

/// The most bytes that the system lets a value or a list of names have is 64 KiB; some file systems have more.
const MOST_BYTES: usize = 16 << 20;

/// Reads the attributes of an entry of an open directory, sorted by name; `.` is the directory itself.
///
/// No attributes where the file system has none. Left out are those that belong to the machine and not to the
/// content: SELinux labels, and all of `system.*` but POSIX ACLs.
pub(super) fn read(directory: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<Vec<Xattr>> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = CString::new(path)?;
    match read_all(&path) {
        Err(Errno::NOENT) if rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() => {
            Err(std::io::Error::other("cannot read extended attributes without /proc"))
        }
        other => Ok(other?),
    }
}

/// Reads the attributes of whatever now stands at a path below the root, as [`read`] does.
///
/// For a file whose metadata changed between the walk and the end of its reading.
pub(crate) fn file_xattrs(root: &SourceRoot, path: &TreePath) -> std::io::Result<Vec<Xattr>> {
    match (path.parent(), path.name()) {
        (Some(parent), Some(name)) => {
            read(open_beneath(root.as_fd(), &parent, OFlags::PATH | OFlags::DIRECTORY)?.as_fd(), name)
        }
        _ => read(root.as_fd(), b"."),
    }
}

fn read_all(path: &CString) -> rustix::io::Result<Vec<Xattr>> {
    let list = match grow(|buffer| llistxattr(path.as_c_str(), spare_capacity(buffer))) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        other => other?,
    };
    let mut xattrs = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| is_content(name)) {
        match grow(|buffer| lgetxattr(path.as_c_str(), name, spare_capacity(buffer))) {
            Ok(value) => xattrs.push(Xattr { name: name.to_vec(), value }),
            // Gone since it was listed, or listed by a file system that then does not hand it out.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// Calls with a buffer that grows until the answer fits.
fn grow(call: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut bytes = FIRST_BYTES;
    loop {
        let mut buffer = Vec::with_capacity(bytes);
        match call(&mut buffer) {
            Err(Errno::RANGE) if bytes < MOST_BYTES => bytes *= 8,
            Ok(_) => return Ok(buffer),
            Err(errno) => return Err(errno),
        }
    }
}

fn is_content(name: &[u8]) -> bool {
    match name {
        b"" | b"security.selinux" => false,
        b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        other => !other.starts_with(b"system."),
    }
}
