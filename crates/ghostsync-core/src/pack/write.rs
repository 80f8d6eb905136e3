//! Fills packs: blocks of content into data packs, pages into meta packs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use object_store::PutPayload;

use super::{PageEncoder, Uploader};
use crate::error::{Error, Result};
use crate::format::pack::{BlockRecord, PageRecord, TableOfContents};
use crate::format::page::{ChunkPlacement, EncodedPage, PageBuilder, PagePlacement, PageRef};
use crate::format::pieces::Pieces;
use crate::id::{ChunkId, FrameHash, PackName, PageId, SessionId};
use crate::store::keys;
use crate::tree::{PageStore, Pages};

/// A pack is sent when it has at least so many bytes of frames.
const PACK_BYTES: usize = 16 << 20;

/// The first data packs of a session are smaller, so that a line is put to use soon: half as large as all before it.
const FIRST_PACK_BYTES: usize = 4 << 20;

/// Counts the packs of a session, so that no two have one name.
#[derive(Debug, Clone)]
pub(crate) struct PackNames {
    begin: u64,
    session: SessionId,
    next: Arc<AtomicU32>,
}

impl PackNames {
    pub(crate) fn new(begin: u64, session: SessionId) -> Self {
        Self { begin, session, next: Arc::default() }
    }

    fn next(&self) -> PackName {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        PackName { begin: self.begin, session: self.session, number }
    }
}

/// A block that is compressed and ready for a pack.
#[derive(Debug)]
pub(crate) struct SealedBlock {
    /// Its frame, in pieces.
    pub(crate) frame: Vec<Bytes>,
    /// Its chunks and their lengths, back to back from the block's begin.
    pub(crate) chunks: Vec<(ChunkId, u32)>,
}

/// Is told of data packs, each when its upload is acknowledged.
pub(crate) trait Acknowledged: std::fmt::Debug + Send + Sync {
    /// The pack with this name and table of contents is in the store.
    fn acknowledged(&self, pack: PackName, table: &TableOfContents);
}

/// Fills data packs.
#[derive(Debug)]
pub(crate) struct DataPacks {
    listener: Arc<dyn Acknowledged>,
    names: PackNames,
    name: PackName,
    /// The frames of its blocks, as they were made: copying them into one would cost more than to write them out.
    frames: Vec<Bytes>,
    bytes: usize,
    sent_bytes: usize,
    table: TableOfContents,
}

impl DataPacks {
    pub(crate) fn new(names: PackNames, listener: Arc<dyn Acknowledged>) -> Self {
        let name = names.next();
        let (frames, table) = (Vec::new(), TableOfContents::default());
        Self { listener, names, name, frames, bytes: 0, sent_bytes: 0, table }
    }

    /// Adds a block, sends the pack if it is full, and tells where each chunk lies.
    ///
    /// # Errors
    /// The uploader's.
    pub(crate) fn push(&mut self, block: SealedBlock, uploader: &mut Uploader) -> Result<Vec<ChunkPlacement>> {
        let frame_offset = self.bytes as u64;
        let block_bytes = block.frame.iter().map(Bytes::len).sum();
        let frame_bytes = length(block_bytes);
        let mut offset = 0;
        let placements = block
            .chunks
            .iter()
            .map(|(_, bytes)| {
                let placement = ChunkPlacement { pack: self.name, frame_offset, frame_bytes, offset, bytes: *bytes };
                offset += bytes;
                placement
            })
            .collect();
        self.frames.extend(block.frame);
        self.bytes += block_bytes;
        self.table.blocks.push(BlockRecord { offset: frame_offset, length: frame_bytes, chunks: block.chunks });
        if self.bytes >= (self.sent_bytes / 2).clamp(FIRST_PACK_BYTES, PACK_BYTES) {
            self.send(uploader)?;
            self.name = self.names.next();
        }
        Ok(placements)
    }

    /// Gives the packs that come from now on the names of another session; there is nothing left of this one.
    pub(crate) fn go_on_as(&mut self, names: PackNames) {
        (self.name, self.names) = (names.next(), names);
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// The uploader's.
    pub(crate) fn finish(&mut self, uploader: &mut Uploader) -> Result<()> {
        if self.bytes == 0 { Ok(()) } else { self.send(uploader) }
    }

    fn send(&mut self, uploader: &mut Uploader) -> Result<()> {
        let (mut parts, table) = (std::mem::take(&mut self.frames), std::mem::take(&mut self.table));
        self.sent_bytes += std::mem::take(&mut self.bytes);
        parts.extend(table.encode()?);
        let (name, listener) = (self.name, Arc::clone(&self.listener));
        uploader.send(keys::data_pack(name), PutPayload::from_iter(parts), move || listener.acknowledged(name, &table))
    }
}

/// Fills meta packs; a page that the parent snapshot reaches, or that this session stored, is not stored again, unless
/// it lies in a draining pack, or refers to something that has moved.
#[derive(Debug)]
pub(crate) struct MetaPacks {
    names: PackNames,
    name: Option<PackName>,
    frames: Pieces,
    table: TableOfContents,
    known: HashMap<PageId, PageRef>,
    draining: HashSet<PackName>,
    has_moved: bool,
    uploader: Uploader,
    cache: Arc<Pages>,
    lengths: HashMap<PackName, u64>,
    encoder: PageEncoder,
    begun: VecDeque<Begun>,
}

/// A page that is on its way into a pack.
#[derive(Debug, Clone, Copy)]
enum Begun {
    /// It is there already.
    Known(PageRef),
    /// It is being encoded; there is a copy, but perhaps not of where its content lies.
    Encoding(u8, Option<PageRef>),
}

impl MetaPacks {
    /// Starts with the pages that the parent snapshot reaches, and the packs to move out of.
    pub(crate) fn new(
        names: PackNames,
        known: &[PageRef],
        draining: HashSet<PackName>,
        uploader: Uploader,
        cache: Arc<Pages>,
    ) -> Self {
        let known = known.iter().map(|page| (page.page, *page)).collect();
        let (frames, table, lengths) = (Pieces::default(), TableOfContents::default(), HashMap::new());
        let (encoder, begun) = (PageEncoder::default(), VecDeque::new());
        let (name, has_moved) = (None, false);
        Self { names, name, frames, table, known, draining, has_moved, uploader, cache, lengths, encoder, begun }
    }

