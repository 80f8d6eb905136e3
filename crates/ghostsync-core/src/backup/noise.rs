//! Tells content that cannot be compressed from what can.

use bytes::Bytes;

/// Places in a block that are looked at, and bytes at each of them.
const SAMPLES: usize = 64;
const SAMPLE_BYTES: usize = 128;

/// What a sample tells of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sampled {
    /// All bytes are about equally frequent, as they are in what is encrypted or compressed.
    Noise,
    /// Some of it may be noise.
    Mixed,
    /// Hardly any byte has its highest bit, which half of those of noise have.
    Plain,
}

/// Looks at a sample.
///
/// Two bytes of noise are equal once in 256 times; a tenth more often, and it is none.
pub(super) fn sample(pieces: &[Bytes]) -> Sampled {
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
    if bytes >= 4096 && pairs * 256 * 10 < bytes * (bytes - 1) * 11 {
        return Sampled::Noise;
    }
    let high: u64 = counts[128..].iter().sum();
    if high * 32 > bytes { Sampled::Mixed } else { Sampled::Plain }
}

/// What is looked at alone: a page of most databases, and what a file system allots.
const PAGE_BYTES: usize = 4096;

/// So many different bytes among [`SAMPLE_BYTES`] make a page noise: of noise it is 101, give or take 4; of 7 bits of
/// noise, which can be compressed, 81; of text, 30.
const DIFFERENT: u32 = 90;

/// Cuts content into stretches of pages that are noise and of pages that are not, in turn.
pub(super) fn stretches(content: &[u8]) -> Vec<&[u8]> {
    let (mut stretches, mut rest, mut bytes, mut was_noise) = (Vec::new(), content, 0, None);
    for page in content.chunks(PAGE_BYTES) {
        let is_noise = is_page_of_noise(page);
        if was_noise.replace(is_noise).is_some_and(|was_noise| was_noise != is_noise) {
            let (stretch, after) = rest.split_at(bytes);
            stretches.push(stretch);
            (rest, bytes) = (after, 0);
        }
        bytes += page.len();
    }
    stretches.extend(Some(rest).filter(|rest| !rest.is_empty()));
    stretches
}

/// Tells by a sample from its middle.
fn is_page_of_noise(page: &[u8]) -> bool {
    let sample = &page[page.len() / 2..];
    let mut seen = [0_u64; 4];
    for byte in &sample[..sample.len().min(SAMPLE_BYTES)] {
        seen[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
    seen.iter().map(|bits| bits.count_ones()).sum::<u32>() >= DIFFERENT
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
                assert_ne!(sample(&pieces), Sampled::Noise, "{} bytes", compressible.len());
            }
        }
        for seed in 0..50 {
            for lengths in [&[512 << 10][..], &[5000], &[70_000, 2000]] {
                let pieces: Vec<Bytes> = lengths.iter().map(|bytes| noise(seed, *bytes).into()).collect();
                assert_eq!(sample(&pieces), Sampled::Noise, "{seed} {lengths:?}");
            }
        }
    }

    #[test]
    fn content_with_some_noise_is_told_from_plain_text() {
        let text = "no page of text has all bytes alike. ".repeat(16_000).into_bytes();
        for noise_bytes in [64 << 10, 256 << 10] {
            let mut mixed = text.clone();
            mixed[100_000..100_000 + noise_bytes].copy_from_slice(&noise(1, noise_bytes));
            assert_eq!(sample(&[mixed.into()]), Sampled::Mixed, "{noise_bytes}");
        }
        assert_eq!(sample(&[text.into()]), Sampled::Plain);
        assert_eq!(sample(&[vec![0; 100_000].into()]), Sampled::Plain);
        assert_eq!(sample(&[]), Sampled::Plain);
    }

    #[test]
    fn stretches_end_where_noise_begins_or_ends() {
        let page = |text: &str| text.repeat(PAGE_BYTES / text.len() + 1).as_bytes()[..PAGE_BYTES].to_vec();
        let (text, zeros) = (page("no page of text has all bytes alike. "), vec![0; PAGE_BYTES]);
        // Each of 128 values, about as often as the others: an eighth can be saved.
        let narrow: Vec<u8> = noise(1, PAGE_BYTES).into_iter().map(|byte| byte & 0x7f).collect();
        let base64: Vec<u8> = noise(2, PAGE_BYTES).into_iter().map(|byte| b' ' + (byte & 0x3f)).collect();
        let [one, other] = [3, 4].map(|seed| noise(seed, PAGE_BYTES));
        let rest = noise(5, 3000);
        let content =
            [&text, &zeros, &one, &other, &narrow, &one, &base64, &text, &rest].map(|page| &page[..]).concat();
        let pages = [2, 2, 1, 1, 2].map(|pages| pages * PAGE_BYTES);
        let lengths: Vec<usize> = stretches(&content).into_iter().map(<[u8]>::len).collect();
        assert_eq!(lengths, [&pages[..], &[rest.len()]].concat());
        assert_eq!(stretches(&content).concat(), content);
        assert_eq!(stretches(&text), [&text[..]]);
        assert_eq!(stretches(b"x"), [b"x"]);
        assert!(stretches(b"").is_empty());
        let of_noise = (0..500).filter(|seed| is_page_of_noise(&noise(*seed, PAGE_BYTES))).count();
        assert!(of_noise >= 490, "{of_noise}");
    }
}
