//! A range of an object: its bytes, or the file of this machine that has them.
//!
//! What a local store has is read when it is needed, by the thread that needs it, to where that thread works: nothing waits
//! in memory, and the processor still has it at hand.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path as Key;

use super::cut_short;
use super::failure::failure;
use super::local::{self, ReadFailure};
use crate::error::{Error, Result};
use crate::rooms::Rooms;

/// What an open file that is kept takes of what a process may have, put as bytes.
const OPEN_FILE_BYTES: usize = 128 << 10;

/// A range of an object, exactly as long as it was asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum StoredRange {
    /// The bytes that a store has sent.
    Received(Bytes),
    /// Bytes that a local store has.
    InFile(FileRange),
}

/// A part of an object's file, which stays readable when the object is deleted.
#[derive(Debug, Clone)]
pub(crate) struct FileRange {
    object: Arc<ObjectFile>,
    range: Range<u64>,
}

#[derive(Debug)]
struct ObjectFile {
    file: File,
    key: Key,
    location: String,
}

impl StoredRange {
    /// A part of it, by where that begins and ends in it; `None` if it has no such part.
    pub(crate) fn slice(&self, part: Range<u64>) -> Option<Self> {
        match self {
            Self::Received(bytes) => {
                let part = usize::try_from(part.start).ok()?..usize::try_from(part.end).ok()?;
                bytes.get(part.clone())?;
                Some(Self::Received(bytes.slice(part)))
            }
            Self::InFile(FileRange { object, range }) => {
                let at = |offset| range.start.checked_add(offset).filter(|at| *at <= range.end);
                let range = at(part.start)?..at(part.end)?;
                (range.start <= range.end).then(|| Self::InFile(FileRange { object: Arc::clone(object), range }))
            }
        }
    }

    /// Has the system of a local store begin to read it.
    pub(crate) fn read_ahead(&self) {
        if let Self::InFile(FileRange { object, range }) = self {
            local::read_ahead(&object.file, range.clone());
        }
    }

    /// Its bytes, read to where there is room if they are not here yet.
    ///
    /// # Errors
    /// `Unavailable` if the file cannot be read, or has become shorter.
    pub(crate) fn read(&self, rooms: &Rooms) -> Result<Bytes> {
        match self {
            Self::Received(bytes) => Ok(bytes.clone()),
            Self::InFile(range) => range.read(rooms),
        }
    }

    /// The same to be kept for some time, and how many bytes that costs.
    pub(crate) fn to_keep(&self) -> (Self, usize) {
        match self {
            // A slice would keep all of what it was cut from.
            Self::Received(bytes) => (Self::Received(Bytes::copy_from_slice(bytes)), bytes.len()),
            Self::InFile(_) => (self.clone(), OPEN_FILE_BYTES),
        }
    }
}

impl FileRange {
    /// Such a range of an object's file, which is as long at least.
    pub(super) fn new(file: File, key: &Key, location: &str, range: Range<u64>) -> Self {
        Self { object: Arc::new(ObjectFile { file, key: key.clone(), location: location.to_owned() }), range }
    }

    /// See [`StoredRange::read`].
    pub(super) fn read(&self, rooms: &Rooms) -> Result<Bytes> {
        let ObjectFile { file, key, location } = &*self.object;
        let length = self.range.end - self.range.start;
        let bytes = usize::try_from(length).map_err(|_| Error::internal(format!("{length} bytes of {key} at once")))?;
        rooms.fill(bytes, |space| local::read(file, self.range.start, space)).map_err(|error| match error {
            ReadFailure::CutShort(received) => cut_short(key, received, length),
            ReadFailure::Failed(error) => failure("read", key, location, error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// Ten bytes, in both ways, behind two others in the file.
    fn both() -> (tempfile::TempDir, [StoredRange; 2]) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("object");
        std::fs::write(&path, b"..0123456789").expect("writes");
        let file = FileRange::new(File::open(path).expect("opens"), &Key::from("object"), "here", 2..12);
        (folder, [StoredRange::Received(Bytes::from_static(b"0123456789")), StoredRange::InFile(file)])
    }

    #[test]
    fn a_part_is_the_same_whether_it_was_received_or_lies_in_a_file() {
        let (_folder, both) = both();
        let read = |range: StoredRange| range.read(&Rooms::new()).expect("reads");
        for range in both {
            range.read_ahead();
            assert_eq!(read(range.clone()), "0123456789");
            assert_eq!(range.slice(3..6).map(read).expect("a part"), "345");
            assert_eq!(range.slice(3..6).and_then(|part| part.slice(1..3)).map(read).expect("a part of it"), "45");
            assert_eq!(range.slice(10..10).map(read).expect("nothing"), "");
            assert_eq!(read(range.to_keep().0), "0123456789");
            #[expect(clippy::reversed_empty_ranges, reason = "as a damaged page may name it")]
            for no_part in [9..11, 11..12, 6..3, u64::MAX..u64::MAX] {
                assert!(range.slice(no_part.clone()).is_none(), "{no_part:?}");
            }
        }
    }

    #[test]
    fn a_file_that_is_deleted_stays_readable_and_one_that_is_cut_short_is_an_error() {
        let (folder, [_, range]) = both();
        let path = folder.path().join("object");
        let keeper = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
        std::fs::remove_file(path).expect("deletes");
        assert_eq!(range.read(&Rooms::single_use()).expect("reads"), "0123456789");
        keeper.set_len(7).expect("cuts");
        let error = range.read(&Rooms::single_use()).expect_err("is too short");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("sent 5 bytes of object and had promised 10"), "{error}");
    }
}
