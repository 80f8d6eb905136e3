//! Which chunks need not be stored again: those that the parent snapshot reaches, with the placements that its pages
//! give them, and those that this session stored. Some 20 bytes of memory a chunk, whatever the size of the tree.
//! What lies in a draining pack is stored again, while a budget lasts, so that a prune can delete the pack one day.

mod records;
mod table;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use crate::entry::ChunkList;
use crate::error::{Error, ErrorKind, Result};
use crate::format::page::{ChunkPlacement, Page, PageRef, Placed, Placement};
use crate::id::{ChunkId, PackName};
use crate::interrupt::Waiter;
use crate::tree::{Access, ChunkReader, Pages};

pub(super) use records::{RECORD_BYTES, decode, encode};

use records::Records;
use table::ChunkTable;

/// Pages of the parent that are kept decoded.
const DECODED_PAGES: usize = 8;
/// The most bytes that one backup moves out of draining packs.
const MOVED_BYTES: u64 = 256 << 20;

/// Where a chunk is, or will be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Location {
    /// In a pack of the parent.
    Stored(ChunkPlacement),
    /// The n-th chunk of this session, which may still be waiting for its block to be sealed.
    Ours(u64),
}

/// What the table says of a chunk.
#[derive(Debug, Clone, Copy)]
enum Noted {
    /// The n-th page of the parent places it.
    OnPage(u64),
    /// It is the n-th of this session.
    Ours(u64),
}

impl Noted {
    fn number(self) -> u64 {
        match self {
            Self::OnPage(page) => page << 1,
            Self::Ours(number) => number << 1 | 1,
        }
    }

    fn of_number(number: u64) -> Self {
        if number & 1 == 0 { Self::OnPage(number >> 1) } else { Self::Ours(number >> 1) }
    }
}

/// The chunks that the parent reaches, with the pages that place them.
#[derive(Debug, Default)]
pub(super) struct ParentChunks {
    table: ChunkTable,
    /// Files with lists of chunks, which are read when a file is that may have some of them.
    listed: Vec<Placed>,
}

impl ParentChunks {
    /// Notes the chunks that an entry on the n-th page names.
    pub(super) fn push(&mut self, placed: &Placed, page: usize) {
        if matches!(placed.content, Placement::List(_)) {
            self.listed.push(placed.clone());
        }
        for (chunk, _) in chunks_of(placed) {
            self.table.set_if_new(chunk, Noted::OnPage(page as u64).number());
        }
    }
}

fn chunks_of(placed: &Placed) -> impl Iterator<Item = (ChunkId, ChunkPlacement)> {
    let (whole, named, placements): (_, &[ChunkId], &[_]) = match (placed.entry.content(), &placed.content) {
        (Some(content), Placement::Chunks(placements)) => match &content.chunks {
            ChunkList::Whole => (Some(ChunkId::of_whole(content.hash)), &[], placements),
            ChunkList::Inline(chunks) => (None, chunks, placements),
            ChunkList::None | ChunkList::Pages { .. } => (None, &[], &[]),
        },
        _ => (None, &[], &[]),
    };
    whole.into_iter().chain(named.iter().copied()).zip(placements.iter().copied())
}

/// Looks chunks up, and numbers new ones.
pub(super) struct Dedup {
    table: ChunkTable,
    /// Files of the parent whose lists were not read yet.
    listed: Vec<Placed>,
    /// The pages of the parent that place chunks, those of lists behind those of the tree.
    parent_pages: Vec<PageRef>,
    pages: Arc<Pages>,
    waiter: Waiter,
    decoded: VecDeque<(u64, HashMap<ChunkId, ChunkPlacement>)>,
    /// Placements of this session's sealed chunks, by number.
    sealed: Records,
    /// Ids of the chunks that are not sealed yet.
    open: VecDeque<ChunkId>,
    /// How many of the sealed ones earlier sessions had stored, which may be referred to only in packs that are reached.
    earlier: u64,
    /// Packs that entries written so far refer to.
    reached: HashSet<PackName>,
    draining: Draining,
}

/// The packs that this backup moves out of, and how much it may still move.
struct Draining {
    packs: HashSet<PackName>,
    left_bytes: u64,
    has_moved: bool,
}

