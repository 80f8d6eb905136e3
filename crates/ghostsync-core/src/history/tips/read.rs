//! Reads commits of the log, each at most once for one purpose: what lies under a commit's key never changes, but for
//! its own stub.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join;
use tokio::time::Instant;

use super::Names;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Commit, Link, LogEntry, MAX_COMMIT_BYTES, TipName, decode_link, decode_log_entry};
use crate::history::head::not_as_it_was;
use crate::id::CommitHash;
use crate::store::{Store, keys};

/// How long a commit is waited for that is listed and cannot be read: some servers list what is still being written.
const WRITE_TIME: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// What one look after the other at the log has read. It is made anew for each attempt to commit, so that nothing is
/// taken for granted that was read long ago.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) store: &'a Store,
    /// The hash of `config.json`, which the first commit follows.
    pub(super) config: CommitHash,
    read: HashMap<TipName, Bytes>,
    /// The head of an earlier look, which was found to follow the commit before it.
    seen_before: Option<TipName>,
    has_read_since: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(store: &'a Store, config: CommitHash) -> Self {
        Self { store, config, read: HashMap::new(), seen_before: None, has_read_since: false }
    }

    /// Notes what was written, and acknowledged.
    pub(super) fn wrote(&mut self, name: TipName, bytes: Bytes) {
        self.read.insert(name, bytes);
    }

    /// Lists the log.
    pub(super) async fn list(&mut self) -> Result<Names> {
        self.has_read_since = false;
        Names::list(self.store).await
    }

    /// Lists the log, and asks at the same time for a commit with this hash that was the head at an earlier look.
    pub(super) async fn list_and_ask_for(&mut self, last: TipName, hash: CommitHash) -> Result<Names> {
        self.has_read_since = false;
        let key = keys::tip(last);
        let (names, stored) = try_join(Names::list(self.store), self.store.get(&key, MAX_COMMIT_BYTES)).await?;
        // Anything else is asked for again if it matters, and judged as whatever is read.
        if let Some(stored) = stored.filter(|stored| CommitHash::of(stored) == hash) {
            self.read.insert(last, stored);
            self.seen_before = Some(last);
        }
        Ok(names)
    }

    /// Whether the store was asked for a commit since it listed the log.
    pub(super) fn has_read_since_the_listing(&self) -> bool {
        self.has_read_since
    }

    /// Whether a commit was the head at an earlier look, and is there as it was.
    pub(super) fn has_seen_before(&self, name: TipName) -> bool {
        self.seen_before == Some(name)
    }

    pub(super) async fn commit(&mut self, name: TipName) -> Result<(Bytes, Commit)> {
        match self.read(name).await? {
            (bytes, LogEntry::Commit(commit)) => Ok((bytes, *commit)),
            (_, LogEntry::Emptied(_)) => Err(not_as_it_was(&keys::tip(name))),
        }
    }

    pub(super) async fn link(&mut self, name: TipName) -> Result<Link> {
        let (bytes, _) = self.read(name).await?;
        decode_link(&bytes).map_err(|error| damaged(name, error))
    }

    /// Reads a commit that is listed, and waits a little for one that cannot be read yet.
    pub(super) async fn read(&mut self, name: TipName) -> Result<(Bytes, LogEntry)> {
        if let Some(bytes) = self.read.get(&name) {
            return Ok((bytes.clone(), decode(name, bytes)?));
        }
        self.has_read_since = true;
        let deadline = Instant::now() + WRITE_TIME;
        let (bytes, entry) = loop {
            match try_read(self.store, name).await {
                Err(error) if error.kind() == ErrorKind::Corrupt && Instant::now() < deadline => {}
                read => break read?,
            }
            tokio::time::sleep(PAUSE).await;
        };
        self.read.insert(name, bytes.clone());
        Ok((bytes, entry))
    }
}

async fn try_read(store: &Store, name: TipName) -> Result<(Bytes, LogEntry)> {
    let key = keys::tip(name);
    let bytes = store.get(&key, MAX_COMMIT_BYTES).await?.ok_or_else(|| not_as_it_was(&key))?;
    let entry = decode(name, &bytes)?;
    Ok((bytes, entry))
}

fn decode(name: TipName, bytes: &[u8]) -> Result<LogEntry> {
    let entry = decode_log_entry(bytes).map_err(|error| damaged(name, error))?;
    let named = match &entry {
        LogEntry::Commit(commit) => TipName { seq: commit.seq, session: commit.session },
        LogEntry::Emptied(stub) => TipName { seq: stub.seq, session: stub.session },
    };
    if named == name {
        Ok(entry)
    } else {
        Err(Error::corrupt(format!("{} says that it is {named:?}", keys::tip(name))))
    }
}

pub(super) fn damaged(name: TipName, error: crate::format::FormatError) -> Error {
    let error = Error::from(error);
    Error::new(error.kind(), format!("{} is damaged: {error}", keys::tip(name)))
}
