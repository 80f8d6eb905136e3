//! Which chunks need not be stored again: those that the parent snapshot reaches, with the placements that its pages
//! give them, and those that this session stored. About 16 bytes of memory a chunk, whatever the size of the tree.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use tempfile::SpooledTempFile;

use crate::entry::ChunkList;
use crate::error::{Error, Result};
use crate::format::page::{ChunkPlacement, Page, PageRef, Placed, Placement};
use crate::id::{ChunkId, PackName, SessionId};
use crate::interrupt::Waiter;
use crate::tree::{Access, Pages};

/// Marks a chunk of this session, not of the parent, in the table.
const OURS: u64 = 1 << 63;
/// Pages of the parent that are kept decoded.
const DECODED_PAGES: usize = 8;
/// A record of the placement file: id, begin of the pack's session, session, number, then the rest.
pub(super) const RECORD_BYTES: usize = 32 + 8 + 16 + 4 + 8 + 4 + 4 + 4;

/// Where a chunk is, or will be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Location {
    /// In a pack of the parent.
    Stored(ChunkPlacement),
    /// The n-th chunk of this session, which may still be waiting for its block to be sealed.
    Ours(u64),
}

/// The chunks that the parent reaches: a hash table from half an id to the page that places it.
#[derive(Debug, Default)]
pub(super) struct ParentChunks {
    table: HashMap<u64, u64>,
}

impl ParentChunks {
    /// Notes the chunks that an entry on the n-th page names itself.
    pub(super) fn push(&mut self, placed: &Placed, page: usize) {
        for (chunk, _) in chunks_of(placed) {
            self.table.entry(fingerprint(chunk)).or_insert(page as u64);
        }
    }
}

fn chunks_of(placed: &Placed) -> impl Iterator<Item = (ChunkId, ChunkPlacement)> {
    let (ids, placements): (Vec<ChunkId>, &[ChunkPlacement]) = match (placed.entry.content(), &placed.content) {
        (Some(content), Placement::Chunks(placements)) => match &content.chunks {
            ChunkList::Whole => (vec![ChunkId::of_whole(content.hash)], placements),
            ChunkList::Inline(chunks) => (chunks.clone(), placements),
            ChunkList::None | ChunkList::Pages { .. } => (Vec::new(), &[]),
        },
        _ => (Vec::new(), &[]),
    };
    ids.into_iter().zip(placements.iter().copied())
}

fn fingerprint(chunk: ChunkId) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&chunk.as_bytes()[..8]);
    u64::from_le_bytes(half)
}

/// Looks chunks up, and numbers new ones.
pub(super) struct Dedup {
    table: HashMap<u64, u64>,
    parent_pages: Vec<PageRef>,
    pages: Arc<Pages>,
    waiter: Waiter,
    decoded: VecDeque<(u64, HashMap<ChunkId, ChunkPlacement>)>,
    /// Placements of this session's sealed chunks, by number.
    records: SpooledTempFile,
    sealed: u64,
    /// Ids of the chunks that are not sealed yet.
    open: VecDeque<ChunkId>,
}

impl Dedup {
    pub(super) fn new(
        parent: ParentChunks,
        parent_pages: Vec<PageRef>,
        pages: Arc<Pages>,
        waiter: Waiter,
        folder: Option<&Path>,
    ) -> Self {
        let records = match folder {
            Some(folder) => tempfile::spooled_tempfile_in(16 << 20, folder),
            None => SpooledTempFile::new(usize::MAX),
        };
        let (table, decoded, open) = (parent.table, VecDeque::new(), VecDeque::new());
        Self { table, parent_pages, pages, waiter, decoded, records, sealed: 0, open }
    }

    /// Takes a chunk that is stored already for one of this session's.
    pub(super) fn adopt(&mut self, chunk: ChunkId, placement: &ChunkPlacement) -> Result<()> {
        self.insert(chunk);
        self.seal(&[*placement])
    }

    /// Finds a chunk that need not be stored again.
    pub(super) fn find(&mut self, chunk: ChunkId) -> Result<Option<Location>> {
        let Some(&value) = self.table.get(&fingerprint(chunk)) else { return Ok(None) };
        if value & OURS == 0 {
            return Ok(self.in_parent(value, chunk)?.map(Location::Stored));
        }
        let number = value & !OURS;
        let same = match number.checked_sub(self.sealed) {
            Some(open) => usize::try_from(open).ok().and_then(|open| self.open.get(open)) == Some(&chunk),
            None => self.record(number)?.0 == chunk,
        };
        Ok(same.then_some(Location::Ours(number)))
    }

