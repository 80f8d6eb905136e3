//! What a backup notes on this machine while it runs, so that the next one need not upload again what one that was
//! cut short had uploaded: the number at which it began, where the chunks of each acknowledged pack lie, and the hash
//! of each commit before it is created. Only a cache: without it, or with a damaged one, more is uploaded.
//!
//! A pack that is not noted may be on its way still; nobody refers to it, and its name holds a session that never
//! comes again. Everything that one journal holds was made by sessions of one begin, so that whoever takes it up
//! with that begin is fenced by the floor that lets a prune delete those packs, and by no later one.
//!
//! The file belongs to whoever has it locked. A record proves itself and all before it, beginning with the
//! repository and the branch, so what is cut, damaged, put together or another's ends where it stops being true.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dedup::{self, RECORD_BYTES};
use crate::format::pack::TableOfContents;
use crate::format::page::ChunkPlacement;
use crate::id::{ChunkId, CommitHash, PackName};
use crate::pack::Acknowledged;

/// The proof that a record begins with, and the length of what follows it.
const HEADER_BYTES: usize = 32 + 4;

const BEGIN: u8 = b'b';
const PACK: u8 = b'p';
const CREATE: u8 = b'c';

/// A pack of more chunks than fit takes several records: one of tiny files has hundreds of thousands.
const PACK_RECORD_BYTES: usize = 256 << 10;

/// The file of a branch and a source. It may have moved to another disk or machine: what is noted is true anywhere.
pub(super) fn file(folder: &Path, branch: &str, source: &Path) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    hasher.update(branch.as_bytes()).update(b"\0").update(source.as_os_str().as_encoded_bytes());
    folder.join("journal").join(&hasher.finalize().to_hex()[..32])
}

/// A journal, or none: where there is no cache, or another process has it, nothing is noted. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal(Arc<Mutex<Option<Kept>>>);

/// What an earlier run left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// The begin of every session that wrote here.
    pub(super) begin: u64,
    /// The highest number that a commit was to be created with, and the hashes of the commits that were.
    pub(super) create: Option<(u64, Vec<CommitHash>)>,
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// Locked; `None` while there is nothing to note.
    file: Option<File>,
    /// What the first record follows.
    seed: [u8; 32],
    /// The proof of the last record.
    proof: [u8; 32],
    left: Option<Left>,
    /// A commit was noted, and what became of it is not known.
    is_open: bool,
}

impl Journal {
    /// Opens the journal in a file; `identity` tells the repository and the branch from every other.
    pub(super) fn open(path: PathBuf, identity: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"ghostsync journal 1");
        for part in identity {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let seed = *hasher.finalize().as_bytes();
        let mut kept = Kept { path, file: None, seed, proof: seed, left: None, is_open: false };
        match kept.take_up() {
            Ok(()) => Self(Arc::new(Mutex::new(Some(kept)))),
            Err(_) => Self::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an earlier run left, if anything.
    pub(super) fn left(&self) -> Option<Left> {
        self.kept().as_ref()?.left.clone()
    }

    /// Notes that what became of the commit that was noted last is not known: this run is to create one in its place.
    pub(super) fn leave_open(&self) {
        if let Some(kept) = self.kept().as_mut() {
            kept.is_open = true;
        }
    }

    /// Whether a commit was noted of which nobody knows what became.
    pub(super) fn is_open(&self) -> bool {
        self.kept().as_ref().is_some_and(|kept| kept.is_open)
    }

    /// Forgets what an earlier run left: it is of no use.
    pub(super) fn discard(&self) {
        self.write(Kept::discard);
    }

    /// Begins to note, unless an earlier run has with the same begin.
    pub(super) fn start(&self, begin: u64) {
        self.write(|kept| kept.start(begin));
    }

    /// Calls a function for every chunk that an earlier run stored, as far as that can be read.
    ///
    /// # Errors
    /// The function's.
    pub(super) fn each_chunk<E>(
        &self,
        mut function: impl FnMut(ChunkId, &ChunkPlacement) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut kept = self.kept();
        let Some(Kept { file: Some(file), seed, left: Some(left), .. }) = kept.as_mut() else { return Ok(()) };
        let mut result = Ok(());
        if let Ok(records) = Records::of(file, *seed) {
            for record in records {
                let Record::Pack(chunks) = record else { continue };
                let ours = chunks.iter().filter(|(_, placement)| placement.pack.begin == left.begin);
                for (chunk, placement) in ours {
                    result = result.and_then(|()| function(*chunk, placement));
                }
            }
        }
        // Whoever notes something goes on at the end.
        if file.seek(SeekFrom::End(0)).is_err() {
            *kept = None;
        }
        result
    }

    /// Notes that a commit is about to be created, durably.
    pub(super) fn note_create(&self, seq: u64, hash: CommitHash) {
        self.write(|kept| {
            kept.is_open = true;
            let mut record = vec![CREATE];
            record.extend_from_slice(&seq.to_le_bytes());
            record.extend_from_slice(hash.as_bytes());
            kept.append(&record)?;
            kept.file.as_ref().map_or(Ok(()), File::sync_data)
        });
    }

    /// It is known what became of the commit that was noted last.
    pub(super) fn settled(&self) {
        if let Some(kept) = self.kept().as_mut() {
            kept.is_open = false;
        }
    }

    /// Ends the run, and lets go of the file: with nothing left to resume, it is removed.
    pub(super) fn end(&self, is_done: bool) {
        let Some(kept) = self.kept().take() else { return };
        if is_done && !kept.is_open && kept.file.is_some() {
            drop(std::fs::remove_file(&kept.path));
        }
    }

    /// Writes; a journal that cannot be written is none, and what it holds may lack something already.
    fn write(&self, write: impl FnOnce(&mut Kept) -> io::Result<()>) {
        let mut kept = self.kept();
        if let Some(journal) = kept.as_mut()
            && write(journal).is_err()
        {
            if journal.file.is_some() {
                drop(std::fs::remove_file(&journal.path));
            }
            *kept = None;
        }
    }
}

impl Acknowledged for Journal {
    fn acknowledged(&self, pack: PackName, table: &TableOfContents) {
        self.write(|kept| {
            let mut record = vec![PACK];
            for block in &table.blocks {
                let mut offset = 0;
                for (chunk, bytes) in &block.chunks {
                    if record.len() >= PACK_RECORD_BYTES {
                        kept.append(&record)?;
                        record.truncate(1);
                    }
                    let placement = ChunkPlacement {
                        pack,
                        frame_offset: block.offset,
                        frame_bytes: block.length,
                        offset,
                        bytes: *bytes,
                    };
                    record.extend_from_slice(&dedup::encode(*chunk, &placement));
                    offset += bytes;
                }
            }
            kept.append(&record)
        });
    }
}

impl Kept {
    /// Locks and reads the file, if it is there, and cuts off what does not prove itself.
    fn take_up(&mut self) -> io::Result<()> {
        let mut file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        lock(&file)?;
        let mut records = Records::of(&mut file, self.seed)?;
        let mut left: Option<Left> = None;
        for record in &mut records {
            match (record, &mut left) {
                (Record::Begin(begin), None) => left = Some(Left { begin, create: None }),
                (Record::Create(seq, hash), Some(left)) => match &mut left.create {
                    Some((highest, _)) if *highest > seq => {}
                    Some((highest, hashes)) if *highest == seq => hashes.push(hash),
                    create => *create = Some((seq, vec![hash])),
                },
                _ => {}
            }
        }
        (self.proof, self.left) = (records.proof, left);
        let end = records.end;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        self.file = Some(file);
        Ok(())
    }

    fn discard(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
        }
        (self.proof, self.left, self.is_open) = (self.seed, None, false);
        Ok(())
    }

    fn start(&mut self, begin: u64) -> io::Result<()> {
        if self.left.as_ref().is_some_and(|left| left.begin == begin) {
            return Ok(());
        }
        self.discard()?;
        if self.file.is_none() {
            std::fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
            // Whoever is second does not get it: what lies there by then is another's.
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&self.path)?;
            lock(&file)?;
            self.file = Some(file);
        }
        let mut record = vec![BEGIN];
        record.extend_from_slice(&begin.to_le_bytes());
        self.append(&record)
    }

    fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let proof = prove(&self.proof, payload);
        let mut record = Vec::with_capacity(HEADER_BYTES + payload.len());
        record.extend_from_slice(&proof);
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(payload);
        file.write_all(&record)?;
        self.proof = proof;
        Ok(())
    }
}

/// Locks a file for as long as it is open; fails if another process has it, or has removed it.
fn lock(file: &File) -> io::Result<()> {
    file.try_lock()?;
    if file.metadata()?.nlink() == 0 { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
}

fn prove(before: &[u8; 32], payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(before).update(payload).finalize().as_bytes()
}

enum Record {
    Begin(u64),
    Pack(Vec<(ChunkId, ChunkPlacement)>),
    Create(u64, CommitHash),
}

impl Record {
    fn parse(payload: &[u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        let (number, end) = (rest.first_chunk::<8>(), rest.get(8..));
        Some(match *kind {
            BEGIN if rest.len() == 8 => Self::Begin(u64::from_le_bytes(*number?)),
            CREATE => Self::Create(u64::from_le_bytes(*number?), CommitHash::from_bytes(end?.try_into().ok()?)),
            PACK => {
                let (records, []) = rest.as_chunks::<RECORD_BYTES>() else { return None };
                Self::Pack(records.iter().map(dedup::decode).collect())
            }
            _ => return None,
        })
    }
}

/// The records of a journal, as far as they prove themselves; memory for one at a time.
struct Records<'a> {
    reader: BufReader<&'a mut File>,
    proof: [u8; 32],
    /// Where the last of them ends.
    end: u64,
}

impl<'a> Records<'a> {
    fn of(file: &'a mut File, seed: [u8; 32]) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { reader: BufReader::new(file), proof: seed, end: 0 })
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let (mut proof, mut length) = ([0; 32], [0; 4]);
        self.reader.read_exact(&mut proof).ok()?;
        self.reader.read_exact(&mut length).ok()?;
        let length = u32::from_le_bytes(length);
        // Grows with what is there, whatever the length says.
        let mut payload = Vec::new();
        let read = (&mut self.reader).take(length.into()).read_to_end(&mut payload).ok()?;
        if read as u64 != u64::from(length) || proof != prove(&self.proof, &payload) {
            return None;
        }
        let record = Record::parse(&payload)?;
        self.proof = proof;
        self.end += HEADER_BYTES as u64 + u64::from(length);
        Some(record)
    }
}

#[cfg(test)]
mod tests;
