//! One file, directory, link or special file of a tree, as data.

use crate::id::{ChunkId, ContentHash, PageId};
use crate::tree_path::TreePath;

/// One entry of a tree: where it stands, what it is, and its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands; the root directory is the empty path.
    pub path: TreePath,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky: the lowest 12 bits of `st_mode`.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Time of the last change of content.
    pub mtime: FileTime,
    /// Extended attributes sorted by name, POSIX ACLs among them.
    pub xattrs: Vec<Xattr>,
    /// The path of the first member, in tree order, of the hard-link group that this belongs to; the first
    /// member names itself. `None` for an entry with one link.
    pub link: Option<TreePath>,
    /// It could not be read: this is the parent snapshot's version, carried forward.
    pub unread: bool,
    /// It changed while it was read, as often as it was tried: the content may mix several states.
    pub unstable: bool,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File(FileContent),
    /// A directory.
    Directory,
    /// A symbolic link and its target, byte for byte.
    Symlink {
        /// What the link says; it is never followed.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
    /// A socket: recorded, never restored, and counted nowhere.
    Socket,
}

/// The number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    /// The driver.
    pub major: u32,
    /// The device of that driver.
    pub minor: u32,
}

/// The content of a regular file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Length in bytes, holes included.
    pub size: u64,
    /// The hash of the whole content, holes read as zeros.
    pub hash: ContentHash,
    /// The chunks that cover the content without its holes, in order.
    pub chunks: ChunkList,
    /// Ranges without data, sorted, not touching one another; `chunks` leaves them out.
    pub holes: Vec<Hole>,
}

impl FileContent {
    /// The bytes that chunks cover: the size without the holes.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        let holes: u64 = self.holes.iter().map(|hole| hole.length).sum();
        self.size.saturating_sub(holes)
    }
}

/// A range of a sparse file without data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; never 0.
    pub length: u64,
}

/// The chunks of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkList {
    /// No data at all: an empty file, or nothing but a hole.
    None,
    /// One chunk that is the whole content.
    Whole,
    /// At most [`MAX_INLINE_CHUNKS`] chunks, named one by one.
    Inline(Vec<ChunkId>),
    /// More chunks than that, named by a small tree of list pages.
    Pages {
        /// The root of that tree.
        root: PageId,
        /// Its level; 0 is a page that names chunks itself.
        level: u8,
        /// The number of chunks.
        count: u64,
    },
}

/// The most bytes of a file, holes included: more than anything that was ever hashed, and a number that every reader
/// of JSON keeps exact.
pub const MAX_FILE_BYTES: u64 = 1 << 53;

/// The most chunks that an entry names itself.
pub const MAX_INLINE_CHUNKS: usize = 256;

/// A point in time of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Seconds since 1970-01-01 UTC, negative before.
    pub seconds: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Its name with the namespace, such as `user.comment`.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Entry {
    /// The content, if this is a regular file.
    #[must_use]
    pub fn content(&self) -> Option<&FileContent> {
        match &self.kind {
            EntryKind::File(content) => Some(content),
            _ => None,
        }
    }

    /// Tells whether this is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, EntryKind::Directory)
    }

    /// Tells whether this counts as an entry of the snapshot: everything but the root and sockets.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.path.is_root() && !matches!(self.kind, EntryKind::Socket)
    }

    /// Tells whether its loss counts for the deletion cap: files, links and special files.
    #[must_use]
    pub fn counts_for_caps(&self) -> bool {
        !matches!(self.kind, EntryKind::Directory | EntryKind::Socket)
    }

    /// The size in bytes of a regular file, 0 for anything else.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.content().map_or(0, |content| content.size)
    }
}

impl EntryKind {
    /// Names the kind as it is written in pages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Directory => "dir",
            Self::Symlink { .. } => "symlink",
            Self::Fifo => "fifo",
            Self::CharDevice(_) => "char",
            Self::BlockDevice(_) => "block",
            Self::Socket => "socket",
        }
    }
}
