//! What a walk finds, as data.

use std::io;

use rustix::fs::{FileType, Stat, major, minor};

use crate::entry::{DeviceNumber, FileTime};
use crate::tree_path::TreePath;

/// One piece of news of a walk.
#[derive(Debug)]
pub(crate) enum Walked {
    /// An entry, and its metadata.
    Found(Found),
    /// Something of the source could not be read; it is not known to be gone.
    Unreadable {
        /// The entry.
        path: TreePath,
        /// The directory itself was found just before, but not all of its names could be listed: nothing below it
        /// follows. Otherwise nothing is known about the entry, not even whether it is a directory.
        below: bool,
        /// Why.
        error: io::Error,
    },
    /// An entry that the excludes hide; a directory stands for everything below it.
    ///
    /// A mount point of another file system is found, and then named again by this: all that lies below is hidden.
    Excluded {
        /// The entry.
        path: TreePath,
    },
}

impl Walked {
    /// Where it happened; these paths never go backwards.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &TreePath {
        match self {
            Self::Found(found) => &found.path,
            Self::Unreadable { path, .. } | Self::Excluded { path } => path,
        }
    }
}

/// An entry of the source with the metadata that it had when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) path: TreePath,
    pub(crate) kind: FoundKind,
    /// The lowest 12 bits of `st_mode`.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: FileTime,
    pub(crate) ctime: FileTime,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// The number of hard links.
    pub(crate) links: u64,
}

/// What a found entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundKind {
    File {
        /// Length in bytes, holes included.
        size: u64,
    },
    Directory,
    Symlink {
        target: Vec<u8>,
    },
    Fifo,
    CharDevice(DeviceNumber),
    BlockDevice(DeviceNumber),
    Socket,
}

impl Found {
    /// Makes it from what the system tells, with the target that a link has.
    ///
    /// `None` for a kind of file that this system knows and we do not, and for a link without its target.
    pub(crate) fn from_stat(path: TreePath, stat: &Stat, target: Option<Vec<u8>>) -> Option<Self> {
        let device = || DeviceNumber { major: major(stat.st_rdev), minor: minor(stat.st_rdev) };
        let kind = match kind_of(stat) {
            FileType::RegularFile => FoundKind::File { size: size_of(stat) },
            FileType::Directory => FoundKind::Directory,
            FileType::Symlink => FoundKind::Symlink { target: target? },
            FileType::Fifo => FoundKind::Fifo,
            FileType::CharacterDevice => FoundKind::CharDevice(device()),
            FileType::BlockDevice => FoundKind::BlockDevice(device()),
            FileType::Socket => FoundKind::Socket,
            FileType::Unknown => return None,
        };
        // The widths of these fields differ between processors.
        #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
        Some(Self {
            path,
            kind,
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: FileTime { seconds: stat.st_mtime as i64, nanoseconds: stat.st_mtime_nsec as u32 },
            ctime: FileTime { seconds: stat.st_ctime as i64, nanoseconds: stat.st_ctime_nsec as u32 },
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            links: stat.st_nlink as u64,
        })
    }
}

/// The kind of file that a stat tells of.
pub(super) fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The length that a stat tells; the system never tells a negative one.
pub(super) fn size_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}
