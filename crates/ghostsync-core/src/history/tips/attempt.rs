//! Makes a commit under a key of its own, and acknowledges it only when a listing *after* that shows where it is.

use std::time::Duration;

use bytes::Bytes;
use object_store::PutMode;
use serde_json::json;
use tokio::time::Instant;

use super::find::{Fate, Seen, look, look_again};
use super::merge::has_something;
use super::read::Reader;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Commit, TipName};
use crate::history::Log;
use crate::history::commit::{Attempt, Session, create, unknown};
use crate::history::head::{State, not_as_it_was};
use crate::id::{CommitHash, SessionId};
use crate::store::keys;

/// How often a writer that lost tries to have what it made taken over, before it says that it does not know.
const MAX_MERGES: u32 = 50;
/// How long others are waited for who may be writing at the same moment.
const MIN_PATIENCE: Duration = Duration::from_millis(100);
const MAX_PATIENCE: Duration = Duration::from_secs(2);

/// Tries to make one commit; as [`Log::attempt`].
///
/// # Errors
/// `Fenced` also if a floor above the session's begin is seen afterwards: then nothing is acknowledged. `Conflict` if
/// the commit sets a floor, and anything else came into the log at the same time.
pub(in crate::history) async fn attempt(
    log: &Log,
    session: &Session,
    base: &State,
    commit: &Commit,
) -> Result<Attempt> {
    if base.commit.session_floor > session.begin {
        return Err(below_floor(session, base.commit.session_floor));
    }
    // Without this, whoever read the head an hour ago would make a commit of an old number, and one time of two take
    // the place of somebody who was told long ago that he was first.
    let mut reader = Reader::new(&log.store, log.config);
    let mut began = Instant::now();
    let before = if base.commit.seq == 0 {
        look(&mut reader).await?
    } else {
        let name = TipName { seq: base.commit.seq, session: base.commit.session };
        let before = look_again(&mut reader, name, base.hash).await?;
        if !before.names.contains(name) {
            return Err(not_as_it_was(&keys::tip(name)));
        }
        before
    };
    if before.state.hash != base.hash || before.state.commit.merged != base.commit.merged {
        return Ok(Attempt::Lost);
    }
    // Reading what lies beside the head takes a while. The put follows a listing, so that those who meet are few.
    if reader.has_read_since_the_listing() {
        began = Instant::now();
        if reader.list().await? != before.names {
            return Ok(Attempt::Lost);
        }
    }
    let commit = Commit { begin: Some(session.begin), ..commit.clone() };
    let name = TipName { seq: commit.seq, session: session.id };
    let bytes = write(&mut reader, session, name, &commit).await?;
    let mut seen = look_for(&mut reader, session, name).await?;
    if seen.fate(name) == Fate::InLine {
        // Whoever listed before that put and writes after this look would take its place. Nobody has to wait for him:
        // but most such have written when it has taken others as long as it took this one, and so fewer are told that
        // they are on the branch who are not for long.
        tokio::time::sleep((began.elapsed() * 3).clamp(MIN_PATIENCE, MAX_PATIENCE)).await;
        seen = look_for(&mut reader, session, name).await?;
    }
    // Whoever deletes by a floor must know that nobody else was writing when it came.
    if commit.session_floor > base.commit.session_floor {
        let mut alone = before.names;
        alone.insert(name);
        if seen.names != alone {
            let other = "another process wrote to the repository while this one was to have it to itself";
            return Err(Error::new(ErrorKind::Conflict, other));
        }
    }
    // Its own floor is above its begin, and fences others.
    let begin = session.begin.max(commit.session_floor);
    for _ in 0..MAX_MERGES {
        if seen.state.commit.session_floor > begin {
            return Err(below_floor(session, seen.state.commit.session_floor));
        }
        match seen.fate(name) {
            Fate::InLine => {
                if let (Some(cache), Some(head), Some(bytes)) = (&log.cache, seen.head, &seen.bytes) {
                    cache.keep(head.seq, bytes);
                }
                return Ok(Attempt::Done(Box::new(State { commit, hash: CommitHash::of(&bytes) })));
            }
            Fate::Merged => return Ok(Attempt::TakenOver(Box::new(seen.state))),
            Fate::Void(stale) => return Err(Error::new(ErrorKind::Fenced, stale.to_string())),
            // What says nothing need not be taken over: it is simply made again.
            Fate::Beside if !has_something(&commit) => return Ok(Attempt::Lost),
            Fate::Beside | Fate::Unlisted => {}
        }
        seen = settle(&mut reader, session, &commit, &seen, name).await?;
    }
    let error = Error::new(ErrorKind::Conflict, "others were first again and again, and nobody took it over");
    Err(unknown(session, commit.seq, &error))
}

/// Makes a commit that does nothing but take over what lies beside the head, and looks again for the first one.
async fn settle(
    reader: &mut Reader<'_>,
    session: &Session,
    commit: &Commit,
    seen: &Seen,
    name: TipName,
) -> Result<Seen> {
    let view = &seen.state;
    let merger = Session { id: SessionId::random(), begin: view.commit.seq, writer: session.writer.clone() };
    let merge = Commit {
        seq: view.commit.seq + 1,
        prev: view.hash,
        session: merger.id,
        writer: merger.writer.clone(),
        time: commit.time,
        op: json!({"kind": "merge"}),
        begin: Some(merger.begin),
        ..view.commit.clone()
    };
    let merge_name = TipName { seq: merge.seq, session: merger.id };
    write(reader, &merger, merge_name, &merge).await?;
    look_for(reader, session, name).await
}

async fn write(reader: &mut Reader<'_>, session: &Session, name: TipName, commit: &Commit) -> Result<Bytes> {
    let bytes = Bytes::from(commit.encode()?);
    let key = keys::tip(name);
    // Nobody else ever uses this key, so there is nothing to overwrite.
    if !create(reader.store, session, name.seq, &bytes, &key, PutMode::Overwrite).await? {
        return Err(Error::corrupt(format!("{key} is not what was written there a moment ago")));
    }
    reader.wrote(name, bytes.clone());
    Ok(bytes)
}

/// Looks at the log until it lists a commit that was written.
async fn look_for(reader: &mut Reader<'_>, session: &Session, name: TipName) -> Result<Seen> {
    let deadline = Instant::now() + reader.store.settle_time();
    loop {
        let error = match look(reader).await {
            Ok(seen) if seen.fate(name) != Fate::Unlisted => return Ok(seen),
            Ok(_) => Error::new(ErrorKind::Unavailable, format!("the store does not list {}", keys::tip(name))),
            Err(error) if error.kind() == ErrorKind::Unavailable => error,
            Err(error) => return Err(error),
        };
        if Instant::now() >= deadline {
            return Err(unknown(session, name.seq, &error));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn below_floor(session: &Session, floor: u64) -> Error {
    let begin = session.begin;
    Error::new(ErrorKind::Fenced, format!("the session began at commit {begin}, below the floor {floor} that was set"))
}