impl Dedup {
    pub(super) fn new(
        parent: ParentChunks,
        parent_pages: Vec<PageRef>,
        pages: Arc<Pages>,
        waiter: Waiter,
        folder: Option<&Path>,
        draining: HashSet<PackName>,
    ) -> Self {
        let ParentChunks { table, listed } = parent;
        let (decoded, open, reached) = (VecDeque::new(), VecDeque::new(), HashSet::new());
        let draining = Draining { packs: draining, left_bytes: MOVED_BYTES, has_moved: false };
        let (sealed, earlier) = (Records::new(folder), 0);
        Self { table, listed, parent_pages, pages, waiter, decoded, sealed, open, earlier, reached, draining }
    }

    /// Reads the lists of the parent's large files: a file of several chunks is about to be read, and what it holds may
    /// have stood in any of them.
    ///
    /// # Errors
    /// `Interrupted`. A list that cannot be read costs an upload, no more.
    pub(super) fn learn_lists(&mut self) -> Result<()> {
        for placed in std::mem::take(&mut self.listed) {
            let mut reader = ChunkReader::new(Arc::clone(&self.pages), &placed);
            loop {
                let chunks = match self.waiter.wait(reader.next_chunks()) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                    Err(_) | Ok(None) => break,
                    Ok(Some(chunks)) => chunks,
                };
                // The last page that was read is the one that lists these.
                let Some(page) = reader.take_visited().pop() else { continue };
                let number = self.parent_pages.len() as u64;
                self.parent_pages.push(page);
                for (chunk, _) in chunks {
                    self.table.set_if_new(chunk, Noted::OnPage(number).number());
                }
            }
        }
        Ok(())
    }

    /// Takes a chunk that is stored already for one of this session's.
    pub(super) fn adopt(&mut self, chunk: ChunkId, placement: &ChunkPlacement) -> Result<()> {
        self.insert(chunk);
        self.seal(&[*placement])
    }

    /// Finds a chunk that need not be stored again.
    pub(super) fn find(&mut self, chunk: ChunkId) -> Result<Option<Location>> {
        let number = match self.table.get(chunk).map(Noted::of_number) {
            None => return Ok(None),
            Some(Noted::OnPage(page)) => {
                let stored = self.in_parent(page, chunk)?;
                return Ok(stored.filter(|placement| !self.draining.takes(placement)).map(Location::Stored));
            }
            Some(Noted::Ours(number)) => number,
        };
        let same = match number.checked_sub(self.sealed.len()) {
            Some(open) => usize::try_from(open).ok().and_then(|open| self.open.get(open)) == Some(&chunk),
            None => {
                let (id, placement) = self.sealed.get(number)?;
                id == chunk && (number >= self.earlier || self.reached.contains(&placement.pack))
            }
        };
        Ok(same.then_some(Location::Ours(number)))
    }

    /// Notes that an entry which refers to this chunk is written.
    pub(super) fn reach(&mut self, placement: &ChunkPlacement) {
        self.reached.insert(placement.pack);
    }

    /// Another session goes on: packs that no entry refers to by now may be garbage.
    pub(super) fn go_on(&mut self) {
        self.earlier = self.sealed.len();
    }

    /// Numbers a chunk that is about to be stored.
    pub(super) fn insert(&mut self, chunk: ChunkId) -> u64 {
        let number = self.sealed.len() + self.open.len() as u64;
        self.open.push_back(chunk);
        // In the place of the parent's, if it is stored again: it moves once.
        self.table.set(chunk, Noted::Ours(number).number());
        number
    }

    /// Tells whether any of an entry's content lies in a draining pack and may still be moved.
    pub(super) fn should_move(&mut self, placed: &Placed) -> Result<bool> {
        if self.draining.packs.is_empty() || self.draining.left_bytes == 0 {
            return Ok(false);
        }
        match &placed.content {
            Placement::Chunks(chunks) => Ok(chunks.iter().any(|chunk| self.draining.packs.contains(&chunk.pack))),
            // Such a file is stored again as a whole.
            Placement::List(_) if placed.entry.size() > self.draining.left_bytes => Ok(false),
            Placement::List(_) => {
                let drains = self.list_drains(placed)?;
                if drains {
                    self.draining.left_bytes -= placed.entry.size();
                    self.draining.has_moved = true;
                }
                Ok(drains)
            }
        }
    }

    fn list_drains(&self, placed: &Placed) -> Result<bool> {
        let mut reader = ChunkReader::new(Arc::clone(&self.pages), placed);
        loop {
            let chunks = match self.waiter.wait(reader.next_chunks()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                // A file that cannot be moved stays where it is; whether it can be restored is not asked here.
                Err(_) | Ok(None) => return Ok(false),
                Ok(Some(chunks)) => chunks,
            };
            let pages = reader.take_visited();
            let mut packs = pages.iter().map(|page| page.placement.pack).chain(chunks.iter().map(|(_, at)| at.pack));
            if packs.any(|pack| self.draining.packs.contains(&pack)) {
                return Ok(true);
            }
        }
    }

    /// Tells whether anything was moved so far.
    pub(super) fn has_moved(&self) -> bool {
        self.draining.has_moved
    }

    /// Takes the placements of the oldest unsealed chunks.
    pub(super) fn seal(&mut self, placements: &[ChunkPlacement]) -> Result<()> {
        for placement in placements {
            let chunk = self.open.pop_front().ok_or_else(|| Error::internal("a chunk was sealed twice"))?;
            self.sealed.push(chunk, *placement)?;
        }
        Ok(())
    }

    /// Where a chunk lies; `None` while its block is not sealed.
    pub(super) fn resolve(&mut self, location: Location) -> Result<Option<ChunkPlacement>> {
        match location {
            Location::Stored(placement) => Ok(Some(placement)),
            Location::Ours(number) if number < self.sealed.len() => Ok(Some(self.sealed.get(number)?.1)),
            Location::Ours(_) => Ok(None),
        }
    }

    fn in_parent(&mut self, page: u64, chunk: ChunkId) -> Result<Option<ChunkPlacement>> {
        if let Some((_, chunks)) = self.decoded.iter().find(|(number, _)| *number == page) {
            return Ok(chunks.get(&chunk).copied());
        }
        let reference = usize::try_from(page).ok().and_then(|page| self.parent_pages.get(page));
        let reference = reference.ok_or_else(|| Error::internal("a chunk on a page that was not read"))?;
        let chunks: HashMap<_, _> = match self.waiter.wait(self.pages.load(reference, Access::Scan))? {
            Page::Entries(entries) => entries.iter().flat_map(chunks_of).collect(),
            Page::Chunks(chunks) => chunks.into_iter().collect(),
            Page::Children(_) | Page::ListChildren(_) => HashMap::new(),
        };
        let found = chunks.get(&chunk).copied();
        self.decoded.push_back((page, chunks));
        if self.decoded.len() > DECODED_PAGES {
            self.decoded.pop_front();
        }
        Ok(found)
    }
}

