//! Cuts the data of one file into chunks while it streams by.
//!
//! In: data without its holes, in pieces of any size. Out: chunks whose boundaries depend on the data and the
//! rule alone. Small files are one chunk; larger ones are cut by FastCDC (Xia et al., 2020, normalization 1).
//! No reader depends on the rule: it is free to change.

use bytes::Bytes;
use fastcdc::v2020::{self, Normalization};

use crate::error::{Error, ErrorKind, Result};
use crate::format::config::Chunker;
use crate::format::pack::MAX_BLOCK_BYTES;

/// The rule of a repository, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    whole_bytes: usize,
    min_bytes: usize,
    average_bytes: usize,
    max_bytes: usize,
    /// Decides below the average size, and above it.
    masks: (u64, u64),
}

impl Rule {
    /// Checks the rule, whose numbers come from the store and lead to allocations.
    ///
    /// # Errors
    /// `Unsupported` for an unknown kind, `Corrupt` for numbers that make no sense.
    pub(super) fn new(chunker: &Chunker) -> Result<Self> {
        if chunker.kind != "fastcdc2020" {
            let kind: String = chunker.kind.chars().take(80).collect();
            return Err(Error::new(ErrorKind::Unsupported, format!("the repository cuts chunks by {kind:?}")));
        }
        let bytes = |number: u32, from: usize, to: usize| {
            usize::try_from(number).ok().filter(|bytes| (from..=to).contains(bytes) && bytes.is_multiple_of(2))
        };
        let most = usize::try_from(MAX_BLOCK_BYTES).unwrap_or(usize::MAX).min(v2020::MAXIMUM_MAX);
        let rule = || {
            let whole_bytes = usize::try_from(chunker.whole_bytes).ok().filter(|bytes| *bytes <= most)?;
            let min_bytes = bytes(chunker.min_bytes, v2020::MINIMUM_MIN, v2020::MINIMUM_MAX)?;
            let average_bytes = bytes(chunker.average_bytes, v2020::AVERAGE_MIN.max(min_bytes), v2020::AVERAGE_MAX)?;
            let max_bytes = bytes(chunker.max_bytes, v2020::MAXIMUM_MIN.max(average_bytes), most)?;
            let masks = v2020::select_masks(average_bytes, Normalization::Level1);
            Some(Self { whole_bytes, min_bytes, average_bytes, max_bytes, masks })
        };
        rule().ok_or_else(|| Error::corrupt("the configuration's chunk sizes are out of range"))
    }

    /// The length of a file that is a single chunk whatever it holds; `None` for one that is cut.
    pub(super) fn whole(&self, data_bytes: u64) -> Option<usize> {
        usize::try_from(data_bytes).ok().filter(|bytes| *bytes <= self.whole_bytes)
    }

    /// Finds where the next chunk ends in data that is all there is, or at least the largest chunk.
    fn cut(&self, data: &[u8]) -> usize {
        let (small, large) = self.masks;
        let (min, average, max) = (self.min_bytes, self.average_bytes, self.max_bytes);
        v2020::cut(data, min, average, max, small, large, small << 1, large << 1).1
    }
}

/// The data of one file on its way into chunks.
#[derive(Debug)]
pub(super) struct Cutter {
    rule: Rule,
    /// All of it is one chunk.
    whole: bool,
    buffer: Vec<u8>,
    /// What of the buffer is data that was not cut yet.
    begin: usize,
    end: usize,
}

impl Cutter {
    /// Begins a file with so much data expected. There may turn out to be less, never more.
    pub(super) fn new(rule: Rule, data_bytes: u64) -> Self {
        let expected = usize::try_from(data_bytes).unwrap_or(usize::MAX);
        let whole = expected <= rule.whole_bytes;
        // Room for one largest chunk behind a rest that is just too short to be cut.
        let capacity = if whole { expected } else { rule.max_bytes * 2 };
        Self { rule, whole, buffer: vec![0; capacity], begin: 0, end: 0 }
    }

