//! The receipt: the file that proves that a restore was complete (the tripwire).
//!
//! It is one line of canonical JSON whose `checksum` is the BLAKE3 of the rest, so a receipt that was cut short
//! or edited is not taken for one. It names the repository, the branch, the snapshot and the very directory
//! (device, inode and birth time) that it was written for. Absent, unreadable and mismatched are three different answers,
//! and none of them is ever taken for another.
//!
//! Writing is durable and all or nothing: a temporary file, its fsync, a rename, the fsync of the folder. So is
//! removing: the file is gone for good when the call returns.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::id::{ContentHash, PageId, RepositoryId, SessionId, SnapshotId};
use crate::temporary;

/// The most bytes that a receipt may have.
const MAX_RECEIPT_BYTES: u64 = 64 * 1024;

const CHECKSUM: &str = "checksum";

/// The content of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The repository that was restored from.
    pub repository: RepositoryId,
    /// The branch.
    pub branch: String,
    /// The branch's epoch then.
    pub epoch: u64,
    /// The snapshot that the directory holds; `None` in a genesis receipt.
    pub snapshot: Option<SnapshotId>,
    /// Its tree.
    pub tree: Option<PageId>,
    /// Its entries.
    pub entries: u64,
    /// Its bytes.
    pub bytes: u64,
    /// The very directory that it was written for.
    pub directory: DirectoryMark,
    /// When the restore, or the last backup, was done.
    pub finished: Timestamp,
    /// What this directory held when a guard last refused it, if that is kept in quarantine: when a person promotes it,
    /// the directory goes on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<SnapshotId>,
    /// The last claim of the branch when that was refused: what is promoted under a later one is for whoever made that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined_under: Option<SessionId>,
    /// The session of a backup that is about to commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<SessionId>,
    /// Sessions of backups before that one, of which it is not known either whether they made their commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsettled: Vec<SessionId>,
}

/// Tells one directory from every other on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DirectoryId {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}

/// Tells the directory of a receipt from every other, also from one that was made in its place: file systems give a
/// number that became free to the next directory that is made (ext4 does so at once).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryMark {
    /// Which directory of the machine.
    #[serde(flatten)]
    pub id: DirectoryId,
    /// When it was made, where the file system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<Timestamp>,
}

/// Why there is no receipt to rely on.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// There is none: nothing was restored here, or a restore was cut.
    #[error("there is no receipt")]
    Absent,
    /// The file could not be read: whether there is a receipt is not known.
    #[error("the receipt cannot be read")]
    Unreadable(#[source] io::Error),
    /// The file is not a whole receipt.
    #[error("the receipt is damaged: {0}")]
    Corrupt(String),
}

/// What a receipt was written for that is not what it is shown for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another repository.
    #[error("the receipt belongs to repository {receipt}, this is repository {expected}")]
    Repository {
        /// What the receipt says.
        receipt: RepositoryId,
        /// What it should say.
        expected: RepositoryId,
    },
    /// Another branch.
    #[error("the receipt belongs to branch {receipt}, not to {expected}")]
    Branch {
        /// What the receipt says.
        receipt: String,
        /// What it should say.
        expected: String,
    },
    /// Another directory: it was moved to another disk, made anew, or the receipt was copied.
    #[error("the receipt was written for another directory ({receipt}; this is {expected})")]
    Directory {
        /// What the receipt says.
        receipt: DirectoryMark,
        /// What it should say.
        expected: DirectoryMark,
    },
}

impl DirectoryMark {
    /// Looks at a directory; a link to one is followed.
    ///
    /// # Errors
    /// The system's, also if it is not a directory.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self::from_metadata(&metadata))
    }

    /// Looks at an open directory.
    pub(crate) fn of_handle(directory: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self::from_metadata(&File::from(directory.try_clone_to_owned()?).metadata()?))
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        let id = DirectoryId { device: metadata.dev(), inode: metadata.ino() };
        Self { id, born: metadata.created().ok().and_then(|born| born.try_into().ok()) }
    }

    /// Tells whether it is the very same directory, as far as the file system can tell.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.born.zip(other.born).is_none_or(|(one, other)| one == other)
    }
}

impl fmt::Display for DirectoryMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {}, inode {}", self.id.device, self.id.inode)?;
        self.born.map_or(Ok(()), |born| write!(f, ", made {born}"))
    }
}

impl Receipt {
    /// Tells whether a commit of this session is one that this very directory asked for, and did not hear of.
    pub(crate) fn awaits(&self, session: SessionId) -> bool {
        self.pending == Some(session) || self.unsettled.contains(&session)
    }