    /// Numbers a chunk that is about to be stored.
    pub(super) fn insert(&mut self, chunk: ChunkId) -> u64 {
        let number = self.sealed + self.open.len() as u64;
        self.open.push_back(chunk);
        self.table.entry(fingerprint(chunk)).or_insert(OURS | number);
        number
    }

    /// Takes the placements of the oldest unsealed chunks.
    pub(super) fn seal(&mut self, placements: &[ChunkPlacement]) -> Result<()> {
        self.records.seek(SeekFrom::End(0)).map_err(failed)?;
        for placement in placements {
            let chunk = self.open.pop_front().ok_or_else(|| Error::internal("a chunk was sealed twice"))?;
            self.records.write_all(&encode(chunk, placement)).map_err(failed)?;
            self.sealed += 1;
        }
        Ok(())
    }

    /// Where a chunk lies; `None` while its block is not sealed.
    pub(super) fn resolve(&mut self, location: Location) -> Result<Option<ChunkPlacement>> {
        match location {
            Location::Stored(placement) => Ok(Some(placement)),
            Location::Ours(number) if number < self.sealed => Ok(Some(self.record(number)?.1)),
            Location::Ours(_) => Ok(None),
        }
    }

    fn record(&mut self, number: u64) -> Result<(ChunkId, ChunkPlacement)> {
        let mut record = [0; RECORD_BYTES];
        self.records.seek(SeekFrom::Start(number * RECORD_BYTES as u64)).map_err(failed)?;
        self.records.read_exact(&mut record).map_err(failed)?;
        Ok(decode(&record))
    }

    fn in_parent(&mut self, page: u64, chunk: ChunkId) -> Result<Option<ChunkPlacement>> {
        if let Some((_, chunks)) = self.decoded.iter().find(|(number, _)| *number == page) {
            return Ok(chunks.get(&chunk).copied());
        }
        let reference = usize::try_from(page).ok().and_then(|page| self.parent_pages.get(page));
        let reference = reference.ok_or_else(|| Error::internal("a chunk on a page that was not read"))?;
        let chunks: HashMap<_, _> = match self.waiter.wait(self.pages.load(reference, Access::Scan))? {
            Page::Entries(entries) => entries.iter().flat_map(chunks_of).collect(),
            _ => HashMap::new(),
        };
        let found = chunks.get(&chunk).copied();
        self.decoded.push_back((page, chunks));
        if self.decoded.len() > DECODED_PAGES {
            self.decoded.pop_front();
        }
        Ok(found)
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::local("keep", "the list of chunks in the cache folder", source)
}

pub(super) fn encode(chunk: ChunkId, placement: &ChunkPlacement) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    let mut rest = &mut record[..];
    let fields: [&[u8]; 8] = [
        chunk.as_bytes(),
        &placement.pack.begin.to_le_bytes(),
        placement.pack.session.as_bytes(),
        &placement.pack.number.to_le_bytes(),
        &placement.frame_offset.to_le_bytes(),
        &placement.frame_bytes.to_le_bytes(),
        &placement.offset.to_le_bytes(),
        &placement.bytes.to_le_bytes(),
    ];
    for field in fields {
        let (head, tail) = rest.split_at_mut(field.len());
        head.copy_from_slice(field);
        rest = tail;
    }
    record
}

pub(super) fn decode(record: &[u8; RECORD_BYTES]) -> (ChunkId, ChunkPlacement) {
    fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
        let mut field = [0; N];
        let (head, tail) = rest.split_at(N);
        field.copy_from_slice(head);
        *rest = tail;
        field
    }
    let mut rest = &record[..];
    let chunk = ChunkId::from_bytes(take(&mut rest));
    let begin = u64::from_le_bytes(take(&mut rest));
    let session = SessionId::from_bytes(take(&mut rest));
    let number = u32::from_le_bytes(take(&mut rest));
    let placement = ChunkPlacement {
        pack: PackName { begin, session, number },
        frame_offset: u64::from_le_bytes(take(&mut rest)),
        frame_bytes: u32::from_le_bytes(take(&mut rest)),
        offset: u32::from_le_bytes(take(&mut rest)),
        bytes: u32::from_le_bytes(take(&mut rest)),
    };
    (chunk, placement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_every_field() {
        let placement = ChunkPlacement {
            pack: PackName { begin: 1, session: SessionId::from_bytes([2; 16]), number: 3 },
            frame_offset: 4,
            frame_bytes: 5,
            offset: 6,
            bytes: 7,
        };
        assert_eq!(decode(&encode(ChunkId::of(b"x"), &placement)), (ChunkId::of(b"x"), placement));
    }
}
