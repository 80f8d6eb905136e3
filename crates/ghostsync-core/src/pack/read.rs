//! Ranges down, verified: which reads bring the blocks that are wanted, and blocks that prove what they hold.
//!
//! Blocks that lie close together come in one read, so that a restore in tree order needs few of them. Nothing
//! that is read here is trusted: a block is decoded with a limit, and a chunk is handed out only if it hashes
//! to its id.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::format::frame;
use crate::format::pack::MAX_BLOCK_BYTES;
use crate::format::page::ChunkPlacement;
use crate::id::{ChunkId, PackName};
use crate::rooms::Rooms;
use crate::store::{Store, StoredRange, keys};

/// Unwanted bytes between two blocks that cost less than another request.
const MAX_GAP_BYTES: u64 = 256 << 10;

/// The most bytes of one read, unless a single block is larger: enough to make requests few, and small enough
/// that several are in flight for a window of a restore.
const MAX_RUN_BYTES: u64 = 8 << 20;

/// A shorter read from a local store is made at once: an open file for each would be too many.
const LEAST_IN_FILE_BYTES: u64 = 1 << 20;

/// Where a block lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BlockRef {
    /// The data pack.
    pub(crate) pack: PackName,
    /// Where the block's frame begins in the pack, in bytes.
    pub(crate) offset: u64,
    /// The frame's length in bytes.
    pub(crate) bytes: u32,
}

impl BlockRef {
    /// The block that holds a chunk.
    pub(crate) fn of(placement: &ChunkPlacement) -> Self {
        Self { pack: placement.pack, offset: placement.frame_offset, bytes: placement.frame_bytes }
    }

    fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.bytes))
    }

    fn damage(&self, reason: impl std::fmt::Display) -> Damage {
        Damage {
            object: keys::data_pack(self.pack).to_string(),
            reason: format!("the block at byte {} {reason}", self.offset),
            missing: false,
        }
    }
}

/// A stored object that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {reason}")]
pub(crate) struct Damage {
    /// The object's key.
    pub(crate) object: String,
    /// What is wrong with it.
    pub(crate) reason: String,
    /// The object is not there at all: a prune may have taken it, if the snapshot was forgotten meanwhile.
    pub(crate) missing: bool,
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Self::new(ErrorKind::Corrupt, damage)
    }
}

/// Why a read brought no blocks.
#[derive(Debug)]
pub(crate) enum FetchError {
    /// The pack is missing, or too short.
    Damage(Damage),
    /// The store could not be reached, or refused.
    Store(Error),
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Damage(damage) => damage.into(),
            FetchError::Store(error) => error,
        }
    }
}

/// One read: a range of a pack, and the blocks that are wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) pack: PackName,
    pub(crate) range: Range<u64>,
    pub(crate) blocks: Vec<BlockRef>,
}

impl Run {
    /// The same blocks, one read each: after a damage that may not concern them all.
    pub(crate) fn split(self) -> impl Iterator<Item = Self> {
        self.blocks.into_iter().map(Self::of)
    }

    fn of(block: BlockRef) -> Self {
        Self { pack: block.pack, range: block.offset..block.end(), blocks: vec![block] }
    }

    /// Cuts what it brought into its blocks.
    fn cut(&self, brought: &StoredRange) -> Result<Vec<(BlockRef, StoredRange)>, FetchError> {
        let wanted: u64 = self.blocks.iter().map(|block| u64::from(block.bytes)).sum();
        let has_gaps = self.range.end - self.range.start != wanted;
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let begin = block.offset.saturating_sub(self.range.start);
            let Some(stored) = brought.slice(begin..begin.saturating_add(u64::from(block.bytes))) else {
                return Err(self.failure(Error::corrupt(format!("it ends before the block at byte {}", block.offset))));
            };
            // A slice would keep the gaps in memory for as long as the block lives.
            blocks.push((*block, if has_gaps { stored.to_keep().0 } else { stored }));
        }
        Ok(blocks)
    }

    fn failure(&self, error: Error) -> FetchError {
        let (reason, missing) = match error.kind() {
            ErrorKind::NotFound => ("it is missing".into(), true),
            ErrorKind::Corrupt => (error.to_string(), false),
            _ => return FetchError::Store(error),
        };
        FetchError::Damage(Damage { object: keys::data_pack(self.pack).to_string(), reason, missing })
    }

    fn takes(&self, block: &BlockRef) -> bool {
        let end = block.end().max(self.range.end);
        self.pack == block.pack
            && block.offset <= self.range.end.saturating_add(MAX_GAP_BYTES)
            && end - self.range.start <= MAX_RUN_BYTES
    }
}

