//! Reads blocks, verifies the chunks that pages say lie in them, and puts files together.
//!
//! A file of one chunk is right when its chunk is. Where all is read, a file of several chunks is put together in
//! order, holes included, and compared with its hash as a restore would: once for each content and placement, so a
//! large file that every snapshot has in another version is read once a version. Where a part is read, chunks are
//! chosen by their block and verified one by one.
//!
//! Memory: a window of 32 MiB of blocks with at most 65,536 chunks, one file that is being put together, and 16
//! bytes (about 30 with the table) for each chunk or content that was met.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use super::ReadData;
use super::print::Print;
use crate::entry::FileContent;
use crate::error::{Error, Result};
use crate::format::page::ChunkPlacement;
use crate::id::{ChunkId, SessionId};
use crate::interrupt::Interrupt;
use crate::observer::{Observer, Progress};
use crate::pack::{Assembly, Block, BlockRef, FetchError, Mismatch, Recent, Run, Span, fetch_run, runs};
use crate::store::Store;

/// Blocks are read when so many bytes of them have been collected.
const WINDOW_BYTES: u64 = 32 << 20;
/// Or so many chunks: any number of them can lie in one block.
const WINDOW_PARTS: usize = 1 << 16;
/// Reads in flight.
const READS: usize = 4;
/// Decoded blocks that files share are kept up to so many bytes.
const RECENT_BLOCK_BYTES: usize = 32 << 20;

type Chunk = (ChunkId, ChunkPlacement);

/// Blocks that are bad, with the chunks that are (`None`: all of them), and why.
pub(super) type BadBlocks = HashMap<BlockRef, (Option<HashSet<ChunkId>>, String)>;

/// What was found in what was read.
#[derive(Debug, Default)]
pub(super) struct Verified {
    /// Bytes of content.
    pub(super) bytes: u64,
    pub(super) blocks: BadBlocks,
    /// Contents whose chunks are right and which are not, by their print.
    pub(super) contents: HashMap<Print, String>,
}

/// Collects what is to be verified.
#[derive(Debug)]
pub(super) struct Contents {
    which: ReadData,
    /// Makes every run choose other blocks.
    salt: [u8; 16],
    met: HashSet<Print>,
    /// Blocks of the window; whether a file is put together from them.
    wanted: BTreeMap<BlockRef, bool>,
    wanted_bytes: u64,
    parts: usize,
    alone: HashMap<BlockRef, Vec<Chunk>>,
    steps: Vec<Step>,
    /// The file that goes on in the next window.
    open: Option<Open>,
    recent: Recent<BlockRef, Arc<Block>>,
}

/// What is done with files, in order.
#[derive(Debug)]
enum Step {
    Begin(Open),
    Chunk(Chunk),
    End,
}

/// A file that is put together.
#[derive(Debug)]
struct Open {
    print: Print,
    /// `None`: one of its chunks is bad, so the whole is.
    assembly: Option<Box<Assembly>>,
}

/// What stops putting a file together.
enum Stop {
    Mismatch(Mismatch),
    Ended(Error),
}

impl From<Mismatch> for Stop {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

impl Contents {
    pub(super) fn new(which: ReadData) -> Self {
        Self {
            which,
            salt: *SessionId::random().as_bytes(),
            met: HashSet::new(),
            wanted: BTreeMap::new(),
            wanted_bytes: 0,
            parts: 0,
            alone: HashMap::new(),
            steps: Vec::new(),
            open: None,
            recent: Recent::new(RECENT_BLOCK_BYTES),
        }
    }

    /// Whether files of several chunks are put together.
    pub(super) fn joins_files(&self) -> bool {
        self.which == ReadData::All
    }

    /// Notes a chunk that stands for itself, if its block is among those that are read and it was not met before.
    pub(super) fn push(&mut self, chunk: Chunk) {
        let block = BlockRef::of(&chunk.1);
        if self.wants(&block) && self.met.insert(Print::of_chunk(chunk.0, &chunk.1)) {
            self.want(block, false);
            self.alone.entry(block).or_default().push(chunk);
        }
    }

    /// Begins a file of several chunks; `false` if this very content was met before.
    pub(super) fn begin(&mut self, print: Print, content: &FileContent) -> bool {
        let is_new = self.met.insert(print);
        if is_new {
            self.steps.push(Step::Begin(Open { print, assembly: Some(Box::new(Assembly::new(content))) }));
        }
        is_new
    }

    /// Adds the next chunk of the file that was begun.
    pub(super) fn add(&mut self, chunk: Chunk) {
        self.want(BlockRef::of(&chunk.1), true);
        self.steps.push(Step::Chunk(chunk));
    }

    /// Ends the file that was begun.
    pub(super) fn end(&mut self) {
        self.steps.push(Step::End);
    }

    fn want(&mut self, block: BlockRef, for_file: bool) {
        self.parts += 1;
        let known = self.wanted.insert(block, for_file);
        match known {
            None => self.wanted_bytes += u64::from(block.bytes),
            Some(true) => drop(self.wanted.insert(block, true)),
            Some(false) => {}
        }
    }

    fn wants(&self, block: &BlockRef) -> bool {
        match self.which {
            ReadData::No => false,
            ReadData::All => true,
            ReadData::Percent(percent) => Print::of_block_with(&self.salt, block).number() % 100 < u64::from(percent),
            ReadData::Part { n, m } => Print::of_block(block).number() % u64::from(m.max(1)) + 1 == u64::from(n),
        }
    }

