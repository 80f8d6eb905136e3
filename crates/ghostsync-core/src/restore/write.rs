//! Windows of fetched blocks in, files under their final names out.
//!
//! A file is written under a temporary name in its own directory, and gets its final name only when its whole
//! content has matched its hash and its metadata are set. So a wrong or half-written byte never stands under a
//! final name, and what a cut run leaves behind is recognised by its name. Holes stay holes.
//!
//! A few plain threads share the files of a window, and go on with the next; when all files of a window are done, hard
//! links are made and directories that are finished get their metadata, in order. Blocks are decoded here, so that memory
//! depends neither on the size of a file nor on how well it compresses: of a file that is written in order a few
//! [`ahead`], of one that can be written in [`parts`] by whoever is free.

mod ahead;
mod crew;
mod parts;
mod turn;
mod unfinished;

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::AtFlags;
use tokio::sync::mpsc;

use self::crew::{Crew, StopOnPanic};
pub(super) use self::turn::FileJob;
use self::turn::Turn;
use super::destination::Directory;
use super::flow::{Flow, Outcome};
use super::links::Original;
use super::metadata::{Target, User, apply};
use super::tally::Tally;
use crate::entry::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::format::page::ChunkPlacement;
use crate::id::ChunkId;
use crate::interrupt::Interrupt;
use crate::observer::{Observer, Progress};
use crate::pack::{Block, BlockRef, Damage, Mismatch, Recent};
use crate::rooms::Rooms;
use crate::store::StoredRange;
use crate::temporary;
use crate::tree_path::TreePath;

const THREADS: usize = 3;

/// Decoded blocks are kept up to so many bytes, for the files that share them.
const RECENT_BLOCK_BYTES: usize = 4 << 20;

/// A part of a file whose blocks are in one window.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) job: Arc<FileJob>,
    /// Which of the file's pieces it is, from 0.
    pub(super) number: u32,
    pub(super) chunks: Vec<(ChunkId, ChunkPlacement)>,
    /// Where they begin in the file's data, without its holes, if it is written in parts.
    pub(super) offset: Option<u64>,
    /// No more pieces follow.
    pub(super) last: bool,
    /// The list of the file's chunks is damaged.
    pub(super) damage: Option<Damage>,
}

impl Piece {
    /// A first look at its blocks, so that a file that cannot be whole is not begun.
    fn look_at_blocks(&self, blocks: &Blocks) -> std::result::Result<(), Damage> {
        let missed = self.chunks.iter().find_map(|(_, placement)| blocks.get(&BlockRef::of(placement))?.as_ref().err());
        self.damage.as_ref().or(missed).map_or(Ok(()), |damage| Err(damage.clone()))
    }
}

/// What waits until the files before it are written.
#[derive(Debug)]
pub(super) enum Afterwards {
    /// A further name for a file.
    Link {
        /// What it is linked to.
        original: Original,
        /// The new name.
        path: TreePath,
        /// The directory of that name.
        directory: Arc<Directory>,
    },
    /// Everything in a directory is done: it gets its metadata.
    Finish {
        /// The directory.
        directory: Arc<Directory>,
        /// Its entry.
        entry: Box<Entry>,
    },
}

/// What is stored of blocks, or what is wrong with them.
pub(super) type Blocks = HashMap<BlockRef, std::result::Result<StoredRange, Damage>>;

/// Parts of files in tree order, the blocks that they need, and what comes after them.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) pieces: Vec<Piece>,
    pub(super) blocks: Blocks,
    pub(super) afterwards: Vec<Afterwards>,
}

/// What the threads that write have in common.
pub(super) struct Writer {
    pub(super) user: User,
    pub(super) keep_going: bool,
    pub(super) interrupt: Interrupt,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) recent: Mutex<Recent<BlockRef, Arc<Block>>>,
    /// Where blocks are read and decoded.
    pub(super) rooms: Rooms,
}

/// What stops the writing of one file.
enum Stop {
    Damage(Damage),
    Mismatch(Mismatch),
    Io(&'static str, io::Error),
    Ended(Error),
    /// A piece before it has failed, and said so.
    FailedBefore,
}

impl From<Mismatch> for Stop {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be restored: {reason}")]
struct DamagedFile {
    path: TreePath,
    reason: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    pub(super) fn new(user: User, keep_going: bool, interrupt: Interrupt, observer: Arc<dyn Observer>) -> Self {
        let recent = Mutex::new(Recent::new(RECENT_BLOCK_BYTES));
        Self { user, keep_going, interrupt, observer, recent, rooms: Rooms::new() }
    }

