//! Finds out whether a store keeps the promises that commits rest on. A probe can only falsify.
//!
//! The promise that matters: of several writers that create one key, exactly one is told that it did, and its bytes
//! are what everybody reads. Some stores overwrite silently, some answer "not implemented", some keep the promise
//! for one writer and break it for two at once; so keys are raced for, in two sizes, since large bodies race
//! differently. A lost answer breaks nothing: a commit whose answer is lost is settled by reading back.

use bytes::Bytes;
use futures::future::join_all;
use object_store::path::Path as Key;
use object_store::{PutMode, PutOptions};
use serde::Serialize;

use super::{Store, keys};
use crate::error::{Error, ErrorKind, Result};
use crate::format::config::CommitMode;
use crate::id::SessionId;

const WRITERS: u8 = 8;
const SMALL: Race = Race { keys: 64, bytes: 100, name: "small" };
const LARGE: Race = Race { keys: 4, bytes: 2 * 1024 * 1024, name: "large" };
/// How often something is tried whose answer says nothing.
const TRIES: usize = 4;

/// What a probe found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProbeReport {
    /// One line for each promise about creating that was broken; empty: not falsified. The commit mode `atomic` rests
    /// on them.
    pub broken: Vec<String>,
    /// One line for each other promise that was broken: no commit mode is possible then.
    pub unusable: Vec<String>,
}

impl ProbeReport {
    /// Whether nothing was found that speaks against a commit mode.
    #[must_use]
    pub fn allows(&self, mode: CommitMode) -> bool {
        self.unusable.is_empty() && (mode == CommitMode::Detect || self.broken.is_empty())
    }
}

/// Creates twice, races on 64 small and 4 large keys from 8 tasks, lists after write, reads after delete.
///
/// Everything happens under `probe/<session>/` and is deleted afterwards; what cannot be deleted stays there.
///
/// # Errors
/// Whatever made the store unreachable; a broken promise is no error but a line of the report.
pub async fn probe(store: &Store) -> Result<ProbeReport> {
    let (broken, unusable) = (Vec::new(), Vec::new());
    let mut probing = Probing { store, session: SessionId::random(), broken, unusable, written: Vec::new() };
    let outcome = probing.run().await;
    probing.clean_up().await;
    outcome.map(|()| ProbeReport { broken: probing.broken, unusable: probing.unusable })
}

/// A probe that goes on.
struct Probing<'a> {
    store: &'a Store,
    session: SessionId,
    broken: Vec<String>,
    unusable: Vec<String>,
    /// The keys that were seen to be there.
    written: Vec<Key>,
}

