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
mod tests {
    use std::convert::Infallible;
    use std::fs;

    use super::*;
    use crate::format::pack::BlockRecord;
    use crate::id::SessionId;

    fn pack(number: u32) -> PackName {
        PackName { begin: 7, session: SessionId::from_bytes([1; 16]), number }
    }

    /// Two blocks of two chunks.
    fn table(number: u32) -> TableOfContents {
        let chunk = |n: u32| (ChunkId::of(&[number.to_le_bytes(), n.to_le_bytes()].concat()), 10 + n);
        let blocks = (0..2).map(|block| BlockRecord {
            offset: u64::from(block) * 100,
            length: 100,
            chunks: (0..2).map(|n| chunk(block * 2 + n)).collect(),
        });
        TableOfContents { blocks: blocks.collect(), ..TableOfContents::default() }
    }

    fn open(path: &Path) -> Journal {
        Journal::open(path.to_owned(), &[b"repository", b"main"])
    }

    fn chunks(journal: &Journal) -> Vec<(ChunkId, ChunkPlacement)> {
        let mut found = Vec::new();
        let Ok(()) = journal.each_chunk(|chunk, placement| {
            found.push((chunk, *placement));
            Ok::<(), Infallible>(())
        });
        found
    }

    /// A journal of two packs and two commits, as a process that was killed leaves it.
    fn cut_short(path: &Path) {
        let journal = open(path);
        journal.start(7);
        journal.acknowledged(pack(0), &table(0));
        journal.note_create(8, CommitHash::of(b"8"));
        journal.acknowledged(pack(3), &table(3));
        journal.note_create(9, CommitHash::of(b"9"));
        journal.end(false);
    }

    #[test]
    fn what_was_noted_is_found_again_and_gone_when_the_work_is_done() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal/file");
        assert_eq!(open(&path).left(), None);
        assert!(!path.exists(), "nothing was noted");
        cut_short(&path);
        let journal = open(&path);
        let left = Left { begin: 7, create: Some((9, vec![CommitHash::of(b"9")])) };
        assert_eq!(journal.left(), Some(left));
        let found = chunks(&journal);
        let last = ChunkPlacement { pack: pack(3), frame_offset: 100, frame_bytes: 100, offset: 12, bytes: 13 };
        assert_eq!((found.len(), found.last()), (8, Some(&(table(3).blocks[1].chunks[1].0, last))));
        // Another session goes on in it, and asks for the same number.
        journal.start(7);
        journal.acknowledged(pack(4), &table(4));
        journal.note_create(9, CommitHash::of(b"other"));
        journal.end(false);
        let journal = open(&path);
        assert_eq!(chunks(&journal).len(), 12);
        assert_eq!(journal.left().and_then(|left| left.create).expect("noted").1.len(), 2);
        journal.end(true);
        assert!(!path.exists());
    }

    #[test]
    fn a_pack_of_many_chunks_is_noted_in_records_of_their_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let many = 3 * PACK_RECORD_BYTES / RECORD_BYTES;
        let chunks_of_block = (0..many as u32).map(|n| (ChunkId::of(&n.to_le_bytes()), 1)).collect();
        let block = BlockRecord { offset: 0, length: 100, chunks: chunks_of_block };
        let large = TableOfContents { blocks: vec![block], ..TableOfContents::default() };
        let journal = open(&path);
        journal.start(7);
        journal.acknowledged(pack(0), &large);
        journal.end(false);
        let found = chunks(&open(&path));
        assert_eq!(found.len(), many);
        let is_in_place = |(n, (chunk, placement)): (usize, &(ChunkId, ChunkPlacement))| {
            *chunk == ChunkId::of(&(n as u32).to_le_bytes()) && placement.offset == n as u32
        };
        assert!(found.iter().enumerate().all(is_in_place));
        // What was written before a cut is still of use.
        let bytes = fs::read(&path).expect("reads");
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
        let left = chunks(&open(&path));
        assert!(!left.is_empty() && left.len() < many && found.starts_with(&left), "{}", left.len());
    }

    #[test]
    fn a_commit_of_which_nobody_knows_keeps_the_journal() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let journal = open(&path);
        journal.start(7);
        journal.note_create(8, CommitHash::of(b"8"));
        assert!(journal.is_open());
        journal.end(true);
        assert!(path.exists());
        let journal = open(&path);
        journal.settled();
        journal.end(true);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_damaged_or_of_another_repository_is_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        cut_short(&path);
        let other = Journal::open(path.clone(), &[b"rep", b"ositorymain"]);
        assert_eq!((other.left(), chunks(&other).len()), (None, 0));
        other.end(false);
        cut_short(&path);
        let whole = fs::read(&path).expect("a journal");
        let all = chunks(&open(&path));
        let check = |what: &str| {
            let journal = open(&path);
            let found = chunks(&journal);
            assert!(
                found.len() < all.len()
                    || journal.left().is_some_and(|left| left.create.is_none_or(|create| create.0 == 8)),
                "{what}"
            );
            assert_eq!(found, all[..found.len()], "{what}");
            // Whoever goes on behind it is found again.
            journal.start(7);
            journal.acknowledged(pack(5), &table(5));
            journal.end(false);
            assert_eq!(chunks(&open(&path)).len(), found.len() + 4, "{what}");
        };
        for at in 0..whole.len() {
            fs::write(&path, &whole[..at]).expect("cut");
            check(&format!("cut to {at}"));
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).expect("flipped");
            check(&format!("flipped at {at}"));
        }
    }

    #[test]
    fn one_journal_has_one_begin() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        cut_short(&path);
        let journal = open(&path);
        journal.start(8);
        journal.end(false);
        let journal = open(&path);
        assert_eq!((journal.left(), chunks(&journal).len()), (Some(Left { begin: 8, create: None }), 0));
        // A pack of another begin would not be protected by it.
        journal.acknowledged(pack(0), &table(0));
        assert_eq!(chunks(&journal).len(), 0);
    }

    #[test]
    fn only_one_has_it_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let first = open(&path);
        let second = open(&path);
        first.start(7);
        second.start(7);
        second.acknowledged(pack(9), &table(9));
        first.acknowledged(pack(0), &table(0));
        let third = open(&path);
        assert_eq!(third.left(), None);
        third.start(7);
        second.end(true);
        third.end(true);
        first.end(false);
        let again = open(&path);
        assert_eq!(chunks(&again).iter().map(|(_, placement)| placement.pack.number).max(), Some(0));
    }
}