    /// Writes windows until they end.
    pub(super) fn run(&self, mut windows: mpsc::Receiver<Flow<Window>>) -> Result<Outcome> {
        let crew = Crew::default();
        let (outcome, results) = std::thread::scope(|scope| {
            let _stop = StopOnPanic(&crew);
            let running: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| self.work(&crew))).collect();
            let handed = self.hand_over(&crew, &mut windows);
            if matches!(handed, Ok(Outcome::Done(_))) {
                crew.end()
            } else {
                crew.stop()
            }
            (handed, running.into_iter().map(|thread| thread.join()).collect::<Vec<_>>())
        });
        let mut tally = Tally::default();
        for result in results {
            tally.add(result.map_err(|_| Error::internal("a thread that writes files panicked"))??);
        }
        Ok(match outcome? {
            Outcome::Done(links) => {
                tally.add(links);
                Outcome::Done(tally)
            }
            Outcome::CutOff => Outcome::CutOff,
        })
    }

    /// Gives windows to the threads that write until they end, or nobody wants them.
    fn hand_over(&self, crew: &Crew, windows: &mut mpsc::Receiver<Flow<Window>>) -> Result<Outcome> {
        let mut tally = Tally::default();
        while crew.has_room() {
            match windows.blocking_recv() {
                Some(Flow::Next(window)) => {
                    crew.add(window);
                    crew.finish(|steps| self.do_afterwards(steps, &mut tally))?;
                }
                Some(Flow::End) => return Ok(Outcome::Done(tally)),
                None => break,
            }
        }
        Ok(Outcome::CutOff)
    }

    fn work(&self, crew: &Crew) -> Result<Tally> {
        let _stop = StopOnPanic(crew);
        let mut tally = Tally::default();
        while let Some((window, batch)) = crew.next() {
            let written = self.write_batch(batch, &window.blocks, &mut tally).and_then(|()| {
                crew.written(&window);
                crew.finish(|steps| self.do_afterwards(steps, &mut tally))
            });
            if let Err(error) = written {
                crew.stop();
                return Err(error);
            }
        }
        Ok(tally)
    }

    fn write_batch(&self, batch: Vec<Piece>, blocks: &Blocks, tally: &mut Tally) -> Result<()> {
        let mut batch = batch.into_iter();
        for piece in batch.by_ref() {
            let written = self.interrupt.check().and_then(|()| self.write_piece(&piece, blocks, tally));
            if let Err(error) = written {
                // Nobody waits for what is not written any more.
                piece.job.fail();
                batch.for_each(|piece| piece.job.fail());
                return Err(error);
            }
        }
        Ok(())
    }

    fn do_afterwards(&self, steps: Vec<Afterwards>, tally: &mut Tally) -> Result<()> {
        for step in steps {
            self.interrupt.check()?;
            match step {
                Afterwards::Link { original, path, directory } => self.link(&original, &path, &directory, tally)?,
                Afterwards::Finish { directory, entry } => self.finish(&directory, &entry, tally)?,
            }
        }
        Ok(())
    }

    fn write_piece(&self, piece: &Piece, blocks: &Blocks, tally: &mut Tally) -> Result<()> {
        let written = match piece.offset {
            Some(offset) => {
                let written = self.write_in_parts(piece, offset, blocks, tally);
                written.map_err(|failed| piece.job.give_up(failed))
            }
            None => {
                let mut turn = piece.job.turn(piece.number);
                let written = self.write_in_order(piece, &mut turn, blocks, tally);
                written.inspect_err(|_| turn.fail())
            }
        };
        let Err(failed) = written else { return Ok(()) };
        let path = &piece.job.entry.path;
        match failed {
            Stop::FailedBefore => Ok(()),
            Stop::Ended(error) => Err(error),
            Stop::Io(action, error) => tally.failed(action, path, error),
            Stop::Damage(damage) => self.damaged(path, damage.to_string(), damage.missing, tally),
            Stop::Mismatch(mismatch) => self.damaged(path, mismatch.to_string(), false, tally),
        }
    }

