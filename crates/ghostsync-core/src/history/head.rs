//! Finds the newest commit, and checks that it is what its number says.
//!
//! The numbers under `log/` are dense and never freed, so the absence of n after the presence of n-1 means that
//! nothing later exists. Whoever takes a commit for the head checks that its `prev` is the hash of the commit
//! before it; a mismatch or a gap means that the bucket was rolled back, made anew, or thinned: `Corrupt`.

use bytes::Bytes;
use futures::future::try_join;
use object_store::path::Path as Key;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Commit, LogEntry, MAX_COMMIT_BYTES, MAX_SEQ, Snapshot, decode_log_entry};
use crate::id::CommitHash;
use crate::store::{Store, keys};

/// The newest commit, as it was read: the whole state of the repository.
#[derive(Debug, Clone)]
pub struct State {
    /// The commit; number 0 is the empty state.
    pub commit: Commit,
    /// The hash of its stored bytes; of `config.json` for number 0.
    pub hash: CommitHash,
}

impl State {
    /// The retained snapshots of a branch, oldest first.
    pub fn snapshots_of<'a>(&'a self, branch: &'a str) -> impl DoubleEndedIterator<Item = &'a Snapshot> {
        self.commit.snapshots.iter().filter(move |snapshot| snapshot.branch == branch)
    }
}

/// The stored form of the hint.
#[derive(Serialize, Deserialize)]
struct Hint {
    seq: u64,
}

/// What lies in one slot of the log.
enum Slot {
    Absent,
    Commit(Bytes, Box<Commit>),
    Emptied(CommitHash),
}

/// Reads the newest state. `cached` are the stored bytes of the commit that was the head when somebody looked last:
/// while it still is, this costs two requests, at the same time.
///
/// # Errors
/// `Corrupt` if the log does not hold together, or the store's.
pub(crate) async fn find_head(
    store: &Store,
    config: CommitHash,
    cached: Option<&(u64, Bytes)>,
) -> Result<(State, Option<Bytes>)> {
    if let Some((seq, bytes)) = cached {
        // A bucket that was wiped or made anew also answers that the successor is absent: hence the first request.
        let (slot, next) = try_join(read_slot(store, *seq), read_slot(store, seq.saturating_add(1))).await?;
        match (slot, decode_log_entry(bytes)) {
            (Slot::Commit(stored, commit), _) if stored == *bytes => {
                return climb(store, config, Found { seq: *seq, bytes: stored, commit, checked: true }, Some(next))
                    .await;
            }
            // A damaged cache proves nothing about the repository.
            (_, Err(_)) => {}
            (Slot::Emptied(hash), _) if hash == CommitHash::of(bytes) => {}
            _ => return Err(rolled_back(*seq)),
        }
    }
    let hinted = match read_hint(store).await? {
        HeadHint::Names(seq) => seq.max(1),
        HeadHint::Absent | HeadHint::Damaged => 1,
    };
    if let Slot::Commit(bytes, commit) = read_slot(store, hinted).await? {
        return climb(store, config, Found { seq: hinted, bytes, commit, checked: false }, None).await;
    }
    // A hint whose commit is absent is no hint. One that names a stub is old: look further from there.
    match highest_present(store, if exists(store, hinted).await? { hinted } else { 0 }).await? {
        0 => Ok((State { commit: Commit::empty(config), hash: config }, None)),
        top => climb(store, config, whole(store, top).await?, None).await,
    }
}

/// What `head.json` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadHint {
    /// Nothing: it is not there.
    Absent,
    /// Nothing that could be a hint.
    Damaged,
    /// A commit was made with this number.
    Names(u64),
}

/// Reads the hint; whatever lies there is no failure.
pub(crate) async fn read_hint(store: &Store) -> Result<HeadHint> {
    let bytes = match store.get(&keys::head(), 4096).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(HeadHint::Damaged),
        bytes => bytes?,
    };
    Ok(match bytes.map(|bytes| serde_json::from_slice::<Hint>(&bytes)) {
        None => HeadHint::Absent,
        Some(Ok(hint)) if hint.seq <= MAX_SEQ => HeadHint::Names(hint.seq),
        Some(_) => HeadHint::Damaged,
    })
}

struct Found {
    seq: u64,
    bytes: Bytes,
    commit: Box<Commit>,
    /// Whether its `prev` was compared with the commit before it already.
    checked: bool,
}

