//! A small, straightforward writer of repositories: it follows `docs/format.md` and nothing else, so that tests
//! of the format need no backup.

use std::collections::VecDeque;

use ghostsync_core::entry::{ChunkList, Entry, EntryKind, FileContent, FileTime, Hole, MAX_INLINE_CHUNKS};
use ghostsync_core::format::frame;
use ghostsync_core::format::pack::{BlockRecord, MAX_BLOCK_BYTES, PageRecord, TableOfContents};
use ghostsync_core::format::page::{
    Child, ChunkPlacement, EncodedPage, ListChild, PageBuilder, PagePlacement, PageRef, Placed, Placement,
    child_line_bytes, ends_list_page, ends_tree_page, entry_line,
};
use ghostsync_core::id::{ChunkId, ContentHash, FrameHash, PackName, PageId};
use ghostsync_core::tree_path::TreePath;

/// Writes one pack.
pub(crate) struct PackWriter {
    pub(crate) name: PackName,
    pub(crate) bytes: Vec<u8>,
    pub(crate) table: TableOfContents,
    /// Stored frames that take the place of newly made ones, which must have the same content.
    frozen: VecDeque<Vec<u8>>,
}

impl PackWriter {
    pub(crate) fn new(name: PackName) -> Self {
        Self { name, bytes: Vec::new(), table: TableOfContents::default(), frozen: VecDeque::new() }
    }

    /// Writes a pack again: another version of zstd may make other frames of the same content.
    pub(crate) fn frozen(name: PackName, stored: &[u8]) -> Self {
        let table = TableOfContents::decode(stored).expect("a table");
        let blocks = table.blocks.iter().map(|block| (block.offset, block.length));
        let pages = table.pages.iter().map(|page| (page.offset, page.length));
        let frame = |(offset, length): (u64, u32)| stored[offset as usize..][..length as usize].to_vec();
        Self { frozen: blocks.chain(pages).map(frame).collect(), ..Self::new(name) }
    }

    fn push_frame(&mut self, made: Vec<u8>) -> (u64, u32, FrameHash) {
        let frame = self.frozen.pop_front().map_or(made.clone(), |stored| {
            let content = |frame| frame::decompress("frozen frame", frame, MAX_BLOCK_BYTES).expect("a frame");
            let (now, then) = (content(&made), content(&stored));
            assert_eq!(String::from_utf8_lossy(&now), String::from_utf8_lossy(&then), "the content of a frame");
            assert_eq!(now, then);
            stored
        });
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(&frame);
        (offset, u32::try_from(frame.len()).expect("small"), FrameHash::of(&frame))
    }

    /// Puts chunks into one block.
    pub(crate) fn push_block(&mut self, chunks: &[&[u8]]) -> Vec<ChunkPlacement> {
        let made = frame::compress("block", &chunks.concat()).expect("compresses");
        let (frame_offset, frame_bytes, _) = self.push_frame(made);
        let length = |chunk: &&[u8]| u32::try_from(chunk.len()).expect("small");
        self.table.blocks.push(BlockRecord {
            offset: frame_offset,
            length: frame_bytes,
            chunks: chunks.iter().map(|chunk| (ChunkId::of(chunk), length(chunk))).collect(),
        });
        let mut offset = 0;
        let place = |chunk| {
            let bytes = length(chunk);
            let placement = ChunkPlacement { pack: self.name, frame_offset, frame_bytes, offset, bytes };
            offset += bytes;
            placement
        };
        chunks.iter().map(place).collect()
    }

    fn push_page(&mut self, level: u8, encoded: EncodedPage) -> PageRef {
        let (offset, bytes, frame) = self.push_frame(encoded.frame);
        self.table.pages.push(PageRecord { offset, length: bytes, page: encoded.page });
        let placement = PagePlacement { pack: self.name, offset, bytes, frame };
        PageRef { page: encoded.page, level, placement }
    }