    fn damaged(&self, path: &TreePath, reason: String, missing: bool, tally: &mut Tally) -> Result<()> {
        tally.damaged = true;
        tally.missing |= missing;
        if self.keep_going {
            tally.incomplete(path, reason);
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, DamagedFile { path: path.clone(), reason }))
    }

    fn write_in_order(
        &self,
        piece: &Piece,
        turn: &mut Turn<'_>,
        blocks: &Blocks,
        tally: &mut Tally,
    ) -> std::result::Result<(), Stop> {
        piece.look_at_blocks(blocks).map_err(Stop::Damage)?;
        let step = |bytes| self.step(bytes);
        let decode =
            |chunks: &[(ChunkId, ChunkPlacement)]| self.block(chunks, blocks)?.chunks(chunks).map_err(Stop::Damage);
        ahead::each_chunk(&piece.chunks, decode, |id, data| turn.file()?.push(id, data, &step))?;
        if piece.last {
            turn.last()?.finish(&piece.job.entry, &self.user, &mut tally.unsettable, &step)?;
            turn.written();
            tally.written += 1;
            self.advance(1, 0);
        } else {
            turn.file()?;
        }
        Ok(())
    }

    /// So many bytes of content are written; whether to go on.
    fn step(&self, bytes: u64) -> std::result::Result<(), Stop> {
        self.advance(0, bytes);
        self.interrupt.check().map_err(Stop::Ended)
    }

    /// The block of these chunks.
    fn block(&self, chunks: &[(ChunkId, ChunkPlacement)], blocks: &Blocks) -> std::result::Result<Arc<Block>, Stop> {
        let [(_, first), ..] = chunks else { return Err(Stop::Ended(Error::internal("no chunk of a block"))) };
        let at = BlockRef::of(first);
        if let Some(block) = lock(&self.recent).get(&at) {
            return Ok(block);
        }
        let stored = match blocks.get(&at) {
            Some(Ok(stored)) => stored,
            Some(Err(damage)) => return Err(Stop::Damage(damage.clone())),
            None => return Err(Stop::Ended(Error::internal("a window lacks a block of its files"))),
        };
        let stored = stored.read(&self.rooms).map_err(Stop::Ended)?;
        let block = Arc::new(Block::decode_in(&self.rooms, at, &stored).map_err(Stop::Damage)?);
        // One that a large file has for itself is not wanted again.
        let wanted_bytes: u64 = chunks.iter().map(|(_, placement)| u64::from(placement.bytes)).sum();
        if wanted_bytes < block.bytes() as u64 {
            lock(&self.recent).insert(at, Arc::clone(&block), block.bytes());
        }
        Ok(block)
    }

    fn link(&self, original: &Original, path: &TreePath, directory: &Arc<Directory>, tally: &mut Tally) -> Result<()> {
        let (from, from_name) = match original {
            Original::Job(job) if job.is_written() => (&job.directory, job.name()),
            Original::There { directory, name, .. } => (directory, &name[..]),
            Original::Job(_) | Original::Planned => {
                tally.incomplete(path, "the file that this is a hard link of could not be restored");
                return Ok(());
            }
        };
        match link(from, from_name, directory, path.name().unwrap_or_default()) {
            Ok(()) => {
                tally.written += 1;
                self.advance(1, 0);
                Ok(())
            }
            Err(error) => tally.failed("link", path, error),
        }
    }

    fn finish(&self, directory: &Arc<Directory>, entry: &Entry, tally: &mut Tally) -> Result<()> {
        let finished = directory
            .handle()
            .and_then(|handle| apply(Target::Open(handle.as_fd()), entry, &self.user, &mut tally.unsettable));
        finished.or_else(|error| tally.failed("set the metadata of", &entry.path, error))
    }

    fn advance(&self, files: u64, bytes: u64) {
        self.observer.progress(Progress::Advanced { files, bytes });
    }
}

/// Groups those that begin in the same block: one thread decodes it for all of them. Where each file was changed by
/// another snapshot, blocks do not come in tree order.
fn batches(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    let first_block = |piece: &Piece| piece.chunks.first().map(|(_, placement)| BlockRef::of(placement));
    pieces.sort_by_key(first_block);
    let mut batches: Vec<Vec<Piece>> = Vec::new();
    for piece in pieces {
        let block = first_block(&piece);
        match batches.last_mut() {
            // Files without data join any batch.
            Some(batch) if block.is_none() || batch.last().is_some_and(|last| first_block(last) == block) => {
                batch.push(piece);
            }
            _ => batches.push(vec![piece]),
        }
    }
    batches
}

/// Gives a file a further name, in the place of whatever stands there.
fn link(from: &Arc<Directory>, from_name: &[u8], to: &Arc<Directory>, to_name: &[u8]) -> io::Result<()> {
    let temporary = temporary::name();
    let (from, to_handle) = (from.handle()?, to.handle()?);
    rustix::fs::linkat(&*from, from_name, &*to_handle, &temporary, AtFlags::empty())?;
    let renamed = to.rename(temporary.as_bytes(), to_name);
    // A rename onto the same file does nothing at all, and leaves both names.
    to.unlink(temporary.as_bytes())?;
    renamed
}

#[cfg(test)]
mod tests;