/// Plans the reads that bring these blocks; a block that is named twice comes once.
pub(crate) fn runs(blocks: impl IntoIterator<Item = BlockRef>) -> Vec<Run> {
    let mut blocks: Vec<BlockRef> = blocks.into_iter().collect();
    blocks.sort_unstable();
    blocks.dedup();
    let mut runs: Vec<Run> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run) if run.takes(&block) => {
                run.range.end = run.range.end.max(block.end());
                run.blocks.push(block);
            }
            _ => runs.push(Run::of(block)),
        }
    }
    runs
}

/// Makes one read and cuts it into the stored bytes of the blocks.
///
/// # Errors
/// [`FetchError::Damage`] if the pack is missing or too short.
pub(crate) async fn fetch_run(store: &Store, run: &Run) -> Result<Vec<(BlockRef, Bytes)>, FetchError> {
    let bytes = store.get_range(&keys::data_pack(run.pack), run.range.clone()).await;
    let blocks = run.cut(&StoredRange::Received(bytes.map_err(|error| run.failure(error))?))?;
    let here = blocks.into_iter().map(|(block, stored)| Ok((block, stored.read(&Rooms::single_use())?)));
    here.collect::<Result<_, Error>>().map_err(FetchError::Store)
}

/// Asks for the blocks as [`fetch_run`] does; those of a long read from a local store stay in its file until they are
/// needed.
///
/// # Errors
/// As there.
pub(crate) async fn open_run(store: &Store, run: &Run) -> Result<Vec<(BlockRef, StoredRange)>, FetchError> {
    if run.range.end - run.range.start < LEAST_IN_FILE_BYTES {
        let blocks = fetch_run(store, run).await?;
        return Ok(blocks.into_iter().map(|(block, stored)| (block, StoredRange::Received(stored))).collect());
    }
    let stored = store.open_range(&keys::data_pack(run.pack), run.range.clone()).await;
    let stored = stored.map_err(|error| run.failure(error))?;
    stored.read_ahead();
    run.cut(&stored)
}

/// The content of a block.
#[derive(Debug)]
pub(crate) struct Block {
    at: BlockRef,
    content: Bytes,
}

impl Block {
    /// Decodes a block from its frame.
    ///
    /// # Errors
    /// [`Damage`] if this is not one whole frame within the limit.
    pub(crate) fn decode(at: BlockRef, stored: &[u8]) -> Result<Self, Damage> {
        Self::decode_in(&Rooms::single_use(), at, stored)
    }

    /// Decodes a block as [`Block::decode`] does, to where there is room.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn decode_in(rooms: &Rooms, at: BlockRef, stored: &[u8]) -> Result<Self, Damage> {
        let content = frame::decompress_in(rooms, "block", stored, MAX_BLOCK_BYTES).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(" ({cause})"));
            at.damage(format_args!("is {error}{cause}"))
        })?;
        Ok(Self { at, content })
    }

    /// The number of bytes of its content.
    pub(crate) fn bytes(&self) -> usize {
        self.content.len()
    }

    /// Takes a chunk out of it, verified.
    ///
    /// # Errors
    /// [`Damage`] if the bytes at that place are not the chunk.
    pub(crate) fn chunk(&self, id: ChunkId, placement: &ChunkPlacement) -> Result<&[u8], Damage> {
        let begin = usize::try_from(placement.offset).unwrap_or(usize::MAX);
        let end = begin.saturating_add(usize::try_from(placement.bytes).unwrap_or(usize::MAX));
        let chunk =
            self.content.get(begin..end).ok_or_else(|| self.at.damage(format_args!("ends before chunk {id} does")))?;
        if ChunkId::of(chunk) != id {
            return Err(self.at.damage(format_args!("does not hold chunk {id}: the hash differs")));
        }
        Ok(chunk)
    }

    /// Takes chunks out of it that lie side by side, as one and not verified.
    ///
    /// # Errors
    /// [`Damage`] if the block ends before they do.
    pub(crate) fn unverified(&self, chunks: &[(ChunkId, ChunkPlacement)]) -> Result<&[u8], Damage> {
        let ends = |(_, placement): &(ChunkId, ChunkPlacement)| {
            let begin = usize::try_from(placement.offset).ok()?;
            Some((begin, begin.checked_add(usize::try_from(placement.bytes).ok()?)?))
        };
        let range = || {
            let ((begin, _), (_, end)) = (ends(chunks.first()?)?, ends(chunks.last()?)?);
            self.content.get(begin..end)
        };
        range().ok_or_else(|| self.at.damage("ends before its chunks do"))
    }

    /// Takes several chunks out of it, verified; kept together with the block, they can go to another thread.
    ///
    /// # Errors
    /// [`Damage`] if the bytes at one of the places are not the chunk.
    pub(crate) fn chunks(self: Arc<Self>, wanted: &[(ChunkId, ChunkPlacement)]) -> Result<VerifiedChunks, Damage> {
        let mut ranges = Vec::with_capacity(wanted.len());
        for (id, placement) in wanted {
            let begin = usize::try_from(placement.offset).unwrap_or(usize::MAX);
            ranges.push((*id, begin..begin + self.chunk(*id, placement)?.len()));
        }
        Ok(VerifiedChunks { block: self, ranges })
    }
}

