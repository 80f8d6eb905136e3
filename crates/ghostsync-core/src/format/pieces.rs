//! Bytes that are written one after another, in pieces.
//!
//! One buffer that grows takes three times its size for a moment, and the system gets large ones back late or never.

use std::io::{self, Write};

use bytes::Bytes;

/// What a piece has at most.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes that are being written.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl Pieces {
    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.full.len() * PIECE_BYTES + self.last.len()
    }

    /// Appends bytes.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.last.len()));
            self.last.extend_from_slice(now);
            if self.last.len() == PIECE_BYTES {
                self.full.push(std::mem::take(&mut self.last).into());
            }
            bytes = later;
        }
    }

    /// All of them.
    pub(crate) fn into_parts(self) -> Vec<Bytes> {
        let Self { mut full, last } = self;
        if !last.is_empty() {
            full.push(last.into());
        }
        full
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tree::noise;

    #[test]
    fn what_was_written_is_there_however_it_was_cut() {
        for writes in [&[][..], &[1], &[PIECE_BYTES], &[PIECE_BYTES - 1, 2], &[5, 3 * PIECE_BYTES, 0, 7]] {
            let content = noise(1, writes.iter().sum());
            let (mut pieces, mut rest) = (Pieces::default(), &content[..]);
            for bytes in writes {
                let (now, later) = rest.split_at(*bytes);
                pieces.push(now);
                rest = later;
            }
            assert_eq!(pieces.len(), content.len());
            let parts = pieces.into_parts();
            assert!(parts.iter().all(|part| (1..=PIECE_BYTES).contains(&part.len())), "{writes:?}");
            assert!(parts.concat() == content, "{writes:?}");
        }
    }
}