impl Draining {
    /// Tells whether a chunk is to be stored again, and takes it from the budget.
    fn takes(&mut self, chunk: &ChunkPlacement) -> bool {
        let bytes = u64::from(chunk.bytes);
        let takes = bytes <= self.left_bytes && self.packs.contains(&chunk.pack);
        if takes {
            self.left_bytes -= bytes;
            self.has_moved = true;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::id::SessionId;
    use crate::interrupt::Interrupt;
    use crate::store::Store;

    #[tokio::test]
    async fn a_chunk_that_looks_like_another_is_not_taken_for_it() {
        let pages = Arc::new(Pages::new(Store::new(Arc::new(InMemory::new()), "memory"), None));
        let waiter = Waiter::new(Interrupt::default());
        let mut dedup = Dedup::new(ParentChunks::default(), Vec::new(), pages, waiter, None, HashSet::new());
        let [one, other] = [1, 2]
            .map(|last| ChunkId::from_bytes([[7; 31].as_slice(), &[last]].concat().try_into().expect("32 bytes")));
        let pack = PackName { begin: 1, session: SessionId::from_bytes([2; 16]), number: 3 };
        let placement = |offset| ChunkPlacement { pack, frame_offset: 0, frame_bytes: 9, offset, bytes: 1 };

        assert_eq!(dedup.insert(one), 0);
        assert!(matches!(dedup.find(one), Ok(Some(Location::Ours(0)))));
        assert!(matches!(dedup.find(other), Ok(None)), "while its block is open");
        dedup.seal(&[placement(0)]).expect("is sealed");
        assert!(matches!(dedup.find(one), Ok(Some(Location::Ours(0)))));
        assert!(matches!(dedup.find(other), Ok(None)), "when its block is sealed");

        // Both are stored, and each entry has its own.
        assert_eq!(dedup.insert(other), 1);
        dedup.seal(&[placement(1)]).expect("is sealed");
        assert!(matches!(dedup.find(one), Ok(None)), "the other has its place in the table");
        let placed = [0, 1].map(|number| dedup.resolve(Location::Ours(number)).expect("is there"));
        assert_eq!(placed, [0, 1].map(|offset| Some(placement(offset))));
    }
}
