//! Where an entry stands in a tree: bytes, never converted lossily, and never an escape.
//!
//! A stored path becomes a path of the file system only component by component, through a directory
//! handle; this type guarantees that no component is empty, `.`, `..`, or holds a NUL or a slash.

use std::cmp::Ordering;
use std::fmt;

/// The longest path, in bytes, that is accepted from a repository or a source.
pub const MAX_PATH_BYTES: usize = 64 * 1024;

/// The longest name, in bytes, that is accepted from a repository or a source.
pub const MAX_NAME_BYTES: usize = 1024;

/// A path relative to the root of a tree; the root itself is the empty path.
///
/// Paths are ordered as a depth-first walk lists them: a directory comes right before what lies in it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Vec<u8>);

/// The bytes are not a path inside a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// A component is empty, so there was a leading, trailing or double slash.
    #[error("path {0:?} has an empty component")]
    EmptyComponent(TreePath),
    /// A component is `.` or `..`.
    #[error("path {0:?} has a component '.' or '..'")]
    Dots(TreePath),
    /// A NUL byte.
    #[error("path {0:?} contains a NUL byte")]
    Nul(TreePath),
    /// The path or one of its names is too long.
    #[error("path of {bytes} bytes has a name over {MAX_NAME_BYTES} bytes or is over {MAX_PATH_BYTES} bytes")]
    TooLong {
        /// The path's length.
        bytes: usize,
    },
}

impl TreePath {
    /// The root of a tree.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Checks bytes and makes a path of them.
    ///
    /// # Errors
    /// [`InvalidPath`] if a component is empty, `.` or `..`, if there is a NUL, or if it is too long.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidPath> {
        let path = Self(bytes.into());
        if path.0.is_empty() {
            return Ok(path);
        }
        // In one go for what is right: a page holds thousands of paths.
        if path.is_valid() {
            return Ok(path);
        }
        if path.0.len() > MAX_PATH_BYTES || path.components().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(InvalidPath::TooLong { bytes: path.0.len() });
        }
        if path.0.contains(&0) {
            return Err(InvalidPath::Nul(path));
        }
        if path.components().any(<[u8]>::is_empty) {
            return Err(InvalidPath::EmptyComponent(path));
        }
        if path.components().any(|name| name == b"." || name == b"..") {
            return Err(InvalidPath::Dots(path));
        }
        Ok(path)
    }

    fn is_valid(&self) -> bool {
        let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME_BYTES;
        self.0.len() <= MAX_PATH_BYTES && !self.0.contains(&0) && self.components().all(is_name)
    }

    /// Appends one name.
    ///
    /// # Errors
    /// [`InvalidPath`] as in [`TreePath::parse`]; a name with a slash counts as several names.
    pub fn join(&self, name: &[u8]) -> Result<Self, InvalidPath> {
        let mut bytes = Vec::with_capacity(self.0.len() + name.len() + 1);
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        // What is above it was checked when it was made: a walk asks this for every entry.
        let path = Self(bytes);
        match name {
            b"" => Err(InvalidPath::EmptyComponent(path)),
            b"." | b".." => Err(InvalidPath::Dots(path)),
            name if name.contains(&b'/') => Self::parse(path.0),
            name if name.len() > MAX_NAME_BYTES || path.0.len() > MAX_PATH_BYTES => {
                Err(InvalidPath::TooLong { bytes: path.0.len() })
            }
            name if name.contains(&0) => Err(InvalidPath::Nul(path)),
            _ => Ok(path),
        }
    }

    /// The path's bytes, names separated by slashes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the root down; none for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        (!self.0.is_empty()).then(|| self.0.split(|byte| *byte == b'/')).into_iter().flatten()
    }

    /// The number of names; 0 for the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        if self.0.is_empty() { 0 } else { 1 + self.0.iter().filter(|byte| **byte == b'/').count() }
    }

    /// The last name; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The directory that holds this; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }

    /// Tells whether this is `ancestor` itself or lies below it.
    #[must_use]
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        match self.0.strip_prefix(ancestor.0.as_slice()) {
            Some(rest) => ancestor.0.is_empty() || rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }

    /// The key by which pages are sorted and cut: the bytes with every slash as NUL, so that byte order is tree order.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        self.0.iter().copied().map(key_byte).collect()
    }
}

fn key_byte(byte: u8) -> u8 {
    if byte == b'/' { 0 } else { byte }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // Neighbours have most of their path in common.
        let words = self.0.as_chunks::<16>().0.iter().zip(other.0.as_chunks::<16>().0);
        let same = words.take_while(|(left, right)| left == right).count() * 16;
        let mut pairs = self.0.iter().zip(&other.0).skip(same);
        match pairs.find(|(left, right)| left != right) {
            None => self.0.len().cmp(&other.0.len()),
            Some((left, right)) => key_byte(*left).cmp(&key_byte(*right)),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// For people: UTF-8 as it is, anything else and control characters escaped.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() || character == '\\' {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).expect("a valid path")
    }

    #[test]
    fn refuses_everything_that_could_lead_out() {
        for text in ["/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "./a"] {
            assert!(TreePath::parse(text).is_err(), "{text:?}");
        }
        assert!(TreePath::parse(b"a\0b".to_vec()).is_err());
        assert!(TreePath::parse(vec![b'x'; MAX_NAME_BYTES + 1]).is_err());
        for text in ["", "a", "...", "-", " ", "a\nb", "..a/b"] {
            assert!(TreePath::parse(text).is_ok(), "{text:?}");
        }
        assert!(path("a").join(b"b/../c").is_err());
        assert!(path("a").join(b"").is_err());
    }

    #[test]
    fn order_is_that_of_a_depth_first_walk() {
        let mut paths = ["b", "a/b", "a!", "a", "", "a/b/c", "a-b"].map(path);
        paths.sort();
        assert_eq!(paths, ["", "a", "a/b", "a/b/c", "a!", "a-b", "b"].map(path));
        let mut keys: Vec<_> = paths.iter().map(TreePath::key).collect();
        keys.sort();
        assert_eq!(keys, paths.iter().map(TreePath::key).collect::<Vec<_>>());
    }

    #[test]
    fn parents_names_and_prefixes() {
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert_eq!(path("a/b").name(), Some(&b"b"[..]));
        assert_eq!(TreePath::root().components().count(), 0);
        assert!(path("a/b").starts_with(&path("a")) && !path("ab").starts_with(&path("a")));
        assert!(path("a").starts_with(&TreePath::root()));
    }

    #[test]
    fn shown_without_control_characters() {
        assert_eq!(TreePath::parse(b"a\xff\nb".to_vec()).expect("valid").to_string(), "a\\xff\\nb");
    }
}
