//! What is to be written in, windows with the blocks it needs out.
//!
//! Tasks come in tree order, and so do the blocks of a snapshot in its packs: a window of neighbouring files
//! needs neighbouring blocks, which come in a few long reads. A file larger than a window goes through several.
//! While one window is written the next is received and the one after it asked for, so that a line never waits for a
//! round trip; no more than that: this bounds the memory. What a local store has stays in its files until a block is
//! decoded: of it nothing is received but short reads.
//!
//! A block that is damaged or missing travels as what it is: only when a file needs it is the file lost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::flight::{Flight, Reader};
use super::flow::{Flow, Outcome};
use super::tally::Tally;
use super::write::{Afterwards, FileJob, Piece, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::format::page::{ChunkPlacement, Placed};
use crate::id::{ChunkId, PackName};
use crate::interrupt::Interrupt;
use crate::observer::Observer;
use crate::pack::{BlockRef, Damage, Recent};
use crate::store::{Store, StoredRange};
use crate::tree::{ChunkReader, Pages};

/// Stored bytes of a window.
const WINDOW_BYTES: u64 = 5 << 20;

/// Files, chunks and other parts of a window, which take memory of their own.
const WINDOW_PARTS: usize = 1 << 12;

/// A window of so many steps after files, and no files, is full: where little is written, they are not left to the end,
/// when the handles of their directories are closed.
const ONLY_AFTERWARDS: usize = 64;

/// Stored blocks that windows share are kept up to so many bytes: those that two of them divide, and those of files that
/// are like earlier ones.
const RECENT_BYTES: usize = 10 << 20;

/// A block of which a window wants so many bytes of content is used up: blocks of small files are filled to 512 KiB.
const USED_UP_BYTES: u64 = 384 << 10;

/// Bytes of content of a piece of a file that is written in parts.
const PIECE_BYTES: u64 = 1 << 20;

/// Windows that are asked for, and not received.
const FLIGHTS: usize = 2;

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
    reader: Reader,
    pages: Arc<Pages>,
    recent: Recent<BlockRef, StoredRange>,
    flying: VecDeque<Flying>,
    window: Window,
    /// The blocks of the window.
    wanted: HashMap<BlockRef, Wanted>,
    wanted_bytes: u64,
    parts: usize,
    tally: Tally,
}

/// A window whose blocks are on their way.
struct Flying {
    window: Window,
    flight: Flight,
    /// What the flight brings.
    blocks: HashMap<BlockRef, Wanted>,
    /// What windows before it bring.
    shared: Vec<BlockRef>,
}

/// What a window wants of a block's content.
#[derive(Debug, Default)]
struct Wanted {
    bytes: u64,
    /// Where the last of it ends.
    end: u64,
}

impl Wanted {
    /// Adds a chunk; one that comes again is not wanted twice.
    fn add(&mut self, chunk: &ChunkPlacement) {
        let begin = u64::from(chunk.offset);
        if begin >= self.end {
            self.bytes += u64::from(chunk.bytes);
            self.end = begin + u64::from(chunk.bytes);
        }
    }
}

/// The next stage has stopped.
struct CutOff;

