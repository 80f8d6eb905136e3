//! Where chunks and pages lie, in whatever pack: an index of all tables of contents.
//!
//! A table is a claim, like all that is read: a copy counts as good when its bytes were read here and hash to the id,
//! and not before. Copies in packs that retained snapshots refer to come first, since those need not be copied.
//! A table that cannot be read hides what its pack holds, and is named. Memory: 32 bytes for each chunk and page of
//! all packs, about 60 for each chunk that was asked for, and 32 MiB of blocks.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;

use super::super::check::{Look, is_damage, read_table};
use crate::error::Result;
use crate::format::pack::{FOOTER_BYTES, MAX_BLOCK_BYTES, MAX_BLOCK_FRAME_BYTES};
use crate::format::page::{ChunkPlacement, MAX_PAGE_FRAME_BYTES, Page, PagePlacement, PageRef, decode_unverified};
use crate::id::{ChunkId, FrameHash, PackName, PageId};
use crate::interrupt::Interrupt;
use crate::pack::{Block, BlockRef, FetchError, Recent, Run, fetch_run, runs};
use crate::store::{Store, keys};

/// Tables that are read at once.
const READS: usize = 8;
/// How often a copy is read before it counts as damaged.
const READINGS: usize = 2;
/// Decoded blocks are kept up to so many bytes.
const RECENT_BLOCK_BYTES: usize = 32 << 20;

/// A line of a table: of a chunk, or of a page, which has its frame to itself.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// The first bytes of the id; what is read tells whether it is the one.
    fingerprint: u64,
    pack: u32,
    frame_bytes: u32,
    frame_offset: u64,
    offset: u32,
    bytes: u32,
}

/// The index, and what was found good.
pub(super) struct Copies {
    store: Store,
    /// Packs by their number here, those that retained snapshots refer to first.
    packs: Vec<PackName>,
    chunks: Vec<Row>,
    pages: Vec<Row>,
    good: HashMap<ChunkId, Option<ChunkPlacement>>,
    blocks: Recent<BlockRef, Arc<Block>>,
    /// Packs whose tables cannot be read, by key, and why.
    pub(super) unread: Vec<(String, String)>,
}

impl Copies {
    /// Reads the tables of all packs.
    ///
    /// # Errors
    /// The store's; a damaged table is none.
    pub(super) async fn find(store: &Store, look: &Look, interrupt: &Interrupt) -> Result<Self> {
        let mut listed = Vec::new();
        store
            .for_each(&keys::packs(), |object| {
                listed.extend(keys::pack_name(&object.location).map(|(pack, is_data)| (pack, is_data, object.size)));
            })
            .await?;
        listed.sort_unstable_by_key(|(pack, is_data, _)| (!look.refers_to(*pack, *is_data), *pack, *is_data));
        let mut copies = Self {
            store: store.clone(),
            packs: Vec::with_capacity(listed.len()),
            chunks: Vec::new(),
            pages: Vec::new(),
            good: HashMap::new(),
            blocks: Recent::new(RECENT_BLOCK_BYTES),
            unread: Vec::new(),
        };
        let mut tables = futures::stream::iter(listed)
            .map(|(pack, is_data, size)| async move {
                let key = if is_data { keys::data_pack(pack) } else { keys::meta_pack(pack) };
                (read_table(store, &key, size.max(FOOTER_BYTES as u64)).await, pack, size, key)
            })
            .buffered(READS);
        while let Some((table, pack, size, key)) = tables.next().await {
            interrupt.check()?;
            match table {
                Ok(table) => copies.add(pack, size, &table),
                Err(error) if is_damage(&error) => copies.unread.push((key.to_string(), error.to_string())),
                Err(error) => return Err(error),
            }
        }
        drop(tables);
        copies.chunks.sort_by_key(|row| (row.fingerprint, row.pack));
        copies.pages.sort_by_key(|row| (row.fingerprint, row.pack));
        Ok(copies)
    }

