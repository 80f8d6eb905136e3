//! Sixteen bytes that stand for something that was met, so that it is looked at once.
//!
//! A print is half of a BLAKE3 hash of all that matters. No two things share one by accident, in any repository that
//! fits on this planet; who makes two on purpose needs 2^64 attempts, and gains that a check passes over what a
//! restore still refuses. A print is the same on every machine and in every version: parts of a check rest on it.

use crate::entry::{ChunkList, Entry, EntryKind};
use crate::format::page::{ChunkPlacement, PageRef, Placed, Placement};
use crate::id::{ChunkId, PackName};
use crate::pack::BlockRef;
use crate::tree_path::TreePath;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::maintain) struct Print([u8; 16]);

/// Takes the fields of what is met; text has its length before it, so that two fields are never taken for others.
struct Printer(blake3::Hasher);

impl Printer {
    fn new(what: u8) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[what]);
        Self(hasher)
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.fixed(&number.to_le_bytes())
    }

    fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    fn text(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).fixed(bytes)
    }

    fn pack(&mut self, pack: PackName) -> &mut Self {
        self.number(pack.begin).fixed(pack.session.as_bytes()).number(pack.number.into())
    }

    fn page(&mut self, page: &PageRef) -> &mut Self {
        let place = &page.placement;
        self.fixed(page.page.as_bytes()).number(page.level.into()).pack(place.pack);
        self.number(place.offset).number(place.bytes.into()).fixed(place.frame.as_bytes())
    }

    fn block(&mut self, block: &BlockRef) -> &mut Self {
        self.pack(block.pack).number(block.offset).number(block.bytes.into())
    }

    fn chunk(&mut self, chunk: ChunkId, placement: &ChunkPlacement) -> &mut Self {
        self.fixed(chunk.as_bytes()).block(&BlockRef::of(placement));
        self.number(placement.offset.into()).number(placement.bytes.into())
    }

    fn end(&self) -> Print {
        let mut print = [0; 16];
        self.0.finalize_xof().fill(&mut print);
        Print(print)
    }
}

impl Print {
    /// A page copy, with all that its reference says.
    pub(super) fn of_page(page: &PageRef) -> Self {
        Printer::new(1).page(page).end()
    }

    pub(super) fn of_block(block: &BlockRef) -> Self {
        Printer::new(2).block(block).end()
    }

    /// A block, as one run alone numbers it.
    pub(super) fn of_block_with(salt: &[u8; 16], block: &BlockRef) -> Self {
        Printer::new(3).fixed(salt).block(block).end()
    }

    pub(super) fn of_chunk(chunk: ChunkId, placement: &ChunkPlacement) -> Self {
        Printer::new(4).chunk(chunk, placement).end()
    }

    /// A file's content, with where its chunks lie; `None` for what has no content.
    pub(super) fn of_content(placed: &Placed) -> Option<Self> {
        let content = placed.entry.content()?;
        let mut printer = Printer::new(5);
        printer.fixed(content.hash.as_bytes()).number(content.size).number(content.holes.len() as u64);
        for hole in &content.holes {
            printer.number(hole.offset).number(hole.length);
        }
        match (&content.chunks, &placed.content) {
            (ChunkList::Inline(chunks), Placement::Chunks(placements)) => {
                for (chunk, placement) in chunks.iter().zip(placements) {
                    printer.chunk(*chunk, placement);
                }
            }
            (ChunkList::Pages { count, .. }, Placement::List(root)) => {
                printer.page(root).number(*count);
            }
            _ => {}
        }
        Some(printer.end())
    }

    /// A hard-link group as a member of it tells: its first member's path, and what all members have in common.
    pub(in crate::maintain) fn of_group(first: &TreePath, member: &Entry) -> Self {
        let mut printer = Printer::new(6);
        printer.text(first.as_bytes()).text(member.kind.name().as_bytes());
        match &member.kind {
            EntryKind::File(content) => printer.fixed(content.hash.as_bytes()).number(content.size),
            EntryKind::Symlink { target } => printer.text(target),
            EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
                printer.number(device.major.into()).number(device.minor.into())
            }
            EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => &mut printer,
        };
        printer.end()
    }

    /// A number that is spread evenly.
    pub(super) fn number(&self) -> u64 {
        self.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    #[test]
    fn a_block_has_the_same_number_for_ever() {
        let pack = PackName { begin: 7, session: SessionId::from_bytes([1; 16]), number: 3 };
        let numbers = [0, 1 << 20].map(|offset| Print::of_block(&BlockRef { pack, offset, bytes: 9 }).number());
        // Written down from the first version that had it: a check in parts may be spread over versions.
        assert_eq!(numbers, [16_238_906_565_532_532_187, 1_257_322_768_901_510_299]);
    }
}
