//! A file's content from its chunks: data between holes, in order, with the hash of the whole.
//!
//! Chunks cover a content without its holes. An [`Assembly`] knows where each byte belongs, hashes holes as
//! zeros, and says at the end whether the whole is the content that was promised. It does no I/O: where data and
//! holes go is up to the caller.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::read::{Block, BlockRef, fetch_run, runs};
use crate::entry::{FileContent, Hole};
use crate::error::{Error, Result};
use crate::format::page::{ChunkPlacement, Placed};
use crate::id::{ChunkId, ContentHash};
use crate::store::Store;
use crate::tree::{ChunkReader, Pages};

/// Holes are passed on in pieces of so many bytes, so that whoever takes them can stop in between.
const HOLE_PIECE_BYTES: u64 = 16 << 20;

/// Zeros that stay in a processor's cache while a hole is hashed.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The next piece of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span<'a> {
    /// These bytes belong at an offset.
    Data(u64, &'a [u8]),
    /// So many bytes at the current end are a hole.
    Hole(u64),
}

/// The chunks are not the content that the entry promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("its chunks are longer than its size")]
    TooLong,
    #[error("its chunks are shorter than its size")]
    TooShort,
    #[error("its content does not match its hash")]
    Hash,
}

/// Puts chunks together to a content.
#[derive(Debug)]
pub(crate) struct Assembly {
    size: u64,
    hash: ContentHash,
    holes: std::iter::Peekable<std::vec::IntoIter<Hole>>,
    position: u64,
    hasher: blake3::Hasher,
    /// The one chunk that was pushed is the whole, so that nothing is left to be hashed.
    is_whole: bool,
}

impl Assembly {
    pub(crate) fn new(content: &FileContent) -> Self {
        Self {
            size: content.size,
            hash: content.hash,
            holes: content.holes.clone().into_iter().peekable(),
            position: 0,
            hasher: blake3::Hasher::new(),
            is_whole: false,
        }
    }