/// Chunks of one block that are what they should be.
#[derive(Debug)]
pub(crate) struct VerifiedChunks {
    block: Arc<Block>,
    ranges: Vec<(ChunkId, Range<usize>)>,
}

impl VerifiedChunks {
    /// Their ids and bytes, in the order asked for.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ChunkId, &[u8])> {
        self.ranges.iter().filter_map(|(id, range)| Some((*id, self.block.content.get(range.clone())?)))
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::id::SessionId;
    use crate::store::{StoreSettings, open_url};
    use crate::testing::tree::noise;

    fn pack(number: u32) -> PackName {
        PackName { begin: 0, session: SessionId::from_bytes([0; 16]), number }
    }

    fn block(number: u32, offset: u64, bytes: u32) -> BlockRef {
        BlockRef { pack: pack(number), offset, bytes }
    }

    #[test]
    fn neighbours_come_in_one_read_and_strangers_do_not() {
        const KIB: u64 = 1 << 10;
        let table: &[(&[BlockRef], &[(u32, Range<u64>)])] = &[
            (&[], &[]),
            (&[block(0, 0, 10), block(0, 10, 5)], &[(0, 0..15)]),
            (&[block(0, 10, 5), block(0, 0, 10), block(0, 10, 5)], &[(0, 0..15)]),
            (&[block(0, 0, 10), block(1, 10, 5)], &[(0, 0..10), (1, 10..15)]),
            (&[block(0, 0, 10), block(0, 10 + 256 * KIB, 5)], &[(0, 0..15 + 256 * KIB)]),
            (&[block(0, 0, 10), block(0, 11 + 256 * KIB, 5)], &[(0, 0..10), (0, 11 + 256 * KIB..16 + 256 * KIB)]),
            (&[block(0, 0, 9 << 20), block(0, 9 << 20, 5)], &[(0, 0..9 << 20), (0, 9 << 20..(9 << 20) + 5)]),
            // Blocks that overlap, as only a damaged page can claim.
            (&[block(0, 0, 10), block(0, 0, 20), block(0, 5, 3)], &[(0, 0..20)]),
            (&[block(0, u64::MAX - 1, 10)], &[(0, u64::MAX - 1..u64::MAX)]),
        ];
        for (blocks, expected) in table {
            let runs: Vec<_> =
                runs(blocks.iter().copied()).into_iter().map(|run| (run.pack.number, run.range)).collect();
            assert_eq!(runs, *expected, "{blocks:?}");
        }
    }

    #[test]
    fn no_run_is_longer_than_its_limit_and_no_block_is_lost() {
        let blocks: Vec<_> = (0..200).map(|n| block(0, n * 300_000, 300_000)).collect();
        let runs = runs(blocks.iter().copied());
        assert!(runs.iter().all(|run| run.range.end - run.range.start <= MAX_RUN_BYTES));
        assert_eq!(runs.iter().flat_map(|run| run.blocks.clone()).collect::<Vec<_>>(), blocks);
        assert!(runs.len() <= 8, "{}", runs.len());
    }