    /// Encodes it as the bytes of the file.
    ///
    /// # Errors
    /// Never in practice: every value has a JSON form.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        // Sorted, so that equal receipts are equal bytes, and the checksum does not depend on the order of fields.
        let mut value = serde_json::to_value(self)?;
        value.sort_all_objects();
        let checksum = checksum(&value)?;
        if let Value::Object(fields) = &mut value {
            fields.insert(CHECKSUM.into(), checksum.into());
        }
        let mut bytes = serde_json::to_vec(&value)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Decodes the bytes of the file. Fields of later versions are covered by the checksum and ignored.
    ///
    /// # Errors
    /// [`ReceiptError::Corrupt`] with what is wrong.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Self, ReceiptError> {
        let corrupt = |error: serde_json::Error| ReceiptError::Corrupt(error.to_string());
        let mut value: Value = serde_json::from_slice(bytes).map_err(corrupt)?;
        value.sort_all_objects();
        let claimed = value.as_object_mut().and_then(|fields| fields.remove(CHECKSUM));
        let Some(Value::String(claimed)) = claimed else {
            return Err(ReceiptError::Corrupt("it has no checksum".into()));
        };
        if checksum(&value).map_err(corrupt)? != claimed {
            return Err(ReceiptError::Corrupt("it does not match its checksum".into()));
        }
        serde_json::from_value(value).map_err(corrupt)
    }

    /// Reads the receipt at a path.
    ///
    /// # Errors
    /// [`ReceiptError`]: absent, unreadable and damaged are told apart.
    pub fn load(path: &Path) -> std::result::Result<Self, ReceiptError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ReceiptError::Absent,
            _ => ReceiptError::Unreadable(error),
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_RECEIPT_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::Corrupt(format!("it is over {MAX_RECEIPT_BYTES} bytes")));
        }
        Self::decode(&bytes)
    }

    /// Tells whether it was written for this repository, branch and directory.
    ///
    /// # Errors
    /// [`Mismatch`] names the first that differs.
    pub fn check(
        &self,
        repository: RepositoryId,
        branch: &str,
        directory: DirectoryMark,
    ) -> std::result::Result<(), Mismatch> {
        if self.repository != repository {
            return Err(Mismatch::Repository { receipt: self.repository, expected: repository });
        }
        if self.branch != branch {
            return Err(Mismatch::Branch { receipt: self.branch.clone(), expected: branch.into() });
        }
        if !self.directory.is(&directory) {
            return Err(Mismatch::Directory { receipt: self.directory, expected: directory });
        }
        Ok(())
    }

    /// Writes it, durably: whoever reads the path finds the old receipt or this one, whole.
    ///
    /// The folder keeps its time: it may be the directory that is backed up, whose content a receipt never is.
    ///
    /// # Errors
    /// `LocalIo`; what was there before is then still there, or this one is but may not survive a power loss.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = self.encode().map_err(|error| Error::internal(format!("cannot encode a receipt: {error}")))?;
        let failed = |error| Error::local("write the receipt", path.display(), error);
        let temporary = folder_of(path).join(temporary::name());
        let modified = std::fs::metadata(folder_of(path)).and_then(|folder| folder.modified());
        let written = write_new(&temporary, &bytes).and_then(|()| std::fs::rename(&temporary, path));
        if let Err(error) = written {
            // What is left of a failed attempt is swept by its name later on, if it cannot be removed now.
            let _ = std::fs::remove_file(&temporary);
            return Err(failed(error));
        }
        let folder = File::open(folder_of(path)).map_err(failed)?;
        if let Ok(modified) = modified {
            // Only the owner may; and a folder that looks changed costs a snapshot, and no safety.
            let _ = folder.set_modified(modified);
        }
        folder.sync_all().map_err(failed)
    }
}