impl Probing<'_> {
    async fn run(&mut self) -> Result<()> {
        if self.create_new().await? {
            self.create_again().await?;
            self.race(&SMALL).await?;
            self.race(&LARGE).await?;
        }
        self.overwrite().await?;
        self.list_after_write().await?;
        self.read_after_delete().await
    }

    fn key(&self, name: &str) -> Key {
        keys::probe(self.session, name)
    }

    async fn create(&self, key: &Key, bytes: Bytes) -> Told {
        match self.store.commits.put_opts(key, bytes.into(), PutOptions::from(PutMode::Create)).await {
            Ok(_) => Told::Created,
            Err(object_store::Error::AlreadyExists { .. }) => Told::Exists,
            Err(error) => Told::Nothing(self.store.failure("create", key, error)),
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Bytes>> {
        self.store.get(key, LARGE.bytes as u64).await
    }

    async fn list(&self) -> Result<Vec<Key>> {
        let folder = keys::probe_folder(self.session);
        let listed = self.store.list(&folder, 1000).await?;
        Ok(listed.into_iter().map(|object| object.location).collect())
    }

    /// Deletes what can be deleted; the rest is garbage that does no harm.
    async fn clean_up(&self) {
        if let Ok(keys) = self.list().await {
            let _ = self.store.delete(keys).await;
        }
    }

    /// Creates a key, and tells whether the store can do that at all.
    // Where it cannot, what is probed afterwards is still worth knowing: another commit mode rests on that alone.
    async fn create_new(&mut self) -> Result<bool> {
        let (key, first) = (self.key("twice"), content(1, SMALL.bytes));
        for attempt in 1..=TRIES {
            let told = self.create(&key, first.clone()).await;
            if matches!(told, Told::Created) || self.read(&key).await?.as_ref() == Some(&first) {
                break;
            }
            match told {
                // Refused for good: because it is a create, if a plain write is not refused too.
                Told::Nothing(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Denied) => {
                    if self.store.put(&self.key("plain"), first.into()).await.is_err() {
                        return Err(error);
                    }
                    let answer = error.to_string();
                    let place = format!(" in {}: ", self.store.location);
                    let answer = answer.split_once(&place).map_or(answer.as_str(), |(_, reason)| reason);
                    self.broken.push(format!(
                        "create: expected to be possible, as a plain write is; the answer was: {answer}"
                    ));
                    return Ok(false);
                }
                Told::Nothing(error) if attempt == TRIES => return Err(error),
                Told::Exists if attempt == TRIES => {
                    self.broken
                        .push("create: expected a new key to be created; it was said to exist already".to_owned());
                    return Ok(false);
                }
                _ => {}
            }
        }
        self.written.push(key);
        Ok(true)
    }

    /// Creates the same key again, with other bytes.
    async fn create_again(&mut self) -> Result<()> {
        let key = self.key("twice");
        let (first, second) = (content(1, SMALL.bytes), content(2, SMALL.bytes));
        for attempt in 1..=TRIES {
            let told = self.create(&key, second.clone()).await;
            let found = self.read(&key).await?;
            if matches!(told, Told::Created) || found.as_ref() != Some(&first) {
                let said = if matches!(told, Told::Created) { "it succeeded" } else { "it failed" };
                let what = match found {
                    Some(bytes) if bytes == first => "the object is unchanged",
                    Some(bytes) if bytes == second => "the object was overwritten",
                    Some(_) => "the object has bytes that nobody wrote",
                    None => "the object is gone",
                };
                self.broken
                    .push(format!("create twice: expected the second to fail and to change nothing; {said}, {what}"));
                return Ok(());
            }
            match told {
                Told::Exists => return Ok(()),
                Told::Nothing(error) if attempt == TRIES => {
                    self.broken.push(format!(
                    "create twice: expected the second to say that the object exists; it said {TRIES} times: {error}"
                ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn race(&mut self, race: &Race) -> Result<()> {
        let mut finishes = Vec::with_capacity(race.keys);
        for number in 0..race.keys {
            let key = self.key(&format!("{}-{number:02}", race.name));
            finishes.push(self.race_for(&key, race.bytes).await?);
        }
        self.broken.extend(race.lines(&finishes));
        Ok(())
    }

    async fn race_for(&mut self, key: &Key, bytes: usize) -> Result<Finish> {
        let told = join_all((0..WRITERS).map(|writer| self.create(key, content(writer, bytes)))).await;
        let created = |(writer, told): (u8, &Told)| matches!(told, Told::Created).then_some(writer);
        let winners: Vec<u8> = (0..WRITERS).zip(&told).filter_map(created).collect();
        let found = self.read(key).await?;
        if found.is_some() {
            self.written.push(key.clone());
        }
        Ok(match (winners.as_slice(), found) {
            ([], Some(_)) => Finish::Fair,
            ([winner], Some(found)) if found == content(*winner, bytes) => Finish::Fair,
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

    async fn overwrite(&mut self) -> Result<()> {
        let key = self.key("overwritten");
        for writer in [1, 2] {
            self.store.put(&key, content(writer, SMALL.bytes).into()).await?;
        }
        if self.read(&key).await? != Some(content(2, SMALL.bytes)) {
            self.unusable.push("read after overwrite: expected the newer bytes; got others".to_owned());
        }
        self.written.push(key);
        Ok(())
    }

    async fn list_after_write(&mut self) -> Result<()> {
        let listed = self.list().await?;
        let missing = self.written.iter().filter(|key| !listed.contains(key)).count();
        if missing > 0 {
            let all = self.written.len();
            self.unusable.push(format!("list after write: expected all {all} keys; {missing} are not listed"));
        }
        Ok(())
    }

    async fn read_after_delete(&mut self) -> Result<()> {
        let key = self.key("deleted");
        self.store.put(&key, content(1, SMALL.bytes).into()).await?;
        self.store.delete(vec![key.clone()]).await?;
        if self.read(&key).await?.is_some() {
            self.unusable.push("read after delete: expected nothing; the object is still there".to_owned());
        }
        if self.list().await?.contains(&key) {
            self.unusable.push("list after delete: expected the key to be gone; it is still listed".to_owned());
        }
        Ok(())
    }
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
