//! Empties old commits: every commit holds the whole state, and only the newest ones are ever read.
//!
//! A commit that has become old is overwritten by a stub that keeps its number taken and its hash known, so that the
//! chain can be checked for ever, and a writer that asks what became of its attempt gets the right answer. It is never
//! deleted: a writer that stalled on its number would find that free, and believe that it has won.

use std::collections::HashSet;

use bytes::Bytes;

use super::PruneOptions;
use super::execute::broken;
use super::plan::ListedCommit;
use crate::error::{Error, Result};
use crate::format::commit::{EmptiedCommit, Link, LogEntry, MAX_COMMIT_BYTES, TipName, decode_link, decode_log_entry};
use crate::format::config::CommitMode;
use crate::history::State;
use crate::id::CommitHash;
use crate::repository::Repository;
use crate::store::{Store, keys};

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

/// A number of the log, and the hash of its commit that the head follows.
type Place = (u64, CommitHash);

/// Empties what is old, below the state that has been in the log for the grace period.
///
/// In commit mode `detect` only below its floor, where nobody takes anything over any more; and of the commits of a
/// number the one that the head follows, and those that a commit after it names as merged.
pub(super) async fn empty(
    repository: &Repository,
    head: &State,
    settled: &State,
    listed: &[ListedCommit],
    options: &PruneOptions,
) -> Result<Emptied> {
    let store = repository.store();
    let below = match repository.config().commit_mode {
        CommitMode::Atomic => settled.commit.seq,
        CommitMode::Detect => settled.commit.seq.min(settled.commit.session_floor),
    };
    let mut emptied = Emptied::default();
    let mut merged: HashSet<TipName> = HashSet::new();
    let mut next: Option<Place> = None;
    let old = to_empty(head.commit.seq, below, listed);
    for of_number in old.chunk_by(|one, other| one.seq == other.seq) {
        let Some(seq) = of_number.first().map(|commit| commit.seq) else { continue };
        options.interrupt.check()?;
        let mut line = match next {
            Some(place) if place.0 == seq => place,
            _ => anchor(store, head, listed, seq, &mut merged).await?,
        };
        while line.0 > seq {
            line = descend(store, listed, line, &mut merged).await?.0;
        }
        let (below, entries) = descend(store, listed, line, &mut merged).await?;
        next = Some(below);
        for (commit, bytes, link) in entries {
            let is_done_with = link.hash == line.1 || commit.name().is_some_and(|name| merged.contains(&name));
            if !is_done_with || !of_number.contains(&commit) {
                continue;
            }
            let LogEntry::Commit(whole) = decode_log_entry(&bytes)? else { continue };
            let (prev, session) = (whole.prev, whole.session);
            if commit.session.is_some_and(|named| named != session) {
                return Err(broken(&commit.key()));
            }
            let stub = EmptiedCommit { seq, prev, session, hash: link.hash, emptied: true };
            let stub = Bytes::from(stub.encode()?);
            emptied.commits += 1;
            emptied.bytes += (bytes.len() as u64).saturating_sub(stub.len() as u64);
            if !options.dry_run {
                store.put(&commit.key(), stub.into()).await?;
            }
        }
    }
    Ok(emptied)
}

/// The nearest place at or above a number of which the line is known: from what the head says of the one before it, or
/// from a number with one commit, which whatever is above follows.
async fn anchor(
    store: &Store,
    head: &State,
    listed: &[ListedCommit],
    seq: u64,
    merged: &mut HashSet<TipName>,
) -> Result<Place> {
    for above in seq + 1..head.commit.seq {
        if let [only] = of(listed, above) {
            let (bytes, link) = read(store, only).await?;
            merged.extend(merged_by(&bytes)?);
            return Ok((above - 1, link.prev));
        }
    }
    Ok((head.commit.seq.saturating_sub(1), head.commit.prev))
}

/// Reads the commits of a number, notes what the one of the line has merged, and tells the place below.
async fn descend(
    store: &Store,
    listed: &[ListedCommit],
    (seq, hash): Place,
    merged: &mut HashSet<TipName>,
) -> Result<(Place, Vec<(ListedCommit, Bytes, Link)>)> {
    let mut entries = Vec::new();
    let mut below = None;
    for commit in of(listed, seq) {
        let (bytes, link) = read(store, commit).await?;
        if link.hash == hash {
            below = Some((seq.saturating_sub(1), link.prev));
            merged.extend(merged_by(&bytes)?);
        }
        entries.push((*commit, bytes, link));
    }
    let key = of(listed, seq).first().map_or_else(|| keys::commit(seq), ListedCommit::key);
    Ok((below.ok_or_else(|| broken(&key))?, entries))
}

fn merged_by(stored: &[u8]) -> Result<Vec<TipName>> {
    Ok(match decode_log_entry(stored)? {
        LogEntry::Commit(whole) => whole.merged,
        LogEntry::Emptied(_) => Vec::new(),
    })
}

async fn read(store: &Store, commit: &ListedCommit) -> Result<(Bytes, Link)> {
    let key = commit.key();
    let bytes = store.get(&key, MAX_COMMIT_BYTES).await?.ok_or_else(|| broken(&key))?;
    let link = decode_link(&bytes).map_err(Error::from)?;
    if link.seq == commit.seq { Ok((bytes, link)) } else { Err(broken(&key)) }
}

/// The commits of a number.
fn of(listed: &[ListedCommit], seq: u64) -> &[ListedCommit] {
    let begin = listed.partition_point(|commit| commit.seq < seq);
    let end = listed.partition_point(|commit| commit.seq <= seq);
    listed.get(begin..end).unwrap_or_default()
}

/// The commits to empty, newest first: older than the last 64 or beyond 4 MiB in all; never of the head's number or the
/// one before it, nor one that is not below the number of the settled state.
fn to_empty(head: u64, below: u64, listed: &[ListedCommit]) -> Vec<ListedCommit> {
    let mut bytes = 0_u64;
    let mut old = Vec::new();
    for commit in listed.iter().rev() {
        bytes = bytes.saturating_add(commit.bytes);
        let is_old = commit.seq + MAX_COMMITS <= head || bytes > MAX_BYTES;
        let may_go = commit.seq + 1 < head && commit.seq < below && commit.bytes > STUB_BYTES;
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
        (1..=newest).map(|seq| ListedCommit { seq, session: None, bytes: bytes(seq), modified: 0 }).collect()
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
