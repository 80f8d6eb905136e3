//! What ghostsync asks of an object store, as checks that anyone can run against theirs.
//!
//! ```
//! # use std::sync::Arc;
//! # use ghostsync_core::{store::Store, testing::conformance};
//! # use object_store::memory::InMemory;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let store = Store::new(Arc::new(InMemory::new()), "memory");
//! conformance::run_all(&store).await.unwrap();
//! # });
//! ```
//!
//! The checks show what a store does on this day, to one client; a store that passes is not proven to keep its
//! promises under load, or while its servers fail. For races at full strength see [`crate::store::probe`].

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::join_all;
use object_store::path::Path as Key;
use object_store::{PutMode, PutPayload};

use crate::error::{Error, ErrorKind};
use crate::id::SessionId;
use crate::store::{CreateAnswer, Store};

const MIB: usize = 1024 * 1024;

/// What one check found: nothing, or what was expected and what was found instead.
type Finding = Result<(), String>;

/// A place of its own for one run, so that runs do not meet.
struct Place<'a> {
    store: &'a Store,
    folder: Key,
}

/// Runs every check, below a folder `conformance/<random>` that is emptied afterwards.
///
/// # Errors
/// One line for each check that failed, beginning with its name.
pub async fn run_all(store: &Store) -> Result<(), String> {
    let place = &Place { store, folder: Key::from(format!("conformance/{}", SessionId::random())) };
    let findings = [
        ("a missing object is absent", missing_is_absent(place).await),
        ("what is put is read whole", put_is_read(place).await),
        ("what is put in pieces is read whole", pieces_are_read(place).await),
        ("a put replaces", put_replaces(place).await),
        ("a limit is kept", limit_is_kept(place).await),
        ("ranges are exact", ranges_are_exact(place).await),
        ("a key is created once", created_once(place).await),
        ("a race to create has one winner", created_by_one(place).await),
        ("a listing is current", listing_is_current(place).await),
        ("a listing is complete", listing_is_complete(place).await),
        ("deleting twice is fine", deleted_twice(place).await),
        ("all characters of keys are kept", key_characters(place).await),
        ("16 MiB are kept", large_object(place).await),
        ("everything can be deleted", everything_is_deleted(place).await),
    ];
    let failed: Vec<String> = findings
        .into_iter()
        .filter_map(|(name, finding)| finding.err().map(|what| format!("{name}: {what}")))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn unexpected(error: Error) -> String {
    let mut text = format!("unexpected error of kind {}: {error}", error.kind().name());
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Finding {
    if found == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

impl Place<'_> {
    fn key(&self, name: &str) -> Key {
        Key::from(format!("{}/{name}", self.folder))
    }

    async fn put(&self, key: &Key, bytes: impl Into<PutPayload>) -> Finding {
        self.store.put(key, bytes.into()).await.map_err(unexpected)
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, String> {
        self.store.get(key, 64 * MIB as u64).await.map_err(unexpected)
    }

    async fn listed(&self, folder: &str) -> Result<BTreeSet<Key>, String> {
        let listed = self.store.list(&self.key(folder), 10_000).await.map_err(unexpected)?;
        Ok(listed.into_iter().map(|object| object.location).collect())
    }
}

async fn missing_is_absent(place: &Place<'_>) -> Finding {
    let key = place.key("missing");
    expect("a read", place.get(&key).await?, None)?;
    expect("a look", place.store.size(&key).await.map_err(unexpected)?, None)?;
    let range = place.store.get_range(&key, 0..1).await.map_err(|error| error.kind());
    expect("a range", range.err(), Some(ErrorKind::NotFound))?;
    expect("a listing", place.listed("missing").await?.len(), 0)
}

async fn put_is_read(place: &Place<'_>) -> Finding {
    for length in [0, 1, 100, 70_000] {
        let (key, content) = (place.key(&format!("length-{length}")), pattern(length));
        place.put(&key, content.clone()).await?;
        expect(&format!("{length} bytes read"), place.get(&key).await? == Some(content), true)?;
        let size = place.store.size(&key).await.map_err(unexpected)?;
        expect("their size", size, Some(length as u64))?;
    }
    Ok(())
}

async fn pieces_are_read(place: &Place<'_>) -> Finding {
    let (key, content) = (place.key("pieces"), pattern(3 * MIB));
    // Headers of three bytes between long runs, as packs have them.
    let mut rest = content.clone();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        for length in [3, 128 << 10, 3, 777] {
            pieces.push(rest.split_to(length.min(rest.len())));
        }
    }
    place.put(&key, PutPayload::from_iter(pieces)).await?;
    expect("the pieces are the whole", place.get(&key).await? == Some(content), true)
}

async fn put_replaces(place: &Place<'_>) -> Finding {
    let key = place.key("replaced");
    for content in ["first, and longer", "second"] {
        place.put(&key, content).await?;
        expect("the content", place.get(&key).await?, Some(content.into()))?;
    }
    Ok(())
}

async fn limit_is_kept(place: &Place<'_>) -> Finding {
    let key = place.key("limited");
    place.put(&key, pattern(100)).await?;
    for (limit, expected) in [(100, None), (99, Some(ErrorKind::Corrupt))] {
        let found = place.store.get(&key, limit).await.map_err(|error| error.kind());
        expect(&format!("a limit of {limit} bytes for 100"), found.err(), expected)?;
    }
    Ok(())
}

async fn ranges_are_exact(place: &Place<'_>) -> Finding {
    let (key, content) = (place.key("ranges"), pattern(1000));
    place.put(&key, content.clone()).await?;
    for range in [0..1, 0..1000, 1..3, 500..777, 999..1000, 5..5] {
        let found = place.store.get_range(&key, range.clone()).await.map_err(unexpected)?;
        let expected = content.slice(range.start as usize..range.end as usize);
        expect(&format!("range {range:?}"), found, expected)?;
    }
    for range in [990..1001, 0..1001, 1000..1001, 5000..5001] {
        let found = place.store.get_range(&key, range.clone()).await.map_err(|error| error.kind());
        expect(&format!("range {range:?} of 1000 bytes"), found.err(), Some(ErrorKind::Corrupt))?;
    }
    Ok(())
}

async fn created_once(place: &Place<'_>) -> Finding {
    let key = place.key("created");
    match place.store.create(&key, "first".into(), PutMode::Create).await {
        CreateAnswer::Created => {}
        CreateAnswer::Unclear(error) => return Err(unexpected(error)),
    }
    let second = matches!(place.store.create(&key, "second".into(), PutMode::Create).await, CreateAnswer::Created);
    expect("the second create succeeds", second, false)?;
    expect("the content", place.get(&key).await?, Some("first".into()))
}

async fn created_by_one(place: &Place<'_>) -> Finding {
    const WRITERS: u8 = 8;
    for number in 0..16 {
        let key = place.key(&format!("race-{number:02}"));
        let content = |writer: u8| Bytes::from(vec![b'a' + writer; 100]);
        let answers =
            join_all((0..WRITERS).map(|writer| place.store.create(&key, content(writer), PutMode::Create))).await;
        let created = |answer: &CreateAnswer| matches!(answer, CreateAnswer::Created);
        let winners: Vec<u8> =
            (0..WRITERS).zip(&answers).filter(|(_, answer)| created(answer)).map(|(writer, _)| writer).collect();
        let [winner] = winners.as_slice() else {
            return Err(format!("key {number}: expected one of {WRITERS} writers to win, found {}", winners.len()));
        };
        expect("the winner's bytes are there", place.get(&key).await? == Some(content(*winner)), true)?;
    }
    Ok(())
}

async fn listing_is_current(place: &Place<'_>) -> Finding {
    let keys: BTreeSet<Key> = (0..20).map(|n| place.key(&format!("current/{n:02}.json.zst"))).collect();
    for key in &keys {
        place.put(key, "x").await?;
        expect("a new object is listed", place.listed("current").await?.contains(key), true)?;
    }
    place.put(&place.key("current-not"), "x").await?;
    expect("all are listed, and no neighbour", place.listed("current").await?, keys.clone())?;
    let few = place.store.list(&place.key("current"), 3).await.map_err(unexpected)?;
    expect("a listing that is cut", few.len(), 3)?;
    expect("sizes are listed", few.iter().all(|object| object.size == 1), true)?;
    let gone: Vec<Key> = keys.iter().take(5).cloned().collect();
    place.store.delete(gone.clone()).await.map_err(unexpected)?;
    let left: BTreeSet<Key> = keys.into_iter().skip(5).collect();
    expect("what is deleted is not listed", place.listed("current").await?, left)?;
    expect("nor read", place.get(&place.key("current/00.json.zst")).await?, None)
}

/// More objects than the thousand that most stores put on one page of a listing.
async fn listing_is_complete(place: &Place<'_>) -> Finding {
    let keys: BTreeSet<Key> = (0..1100).map(|n| place.key(&format!("many/{}/{n:06}.data", n % 7))).collect();
    let ordered: Vec<&Key> = keys.iter().collect();
    for some in ordered.chunks(16) {
        join_all(some.iter().map(|key| place.put(key, "x"))).await.into_iter().collect::<Finding>()?;
    }
    expect("all are listed", place.listed("many").await? == keys, true)
}

async fn deleted_twice(place: &Place<'_>) -> Finding {
    let key = place.key("deleted");
    place.put(&key, "x").await?;
    for _ in 0..2 {
        place.store.delete(vec![key.clone()]).await.map_err(unexpected)?;
    }
    let keys = ["never", "was", "there"].map(|name| place.key(name));
    place.store.delete(keys.to_vec()).await.map_err(unexpected)
}

async fn key_characters(place: &Place<'_>) -> Finding {
    let keys: BTreeSet<Key> =
        ["abcdefghijklmnopqrstuvwxyz", "0123456789", "a.b_c-d", "deep/er/and/deeper", "-", "_", ".a", "a..b"]
            .into_iter()
            .map(|name| place.key(&format!("characters/{name}")))
            .collect();
    for key in &keys {
        place.put(key, key.to_string()).await?;
        expect("the content", place.get(key).await?, Some(key.to_string().into()))?;
    }
    expect("the keys", place.listed("characters").await?, keys)
}

async fn large_object(place: &Place<'_>) -> Finding {
    let (key, content) = (place.key("large"), pattern(16 * MIB));
    place.put(&key, content.clone()).await?;
    expect("the content is the same", place.get(&key).await? == Some(content.clone()), true)?;
    let end = content.len() as u64;
    let tail = place.store.get_range(&key, end - 100..end).await.map_err(unexpected)?;
    expect("its last 100 bytes", tail, content.slice(content.len() - 100..))
}

async fn everything_is_deleted(place: &Place<'_>) -> Finding {
    let keys: Vec<Key> = place.listed("").await?.into_iter().collect();
    expect("objects were left by the other checks", keys.len() > 1000, true)?;
    place.store.delete(keys).await.map_err(unexpected)?;
    expect("the folder", place.listed("").await?.len(), 0)
}

/// Bytes that differ from place to place.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|n| (n % 251) as u8 ^ (n / 251 % 256) as u8).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStore;
    use object_store::memory::InMemory;

    use super::super::fault::{Failure, Fault, FaultStore, Operation};
    use super::*;

    #[tokio::test]
    async fn memory_passes() {
        let store = Store::new(Arc::new(InMemory::new()), "memory");
        run_all(&store).await.unwrap();
        assert!(store.list(&Key::default(), 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_store_that_breaks_a_promise_fails_the_check_of_that_name() {
        for (operation, fault, check) in [
            (Operation::Get, Fault::Truncated, "what is put is read whole"),
            (Operation::Get, Fault::FlippedBit, "what is put is read whole"),
            (Operation::GetRange, Fault::FlippedBit, "ranges are exact"),
            (Operation::List, Fault::ShortList, "a listing is current"),
            (Operation::Delete, Fault::Before(Failure::NotFound), "a listing is current"),
            (Operation::Put, Fault::Before(Failure::Server), "16 MiB are kept"),
            (Operation::Create, Fault::Before(Failure::Exists), "a key is created once"),
            (Operation::Create, Fault::After(Failure::Exists), "a race to create has one winner"),
        ] {
            let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let faulty = FaultStore::new(memory, move |call| (call.operation == operation).then_some(fault));
            let failed = run_all(&Store::new(Arc::new(faulty), "test")).await.unwrap_err();
            assert!(failed.contains(check), "{operation:?} {fault:?}: {failed}");
        }
    }
}
