//! Inode and ctime of every entry as the last backup of this directory saw them: saves reading files and attributes
//! again, and notices a change that left size and mtime alone. Only a cache: without it more is read.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize, Serializer};
use tempfile::NamedTempFile;

use crate::id::SnapshotId;
use crate::receipt::DirectoryId;
use crate::source::Found;
use crate::tree_path::{MAX_PATH_BYTES, TreePath};

/// Version, snapshot, device and inode of the directory.
const HEADER_BYTES: usize = 4 + 32 + 8 + 8;
/// The length of a record, before it.
const LENGTH_BYTES: usize = 4;
/// What a record has at most besides its path.
const RECORD_BYTES: usize = 64;
/// More than any path can be, with what is noted of it.
const MAX_RECORD_BYTES: usize = 1 << 17;

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    #[serde(serialize_with = "at_once")]
    path: &'a [u8],
    inode: u64,
    ctime: (i64, u32),
}

/// Bytes, which would be written one by one otherwise; the form is the same.
fn at_once<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// What a look into the cache says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// There is no cache for this snapshot.
    Nothing,
    /// Inode and ctime are the same.
    Same,
    /// They differ, or the entry was too fresh to be noted.
    Different,
}

/// Reads the cache in step with a walk.
pub(super) struct KnownReader {
    records: Option<Records>,
    /// Every record so far was of an entry that was looked up.
    is_gapless: bool,
}

/// A record is in `buffer` unless they have ended: a million of them are looked at without a million allocations.
struct Records {
    reader: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    buffer: Vec<u8>,
    has_ended: bool,
}

impl Records {
    fn begin(mut file: File) -> std::io::Result<Self> {
        file.seek(SeekFrom::Start(HEADER_BYTES as u64))?;
        let reader = BufReader::with_capacity(1 << 16, zstd::Decoder::new(file)?);
        let mut records = Self { reader, buffer: Vec::new(), has_ended: false };
        records.advance();
        Ok(records)
    }

    fn advance(&mut self) {
        // A cut or damaged cache ends here: what follows counts as different and is read again.
        self.has_ended |= self.read().is_err();
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut length = [0; 4];
        self.reader.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_RECORD_BYTES {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        self.buffer.resize(length, 0);
        self.reader.read_exact(&mut self.buffer)
    }

    fn current(&self) -> Option<Record<'_>> {
        if self.has_ended { None } else { postcard::from_bytes(&self.buffer).ok() }
    }
}

/// The cache file of a branch and a directory.
pub(super) fn file(folder: &Path, branch: &str, directory: DirectoryId) -> PathBuf {
    let name = blake3::hash(format!("{branch}\0{}\0{}", directory.device, directory.inode).as_bytes());
    folder.join("known").join(&name.to_hex()[..32])
}

impl KnownReader {
    /// Opens the cache if it is there and was made of this directory; with the snapshot that it was made with.
    pub(super) fn open(file: &Path, directory: DirectoryId) -> Option<(SnapshotId, Self)> {
        let mut file = File::open(file).ok()?;
        let mut stored = [0; HEADER_BYTES];
        file.read_exact(&mut stored).ok()?;
        let snapshot = SnapshotId::from_bytes(stored[4..36].try_into().ok()?);
        if stored != header(snapshot, directory) {
            return None;
        }
        let records = Records::begin(file).ok()?;
        Some((snapshot, Self { records: Some(records), is_gapless: true }))
    }

    /// One that knows nothing.
    pub(super) fn empty() -> Self {
        Self { records: None, is_gapless: true }
    }

    /// Looks an entry up; paths must come in tree order.
    pub(super) fn look(&mut self, found: &Found) -> Known {
        let Some(records) = &mut self.records else { return Known::Nothing };
        while let Some(record) = records.current() {
            if record.path == found.path.as_bytes() {
                let ctime = (found.ctime.seconds, found.ctime.nanoseconds);
                let is_same = record.inode == found.inode && record.ctime == ctime;
                records.advance();
                return if is_same { Known::Same } else { Known::Different };
            }
            if TreePath::parse(record.path).is_ok_and(|path| path > found.path) {
                break;
            }
            self.is_gapless = false;
            records.advance();
        }
        Known::Different
    }

    /// Tells whether there is a cache for this snapshot, and every entry in it was looked up.
    pub(super) fn is_used_up(&self) -> bool {
        self.is_gapless && self.records.as_ref().is_some_and(|records| records.current().is_none())
    }
}

fn header(snapshot: SnapshotId, directory: DirectoryId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&1_u32.to_le_bytes());
    header[4..36].copy_from_slice(snapshot.as_bytes());
    header[36..44].copy_from_slice(&directory.device.to_le_bytes());
    header[44..].copy_from_slice(&directory.inode.to_le_bytes());
    header
}

