//! Chunks into blocks: consecutive small chunks share a frame, a large one has its own. Blocks are compressed by
//! threads of their own and come back in the order in which they were filled.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use bytes::Bytes;

use super::noise::{Sampled, sample, stretches};
use crate::error::{Error, Result};
use crate::format::frame;
use crate::id::ChunkId;
use crate::pack::SealedBlock;
use crate::recycled::Recycled;

/// A block is sealed when its content has reached so many bytes.
const BLOCK_BYTES: usize = 512 << 10;
/// Blocks that may wait to be compressed, or for one before them.
const BLOCKS_AHEAD: u64 = 4;
/// More of them, as long as they have no more content than this: a thread that has to wait costs more than a small block.
const BYTES_AHEAD: usize = 8 * BLOCK_BYTES;
/// Threads that compress.
const THREADS: usize = 2;
/// Chunks smaller than that are put together, for what is stored as it is: each piece costs some calls.
const PIECE_BYTES: usize = 32 << 10;

struct Raw {
    number: u64,
    content: Vec<Bytes>,
    chunks: Vec<(ChunkId, u32)>,
}

/// Fills blocks, and hands back compressed ones.
pub(super) struct Blocks {
    content: Vec<Bytes>,
    bytes: usize,
    chunks: Vec<(ChunkId, u32)>,
    filled: u64,
    returned: u64,
    bytes_in_flight: usize,
    jobs: crossbeam_channel::Sender<Raw>,
    done: Receiver<(u64, Result<SealedBlock>)>,
    waiting: BTreeMap<u64, SealedBlock>,
}

impl Blocks {
    /// Starts the compressing threads.
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>, rooms: &Recycled) -> Self {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let (sender, done) = channel();
        for _ in 0..THREADS {
            let (queue, sender) = (queue.clone(), sender.clone());
            let compressor = BlockCompressor { rooms: rooms.beside(), ..BlockCompressor::default() };
            scope.spawn(move || compress(&queue, &sender, compressor));
        }
        let (content, chunks) = (Vec::new(), Vec::new());
        let (bytes, bytes_in_flight, filled, returned, waiting) = (0, 0, 0, 0, BTreeMap::new());
        Self { content, bytes, chunks, filled, returned, bytes_in_flight, jobs, done, waiting }
    }

    /// Adds a chunk.
    pub(super) fn push(&mut self, chunk: ChunkId, bytes: Bytes) -> Result<()> {
        if self.bytes + bytes.len() > BLOCK_BYTES {
            self.seal()?;
        }
        self.chunks.push((chunk, u32::try_from(bytes.len()).map_err(|_| Error::internal("a chunk of over 4 GiB"))?));
        self.bytes += bytes.len();
        self.content.push(bytes);
        if self.bytes >= BLOCK_BYTES { self.seal() } else { Ok(()) }
    }

    /// Sends the block that is being filled to be compressed, if it holds anything.
    pub(super) fn seal(&mut self) -> Result<()> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let (content, chunks) = (std::mem::take(&mut self.content), std::mem::take(&mut self.chunks));
        let raw = Raw { number: self.filled, content, chunks };
        self.bytes_in_flight += std::mem::take(&mut self.bytes);
        self.filled += 1;
        self.jobs.send(raw).map_err(|_| Error::internal("the compressing threads ended"))
    }

    /// The next compressed block in order: what is ready, or, with `wait`, whatever has been sealed.
    pub(super) fn next(&mut self, wait: bool) -> Result<Option<SealedBlock>> {
        loop {
            if let Some(block) = self.waiting.remove(&self.returned) {
                self.returned += 1;
                self.bytes_in_flight -= block.chunks.iter().map(|(_, bytes)| *bytes as usize).sum::<usize>();
                return Ok(Some(block));
            }
            if self.returned == self.filled {
                return Ok(None);
            }
            let received = if wait {
                Some(self.done.recv().map_err(|_| Error::internal("the compressing threads ended"))?)
            } else {
                self.done.try_recv().ok()
            };
            let Some((number, block)) = received else { return Ok(None) };
            self.waiting.insert(number, block?);
        }
    }

    /// Whether one should be waited for before the next is filled.
    pub(super) fn has_enough(&self) -> bool {
        self.in_flight() > BLOCKS_AHEAD && self.bytes_in_flight > BYTES_AHEAD
    }

    /// Blocks that were sealed and have not been handed back.
    pub(super) fn in_flight(&self) -> u64 {
        self.filled - self.returned
    }
}

fn compress(
    queue: &crossbeam_channel::Receiver<Raw>,
    done: &Sender<(u64, Result<SealedBlock>)>,
    mut compressor: BlockCompressor,
) {
    for Raw { number, content, chunks } in queue {
        let block = compressor.frame(&content).map(|frame| SealedBlock { frame, chunks });
        drop(content);
        if done.send((number, block)).is_err() {
            return;
        }
    }
}

/// What one thread needs to compress, used again for each block.
#[derive(Default)]
struct BlockCompressor {
    content: Vec<u8>,
    frame: Vec<u8>,
    rooms: Recycled,
}

impl BlockCompressor {
    fn frame(&mut self, pieces: &[Bytes]) -> Result<Vec<Bytes>> {
        let sampled = sample(pieces);
        if sampled == Sampled::Noise
            && pieces.iter().all(|piece| piece.len() >= PIECE_BYTES)
            && let Some(frame) = frame::stored(pieces)
        {
            return Ok(frame);
        }
        let content: &[u8] = match pieces {
            [whole] => whole,
            _ => {
                self.content.clear();
                pieces.iter().for_each(|piece| self.content.extend_from_slice(piece));
                &self.content
            }
        };
        if sampled == Sampled::Noise
            && let Some(frame) = frame::stored(&[self.rooms.copy(content)])
        {
            return Ok(frame);
        }
        let stretches = if sampled == Sampled::Mixed { stretches(content) } else { Vec::new() };
        if stretches.len() > 1 {
            frame::compress_stretches(&stretches, &mut self.frame)?;
        } else {
            frame::compress_block(content, &mut self.frame)?;
        }
        Ok(vec![self.rooms.copy(&self.frame)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree::noise;

    /// Whether there is enough after each of so many blocks, of which none is taken back; and after all were.
    fn has_enough(blocks: usize, block_bytes: usize) -> (Vec<bool>, bool) {
        std::thread::scope(|scope| {
            let mut filled = Blocks::start(scope, &Recycled::default());
            let after = (0..blocks).map(|number| {
                let content = Bytes::from(noise(number as u64, block_bytes));
                filled.push(ChunkId::of(&content), content).expect("is taken");
                filled.seal().expect("is sent");
                filled.has_enough()
            });
            let after = after.collect();
            while filled.next(true).expect("compresses").is_some() {}
            (after, filled.has_enough() || filled.bytes_in_flight > 0)
        })
    }

    #[test]
    fn few_blocks_or_few_bytes_are_never_enough() {
        let after = |enough_from: usize| (1..=12).map(|blocks| blocks >= enough_from).collect::<Vec<_>>();
        for (block_bytes, enough_from) in [(4 * BLOCK_BYTES, 5), (BLOCK_BYTES, 9), (BLOCK_BYTES / 2, 17)] {
            assert_eq!(has_enough(12, block_bytes), (after(enough_from), false), "{block_bytes}");
        }
    }
}
