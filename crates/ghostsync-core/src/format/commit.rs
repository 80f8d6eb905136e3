//! A commit: the small numbered object that makes a change visible, and holds the whole state.

mod names;
mod stored;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::FormatError;
use super::page::PageRef;
use crate::id::{CommitHash, FrameHash, PackName, PageId, SessionId, SnapshotId};

pub use names::{check_branch_name, check_owner_name, check_written_branch_name};
pub use stored::decode_log_entry;
use stored::encode_log_entry;
pub(crate) use stored::{Link, decode_link};

/// The most bytes that a commit may have before compression.
pub const MAX_COMMIT_BYTES: u64 = 256 << 20;

/// The highest number of a commit: nobody counts so far, and nothing that is added to it overflows.
pub const MAX_SEQ: u64 = 1 << 53;

/// What `log/<seq>` holds: a commit, or the stub that is left of an emptied one.
#[derive(Debug, Clone, PartialEq)]
pub enum LogEntry {
    /// A whole commit.
    Commit(Box<Commit>),
    /// What is left of an old commit.
    Emptied(EmptiedCommit),
}

/// The whole state of a repository after one change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The number of this commit, from 1.
    pub seq: u64,
    /// The hash of the stored bytes of the commit before it; of `config.json` for the first.
    pub prev: CommitHash,
    /// The session that made it.
    pub session: SessionId,
    /// Who made it.
    pub writer: Writer,
    /// When; information only.
    pub time: Timestamp,
    /// What it did, for the audit trail.
    pub op: Value,
    /// Every branch.
    pub branches: BTreeMap<String, Branch>,
    /// Every retained snapshot.
    pub snapshots: Vec<Snapshot>,
    /// No session that began below this number may commit.
    pub session_floor: u64,
    /// Packs that writers should move out of.
    pub draining: Vec<PackName>,
    /// In commit mode `detect`: the number of the head when the session began; not stored otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<u64>,
    /// In commit mode `detect`: the commits beside this one's ancestors that were taken over, or found to be void, here
    /// or before. Those that the session floor makes void anyway are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<TipName>,
    /// Fields of later versions, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Names a commit of a log in commit mode `detect`, where several may have one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TipName {
    /// Its number.
    pub seq: u64,
    /// The session that made it.
    pub session: SessionId,
}

/// Who made a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The machine or pod, for people.
    pub name: String,
    /// The owner on whose behalf a branch is held; null for a plain writer.
    pub owner: Option<String>,
    /// Program and version.
    pub version: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A named line of snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Its newest snapshot; null while it has none.
    pub head: Option<SnapshotId>,
    /// The number of the commit that last moved it in another way than by a backup.
    pub epoch: u64,
    /// The writer that it belongs to now.
    pub holder: Option<Holder>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The writer that a branch belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its name.
    pub owner: String,
    /// The session that claimed.
    pub session: SessionId,
    /// Whether it gave the branch back.
    pub released: bool,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One committed state of a directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Derived from what it is, not from where that lies: see [`Snapshot::derive_id`].
    pub id: SnapshotId,
    /// The session that made it.
    pub session: SessionId,
    /// The branch that it is on.
    pub branch: String,
    /// The branch that a fork, a quarantined snapshot or a step was meant for.
    pub onto: Option<String>,
    /// The snapshot that it was compared with; of a step, the step before.
    pub parent: Option<SnapshotId>,
    /// The other snapshots whose packs it may refer to, which were retained when it was committed as `parent` was; not
    /// stored when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reuses: Vec<SnapshotId>,
    /// The snapshot whose tree it has, for one that a promotion made; not stored otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<SnapshotId>,
    /// The snapshot that was rebuilt as this one, for one that a repair made; not stored otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<SnapshotId>,
    /// The id that it had on the branch that it was meant for, for one that lost a race there after it was made: in
    /// commit mode `detect` alone. It is found by that id too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<SnapshotId>,
    /// When its backup began; of a step, when it was made. Information only.
    pub time: Timestamp,
    /// The directory it came from, for people: lossy text.
    pub source: String,
    /// The exclude rules in force, so that a change of them is seen.
    pub excludes: Vec<String>,
    /// Its tree; the only way to its entries.
    pub tree: TreeRef,
    /// Entries, without the root and sockets.
    pub entries: u64,
    /// Bytes of all files' contents, holes included, every hard link counted.
    pub bytes: u64,
    /// What differs from the parent.
    pub changes: Changes,
    /// Whether it holds every entry, and each could be read.
    pub complete: bool,
    /// Marks set by people.
    pub tags: BTreeMap<String, String>,
    /// Why it must not be forgotten.
    pub hold: Option<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a snapshot changed against its parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Entries that the parent lacks, directories included.
    pub added: u64,
    /// Files whose content differs.
    pub changed: u64,
    /// Files, links and special files that are gone, changed kind or became empty.
    pub removed: u64,
    /// Files whose content is found under a new path.
    pub moved: u64,
}