    async fn store_with(content: &[u8]) -> Store {
        let store = Store::new(Arc::new(InMemory::new()), "memory");
        store.put(&keys::data_pack(pack(0)), Bytes::copy_from_slice(content).into()).await.expect("puts");
        store
    }

    #[tokio::test]
    async fn a_run_is_cut_into_its_blocks() {
        let store = store_with(b"0123456789").await;
        let run = Run { pack: pack(0), range: 2..9, blocks: vec![block(0, 2, 3), block(0, 7, 2)] };
        let blocks = fetch_run(&store, &run).await.expect("fetches");
        assert_eq!(blocks, [(block(0, 2, 3), Bytes::from("234")), (block(0, 7, 2), Bytes::from("78"))]);
    }

    #[tokio::test]
    async fn the_blocks_of_a_long_read_stay_in_the_file_of_a_local_store() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = folder.path().to_str().expect("UTF-8");
        let store = open_url(url, &StoreSettings::default(), true).expect("a store");
        let content = noise(1, 2 << 20);
        store.put(&keys::data_pack(pack(0)), content.clone().into()).await.expect("puts");
        let bytes = LEAST_IN_FILE_BYTES / 2;
        let block = |offset: u64| block(0, offset, u32::try_from(bytes).expect("small"));
        for (second, is_long, received) in [(bytes, true, 2 * bytes), (bytes - 1, false, 2 * bytes - 1)] {
            let run = Run { pack: pack(0), range: 7..7 + second + bytes, blocks: vec![block(7), block(7 + second)] };
            let before = store.received_bytes();
            let blocks = open_run(&store, &run).await.expect("opens");
            assert_eq!(store.received_bytes() - before, received);
            for (block, stored) in blocks {
                assert_eq!(matches!(stored, StoredRange::InFile(_)), is_long);
                let begin = usize::try_from(block.offset).expect("small");
                assert!(stored.read(&Rooms::new()).expect("reads") == content[begin..begin + block.bytes as usize]);
            }
        }
        let beyond = content.len() as u64 - bytes;
        let run = Run { pack: pack(0), range: beyond - bytes..beyond + bytes + 1, blocks: vec![block(beyond + 1)] };
        assert!(matches!(open_run(&store, &run).await, Err(FetchError::Damage(damage)) if !damage.missing));
    }

    #[tokio::test]
    async fn missing_and_short_packs_are_damage() {
        let store = store_with(b"0123456789").await;
        for (number, range, missing) in [(1, 0..5, true), (0, 8..12, false), (0, 20..22, false)] {
            let bytes = u32::try_from(range.end - range.start).expect("small");
            let run = Run { pack: pack(number), blocks: vec![block(number, range.start, bytes)], range };
            match fetch_run(&store, &run).await {
                Err(FetchError::Damage(damage)) => assert_eq!(damage.missing, missing, "{damage}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_chunk_is_handed_out_only_if_it_is_the_one() {
        let frame = frame::compress("block", b"onetwothree").expect("compresses");
        let at = block(0, 0, u32::try_from(frame.len()).expect("small"));
        let decoded = Block::decode(at, &frame).expect("decodes");
        let place =
            |offset, bytes| ChunkPlacement { pack: pack(0), frame_offset: 0, frame_bytes: at.bytes, offset, bytes };
        assert_eq!(decoded.chunk(ChunkId::of(b"two"), &place(3, 3)).expect("is there"), b"two");
        for (offset, bytes) in [(2, 3), (3, 2), (9, 3), (u32::MAX, u32::MAX)] {
            let damage = decoded.chunk(ChunkId::of(b"two"), &place(offset, bytes)).expect_err("is not there");
            assert!(damage.to_string().starts_with("packs/") && !damage.missing, "{damage}");
        }
        for position in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[position] ^= 1;
            let chunk = Block::decode(at, &damaged)
                .and_then(|block| block.chunk(ChunkId::of(b"two"), &place(3, 3)).map(<[u8]>::to_vec));
            assert!(chunk.is_err() || chunk.is_ok_and(|chunk| chunk == b"two"), "byte {position}");
        }
    }
}
