//! Which extended attributes belong to a snapshot, and how they are read, whatever they are read from.

use rustix::io::Errno;

use crate::entry::Xattr;

/// The ACL of a file or directory itself, in the system's own form.
pub(crate) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// The ACL that new entries of a directory get.
pub(crate) const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// Enough for the attributes of nearly every file in one call.
const FIRST_BYTES: usize = 256;

/// The most bytes that the system lets a value or a list of names have is 64 KiB; some file systems have more.
const MOST_BYTES: usize = 16 << 20;

/// Reads attributes by a call that lists their names and one that gets a value; sorted by name.
///
/// None where the file system has none. Left out are those that belong to the machine and not to the content: SELinux
/// labels, and all of `system.*` but POSIX ACLs.
///
/// # Errors
/// The system's.
pub(crate) fn read(
    list: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut Vec<u8>) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<Xattr>> {
    let names = names(list)?;
    let mut xattrs = Vec::new();
    for name in content_names(&names) {
        match with_room(|buffer| get(name, buffer)) {
            Ok(value) => xattrs.push(Xattr { name: name.to_vec(), value }),
            // Gone since it was listed, or listed by a file system that then does not hand it out.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno),
        }
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// Tells by a call that lists names that there are no attributes for a snapshot; not if it fails.
pub(crate) fn are_none(list: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>) -> bool {
    names(list).is_ok_and(|names| content_names(&names).next().is_none())
}

/// Lists names, each ending with a zero byte.
fn names(list: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    match with_room(list) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Vec::new()),
        other => other,
    }
}

/// Calls with a buffer that grows until the answer fits.
fn with_room(call: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut bytes = FIRST_BYTES;
    loop {
        let mut buffer = Vec::with_capacity(bytes);
        match call(&mut buffer) {
            Err(Errno::RANGE) if bytes < MOST_BYTES => bytes *= 16,
            Ok(_) => return Ok(buffer),
            Err(errno) => return Err(errno),
        }
    }
}

fn content_names(names: &[u8]) -> impl Iterator<Item = &[u8]> {
    names.split(|byte| *byte == 0).filter(|name| is_content(name))
}

fn is_content(name: &[u8]) -> bool {
    match name {
        b"" | b"security.selinux" => false,
        ACCESS_ACL | DEFAULT_ACL => true,
        other => !other.starts_with(b"system."),
    }
}