    /// Has the leaves of trees encoded by another.
    pub(crate) fn encode_by(self, encoder: PageEncoder) -> Self {
        Self { encoder, ..self }
    }

    /// Something that pages refer to lies elsewhere than the parent's pages say.
    pub(crate) fn note_moved(&mut self) {
        self.has_moved = true;
    }

    /// The uploader, for the data packs that are filled at the same time.
    pub(crate) fn uploader(&mut self) -> &mut Uploader {
        &mut self.uploader
    }

    /// Gives the packs that come from now on the names of another session; there is nothing left of this one.
    pub(crate) fn go_on_as(&mut self, names: PackNames) {
        self.names = names;
    }

    /// Sends what is left, and waits until every pack is acknowledged.
    ///
    /// # Errors
    /// The uploader's.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.send()?;
        self.uploader.settle()
    }

    /// The lengths of the meta packs made here.
    pub(crate) fn lengths(&self) -> &HashMap<PackName, u64> {
        &self.lengths
    }

    fn send(&mut self) -> Result<()> {
        let Some(name) = self.name.take() else { return Ok(()) };
        let mut parts = std::mem::take(&mut self.frames).into_parts();
        parts.extend(std::mem::take(&mut self.table).encode()?);
        self.cache.keep(name, &parts);
        let pack = PutPayload::from_iter(parts);
        self.lengths.insert(name, pack.content_length() as u64);
        self.uploader.send(keys::meta_pack(name), pack, || ())
    }
}

impl MetaPacks {
    /// What is to be done with a page: nothing, if a copy of it may be referred to.
    fn judge(&mut self, level: u8, page: &PageBuilder) -> Begun {
        let known = self.known.get(&page.id()).copied();
        let drains = known.is_some_and(|known| self.draining.contains(&known.placement.pack));
        self.has_moved |= drains;
        match known {
            Some(known) if !self.has_moved => Begun::Known(known),
            known => Begun::Encoding(level, known.filter(|_| !drains)),
        }
    }

    /// Puts an encoded page into a pack.
    fn place(&mut self, level: u8, known: Option<PageRef>, encoded: &EncodedPage) -> Result<PageRef> {
        let frame = FrameHash::of(&encoded.frame);
        // Placements are not part of an id: only the frame tells whether the copy refers to the places that count.
        if let Some(known) = known.filter(|known| known.placement.frame == frame) {
            return Ok(known);
        }
        let pack = *self.name.get_or_insert_with(|| self.names.next());
        let (offset, bytes) = (self.frames.len() as u64, length(encoded.frame.len()));
        let placement = PagePlacement { pack, offset, bytes, frame };
        self.table.pages.push(PageRecord { offset: placement.offset, length: placement.bytes, page: encoded.page });
        self.frames.push(&encoded.frame);
        let stored = PageRef { page: encoded.page, level, placement };
        self.known.insert(encoded.page, stored);
        if self.frames.len() >= PACK_BYTES {
            self.send()?;
        }
        Ok(stored)
    }
}

impl PageStore for MetaPacks {
    fn store(&mut self, level: u8, page: &PageBuilder) -> Result<PageRef> {
        match self.judge(level, page) {
            Begun::Known(known) => Ok(known),
            Begun::Encoding(level, known) => self.place(level, known, &page.encode()?),
        }
    }

    fn begin(&mut self, level: u8, page: PageBuilder) -> Result<()> {
        let begun = self.judge(level, &page);
        self.begun.push_back(begun);
        if matches!(begun, Begun::Encoding(..)) { self.encoder.begin(page) } else { Ok(()) }
    }

    fn stored(&mut self) -> Result<PageRef> {
        match self.begun.pop_front().ok_or_else(|| Error::internal("a page that was not begun"))? {
            Begun::Known(known) => Ok(known),
            Begun::Encoding(level, known) => {
                let encoded = self.encoder.next()?;
                self.place(level, known, &encoded)
            }
        }
    }
}

/// Frames are far below 4 GiB: the limits of blocks and pages see to that.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
