//! Every kind of object, damaged in every way: `check` names it, and no wrong byte is ever restored.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ghostsync_core::ErrorKind;
use ghostsync_core::maintain::{CheckOptions, CheckReport, ReadData, check};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{OpenOptions, Repository};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::tree::noise;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::restoring::{back_up, create, quick_folder};

/// The objects of a repository with three snapshots, and the source as it is in the newest.
struct Sample {
    objects: Vec<(Key, Bytes)>,
    source: tempfile::TempDir,
}

impl Sample {
    async fn new() -> Self {
        let store = Arc::new(InMemory::new());
        let repository = create(store.clone()).await;
        let source = tempfile::tempdir().expect("a folder");
        for folder in 0..3 {
            fs::create_dir(source.path().join(folder.to_string())).expect("a folder");
            for file in 0..250 {
                let content = noise(folder * 1000 + file, 200);
                fs::write(source.path().join(format!("{folder}/{file:03}")), content).expect("a file");
            }
        }
        back_up(&repository, source.path()).await;
        fs::write(source.path().join("0/000"), "changed").expect("a file");
        fs::write(source.path().join("large"), noise(7, 3 << 20)).expect("a file");
        back_up(&repository, source.path()).await;
        fs::write(source.path().join("2/249"), "changed too").expect("a file");
        back_up(&repository, source.path()).await;
        let mut objects = Vec::new();
        for meta in futures::TryStreamExt::try_collect::<Vec<_>>(store.list(None)).await.expect("a listing") {
            let bytes = store.get(&meta.location).await.expect("an object").bytes().await.expect("its bytes");
            objects.push((meta.location, bytes));
        }
        objects.sort();
        Self { objects, source }
    }

    /// The repository with one object as `damage` leaves it (`None`: gone).
    async fn with(&self, key: &Key, damage: Option<Bytes>) -> Arc<InMemory> {
        let store = Arc::new(InMemory::new());
        for (name, bytes) in &self.objects {
            let bytes = if name == key { damage.clone() } else { Some(bytes.clone()) };
            if let Some(bytes) = bytes {
                store.put(name, bytes.into()).await.expect("stored");
            }
        }
        store
    }
}

async fn open(store: Arc<InMemory>) -> ghostsync_core::Result<Repository> {
    Repository::open(Store::new(store, "memory"), OpenOptions::default()).await
}

/// Everything that can be wrong with an object.
fn damages(bytes: &Bytes, stranger: Option<&Bytes>) -> Vec<(String, Option<Bytes>)> {
    let mut damages = vec![("deleted".to_owned(), None), ("emptied".to_owned(), Some(Bytes::new()))];
    for end in [bytes.len() / 2, bytes.len() - 1] {
        damages.push((format!("cut to {end}"), Some(bytes.slice(..end))));
    }
    for at in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 4;
        damages.push((format!("flipped at {at}"), Some(flipped.into())));
    }
    damages.extend(stranger.map(|stranger| ("swapped".to_owned(), Some(stranger.clone()))));
    damages
}

fn kind(key: &Key) -> &str {
    key.as_ref().rsplit('.').next().unwrap_or_default()
}

/// Every file that is there is exactly that of the source.
fn assert_nothing_wrong(source: &Path, destination: &Path, case: &str) -> usize {
    let mut files = 0;
    let mut folders = vec![destination.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".ghostsync")) {
                continue;
            }
            files += 1;
            let original = source.join(path.strip_prefix(destination).expect("below"));
            assert!(fs::read(&path).expect("read") == fs::read(original).expect("read"), "{case}: {}", path.display());
        }
    }
    files
}

async fn checked(store: &Arc<InMemory>) -> ghostsync_core::Result<CheckReport> {
    let repository = open(Arc::clone(store)).await?;
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    check(&repository, options, &NoObserver).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_named_and_no_wrong_byte_is_restored() {
    let sample = Sample::new().await;
    let total = 3 * 250 + 1;
    let keys: Vec<&Key> = sample.objects.iter().map(|(key, _)| key).collect();
    assert!(keys.iter().filter(|key| kind(key) == "data").count() >= 3, "{keys:?}");
    let (mut named, mut harmless) = (0, 0);
    for (key, bytes) in &sample.objects {
        let stranger = sample.objects.iter().find(|(other, _)| other != key && kind(other) == kind(key));
        for (damage, left) in damages(bytes, stranger.map(|(_, bytes)| bytes)) {
            let case = format!("{key} {damage}");
            let store = sample.with(key, left).await;
            let report = checked(&store).await;
            if damage == "deleted"
                && *key == **keys.iter().rev().find(|key| key.as_ref().starts_with("log/")).expect("one")
            {
                // It cannot be told from a commit that was never made: the snapshot before it is the newest.
                assert!(report.expect("a report").damage.is_empty(), "{case}");
                continue;
            }
            let destination = quick_folder();
            let strict = destination.path().join("strict");
            let lenient = destination.path().join("lenient");
            let restored = match open(Arc::clone(&store)).await {
                Err(error) => Err(error),
                Ok(repository) => {
                    let keep_going = RestoreOptions { keep_going: true, ..RestoreOptions::default() };
                    let rest = restore(&repository, &lenient, keep_going, Arc::new(NoObserver)).await;
                    if let Ok(rest) = &rest {
                        let files = assert_nothing_wrong(sample.source.path(), &lenient, &case);
                        assert!(rest.damaged == (files < total), "{case}: {files} files, {rest:?}");
                    }
                    restore(&repository, &strict, RestoreOptions::default(), Arc::new(NoObserver)).await
                }
            };
            let files = assert_nothing_wrong(sample.source.path(), &strict, &case);
            match restored {
                Ok(done) => assert!(files == total && !done.damaged, "{case}: {files} files"),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unsupported),
                    "{case}: {error}"
                ),
            }
            if key.as_ref() == "head.json" {
                // A hint: wrong or gone, it costs requests.
                assert!(files == total && report.expect("a report").damage.is_empty(), "{case}");
                harmless += 1;
                continue;
            }
            match report {
                // A configuration that cannot be read at all is an error before anything can be checked.
                Err(error) => assert!(key.as_ref() == "config.json", "{case}: {error}"),
                Ok(report) => {
                    let text = format!("{:?}", report.damage);
                    let is_newest =
                        *key == **keys.iter().rev().find(|key| key.as_ref().starts_with("log/")).expect("one");
                    // A lost newest commit cannot be told from one that was never made, once the hint is gone too.
                    assert!(!report.damage.is_empty() || is_newest, "{case} is not noticed");
                    assert!(
                        text.contains(key.as_ref()) || is_newest || key.as_ref().starts_with("log"),
                        "{case}: {text}"
                    );
                    if files < total && kind(key) != "zst" {
                        let affected: u64 = report.damage.iter().map(|damage| damage.affected).sum();
                        assert!(
                            affected > 0 && report.damage.iter().any(|damage| !damage.snapshots.is_empty()),
                            "{case}"
                        );
                    }
                    named += 1;
                }
            }
        }
    }
    println!("{named} damages named, {harmless} harmless");
}
