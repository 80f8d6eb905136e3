//! The hash of a content whose parts are hashed in any order, by any thread.
//!
//! BLAKE3 is a binary tree over pieces of 1 KiB, the left side of every node a power of two of them: section 2.1 of
//! <https://github.com/BLAKE3-team/BLAKE3-specs/blob/master/blake3.pdf>. So a part of 64 KiB that begins at a multiple
//! of that is a subtree of its own, whatever lies beside it.

use std::collections::BTreeMap;

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use super::ContentHash;

/// The length of every part but the last, in bytes.
pub(crate) const PART_BYTES: usize = 64 << 10;

/// A part's share in the hash of the whole, and the part's number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartHash(u64, ChainingValue);

impl PartHash {
    /// Hashes the part that begins at an offset; `None` if none begins there.
    pub(crate) fn of(offset: u64, part: &[u8]) -> Option<Self> {
        let part_bytes = PART_BYTES as u64;
        if !offset.is_multiple_of(part_bytes) || part.is_empty() || part.len() > PART_BYTES {
            return None;
        }
        let hash = Hasher::new().set_input_offset(offset).update(part).finalize_non_root();
        Some(Self(offset / part_bytes, hash))
    }
}

/// Puts the hashes of the parts of one content together. Memory: those that came early, and one for each level.
#[derive(Debug)]
pub(crate) struct Parts {
    /// How many there will be.
    count: u64,
    /// The number of the next one in order; the subtrees of those before it, the widest first.
    next: u64,
    subtrees: Vec<ChainingValue>,
    early: BTreeMap<u64, ChainingValue>,
}

impl Parts {
    /// For a content of so many bytes; `None` for one that is a single part.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let count = bytes.div_ceil(PART_BYTES as u64);
        (count > 1).then(|| Self { count, next: 0, subtrees: Vec::new(), early: BTreeMap::new() })
    }

    /// Takes the hash of one part.
    pub(crate) fn add(&mut self, PartHash(number, hash): PartHash) {
        self.early.insert(number, hash);
        while let Some(hash) = self.early.remove(&self.next) {
            // What comes before it is as many whole subtrees as its number has bits.
            self.join(self.next.count_ones() as usize);
            self.subtrees.push(hash);
            self.next += 1;
        }
    }

    /// The hash of the whole, once; `None` if a part is missing.
    pub(crate) fn finish(&mut self) -> Option<ContentHash> {
        if self.next != self.count || !self.early.is_empty() {
            return None;
        }
        self.join(2);
        let [left, right] = self.subtrees.as_slice() else { return None };
        Some(ContentHash(*merge_subtrees_root(left, right, Mode::Hash).as_bytes()))
    }

    /// Joins the last ones until there are so many.
    fn join(&mut self, most: usize) {
        while self.subtrees.len() > most
            && let (Some(right), Some(left)) = (self.subtrees.pop(), self.subtrees.pop())
        {
            self.subtrees.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashed(content: &[u8], order: impl Iterator<Item = usize>) -> Option<ContentHash> {
        let mut parts = Parts::new(content.len() as u64)?;
        for number in order {
            let begin = number * PART_BYTES;
            let end = content.len().min(begin + PART_BYTES);
            parts.add(PartHash::of(begin as u64, &content[begin..end]).expect("a part"));
        }
        parts.finish()
    }

    #[test]
    fn parts_make_the_hash_of_the_whole_for_every_shape_of_the_tree() {
        let content: Vec<u8> = (0..70 * PART_BYTES as u32).map(|at| (at % 251) as u8).collect();
        for count in 2..=70 {
            for missing in [0, 1, 1023, 1024, PART_BYTES - 1] {
                let content = &content[..count * PART_BYTES - missing];
                let expected = Some(ContentHash::of(content));
                assert_eq!(hashed(content, 0..count), expected, "{count} parts, {missing} bytes less");
                assert_eq!(hashed(content, (0..count).rev()), expected, "{count} parts, {missing} bytes less");
            }
        }
    }

    #[test]
    fn a_missing_part_is_missed_and_what_is_no_part_has_no_hash() {
        let content = vec![7; 5 * PART_BYTES];
        for missing in 0..5 {
            assert_eq!(hashed(&content, (0..5).filter(|number| *number != missing)), None);
        }
        assert!(
            Parts::new(0).is_none()
                && Parts::new(PART_BYTES as u64).is_none()
                && Parts::new(PART_BYTES as u64 + 1).is_some()
        );
        assert!(PartHash::of(1, b"x").is_none() && PartHash::of(0, b"").is_none());
        assert!(PartHash::of(0, &vec![0; PART_BYTES + 1]).is_none());
    }

    proptest! {
        #[test]
        fn the_order_of_parts_does_not_matter(bytes in 65_537..1_500_000_usize, seed: u64, order in Just((0..23).collect::<Vec<usize>>()).prop_shuffle()) {
            let content: Vec<u8> = (0..bytes as u64).map(|at| (at.wrapping_mul(seed | 1) >> 13) as u8).collect();
            let count = bytes.div_ceil(PART_BYTES);
            let order = order.into_iter().filter(|number| *number < count);
            prop_assert_eq!(hashed(&content, order), Some(ContentHash::of(&content)));
        }
    }
}
