//! Reads blocks and verifies the chunks that pages say lie in them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use futures::StreamExt;

use super::ReadData;
use crate::error::Result;
use crate::format::page::ChunkPlacement;
use crate::id::{ChunkId, SessionId};
use crate::interrupt::Interrupt;
use crate::observer::{Observer, Progress};
use crate::pack::{Block, BlockRef, FetchError, Run, fetch_run, runs};
use crate::store::Store;

/// Blocks are read when so many bytes of them have been collected.
const WINDOW_BYTES: u64 = 32 << 20;
/// Reads in flight.
const READS: usize = 4;

/// Blocks that are bad, with the chunks that are (`None`: all of them), and why.
type BadBlocks = HashMap<BlockRef, (Option<HashSet<ChunkId>>, String)>;

/// Collects chunks that are to be verified.
#[derive(Debug)]
pub(super) struct Contents {
    which: ReadData,
    /// Makes every run choose other blocks.
    salt: SessionId,
    /// Hashes of the chunks that were verified already.
    verified: HashSet<u64>,
    window: BTreeMap<BlockRef, Vec<(ChunkId, ChunkPlacement)>>,
    window_bytes: u64,
}

impl Contents {
    pub(super) fn new(which: ReadData) -> Self {
        let (verified, window) = (HashSet::new(), BTreeMap::new());
        Self { which, salt: SessionId::random(), verified, window, window_bytes: 0 }
    }

    /// Notes a chunk, if its block is among those that are read and it was not verified before.
    pub(super) fn push(&mut self, chunk: ChunkId, placement: ChunkPlacement) {
        let block = BlockRef::of(&placement);
        if !self.wants(&block) || !self.verified.insert(hash(&(block, placement.offset, chunk))) {
            return;
        }
        let chunks = self.window.entry(block).or_default();
        if chunks.is_empty() {
            self.window_bytes += u64::from(block.bytes);
        }
        chunks.push((chunk, placement));
    }

    fn wants(&self, block: &BlockRef) -> bool {
        match self.which {
            ReadData::No => false,
            ReadData::All => true,
            ReadData::Percent(percent) => hash(&(self.salt, block)) % 100 < u64::from(percent),
            ReadData::Part { n, m } => hash(block) % u64::from(m.max(1)) + 1 == u64::from(n),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.window_bytes >= WINDOW_BYTES
    }

    /// Reads and verifies what was collected; tells the bytes of content read, and what is bad.
    pub(super) async fn read(
        &mut self,
        store: &Store,
        interrupt: &Interrupt,
        observer: &dyn Observer,
    ) -> Result<(u64, BadBlocks)> {
        self.window_bytes = 0;
        let window = std::mem::take(&mut self.window);
        let mut bad = BadBlocks::new();
        let mut bytes = 0;
        let mut left = runs(window.keys().copied());
        while !left.is_empty() {
            let mut answers = futures::stream::iter(std::mem::take(&mut left))
                .map(|run| async move { (fetch_run(store, &run).await, run) })
                .buffer_unordered(READS);
            while let Some((answer, run)) = answers.next().await {
                interrupt.check()?;
                match answer {
                    Ok(blocks) => {
                        for (at, stored) in blocks {
                            let chunks = window.get(&at).map(Vec::as_slice).unwrap_or_default();
                            bytes += verify(at, &stored, chunks, &mut bad);
                        }
                    }
                    // One block of several may be beyond the end of its pack: each is asked for alone.
                    Err(FetchError::Damage(_)) if run.blocks.len() > 1 => left.extend(Run::split(run)),
                    Err(FetchError::Damage(damage)) => {
                        for block in run.blocks {
                            bad.insert(block, (None, damage.reason.clone()));
                        }
                    }
                    Err(FetchError::Store(error)) => return Err(error),
                }
            }
        }
        observer.progress(Progress::Advanced { files: 0, bytes });
        Ok((bytes, bad))
    }
}

fn verify(at: BlockRef, stored: &[u8], chunks: &[(ChunkId, ChunkPlacement)], bad: &mut BadBlocks) -> u64 {
    let block = match Block::decode(at, stored) {
        Ok(block) => block,
        Err(damage) => {
            bad.insert(at, (None, damage.reason));
            return 0;
        }
    };
    for (chunk, placement) in chunks {
        if let Err(damage) = block.chunk(*chunk, placement) {
            let (chunks, _) = bad.entry(at).or_insert_with(|| (Some(HashSet::new()), damage.reason));
            if let Some(chunks) = chunks {
                chunks.insert(*chunk);
            }
        }
    }
    block.bytes() as u64
}

fn hash<T: Hash>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
