//! Collects the lines of one page, and encodes it.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::lines::{ChildLine, ChunkLine, ChunkRow, Header, Kind, ListChildLine, PageRow};
use super::{
    Child, ChunkPlacement, ListChild, MAX_PAGE_BYTES, MAX_PAGE_CONTENT_BYTES, MAX_PAGE_LINES, PageRef, Placed,
    Placement, WHAT, json, plain,
};
use crate::entry::ChunkList;
use crate::format::{FormatError, frame};
use crate::id::{ChunkId, IdMap, IdSet, PackName, PageId};

/// A page ready to be stored.
#[derive(Debug, Clone)]
pub struct EncodedPage {
    /// Its id.
    pub page: PageId,
    /// Its frame.
    pub frame: Vec<u8>,
}

/// Collects the lines of one page.
#[derive(Debug, Clone)]
pub struct PageBuilder {
    kind: Kind,
    level: u8,
    lines: Vec<u8>,
    count: usize,
    packs: Vec<PackName>,
    pack_numbers: IdMap<PackName, u32>,
    chunks: Table<ChunkId, ChunkRow>,
    pages: Table<PageId, PageRow>,
}

/// A map that keeps the order of its first insertions.
#[derive(Debug, Clone)]
struct Table<K, V> {
    rows: Vec<(K, V)>,
    known: IdSet<K>,
}

impl<K: Copy + Eq + std::hash::Hash, V> Table<K, V> {
    fn new() -> Self {
        Self { rows: Vec::new(), known: IdSet::default() }
    }

    fn is_new(&self, key: &K) -> bool {
        !self.known.contains(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.known.insert(key) {
            self.rows.push((key, value));
        }
    }
}

impl<K: Serialize, V: Serialize> Serialize for Table<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.rows.len()))?;
        for (key, value) in &self.rows {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl PageBuilder {
    /// Begins a page of a tree.
    #[must_use]
    pub fn tree(level: u8) -> Self {
        Self::new(Kind::Tree, level)
    }

    /// Begins a page of a list of chunks.
    #[must_use]
    pub fn list(level: u8) -> Self {
        Self::new(Kind::List, level)
    }

    fn new(kind: Kind, level: u8) -> Self {
        Self {
            kind,
            level,
            lines: Vec::new(),
            count: 0,
            packs: Vec::new(),
            pack_numbers: IdMap::default(),
            chunks: Table::new(),
            pages: Table::new(),
        }
    }

    /// The number of lines so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Tells whether this page must end before another line of so many bytes.
    #[must_use]
    pub fn is_full_for(&self, line_bytes: usize) -> bool {
        self.count >= MAX_PAGE_LINES || (self.count > 0 && self.lines.len() + line_bytes > MAX_PAGE_BYTES)
    }

    /// Adds the line of an entry, as [`entry_line`](super::entry_line) made it, and where its content lies.
    pub fn push_entry(&mut self, line: &[u8], placed: &Placed) {
        self.lines.extend_from_slice(line);
        self.count += 1;
        match (&placed.content, placed.entry.content()) {
            (Placement::List(list), _) => self.place_page(list),
            (Placement::Chunks(placements), Some(content)) => match &content.chunks {
                ChunkList::Whole => {
                    if let [placement] = placements[..] {
                        self.place_chunk(ChunkId::of_whole(content.hash), placement);
                    }
                }
                ChunkList::Inline(chunks) => {
                    for (chunk, placement) in chunks.iter().zip(placements) {
                        self.place_chunk(*chunk, *placement);
                    }
                }
                ChunkList::None | ChunkList::Pages { .. } => {}
            },
            (Placement::Chunks(_), None) => {}
        }
    }

    /// Adds the line of a child page.
    ///
    /// # Errors
    /// Never in practice.
    pub fn push_child(&mut self, child: &Child) -> Result<(), FormatError> {
        self.push_line(&ChildLine::new(child))?;
        self.place_page(&child.page);
        Ok(())
    }

    /// Adds the line of a chunk to a list page.
    ///
    /// # Errors
    /// Never in practice.
    pub fn push_chunk(&mut self, chunk: ChunkId, placement: ChunkPlacement) -> Result<(), FormatError> {
        self.push_line(&ChunkLine { chunk, bytes: placement.bytes })?;
        self.place_chunk(chunk, placement);
        Ok(())
    }

    /// Adds the line of a child of a list page.
    ///
    /// # Errors
    /// Never in practice.
    pub fn push_list_child(&mut self, child: &ListChild) -> Result<(), FormatError> {
        let line =
            ListChildLine { last_chunk: child.last, page: child.page.page, chunks: child.chunks, bytes: child.bytes };
        self.push_line(&line)?;
        self.place_page(&child.page);
        Ok(())
    }

    fn push_line<T: Serialize>(&mut self, line: &T) -> Result<(), FormatError> {
        serde_json::to_writer(&mut self.lines, line).map_err(json)?;
        self.lines.push(b'\n');
        self.count += 1;
        Ok(())
    }

    fn place_chunk(&mut self, chunk: ChunkId, placement: ChunkPlacement) {
        // The first placement of a chunk counts; the header names no pack for the sake of another.
        if self.chunks.is_new(&chunk) {
            let pack = self.pack_number(placement.pack);
            let row = (pack, placement.frame_offset, placement.frame_bytes, placement.offset, placement.bytes);
            self.chunks.insert(chunk, row);
        }
    }

    fn place_page(&mut self, page: &PageRef) {
        if self.pages.is_new(&page.page) {
            let placement = page.placement;
            let pack = self.pack_number(placement.pack);
            self.pages.insert(page.page, (pack, placement.offset, placement.bytes, placement.frame));
        }
    }

    fn pack_number(&mut self, pack: PackName) -> u32 {
        // A page has at most MAX_PAGE_LINES * MAX_INLINE_CHUNKS chunks, so the number fits.
        let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        *self.pack_numbers.entry(pack).or_insert_with(|| {
            self.packs.push(pack);
            next
        })
    }

    /// The id that the page has with the lines so far.
    #[must_use]
    pub fn id(&self) -> PageId {
        PageId::of(&self.lines)
    }

    /// Encodes the page.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if the page is over its limits.
    pub fn encode(&self) -> Result<EncodedPage, FormatError> {
        let mut content = Vec::with_capacity(self.lines.len() * 2);
        let header = Header { kind: self.kind, level: self.level, packs: self.packs.clone() };
        serde_json::to_writer(&mut content, &header).map_err(json)?;
        content.push(b'\n');
        content.extend_from_slice(&self.lines);
        self.put_placements(&mut content)?;
        content.push(b'\n');
        if content.len() as u64 > MAX_PAGE_CONTENT_BYTES {
            return Err(FormatError::TooLarge { what: WHAT, limit: MAX_PAGE_CONTENT_BYTES });
        }
        Ok(EncodedPage { page: self.id(), frame: frame::compress_page(WHAT, &content)? })
    }
}

impl PageBuilder {
    fn put_placements(&self, content: &mut Vec<u8>) -> Result<(), FormatError> {
        let Self { chunks, pages, .. } = self;
        if pages.rows.is_empty() {
            plain::encode_placements(&chunks.rows, content).map_err(json)
        } else {
            serde_json::to_writer(content, &PlacementsOut { chunks, pages }).map_err(json)
        }
    }
}

#[derive(Serialize)]
struct PlacementsOut<'a> {
    chunks: &'a Table<ChunkId, ChunkRow>,
    pages: &'a Table<PageId, PageRow>,
}
