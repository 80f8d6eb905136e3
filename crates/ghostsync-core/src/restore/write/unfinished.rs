//! One file under its temporary name, until it is whole, verified, and gets its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::Stop;
use super::parts::InParts;
use crate::entry::{Entry, FileContent};
use crate::error::Error;
use crate::id::ChunkId;
use crate::pack::{Assembly, Span};
use crate::restore::destination::Directory;
use crate::restore::metadata::{Target, Unsettable, User, apply, apply_new, first_mode};
use crate::temporary;

/// A file from this size on is flushed before it gets its name, and so is one with holes. A power loss may
/// otherwise leave the name, the size and the time of a file whose data never reached the disk, and the next run
/// would take it for unchanged. A smaller file is appended to in one go, and shows such a loss by its size.
const FLUSH_BYTES: u64 = 8 << 20;

/// A file under its temporary name; dropped, it is gone.
#[derive(Debug)]
pub(super) struct Unfinished {
    directory: Arc<Directory>,
    /// Empty once it has its final one.
    name: String,
    pub(super) handle: Arc<OwnedFd>,
    pub(super) proof: Proof,
}

/// What tells in the end that the content is the right one.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "each is in the box of its file")]
pub(super) enum Proof {
    InOrder(Assembly),
    InParts(InParts),
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // What cannot be removed is swept by the next run.
            let _ = self.directory.unlink(self.name.as_bytes());
        }
    }
}

impl Unfinished {
    /// Begins the file of an entry in its directory.
    pub(super) fn create(
        directory: &Arc<Directory>,
        entry: &Entry,
        proof: impl FnOnce(&FileContent) -> Result<Proof, Stop>,
    ) -> Result<Self, Stop> {
        let proof = proof(entry.content().ok_or_else(|| Stop::Ended(Error::internal("not a regular file")))?)?;
        let name = temporary::name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = directory
            .handle()
            .and_then(|parent| Ok(rustix::fs::openat(&*parent, &name, flags, Mode::from_raw_mode(first_mode(entry)))?))
            .map_err(|error| Stop::Io("create", error))?;
        Ok(Self { directory: Arc::clone(directory), name, handle: Arc::new(handle), proof })
    }

    /// Writes the next chunk in order, which was verified; `step` is told of every piece, and may stop it.
    pub(super) fn push(
        &mut self,
        chunk: ChunkId,
        data: &[u8],
        step: &impl Fn(u64) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        match &mut self.proof {
            Proof::InOrder(assembly) => {
                assembly.push(chunk, data, &mut |span: Span<'_>| write_span(&*self.handle, span, step))
            }
            Proof::InParts(_) => Err(Stop::Ended(Error::internal("a file in parts is written in order"))),
        }
    }

    /// Verifies the whole, and gives it its metadata and its name.
    pub(super) fn finish(
        mut self,
        entry: &Entry,
        user: &User,
        unsettable: &mut Unsettable,
        step: &impl Fn(u64) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let handle = &*self.handle;
        match &mut self.proof {
            Proof::InOrder(assembly) => assembly.finish(&mut |span: Span<'_>| write_span(handle, span, step))?,
            Proof::InParts(parts) => parts.finish(entry, handle)?,
        }
        let has_holes = entry.content().is_some_and(|content| !content.holes.is_empty());
        if has_holes {
            rustix::fs::ftruncate(handle, entry.size()).map_err(|error| Stop::Io("write", error.into()))?;
        }
        if has_holes || entry.size() >= FLUSH_BYTES {
            rustix::fs::fdatasync(handle).map_err(|error| Stop::Io("write", error.into()))?;
        }
        let apply = if self.directory.hands_acl_down() { apply } else { apply_new };
        apply(Target::Open(handle.as_fd()), entry, user, unsettable)
            .map_err(|error| Stop::Io("set the metadata of", error))?;
        self.directory
            .rename(self.name.as_bytes(), entry.path.name().unwrap_or_default())
            .map_err(|error| Stop::Io("rename into place", error))?;
        self.name.clear();
        Ok(())
    }
}

fn write_span(file: impl AsFd, span: Span<'_>, step: &impl Fn(u64) -> Result<(), Stop>) -> Result<(), Stop> {
    match span {
        Span::Data(offset, data) => {
            write_all_at(file, data, offset).map_err(|error| Stop::Io("write", error))?;
            step(data.len() as u64)
        }
        Span::Hole(bytes) => step(bytes),
    }
}

pub(super) fn write_all_at(file: impl AsFd, mut data: &[u8], mut offset: u64) -> io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(&file, data, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                data = data.get(written..).unwrap_or_default();
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
