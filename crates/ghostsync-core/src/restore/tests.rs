//! What the rooms of a restore need in their tests.

use std::sync::Arc;

use super::destination::{Directory, open_root};
use crate::entry::{ChunkList, Entry, EntryKind, FileContent, FileTime};
use crate::id::ContentHash;
use crate::tree_path::TreePath;

/// An empty directory, and the handle of a restore to it.
pub(super) fn temporary_root() -> (tempfile::TempDir, Arc<Directory>) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = open_root(folder.path()).expect("opens");
    (folder, root)
}

/// An entry of the current user.
pub(super) fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: TreePath::parse(path).expect("a path"),
        kind,
        mode: 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: FileTime { seconds: 1_600_000_000, nanoseconds: 1 },
        xattrs: Vec::new(),
        link: None,
        unread: false,
        unstable: false,
    }
}

/// A file whose content is one chunk.
pub(super) fn file(path: &str, content: &[u8]) -> Entry {
    let chunks = if content.is_empty() { ChunkList::None } else { ChunkList::Whole };
    let content = FileContent { size: content.len() as u64, hash: ContentHash::of(content), chunks, holes: Vec::new() };
    entry(path, EntryKind::File(content))
}
