//! A commit: the small numbered object that makes a change visible, and holds the whole state.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::pack::MAX_PACK_BYTES;
use super::page::{MAX_LEVEL, MAX_PAGE_FRAME_BYTES, PageRef};
use super::{FormatError, frame};
use crate::id::{CommitHash, FrameHash, PackName, PageId, SessionId, SnapshotId};

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

fn encode_log_entry<T: Serialize>(entry: &T) -> Result<Vec<u8>, FormatError> {
    let what = "commit";
    let json = super::canonical_json(entry).map_err(|source| FormatError::Json { what, source })?;
    if json.len() as u64 > MAX_COMMIT_BYTES {
        return Err(FormatError::TooLarge { what, limit: MAX_COMMIT_BYTES });
    }
    frame::compress(what, &json)
}

/// Decodes an object under `log/`.
///
/// # Errors
/// What is wrong with the bytes; among the rules: branches name retained snapshots, snapshot ids are
/// derived from their records and unique, and branch names are valid.
pub fn decode_log_entry(stored: &[u8]) -> Result<LogEntry, FormatError> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(default)]
        emptied: bool,
    }
    let what = "commit";
    let json = frame::decompress(what, stored, MAX_COMMIT_BYTES)?;
    let wrong = |source| FormatError::Json { what, source };
    let kind: Kind = serde_json::from_slice(&json).map_err(wrong)?;
    if kind.emptied {
        return Ok(LogEntry::Emptied(serde_json::from_slice(&json).map_err(wrong)?));
    }
    let commit: Commit = serde_json::from_slice(&json).map_err(wrong)?;
    check(&commit)?;
    Ok(LogEntry::Commit(Box::new(commit)))
}

/// What the chain of commits needs of one: its number, its hash and that of the commit before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) seq: u64,
    pub(crate) hash: CommitHash,
    pub(crate) prev: CommitHash,
}

/// Reads an object under `log/` as a link of the chain: also one of which nothing else could be read any more.
///
/// # Errors
/// What is wrong with the bytes.
pub(crate) fn decode_link(stored: &[u8]) -> Result<Link, FormatError> {
    #[derive(Deserialize)]
    struct Fields {
        seq: u64,
        prev: CommitHash,
        #[serde(default)]
        emptied: bool,
        hash: Option<CommitHash>,
    }
    let what = "commit";
    let json = frame::decompress(what, stored, MAX_COMMIT_BYTES)?;
    let fields: Fields = serde_json::from_slice(&json).map_err(|source| FormatError::Json { what, source })?;
    let hash = match (fields.emptied, fields.hash) {
        (true, Some(hash)) => hash,
        (true, None) => return Err(FormatError::rule(what, "an emptied one lacks the hash of what it was")),
        (false, _) => CommitHash::of(stored),
    };
    Ok(Link { seq: fields.seq, hash, prev: fields.prev })
}

fn check(commit: &Commit) -> Result<(), FormatError> {
    let broken = |rule: String| Err(FormatError::rule("commit", rule));
    if commit.seq > MAX_SEQ {
        return broken(format!("its number is above {MAX_SEQ}"));
    }
    let mut ids = std::collections::HashSet::new();
    for snapshot in &commit.snapshots {
        if snapshot.derive_id()? != snapshot.id {
            return broken(format!("snapshot {} does not match its record", snapshot.id));
        }
        if !ids.insert(snapshot.id) {
            return broken(format!("snapshot {} is there twice", snapshot.id));
        }
        let tree = &snapshot.tree;
        if tree.level > MAX_LEVEL
            || u64::from(tree.length) > MAX_PAGE_FRAME_BYTES
            || tree.offset.saturating_add(u64::from(tree.length)) > MAX_PACK_BYTES
            || tree.pack_length > MAX_PACK_BYTES
        {
            return broken(format!("the tree of snapshot {} is out of range", snapshot.id));
        }
    }
    for (name, branch) in &commit.branches {
        check_branch_name(name)?;
        if branch.head.is_some_and(|head| !ids.contains(&head)) {
            return broken(format!("the head of branch {name} is not a retained snapshot"));
        }
        if branch.epoch > commit.seq {
            return broken(format!("the epoch of branch {name} is above the number of its commit"));
        }
    }
    if commit.begin.is_some_and(|begin| begin >= commit.seq) || commit.merged.iter().any(|name| name.seq > commit.seq) {
        return broken("it began, or merged what was made, after itself".into());
    }
    if commit.session_floor > commit.seq {
        return broken("the session floor is above the number of its commit".into());
    }
    Ok(())
}

