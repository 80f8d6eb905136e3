//! Pages: a tree's sorted entries, cut where the names say, each one zstd frame of JSON lines.
//!
//! ```text
//! {"kind":"tree","level":0,"packs":["<begin>-<session>/<n>", ...]}      header
//! {"path":"a","kind":"file","mode":420, ...}                            entry lines: their BLAKE3 is the id
//! {"chunks":{"<id>":[pack,frame offset,frame length,offset,length]},"pages":{...}}   placements
//! ```
//! Levels above 0 hold one line a child page. Lists of the chunks of large files are pages too. The id leaves
//! out where things lie, so equal content has equal ids in any repository; the frame hash in the reference to a
//! page covers everything.

mod build;
mod decode;
mod lines;
mod plain;

use super::FormatError;
use crate::entry::Entry;
use crate::id::{ChunkId, FrameHash, PackName, PageId};
use crate::tree_path::TreePath;

pub use build::{EncodedPage, PageBuilder};
pub use decode::{decode, decode_unverified};
pub(crate) use lines::put_entry_line;
pub use lines::{child_line_bytes, decode_entry_line, entry_line};

/// The most lines of a page.
pub const MAX_PAGE_LINES: usize = 4096;
/// The most bytes of entry lines in a page of more than one line.
pub const MAX_PAGE_BYTES: usize = 1 << 20;
/// The most bytes of a single entry line, which then stands alone on its page.
pub const MAX_ENTRY_BYTES: usize = 16 << 20;
/// The most bytes of a page before compression, placements included.
pub const MAX_PAGE_CONTENT_BYTES: u64 = 48 << 20;
/// The most bytes of a page's frame.
pub const MAX_PAGE_FRAME_BYTES: u64 = 48 << 20;
/// The highest level that a reader follows; pages of two lines each would hold 2^32 entries.
pub const MAX_LEVEL: u8 = 32;

const WHAT: &str = "page";

/// Where a chunk lies: a range of the content of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkPlacement {
    /// The data pack.
    pub pack: PackName,
    /// Where the block's frame begins in the pack, in bytes.
    pub frame_offset: u64,
    /// The frame's length in bytes.
    pub frame_bytes: u32,
    /// Where the chunk begins in the block's content, in bytes.
    pub offset: u32,
    /// The chunk's length in bytes.
    pub bytes: u32,
}

/// Where a page lies, and what its frame must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagePlacement {
    /// The meta pack.
    pub pack: PackName,
    /// Where its frame begins in the pack, in bytes.
    pub offset: u64,
    /// The frame's length in bytes.
    pub bytes: u32,
    /// The hash of the frame.
    pub frame: FrameHash,
}

/// A page: what it is, and where a copy of it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRef {
    /// What it is.
    pub page: PageId,
    /// Its level.
    pub level: u8,
    /// Where it lies.
    pub placement: PagePlacement,
}

/// An entry together with where its content lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The entry.
    pub entry: Entry,
    /// Where its content lies.
    pub content: Placement,
}

/// Where an entry's content lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Its chunks, one by one in order; empty for an entry without data.
    Chunks(Vec<ChunkPlacement>),
    /// Its list of chunks is in pages of its own.
    List(Box<PageRef>),
}

/// One line of a page above the leaves of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The last path in that child.
    pub last: TreePath,
    /// The child.
    pub page: PageRef,
    /// Entries below it, without the root and sockets.
    pub entries: u64,
    /// Bytes of content below it.
    pub bytes: u64,
}

/// One line of a page above the leaves of a list of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListChild {
    /// The last chunk in that child.
    pub last: ChunkId,
    /// The child.
    pub page: PageRef,
    /// Chunks below it.
    pub chunks: u64,
    /// Bytes below it.
    pub bytes: u64,
}

/// A decoded page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Level 0 of a tree.
    Entries(Vec<Placed>),
    /// A level above.
    Children(Vec<Child>),
    /// Level 0 of a list of chunks.
    Chunks(Vec<(ChunkId, ChunkPlacement)>),
    /// A level above.
    ListChildren(Vec<ListChild>),
}

/// Tells whether a page of a tree ends after the entry or child with this (last) path.
///
/// One path in 512 ends a leaf; a higher level looks at other bits of the same hash.
#[must_use]
pub fn ends_tree_page(level: u8, path: &TreePath) -> bool {
    ends_page(level, blake3::hash(&path.key()).as_bytes())
}

/// Tells whether a list page ends after this (last) chunk.
#[must_use]
pub fn ends_list_page(level: u8, chunk: ChunkId) -> bool {
    ends_page(level, chunk.as_bytes())
}

fn ends_page(level: u8, hash: &[u8; 32]) -> bool {
    const BITS: usize = 9;
    let begin = usize::from(level) * BITS % (256 - BITS);
    (begin..begin + BITS).all(|bit| hash[bit / 8] >> (bit % 8) & 1 == 0)
}

fn json(source: serde_json::Error) -> FormatError {
    FormatError::Json { what: WHAT, source }
}

fn broken(rule: impl Into<String>) -> FormatError {
    FormatError::rule(WHAT, rule)
}
