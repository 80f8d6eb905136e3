//! The receipt: the file that proves that a restore was complete (the tripwire).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{PageId, RepositoryId, SessionId, SnapshotId};

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
    pub directory: DirectoryId,
    /// When the restore, or the last backup, was done.
    pub finished: Timestamp,
    /// The session of a backup that is about to commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<SessionId>,
}

/// Tells one directory from every other on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryId {
    /// The device.
    pub device: u64,
    /// The inode.
    pub inode: u64,
}
