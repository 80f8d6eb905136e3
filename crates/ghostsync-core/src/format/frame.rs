//! One zstd frame: made whole, and decoded with a limit that is checked before anything is allocated.

use std::cell::RefCell;
use std::io::{self, BufWriter, Read, Write};

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{
    CParameter, InBuffer, OutBuffer, ResetDirective, compress_bound, find_frame_compressed_size, get_error_name,
    get_frame_content_size,
};

use super::FormatError;
use super::pieces::Pieces;
use crate::rooms::Rooms;

/// The level of everything but blocks: within a few percent of the slower ones.
pub const LEVEL: i32 = 3;

/// What a frame begins with.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The largest window, as a power of two, that a frame may ask a reader to keep: 8 MiB, which every decoder has.
const MAX_WINDOW_LOG: u32 = 23;

// The tables of a compressor are some MiB, which cost more to make than a small frame to compress.
thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses bytes into one frame that carries its content size and a checksum: nothing else shows a flipped bit in
/// the newest commit, or in a table of contents.
///
/// # Errors
/// [`FormatError::Frame`] if the compressor fails, which only a lack of memory makes it do.
pub fn compress(what: &'static str, content: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut frame = Vec::new();
    compress_with(Effort::Usual, what, content, &mut frame)?;
    Ok(frame)
}

/// Compresses as [`compress`] does what a function writes, which must be `content_bytes`: neither the content nor the
/// frame is in memory in one piece.
///
/// # Errors
/// As [`compress`], and what the function returns.
pub(crate) fn compress_written(
    what: &'static str,
    content_bytes: u64,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Pieces, FormatError> {
    let compressed = || {
        let mut encoder = zstd::Encoder::new(Pieces::default(), LEVEL)?;
        encoder.include_checksum(true)?;
        encoder.set_pledged_src_size(Some(content_bytes))?;
        let mut buffered = BufWriter::with_capacity(64 << 10, encoder);
        write(&mut buffered)?;
        buffered.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
    };
    compressed().map_err(|source| FormatError::Frame { what, source })
}

/// Compresses the content of a page: much of it are hashes, which a level that searches longer makes no smaller.
///
/// # Errors
/// As [`compress`].
pub(crate) fn compress_page(what: &'static str, content: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut frame = Vec::new();
    compress_with(Effort::Least, what, content, &mut frame)?;
    Ok(frame)
}

/// Compresses the content of a block, every chunk of which has a hash of its own: in three quarters of the time, for a
/// few percent of the size, and without a checksum. The frame replaces what is in `frame`.
///
/// # Errors
/// As [`compress`].
pub(crate) fn compress_block(content: &[u8], frame: &mut Vec<u8>) -> Result<(), FormatError> {
    compress_with(Effort::Less, "block", content, frame)
}

/// Compresses the content of a block of which stretches alternate that can be compressed and that cannot, each with
/// tables of its own. To decode it takes three quarters of the time, as bytes that cannot be compressed are then not
/// written in codes of nearly their length, and it is smaller.
///
/// # Errors
/// As [`compress`].
pub(crate) fn compress_stretches(stretches: &[&[u8]], frame: &mut Vec<u8>) -> Result<(), FormatError> {
    let compressed = with_compressor(Effort::LessInStretches, |compressor| {
        let bytes = stretches.iter().map(|stretch| stretch.len()).sum();
        frame.clear();
        frame.reserve(compress_bound(bytes) + stretches.len() * BLOCK_HEADER_BYTES);
        let context = compressor.context_mut();
        context.set_pledged_src_size(Some(bytes as u64)).map_err(failed)?;
        let mut output = OutBuffer::around(frame);
        for (index, stretch) in stretches.iter().enumerate() {
            let is_last = index + 1 == stretches.len();
            let directive = if is_last { ZSTD_EndDirective::ZSTD_e_end } else { ZSTD_EndDirective::ZSTD_e_flush };
            let mut input = InBuffer::around(stretch);
            while context.compress_stream2(&mut output, &mut input, directive).map_err(failed)? > 0 {
                if output.pos() == output.capacity() {
                    return Err(io::Error::other("a frame is larger than its bound"));
                }
            }
        }
        Ok(())
    });
    compressed.map_err(|source| FormatError::Frame { what: "block", source })
}

/// How hard a compressor tries.
#[derive(Debug, Clone, Copy)]
enum Effort {
    Usual,
    Less,
    LessInStretches,
    Least,
}

impl Effort {
    /// The level, the logarithm of the number of places that the search remembers (0 for that of the level), and
    /// whether there is a checksum.
    fn parameters(self) -> (i32, u32, bool) {
        match self {
            Self::Usual => (LEVEL, 0, true),
            Self::Less => (2, 15, false),
            Self::LessInStretches => (1, 14, false),
            Self::Least => (1, 0, true),
        }
    }
}

fn compress_with(effort: Effort, what: &'static str, content: &[u8], frame: &mut Vec<u8>) -> Result<(), FormatError> {
    let compressed = with_compressor(effort, |compressor| {
        frame.clear();
        frame.reserve(compress_bound(content.len()));
        compressor.compress_to_buffer(content, frame)
    });
    compressed.map(drop).map_err(|source| FormatError::Frame { what, source })
}

fn with_compressor<T>(effort: Effort, call: impl FnOnce(&mut Compressor<'static>) -> io::Result<T>) -> io::Result<T> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = reused(kept, || Compressor::new(LEVEL))?;
        let (level, hash_log, checksum) = effort.parameters();
        // A frame that failed may have been left half made.
        compressor.context_mut().reset(ResetDirective::SessionOnly).map_err(failed)?;
        compressor.set_compression_level(level)?;
        compressor.set_parameter(CParameter::HashLog(hash_log))?;
        compressor.include_checksum(checksum)?;
        call(compressor)
    })
}