impl Fetcher {
    pub(super) fn new(store: Store, pages: Arc<Pages>, interrupt: Interrupt, observer: Arc<dyn Observer>) -> Self {
        Self {
            reader: Reader { store, interrupt, observer },
            pages,
            recent: Recent::new(RECENT_BYTES),
            flying: VecDeque::new(),
            window: Window::default(),
            wanted: HashMap::new(),
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
        if self.send(&windows).await?.is_err() {
            return Ok(Outcome::CutOff);
        }
        while let Some(flying) = self.flying.pop_front() {
            if self.land(flying, &windows).await?.is_err() {
                return Ok(Outcome::CutOff);
            }
        }
        if windows.send(Flow::End).await.is_err() {
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
                let is_due = self.window.pieces.is_empty() && self.window.afterwards.len() >= ONLY_AFTERWARDS;
                if is_due { self.send(windows).await } else { Ok(Ok(())) }
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
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut cut = Cut { job, number: 0, offset: Some(0) };
        let damage = loop {
            let next = match self.reader.interrupt.unless_set(reader.next_chunks()).await {
                Ok(Some(next)) => next,
                Ok(None) => break None,
                Err(error) => break Some(list_damage(error)?),
            };
            for (id, placement) in next {
                let block = BlockRef::of(&placement);
                let new_bytes = if self.wanted.contains_key(&block) { 0 } else { u64::from(block.bytes) };
                let full = self.wanted_bytes + new_bytes > WINDOW_BYTES && self.wanted_bytes > 0;
                if full || self.parts >= WINDOW_PARTS {
                    cut.push(std::mem::take(&mut chunks), &mut self.window.pieces);
                    if self.send(windows).await?.is_err() {
                        return Ok(Err(CutOff));
                    }
                }
                if !self.wanted.contains_key(&block) {
                    self.wanted_bytes += u64::from(block.bytes);
                }
                self.wanted.entry(block).or_default().add(&placement);
                self.parts += 1;
                chunks.push((id, placement));
            }
        };
        cut.push(chunks, &mut self.window.pieces);
        if let Some(piece) = self.window.pieces.last_mut() {
            (piece.last, piece.damage) = (true, damage);
        }
        Ok(Ok(()))
    }

    /// Asks for the blocks of the window, once enough of those before it are received and handed over.
    async fn send(&mut self, windows: &mpsc::Sender<Flow<Window>>) -> Result<std::result::Result<(), CutOff>> {
        while self.flying.len() >= FLIGHTS
            && let Some(flying) = self.flying.pop_front()
        {
            if self.land(flying, windows).await?.is_err() {
                return Ok(Err(CutOff));
            }
        }
        let mut window = std::mem::take(&mut self.window);
        let (mut blocks, mut shared) = (HashMap::new(), Vec::new());
        for (block, wanted) in std::mem::take(&mut self.wanted) {
            if let Some(stored) = self.recent.get(&block) {
                window.blocks.insert(block, Ok(stored));
            } else if self.flying.iter().any(|flying| flying.blocks.contains_key(&block)) {
                shared.push(block);
            } else {
                blocks.insert(block, wanted);
            }
        }
        (self.wanted_bytes, self.parts) = (0, 0);
        let flight = Flight::begin(&self.reader, blocks.keys().copied().collect());
        self.flying.push_back(Flying { window, flight, blocks, shared });
        Ok(Ok(()))
    }

    /// Waits for a window's blocks and hands it over, once there is room for it.
    async fn land(
        &mut self,
        flying: Flying,
        windows: &mpsc::Sender<Flow<Window>>,
    ) -> Result<std::result::Result<(), CutOff>> {
        let Flying { mut window, flight, blocks, shared } = flying;
        let (mut fetched, received) = flight.land().await?;
        self.tally.block_bytes += received;
        // The last one of a pack is the one that the next window may go on with: it is kept longest.
        let mut last: HashMap<PackName, u64> = HashMap::new();
        for (block, _) in &fetched {
            let offset = last.entry(block.pack).or_default();
            *offset = block.offset.max(*offset);
        }
        fetched.sort_by_key(|(block, _)| last.get(&block.pack) == Some(&block.offset));
        for (block, stored) in fetched {
            for later in &mut self.flying {
                if let Some(at) = later.shared.iter().position(|shared| *shared == block) {
                    later.shared.swap_remove(at);
                    later.window.blocks.insert(block, stored.clone());
                }
            }
            if let Ok(stored) = &stored
                && blocks.get(&block).is_some_and(|wanted| wanted.bytes < USED_UP_BYTES)
            {
                let (kept, bytes) = stored.to_keep();
                self.recent.insert(block, kept, bytes);
            }
            window.blocks.insert(block, stored);
        }
        if !shared.is_empty() {
            return Err(Error::internal("a window before this one did not bring what both need"));
        }
        Ok(windows.send(Flow::Next(window)).await.map_err(|_| CutOff))
    }
}

/// Cuts a file into pieces.
struct Cut {
    job: Arc<FileJob>,
    /// Of the next piece.
    number: u32,
    /// Where that begins in the file's data, if it is written in parts.
    offset: Option<u64>,
}

impl Cut {
    /// Adds the chunks of a window, after which others may follow: in one piece, or, in parts, in pieces that several
    /// threads can share.
    fn push(&mut self, chunks: Vec<Chunk>, pieces: &mut Vec<Piece>) {
        self.offset = self.offset.filter(|_| self.number > 0 || self.job.comes_in_parts(&chunks));
        if self.offset.is_none() || chunks.is_empty() {
            return pieces.push(self.piece(chunks));
        }
        let mut piece: Vec<Chunk> = Vec::new();
        for block in chunks.chunk_by(|(_, one), (_, next)| BlockRef::of(one) == BlockRef::of(next)) {
            piece.extend_from_slice(block);
            if bytes_of(&piece) >= PIECE_BYTES {
                pieces.push(self.piece(std::mem::take(&mut piece)));
            }
        }
        if !piece.is_empty() {
            pieces.push(self.piece(piece));
        }
    }

    fn piece(&mut self, chunks: Vec<Chunk>) -> Piece {
        let (number, offset) = (self.number, self.offset);
        self.number += 1;
        self.offset = offset.map(|offset| offset.saturating_add(bytes_of(&chunks)));
        Piece { job: Arc::clone(&self.job), number, chunks, offset, last: false, damage: None }
    }
}

type Chunk = (ChunkId, ChunkPlacement);

fn bytes_of(chunks: &[Chunk]) -> u64 {
    chunks.iter().map(|(_, placement)| u64::from(placement.bytes)).sum()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;

    use super::*;
    use crate::entry::EntryKind;
    use crate::observer::NoObserver;
    use crate::restore::tests::{entry, temporary_root};

    #[tokio::test]
    async fn steps_after_files_are_not_left_to_the_end() {
        let (_folder, root) = temporary_root();
        let store = Store::new(Arc::new(InMemory::new()), "memory");
        let pages = Arc::new(Pages::new(store.clone(), None));
        let fetcher = Fetcher::new(store, pages, Interrupt::default(), Arc::new(NoObserver));
        let (to_fetch, tasks) = mpsc::channel(1);
        let (to_write, mut windows) = mpsc::channel(1);
        let running = tokio::spawn(fetcher.run(tasks, to_write));
        let finish = |_| {
            let entry = Box::new(entry("", EntryKind::Directory));
            Task::Afterwards(Afterwards::Finish { directory: Arc::clone(&root), entry })
        };
        // One window more than may be on their way.
        let steps = (0..(FLIGHTS + 1) * ONLY_AFTERWARDS).map(finish).collect();
        to_fetch.send(Flow::Next(steps)).await.expect("is taken");
        let first = tokio::time::timeout(Duration::from_secs(20), windows.recv()).await.expect("before the end");
        assert!(matches!(first, Some(Flow::Next(window)) if window.afterwards.len() == ONLY_AFTERWARDS));
        to_fetch.send(Flow::End).await.expect("is taken");
        let mut steps = ONLY_AFTERWARDS;
        while let Some(Flow::Next(window)) = windows.recv().await {
            steps += window.afterwards.len();
        }
        assert_eq!(steps, (FLIGHTS + 1) * ONLY_AFTERWARDS);
        assert!(matches!(running.await.expect("ends").expect("fetches"), Outcome::Done(_)));
    }
}
