//! The names in one directory: listed at once, sorted, compact.

use std::ffi::CStr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

use crate::tree_path::MAX_NAME_BYTES;

/// Bytes asked for in one system call.
const LISTING_BYTES: usize = 64 * 1024;

/// The sorted names of a directory, in one buffer: a directory of a million names costs some 50 MB, not 100.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The names, each with its NUL.
    bytes: Vec<u8>,
    /// Where each name lies, sorted by name.
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    begin: usize,
    /// Without the NUL.
    bytes: u16,
    /// As the listing has it, which need not know it.
    is_directory: bool,
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
                _ => names.push(name, entry.file_type() == FileType::Directory)?,
            }
        }
        names.sort();
        Ok(names)
    }

    fn push(&mut self, name: &CStr, is_directory: bool) -> rustix::io::Result<()> {
        let (begin, bytes) = (self.bytes.len(), name.count_bytes());
        let bytes = u16::try_from(bytes).map_err(|_| Errno::NAMETOOLONG)?;
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
        self.places.push(Place { begin, bytes, is_directory });
        Ok(())
    }

    /// Sorts, and drops what a file system that was changed meanwhile has listed twice.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        let name = |place: &Place| bytes.get(place.begin..place.begin + usize::from(place.bytes));
        self.places.sort_unstable_by(|a, b| name(a).cmp(&name(b)));
        self.places.dedup_by(|a, b| name(a) == name(b));
    }

    fn at(&self, place: &Place) -> Option<&CStr> {
        CStr::from_bytes_with_nul(self.bytes.get(place.begin..=place.begin + usize::from(place.bytes))?).ok()
    }

    /// Tells whether a name is among them.
    pub(super) fn contains(&self, name: &CStr) -> bool {
        self.places.binary_search_by(|place| self.at(place).cmp(&Some(name))).is_ok()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The name of a number.
    pub(super) fn get(&self, number: usize) -> Option<&CStr> {
        self.at(self.places.get(number)?)
    }

    /// The names of these numbers.
    pub(super) fn range(&self, numbers: Range<usize>) -> impl Iterator<Item = &CStr> {
        self.places.get(numbers).into_iter().flatten().filter_map(|place| self.at(place))
    }

    /// The names of directories from a number on, with their numbers, as far as the listing has told which are.
    pub(super) fn directories(&self, from: usize) -> impl Iterator<Item = (usize, &CStr)> {
        let places = self.places.iter().enumerate().skip(from);
        places.filter(|(_, place)| place.is_directory).filter_map(|(number, place)| Some((number, self.at(place)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_by_bytes_and_named_once() {
        let mut names = Names::default();
        for name in [c"b", c"a-", c"a", c"\xff", c"b", c"A"] {
            names.push(name, name == c"a-").expect("short");
        }
        names.sort();
        assert_eq!(names.directories(0).collect::<Vec<_>>(), [(2, c"a-")]);
        assert_eq!((names.directories(3).count(), names.len()), (0, 5));
        assert!(names.contains(c"a-") && !names.contains(c"c"));
        let all: Vec<_> = names.range(0..names.len()).collect();
        assert_eq!(all, [c"A", c"a", c"a-", c"b", c"\xff"]);
        assert_eq!((names.get(4), names.get(5)), (Some(c"\xff"), None));
    }
}