/// Writes the cache; any failure leaves none, which only costs time.
pub(super) struct KnownWriter {
    writer: Option<BufWriter<zstd::Encoder<'static, NamedTempFile>>>,
    file: Option<PathBuf>,
    /// For one record.
    buffer: Vec<u8>,
}

impl KnownWriter {
    /// Begins a new cache file; it takes the place of the old one when it is finished. Without a file it does nothing.
    pub(super) fn create(file: Option<PathBuf>) -> Self {
        let open = |file: &Path| -> std::io::Result<_> {
            let folder = file.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let mut temporary = NamedTempFile::new_in(folder)?;
            temporary.write_all(&[0; HEADER_BYTES])?;
            let mut encoder = zstd::Encoder::new(temporary, 1)?;
            // On a thread of its own: whoever notes has more to do.
            encoder.multithread(1)?;
            Ok(BufWriter::with_capacity(1 << 16, encoder))
        };
        let writer = file.as_deref().and_then(|file| open(file).ok());
        Self { writer, file, buffer: vec![0; LENGTH_BYTES + MAX_PATH_BYTES + RECORD_BYTES] }
    }

    /// Notes an entry.
    pub(super) fn push(&mut self, found: &Found) {
        let Some(writer) = &mut self.writer else { return };
        let record = Record {
            path: found.path.as_bytes(),
            inode: found.inode,
            ctime: (found.ctime.seconds, found.ctime.nanoseconds),
        };
        let buffer = &mut self.buffer;
        let mut write = || -> std::io::Result<()> {
            let bytes = postcard::to_slice(&record, &mut buffer[LENGTH_BYTES..]).map_err(std::io::Error::other)?.len();
            let length = u32::try_from(bytes).map_err(std::io::Error::other)?;
            buffer[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
            writer.write_all(&buffer[..LENGTH_BYTES + bytes])
        };
        if write().is_err() {
            self.writer = None;
        }
    }

    /// Nothing more comes: what is left is compressed and written out while others go on.
    pub(super) fn end(self) -> KnownFile {
        let Self { writer, file, .. } = self;
        let write = || writer?.into_inner().ok()?.finish().ok();
        KnownFile { written: std::thread::Builder::new().spawn(write).ok(), file }
    }
}

/// A cache file with all its entries, which does not say yet what it is about.
pub(super) struct KnownFile {
    written: Option<JoinHandle<Option<NamedTempFile>>>,
    file: Option<PathBuf>,
}

impl KnownFile {
    /// Says which snapshot of which directory it is about, and puts it in the place of the old one.
    pub(super) fn finish(self, snapshot: SnapshotId, directory: DirectoryId) {
        let Self { written, file } = self;
        let Some(file) = file else { return };
        let finish = || -> Option<()> {
            let mut temporary = written?.join().ok()??;
            temporary.seek(SeekFrom::Start(0)).ok()?;
            temporary.write_all(&header(snapshot, directory)).ok()?;
            temporary.persist(&file).ok().map(drop)
        };
        if finish().is_none() {
            drop(fs::remove_file(&file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::FileTime;
    use crate::source::FoundKind;

    fn found(path: &str, inode: u64) -> Found {
        Found {
            path: TreePath::parse(path).expect("a path"),
            kind: FoundKind::File { size: 1 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: FileTime { seconds: 1, nanoseconds: 0 },
            ctime: FileTime { seconds: 2, nanoseconds: 3 },
            device: 1,
            inode,
            links: 1,
        }
    }

    #[test]
    fn a_damaged_cache_knows_less_and_nothing_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("known");
        let (snapshot, directory) = (SnapshotId::from_bytes([7; 32]), DirectoryId { device: 1, inode: 2 });
        let files: Vec<Found> = (0..50).map(|number| found(&format!("{number:02}"), 1000 + number)).collect();
        let mut writer = KnownWriter::create(Some(file.clone()));
        files.iter().for_each(|file| writer.push(file));
        writer.end().finish(snapshot, directory);
        let look = |other: u64| {
            let opened = KnownReader::open(&file, directory).filter(|(of, _)| *of == snapshot);
            let mut reader = opened.map_or_else(KnownReader::empty, |(_, reader)| reader);
            let known = files.iter().map(|file| reader.look(&Found { inode: file.inode + other, ..file.clone() }));
            known.filter(|known| *known == Known::Same).count()
        };
        assert_eq!((look(0), look(10_000)), (50, 0));
        let whole = fs::read(&file).expect("a cache");
        for at in 0..whole.len() {
            fs::write(&file, &whole[..at]).expect("cut");
            assert_eq!(look(10_000), 0, "cut to {at}");
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                fs::write(&file, flipped).expect("flipped");
                assert_eq!(look(10_000), 0, "bit {bit} of {at}");
            }
        }
    }
}
