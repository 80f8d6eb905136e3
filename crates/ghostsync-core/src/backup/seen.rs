//! What the walk saw, kept for a second pass: in memory while it is small, in a file of the cache after that.

use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::SpooledTempFile;

use crate::entry::{DeviceNumber, FileTime, Xattr};
use crate::error::{Error, Result};
use crate::source::{Found, FoundKind};
use crate::tree::AtPath;
use crate::tree_path::TreePath;

/// One thing that the walk saw.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// An entry; it is handed on a great deal.
    Entry(Arc<SeenEntry>),
    /// Something that could not be read; with `below`, what lies in the directory just before.
    Unreadable { path: TreePath, below: bool, message: String },
    /// An entry, and everything below it, that the excludes hide.
    Excluded { path: TreePath },
}

/// An entry as the walk saw it.
#[derive(Debug, Clone)]
pub(super) struct SeenEntry {
    pub(super) found: Found,
    /// `None`: inode and ctime are those of the parent snapshot's backup, so these are too; or they are read with the
    /// content.
    pub(super) xattrs: Option<Vec<Xattr>>,
    /// The first member of its hard-link group.
    pub(super) link: Option<TreePath>,
    /// Inode and ctime are those of the parent snapshot's backup.
    pub(super) is_known: bool,
    /// Whether equal size and mtime mean equal content.
    pub(super) trusted: bool,
    /// Whether it changed so shortly before it was looked at that a later change may show the same times.
    pub(super) racy: bool,
}

impl AtPath for Seen {
    fn path(&self) -> &TreePath {
        match self {
            Self::Entry(entry) => &entry.found.path,
            Self::Unreadable { path, .. } | Self::Excluded { path } => path,
        }
    }
}

/// Something that a [`Spool`] keeps.
pub(super) trait Kept: Clone {
    /// Its stored form.
    type Record: Serialize + DeserializeOwned;

    fn record(&self) -> Self::Record;

    fn from_record(record: Self::Record) -> Result<Self>;
}

/// Values in the order they were written: the first ones in memory, the others compressed, on disk once they are more
/// than a MiB.
pub(super) struct Spool<T> {
    folder: Option<PathBuf>,
    first: Vec<T>,
    others: Option<BufWriter<zstd::Encoder<'static, SpooledTempFile>>>,
    count: u64,
}

/// Some 20 MB of entries.
const IN_MEMORY: usize = 1 << 16;
/// Not more: after a large buffer was given back, glibc no longer gives back to the system what is smaller.
const IN_MEMORY_BYTES: usize = 1 << 20;
const MAX_RECORD_BYTES: usize = 64 << 20;

impl<T: Kept> Spool<T> {
    /// Begins one; without a folder it stays in memory.
    pub(super) fn new(folder: Option<&Path>) -> Self {
        Self { folder: folder.map(Path::to_path_buf), first: Vec::new(), others: None, count: 0 }
    }

    pub(super) fn push(&mut self, value: T) -> Result<()> {
        self.count += 1;
        if self.first.len() < IN_MEMORY {
            self.first.push(value);
            return Ok(());
        }
        let writer = match &mut self.others {
            Some(writer) => writer,
            None => {
                let file = match &self.folder {
                    Some(folder) => tempfile::spooled_tempfile_in(IN_MEMORY_BYTES, folder),
                    None => SpooledTempFile::new(usize::MAX),
                };
                let encoder = zstd::Encoder::new(file, 1).map_err(failed)?;
                self.others.insert(BufWriter::with_capacity(1 << 16, encoder))
            }
        };
        let bytes = postcard::to_stdvec(&value.record()).map_err(|error| failed(io::Error::other(error)))?;
        let length = u32::try_from(bytes.len()).map_err(|error| failed(io::Error::other(error)))?;
        writer.write_all(&length.to_le_bytes()).and_then(|()| writer.write_all(&bytes)).map_err(failed)
    }

    /// The number of values.
    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// Ends writing; the result can be read as often as wanted.
    pub(super) fn finish(self) -> Result<Spooled<T>> {
        let others = match self.others {
            Some(writer) => {
                let encoder = writer.into_inner().map_err(|error| failed(error.into_error()))?;
                Some(encoder.finish().map_err(failed)?)
            }
            None => None,
        };
        let left = self.count - self.first.len() as u64;
        Ok(Spooled { first: self.first, others: others.map(|file| (file, left)) })
    }
}

