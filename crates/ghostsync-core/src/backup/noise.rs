//! Tells content that cannot be compressed from what can.

use bytes::Bytes;

/// Places in a block that are looked at, and bytes at each of them.
const SAMPLES: usize = 64;
const SAMPLE_BYTES: usize = 128;

/// Tells whether all bytes are about equally frequent in a sample, as they are in what is encrypted or compressed.
///
/// Two bytes of noise are equal once in 256 times; a tenth more often, and it is none.
pub(super) fn is_noise(pieces: &[Bytes]) -> bool {
    let mut counts = [0_u64; 256];
    let bytes: usize = pieces.iter().map(Bytes::len).sum();
    let step = bytes.div_ceil(SAMPLES).max(SAMPLE_BYTES);
    for sample in pieces.iter().flat_map(|piece| piece.chunks(step)) {
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
            for piece_bytes in [compressible.len().max(1), 64 << 10, 1000] {
                let pieces: Vec<_> = compressible.chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
                assert!(!is_noise(&pieces), "{} bytes", compressible.len());
            }
        }
        for seed in 0..50 {
            assert!(is_noise(&[noise(seed, 512 << 10).into()]) && is_noise(&[noise(seed, 5000).into()]), "{seed}");
            assert!(is_noise(&[noise(seed, 70_000).into(), noise(seed, 2000).into()]), "{seed}");
        }
    }
}
