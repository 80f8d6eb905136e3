//! The content of one file, as chunks and a hash, or why there is none.
//!
//! A file may change while it is read. It is then read again, [`MAX_ATTEMPTS`] times in all; what the last attempt
//! has read is kept, and marked as unstable. An attempt reads what lies below the size that the file has when the
//! attempt begins: what is appended later belongs to the next backup, and a file that never stops growing ends.
//! The size of the content is always the number of bytes that were hashed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use jiff::Timestamp;
use rustix::fs::{FileType, OFlags, Stat, fstat};
use rustix::io::Errno;

use super::chunk::{Buffers, Rule};
use super::content::{Content, Stop, read_content};
use super::found::{Found, kind_of, size_of};
use super::handle::{SourceRoot, id_of, open_beneath, open_file, stat};
use super::xattr;
use crate::entry::{FileTime, Xattr};
use crate::error::{Error, Result};
use crate::format::config::Chunker;
use crate::id::ChunkId;
use crate::interrupt::Interrupt;
use crate::recycled::Recycled;
use crate::tree_path::TreePath;

/// How often a file is read that changes while it is read.
const MAX_ATTEMPTS: usize = 3;

/// What [`read_file`] tells while it reads.
#[derive(Debug)]
pub(crate) enum ReadEvent {
    /// An attempt begins: what came before does not count.
    Begin,
    /// The next chunk of the data without holes; never empty.
    Chunk { id: ChunkId, bytes: Bytes },
}

/// What became of a file.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and almost always the large one")]
pub(crate) enum ReadOutcome {
    /// It was read.
    Read {
        /// Its metadata after the reading. The size there is what the file has grown to, not what was read.
        ///
        found: Found,
        content: Content,
        /// Its extended attributes, or why they could not be read.
        xattrs: io::Result<Vec<Xattr>>,
        /// It changed during every attempt: the content may mix several states.
        unstable: bool,
    },
    /// It is gone.
    Vanished,
    /// Something stands there that is no regular file.
    Replaced,
    /// It is there, and cannot be read.
    Unreadable(io::Error),
}

/// The directory that the last file was in, held open for the next: neighbours are read one after the other.
#[derive(Debug, Default)]
struct Folder(Option<(TreePath, OwnedFd)>);

impl Folder {
    /// Calls with the directory of a path and the name in it.
    fn within<T>(
        &mut self,
        root: &SourceRoot,
        path: &TreePath,
        call: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else { return Err(Errno::ISDIR) };
        if parent.is_root() {
            return call(root.as_fd(), name);
        }
        if let Some((known, handle)) = &self.0
            && *known == parent
        {
            match call(handle.as_fd(), name) {
                // Another directory may have taken its place.
                Err(Errno::NOENT) => {}
                done => return done,
            }
        }
        let handle = open_beneath(root.as_fd(), &parent, OFlags::PATH | OFlags::DIRECTORY)?;
        let done = call(handle.as_fd(), name);
        self.0 = Some((parent, handle));
        done
    }
}

/// What a thread uses again from file to file.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    folder: Folder,
    buffers: Buffers,
}

impl Desk {
    /// One whose chunks lie in such rooms.
    pub(crate) fn new(chunks: Recycled) -> Self {
        Self { folder: Folder::default(), buffers: Buffers::new(chunks) }
    }
}

/// Reads a file that the walk has found, by its path from the root, and hands its chunks to `sink`.
///
/// # Errors
/// Those of `sink`, `Interrupted`, and those of a chunk rule that cannot be followed. What is wrong with the file
/// itself is no error but an outcome.
pub(crate) fn read_file(
    root: &SourceRoot,
    desk: &mut Desk,
    found: &Found,
    chunker: &Chunker,
    interrupt: &Interrupt,
    sink: &mut dyn FnMut(ReadEvent) -> Result<()>,
) -> Result<ReadOutcome> {
    let rule = Rule::new(chunker)?;
    let Desk { folder, buffers } = desk;
    for attempt in 1.. {
        let opened = folder.within(root, &found.path, open_file).and_then(|file| Ok((fstat(&file)?, file)));
        let (before, file) = match opened {
            Ok(opened) => opened,
            // A directory on the way may have gone, or become something else.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(ReadOutcome::Vanished),
            // A link, or a socket.
            Err(Errno::LOOP | Errno::NXIO) => return Ok(ReadOutcome::Replaced),
            Err(errno) => return Ok(ReadOutcome::Unreadable(errno.into())),
        };
        if kind_of(&before) != FileType::RegularFile {
            return Ok(ReadOutcome::Replaced);
        }
        sink(ReadEvent::Begin)?;
        let content = match read_content(&file, &before, rule, buffers, interrupt, sink) {
            Ok(content) => content,
            Err(Stop::End(error)) => return Err(error),
            Err(Stop::Unreadable(error)) => return Ok(ReadOutcome::Unreadable(error)),
        };
        let xattrs = xattr::of_file(&file);
        let after = match fstat(&file) {
            Ok(after) => after,
            Err(errno) => return Ok(ReadOutcome::Unreadable(errno.into())),
        };
        let stable = same(&before, &after)
            && content.size == size_of(&after)
            && folder.within(root, &found.path, stat).is_ok_and(|now| same(&after, &now));
        if stable || attempt >= MAX_ATTEMPTS {
            let found = Found::from_stat(found.path.clone(), &after, None)
                .ok_or_else(|| Error::internal("a regular file is of no known kind"))?;
            return Ok(ReadOutcome::Read { found, content, xattrs, unstable: !stable });
        }
    }
    Err(Error::internal("a file was read without end"))
}

/// Tells whether two stats are of the same file with nothing changed in between.
fn same(a: &Stat, b: &Stat) -> bool {
    let times = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
    id_of(a) == id_of(b) && a.st_mode == b.st_mode && a.st_size == b.st_size && times(a) == times(b)
}

/// Tells whether a file could be changed again without its times showing it, `read_at` being when its reading began.
///
/// The system's file times advance in steps: up to some 10 ms where nanoseconds are kept, 2 s where they are not.
/// A change within the step in which a file was read leaves the same times behind, so such a file is read again
/// by the next backup. A ctime beyond the reading comes from another machine's clock, and is not trusted either;
/// an mtime beyond it may have been set by anyone, and says nothing.
pub(crate) fn racy(found: &Found, read_at: Timestamp) -> bool {
    const FINE_NANOSECONDS: i128 = 50_000_000;
    const COARSE_NANOSECONDS: i128 = 2_000_000_000;
    let nanoseconds = |time: FileTime| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let coarse = found.mtime.nanoseconds == 0 && found.ctime.nanoseconds == 0;
    let step = if coarse { COARSE_NANOSECONDS } else { FINE_NANOSECONDS };
    let read_at = read_at.as_nanosecond();
    nanoseconds(found.ctime) >= read_at - step || (nanoseconds(found.mtime) - read_at).abs() <= step
}

#[cfg(test)]
mod tests;