/// The most bytes of a branch's name.
const MAX_BRANCH_BYTES: usize = 200;
/// The most bytes of the name of a branch that people write to: `quarantine/…/<session>` and
/// `fork/…/<owner>-<session>` must fit into [`MAX_BRANCH_BYTES`] too.
const MAX_WRITTEN_BRANCH_BYTES: usize = 96;
/// The most bytes of an owner's name.
const MAX_OWNER_BYTES: usize = 63;

fn is_part(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
        && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// Checks the name of a branch: parts of `[a-z0-9._-]` joined by slashes, 200 bytes in all.
///
/// # Errors
/// [`FormatError::Rule`] if it is not one.
pub fn check_branch_name(name: &str) -> Result<(), FormatError> {
    if name.len() <= MAX_BRANCH_BYTES && name.split('/').all(is_part) {
        return Ok(());
    }
    let rule = "is not made of parts of a-z, 0-9, '.', '_', '-' joined by '/'";
    Err(FormatError::rule("branch name", format!("{name:?} {rule}, {MAX_BRANCH_BYTES} bytes in all")))
}

/// Checks the name of a branch that somebody wants to write to: 96 bytes at most, and not one that is made for him.
///
/// # Errors
/// [`FormatError::Rule`] if it is not one.
pub fn check_written_branch_name(name: &str) -> Result<(), FormatError> {
    check_branch_name(name)?;
    let rule = |rule: String| Err(FormatError::rule("branch name", rule));
    if name.len() > MAX_WRITTEN_BRANCH_BYTES {
        return rule(format!("{name:?} has {} bytes, at most {MAX_WRITTEN_BRANCH_BYTES} are allowed", name.len()));
    }
    match name.split('/').next() {
        Some(reserved @ ("quarantine" | "fork" | "wip")) => {
            rule(format!("branches under {reserved}/ are made by ghostsync itself"))
        }
        _ => Ok(()),
    }
}

/// Checks the name of an owner: 1 to 63 of `[a-z0-9._-]`.
///
/// # Errors
/// [`FormatError::Rule`] if it is not one.
pub fn check_owner_name(name: &str) -> Result<(), FormatError> {
    if name.len() <= MAX_OWNER_BYTES && is_part(name) {
        return Ok(());
    }
    let rule = format!("{name:?} is not made of 1 to {MAX_OWNER_BYTES} of a-z, 0-9, '.', '_', '-'");
    Err(FormatError::rule("owner name", rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_kept() {
        let mut commit = Commit::empty(CommitHash::of(b"config"));
        commit.seq = 1;
        commit.extra.insert("later".into(), Value::from(5));
        let stored = commit.encode().expect("encodes");
        assert_eq!(decode_log_entry(&stored).expect("decodes"), LogEntry::Commit(Box::new(commit)));
    }

    #[test]
    fn a_stub_is_told_from_a_commit() {
        let stub = EmptiedCommit {
            seq: 3,
            prev: CommitHash::of(b"2"),
            session: SessionId::from_bytes([1; 16]),
            hash: CommitHash::of(b"3"),
            emptied: true,
        };
        let stored = stub.encode().expect("encodes");
        assert_eq!(decode_log_entry(&stored).expect("decodes"), LogEntry::Emptied(stub));
    }

    #[test]
    fn branch_names() {
        for name in ["main", "fork/main/pod-1", "a.b_c/1"] {
            assert!(check_branch_name(name).is_ok(), "{name}");
        }
        for name in ["", "/", "a/", "A", "a b", "..", "a/../b", "ä"] {
            assert!(check_branch_name(name).is_err(), "{name}");
        }
        for name in ["fork/main/pod-1", "fork", "wip/x", "quarantine/main", &"a".repeat(97)] {
            assert!(check_branch_name(name).is_ok() && check_written_branch_name(name).is_err(), "{name}");
        }
        assert!(check_written_branch_name(&"a".repeat(96)).is_ok());
    }

    #[test]
    fn the_longest_names_make_a_fork_and_a_quarantine() {
        let (branch, owner, session) = ("a".repeat(96), "b".repeat(63), SessionId::from_bytes([0; 16]));
        assert!(check_owner_name(&owner).is_ok() && check_owner_name(&"b".repeat(64)).is_err());
        assert!(check_owner_name("").is_err() && check_owner_name("a/b").is_err());
        assert!(check_branch_name(&format!("fork/{branch}/{owner}-{session}")).is_ok());
        assert!(check_branch_name(&format!("quarantine/{branch}/{session}")).is_ok());
    }
}
