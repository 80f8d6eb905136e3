//! Finds out whether a store keeps the promises that commits rest on. A probe can only falsify.
//!
//! The promise that matters: of several writers that create one key, exactly one is told that it did, and its bytes
//! are what everybody reads. Some stores overwrite silently, some answer "not implemented", some keep the promise
//! for one writer and break it for two at once; so keys are raced for, in two sizes, since large bodies race
//! differently. A lost answer breaks nothing: a commit whose answer is lost is settled by reading back.

use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Key;
use object_store::{PutMode, PutOptions};
use serde::Serialize;

use super::{Store, keys};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SessionId;

const WRITERS: u8 = 8;
const SMALL: Race = Race { keys: 64, bytes: 100, name: "small" };
const LARGE: Race = Race { keys: 4, bytes: 2 * 1024 * 1024, name: "large" };
/// How often something is tried whose answer says nothing.
const TRIES: usize = 4;

/// What a probe found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// One line for each promise that was broken; empty: not falsified.
    pub broken: Vec<String>,
}

/// Creates twice, races on 64 small and 4 large keys from 8 tasks, lists after write, reads after delete.
///
/// Everything happens under `probe/<session>/` and is deleted afterwards; what cannot be deleted stays there.
///
/// # Errors
/// Whatever made the store unreachable; a broken promise is no error but a line of the report.
pub async fn probe(store: &Store) -> Result<ProbeReport> {
    let session = SessionId::random();
    let mut broken = Vec::new();
    let outcome = run(store, session, &mut broken).await;
    clean_up(store, session).await;
    outcome.map(|()| ProbeReport { broken })
}

async fn run(store: &Store, session: SessionId, broken: &mut Vec<String>) -> Result<()> {
    if !create_twice(store, session, broken).await? {
        return Ok(());
    }
    for race in [SMALL, LARGE] {
        race.run(store, session, broken).await?;
    }
    overwrite(store, session, broken).await?;
    list_after_write(store, session, broken).await?;
    read_after_delete(store, session, broken).await
}

/// What one writer was told.
enum Told {
    /// It made the object.
    Created,
    /// The object was there already.
    Exists,
    /// Nothing that can be relied on.
    Nothing(Error),
}

async fn create(store: &Store, key: &Key, bytes: Bytes) -> Told {
    match store.commits.put_opts(key, bytes.into(), PutOptions::from(PutMode::Create)).await {
        Ok(_) => Told::Created,
        Err(object_store::Error::AlreadyExists { .. }) => Told::Exists,
        Err(error) => Told::Nothing(store.failure("create", key, error)),
    }
}

async fn read(store: &Store, key: &Key) -> Result<Option<Bytes>> {
    store.get(key, LARGE.bytes as u64).await
}

/// Creates a key, and again with other bytes. Tells whether the store can create at all.
async fn create_twice(store: &Store, session: SessionId, broken: &mut Vec<String>) -> Result<bool> {
    let key = keys::probe(session, "twice");
    let (first, second) = (content(1, SMALL.bytes), content(2, SMALL.bytes));
    for attempt in 1..=TRIES {
        let told = create(store, &key, first.clone()).await;
        if matches!(told, Told::Created) || read(store, &key).await?.as_ref() == Some(&first) {
            break;
        }
        match told {
            Told::Nothing(error) if error.kind() == ErrorKind::Invalid => {
                broken.push(format!("create: expected to be possible; the answer was: {error}"));
                return Ok(false);
            }
            Told::Nothing(error) if attempt == TRIES => return Err(error),
            Told::Exists if attempt == TRIES => {
                broken.push("create: expected a new key to be created; it was said to exist already".to_owned());
                return Ok(false);
            }
            _ => {}
        }
    }
    for attempt in 1..=TRIES {
        let told = create(store, &key, second.clone()).await;
        let found = read(store, &key).await?;
        if matches!(told, Told::Created) || found.as_ref() != Some(&first) {
            let said = if matches!(told, Told::Created) { "it succeeded" } else { "it failed" };
            let what = match found {
                Some(bytes) if bytes == first => "the object is unchanged",
                Some(bytes) if bytes == second => "the object was overwritten",
                Some(_) => "the object has bytes that nobody wrote",
                None => "the object is gone",
            };
            broken.push(format!("create twice: expected the second to fail and to change nothing; {said}, {what}"));
            return Ok(true);
        }
        match told {
            Told::Exists => return Ok(true),
            Told::Nothing(error) if attempt == TRIES => {
                broken.push(format!(
                    "create twice: expected the second to say that the object exists; it said {TRIES} times: {error}"
                ));
            }
            _ => {}
        }
    }
    Ok(true)
}

/// Several writers that create the same keys at the same time.
struct Race {
    keys: usize,
    bytes: usize,
    name: &'static str,
}

/// What became of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// Nothing that contradicts the promise.
    Fair,
    /// More than one writer was told that it made the object.
    Winners(usize),
    /// One writer was told so, and its bytes are not there.
    Lost,
    /// Everybody was told that it exists, and nothing is there.
    Nobody,
}

impl Race {
    async fn run(&self, store: &Store, session: SessionId, broken: &mut Vec<String>) -> Result<()> {
        let mut finishes = Vec::with_capacity(self.keys);
        for number in 0..self.keys {
            let key = keys::probe(session, &format!("{}-{number:02}", self.name));
            finishes.push(self.one(store, &key).await?);
        }
        broken.extend(self.lines(&finishes));
        Ok(())
    }

