//! Directory handles: the source's root, and what lies beneath it without ever following a link.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::receipt::{DirectoryId, DirectoryMark};
use crate::tree_path::TreePath;

/// The longest path that one system call takes, without the NUL that ends it.
const MAX_CALL_BYTES: usize = 4095;

/// The directory that is backed up, held open: whatever is renamed or mounted over its path later, this is it.
#[derive(Debug, Clone)]
pub(crate) struct SourceRoot {
    handle: Arc<OwnedFd>,
    id: DirectoryId,
    path: PathBuf,
}

impl SourceRoot {
    /// Opens the directory; links in the given path are followed.
    ///
    /// # Errors
    /// `LocalIo`; its `io_error` tells a missing directory (`NotFound`) from something else of that name
    /// (`NotADirectory`) and from one that may not be read (`PermissionDenied`).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |errno: Errno| Error::local("open the source directory", path.display(), errno.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
        let id = id_of(&rustix::fs::fstat(&handle).map_err(failed)?);
        // One that may be listed but not entered can be opened, and nothing in it be reached.
        open_directory(handle.as_fd(), c".").map_err(failed)?;
        Ok(Self { handle: Arc::new(handle), id, path: path.to_owned() })
    }

    /// Tells this directory from every other on the machine.
    pub(crate) fn directory_id(&self) -> DirectoryId {
        self.id
    }

    /// Tells this directory also from one that is made in its place.
    ///
    /// # Errors
    /// `LocalIo`.
    pub(crate) fn mark(&self) -> Result<DirectoryMark> {
        let looked = DirectoryMark::of_handle(self.handle.as_fd());
        looked.map_err(|error| Error::local("look at the source directory", self.path.display(), error))
    }

    /// A failure at the root itself, as the error that ends everything.
    pub(super) fn error(&self, errno: Errno) -> Error {
        Error::local("read the source directory", self.path.display(), errno.into())
    }
}

impl AsFd for SourceRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

#[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // the widths differ between processors
pub(super) fn id_of(stat: &Stat) -> DirectoryId {
    DirectoryId { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
}

/// Opens one name of a directory for listing; a link of that name is an error.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    without_touching(flags, |flags| rustix::fs::openat(parent, name, flags, Mode::empty()))
}

/// Opens a path below a directory; no link in it is followed, the last name included (`ELOOP`), except that with
/// `PATH` and `NOFOLLOW` the last name may be a link, which is then opened itself.
pub(super) fn open_beneath(root: BorrowedFd<'_>, path: &TreePath, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let opened = in_pieces(root, path, MAX_CALL_BYTES, flags, |parent, piece, flags| {
        rustix::fs::openat2(parent, piece, flags, Mode::empty(), resolve)
    });
    match opened {
        // A kernel without the call, or a container that forbids it.
        Err(Errno::NOSYS | Errno::PERM) => in_pieces(root, path, 0, flags, |parent, piece, flags| {
            rustix::fs::openat(parent, piece, flags, Mode::empty())
        }),
        other => other,
    }
}