    /// Takes the next chunk, which was verified; holes that come before or within it are passed on in their place.
    pub(crate) fn push<E: From<Mismatch>>(
        &mut self,
        chunk: ChunkId,
        mut data: &[u8],
        sink: &mut impl FnMut(Span<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.is_whole = self.position == 0 && chunk == ChunkId::of_whole(self.hash) && data.len() as u64 == self.size;
        while !data.is_empty() {
            self.pass_holes(sink)?;
            let end = self.holes.peek().map_or(self.size, |hole| hole.offset);
            let room = usize::try_from(end.saturating_sub(self.position)).unwrap_or(usize::MAX);
            if room == 0 {
                return Err(Mismatch::TooLong.into());
            }
            let (now, later) = data.split_at(room.min(data.len()));
            if !self.is_whole {
                self.hasher.update(now);
            }
            sink(Span::Data(self.position, now))?;
            self.position += now.len() as u64;
            data = later;
        }
        Ok(())
    }

    /// Ends it: a hole at the end is passed on, and the whole is checked.
    pub(crate) fn finish<E: From<Mismatch>>(
        &mut self,
        sink: &mut impl FnMut(Span<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.pass_holes(sink)?;
        if self.position != self.size {
            return Err(Mismatch::TooShort.into());
        }
        if !self.is_whole && ContentHash::from_hasher(&self.hasher) != self.hash {
            return Err(Mismatch::Hash.into());
        }
        Ok(())
    }

    fn pass_holes<E>(
        &mut self,
        sink: &mut impl FnMut(Span<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        while let Some(hole) = self.holes.next_if(|hole| hole.offset == self.position) {
            let mut left = hole.length;
            while left > 0 {
                let piece = left.min(HOLE_PIECE_BYTES);
                hash_zeros(&mut self.hasher, piece);
                sink(Span::Hole(piece))?;
                left -= piece;
            }
            self.position = self.position.saturating_add(hole.length);
        }
        Ok(())
    }
}

fn hash_zeros(hasher: &mut blake3::Hasher, mut bytes: u64) {
    while bytes > 0 {
        let piece = usize::try_from(bytes).unwrap_or(usize::MAX).min(ZEROS.len());
        hasher.update(ZEROS.get(..piece).unwrap_or(&ZEROS));
        bytes -= piece as u64;
    }
}

/// So many stored bytes are fetched before they are written.
const WINDOW_BYTES: u64 = 16 << 20;
const READS_IN_FLIGHT: usize = 4;

type Chunk = (ChunkId, ChunkPlacement);

#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read: {reason}")]
struct Unreadable {
    path: String,
    reason: String,
}

#[derive(Debug)]
enum WriteError {
    Mismatch(Mismatch),
    Io(std::io::Error),
}

impl From<Mismatch> for WriteError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

/// Writes the verified content of a regular file, holes as zeros.
///
/// Every chunk is verified before it is written, the whole only at the end: whoever needs all or nothing writes
/// to a temporary place.
///
/// # Errors
/// `Invalid` if the entry is not a regular file; `Corrupt` if a chunk or the whole does not match its hash.
pub(crate) async fn write_content(
    store: &Store,
    pages: &Arc<Pages>,
    placed: &Placed,
    writer: &mut (dyn Write + Send),
) -> Result<()> {
    let path = &placed.entry.path;
    let Some(content) = placed.entry.content() else {
        return Err(Error::invalid(format!("{path} is not a regular file but a {}", placed.entry.kind.name())));
    };
    let failed = |error| match error {
        WriteError::Mismatch(mismatch) => {
            Error::new(crate::ErrorKind::Corrupt, Unreadable { path: path.to_string(), reason: mismatch.to_string() })
        }
        WriteError::Io(error) => Error::local("write the content of", path, error),
    };
    let mut sink = |span: Span<'_>| {
        match span {
            Span::Data(_, data) => writer.write_all(data),
            Span::Hole(bytes) => write_zeros(&mut *writer, bytes),
        }
        .map_err(WriteError::Io)
    };
    let mut assembly = Assembly::new(content);
    let mut reader = ChunkReader::new(Arc::clone(pages), placed);
    let mut window: Vec<Chunk> = Vec::new();
    let mut window_bytes = 0;
    loop {
        let chunks = reader.next_chunks().await?;
        let end = chunks.is_none();
        for chunk in chunks.into_iter().flatten() {
            if window.last().is_none_or(|(_, last)| BlockRef::of(last) != BlockRef::of(&chunk.1)) {
                window_bytes += u64::from(chunk.1.frame_bytes);
            }
            window.push(chunk);
            if window_bytes >= WINDOW_BYTES {
                let chunks = std::mem::take(&mut window);
                window_bytes = 0;
                write_window(store, chunks, &mut assembly, &mut sink).await?.map_err(failed)?;
            }
        }
        if end {
            write_window(store, window, &mut assembly, &mut sink).await?.map_err(failed)?;
            return assembly.finish(&mut sink).map_err(failed);
        }
    }
}

async fn write_window<E: From<Mismatch>>(
    store: &Store,
    chunks: Vec<Chunk>,
    assembly: &mut Assembly,
    sink: &mut impl FnMut(Span<'_>) -> std::result::Result<(), E>,
) -> Result<std::result::Result<(), E>> {
    let reads = runs(chunks.iter().map(|(_, placement)| BlockRef::of(placement)));
    let fetched: Vec<Vec<(BlockRef, Bytes)>> = futures::stream::iter(reads)
        .map(|run| async move { fetch_run(store, &run).await })
        .buffer_unordered(READS_IN_FLIGHT)
        .try_collect()
        .await?;
    let stored: HashMap<BlockRef, Bytes> = fetched.into_iter().flatten().collect();
    let mut current: Option<(BlockRef, Block)> = None;
    for (id, placement) in chunks {
        let at = BlockRef::of(&placement);
        let block = match current.take() {
            Some((known, block)) if known == at => block,
            _ => Block::decode(at, stored.get(&at).map_or(&[], |bytes| bytes.as_ref()))?,
        };
        if let Err(error) = assembly.push(id, block.chunk(id, &placement)?, sink) {
            return Ok(Err(error));
        }
        current = Some((at, block));
    }
    Ok(Ok(()))
}

fn write_zeros(writer: &mut (dyn Write + Send), mut bytes: u64) -> std::io::Result<()> {
    while bytes > 0 {
        let piece = usize::try_from(bytes).unwrap_or(usize::MAX).min(ZEROS.len());
        writer.write_all(ZEROS.get(..piece).unwrap_or(&ZEROS))?;
        bytes -= piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::ChunkList;

    fn content(bytes: &[u8], holes: &[(u64, u64)]) -> FileContent {
        FileContent {
            size: bytes.len() as u64,
            hash: ContentHash::of(bytes),
            chunks: ChunkList::None,
            holes: holes.iter().map(|(offset, length)| Hole { offset: *offset, length: *length }).collect(),
        }
    }

    fn assemble(content: &FileContent, data: &[&[u8]]) -> std::result::Result<Vec<u8>, Mismatch> {
        let mut bytes = Vec::new();
        let mut sink = |span: Span<'_>| {
            match span {
                Span::Data(offset, data) => {
                    assert_eq!(offset, bytes.len() as u64);
                    bytes.extend_from_slice(data);
                }
                Span::Hole(length) => bytes.resize(bytes.len() + usize::try_from(length).expect("small"), 0),
            }
            Ok(())
        };
        let mut assembly = Assembly::new(content);
        for data in data {
            assembly.push(ChunkId::of(data), data, &mut sink)?;
        }
        assembly.finish(&mut sink)?;
        Ok(bytes)
    }

    #[test]
    fn chunks_flow_around_holes() {
        type Case = (&'static [u8], &'static [(u64, u64)], &'static [&'static [u8]]);
        let table: &[Case] = &[
            (b"", &[], &[]),
            (b"abc", &[], &[b"abc"]),
            (b"abc", &[], &[b"a", b"", b"bc"]),
            (b"\0\0\0", &[(0, 3)], &[]),
            (b"a\0\0b", &[(1, 2)], &[b"ab"]),
            (b"a\0\0b", &[(1, 2)], &[b"a", b"b"]),
            (b"\0a\0b\0", &[(0, 1), (2, 1), (4, 1)], &[b"ab"]),
            (b"\0\0a", &[(0, 1), (1, 1)], &[b"a"]),
        ];
        for (bytes, holes, data) in table {
            assert_eq!(assemble(&content(bytes, holes), data).as_deref(), Ok(*bytes), "{bytes:?} {holes:?} {data:?}");
        }
    }

    #[test]
    fn anything_but_the_promised_content_is_refused() {
        let abc = content(b"abc", &[]);
        assert_eq!(assemble(&abc, &[b"ab"]), Err(Mismatch::TooShort));
        assert_eq!(assemble(&abc, &[b"abcd"]), Err(Mismatch::TooLong));
        assert_eq!(assemble(&abc, &[b"abd"]), Err(Mismatch::Hash));
        assert_eq!(assemble(&content(b"a\0", &[(1, 1)]), &[b"ab"]), Err(Mismatch::TooLong));
        let mut beyond = content(b"a", &[]);
        beyond.holes = vec![Hole { offset: 5, length: 1 }];
        assert!(assemble(&beyond, &[b"ab"]).is_err());
    }

    #[test]
    fn a_large_hole_is_hashed_as_zeros() {
        let zeros = vec![0; (HOLE_PIECE_BYTES + 100_001) as usize];
        let content = content(&zeros, &[(0, zeros.len() as u64)]);
        assert_eq!(assemble(&content, &[]).map(|bytes| bytes.len()), Ok(zeros.len()));
    }
}
