//! Where the chunks of a session lie, by number: the newest in memory, the others in a file of the cache folder.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::SpooledTempFile;

use crate::error::{Error, Result};
use crate::format::page::ChunkPlacement;
use crate::id::{ChunkId, PackName, SessionId};

/// A record: id, begin of the pack's session, session, number, then the rest.
pub(in crate::backup) const RECORD_BYTES: usize = 32 + 8 + 16 + 4 + 8 + 4 + 4 + 4;
/// What is kept at least of the newest: an entry asks for its chunks soon after their block was sealed.
const NEWEST: usize = 8192;
/// What the others take in memory at most, where there is a folder.
const IN_MEMORY_BYTES: usize = 8 << 20;

/// Placements of sealed chunks, in the order in which they were sealed.
#[derive(Debug)]
pub(super) struct Records {
    file: SpooledTempFile,
    in_file: u64,
    newest: VecDeque<(ChunkId, ChunkPlacement)>,
}

impl Records {
    /// Begins; without a folder all of it stays in memory.
    pub(super) fn new(folder: Option<&Path>) -> Self {
        let file = match folder {
            Some(folder) => tempfile::spooled_tempfile_in(IN_MEMORY_BYTES, folder),
            None => SpooledTempFile::new(usize::MAX),
        };
        Self { file, in_file: 0, newest: VecDeque::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.in_file + self.newest.len() as u64
    }

    /// Adds the next one.
    pub(super) fn push(&mut self, chunk: ChunkId, placement: ChunkPlacement) -> Result<()> {
        self.newest.push_back((chunk, placement));
        if self.newest.len() < 2 * NEWEST {
            return Ok(());
        }
        let older: Vec<u8> =
            self.newest.drain(..NEWEST).flat_map(|(chunk, placement)| encode(chunk, &placement)).collect();
        self.file.seek(SeekFrom::End(0)).and_then(|_| self.file.write_all(&older)).map_err(failed)?;
        self.in_file += NEWEST as u64;
        Ok(())
    }

    /// The n-th one.
    pub(super) fn get(&mut self, number: u64) -> Result<(ChunkId, ChunkPlacement)> {
        let newest = number.checked_sub(self.in_file).and_then(|index| self.newest.get(usize::try_from(index).ok()?));
        if let Some(newest) = newest {
            return Ok(*newest);
        }
        let mut record = [0; RECORD_BYTES];
        self.file.seek(SeekFrom::Start(number * RECORD_BYTES as u64)).map_err(failed)?;
        self.file.read_exact(&mut record).map_err(failed)?;
        Ok(decode(&record))
    }
}

fn failed(source: io::Error) -> Error {
    Error::local("keep", "the list of chunks in the cache folder", source)
}

pub(in crate::backup) fn encode(chunk: ChunkId, placement: &ChunkPlacement) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    let mut rest = &mut record[..];
    let fields: [&[u8]; 8] = [
        chunk.as_bytes(),
        &placement.pack.begin.to_le_bytes(),
        placement.pack.session.as_bytes(),
        &placement.pack.number.to_le_bytes(),
        &placement.frame_offset.to_le_bytes(),
        &placement.frame_bytes.to_le_bytes(),
        &placement.offset.to_le_bytes(),
        &placement.bytes.to_le_bytes(),
    ];
    for field in fields {
        let (head, tail) = rest.split_at_mut(field.len());
        head.copy_from_slice(field);
        rest = tail;
    }
    record
}

pub(in crate::backup) fn decode(record: &[u8; RECORD_BYTES]) -> (ChunkId, ChunkPlacement) {
    fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
        let mut field = [0; N];
        let (head, tail) = rest.split_at(N);
        field.copy_from_slice(head);
        *rest = tail;
        field
    }
    let mut rest = &record[..];
    let chunk = ChunkId::from_bytes(take(&mut rest));
    let begin = u64::from_le_bytes(take(&mut rest));
    let session = SessionId::from_bytes(take(&mut rest));
    let number = u32::from_le_bytes(take(&mut rest));
    let placement = ChunkPlacement {
        pack: PackName { begin, session, number },
        frame_offset: u64::from_le_bytes(take(&mut rest)),
        frame_bytes: u32::from_le_bytes(take(&mut rest)),
        offset: u32::from_le_bytes(take(&mut rest)),
        bytes: u32::from_le_bytes(take(&mut rest)),
    };
    (chunk, placement)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_every_field() {
        let placement = ChunkPlacement {
            pack: PackName { begin: 1, session: SessionId::from_bytes([2; 16]), number: 3 },
            frame_offset: 4,
            frame_bytes: 5,
            offset: 6,
            bytes: 7,
        };
        assert_eq!(decode(&encode(ChunkId::of(b"x"), &placement)), (ChunkId::of(b"x"), placement));
    }

    #[test]
    fn old_and_new_ones_are_found_by_their_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        let placement = |number| ChunkPlacement {
            pack: PackName { begin: 1, session: SessionId::from_bytes([2; 16]), number },
            frame_offset: 4,
            frame_bytes: 5,
            offset: 6,
            bytes: 7,
        };
        let chunk = |number: u32| ChunkId::of(&number.to_le_bytes());
        let mut records = Records::new(Some(folder.path()));
        let count = u32::try_from(IN_MEMORY_BYTES / RECORD_BYTES + 3 * NEWEST).expect("fits");
        for number in 0..count {
            records.push(chunk(number), placement(number)).expect("is kept");
        }
        assert!(records.file.is_rolled(), "nothing is on disk");
        assert_eq!(records.len(), u64::from(count));
        for number in [0, 1, 8191, 8192, count / 2, count - 16_385, count - 8192, count - 1] {
            let found = records.get(number.into()).expect("is there");
            assert_eq!(found, (chunk(number), placement(number)), "number {number}");
        }
    }
}