/// Removes a receipt, durably; one that is not there is as good as removed.
///
/// # Errors
/// `LocalIo`; the receipt may still be there.
pub fn remove(path: &Path) -> Result<()> {
    let failed = |error| Error::local("remove the receipt", path.display(), error);
    match std::fs::remove_file(path) {
        Ok(()) => {}
        // An earlier removal may not have reached the disk yet, so the folder is synced all the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    match sync_folder(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

fn checksum(value: &Value) -> serde_json::Result<String> {
    Ok(ContentHash::of(&serde_json::to_vec(value)?).to_string())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(device: u64, inode: u64, born: Option<&str>) -> DirectoryMark {
        DirectoryMark { id: DirectoryId { device, inode }, born: born.map(|born| born.parse().expect("a time")) }
    }

    fn receipt() -> Receipt {
        Receipt {
            repository: RepositoryId::from_bytes([1; 16]),
            branch: "main".into(),
            epoch: 3,
            snapshot: Some(SnapshotId::from_bytes([2; 32])),
            tree: Some(PageId::from_bytes([3; 32])),
            entries: 12,
            bytes: 3456,
            directory: mark(42, 7, None),
            finished: "2025-06-01T10:00:00Z".parse().expect("a time"),
            quarantined: None,
            quarantined_under: None,
            pending: None,
            unsettled: Vec::new(),
        }
    }

    fn genesis() -> Receipt {
        Receipt { snapshot: None, tree: None, entries: 0, bytes: 0, ..receipt() }
    }

    fn pending() -> Receipt {
        let session = |byte| SessionId::from_bytes([byte; 16]);
        Receipt { pending: Some(session(4)), unsettled: vec![session(3)], ..receipt() }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("receipt.json");
        for receipt in [receipt(), genesis(), pending()] {
            receipt.write(&path).expect("writes");
            assert_eq!(Receipt::load(&path).expect("loads"), receipt);
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "no temporary file is left");
    }

    #[test]
    fn the_checksum_is_that_of_the_canonical_json_of_the_rest() {
        let bytes = receipt().encode().expect("encodes");
        let mut fields: serde_json::Map<String, Value> = serde_json::from_slice(&bytes).expect("json");
        let checksum = fields.remove("checksum").expect("a checksum");
        let rest = serde_json::to_vec(&fields).expect("json");
        assert_eq!(checksum, blake3::hash(&rest).to_hex().as_str());
        assert!(!fields.contains_key("pending") && !fields.contains_key("unsettled"));
        assert_eq!(fields["directory"], serde_json::json!({"device": 42, "inode": 7}));
    }

    #[test]
    fn every_change_of_a_receipt_is_seen() {
        let bytes = receipt().encode().expect("encodes");
        let line = bytes.strip_suffix(b"\n").expect("a line end");
        for end in 0..line.len() {
            assert!(Receipt::decode(&line[..end]).is_err(), "cut after {end} bytes");
        }
        for position in 0..line.len() {
            let mut changed = line.to_vec();
            changed[position] ^= 1;
            // White space between tokens would be no change of the content, but there is none.
            assert!(Receipt::decode(&changed).is_err(), "byte {position}");
        }
        for text in ["", "{}", "[]", "null", r#"{"checksum":1}"#, "\0\0\0\0"] {
            assert!(matches!(Receipt::decode(text.as_bytes()), Err(ReceiptError::Corrupt(_))), "{text}");
        }
    }

    #[test]
    fn absent_unreadable_and_damaged_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        assert!(matches!(Receipt::load(&at("nothing")), Err(ReceiptError::Absent)));
        assert!(matches!(Receipt::load(&at("no/folder")), Err(ReceiptError::Absent)));
        assert!(matches!(Receipt::load(folder.path()), Err(ReceiptError::Unreadable(_))));
        std::fs::write(at("empty"), b"").expect("writes");
        assert!(matches!(Receipt::load(&at("empty")), Err(ReceiptError::Corrupt(_))));
        assert!(matches!(Receipt::load(&at("empty/below")), Err(ReceiptError::Unreadable(_))));
        std::fs::write(at("large"), vec![b' '; 70_000]).expect("writes");
        assert!(matches!(Receipt::load(&at("large")), Err(ReceiptError::Corrupt(_))));
    }

    #[test]
    fn a_receipt_holds_only_where_it_was_written_for() {
        let receipt = receipt();
        let here = (receipt.repository, "main", receipt.directory);
        assert_eq!(receipt.check(here.0, here.1, here.2), Ok(()));
        let other = RepositoryId::from_bytes([9; 16]);
        assert!(matches!(receipt.check(other, here.1, here.2), Err(Mismatch::Repository { .. })));
        assert!(matches!(receipt.check(here.0, "next", here.2), Err(Mismatch::Branch { .. })));
        for directory in [mark(42, 8, None), mark(41, 7, None)] {
            assert!(matches!(receipt.check(here.0, here.1, directory), Err(Mismatch::Directory { .. })));
        }
    }

    #[test]
    fn a_directory_made_anew_under_the_same_number_is_another() {
        let (then, now) = (Some("2026-01-02T03:04:05.000000006Z"), Some("2026-01-02T03:04:05.000000007Z"));
        let table = [(then, then, true), (then, now, false), (None, now, true), (then, None, true)];
        for (written, found, is) in table {
            let receipt = Receipt { directory: mark(42, 7, written), ..receipt() };
            let receipt = Receipt::decode(&receipt.encode().expect("encodes")).expect("decodes");
            let checked = receipt.check(receipt.repository, "main", mark(42, 7, found));
            assert_eq!(checked.is_ok(), is, "{written:?} {found:?}: {checked:?}");
        }
    }

    #[test]
    fn writing_leaves_no_trace_in_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000, 123_456_789);
        File::open(folder.path()).and_then(|folder| folder.set_modified(long_ago)).expect("sets the time");
        receipt().write(&folder.path().join("receipt.json")).expect("writes");
        let modified = std::fs::metadata(folder.path()).and_then(|folder| folder.modified()).expect("a time");
        assert_eq!(modified, long_ago);
    }

    #[test]
    fn removing_is_repeatable() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("receipt.json");
        receipt().write(&path).expect("writes");
        remove(&path).expect("removes");
        remove(&path).expect("is gone already");
        remove(&folder.path().join("no/such/folder")).expect("is gone already");
        assert!(matches!(Receipt::load(&path), Err(ReceiptError::Absent)));
    }

    #[test]
    fn a_failed_write_keeps_the_old_receipt() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("taken");
        std::fs::create_dir_all(path.join("below")).expect("a folder");
        let error = receipt().write(&path).expect_err("a folder cannot be replaced");
        assert_eq!(error.kind(), crate::ErrorKind::LocalIo);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "no temporary file is left");
        assert!(path.join("below").exists());
    }
}
