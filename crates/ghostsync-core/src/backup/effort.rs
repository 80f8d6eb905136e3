//! How hard a block is compressed: that follows from its bytes.

use crate::format::frame::Effort;

/// Places in a block that are looked at, and bytes at each of them.
const SAMPLES: usize = 64;
const SAMPLE_BYTES: usize = 128;

/// Chooses for a block.
pub(super) fn effort(content: &[u8]) -> Effort {
    if is_noise(content) { Effort::Least } else { Effort::Less }
}

/// Tells whether all bytes are about equally frequent in a sample, as they are in what is encrypted or compressed.
///
/// Two bytes of noise are equal once in 256 times; a tenth more often, and it is none.
fn is_noise(content: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    let step = content.len().div_ceil(SAMPLES).max(SAMPLE_BYTES);
    for sample in content.chunks(step) {
        for byte in sample.iter().take(SAMPLE_BYTES) {
            counts[usize::from(*byte)] += 1;
        }
    }
    let bytes: u64 = counts.iter().sum();
    let pairs: u64 = counts.iter().map(|count| count * count.saturating_sub(1)).sum();
    // Fewer bytes than that differ too much by chance.
    bytes >= 4096 && pairs * 256 * 10 < bytes * (bytes - 1) * 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::compress_with;
    use crate::testing::tree::noise;

    #[test]
    fn only_what_cannot_be_compressed_is_noise() {
        let text = "no page of text has all bytes alike. ".repeat(20_000);
        let mixed = [noise(1, 400_000), text.as_bytes()[..120_000].to_vec()].concat();
        // Two thirds of the bytes that there are, each as frequent as the others.
        let narrow: Vec<u8> = noise(2, 500_000).into_iter().map(|byte| byte % 170).collect();
        let hexadecimal: Vec<u8> =
            noise(3, 500_000).into_iter().map(|byte| b"0123456789abcdef"[usize::from(byte % 16)]).collect();
        for compressible in [text.as_bytes(), &mixed, &narrow, &hexadecimal, &[0; 1 << 20], b"", b"x", &noise(4, 1000)]
        {
            assert!(!is_noise(compressible), "{} bytes", compressible.len());
        }
        for seed in 0..50 {
            assert!(is_noise(&noise(seed, 512 << 10)) && is_noise(&noise(seed, 5000)), "{seed}");
        }
        assert_eq!([effort(text.as_bytes()), effort(&noise(5, 5000))], [Effort::Less, Effort::Least]);
    }

    #[test]
    fn noise_that_comes_twice_is_stored_once() {
        let content = noise(5, 100_000).repeat(2);
        let frame = compress_with(effort(&content), "test", &content).expect("compresses");
        assert!((100_000..110_000).contains(&frame.len()));
    }
}