    /// Where to put more data; call [`Cutter::filled`] then, and take all chunks before the next call.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes were put into the space.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end = self.buffer.len().min(self.end + bytes);
    }

    /// Takes a chunk, if enough data is there to know where it ends.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        if self.whole || self.end - self.begin < self.rule.max_bytes { None } else { self.take_any() }
    }

    /// Takes a chunk after the last data; `None` when all was taken.
    pub(super) fn take_last(&mut self) -> Option<Bytes> {
        if !self.whole {
            return self.take_any();
        }
        let mut chunk = std::mem::take(&mut self.buffer);
        chunk.truncate(self.end);
        (self.begin, self.end) = (0, 0);
        (!chunk.is_empty()).then(|| chunk.into())
    }

    fn take_any(&mut self) -> Option<Bytes> {
        let data = self.buffer.get(self.begin..self.end).filter(|data| !data.is_empty())?;
        let chunk = data.get(..self.rule.cut(data))?;
        self.begin += chunk.len();
        Some(Bytes::copy_from_slice(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Chunker {
        Chunker { whole_bytes: 512, min_bytes: 256, average_bytes: 512, max_bytes: 2048, ..Chunker::default() }
    }

    /// Noise that is the same every time.
    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
        noise
    }

    fn cut(chunker: &Chunker, data: &[u8], step: usize) -> Vec<Bytes> {
        let mut cutter = Cutter::new(Rule::new(chunker).expect("a good rule"), data.len() as u64);
        let mut chunks = Vec::new();
        let mut rest = data;
        while !rest.is_empty() {
            let space = cutter.space();
            let bytes = step.min(space.len()).min(rest.len());
            assert!(bytes > 0, "there is always space");
            space[..bytes].copy_from_slice(&rest[..bytes]);
            cutter.filled(bytes);
            rest = &rest[bytes..];
            chunks.extend(std::iter::from_fn(|| cutter.take()));
        }
        chunks.extend(std::iter::from_fn(|| cutter.take_last()));
        chunks
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn boundaries_depend_on_the_data_alone(seed: u64, bytes in 0_usize..20_000, step in 1_usize..5_000) {
            let data = noise(seed, bytes);
            let chunks = cut(&small(), &data, step);
            prop_assert_eq!(chunks.concat(), data.clone());
            // The whole in memory, by the crate's own iterator.
            let expected: Vec<_> = match data.len() {
                0 => Vec::new(),
                1..=512 => vec![data.len()],
                _ => v2020::FastCDC::new(&data, 256, 512, 2048).map(|chunk| chunk.length).collect(),
            };
            prop_assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn an_insertion_at_the_front_leaves_later_chunks_alone() {
        let data = noise(1, 100_000);
        let moved = [b"inserted".as_slice(), &data].concat();
        let (before, after) = (cut(&small(), &data, 4096), cut(&small(), &moved, 4096));
        let kept = after.iter().filter(|chunk| before.contains(chunk)).count();
        assert!(kept * 10 > before.len() * 9, "{kept} of {} chunks kept", before.len());
    }

    #[test]
    fn numbers_from_a_store_are_checked() {
        assert!(Rule::new(&Chunker::default()).is_ok());
        for chunker in [
            Chunker { whole_bytes: u32::MAX, ..Chunker::default() },
            Chunker { max_bytes: u32::MAX, ..Chunker::default() },
            Chunker { max_bytes: 1 << 18, ..Chunker::default() },
            Chunker { average_bytes: 0, ..Chunker::default() },
            Chunker { min_bytes: 0, ..Chunker::default() },
            Chunker { min_bytes: 257 << 10 | 1, ..Chunker::default() },
        ] {
            assert_eq!(Rule::new(&chunker).expect_err("refused").kind(), ErrorKind::Corrupt, "{chunker:?}");
        }
        let unknown = Chunker { kind: "rabin".into(), ..Chunker::default() };
        assert_eq!(Rule::new(&unknown).expect_err("refused").kind(), ErrorKind::Unsupported);
    }
}