/// A finished [`Spool`].
pub(super) struct Spooled<T> {
    first: Vec<T>,
    others: Option<(SpooledTempFile, u64)>,
}

impl<T: Kept> Spooled<T> {
    /// Reads it from its begin.
    pub(super) fn read(&mut self) -> Result<impl Iterator<Item = Result<T>> + '_> {
        let others = self.others.as_mut().map(|(file, left)| Replay::begin(file, *left)).transpose()?;
        Ok(self.first.iter().cloned().map(Ok).chain(others.into_iter().flatten()))
    }

    /// Reads it from its begin for the last time: what has been read takes no memory any more.
    pub(super) fn into_read(self) -> Result<impl Iterator<Item = Result<T>>> {
        let others = self.others.map(|(file, left)| Replay::begin(file, left)).transpose()?;
        Ok(self.first.into_iter().map(Ok).chain(others.into_iter().flatten()))
    }
}

/// Reads the stored part of a [`Spooled`].
struct Replay<T, F: Read> {
    reader: BufReader<zstd::Decoder<'static, BufReader<F>>>,
    left: u64,
    kind: PhantomData<T>,
}

impl<T, F: Read + Seek> Replay<T, F> {
    fn begin(mut file: F, left: u64) -> Result<Self> {
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let decoder = zstd::Decoder::new(file).map_err(failed)?;
        Ok(Self { reader: BufReader::with_capacity(1 << 16, decoder), left, kind: PhantomData })
    }
}

impl<T: Kept, F: Read> Iterator for Replay<T, F> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        self.left = self.left.checked_sub(1)?;
        Some(read_record(&mut self.reader).map_err(failed).and_then(T::from_record))
    }
}

/// Reads one record; the file is this process's own, so a bad length is a defect or a broken disk.
fn read_record<T: DeserializeOwned>(reader: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    reader.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_RECORD_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a record is too long"));
    }
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn failed(source: io::Error) -> Error {
    Error::local("keep", "the list of entries in the cache folder", source)
}

/// The stored form of [`Seen`].
#[derive(Serialize, Deserialize)]
pub(super) enum SeenRecord {
    Entry(Box<EntryRecord>),
    Unreadable { path: Vec<u8>, below: bool, message: String },
    Excluded { path: Vec<u8> },
}

#[derive(Serialize, Deserialize)]
pub(super) struct EntryRecord {
    path: Vec<u8>,
    kind: KindRecord,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    ctime: (i64, u32),
    device: u64,
    inode: u64,
    links: u64,
    xattrs: Option<Vec<(Vec<u8>, Vec<u8>)>>,
    link: Option<Vec<u8>>,
    is_known: bool,
    trusted: bool,
    racy: bool,
}

#[derive(Serialize, Deserialize)]
enum KindRecord {
    File(u64),
    Directory,
    Symlink(Vec<u8>),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Socket,
}

impl Kept for Seen {
    type Record = SeenRecord;

    fn record(&self) -> SeenRecord {
        let entry = match self {
            Seen::Entry(entry) => entry,
            Seen::Unreadable { path, below, message } => {
                return SeenRecord::Unreadable {
                    path: path.as_bytes().to_vec(),
                    below: *below,
                    message: message.clone(),
                };
            }
            Seen::Excluded { path } => return SeenRecord::Excluded { path: path.as_bytes().to_vec() },
        };
        let found = &entry.found;
        let xattrs = entry.xattrs.as_ref();
        SeenRecord::Entry(Box::new(EntryRecord {
            path: found.path.as_bytes().to_vec(),
            kind: match &found.kind {
                FoundKind::File { size } => KindRecord::File(*size),
                FoundKind::Directory => KindRecord::Directory,
                FoundKind::Symlink { target } => KindRecord::Symlink(target.clone()),
                FoundKind::Fifo => KindRecord::Fifo,
                FoundKind::CharDevice(device) => KindRecord::CharDevice(device.major, device.minor),
                FoundKind::BlockDevice(device) => KindRecord::BlockDevice(device.major, device.minor),
                FoundKind::Socket => KindRecord::Socket,
            },
            mode: found.mode,
            uid: found.uid,
            gid: found.gid,
            mtime: (found.mtime.seconds, found.mtime.nanoseconds),
            ctime: (found.ctime.seconds, found.ctime.nanoseconds),
            device: found.device,
            inode: found.inode,
            links: found.links,
            xattrs: xattrs.map(|all| all.iter().map(|xattr| (xattr.name.clone(), xattr.value.clone())).collect()),
            link: entry.link.as_ref().map(|link| link.as_bytes().to_vec()),
            is_known: entry.is_known,
            trusted: entry.trusted,
            racy: entry.racy,
        }))
    }