    async fn one(&self, store: &Store, key: &Key) -> Result<Finish> {
        let told = join_all((0..WRITERS).map(|writer| create(store, key, content(writer, self.bytes)))).await;
        let winners: Vec<u8> = (0..WRITERS)
            .zip(&told)
            .filter_map(|(writer, told)| matches!(told, Told::Created).then_some(writer))
            .collect();
        let found = read(store, key).await?;
        Ok(match (winners.as_slice(), found) {
            ([], Some(_)) => Finish::Fair,
            ([winner], Some(found)) if found == content(*winner, self.bytes) => Finish::Fair,
            ([_], _) => Finish::Lost,
            ([], None) if told.iter().any(|told| matches!(told, Told::Exists)) => Finish::Nobody,
            // Nothing is there because nothing arrived.
            ([], None) => match told.into_iter().next() {
                Some(Told::Nothing(error)) => return Err(error),
                _ => Finish::Nobody,
            },
            (winners, _) => Finish::Winners(winners.len()),
        })
    }

    fn lines(&self, finishes: &[Finish]) -> Vec<String> {
        let count = |what: fn(&Finish) -> bool| finishes.iter().filter(|finish| what(finish)).count();
        let most = finishes.iter().map(|finish| if let Finish::Winners(n) = finish { *n } else { 0 }).max();
        let several = format!("several did, up to {} of {WRITERS}", most.unwrap_or_default());
        let found = [
            (count(|finish| matches!(finish, Finish::Winners(_))), several.as_str()),
            (count(|finish| *finish == Finish::Lost), "one did, but its bytes are not there"),
            (count(|finish| *finish == Finish::Nobody), "nobody did, and nothing is there"),
        ];
        let line = |(keys, what): &(usize, &str)| {
            let (name, all, bytes) = (self.name, self.keys, self.bytes);
            format!(
                "race on {name} keys of {bytes} bytes: expected exactly one of {WRITERS} writers to create each; \
                 on {keys} of {all} keys {what}"
            )
        };
        found.iter().filter(|(keys, _)| *keys > 0).map(line).collect()
    }
}

async fn overwrite(store: &Store, session: SessionId, broken: &mut Vec<String>) -> Result<()> {
    let key = keys::probe(session, "overwritten");
    for writer in [1, 2] {
        store.put(&key, content(writer, SMALL.bytes)).await?;
    }
    if read(store, &key).await? != Some(content(2, SMALL.bytes)) {
        broken.push("read after overwrite: expected the newer bytes; got others".to_owned());
    }
    Ok(())
}

async fn list_after_write(store: &Store, session: SessionId, broken: &mut Vec<String>) -> Result<()> {
    let names =
        [SMALL, LARGE].into_iter().flat_map(|race| (0..race.keys).map(move |n| format!("{}-{n:02}", race.name)));
    // What nobody created, because the store failed, is not expected in the list.
    let written: Vec<Key> = stream::iter(names.map(|name| keys::probe(session, &name)))
        .map(|key| async move { store.size(&key).await.map(|size| size.map(|_| key)) })
        .buffered(usize::from(WRITERS))
        .try_filter_map(|key| async move { Ok(key) })
        .try_collect()
        .await?;
    let listed = list(store, session).await?;
    let missing = written.iter().filter(|key| !listed.contains(key)).count();
    if missing > 0 {
        let all = written.len();
        broken.push(format!("list after write: expected all {all} keys; {missing} are not listed"));
    }
    Ok(())
}

async fn read_after_delete(store: &Store, session: SessionId, broken: &mut Vec<String>) -> Result<()> {
    let key = keys::probe(session, "deleted");
    store.put(&key, content(1, SMALL.bytes)).await?;
    store.delete(vec![key.clone()]).await?;
    if read(store, &key).await?.is_some() {
        broken.push("read after delete: expected nothing; the object is still there".to_owned());
    }
    if list(store, session).await?.contains(&key) {
        broken.push("list after delete: expected the key to be gone; it is still listed".to_owned());
    }
    Ok(())
}

async fn list(store: &Store, session: SessionId) -> Result<Vec<Key>> {
    let listed = store.list(&folder(session), 1000).await?;
    Ok(listed.into_iter().map(|object| object.location).collect())
}

fn folder(session: SessionId) -> Key {
    Key::from(format!("probe/{session}"))
}

/// Deletes what can be deleted; the rest is garbage that does no harm.
async fn clean_up(store: &Store, session: SessionId) {
    if let Ok(keys) = list(store, session).await {
        let _ = store.delete(keys).await;
    }
}

/// What a writer writes: its number, over and over.
fn content(writer: u8, bytes: usize) -> Bytes {
    vec![b'a' + writer; bytes].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_races_are_described_by_figures() {
        use Finish::{Fair, Lost, Nobody, Winners};
        assert!(SMALL.lines(&[Fair; 64]).is_empty());
        let mut finishes = [Fair; 64];
        finishes[..4].copy_from_slice(&[Winners(2), Winners(8), Lost, Nobody]);
        let lines = SMALL.lines(&finishes);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].ends_with("on 2 of 64 keys several did, up to 8 of 8"), "{}", lines[0]);
        assert!(lines[1].contains("on 1 of 64 keys one did"), "{}", lines[1]);
        assert!(lines[2].contains("on 1 of 64 keys nobody did"), "{}", lines[2]);
    }
}
