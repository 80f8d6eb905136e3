//! Numbers that only look random: the same seed gives the same numbers on every machine (SplitMix64).

use std::num::NonZeroU64;

/// A stream of numbers from a seed.
pub struct Random(u64);

impl Random {
    /// The stream of `seed`; `what` keeps streams for different purposes apart.
    pub fn new(seed: u64, what: u64) -> Self {
        let mut stream = Self(seed ^ what.wrapping_mul(0xa076_1d64_78bd_642f));
        stream.next();
        stream
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; nearly uniform, which is enough here.
    pub fn below(&mut self, bound: NonZeroU64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound.get())) >> 64) as u64
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        match NonZeroU64::new((to + 1).saturating_sub(from)) {
            Some(count) => from + self.below(count),
            None => from,
        }
    }

    /// Fills `bytes` with what no compressor makes smaller.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let number = self.next().to_le_bytes();
            chunk.copy_from_slice(&number[..chunk.len()]);
        }
    }

    /// `count` different numbers below `of`, in ascending order; all of them if there are no more.
    pub fn choose(&mut self, count: usize, of: usize) -> Vec<usize> {
        let mut left = count.min(of);
        let mut chosen = Vec::with_capacity(left);
        for candidate in 0..of {
            if left == 0 {
                break;
            }
            if self.between(1, (of - candidate) as u64) <= left as u64 {
                chosen.push(candidate);
                left -= 1;
            }
        }
        chosen
    }
}

/// Writes text of words as frequent as those of a language are.
pub struct Words {
    words: Vec<Vec<u8>>,
}

impl Words {
    /// A vocabulary of 4,000 words.
    pub fn new(random: &mut Random) -> Self {
        let word =
            |random: &mut Random| (0..random.between(2, 10)).map(|_| b'a' + random.between(0, 25) as u8).collect();
        Self { words: (0..4000).map(|_| word(random)).collect() }
    }

    /// Appends `bytes` bytes of text to `text`.
    pub fn write(&self, random: &mut Random, bytes: usize, text: &mut Vec<u8>) {
        let end = text.len() + bytes;
        while text.len() < end {
            // The product of two uniform numbers prefers the words at the front.
            let last = self.words.len() as u64 - 1;
            let bound = random.between(0, last);
            let word = &self.words[random.between(0, bound) as usize];
            text.extend_from_slice(word);
            text.push(if random.between(0, 11) == 0 { b'\n' } else { b' ' });
        }
        text.truncate(end);
    }
}