/// Opens a path in pieces of at most `most` bytes, or of one name each, by a call that follows no link in a piece.
fn in_pieces(
    root: BorrowedFd<'_>,
    path: &TreePath,
    most: usize,
    flags: OFlags,
    open: impl Fn(BorrowedFd<'_>, &[u8], OFlags) -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<OwnedFd> {
    let mut parent: Option<OwnedFd> = None;
    let mut rest = if path.is_root() { b"." } else { path.as_bytes() };
    loop {
        let (piece, below) = split_piece(rest, most);
        let directory = parent.as_ref().map_or(root, AsFd::as_fd);
        if below.is_empty() {
            return without_touching(flags, |flags| open(directory, piece, flags));
        }
        let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        parent = Some(open(directory, piece, through)?);
        rest = below;
    }
}

/// Splits off as many whole names as fit into `most` bytes, but at least one.
fn split_piece(path: &[u8], most: usize) -> (&[u8], &[u8]) {
    if path.len() <= most {
        return (path, &[]);
    }
    let window = path.get(..=most).unwrap_or(path);
    let end = window.iter().rposition(|byte| *byte == b'/').or_else(|| path.iter().position(|byte| *byte == b'/'));
    match end.and_then(|end| path.split_at_checked(end)) {
        Some((piece, below)) => (piece, below.get(1..).unwrap_or(&[])),
        None => (path, &[]),
    }
}

/// Opens without changing the access time, where the system allows it: a backup is no use of a file.
fn without_touching(
    flags: OFlags,
    open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<OwnedFd> {
    if flags.contains(OFlags::PATH) {
        return open(flags);
    }
    match open(flags | OFlags::NOATIME) {
        // Only the owner and the superuser may ask for it.
        Err(Errno::PERM) => open(flags),
        other => other,
    }
}

/// Opens a file of a directory for reading; never waits for the other end of a pipe.
pub(super) fn open_file(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    without_touching(flags, |flags| rustix::fs::openat(directory, name, flags, Mode::empty())).map(File::from)
}

/// Looks at what now stands under a name of a directory, without following it.
pub(super) fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_between_names() {
        let table: &[(&[u8], usize, &[u8], &[u8])] = &[
            (b"abc", 10, b"abc", b""),
            (b"abc", 0, b"abc", b""),
            (b"a/b/c", 5, b"a/b/c", b""),
            (b"a/b/c", 4, b"a/b", b"c"),
            (b"a/b/c", 3, b"a/b", b"c"),
            (b"a/b/c", 2, b"a", b"b/c"),
            (b"a/b/c", 0, b"a", b"b/c"),
            (b"long/b", 2, b"long", b"b"),
        ];
        for (path, most, piece, below) in table {
            assert_eq!(split_piece(path, *most), (*piece, *below), "{path:?} {most}");
        }
    }

    #[test]
    fn no_link_is_followed_with_or_without_openat2() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("real/below")).expect("created");
        std::fs::write(at("real/below/file"), b"x").expect("written");
        std::os::unix::fs::symlink("real", at("link")).expect("linked");
        std::os::unix::fs::symlink("file", at("real/below/last")).expect("linked");
        let root = SourceRoot::open(directory.path()).expect("opened");
        let path = |text: &str| TreePath::parse(text).expect("a valid path");
        for most in [0, 4, MAX_CALL_BYTES] {
            let open = |text: &str, flags: OFlags| {
                in_pieces(root.as_fd(), &path(text), most, flags | OFlags::NOFOLLOW, |parent, piece, flags| {
                    if most == 0 {
                        rustix::fs::openat(parent, piece, flags, Mode::empty())
                    } else {
                        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                        rustix::fs::openat2(parent, piece, flags, Mode::empty(), resolve)
                    }
                })
                .map(|_| ())
            };
            assert_eq!(open("real/below/file", OFlags::RDONLY), Ok(()), "{most}");
            assert_eq!(open("", OFlags::RDONLY), Ok(()), "{most}");
            assert!(matches!(open("link/below/file", OFlags::RDONLY), Err(Errno::LOOP | Errno::NOTDIR)), "{most}");
            assert_eq!(open("real/below/last", OFlags::RDONLY), Err(Errno::LOOP), "{most}");
            assert_eq!(open("real/below/last", OFlags::PATH), Ok(()), "{most}");
            assert_eq!(open("real/gone/file", OFlags::RDONLY), Err(Errno::NOENT), "{most}");
        }
    }

    #[test]
    fn missing_and_not_a_directory_are_told_apart() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("file");
        std::fs::write(&file, b"").expect("written");
        let kind = |path: &Path| SourceRoot::open(path).expect_err("fails").io_error().map(std::io::Error::kind);
        assert_eq!(kind(&directory.path().join("gone")), Some(std::io::ErrorKind::NotFound));
        assert_eq!(kind(&file), Some(std::io::ErrorKind::NotADirectory));
    }
}
