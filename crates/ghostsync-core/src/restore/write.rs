//! Windows of fetched blocks in, files under their final names out.
//!
//! A file is written under a temporary name in its own directory, and gets its final name only when its whole
//! content has matched its hash and its metadata are set. So a wrong or half-written byte never stands under a
//! final name, and what a cut run leaves behind is recognised by its name. Holes stay holes.
//!
//! A few plain threads share the files of a window; when all of them are done, hard links are made and
//! directories that are finished get their metadata, in order. Blocks are decoded here, of a large file a few
//! ahead, so that memory depends neither on the size of a file nor on how well it compresses.

mod ahead;
mod unfinished;

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::AtFlags;
use tokio::sync::mpsc;

use self::unfinished::Unfinished;
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
use crate::temporary;
use crate::tree_path::TreePath;

const THREADS: usize = 3;

/// Decoded blocks are kept up to so many bytes, for the files that share them.
const RECENT_BLOCK_BYTES: usize = 4 << 20;

/// A regular file that is to be written.
#[derive(Debug)]
pub(super) struct FileJob {
    entry: Entry,
    directory: Arc<Directory>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    NotBegun,
    Writing(Box<Unfinished>),
    Written,
    Failed,
}

/// A part of a file whose blocks are in one window.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) job: Arc<FileJob>,
    pub(super) chunks: Vec<(ChunkId, ChunkPlacement)>,
    /// No more pieces follow.
    pub(super) last: bool,
    /// The list of the file's chunks is damaged.
    pub(super) damage: Option<Damage>,
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

/// The stored bytes of blocks, or what is wrong with them.
pub(super) type Blocks = HashMap<BlockRef, std::result::Result<Bytes, Damage>>;

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
}

