//! What is to be written in, windows with the blocks it needs out.
//!
//! Tasks come in tree order, and so do the blocks of a snapshot in its packs: a window of neighbouring files
//! needs neighbouring blocks, which come in a few long reads. A file larger than a window goes through several.
//! While one window is written the next is fetched, and no more than that: this bounds the memory.
//!
//! A block that is damaged or missing travels as what it is: only when a file needs it is the file lost.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::flow::{Flow, Outcome};
use super::tally::Tally;
use super::write::{Afterwards, FileJob, Piece, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::format::page::{ChunkPlacement, Placed};
use crate::id::ChunkId;
use crate::interrupt::Interrupt;
use crate::observer::{Observer, Progress};
use crate::pack::{BlockRef, Damage, FetchError, Recent, Run, fetch_run_in, runs};
use crate::recycled::Recycled;
use crate::store::Store;
use crate::tree::{ChunkReader, Pages};

/// Stored bytes of a window.
const WINDOW_BYTES: u64 = 6 << 20;

/// Files, chunks and other parts of a window, which take memory of their own.
const WINDOW_PARTS: usize = 1 << 16;

/// Stored blocks are kept up to so many bytes: those that two windows share, and those of files with equal parts.
const RECENT_BYTES: usize = 12 << 20;

/// A read of a window that has no gaps, and all but the last block of it: which make the window full.
const ROOM_BYTES: usize = 6 << 20;

const READS_IN_FLIGHT: usize = 8;

/// Something that is to be written.
#[derive(Debug)]
pub(super) enum Task {
    /// A regular file and where its content lies.
    File(Arc<FileJob>, Box<Placed>),
    /// What comes after the files before it.
    Afterwards(Afterwards),
}

/// Fetches what files need, window by window.
pub(super) struct Fetcher {
    store: Store,
    pages: Arc<Pages>,
    interrupt: Interrupt,
    observer: Arc<dyn Observer>,
    recent: Recent<BlockRef, Bytes>,
    rooms: Recycled,
    window: Window,
    wanted: HashSet<BlockRef>,
    wanted_bytes: u64,
    parts: usize,
    tally: Tally,
}

/// The next stage has stopped.
struct CutOff;

impl Fetcher {
    pub(super) fn new(store: Store, pages: Arc<Pages>, interrupt: Interrupt, observer: Arc<dyn Observer>) -> Self {
        Self {
            store,
            pages,
            interrupt,
            observer,
            recent: Recent::new(RECENT_BYTES),
            rooms: Recycled::new(ROOM_BYTES),
            window: Window::default(),
            wanted: HashSet::new(),
            wanted_bytes: 0,
            parts: 0,
            tally: Tally::default(),
        }
    }

    /// Turns tasks into windows until they end.
    ///
    /// # Errors
    /// `Unavailable`, `Denied` if the store fails; damage is no error here.
    pub(super) async fn run(
        mut self,
        mut tasks: mpsc::Receiver<Flow<Vec<Task>>>,
        windows: mpsc::Sender<Flow<Window>>,
    ) -> Result<Outcome> {
        loop {
            match tasks.recv().await {
                Some(Flow::Next(tasks)) => {
                    for task in tasks {
                        if self.take(task, &windows).await?.is_err() {
                            return Ok(Outcome::CutOff);
                        }
                    }
                }
                Some(Flow::End) => break,
                None => return Ok(Outcome::CutOff),
            }
        }
        if self.send(&windows).await?.is_err() || windows.send(Flow::End).await.is_err() {
            return Ok(Outcome::CutOff);
        }
        Ok(Outcome::Done(self.tally))
    }

    async fn take(
        &mut self,
        task: Task,
        windows: &mpsc::Sender<Flow<Window>>,
    ) -> Result<std::result::Result<(), CutOff>> {
        if self.parts >= WINDOW_PARTS && self.send(windows).await?.is_err() {
            return Ok(Err(CutOff));
        }
        self.parts += 1;
        match task {
            Task::File(job, placed) => self.file(job, &placed, windows).await,
            Task::Afterwards(afterwards) => {
                self.window.afterwards.push(afterwards);
                Ok(Ok(()))
            }
        }
    }

    async fn file(
        &mut self,
        job: Arc<FileJob>,
        placed: &Placed,
        windows: &mpsc::Sender<Flow<Window>>,
    ) -> Result<std::result::Result<(), CutOff>> {
        let mut reader = ChunkReader::new(Arc::clone(&self.pages), placed);
        let mut chunks: Vec<(ChunkId, ChunkPlacement)> = Vec::new();
        let damage = loop {
            let next = match self.interrupt.unless_set(reader.next_chunks()).await {
                Ok(Some(next)) => next,
                Ok(None) => break None,
                Err(error) => break Some(list_damage(error)?),
            };
            for (id, placement) in next {
                let block = BlockRef::of(&placement);
                let new_bytes = if self.wanted.contains(&block) { 0 } else { u64::from(block.bytes) };
                let full = self.wanted_bytes + new_bytes > WINDOW_BYTES && self.wanted_bytes > 0;
                if full || self.parts >= WINDOW_PARTS {
                    let piece =
                        Piece { job: Arc::clone(&job), chunks: std::mem::take(&mut chunks), last: false, damage: None };
                    self.window.pieces.push(piece);
                    if self.send(windows).await?.is_err() {
                        return Ok(Err(CutOff));
                    }
                }
                if self.wanted.insert(block) {
                    self.wanted_bytes += u64::from(block.bytes);
                }
                self.parts += 1;
                chunks.push((id, placement));
            }
        };
        self.window.pieces.push(Piece { job, chunks, last: true, damage });
        Ok(Ok(()))
    }

    /// Fetches the blocks of the window and hands it over, once there is room for it.
    async fn send(&mut self, windows: &mpsc::Sender<Flow<Window>>) -> Result<std::result::Result<(), CutOff>> {
        let Ok(room) = windows.reserve().await else { return Ok(Err(CutOff)) };
        let mut window = std::mem::take(&mut self.window);
        let wanted = std::mem::take(&mut self.wanted);
        (self.wanted_bytes, self.parts) = (0, 0);
        let mut missing = Vec::new();
        for block in wanted {
            match self.recent.get(&block) {
                Some(stored) => {
                    window.blocks.insert(block, Ok(stored));
                }
                None => missing.push(block),
            }
        }
        for (block, stored) in self.fetch(missing).await? {
            if let Ok(stored) = &stored {
                self.recent.insert(block, stored.clone(), stored.len());
            }
            window.blocks.insert(block, stored);
        }
        room.send(Flow::Next(window));
        Ok(Ok(()))
    }

    async fn fetch(&mut self, blocks: Vec<BlockRef>) -> Result<Vec<(BlockRef, std::result::Result<Bytes, Damage>)>> {
        let mut fetched = Vec::with_capacity(blocks.len());
        let mut again = Vec::new();
        for (run, result) in self.read(runs(blocks)).await? {
            match result {
                Ok(blocks) => fetched.extend(blocks.into_iter().map(|(block, stored)| (block, Ok(stored)))),
                // A short pack still has its first blocks.
                Err(damage) if !damage.missing && run.blocks.len() > 1 => again.extend(run.split()),
                Err(damage) => fetched.extend(run.blocks.iter().map(|block| (*block, Err(damage.clone())))),
            }
        }
        for (run, result) in self.read(again).await? {
            match result {
                Ok(blocks) => fetched.extend(blocks.into_iter().map(|(block, stored)| (block, Ok(stored)))),
                Err(damage) => fetched.extend(run.blocks.iter().map(|block| (*block, Err(damage.clone())))),
            }
        }
        Ok(fetched)
    }

    async fn read(
        &mut self,
        runs: Vec<Run>,
    ) -> Result<Vec<(Run, std::result::Result<Vec<(BlockRef, Bytes)>, Damage>)>> {
        let (store, rooms) = (&self.store, &self.rooms);
        let mut reads = futures::stream::iter(runs)
            .map(|run| async move {
                let fetched = fetch_run_in(rooms, store, &run).await;
                (run, fetched)
            })
            .buffer_unordered(READS_IN_FLIGHT);
        let mut results = Vec::new();
        while let Some((run, fetched)) = self.interrupt.unless_set(async { Ok(reads.next().await) }).await? {
            let result = match fetched {
                Ok(blocks) => {
                    let bytes = run.range.end - run.range.start;
                    self.tally.block_bytes += bytes;
                    self.observer.progress(Progress::Transferred { bytes });
                    Ok(blocks)
                }
                Err(FetchError::Damage(damage)) => Err(damage),
                Err(FetchError::Store(error)) => return Err(error),
            };
            results.push((run, result));
        }
        Ok(results)
    }
}

/// A damaged list of chunks costs its file; a store that cannot be reached ends everything.
fn list_damage(error: Error) -> Result<Damage> {
    match error.kind() {
        ErrorKind::Corrupt | ErrorKind::NotFound => Ok(Damage {
            object: "the list of its chunks".into(),
            reason: error.to_string(),
            missing: error.kind() == ErrorKind::NotFound,
        }),
        _ => Err(error),
    }
}
