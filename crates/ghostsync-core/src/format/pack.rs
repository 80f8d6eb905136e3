//! Packs: a sequence of zstd frames and, last, one skippable frame with the table of contents.
//!
//! The table's payload is one zstd frame of JSON, then its length and a magic number in 8 bytes, so that
//! the table can be found from the end. Nothing that reads a snapshot needs it: it is for repair.

use std::io::{self, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{FormatError, frame};
use crate::id::{ChunkId, PageId};

/// The most bytes of content in one block.
pub const MAX_BLOCK_BYTES: u64 = 16 << 20;

/// The most bytes that a block's frame may have: its content, and what zstd adds when nothing compresses.
pub const MAX_BLOCK_FRAME_BYTES: u64 = MAX_BLOCK_BYTES + (MAX_BLOCK_BYTES >> 7) + 1024;

/// The most bytes that a pack may have.
pub const MAX_PACK_BYTES: u64 = 1 << 30;

/// The most bytes of a table of contents before compression.
pub const MAX_TABLE_BYTES: u64 = 256 << 20;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const FOOTER_MAGIC: [u8; 4] = *b"GSt1";
/// The bytes at the end of a pack that say how long the table is.
pub const FOOTER_BYTES: usize = 8;

/// What a pack holds, frame by frame, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableOfContents {
    /// The frames of a data pack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockRecord>,
    /// The frames of a meta pack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<PageRecord>,
}

/// One block of a data pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// Where its frame begins, in bytes.
    pub offset: u64,
    /// The frame's length in bytes.
    pub length: u32,
    /// Its chunks, back to back from the block's begin.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// One page of a meta pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRecord {
    /// Where its frame begins, in bytes.
    pub offset: u64,
    /// The frame's length in bytes.
    pub length: u32,
    /// Its id.
    pub page: PageId,
}

impl TableOfContents {
    /// Encodes the skippable frame that ends a pack, in pieces.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if the table is over its limit.
    pub fn encode(&self) -> Result<Vec<Bytes>, FormatError> {
        let what = "table of contents";
        let failed = |source| FormatError::Json { what, source };
        // The text is twice as long as what it becomes: it is made twice rather than kept.
        let mut counted = Counted(0);
        serde_json::to_writer(&mut counted, self).map_err(failed)?;
        let too_large = FormatError::TooLarge { what, limit: MAX_TABLE_BYTES };
        if counted.0 > MAX_TABLE_BYTES {
            return Err(too_large);
        }
        let mut payload = frame::compress_written(what, counted.0, |frame| {
            serde_json::to_writer(frame, self).map_err(io::Error::from)
        })?;
        let Ok(payload_bytes) = u32::try_from(payload.len() + FOOTER_BYTES) else { return Err(too_large) };
        // Counts the whole skippable frame, its 8-byte header and this footer included.
        payload.push(&[(payload_bytes + 8).to_le_bytes(), FOOTER_MAGIC].concat());
        let header = [SKIPPABLE_MAGIC.to_le_bytes(), payload_bytes.to_le_bytes()].concat().into();
        Ok([vec![header], payload.into_parts()].concat())
    }

    /// Reads from a pack's last [`FOOTER_BYTES`] how many bytes at the end of the pack are the table.
    ///
    /// # Errors
    /// [`FormatError::Rule`] if these are not the last bytes of a pack.
    pub fn length_from_footer(footer: &[u8]) -> Result<u64, FormatError> {
        match footer {
            [a, b, c, d, magic @ ..] if *magic == FOOTER_MAGIC => Ok(u64::from(u32::from_le_bytes([*a, *b, *c, *d]))),
            _ => Err(FormatError::rule("table of contents", "the pack does not end with one")),
        }
    }

    /// Decodes the table from a whole pack, or from any tail of it that holds the table.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(tail: &[u8]) -> Result<Self, FormatError> {
        let what = "table of contents";
        let cut = || FormatError::rule(what, "cut short");
        let footer = tail.len().checked_sub(FOOTER_BYTES).ok_or_else(cut)?;
        let length = Self::length_from_footer(&tail[footer..])?;
        let begin = usize::try_from(length).ok().and_then(|length| tail.len().checked_sub(length)).ok_or_else(cut)?;
        if begin + 8 > footer {
            return Err(cut());
        }
        let payload_bytes = u32::try_from(length.saturating_sub(8)).map_err(|_| cut())?;
        let header = [SKIPPABLE_MAGIC.to_le_bytes(), payload_bytes.to_le_bytes()].concat();
        if tail[begin..begin + 8] != header {
            return Err(FormatError::rule(what, "not in a skippable frame"));
        }
        let json = frame::decompress(what, &tail[begin + 8..footer], MAX_TABLE_BYTES)?;
        serde_json::from_slice(&json).map_err(|source| FormatError::Json { what, source })
    }
}

/// Counts the bytes that are written to it.
struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_is_a_plain_sequence_of_frames_with_the_table_last() {
        let block = frame::compress("block", b"content").expect("compresses");
        let table = TableOfContents {
            blocks: vec![BlockRecord {
                offset: 0,
                length: u32::try_from(block.len()).expect("small"),
                chunks: vec![(ChunkId::of(b"content"), 7)],
            }],
            pages: Vec::new(),
        };
        let pack = [block, table.encode().expect("encodes").concat()].concat();
        assert_eq!(zstd::stream::decode_all(&pack[..]).expect("zstd reads it"), b"content");
        assert_eq!(TableOfContents::decode(&pack).expect("decodes"), table);
        let length = TableOfContents::length_from_footer(&pack[pack.len() - FOOTER_BYTES..]).expect("a footer");
        let tail = pack.len() - usize::try_from(length).expect("small");
        assert_eq!(TableOfContents::decode(&pack[tail..]).expect("decodes"), table);
        for end in 0..pack.len() {
            assert!(TableOfContents::decode(&pack[..end]).is_err());
        }
    }
}