    /// Writes a page of any text, whether it is one or not.
    pub(crate) fn push_text(&mut self, level: u8, header: &str, lines: &str, placements: &str) -> PageRef {
        let text = format!("{header}\n{lines}{placements}\n");
        let frame = frame::compress("page", text.as_bytes()).expect("compresses");
        self.push_stored(level, frame, PageId::of(lines.as_bytes()))
    }

    /// Writes any bytes in the place of a page.
    pub(crate) fn push_stored(&mut self, level: u8, frame: Vec<u8>, page: PageId) -> PageRef {
        self.push_page(level, EncodedPage { page, frame })
    }

    /// Writes a block of any bytes, as if it held one chunk.
    pub(crate) fn push_stored_block(&mut self, frame: Vec<u8>, chunk_bytes: u32) -> ChunkPlacement {
        let (frame_offset, frame_bytes, _) = self.push_frame(frame);
        ChunkPlacement { pack: self.name, frame_offset, frame_bytes, offset: 0, bytes: chunk_bytes }
    }

    /// Writes a page of a builder.
    pub(crate) fn push_built(&mut self, level: u8, builder: PageBuilder) -> PageRef {
        self.push_page(level, builder.encode().expect("encodes"))
    }

    /// Writes a tree; returns the reference to its root.
    pub(crate) fn push_tree(&mut self, entries: &[Placed]) -> PageRef {
        let mut children = Vec::new();
        let mut builder = PageBuilder::tree(0);
        let (mut count, mut bytes) = (0, 0);
        for (number, placed) in entries.iter().enumerate() {
            let line = entry_line(&placed.entry).expect("encodes");
            builder.push_entry(&line, placed);
            count += u64::from(placed.entry.counts());
            bytes += placed.entry.size();
            let next = entries.get(number + 1).map(|next| entry_line(&next.entry).expect("encodes").len());
            let path = &placed.entry.path;
            if next.is_none_or(|next| builder.is_full_for(next)) || ends_tree_page(0, path) {
                let done = std::mem::replace(&mut builder, PageBuilder::tree(0));
                let page = self.push_page(0, done.encode().expect("encodes"));
                children.push(Child { last: path.clone(), page, entries: count, bytes });
                (count, bytes) = (0, 0);
            }
        }
        for level in 1.. {
            if let [root] = &children[..] {
                return root.page;
            }
            children = self.push_tree_level(level, &children);
        }
        unreachable!("a level has fewer pages than the one below");
    }

    fn push_tree_level(&mut self, level: u8, below: &[Child]) -> Vec<Child> {
        let mut children = Vec::new();
        let mut builder = PageBuilder::tree(level);
        let (mut entries, mut bytes) = (0, 0);
        for (number, child) in below.iter().enumerate() {
            builder.push_child(child).expect("encodes");
            (entries, bytes) = (entries + child.entries, bytes + child.bytes);
            let full = |next| builder.is_full_for(child_line_bytes(next).expect("encodes"));
            let cut = builder.count() >= 2 && ends_tree_page(level, &child.last);
            if below.get(number + 1).is_none_or(full) || cut {
                let done = std::mem::replace(&mut builder, PageBuilder::tree(level));
                let page = self.push_page(level, done.encode().expect("encodes"));
                children.push(Child { last: child.last.clone(), page, entries, bytes });
                (entries, bytes) = (0, 0);
            }
        }
        children
    }

    /// Writes a list of chunks; returns the reference to its root.
    pub(crate) fn push_list(&mut self, chunks: &[(ChunkId, ChunkPlacement)]) -> PageRef {
        let mut children = Vec::new();
        let mut builder = PageBuilder::list(0);
        let (mut count, mut bytes) = (0, 0);
        for (number, (chunk, placement)) in chunks.iter().enumerate() {
            builder.push_chunk(*chunk, *placement).expect("encodes");
            (count, bytes) = (count + 1, bytes + u64::from(placement.bytes));
            // No line of a list is long enough for its page to be full before it has the most lines.
            if number + 1 == chunks.len() || builder.is_full_for(0) || ends_list_page(0, *chunk) {
                let done = std::mem::replace(&mut builder, PageBuilder::list(0));
                let page = self.push_page(0, done.encode().expect("encodes"));
                children.push(ListChild { last: *chunk, page, chunks: count, bytes });
                (count, bytes) = (0, 0);
            }
        }
        for level in 1.. {
            if let [root] = &children[..] {
                return root.page;
            }
            children = self.push_list_level(level, &children);
        }
        unreachable!("a level has fewer pages than the one below");
    }