    fn from_record(record: SeenRecord) -> Result<Self> {
        let parse = |path: Vec<u8>| TreePath::parse(path).map_err(|error| Error::internal(error.to_string()));
        let record = match record {
            SeenRecord::Entry(record) => *record,
            SeenRecord::Unreadable { path, below, message } => {
                return Ok(Self::Unreadable { path: parse(path)?, below, message });
            }
            SeenRecord::Excluded { path } => return Ok(Self::Excluded { path: parse(path)? }),
        };
        let time = |(seconds, nanoseconds)| FileTime { seconds, nanoseconds };
        let found = Found {
            path: parse(record.path)?,
            kind: match record.kind {
                KindRecord::File(size) => FoundKind::File { size },
                KindRecord::Directory => FoundKind::Directory,
                KindRecord::Symlink(target) => FoundKind::Symlink { target },
                KindRecord::Fifo => FoundKind::Fifo,
                KindRecord::CharDevice(major, minor) => FoundKind::CharDevice(DeviceNumber { major, minor }),
                KindRecord::BlockDevice(major, minor) => FoundKind::BlockDevice(DeviceNumber { major, minor }),
                KindRecord::Socket => FoundKind::Socket,
            },
            mode: record.mode,
            uid: record.uid,
            gid: record.gid,
            mtime: time(record.mtime),
            ctime: time(record.ctime),
            device: record.device,
            inode: record.inode,
            links: record.links,
        };
        let xattrs = record.xattrs.map(|all| all.into_iter().map(|(name, value)| Xattr { name, value }).collect());
        let link = record.link.map(parse).transpose()?;
        let (is_known, trusted, racy) = (record.is_known, record.trusted, record.racy);
        Ok(Self::Entry(Arc::new(SeenEntry { found, xattrs, link, is_known, trusted, racy })))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::testing::tree::noise;

    fn seen(number: u64) -> Seen {
        let path = TreePath::parse(format!("file-{number}")).expect("a path");
        if number < IN_MEMORY as u64 {
            return Seen::Excluded { path };
        }
        let mut message = String::new();
        for byte in noise(number, 1 << 16) {
            write!(message, "{byte:02x}").expect("writes");
        }
        Seen::Unreadable { path, below: number.is_multiple_of(2), message }
    }

    /// What is stored of the n-th one, where it is not as it was pushed.
    fn differs(number: u64, read: &Result<Seen>) -> Option<String> {
        let stored = |seen: &Seen| postcard::to_stdvec(&seen.record()).expect("encodes");
        match read {
            Ok(read) if stored(read) == stored(&seen(number)) => None,
            Ok(_) => Some(format!("number {number} is another one")),
            Err(error) => Some(format!("number {number}: {error}")),
        }
    }

    #[test]
    fn all_are_read_again_and_again_from_memory_and_from_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        for folder in [None, Some(folder.path())] {
            let mut spool = Spool::new(folder);
            let count = IN_MEMORY as u64 + 40;
            for number in 0..count {
                spool.push(seen(number)).expect("is kept");
            }
            assert_eq!(spool.len(), count);
            let mut spooled = spool.finish().expect("ends");
            let is_on_disk = spooled.others.as_ref().is_some_and(|(file, _)| file.is_rolled());
            assert_eq!(is_on_disk, folder.is_some());
            for _ in 0..2 {
                let read: Vec<_> = spooled.read().expect("begins").collect();
                assert_eq!(read.len() as u64, count);
                assert_eq!((0..).zip(&read).find_map(|(number, read)| differs(number, read)), None);
            }
            let last: Vec<_> = spooled.into_read().expect("begins").collect();
            assert_eq!(last.len() as u64, count);
            assert_eq!((0..).zip(&last).find_map(|(number, read)| differs(number, read)), None);
        }
    }
}
