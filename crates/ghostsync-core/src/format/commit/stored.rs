//! Commits and stubs as they are stored, and what must hold in a commit that is read.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::names::check_branch_name;
use super::{Commit, LogEntry, MAX_COMMIT_BYTES, MAX_SEQ};
use crate::format::pack::MAX_PACK_BYTES;
use crate::format::page::{MAX_LEVEL, MAX_PAGE_FRAME_BYTES};
use crate::format::{FormatError, canonical_json, frame};
use crate::id::CommitHash;

/// Encodes an object under `log/`.
///
/// # Errors
/// [`FormatError::TooLarge`] if it has outgrown a commit.
pub(super) fn encode_log_entry<T: Serialize>(entry: &T) -> Result<Vec<u8>, FormatError> {
    let what = "commit";
    let json = canonical_json(entry).map_err(|source| FormatError::Json { what, source })?;
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
    let mut ids = HashSet::new();
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    use crate::format::commit::EmptiedCommit;
    use crate::id::SessionId;

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
}