    fn push_list_level(&mut self, level: u8, below: &[ListChild]) -> Vec<ListChild> {
        let mut children = Vec::new();
        let mut builder = PageBuilder::list(level);
        let (mut chunks, mut bytes) = (0, 0);
        for (number, child) in below.iter().enumerate() {
            builder.push_list_child(child).expect("encodes");
            (chunks, bytes) = (chunks + child.chunks, bytes + child.bytes);
            let cut = builder.count() >= 2 && ends_list_page(level, child.last);
            if number + 1 == below.len() || builder.is_full_for(0) || cut {
                let done = std::mem::replace(&mut builder, PageBuilder::list(level));
                let page = self.push_page(level, done.encode().expect("encodes"));
                children.push(ListChild { last: child.last, page, chunks, bytes });
                (chunks, bytes) = (0, 0);
            }
        }
        children
    }

    /// Ends the pack with its table of contents.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        assert!(self.frozen.is_empty(), "the stored pack has more frames");
        self.bytes.extend(self.table.encode().expect("encodes").concat());
        self.bytes
    }
}

/// An entry with plain metadata.
pub(crate) fn entry(path: &[u8], kind: EntryKind) -> Entry {
    let mode = if matches!(kind, EntryKind::Directory) { 0o755 } else { 0o644 };
    Entry {
        path: TreePath::parse(path).expect("a path"),
        kind,
        mode,
        uid: 1000,
        gid: 1000,
        mtime: FileTime { seconds: 1_767_225_600, nanoseconds: 0 },
        xattrs: Vec::new(),
        link: None,
        unread: false,
        unstable: false,
    }
}

/// An entry without content, and so without placements.
pub(crate) fn bare(entry: Entry) -> Placed {
    Placed { entry, content: Placement::Chunks(Vec::new()) }
}

/// A file made of chunks with holes between: the chunks cover what the holes leave.
pub(crate) fn file(
    path: &[u8],
    data: &[(&[u8], ChunkPlacement)],
    holes: &[(u64, u64)],
    list: impl FnOnce(&[(ChunkId, ChunkPlacement)]) -> PageRef,
) -> Placed {
    let holes: Vec<Hole> = holes.iter().map(|(offset, length)| Hole { offset: *offset, length: *length }).collect();
    let mut content = Vec::new();
    let mut rest: Vec<u8> = data.iter().flat_map(|(chunk, _)| chunk.iter().copied()).collect();
    for hole in &holes {
        let before = hole.offset as usize - content.len();
        content.extend(rest.drain(..before));
        content.resize(content.len() + hole.length as usize, 0);
    }
    content.extend(rest);
    let named: Vec<_> = data.iter().map(|(chunk, placement)| (ChunkId::of(chunk), *placement)).collect();
    let placements = || Placement::Chunks(named.iter().map(|(_, placement)| *placement).collect());
    let (chunks, placement) = match named.len() {
        0 => (ChunkList::None, placements()),
        1 if holes.is_empty() => (ChunkList::Whole, placements()),
        count if count <= MAX_INLINE_CHUNKS => {
            (ChunkList::Inline(named.iter().map(|(chunk, _)| *chunk).collect()), placements())
        }
        count => {
            let root = list(&named);
            (
                ChunkList::Pages { root: root.page, level: root.level, count: count as u64 },
                Placement::List(Box::new(root)),
            )
        }
    };
    let hash = ContentHash::of(&content);
    let kind = EntryKind::File(FileContent { size: content.len() as u64, hash, chunks, holes });
    Placed { entry: entry(path, kind), content: placement }
}
