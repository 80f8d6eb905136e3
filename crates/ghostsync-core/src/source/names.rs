//! The names in one directory: listed at once, sorted, compact.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::fs::RawDir;
use rustix::io::Errno;

use crate::tree_path::MAX_NAME_BYTES;

/// Bytes asked for in one system call.
const LISTING_BYTES: usize = 64 * 1024;

/// The sorted names of a directory, in one buffer: a directory of a million names costs some 50 MB, not 100.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The names, each with its NUL.
    bytes: Vec<u8>,
    /// Where each name lies, without its NUL, sorted by name.
    places: Vec<Range<usize>>,
    next: usize,
}

impl Names {
    /// Lists a directory, without `.` and `..`. All or nothing: half a list would look like deletions.
    ///
    /// # Errors
    /// The system's, `ENOENT` for a directory that was removed since; `ENAMETOOLONG` for a name over `most_bytes`, `EIO` for a name that is none.
    pub(super) fn list(directory: BorrowedFd<'_>, most_bytes: usize) -> rustix::io::Result<Self> {
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut names = Self::default();
        let mut listing = RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_bytes() {
                b"." | b".." => {}
                bytes if bytes.is_empty() || bytes.contains(&b'/') => return Err(Errno::IO),
                bytes if bytes.len() > most_bytes.min(MAX_NAME_BYTES) => return Err(Errno::NAMETOOLONG),
                _ => names.push(name),
            }
        }
        names.sort();
        Ok(names)
    }

    fn push(&mut self, name: &CStr) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        self.places.push(begin..self.bytes.len().saturating_sub(1));
    }

    /// Sorts, and drops what a file system that was changed meanwhile has listed twice.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.places.sort_unstable_by(|a, b| bytes.get(a.clone()).cmp(&bytes.get(b.clone())));
        self.places.dedup_by(|a, b| bytes.get(a.clone()) == bytes.get(b.clone()));
    }

    /// Tells whether a name is among them, taken or not.
    pub(super) fn contains(&self, name: &CStr) -> bool {
        self.places.binary_search_by(|place| self.bytes.get(place.clone()).cmp(&Some(name.to_bytes()))).is_ok()
    }

    /// Tells whether all were taken.
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.places.len()
    }

    /// The next name, without taking it.
    pub(super) fn peek(&self) -> Option<&CStr> {
        let place = self.places.get(self.next)?;
        CStr::from_bytes_with_nul(self.bytes.get(place.start..=place.end)?).ok()
    }

    /// Takes the next name.
    pub(super) fn advance(&mut self) {
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_bytes_and_named_once() {
        let mut names = Names::default();
        for name in [c"b", c"a-", c"a", c"\xff", c"b", c"A"] {
            names.push(name);
        }
        names.sort();
        assert!(names.contains(c"a-") && !names.contains(c"c"));
        let mut taken = Vec::new();
        while let Some(name) = names.peek() {
            taken.push(name.to_owned());
            names.advance();
        }
        assert_eq!(taken, [c"A", c"a", c"a-", c"b", c"\xff"].map(CStr::to_owned));
        assert!(names.is_done());
    }
}
