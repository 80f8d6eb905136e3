//! One attempt at the content of an open file: its data as chunks, everything in the hash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::buffer::spare_capacity;
use rustix::fs::Stat;
use rustix::io::Errno;

use super::chunk::{Buffers, Cutter, Rule};
use super::database::is_database;
use super::found::size_of;
use super::holes;
use super::read::ReadEvent;
use crate::entry::Hole;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ContentHash};
use crate::interrupt::Interrupt;

/// The zeros of holes, hashed in steps that stay in the processor's cache.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// The most bytes that are read between two looks at the wish to stop.
const READ_BYTES: usize = 4 << 20;

/// Files up to this size are read into memory of their own: so little is allocated quickly.
const SMALL_BYTES: usize = 128 << 10;

/// The content of a file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// Bytes, holes included.
    pub(crate) size: u64,
    /// The hash of all of them.
    pub(crate) hash: ContentHash,
    /// Sorted, not touching one another.
    pub(crate) holes: Vec<Hole>,
    /// The chunks of the data between the holes, in order, with their lengths in bytes.
    pub(crate) chunks: Vec<(ChunkId, u32)>,
}

/// Why an attempt has no content.
pub(super) enum Stop {
    /// Everything is to end.
    End(Error),
    /// This file cannot be read.
    Unreadable(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::End(error)
    }
}

/// Reads an open file up to the size of the stat, or up to its end, should that come sooner.
pub(super) fn read_content(
    file: &File,
    stat: &Stat,
    rule: Rule,
    buffers: &mut Buffers,
    interrupt: &Interrupt,
    sink: &mut dyn FnMut(ReadEvent) -> Result<()>,
) -> std::result::Result<Content, Stop> {
    let size = size_of(stat);
    let holes = holes::find(file, stat, interrupt)?;
    let data_bytes = holes.iter().fold(size, |bytes, hole| bytes.saturating_sub(hole.length));
    if holes.is_empty()
        && let Some(bytes) = rule.whole(size).filter(|bytes| *bytes <= SMALL_BYTES)
    {
        return read_whole(file, bytes, interrupt, sink);
    }
    let mut reading = Reading {
        file,
        interrupt,
        sink,
        cutter: Cutter::new(rule, data_bytes, buffers, || is_database(file)),
        hasher: blake3::Hasher::new(),
        offset: 0,
        holes: Vec::with_capacity(holes.len()),
        chunks: Vec::new(),
    };
    for hole in holes {
        if !reading.read_data(hole.offset)? {
            return reading.finish();
        }
        reading.skip(hole)?;
    }
    reading.read_data(size)?;
    reading.finish()
}

/// Reads a small file, which is one chunk, or less than it was.
fn read_whole(
    file: &File,
    bytes: usize,
    interrupt: &Interrupt,
    sink: &mut dyn FnMut(ReadEvent) -> Result<()>,
) -> std::result::Result<Content, Stop> {
    interrupt.check()?;
    let mut data = Vec::with_capacity(bytes);
    while data.len() < bytes {
        let offset = data.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut data), offset) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Stop::Unreadable(errno.into())),
        }
    }
    data.truncate(bytes);
    let (size, hash) = (data.len() as u64, ContentHash::of(&data));
    // Room for more would take another thread longer to free.
    let mut chunks = Vec::with_capacity(1);
    if !data.is_empty() {
        let id = ChunkId::of_whole(hash);
        chunks.push((id, u32::try_from(size).map_err(|_| Error::internal("a chunk over 4 GiB"))?));
        sink(ReadEvent::Chunk { id, bytes: data.into() })?;
    }
    Ok(Content { size, hash, holes: Vec::new(), chunks })
}

struct Reading<'a> {
    file: &'a File,
    interrupt: &'a Interrupt,
    sink: &'a mut dyn FnMut(ReadEvent) -> Result<()>,
    cutter: Cutter<'a>,
    hasher: blake3::Hasher,
    /// How far the content was hashed.
    offset: u64,
    holes: Vec<Hole>,
    chunks: Vec<(ChunkId, u32)>,
}

impl Reading<'_> {
    /// Reads data up to an offset; `false` if the file ends before it.
    fn read_data(&mut self, until: u64) -> std::result::Result<bool, Stop> {
        while self.offset < until {
            self.interrupt.check()?;
            let space = self.cutter.space();
            let most = usize::try_from(until - self.offset).unwrap_or(usize::MAX).min(space.len()).min(READ_BYTES);
            let Some(space) = space.get_mut(..most).filter(|space| !space.is_empty()) else {
                return Err(Error::internal("no room for more data of a file").into());
            };
            let bytes = match self.file.read_at(space, self.offset) {
                Ok(0) => return Ok(false),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Unreadable(error)),
            };
            self.hasher.update(space.get(..bytes).unwrap_or_default());
            self.offset += bytes as u64;
            self.cutter.filled(bytes);
            while let Some(chunk) = self.cutter.take() {
                self.hand_over(ChunkId::of(&chunk), chunk)?;
            }
        }
        Ok(true)
    }

    /// Hashes a hole's zeros.
    fn skip(&mut self, hole: Hole) -> Result<()> {
        let mut left = hole.length;
        while left > 0 {
            self.interrupt.check()?;
            let zeros = usize::try_from(left).ok().and_then(|left| ZEROS.get(..left)).unwrap_or(&ZEROS);
            self.hasher.update(zeros);
            left -= zeros.len() as u64;
        }
        self.offset += hole.length;
        self.holes.push(hole);
        match self.cutter.skip(hole.length) {
            Some(chunk) => self.hand_over(ChunkId::of(&chunk), chunk),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> std::result::Result<Content, Stop> {
        let hash = ContentHash::from_hasher(&self.hasher);
        while let Some(chunk) = self.cutter.take_last() {
            // A chunk that is all of the content needs no hashing of its own.
            let is_whole = chunk.len() as u64 == self.offset;
            self.hand_over(if is_whole { ChunkId::of_whole(hash) } else { ChunkId::of(&chunk) }, chunk)?;
        }
        Ok(Content { size: self.offset, hash, holes: self.holes, chunks: self.chunks })
    }

    fn hand_over(&mut self, id: ChunkId, bytes: bytes::Bytes) -> Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| Error::internal("a chunk over 4 GiB"))?;
        self.chunks.push((id, length));
        (self.sink)(ReadEvent::Chunk { id, bytes })
    }
}
