//! Names of things: one type for each kind of id, so that they are never mixed up.
//!
//! This is the only place that knows how an id comes from content. Ids are plain BLAKE3 hashes today;
//! with encryption they will be keyed, and nothing outside this module may assume either.

mod parts;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub(crate) use self::parts::{PART_BYTES, PartHash, Parts};

/// The text is not the lower-case hexadecimal form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of {expected} lower-case hexadecimal digits: {text:?}")]
pub struct ParseIdError {
    expected: usize,
    text: String,
}

/// A map by ids. They are hashes already, and a page has thousands of them: this hashes them in a quarter of the time of
/// the standard library's, with a random seed too.
pub(crate) type IdMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// A set of ids, as [`IdMap`].
pub(crate) type IdSet<K> = std::collections::HashSet<K, foldhash::fast::RandomState>;

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let wrong = || ParseIdError { expected: N * 2, text: text.chars().take(80).collect() };
    if text.len() != N * 2 {
        return Err(wrong());
    }
    let digit = |byte: u8| HEX_DIGITS[usize::from(byte)];
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
        let (high, low) = (digit(pair[0]), digit(pair[1]));
        seen |= high | low;
        *byte = high << 4 | low & 15;
    }
    if seen & NO_DIGIT == 0 { Ok(bytes) } else { Err(wrong()) }
}

const NO_DIGIT: u8 = 0x80;

/// The value of each byte as a digit: pages hold some hundred thousand ids, and a table needs no branches.
static HEX_DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// The digits of each byte.
static HEX_PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut value = 0;
    while value < 256 {
        pairs[value] = [b"0123456789abcdef"[value >> 4], b"0123456789abcdef"[value & 15]];
        value += 1;
    }
    pairs
};

/// Writes bytes as digits, of which there must be twice as many.
fn write_hex<'a>(bytes: &[u8], text: &'a mut [u8]) -> Option<&'a str> {
    write_digits(bytes, text);
    std::str::from_utf8(text).ok()
}

fn write_digits(bytes: &[u8], digits: &mut [u8]) {
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = HEX_PAIRS[usize::from(*byte)];
    }
}

/// Appends the digits of an id to a text.
pub(crate) fn push_hex(id: &[u8; 32], text: &mut Vec<u8>) {
    let mut digits = [0; 64];
    write_digits(id, &mut digits);
    text.extend_from_slice(&digits);
}

/// Takes an id where it stands in a text: a string of its own for each would cost as much as all else.
struct Hex<const N: usize>;

impl<const N: usize> de::Visitor<'_> for Hex<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an id of {} lower-case hexadecimal digits", N * 2)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<[u8; N], E> {
        parse_hex(text).map_err(E::custom)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Makes the id from its bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The id's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(write_hex(&self.0, &mut [0; $bytes * 2]).ok_or(fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut text = [0; $bytes * 2];
                serializer.serialize_str(write_hex(&self.0, &mut text).unwrap_or_default())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Hex).map(Self)
            }
        }
    };
}

id!(
    /// Names a repository: 128 random bits, made by `init`.
    RepositoryId, 16
);
id!(
    /// Names one attempt to write: 128 random bits, never used again.
    SessionId, 16
);
id!(
    /// The BLAKE3 of a file's whole content, holes read as zeros: what `b3sum` prints.
    ContentHash, 32
);
id!(
    /// Names a chunk by its content.
    ChunkId, 32
);
id!(
    /// Names a page by its entry lines; where chunks lie is not part of it.
    PageId, 32
);
id!(
    /// Names a snapshot: derived from its record without the marks that may change (tags, hold).
    SnapshotId, 32
);
id!(
    /// The BLAKE3 of the stored bytes of a commit (or of `config.json` for the first commit's `prev`).
    CommitHash, 32
);
id!(
    /// The BLAKE3 of the stored bytes of one zstd frame.
    FrameHash, 32
);

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system's generator fails only where no program could make a key or an id at all.
    #[allow(clippy::expect_used)]
    getrandom::fill(&mut bytes).expect("the system has a random generator");
    bytes
}

impl RepositoryId {
    /// Makes a new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(random_bytes())
    }
}

impl SessionId {
    /// Makes a new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(random_bytes())
    }
}

impl ContentHash {
    /// Hashes a content that is in memory.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// Ends an incremental hash of a content.
    #[must_use]
    pub fn from_hasher(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }
}

impl ChunkId {
    /// Names a chunk.
    #[must_use]
    pub fn of(chunk: &[u8]) -> Self {
        Self(*blake3::hash(chunk).as_bytes())
    }

    /// Names the only chunk of a content without holes.
    #[must_use]
    pub fn of_whole(content: ContentHash) -> Self {
        Self(content.0)
    }
}

impl PageId {
    /// Names a page by the bytes of its entry lines.
    #[must_use]
    pub fn of(lines: &[u8]) -> Self {
        Self(*blake3::hash(lines).as_bytes())
    }
}

impl SnapshotId {
    pub(crate) fn of(record: &[u8]) -> Self {
        Self(*blake3::hash(record).as_bytes())
    }
}

impl CommitHash {
    /// Hashes the stored bytes of a commit.
    #[must_use]
    pub fn of(stored: &[u8]) -> Self {
        Self(*blake3::hash(stored).as_bytes())
    }
}

impl FrameHash {
    /// Hashes the stored bytes of a frame.
    #[must_use]
    pub fn of(stored: &[u8]) -> Self {
        Self(*blake3::hash(stored).as_bytes())
    }
}

/// Names a pack: the head's number when the session began, the session, and a counter within it.
///
/// Never a hash of content and never used again, so that a late or repeated delete hits nothing that
/// somebody else has uploaded since. Shown as `<begin:020>-<session>/<n:06>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackName {
    /// The number of the head when the session began.
    pub begin: u64,
    /// The session that made the pack.
    pub session: SessionId,
    /// Counts the session's packs from 0.
    pub number: u32,
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{}/{:06}", self.begin, self.session, self.number)
    }
}

/// The text is not the name of a pack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a pack: {0:?}")]
pub struct ParsePackNameError(String);

impl FromStr for PackName {
    type Err = ParsePackNameError;
    fn from_str(text: &str) -> Result<Self, ParsePackNameError> {
        let parts = || {
            let (begin, rest) = text.split_once('-')?;
            let (session, number) = rest.split_once('/')?;
            let name =
                Self { begin: begin.parse().ok()?, session: session.parse().ok()?, number: number.parse().ok()? };
            (name.to_string() == text).then_some(name)
        };
        parts().ok_or_else(|| ParsePackNameError(text.chars().take(120).collect()))
    }
}

impl Serialize for PackName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PackName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_parse_only_their_own_text() {
        let id = ChunkId::of(b"x");
        assert_eq!(id.to_string().parse::<ChunkId>(), Ok(id));
        assert!(id.to_string().to_uppercase().parse::<ChunkId>().is_err());
        assert!("12".parse::<ChunkId>().is_err());
        assert!("é".repeat(32).parse::<ChunkId>().is_err());
    }

    #[test]
    fn pack_names_have_one_spelling() {
        let name = PackName { begin: 7, session: SessionId::from_bytes([1; 16]), number: 3 };
        assert_eq!(name.to_string(), "00000000000000000007-01010101010101010101010101010101/000003");
        assert_eq!(name.to_string().parse::<PackName>(), Ok(name));
        assert!("7-01010101010101010101010101010101/3".parse::<PackName>().is_err());
        assert!("+0000000000000000007-01010101010101010101010101010101/000003".parse::<PackName>().is_err());
    }
}