/// What stops the writing of one file.
enum Stop {
    Damage(Damage),
    Mismatch(Mismatch),
    Io(&'static str, io::Error),
    Ended(Error),
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

impl FileJob {
    pub(super) fn new(entry: Entry, directory: Arc<Directory>) -> Self {
        Self { entry, directory, state: Mutex::new(State::NotBegun) }
    }

    fn is_written(&self) -> bool {
        matches!(*lock(&self.state), State::Written)
    }

    fn name(&self) -> &[u8] {
        self.entry.path.name().unwrap_or_default()
    }
}

impl Writer {
    pub(super) fn new(user: User, keep_going: bool, interrupt: Interrupt, observer: Arc<dyn Observer>) -> Self {
        Self { user, keep_going, interrupt, observer, recent: Mutex::new(Recent::new(RECENT_BLOCK_BYTES)) }
    }

    /// Writes windows until they end; `None` if they were cut off.
    pub(super) fn run(&self, mut windows: mpsc::Receiver<Flow<Window>>) -> Result<Outcome> {
        let mut tally = Tally::default();
        loop {
            match windows.blocking_recv() {
                Some(Flow::Next(window)) => tally.add(self.write_window(window)?),
                Some(Flow::End) => return Ok(Outcome::Done(tally)),
                None => return Ok(Outcome::CutOff),
            }
        }
    }

    fn write_window(&self, window: Window) -> Result<Tally> {
        let Window { pieces, blocks, afterwards } = window;
        let batches = Mutex::new(batches(pieces).into_iter());
        let take = || lock(&batches).next();
        let work = || -> Result<Tally> {
            let mut tally = Tally::default();
            while let Some(batch) = take() {
                for piece in batch {
                    self.interrupt.check()?;
                    if let Err(error) = self.write_piece(piece, &blocks, &mut tally) {
                        // The others have nothing left to take.
                        lock(&batches).by_ref().for_each(drop);
                        return Err(error);
                    }
                }
            }
            Ok(tally)
        };
        let threads = THREADS.min(lock(&batches).len());
        let mut tally = Tally::default();
        if threads <= 1 {
            tally.add(work()?);
        } else {
            let results: Vec<_> = std::thread::scope(|scope| {
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                running.into_iter().map(|thread| thread.join()).collect()
            });
            for result in results {
                tally.add(result.map_err(|_| Error::internal("a thread that writes files panicked"))??);
            }
        }
        for step in afterwards {
            self.interrupt.check()?;
            match step {
                Afterwards::Link { original, path, directory } => {
                    self.link(&original, &path, &directory, &mut tally)?
                }
                Afterwards::Finish { directory, entry } => self.finish(&directory, &entry, &mut tally)?,
            }
        }
        Ok(tally)
    }

    fn write_piece(&self, piece: Piece, blocks: &Blocks, tally: &mut Tally) -> Result<()> {
        let job = Arc::clone(&piece.job);
        let mut state = lock(&job.state);
        if matches!(*state, State::Failed) {
            return Ok(());
        }
        let failed = match self.write_chunks(&job, piece, &mut state, blocks, tally) {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        *state = State::Failed;
        match failed {
            Stop::Ended(error) => Err(error),
            Stop::Io(action, error) => tally.failed(action, &job.entry.path, error),
            Stop::Damage(damage) => self.damaged(&job.entry.path, damage.to_string(), damage.missing, tally),
            Stop::Mismatch(mismatch) => self.damaged(&job.entry.path, mismatch.to_string(), false, tally),
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

    fn write_chunks(
        &self,
        job: &FileJob,
        piece: Piece,
        state: &mut State,
        blocks: &Blocks,
        tally: &mut Tally,
    ) -> std::result::Result<(), Stop> {
        if let Some(damage) = piece.damage {
            return Err(Stop::Damage(damage));
        }
        // A first look at the blocks, so that a file that cannot be whole is not begun.
        for (_, placement) in &piece.chunks {
            if let Some(Err(damage)) = blocks.get(&BlockRef::of(placement)) {
                return Err(Stop::Damage(damage.clone()));
            }
        }
        if matches!(state, State::NotBegun) {
            *state = State::Writing(Box::new(Unfinished::create(&job.directory, &job.entry)?));
        }
        let State::Writing(file) = state else { return Ok(()) };
        let step = |bytes| {
            self.advance(0, bytes);
            self.interrupt.check().map_err(Stop::Ended)
        };
        let decode =
            |chunks: &[(ChunkId, ChunkPlacement)]| self.block(chunks, blocks)?.chunks(chunks).map_err(Stop::Damage);
        ahead::each_chunk(&piece.chunks, decode, |id, data| file.push(id, data, &step))?;
        if piece.last
            && let State::Writing(file) = std::mem::replace(state, State::Failed)
        {
            file.finish(&job.entry, &self.user, &mut tally.unsettable, &step)?;
            *state = State::Written;
            tally.written += 1;
            self.advance(1, 0);
        }
        Ok(())
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
        let block = Arc::new(Block::decode(at, stored).map_err(Stop::Damage)?);
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

/// Groups neighbours that begin in the same block: one thread decodes it for all of them.
fn batches(pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    let first_block = |piece: &Piece| piece.chunks.first().map(|(_, placement)| BlockRef::of(placement));
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
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::entry::{ChunkList, EntryKind, Hole};
    use crate::format::frame;
    use crate::id::{PackName, SessionId};
    use crate::observer::NoObserver;
    use crate::restore::tests::{file, temporary_root};
    use crate::testing::tree::noise;

    fn writer(keep_going: bool) -> Writer {
        Writer::new(User::current(), keep_going, Interrupt::default(), Arc::new(NoObserver))
    }

    /// Puts chunks into one block of a window.
    fn put(blocks: &mut Blocks, number: u32, chunks: &[&[u8]]) -> Vec<(ChunkId, ChunkPlacement)> {
        let stored = frame::compress("block", &chunks.concat()).expect("compresses");
        let pack = PackName { begin: 0, session: SessionId::from_bytes([0; 16]), number };
        let frame_bytes = u32::try_from(stored.len()).expect("small");
        blocks.insert(BlockRef { pack, offset: 0, bytes: frame_bytes }, Ok(stored.into()));
        let mut offset = 0;
        let place = |chunk: &&[u8]| {
            let bytes = u32::try_from(chunk.len()).expect("small");
            let placement = ChunkPlacement { pack, frame_offset: 0, frame_bytes, offset, bytes };
            offset += bytes;
            (ChunkId::of(chunk), placement)
        };
        chunks.iter().map(place).collect()
    }

    fn piece(job: &Arc<FileJob>, chunks: &[(ChunkId, ChunkPlacement)], last: bool) -> Piece {
        Piece { job: Arc::clone(job), chunks: chunks.to_vec(), last, damage: None }
    }

    fn job(root: &Arc<Directory>, entry: Entry) -> Arc<FileJob> {
        Arc::new(FileJob::new(entry, Arc::clone(root)))
    }

    #[track_caller]
    fn assert_names(folder: &tempfile::TempDir, expected: &[&str]) {
        let names = std::fs::read_dir(folder.path()).expect("a folder");
        let mut names: Vec<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        assert_eq!(names, expected);
    }

    #[test]
    fn files_of_one_block_and_files_over_two_windows_are_written() {
        let (folder, root) = temporary_root();
        let writer = writer(false);
        let mut blocks = Blocks::new();
        let small = put(&mut blocks, 0, &[b"one", b"two"]);
        let mut first_window = Window { blocks, ..Window::default() };
        for (name, chunk) in [("1", &small[..1]), ("2", &small[1..]), ("0", &[])] {
            let content: &[u8] = if name == "1" {
                b"one"
            } else if name == "2" {
                b"two"
            } else {
                b""
            };
            first_window.pieces.push(piece(&job(&root, file(name, content)), chunk, true));
        }
        let (head, tail) = (vec![7; 100_000], vec![9; 50_000]);
        let large = job(&root, file("large", &[&head[..], &tail].concat()));
        let chunks = put(&mut first_window.blocks, 1, &[&head]);
        first_window.pieces.push(piece(&large, &chunks, false));
        let tally = writer.write_window(first_window).expect("writes");
        assert_eq!((tally.written, large.is_written()), (3, false));
        assert_eq!(std::fs::read(folder.path().join("2")).expect("is there"), b"two");
        assert!(!folder.path().join("large").exists());

        let mut second_window = Window::default();
        let chunks = put(&mut second_window.blocks, 2, &[&tail]);
        second_window.pieces.push(piece(&large, &chunks, true));
        let further = TreePath::parse("further").expect("a path");
        let link = Afterwards::Link { original: Original::Job(Arc::clone(&large)), path: further, directory: root };
        second_window.afterwards.push(link);
        assert_eq!(writer.write_window(second_window).expect("writes").written, 2);
        assert_names(&folder, &["0", "1", "2", "further", "large"]);
        let there = std::fs::metadata(folder.path().join("further")).expect("is there");
        assert_eq!((there.len(), there.nlink(), there.mtime()), (150_000, 2, 1_600_000_000));
    }

    #[test]
    fn a_piece_of_many_blocks_is_written_in_order_and_fails_as_a_whole() {
        const BLOCKS: u32 = 20;
        for damaged in [None, Some(0), Some(7), Some(BLOCKS - 1)] {
            let (folder, root) = temporary_root();
            let mut window = Window::default();
            let mut chunks = Vec::new();
            let mut content = Vec::new();
            for number in 0..BLOCKS {
                let parts = [noise(number.into(), 3000), noise(u64::from(number) + 100, 10)];
                chunks.extend(put(&mut window.blocks, number, &[&parts[0], &parts[1]]));
                content.extend(parts.concat());
            }
            if let Some(damaged) = damaged {
                // Decodes, and holds something else: two chunks change places.
                let at = damaged as usize * 2;
                let (first, second) = (chunks[at].0, chunks[at + 1].0);
                (chunks[at].0, chunks[at + 1].0) = (second, first);
            }
            window.pieces.push(piece(&job(&root, file("a", &content)), &chunks, true));
            let result = writer(false).write_window(window);
            if damaged.is_some() {
                assert_eq!(result.expect_err("damaged").kind(), ErrorKind::Corrupt);
                assert_names(&folder, &[]);
            } else {
                assert_eq!(result.expect("writes").written, 1);
                assert!(std::fs::read(folder.path().join("a")).expect("is there") == content);
            }
        }
    }

    #[test]
    fn what_a_directory_hands_down_is_taken_away_again() {
        // `u::rwx,u:1234:rwx,g::r-x,m::rwx,o::r-x`, under which the mode looks right: a version, then tag, permissions and id of each.
        let nobody = u32::MAX;
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in
            [(1_u16, 7_u16, nobody), (2, 7, 1234), (4, 5, nobody), (16, 7, nobody), (32, 5, nobody)]
        {
            list.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
        }
        let (folder, root) = temporary_root();
        let empty = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(folder.path(), crate::xattr::DEFAULT_ACL, &list, empty).is_err() {
            return eprintln!("skipped: this file system has no ACLs");
        }
        let mut window = Window::default();
        let chunks = put(&mut window.blocks, 0, &[b"data"]);
        let entry = file("a", b"data");
        let mode = entry.mode;
        window.pieces.push(piece(&job(&root, entry), &chunks, true));
        assert_eq!(writer(false).write_window(window).expect("writes").written, 1);
        let path = folder.path().join("a");
        let mut value = [0; 256];
        let there = rustix::fs::getxattr(&path, crate::xattr::ACCESS_ACL, &mut value[..]);
        assert_eq!(there.err(), Some(rustix::io::Errno::NODATA));
        assert_eq!(std::fs::metadata(&path).expect("is there").mode() & 0o7777, mode);
    }

    #[test]
    fn holes_stay_holes() {
        let (folder, root) = temporary_root();
        let mut content = vec![0; 5 << 20];
        content[1 << 20..(1 << 20) + 4].copy_from_slice(b"data");
        let mut entry = file("sparse", &content);
        if let EntryKind::File(file) = &mut entry.kind {
            let after = (1 << 20) + 4;
            let rest = Hole { offset: after, length: file.size - after };
            file.holes = vec![Hole { offset: 0, length: 1 << 20 }, rest];
            file.chunks = ChunkList::Inline(vec![ChunkId::of(b"data")]);
        }
        let mut window = Window::default();
        let chunks = put(&mut window.blocks, 0, &[b"data"]);
        window.pieces.push(piece(&job(&root, entry), &chunks, true));
        assert_eq!(writer(false).write_window(window).expect("writes").written, 1);
        assert_eq!(std::fs::read(folder.path().join("sparse")).expect("is there"), content);
        assert!(std::fs::metadata(folder.path().join("sparse")).expect("is there").blocks() < 1000);
    }

    #[test]
    fn no_wrong_byte_gets_a_final_name() {
        type Spoil = fn(&mut Window);
        let spoils: [(&str, Spoil); 4] = [
            ("another chunk", |window| window.pieces[0].chunks[0].0 = ChunkId::of(b"else")),
            ("a chunk too few", |window| window.pieces[0].chunks.clear()),
            ("a damaged block", |window| {
                window.blocks.values_mut().for_each(|block| *block = Ok(Bytes::from_static(b"no frame")));
            }),
            ("a lost list", |window| {
                let damage = Damage { object: "list".into(), reason: "lost".into(), missing: false };
                window.pieces[0].damage = Some(damage);
            }),
        ];
        for keep_going in [false, true] {
            for (what, spoil) in &spoils {
                let (folder, root) = temporary_root();
                std::fs::write(folder.path().join("a"), b"old").expect("writes");
                let mut window = Window::default();
                let chunks = put(&mut window.blocks, 0, &[b"new"]);
                let bad = job(&root, file("a", b"new"));
                window.pieces.push(piece(&bad, &chunks, true));
                spoil(&mut window);
                let sound = put(&mut window.blocks, 1, &[b"sound"]);
                window.pieces.push(piece(&job(&root, file("b", b"sound")), &sound, true));
                let path = TreePath::parse("c").expect("a path");
                let link = Afterwards::Link { original: Original::Job(bad), path, directory: Arc::clone(&root) };
                window.afterwards.push(link);
                let result = writer(keep_going).write_window(window);
                assert_eq!(std::fs::read(folder.path().join("a")).expect("is there"), b"old", "{what}");
                if keep_going {
                    let tally = result.expect("goes on");
                    assert!(tally.damaged);
                    assert_eq!((tally.written, tally.problems.len()), (1, 2), "{what}: {:?}", tally.problems);
                    assert_names(&folder, &["a", "b"]);
                } else {
                    let error = result.expect_err(what);
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
                    assert!(error.to_string().starts_with("a cannot be restored: "), "{error}");
                    assert!(!folder.path().join("c").exists());
                }
            }
        }
    }

    #[test]
    fn content_that_does_not_match_its_entry_is_damage() {
        let (folder, root) = temporary_root();
        let mut window = Window::default();
        let chunks = put(&mut window.blocks, 0, &[b"abd"]);
        window.pieces.push(piece(&job(&root, file("a", b"abc")), &chunks, true));
        let error = writer(false).write_window(window).expect_err("every chunk is right, and the whole is not");
        assert!(error.to_string().contains("does not match its hash"), "{error}");
        assert_names(&folder, &[]);
    }

    #[test]
    fn an_unfinished_file_that_is_given_up_is_gone() {
        let (folder, root) = temporary_root();
        let mut window = Window::default();
        let chunks = put(&mut window.blocks, 0, &[b"half"]);
        let job = job(&root, file("a", b"half of it"));
        window.pieces.push(piece(&job, &chunks, false));
        assert_eq!(writer(false).write_window(window).expect("writes").written, 0);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
        drop(job);
        assert_names(&folder, &[]);
    }
}
