//! Empties old commits: every commit holds the whole state, and only the newest ones are ever read.
//!
//! A commit that has become old is overwritten by a stub that keeps its number taken and its hash known, so that the
//! chain can be checked for ever, and a writer that asks what became of its attempt gets the right answer. It is never
//! deleted: a writer that stalled on its number would find that free, and believe that it has won.

use bytes::Bytes;

use super::PruneOptions;
use super::execute::broken;
use super::plan::ListedCommit;
use crate::error::Result;
use crate::format::commit::{EmptiedCommit, LogEntry, MAX_COMMIT_BYTES, decode_log_entry};
use crate::history::State;
use crate::id::CommitHash;
use crate::repository::Repository;
use crate::store::keys;

/// Commits that stay whole, the head among them.
const MAX_COMMITS: u64 = 64;
/// The most bytes that they may have together.
const MAX_BYTES: u64 = 4 << 20;
/// An entry of so few bytes is a stub, or hardly larger than one.
const STUB_BYTES: u64 = 320;

/// What was emptied.
#[derive(Debug, Default)]
pub(super) struct Emptied {
    pub(super) commits: u64,
    pub(super) bytes: u64,
}

/// Empties what is old, below the state that has been in the log for the grace period.
pub(super) async fn empty(
    repository: &Repository,
    head: &State,
    settled: &State,
    listed: &[ListedCommit],
    options: &PruneOptions,
) -> Result<Emptied> {
    let store = repository.store();
    let mut emptied = Emptied::default();
    // What the commit after says about the one that comes next; known while one follows the other.
    let mut next: Option<(u64, CommitHash)> = None;
    for old in to_empty(head.commit.seq, settled.commit.seq, listed) {
        options.interrupt.check()?;
        let expected = match next {
            Some((seq, prev)) if seq == old.seq => prev,
            _ => match read(repository, old.seq + 1).await?.1 {
                LogEntry::Commit(commit) => commit.prev,
                LogEntry::Emptied(stub) => stub.prev,
            },
        };
        let key = keys::commit(old.seq);
        let (bytes, entry) = read(repository, old.seq).await?;
        let stub = match entry {
            LogEntry::Commit(commit) if CommitHash::of(&bytes) == expected && commit.seq == old.seq => {
                let (seq, prev, session) = (commit.seq, commit.prev, commit.session);
                EmptiedCommit { seq, prev, session, hash: expected, emptied: true }
            }
            LogEntry::Emptied(stub) if stub.hash == expected => {
                next = Some((old.seq.saturating_sub(1), stub.prev));
                continue;
            }
            _ => return Err(broken(&key)),
        };
        next = Some((old.seq.saturating_sub(1), stub.prev));
        let stub = Bytes::from(stub.encode()?);
        emptied.commits += 1;
        emptied.bytes += (bytes.len() as u64).saturating_sub(stub.len() as u64);
        if !options.dry_run {
            store.put(&key, stub).await?;
        }
    }
    Ok(emptied)
}

async fn read(repository: &Repository, seq: u64) -> Result<(Bytes, LogEntry)> {
    let key = keys::commit(seq);
    let bytes = repository.store().get(&key, MAX_COMMIT_BYTES).await?.ok_or_else(|| broken(&key))?;
    let entry = decode_log_entry(&bytes)?;
    Ok((bytes, entry))
}

/// The commits to empty, newest first: older than the last 64 or beyond 4 MiB in all; never the head or the one before
/// it, nor one that is not older than the settled state.
fn to_empty(head: u64, settled: u64, listed: &[ListedCommit]) -> Vec<ListedCommit> {
    let mut bytes = 0_u64;
    let mut old = Vec::new();
    for commit in listed.iter().rev() {
        bytes = bytes.saturating_add(commit.bytes);
        let is_old = commit.seq + MAX_COMMITS <= head || bytes > MAX_BYTES;
        let may_go = commit.seq + 1 < head && commit.seq < settled && commit.bytes > STUB_BYTES;
        if is_old && may_go {
            old.push(*commit);
        }
    }
    old
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    fn commits(newest: u64, bytes: impl Fn(u64) -> u64) -> Vec<ListedCommit> {
        (1..=newest).map(|seq| ListedCommit { seq, bytes: bytes(seq), modified: 0 }).collect()
    }

    #[test]
    fn the_newest_stay_whole() {
        let seqs = |head, settled, bytes: &dyn Fn(u64) -> u64| {
            let old = to_empty(head, settled, &commits(head, bytes));
            old.into_iter().map(|commit| commit.seq).collect::<Vec<_>>()
        };
        let none = Vec::<u64>::new();
        assert_eq!(seqs(64, 64, &|_| 1000), none);
        assert_eq!(seqs(66, 66, &|_| 1000), [2, 1], "64 are left");
        assert_eq!(seqs(66, 2, &|_| 1000), [1], "what is not older than the settled state stays");
        assert_eq!(seqs(70, 70, &|_| STUB_BYTES), none, "stubs stay");
        assert_eq!(seqs(6, 6, &|_| 2 << 20), [4, 3, 2, 1], "two of 2 MiB are left");
        assert_eq!(seqs(4, 4, &|_| 9 << 20), [2, 1], "the head and the one before it stay, however large");
        assert_eq!(seqs(1, 1, &|_| 9 << 20), none);
        assert_eq!(seqs(0, 0, &|_| 0), none);
    }

    #[test]
    fn a_stub_is_no_larger_than_what_is_taken_for_one() {
        let hash = |seed: &[u8]| CommitHash::of(seed);
        let session = SessionId::random();
        let stub = EmptiedCommit { seq: u64::MAX, prev: hash(b"1"), session, hash: hash(b"2"), emptied: true };
        assert!(stub.encode().expect("encodes").len() as u64 <= STUB_BYTES);
    }
}