/// The highest commit that is there; where it has just been emptied, a newer one must be.
async fn whole(store: &Store, mut top: u64) -> Result<Found> {
    loop {
        match read_slot(store, top).await? {
            Slot::Commit(bytes, commit) => return Ok(Found { seq: top, bytes, commit, checked: false }),
            Slot::Absent => return Err(rolled_back(top)),
            Slot::Emptied(_) => match highest_present(store, top).await? {
                higher if higher > top => top = higher,
                _ => return Err(rolled_back(top)),
            },
        }
    }
}

/// Goes up from a commit that is there to the newest one, and checks that one against its predecessor. `next` is what
/// lies above it, where that was asked for already.
async fn climb(
    store: &Store,
    config: CommitHash,
    mut found: Found,
    next: Option<Slot>,
) -> Result<(State, Option<Bytes>)> {
    let mut before = None;
    if found.seq >= MAX_SEQ {
        return Err(Error::corrupt(format!("{} is beyond every number of a commit", keys::commit(found.seq))));
    }
    let next = match next {
        Some(next) => next,
        None => read_slot(store, found.seq + 1).await?,
    };
    match next {
        Slot::Absent => {}
        Slot::Commit(bytes, commit) => {
            before = Some((found.seq, CommitHash::of(&found.bytes)));
            found = Found { seq: found.seq + 1, bytes, commit, checked: false };
            let top = highest_present(store, found.seq).await?;
            if top > found.seq {
                found = whole(store, top).await?;
            }
        }
        // Nothing that is emptied is the newest: a small old commit may lie below stubs.
        Slot::Emptied(_) => found = whole(store, found.seq + 1).await?,
    }
    if found.commit.seq != found.seq {
        return Err(Error::corrupt(format!("{} says that it is number {}", keys::commit(found.seq), found.commit.seq)));
    }
    if !found.checked {
        let previous = match before {
            Some((seq, hash)) if seq + 1 == found.seq => hash,
            _ => hash_of(store, config, found.seq - 1).await?,
        };
        if found.commit.prev != previous {
            return Err(Error::corrupt(format!(
                "{} does not follow the commit before it: the bucket was rolled back or mixed with another",
                keys::commit(found.seq)
            )));
        }
    }
    let hash = CommitHash::of(&found.bytes);
    Ok((State { commit: *found.commit, hash }, Some(found.bytes)))
}

/// The hash of the commit with a number, also of one that was emptied; of `config.json` for 0.
async fn hash_of(store: &Store, config: CommitHash, seq: u64) -> Result<CommitHash> {
    if seq == 0 {
        return Ok(config);
    }
    match read_slot(store, seq).await? {
        Slot::Commit(bytes, _) => Ok(CommitHash::of(&bytes)),
        Slot::Emptied(hash) => Ok(hash),
        Slot::Absent => Err(rolled_back(seq)),
    }
}

/// The highest number that is there, given that `present` is (0 always is): doubles its steps, then halves them.
async fn highest_present(store: &Store, present: u64) -> Result<u64> {
    let (mut low, mut step) = (present, 1);
    let mut high = loop {
        let next = low.saturating_add(step);
        // Beyond the highest number nothing is looked for, whatever lies there.
        if next > MAX_SEQ || !exists(store, next).await? {
            break next;
        }
        low = next;
        step *= 2;
    };
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if exists(store, middle).await? { low = middle } else { high = middle }
    }
    Ok(low)
}

pub(super) async fn exists(store: &Store, seq: u64) -> Result<bool> {
    Ok(store.size(&keys::commit(seq)).await?.is_some())
}

async fn read_slot(store: &Store, seq: u64) -> Result<Slot> {
    let key = keys::commit(seq);
    let Some(bytes) = store.get(&key, MAX_COMMIT_BYTES).await? else { return Ok(Slot::Absent) };
    let damaged = |error: crate::format::FormatError| {
        let error = Error::from(error);
        Error::new(error.kind(), format!("{key} is damaged: {error}"))
    };
    Ok(match decode_log_entry(&bytes).map_err(damaged)? {
        LogEntry::Commit(commit) => Slot::Commit(bytes, commit),
        LogEntry::Emptied(stub) => Slot::Emptied(stub.hash),
    })
}

fn rolled_back(seq: u64) -> Error {
    not_as_it_was(&keys::commit(seq))
}

pub(super) fn not_as_it_was(key: &Key) -> Error {
    Error::corrupt(format!(
        "{key} is not there as it was, or as it must be: the bucket was rolled back, or a lifecycle rule thinned it"
    ))
}

/// Tells later readers where to begin; best effort, it may be stale, missing or wrong.
pub(crate) async fn write_hint(store: &Store, seq: u64) {
    if let Ok(hint) = serde_json::to_vec(&Hint { seq }) {
        store.try_put(&keys::head(), hint.into()).await;
    }
}
