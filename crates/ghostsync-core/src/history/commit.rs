//! Makes a commit: creates `log/<n>` once, and finds out what became of it when the answer was lost.
//!
//! An error, a 409, a timeout or a reset says nothing by itself: a retry inside a client can turn our own applied
//! write into "already exists", a 409 can mean that nothing is there, and a timed-out put can still land. So after
//! anything but success the slot is read: our bytes (or a stub with their hash) mean that it was ours, other bytes
//! that it was lost, and absence that the same bytes are put again until the deadline. While that is unresolved,
//! nothing is rebased and nothing cleaned up; the outcome is reported as `Unknown`.

use std::time::Duration;

use bytes::Bytes;
use object_store::PutMode;
use object_store::path::Path as Key;
use serde_json::{Map, Value};

use super::cache::HeadCache;
use super::head::{State, write_hint};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Commit, LogEntry, MAX_COMMIT_BYTES, Writer, decode_log_entry};
use crate::id::{CommitHash, SessionId};
use crate::store::{CreateAnswer, Store, keys};

/// One attempt to write: at most one commit, and packs of its own name.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// Its name.
    pub(crate) id: SessionId,
    /// The number of the head when it began.
    pub(crate) begin: u64,
    /// Who writes.
    pub(crate) writer: Writer,
}

impl Session {
    pub(crate) fn begin(state: &State, writer: &str, owner: Option<&str>) -> Self {
        let version = concat!("ghostsync/", env!("CARGO_PKG_VERSION")).to_owned();
        let writer = Writer { name: writer.to_owned(), owner: owner.map(str::to_owned), version, extra: Map::new() };
        Self { id: SessionId::random(), begin: state.commit.seq, writer }
    }

    /// Begins the commit after `base`: everything as it is there.
    pub(crate) fn next_commit(&self, base: &State, clock: &dyn Clock, op: Value) -> Commit {
        Commit {
            seq: base.commit.seq + 1,
            prev: base.hash,
            session: self.id,
            writer: self.writer.clone(),
            time: clock.now(),
            op,
            ..base.commit.clone()
        }
    }
}

/// What became of an attempt to commit.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It is in the log.
    Done(Box<State>),
    /// Another commit is the head, and nothing of this one remains but, in commit mode `detect`, an entry of the log
    /// that says nothing.
    Lost,
    /// Another commit is the head, and what this one made was taken over beside it: here is what it is now. In commit
    /// mode `detect` alone.
    TakenOver(Box<State>),
}

/// Tries to make one commit on the state that it was built on.
///
/// # Errors
/// `Unknown` if the outcome could not be found out in time; `Fenced` if the session began below the floor;
/// `Corrupt` if the commit that it is built on is not what it was.
pub(crate) async fn attempt(
    store: &Store,
    cache: Option<&HeadCache>,
    session: &Session,
    base: &State,
    commit: &Commit,
) -> Result<Attempt> {
    if base.commit.session_floor > session.begin {
        return Err(Error::new(
            ErrorKind::Fenced,
            format!("the session began at commit {}, below the floor {}", session.begin, base.commit.session_floor),
        ));
    }
    if base.commit.seq > 0 {
        // The bucket may have been rolled back since the head was read.
        let stored = store.get(&keys::commit(base.commit.seq), MAX_COMMIT_BYTES).await?;
        // Emptied meanwhile, it is no longer the newest: the create will be told so.
        let is_stub =
            |bytes: &[u8]| matches!(decode_log_entry(bytes), Ok(LogEntry::Emptied(stub)) if stub.hash == base.hash);
        if stored.is_none_or(|bytes| CommitHash::of(&bytes) != base.hash && !is_stub(&bytes)) {
            return Err(Error::corrupt(format!("{} is not what it was a moment ago", keys::commit(base.commit.seq))));
        }
    }
    let bytes = Bytes::from(commit.encode()?);
    let key = keys::commit(commit.seq);
    if !create(store, session, commit.seq, &bytes, &key, PutMode::Create).await? {
        return Ok(Attempt::Lost);
    }
    write_hint(store, commit.seq).await;
    if let Some(cache) = cache {
        cache.keep(commit.seq, &bytes);
    }
    Ok(Attempt::Done(Box::new(State { commit: commit.clone(), hash: CommitHash::of(&bytes) })))
}

/// Creates the slot; tells whether it holds our bytes or another's.
pub(super) async fn create(
    store: &Store,
    session: &Session,
    seq: u64,
    bytes: &Bytes,
    key: &Key,
    mode: PutMode,
) -> Result<bool> {
    let deadline = tokio::time::Instant::now() + store.settle_time();
    let mut pause = Duration::from_millis(50);
    let (mut answers, mut only_denied) = (0, true);
    loop {
        let CreateAnswer::Unclear(error) = store.create(key, bytes.clone(), mode.clone()).await else {
            return Ok(true);
        };
        answers += 1;
        only_denied &= error.kind() == ErrorKind::Denied;
        let mut settled = settle(store, key, bytes).await;
        while settled.is_err() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
            settled = settle(store, key, bytes).await;
        }
        match settled {
            Ok(Some(ours)) => return Ok(ours),
            // Every answer so far was a refusal of the request itself, and nothing is there: nothing was published.
            Ok(None) if only_denied && answers >= 2 => return Err(error),
            Ok(None) if tokio::time::Instant::now() < deadline => {}
            Ok(None) | Err(_) => return Err(unknown(session, seq, &error)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// Reads the slot: ours, another's, or still absent.
async fn settle(store: &Store, key: &Key, bytes: &Bytes) -> Result<Option<bool>> {
    let Some(stored) = store.get(key, MAX_COMMIT_BYTES).await? else { return Ok(None) };
    if stored == *bytes {
        return Ok(Some(true));
    }
    Ok(Some(match decode_log_entry(&stored)? {
        LogEntry::Emptied(stub) => stub.hash == CommitHash::of(bytes),
        LogEntry::Commit(_) => false,
    }))
}

pub(super) fn unknown(session: &Session, seq: u64, error: &Error) -> Error {
    Error::new(
        ErrorKind::Unknown,
        format!(
            "the outcome of commit {seq} of session {} is not known: the store's answer was lost ({error})",
            session.id
        ),
    )
}