    fn add(&mut self, name: PackName, size: u64, table: &crate::format::pack::TableOfContents) {
        let pack = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(name);
        let fits = |offset: u64, length: u32, limit: u64| {
            u64::from(length) <= limit && offset.saturating_add(u64::from(length)) <= size
        };
        for block in table.blocks.iter().filter(|block| fits(block.offset, block.length, MAX_BLOCK_FRAME_BYTES)) {
            let mut offset = 0_u32;
            for (chunk, bytes) in &block.chunks {
                let end = offset.saturating_add(*bytes);
                if *bytes > 0 && u64::from(end) <= MAX_BLOCK_BYTES {
                    let fingerprint = fingerprint(chunk.as_bytes());
                    let (frame_bytes, frame_offset) = (block.length, block.offset);
                    self.chunks.push(Row { fingerprint, pack, frame_bytes, frame_offset, offset, bytes: *bytes });
                }
                offset = end;
            }
        }
        for page in table.pages.iter().filter(|page| fits(page.offset, page.length, MAX_PAGE_FRAME_BYTES)) {
            let fingerprint = fingerprint(page.page.as_bytes());
            let (frame_bytes, frame_offset) = (page.length, page.offset);
            self.pages.push(Row { fingerprint, pack, frame_bytes, frame_offset, offset: 0, bytes: 0 });
        }
    }

    /// A good copy of a page of a tree, or of a list of chunks; `None` if there is none.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn page(&self, id: PageId, level: u8, is_list: bool) -> Result<Option<(Page, PageRef)>> {
        for (pack, row) in self.rows(&self.pages, id.as_bytes()) {
            let end = row.frame_offset.saturating_add(u64::from(row.frame_bytes));
            let frame = match self.store.get_range(&keys::meta_pack(pack), row.frame_offset..end).await {
                Ok(frame) => frame,
                Err(error) if is_damage(&error) => continue,
                Err(error) => return Err(error),
            };
            let Ok((page, found, found_level)) = decode_unverified(&frame) else { continue };
            if (found, found_level, is_list) != (id, level, is_a_list(&page)) {
                continue;
            }
            let (offset, bytes, frame) = (row.frame_offset, row.frame_bytes, FrameHash::of(&frame));
            let placement = PagePlacement { pack, offset, bytes, frame };
            return Ok(Some((page, PageRef { page: id, level, placement })));
        }
        Ok(None)
    }

    /// Where a good copy of a chunk lies; `None` if there is none.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn chunk(&mut self, id: ChunkId) -> Result<Option<ChunkPlacement>> {
        if let Some(known) = self.good.get(&id) {
            return Ok(*known);
        }
        let rows: Vec<_> = self.rows(&self.chunks, id.as_bytes()).collect();
        let mut good = None;
        for (pack, Row { frame_offset, frame_bytes, offset, bytes, .. }) in rows {
            let placement = ChunkPlacement { pack, frame_offset, frame_bytes, offset, bytes };
            if self.read(id, &placement).await?.is_some() {
                good = Some(placement);
                break;
            }
        }
        self.good.insert(id, good);
        Ok(good)
    }

    /// Reads one copy of a chunk; `None` if it is damaged.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn read(&mut self, id: ChunkId, placement: &ChunkPlacement) -> Result<Option<Vec<u8>>> {
        let at = BlockRef::of(placement);
        let kept = self.blocks.get(&at);
        if let Some(chunk) = kept.and_then(|block| block.chunk(id, placement).ok().map(<[u8]>::to_vec)) {
            return Ok(Some(chunk));
        }
        // What was damaged on its way is whole the next time: nothing is lost on the word of one reading.
        for _ in 0..READINGS {
            let Some(block) = self.block(at).await? else { continue };
            let block = Arc::new(block);
            self.blocks.insert(at, Arc::clone(&block), block.bytes());
            if let Ok(chunk) = block.chunk(id, placement) {
                return Ok(Some(chunk.to_vec()));
            }
        }
        Ok(None)
    }

    async fn block(&self, at: BlockRef) -> Result<Option<Block>> {
        let run: Option<Run> = runs([at]).pop();
        let Some(run) = run else { return Ok(None) };
        match fetch_run(&self.store, &run).await {
            Ok(mut blocks) => Ok(blocks.pop().and_then(|(at, stored)| Block::decode(at, &stored).ok())),
            Err(FetchError::Damage(_)) => Ok(None),
            Err(FetchError::Store(error)) => Err(error),
        }
    }

    fn rows<'a>(&'a self, rows: &'a [Row], id: &[u8; 32]) -> impl Iterator<Item = (PackName, Row)> + 'a {
        let fingerprint = fingerprint(id);
        let begin = rows.partition_point(|row| row.fingerprint < fingerprint);
        let same = rows.iter().skip(begin).take_while(move |row| row.fingerprint == fingerprint);
        same.filter_map(|row| Some((*self.packs.get(row.pack as usize)?, *row)))
    }
}

/// Whether a page is of a list of chunks, and not of a tree.
pub(super) fn is_a_list(page: &Page) -> bool {
    matches!(page, Page::Chunks(_) | Page::ListChildren(_))
}

fn fingerprint(id: &[u8; 32]) -> u64 {
    id.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