fn failed(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

/// What a block of a frame holds at most, and what goes before it.
const RAW_BLOCK_BYTES: usize = 128 << 10;
const BLOCK_HEADER_BYTES: usize = 3;

/// Makes a frame of content that is not compressed, without copying it: headers, and between them the pieces. `None`
/// if there is nothing, or more than the largest window.
///
/// RFC 8878, 3.1.1: a frame of a single segment, whose blocks are raw.
pub(crate) fn stored(pieces: &[Bytes]) -> Option<Vec<Bytes>> {
    let bytes = pieces.iter().map(Bytes::len).sum::<usize>();
    let content_bytes = u32::try_from(bytes).ok().filter(|bytes| (1..=1 << MAX_WINDOW_LOG).contains(bytes))?;
    // The content's size in four bytes, a single segment, no checksum, no dictionary.
    let mut headers = [&MAGIC[..], &[0xa0], &content_bytes.to_le_bytes()].concat();
    let mut parts = Vec::with_capacity(bytes / RAW_BLOCK_BYTES + pieces.len());
    let mut left = bytes;
    for piece in pieces {
        let mut piece = piece.clone();
        while !piece.is_empty() {
            let block = piece.split_to(piece.len().min(RAW_BLOCK_BYTES));
            left -= block.len();
            // The size, the type, which is 0 for raw, and whether it is the last: 21, 2 and 1 bits.
            let header = u32::try_from(block.len() << 3 | usize::from(left == 0)).ok()?.to_le_bytes();
            headers.extend_from_slice(&header[..BLOCK_HEADER_BYTES]);
            parts.push((headers.len(), block));
        }
    }
    let mut headers = Bytes::from(headers);
    let mut split = 0;
    let with_headers = parts.into_iter().flat_map(|(end, block)| {
        let header = headers.split_to(end - std::mem::replace(&mut split, end));
        [header, block]
    });
    Some(with_headers.collect())
}

/// Decompresses exactly one frame of at most `limit` bytes of content.
///
/// # Errors
/// [`FormatError::TooLarge`] if the content is over the limit, whatever the frame's header claims;
/// [`FormatError::Frame`] if this is not one whole frame and nothing else.
pub fn decompress(what: &'static str, frame: &[u8], limit: u64) -> Result<Vec<u8>, FormatError> {
    let wrong = |source| FormatError::Frame { what, source };
    if let Some(content_bytes) = known_content_bytes(frame, limit) {
        let decompress = |decompressor: &mut Decompressor<'_>| decompressor.decompress(frame, content_bytes);
        return with_decompressor(decompress).map_err(wrong);
    }
    let mut input = frame;
    let mut content = Vec::new();
    let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut input).map_err(wrong)?.single_frame();
    // The decoder allocates the window that the frame's header claims before it sees any content.
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(wrong)?;
    decoder.by_ref().take(limit.saturating_add(1)).read_to_end(&mut content).map_err(wrong)?;
    drop(decoder);
    if content.len() as u64 > limit {
        return Err(FormatError::TooLarge { what, limit });
    }
    if !input.is_empty() {
        return Err(wrong(io::Error::new(io::ErrorKind::InvalidData, "bytes follow the frame")));
    }
    Ok(content)
}

