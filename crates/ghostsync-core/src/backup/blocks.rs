//! Chunks into blocks: consecutive small chunks share a frame, a large one has its own. Blocks are compressed by
//! threads of their own and come back in the order in which they were filled.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use bytes::Bytes;

use super::effort::effort;
use crate::error::{Error, Result};
use crate::format::frame;
use crate::id::ChunkId;
use crate::pack::SealedBlock;

/// A block is sealed when its content has reached so many bytes.
const BLOCK_BYTES: usize = 512 << 10;
/// Threads that compress.
const THREADS: usize = 2;

struct Raw {
    number: u64,
    content: Content,
    chunks: Vec<(ChunkId, u32)>,
}

enum Content {
    Filled(Vec<u8>),
    /// A large chunk is a block as it is.
    Alone(Bytes),
}

/// Fills blocks, and hands back compressed ones.
pub(super) struct Blocks {
    content: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
    filled: u64,
    returned: u64,
    jobs: SyncSender<Raw>,
    /// Buffers that are empty again.
    spare: Receiver<Vec<u8>>,
    done: Receiver<(u64, Result<SealedBlock>)>,
    waiting: BTreeMap<u64, SealedBlock>,
}

impl Blocks {
    /// Starts the compressing threads.
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Self {
        let (jobs, queue) = sync_channel::<Raw>(THREADS);
        let ((sender, done), (emptied, spare)) = (channel(), channel());
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let (queue, sender, emptied) = (Arc::clone(&queue), sender.clone(), emptied.clone());
            scope.spawn(move || compress(&queue, &emptied, &sender));
        }
        let (content, chunks) = (Vec::with_capacity(BLOCK_BYTES), Vec::new());
        let (filled, returned, waiting) = (0, 0, BTreeMap::new());
        Self { content, chunks, filled, returned, jobs, spare, done, waiting }
    }

    /// Adds a chunk.
    pub(super) fn push(&mut self, chunk: ChunkId, bytes: &Bytes) -> Result<()> {
        if !self.content.is_empty() && self.content.len() + bytes.len() > BLOCK_BYTES {
            self.seal()?;
        }
        let length = u32::try_from(bytes.len()).map_err(|_| Error::internal("a chunk of over 4 GiB"))?;
        if self.content.is_empty() && bytes.len() >= BLOCK_BYTES {
            return self.send(Content::Alone(bytes.clone()), vec![(chunk, length)]);
        }
        self.content.extend_from_slice(bytes);
        self.chunks.push((chunk, length));
        if self.content.len() >= BLOCK_BYTES { self.seal() } else { Ok(()) }
    }

    /// Sends the block that is being filled to be compressed, if it holds anything.
    pub(super) fn seal(&mut self) -> Result<()> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let spare = self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK_BYTES));
        let content = std::mem::replace(&mut self.content, spare);
        let chunks = std::mem::take(&mut self.chunks);
        self.send(Content::Filled(content), chunks)
    }

    fn send(&mut self, content: Content, chunks: Vec<(ChunkId, u32)>) -> Result<()> {
        let raw = Raw { number: self.filled, content, chunks };
        self.filled += 1;
        self.jobs.send(raw).map_err(|_| Error::internal("the compressing threads ended"))
    }

    /// The next compressed block in order: what is ready, or, with `wait`, whatever has been sealed.
    pub(super) fn next(&mut self, wait: bool) -> Result<Option<SealedBlock>> {
        loop {
            if let Some(block) = self.waiting.remove(&self.returned) {
                self.returned += 1;
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

    /// Blocks that were sealed and have not been handed back.
    pub(super) fn in_flight(&self) -> u64 {
        self.filled - self.returned
    }
}

fn compress(queue: &Mutex<Receiver<Raw>>, emptied: &Sender<Vec<u8>>, done: &Sender<(u64, Result<SealedBlock>)>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(raw) = job else { return };
        let frame = match raw.content {
            Content::Filled(mut content) => {
                let frame = frame_of(&content);
                content.clear();
                drop(emptied.send(content));
                frame
            }
            Content::Alone(content) => frame_of(&content),
        };
        let block = frame.map(|frame| SealedBlock { frame, chunks: raw.chunks });
        if done.send((raw.number, block)).is_err() {
            return;
        }
    }
}

fn frame_of(content: &[u8]) -> Result<Vec<u8>> {
    Ok(frame::compress_with(effort(content), "block", content)?)
}
