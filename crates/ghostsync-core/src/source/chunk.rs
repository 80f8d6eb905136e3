//! Cuts the data of one file into chunks while it streams by.
//!
//! In: data without its holes, in pieces of any size. Out: chunks whose boundaries depend on the data and the
//! rule alone. Small files are one chunk; larger ones are cut by FastCDC (Xia et al., 2020, normalization 1), except
//! databases: their pages never move, so they are cut in windows of the file, and a page that changes costs its
//! window. No reader depends on the rule: it is free to change.

use bytes::Bytes;
use fastcdc::v2020::{self, Normalization};

use crate::error::{Error, ErrorKind, Result};
use crate::format::config::Chunker;
use crate::format::pack::MAX_BLOCK_BYTES;
use crate::recycled::Recycled;

/// The smallest windows of databases: SQLite's smallest page.
const MIN_WINDOW_BYTES: usize = 512;
/// The largest: more would cost more than a cut by content.
const MAX_WINDOW_BYTES: usize = 1 << 20;

/// So much of a database is read at once, as long as it stays in the processor's cache until it is cut.
const WINDOWS_BYTES: usize = 512 << 10;

/// The rule of a repository, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    whole_bytes: usize,
    min_bytes: usize,
    average_bytes: usize,
    max_bytes: usize,
    /// Decides below the average size, and above it.
    masks: (u64, u64),
    /// Of databases; 0 if they are cut like other files.
    window_bytes: usize,
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
            let window_bytes = usize::try_from(chunker.database_window_bytes).ok().filter(|bytes| {
                *bytes == 0 || bytes.is_power_of_two() && (MIN_WINDOW_BYTES..=MAX_WINDOW_BYTES).contains(bytes)
            })?;
            Some(Self { whole_bytes, min_bytes, average_bytes, max_bytes, masks, window_bytes })
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

/// How one file is cut.
#[derive(Debug)]
enum Way {
    /// All of it is one chunk.
    Whole,
    ByContent,
    /// The chunk that comes next has so many bytes, unless a hole makes it shorter.
    Windows(usize),
}

/// Memory that is used again from file to file: new memory for each costs more than reading into it.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    file: Vec<u8>,
    chunks: Recycled,
}

impl Buffers {
    pub(super) fn new(chunks: Recycled) -> Self {
        Self { file: Vec::new(), chunks }
    }
}

/// The data of one file on its way into chunks.
#[derive(Debug)]
pub(super) struct Cutter<'a> {
    rule: Rule,
    way: Way,
    buffer: &'a mut Vec<u8>,
    chunks: &'a mut Recycled,
    /// So much of the buffer is used.
    capacity: usize,
    /// What of the buffer is data that was not cut yet.
    begin: usize,
    end: usize,
}

impl<'a> Cutter<'a> {
    /// Begins a file with so much data expected. There may turn out to be less, never more.
    ///
    /// Only of a file that is more than one chunk is it asked whether it is a database.
    pub(super) fn new(
        rule: Rule,
        data_bytes: u64,
        buffers: &'a mut Buffers,
        is_database: impl FnOnce() -> bool,
    ) -> Self {
        let expected = usize::try_from(data_bytes).unwrap_or(usize::MAX);
        let (way, capacity) = if expected <= rule.whole_bytes {
            (Way::Whole, expected)
        } else if rule.window_bytes > 0 && is_database() {
            (Way::Windows(rule.window_bytes), rule.window_bytes.max(WINDOWS_BYTES))
        } else {
            // Room for one largest chunk behind a rest that is just too short to be cut.
            (Way::ByContent, expected.min(rule.max_bytes * 2))
        };
        let Buffers { file: buffer, chunks } = buffers;
        if buffer.len() < capacity {
            buffer.resize(capacity, 0);
        }
        Self { rule, way, buffer, chunks, capacity, begin: 0, end: 0 }
    }

