//! A hash table of millions of chunks: 11 bytes each, and what it takes grows evenly.

use std::hash::{Hash, Hasher};

use super::ChunkId;
use crate::id::IdMap;

/// The first bytes of the chunks of each part: each part has some 4 % more than the one before.
const PART_BEGINS: [u8; 16] = [0, 11, 23, 36, 48, 62, 76, 91, 106, 122, 139, 156, 175, 194, 214, 234];

/// From a chunk to a number below 2^40, which is kept with six bytes of the id. Whoever finds one has to see whether
/// it is of the same chunk: among a hundred million there may be two that look alike.
///
/// A hash table doubles at once, and takes three times as much while it does. This is 16 of them that differ in size, so
/// that they double one after another.
#[derive(Debug)]
pub(super) struct ChunkTable {
    parts: [IdMap<Short, [u8; 5]>; PART_BEGINS.len()],
}

/// Six bytes of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Short([u8; 6]);

impl Hash for Short {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 8];
        bytes[..6].copy_from_slice(&self.0);
        state.write_u64(u64::from_le_bytes(bytes));
    }
}

impl Default for ChunkTable {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| IdMap::default()) }
    }
}

impl ChunkTable {
    /// The number of a chunk, or of another that looks like it.
    pub(super) fn get(&self, chunk: ChunkId) -> Option<u64> {
        let (part, short) = place(chunk);
        let mut number = [0; 8];
        number[..5].copy_from_slice(self.parts[part].get(&short)?);
        Some(u64::from_le_bytes(number))
    }

    /// Notes a number, in the place of one that is there.
    pub(super) fn set(&mut self, chunk: ChunkId, number: u64) {
        let (part, short) = place(chunk);
        self.parts[part].insert(short, in_five_bytes(number));
    }

    /// Notes a number if there is none.
    pub(super) fn set_if_new(&mut self, chunk: ChunkId, number: u64) {
        let (part, short) = place(chunk);
        self.parts[part].entry(short).or_insert(in_five_bytes(number));
    }
}

fn in_five_bytes(number: u64) -> [u8; 5] {
    let [a, b, c, d, e, ..] = number.to_le_bytes();
    [a, b, c, d, e]
}

/// Which part a chunk belongs to, and its key there.
fn place(chunk: ChunkId) -> (usize, Short) {
    let [first, key @ ..] = chunk.as_bytes();
    let mut short = [0; 6];
    short.copy_from_slice(&key[..6]);
    (PART_BEGINS.partition_point(|begin| begin <= first) - 1, Short(short))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_again_and_the_first_or_the_last_one_counts() {
        let mut table = ChunkTable::default();
        let chunk = |n: u64| ChunkId::of(&n.to_le_bytes());
        for n in 0..10_000 {
            table.set(chunk(n), n << 26);
        }
        table.set_if_new(chunk(7), 1);
        table.set(chunk(8), (1 << 40) - 1);
        table.set_if_new(chunk(10_000), 2);
        let numbers = [7, 8, 9_999, 10_000, 10_001].map(|n| table.get(chunk(n)));
        assert_eq!(numbers, [Some(7 << 26), Some((1 << 40) - 1), Some(9_999 << 26), Some(2), None]);
    }

    #[test]
    fn the_parts_grow_one_after_another() {
        let mut table = ChunkTable::default();
        let (mut chunks, mut before) = (0, 0);
        for most in (0..40).map(|power| (10_000.0 * 1.1_f64.powi(power)) as u64) {
            while chunks < most {
                table.set(ChunkId::of(&chunks.to_le_bytes()), chunks);
                chunks += 1;
            }
            let room = table.parts.iter().map(IdMap::capacity).sum::<usize>();
            assert!(before == 0 || room * 4 <= before * 5, "{before} to {room} for 10 % more, {chunks} chunks");
            before = room;
        }
    }
}