/// Where a tree's root page lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeRef {
    /// The id of the root page: equal trees have equal ids, in any repository.
    pub page: PageId,
    /// Its level; 0 if the tree is one page.
    pub level: u8,
    /// The pack that holds it.
    pub pack: PackName,
    /// Where its frame begins in the pack, in bytes.
    pub offset: u64,
    /// The frame's length in bytes.
    pub length: u32,
    /// The hash of the frame.
    pub frame: FrameHash,
    /// The length of that pack in bytes, so that a small one is read in a single get.
    pub pack_length: u64,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl TreeRef {
    /// Refers to a root page, in a pack of so many bytes.
    pub(crate) fn to_root(root: &PageRef, pack_length: u64) -> Self {
        Self {
            page: root.page,
            level: root.level,
            pack: root.placement.pack,
            offset: root.placement.offset,
            length: root.placement.bytes,
            frame: root.placement.frame,
            pack_length,
            extra: Map::new(),
        }
    }
}

/// What is left of a commit that was emptied: its number and hash stay taken for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmptiedCommit {
    /// Its number.
    pub seq: u64,
    /// The hash of the commit before it.
    pub prev: CommitHash,
    /// The session that had made it.
    pub session: SessionId,
    /// The hash of the bytes that were here.
    pub hash: CommitHash,
    /// Always true.
    pub emptied: bool,
}

impl Commit {
    /// The empty state that the first commit is built on; it has no object.
    #[must_use]
    pub fn empty(config: CommitHash) -> Self {
        Self {
            seq: 0,
            prev: config,
            session: SessionId::from_bytes([0; 16]),
            writer: Writer { name: String::new(), owner: None, version: String::new(), extra: Map::new() },
            time: Timestamp::UNIX_EPOCH,
            op: Value::Null,
            branches: BTreeMap::new(),
            snapshots: Vec::new(),
            session_floor: 0,
            draining: Vec::new(),
            begin: None,
            merged: Vec::new(),
            extra: Map::new(),
        }
    }

    /// Encodes it: canonical JSON in one zstd frame.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] if the state has outgrown a commit.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        encode_log_entry(self)
    }

    /// Finds a retained snapshot, by its id or by the one that it had before it was moved to a fork.
    #[must_use]
    pub fn snapshot(&self, id: SnapshotId) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| snapshot.id == id || snapshot.was == Some(id))
    }

    /// Tells whether a snapshot is retained, and its pages lie where they lay: only then is what they refer to sure to
    /// be there.
    pub(crate) fn retains(&self, snapshot: &Snapshot) -> bool {
        self.snapshot(snapshot.id).is_some_and(|now| now.tree == snapshot.tree)
    }

    /// The newest snapshot of a branch.
    #[must_use]
    pub fn head(&self, branch: &str) -> Option<&Snapshot> {
        self.snapshot(self.branches.get(branch)?.head?)
    }
}

impl EmptiedCommit {
    /// Encodes it like a commit.
    ///
    /// # Errors
    /// Never in practice.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        encode_log_entry(self)
    }
}

impl Snapshot {
    /// Derives the id from the record without `id`, `tags` and `hold`, and of its tree the root page and its level
    /// alone: marks are set later, and a prune may store pages again elsewhere.
    ///
    /// # Errors
    /// Never in practice: every value has a JSON form.
    pub fn derive_id(&self) -> Result<SnapshotId, FormatError> {
        let json = |source| FormatError::Json { what: "snapshot", source };
        let mut record = serde_json::to_value(self).map_err(json)?;
        if let Value::Object(fields) = &mut record {
            fields.retain(|name, _| !matches!(name.as_str(), "id" | "tags" | "hold"));
            if let Some(Value::Object(tree)) = fields.get_mut("tree") {
                tree.retain(|name, _| matches!(name.as_str(), "page" | "level"));
            }
        }
        Ok(SnapshotId::of(&super::canonical_json(&record).map_err(json)?))
    }
}