    pub(super) fn is_due(&self) -> bool {
        self.wanted_bytes >= WINDOW_BYTES || self.parts.max(self.steps.len()) >= WINDOW_PARTS
    }

    /// Reads and verifies what was collected.
    pub(super) async fn read(
        &mut self,
        store: &Store,
        interrupt: &Interrupt,
        observer: &dyn Observer,
    ) -> Result<Verified> {
        (self.wanted_bytes, self.parts) = (0, 0);
        let wanted = std::mem::take(&mut self.wanted);
        let alone = std::mem::take(&mut self.alone);
        let mut verified = Verified::default();
        let mut stored = HashMap::new();
        let mut left = runs(wanted.keys().copied());
        while !left.is_empty() {
            let mut answers = futures::stream::iter(std::mem::take(&mut left))
                .map(|run| async move { (fetch_run(store, &run).await, run) })
                .buffer_unordered(READS);
            while let Some((answer, run)) = answers.next().await {
                interrupt.check()?;
                match answer {
                    Ok(blocks) => {
                        for (at, bytes) in blocks {
                            if let Some(chunks) = alone.get(&at) {
                                verified.alone(at, &bytes, chunks);
                            }
                            if wanted.get(&at) == Some(&true) {
                                stored.insert(at, bytes);
                            }
                        }
                    }
                    // One block of several may be beyond the end of its pack: each is asked for alone.
                    Err(FetchError::Damage(damage)) if !damage.missing && run.blocks.len() > 1 => {
                        left.extend(Run::split(run));
                    }
                    Err(FetchError::Damage(damage)) => {
                        for block in run.blocks {
                            verified.blocks.insert(block, (None, damage.reason.clone()));
                        }
                    }
                    Err(FetchError::Store(error)) => return Err(error),
                }
            }
        }
        for step in std::mem::take(&mut self.steps) {
            interrupt.check()?;
            self.take(step, &stored, &mut verified, interrupt)?;
        }
        observer.progress(Progress::Advanced { files: 0, bytes: verified.bytes });
        Ok(verified)
    }

    fn take(
        &mut self,
        step: Step,
        stored: &HashMap<BlockRef, Bytes>,
        verified: &mut Verified,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let mut go_on = |_: Span<'_>| interrupt.check().map_err(Stop::Ended);
        let result = match step {
            Step::Begin(open) => {
                self.open = Some(open);
                return Ok(());
            }
            Step::Chunk((id, placement)) => {
                let block = self.block(BlockRef::of(&placement), stored, verified);
                let Some(open) = &mut self.open else { return Ok(()) };
                let Some(data) = block.as_ref().and_then(|block| verified.chunk(block, id, &placement)) else {
                    open.assembly = None;
                    return Ok(());
                };
                verified.bytes += data.len() as u64;
                let Some(assembly) = &mut open.assembly else { return Ok(()) };
                assembly.push(id, data, &mut go_on)
            }
            Step::End => {
                let Some(Open { assembly: Some(assembly), .. }) = &mut self.open else { return Ok(()) };
                assembly.finish(&mut go_on)
            }
        };
        match (result, &mut self.open) {
            (Err(Stop::Ended(error)), _) => return Err(error),
            (Err(Stop::Mismatch(mismatch)), Some(open)) => {
                open.assembly = None;
                verified.contents.insert(open.print, mismatch.to_string());
            }
            _ => {}
        }
        Ok(())
    }

    /// A decoded block; `None` if it is bad, which is noted.
    fn block(
        &mut self,
        at: BlockRef,
        stored: &HashMap<BlockRef, Bytes>,
        verified: &mut Verified,
    ) -> Option<Arc<Block>> {
        if let Some(block) = self.recent.get(&at) {
            return Some(block);
        }
        let block = Arc::new(verified.decode(at, stored.get(&at)?)?);
        self.recent.insert(at, Arc::clone(&block), block.bytes());
        Some(block)
    }
}

impl Verified {
    fn decode(&mut self, at: BlockRef, stored: &[u8]) -> Option<Block> {
        match Block::decode(at, stored) {
            Ok(block) => Some(block),
            Err(damage) => {
                self.blocks.insert(at, (None, damage.reason));
                None
            }
        }
    }

    /// Verifies chunks of one block that stand for themselves.
    fn alone(&mut self, at: BlockRef, stored: &[u8], chunks: &[Chunk]) {
        let Some(block) = self.decode(at, stored) else { return };
        self.bytes += block.bytes() as u64;
        for (id, placement) in chunks {
            let _ = self.chunk(&block, *id, placement);
        }
    }

    fn chunk<'a>(&mut self, block: &'a Block, id: ChunkId, placement: &ChunkPlacement) -> Option<&'a [u8]> {
        match block.chunk(id, placement) {
            Ok(chunk) => Some(chunk),
            Err(damage) => {
                let at = BlockRef::of(placement);
                let (chunks, _) = self.blocks.entry(at).or_insert_with(|| (Some(HashSet::new()), damage.reason));
                if let Some(chunks) = chunks {
                    chunks.insert(id);
                }
                None
            }
        }
    }
}