    /// Where to put more data; call [`Cutter::filled`] then, and take all chunks before the next call.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.begin > 0 {
            self.buffer.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        self.buffer.get_mut(self.end..self.capacity).unwrap_or_default()
    }

    /// So many bytes were put into the space.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end = self.capacity.min(self.end + bytes);
    }

    /// Takes a chunk, if enough data is there to know where it ends.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let needed = match self.way {
            Way::Whole => return None,
            Way::ByContent => self.rule.max_bytes,
            Way::Windows(bytes) => bytes,
        };
        if self.end - self.begin < needed { None } else { self.take_any() }
    }

    /// A hole follows the data so far, all chunks of which were taken: gives the last one, if the hole ends it.
    pub(super) fn skip(&mut self, hole_bytes: u64) -> Option<Bytes> {
        let Way::Windows(bytes) = &mut self.way else { return None };
        let left = bytes.saturating_sub(self.end - self.begin);
        match usize::try_from(hole_bytes) {
            Ok(hole_bytes) if hole_bytes < left => {
                *bytes -= hole_bytes;
                None
            }
            _ => {
                let chunk = self.take_any();
                // Windows are powers of two, so the remainder fits.
                let into = (hole_bytes - left as u64) % self.rule.window_bytes as u64;
                self.way = Way::Windows(self.rule.window_bytes - usize::try_from(into).unwrap_or(0));
                chunk
            }
        }
    }

    /// Takes a chunk after the last data; `None` when all was taken.
    pub(super) fn take_last(&mut self) -> Option<Bytes> {
        if !matches!(self.way, Way::Whole) {
            return self.take_any();
        }
        let data = self.buffer.get(..self.end).filter(|data| !data.is_empty())?;
        (self.begin, self.end) = (0, 0);
        Some(self.chunks.copy(data))
    }

    fn take_any(&mut self) -> Option<Bytes> {
        let data = self.buffer.get(self.begin..self.end).filter(|data| !data.is_empty())?;
        let bytes = match &mut self.way {
            Way::Windows(bytes) => std::mem::replace(bytes, self.rule.window_bytes).min(data.len()),
            Way::Whole | Way::ByContent => self.rule.cut(data),
        };
        let chunk = data.get(..bytes)?;
        self.begin += chunk.len();
        Some(self.chunks.copy(chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> Chunker {
        let (whole_bytes, min_bytes, average_bytes, max_bytes) = (512, 256, 512, 2048);
        Chunker { whole_bytes, min_bytes, average_bytes, max_bytes, database_window_bytes: 1024, ..Chunker::default() }
    }

    /// Noise that is the same every time.
    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut noise = vec![0; bytes];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
        noise
    }

    fn cut(chunker: &Chunker, data: &[u8], step: usize) -> Vec<Bytes> {
        cut_as(false, chunker, data, step)
    }

    fn cut_as(is_database: bool, chunker: &Chunker, data: &[u8], step: usize) -> Vec<Bytes> {
        let mut buffers = Buffers::default();
        let rule = Rule::new(chunker).expect("a good rule");
        let mut cutter = Cutter::new(rule, data.len() as u64, &mut buffers, || is_database);
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

    /// Cuts a database of data and holes in turn, as they lie in the file.
    fn cut_sparse(pieces: &[(Vec<u8>, u64)], step: usize) -> Vec<Bytes> {
        let data_bytes: usize = pieces.iter().map(|(data, _)| data.len()).sum();
        let mut buffers = Buffers::default();
        let rule = Rule::new(&small()).expect("a good rule");
        let mut cutter = Cutter::new(rule, data_bytes as u64, &mut buffers, || true);
        let mut chunks = Vec::new();
        for (data, hole_bytes) in pieces {
            for part in data.chunks(step) {
                cutter.space()[..part.len()].copy_from_slice(part);
                cutter.filled(part.len());
                chunks.extend(std::iter::from_fn(|| cutter.take()));
            }
            if *hole_bytes > 0 {
                chunks.extend(cutter.skip(*hole_bytes));
            }
        }
        chunks.extend(std::iter::from_fn(|| cutter.take_last()));
        chunks
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn each_window_of_a_database_is_a_chunk_of_its_data(
            pieces in proptest::collection::vec((0_usize..5000, prop_oneof![Just(0), 1_u64..5000]), 1..8),
            step in 1_usize..3000,
        ) {
            const WINDOW: u64 = 1024;
            let mut offset = 0;
            let mut expected: std::collections::BTreeMap<u64, Vec<u8>> = std::collections::BTreeMap::new();
            let mut sparse = Vec::new();
            for (bytes, hole_bytes) in pieces {
                let data = noise(offset, bytes);
                for byte in &data {
                    expected.entry(offset / WINDOW).or_default().push(*byte);
                    offset += 1;
                }
                offset += hole_bytes;
                sparse.push((data, hole_bytes));
            }
            let expected: Vec<_> = match expected.values().map(Vec::len).sum::<usize>() {
                0 => Vec::new(),
                1..=512 => vec![expected.into_values().collect::<Vec<_>>().concat()],
                _ => expected.into_values().collect(),
            };
            prop_assert_eq!(cut_sparse(&sparse, step), expected);
        }
    }

    #[test]
    fn a_page_of_a_database_that_changes_costs_one_window() {
        let before = noise(2, 100_000);
        let mut after = before.clone();
        after[98 * 512..99 * 512].fill(7);
        let (before, after) = (cut_as(true, &small(), &before, 4096), cut_as(true, &small(), &after, 4096));
        assert_eq!(before.len(), after.len());
        assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), 1);
    }

    #[test]
    fn pages_at_the_end_of_a_database_cost_only_the_end() {
        let before = noise(3, 100_352);
        let after = [before.clone(), noise(4, 4096)].concat();
        let (before, after) = (cut_as(true, &small(), &before, 4096), cut_as(true, &small(), &after, 4096));
        assert_eq!(before.len(), 98);
        assert_eq!(before, after[..98]);
        assert_eq!(after.len(), 102);
    }

    #[test]
    fn without_windows_a_database_is_cut_like_any_file() {
        let chunker = Chunker { database_window_bytes: 0, ..small() };
        let data = noise(5, 100_000);
        assert_eq!(cut_as(true, &chunker, &data, 4096), cut(&chunker, &data, 4096));
        assert_ne!(cut_as(true, &small(), &data, 4096), cut(&chunker, &data, 4096));
    }

    #[test]
    fn numbers_from_a_store_are_checked() {
        assert!(Rule::new(&Chunker::default()).is_ok());
        assert!(Rule::new(&Chunker { database_window_bytes: 0, ..Chunker::default() }).is_ok());
        for chunker in [
            Chunker { whole_bytes: u32::MAX, ..Chunker::default() },
            Chunker { max_bytes: u32::MAX, ..Chunker::default() },
            Chunker { max_bytes: 1 << 18, ..Chunker::default() },
            Chunker { average_bytes: 0, ..Chunker::default() },
            Chunker { min_bytes: 0, ..Chunker::default() },
            Chunker { min_bytes: 257 << 10 | 1, ..Chunker::default() },
            Chunker { database_window_bytes: 256, ..Chunker::default() },
            Chunker { database_window_bytes: 3 << 12, ..Chunker::default() },
            Chunker { database_window_bytes: 1 << 31, ..Chunker::default() },
        ] {
            assert_eq!(Rule::new(&chunker).expect_err("refused").kind(), ErrorKind::Corrupt, "{chunker:?}");
        }
        let unknown = Chunker { kind: "rabin".into(), ..Chunker::default() };
        assert_eq!(Rule::new(&unknown).expect_err("refused").kind(), ErrorKind::Unsupported);
    }
}