/// Decompresses as [`decompress`] does, to where there is room.
///
/// # Errors
/// As there.
pub(crate) fn decompress_in(rooms: &Rooms, what: &'static str, frame: &[u8], limit: u64) -> Result<Bytes, FormatError> {
    let Some(content_bytes) = known_content_bytes(frame, limit) else {
        return decompress(what, frame, limit).map(Bytes::from);
    };
    let decompressed = rooms.fill(content_bytes, |space| {
        let bytes = with_decompressor(|decompressor| decompressor.decompress_to_buffer(frame, space))?;
        // The header may claim more than there is.
        if bytes == content_bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    });
    decompressed.map_err(|source| FormatError::Frame { what, source })
}

fn with_decompressor<T>(call: impl FnOnce(&mut Decompressor<'static>) -> io::Result<T>) -> io::Result<T> {
    DECOMPRESSOR.with_borrow_mut(|kept| call(reused(kept, Decompressor::new)?))
}

/// The length of the content of a frame whose header says it, and after which nothing follows; `None` for others.
///
/// Such a frame is decompressed at once: there is no window to keep beside the content, and each byte is written once.
/// Frames with more content than the largest window, and those that claim a larger one, are not for this.
fn known_content_bytes(frame: &[u8], limit: u64) -> Option<usize> {
    let [descriptor, window, ..] = frame.strip_prefix(&MAGIC)? else { return None };
    let window_is_content = descriptor & 0x20 != 0;
    if !window_is_content && u32::from(*window) > (MAX_WINDOW_LOG - 10) << 3 {
        return None;
    }
    let content_bytes = get_frame_content_size(frame).ok()??;
    if content_bytes > limit.min(1 << MAX_WINDOW_LOG) || find_frame_compressed_size(frame) != Ok(frame.len()) {
        return None;
    }
    usize::try_from(content_bytes).ok()
}

/// What this thread has made before, or a new one.
fn reused<T>(kept: &mut Option<T>, make: impl FnOnce() -> io::Result<T>) -> io::Result<&mut T> {
    match kept {
        Some(known) => Ok(known),
        None => Ok(kept.insert(make()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree::noise;

    #[test]
    fn a_frame_is_whole_and_alone() {
        let frame = compress("test", b"hello").expect("compresses");
        assert_eq!(decompress("test", &frame, 5).expect("decompresses"), b"hello");
        assert!(matches!(decompress("test", &frame, 4), Err(FormatError::TooLarge { .. })));
        assert!(decompress("test", &frame[..frame.len() - 1], 5).is_err());
        assert!(decompress("test", &[&frame[..], &frame[..]].concat(), 50).is_err());
        assert!(decompress("test", b"", 5).is_err());
        // A frame without content, which adds nothing to the whole.
        let empty = compress("test", b"").expect("compresses");
        assert!(decompress("test", &[&frame[..], &empty].concat(), 50).is_err());
        assert_eq!(decompress("test", &empty, 0).expect("decompresses"), b"");
        assert!(decompress("test", &[&frame[..], b"x"].concat(), 50).is_err());
        assert!(decompress("test", &[b"x", &frame[..]].concat(), 50).is_err());
    }

    #[test]
    fn a_frame_of_what_is_written_is_like_one_of_what_is_there() {
        for bytes in [0, 1, 300_000] {
            let content = noise(1, bytes);
            let write = |to: &mut dyn Write| content.chunks(1000).try_for_each(|some| to.write_all(some));
            let frame = compress_written("test", bytes as u64, write).expect("compresses").into_parts().concat();
            assert!(decompress("test", &frame, bytes as u64).expect("decompresses") == content, "{bytes}");
            assert_eq!(known_content_bytes(&frame, bytes as u64), Some(bytes));
            // Its last four bytes are the checksum.
            let mut flipped = frame;
            *flipped.last_mut().expect("some") ^= 1;
            assert!(decompress("test", &flipped, bytes as u64).is_err(), "{bytes}");
            assert!(bytes == 0 || compress_written("test", bytes as u64 + 1, write).is_err(), "{bytes}");
        }
    }

    #[test]
    fn a_frame_of_what_was_not_compressed_is_read_by_any_decoder() {
        for lengths in [&[1_usize][..], &[131_072], &[131_073], &[5, 0, 300_000, 1], &[8 << 20], &[65_536; 8]] {
            let mut content = vec![0; lengths.iter().sum()];
            blake3::Hasher::new().finalize_xof().fill(&mut content);
            let mut rest = Bytes::from(content.clone());
            let pieces: Vec<Bytes> = lengths.iter().map(|length| rest.split_to(*length)).collect();
            let frame = stored(&pieces).expect("a frame").concat();
            assert!(zstd::decode_all(&frame[..]).expect("decodes") == content, "{lengths:?}");
            assert!(decompress("test", &frame, content.len() as u64).expect("decompresses") == content, "{lengths:?}");
        }
        assert!(stored(&[]).is_none() && stored(&[Bytes::new()]).is_none());
        assert!(stored(&[vec![0; (8 << 20) + 1].into()]).is_none());
    }

    #[test]
    fn stretches_that_are_compressed_apart_are_one_frame_for_any_decoder() {
        let text = "no page of text has all bytes alike. ".repeat(400).into_bytes();
        let [some, more] = [(1, 30_000), (2, 4096)].map(|(seed, bytes)| noise(seed, bytes));
        let stretches = [&text[..5000], &some, &text, &more, &text[7..], &[0; 200_000], b"x"];
        let content = stretches.concat();
        let mut frame = b"what was there before".to_vec();
        compress_stretches(&stretches, &mut frame).expect("compresses");
        assert!(zstd::decode_all(&frame[..]).expect("decodes") == content);
        assert_eq!(known_content_bytes(&frame, content.len() as u64), Some(content.len()));
        assert!(decompress("test", &frame, content.len() as u64).expect("decompresses") == content);
        let mut together = Vec::new();
        compress_block(&content, &mut together).expect("compresses");
        assert!(frame.len() < together.len(), "{} and {} bytes", frame.len(), together.len());
        // The bound holds also where nothing can be compressed.
        let content = noise(3, 1 << 20);
        let stretches: Vec<&[u8]> = content.chunks(4096).collect();
        compress_stretches(&stretches, &mut frame).expect("compresses");
        assert!(decompress("test", &frame, 1 << 20).expect("decompresses") == content);
        // What follows is not tuned for stretches.
        assert_eq!(compress("test", &text).expect("compresses"), zstd_of(&text));
    }

    /// What a new compressor makes.
    fn zstd_of(content: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new(LEVEL).expect("makes one");
        compressor.include_checksum(true).expect("known");
        compressor.compress(content).expect("compresses")
    }

    #[test]
    fn a_frame_that_does_not_say_how_long_it_is_is_read_as_well() {
        for bytes in [0, 5, 300_000] {
            let content = vec![b'x'; bytes];
            let mut compressor = zstd::bulk::Compressor::new(LEVEL).expect("makes one");
            compressor.include_contentsize(false).expect("known");
            let frame = compressor.compress(&content).expect("compresses");
            assert!(matches!(get_frame_content_size(&frame), Ok(None)));
            assert!(decompress("test", &frame, 300_000).expect("decompresses") == content);
            assert!(decompress("test", &[&frame[..], b"x"].concat(), 300_000).is_err());
        }
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let content = b"{\"hold\":null,\"tags\":{\"a\":\"b\"}}";
        let frame = compress("test", content).expect("compresses");
        for at in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(decompress("test", &flipped, 100).map_or(true, |read| read == content), "bit {at}");
        }
    }

    #[test]
    fn a_claimed_window_is_not_allocated_unchecked() {
        // Magic; no content size, no single segment; window descriptor; one last raw block of 1 byte.
        let frame =
            |window_log: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, (window_log - 10) << 3, 9, 0, 0][..], b"x"].concat();
        assert_eq!(decompress("test", &frame(23), 1).expect("decompresses"), b"x");
        assert!(matches!(decompress("test", &frame(24), 1), Err(FormatError::Frame { .. })));
    }

    #[test]
    fn a_claimed_window_is_refused_whether_or_not_the_length_of_the_content_is_known() {
        // Magic; content size in two bytes, less 256; window descriptor; one last raw block of 256 bytes.
        let frame =
            |window| [&[0x28, 0xb5, 0x2f, 0xfd, 0x40, window, 0, 0, 0x01, 0x08, 0x00][..], &[b'x'; 256]].concat();
        assert_eq!(decompress("test", &frame(13 << 3), 256).expect("decompresses"), [b'x'; 256]);
        for window in [13 << 3 | 1, 14 << 3] {
            assert!(matches!(decompress("test", &frame(window), 256), Err(FormatError::Frame { .. })));
        }
    }

    #[test]
    fn a_frame_of_the_largest_block_has_an_allowed_window() {
        let mut content = vec![0; 16 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut content);
        let frame = compress("test", &content).expect("compresses");
        assert!(decompress("test", &frame, 16 << 20).expect("decompresses") == content);
        assert!(frame.len() as u64 <= crate::format::pack::MAX_BLOCK_FRAME_BYTES);
    }

    #[test]
    fn a_bomb_costs_its_limit_and_no_more() {
        let bomb = compress("test", &vec![0; 64 << 20]).expect("compresses");
        assert!(bomb.len() < 10_000);
        assert!(matches!(decompress("test", &bomb, 1 << 20), Err(FormatError::TooLarge { .. })));
    }
}
