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
    async fn new(seed: u64) -> Self {
        let store = Arc::new(InMemory::new());
        let repository = create(store.clone()).await;
        let source = tempfile::tempdir().expect("a folder");
        for folder in 0..3 {
            fs::create_dir(source.path().join(folder.to_string())).expect("a folder");
            for file in 0..250 {
                let content = noise(seed + folder * 1000 + file, 200);
                fs::write(source.path().join(format!("{folder}/{file:03}")), content).expect("a file");
            }
        }
        back_up(&repository, source.path()).await;
        fs::write(source.path().join("0/000"), "changed").expect("a file");
        fs::write(source.path().join("large"), noise(seed + 7, 3 << 20)).expect("a file");
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

/// Everything that can be wrong with an object; strangers are objects of its kind.
fn damages(bytes: &Bytes, strangers: [Option<&Bytes>; 2]) -> Vec<(String, Option<Bytes>)> {
    let mut damages = vec![("deleted".to_owned(), None), ("emptied".to_owned(), Some(Bytes::new()))];
    for end in [bytes.len() / 2, bytes.len() - 1] {
        damages.push((format!("cut to {end}"), Some(bytes.slice(..end))));
    }
    for at in [0, bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(12), bytes.len() - 1] {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 4;
        damages.push((format!("flipped at {at}"), Some(flipped.into())));
    }
    for (stranger, whose) in strangers.into_iter().zip(["this", "another"]) {
        let stranger = stranger.filter(|stranger| *stranger != bytes).cloned();
        damages.extend(stranger.map(|stranger| (format!("swapped with one of {whose} repository"), Some(stranger))));
    }
    damages.push(("overgrown".to_owned(), Some([bytes, &noise(1, 70_000)[..]].concat().into())));
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

async fn checked(store: &Arc<InMemory>, read_data: ReadData) -> ghostsync_core::Result<CheckReport> {
    let repository = open(Arc::clone(store)).await?;
    let options = CheckOptions { read_data, ..CheckOptions::default() };
    check(&repository, options, &NoObserver).await
}

/// Restores everything that can be, and then all or nothing; tells how many files of how many came back.
async fn restored(store: &Arc<InMemory>, sample: &Sample, case: &str) -> usize {
    let destination = quick_folder();
    let (strict, lenient) = (destination.path().join("strict"), destination.path().join("lenient"));
    let Ok(repository) = open(Arc::clone(store)).await else { return 0 };
    let keep_going = RestoreOptions { keep_going: true, ..RestoreOptions::default() };
    let rest = restore(&repository, &lenient, keep_going, Arc::new(NoObserver)).await;
    let rest_files = assert_nothing_wrong(sample.source.path(), &lenient, case);
    if let Ok(rest) = &rest {
        assert!(rest.damaged == (rest_files < TOTAL), "{case}: {rest_files} files, {rest:?}");
    }
    let all = restore(&repository, &strict, RestoreOptions::default(), Arc::new(NoObserver)).await;
    let files = assert_nothing_wrong(sample.source.path(), &strict, case);
    match all {
        Ok(done) => assert!(files == TOTAL && !done.damaged, "{case}: {files} files"),
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unsupported),
            "{case}: {error}"
        ),
    }
    rest_files.max(files)
}

const TOTAL: usize = 3 * 250 + 1;

#[tokio::test(flavor = "multi_thread")]
async fn every_damage_is_named_and_no_wrong_byte_is_restored() {
    let (sample, other) = (Sample::new(0).await, Sample::new(100_000).await);
    let of_kind = |sample: &Sample, wanted: &str| {
        let objects = sample.objects.iter().filter(|(key, _)| kind(key) == wanted);
        objects.map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>()
    };
    assert!(of_kind(&sample, "data").len() >= 3, "{:?}", sample.objects);
    let newest = sample.objects.iter().rev().find(|(key, _)| key.as_ref().starts_with("log/")).expect("one").0.clone();
    let mut named = 0;
    for (key, bytes) in &sample.objects {
        let ours = of_kind(&sample, kind(key));
        let place = ours.iter().position(|other| other == bytes).expect("among them");
        let theirs = of_kind(&other, kind(key));
        let strangers = [ours.get((place + 1) % ours.len()), theirs.get(place)];
        for (damage, left) in damages(bytes, strangers) {
            let case = format!("{key} {damage}");
            let store = sample.with(key, left).await;
            let report = checked(&store, ReadData::All).await;
            let is_hint = key.as_ref() == "head.json";
            let files = if *key == newest && damage == "deleted" {
                // The snapshot before it is the newest for everybody but a check.
                TOTAL
            } else {
                restored(&store, &sample, &case).await
            };
            assert!(!is_hint || files == TOTAL, "{case}: a hint that is wrong or gone costs requests alone");
            let report = match report {
                // A configuration that cannot be read at all is an error before anything can be checked.
                Err(error) => {
                    assert!(key.as_ref() == "config.json" && error.kind() == ErrorKind::Corrupt, "{case}: {error}");
                    continue;
                }
                Ok(report) => report,
            };
            let text = format!("{:?}", report.damage);
            if is_hint && (damage == "deleted" || report.damage.is_empty()) {
                assert!(report.damage.is_empty() && !damage.starts_with("flipped"), "{case}: {text}");
                continue;
            }
            assert!(text.contains(key.as_ref()), "{case}: {text}");
            named += 1;
            if !key.as_ref().starts_with("packs/") {
                continue;
            }
            let others = report.damage.iter().filter(|damage| damage.object != key.as_ref());
            assert_eq!(others.count(), 0, "{case}: {text}");
            let affected: u64 = report.damage.iter().map(|damage| damage.affected).sum();
            let has_snapshots = report.damage.iter().any(|damage| !damage.snapshots.is_empty());
            assert!(files == TOTAL || (affected > 0 && has_snapshots), "{case}: {text}");
            if damage == "deleted" || damage == "emptied" {
                // Nothing need be read to notice this.
                let structure = checked(&store, ReadData::No).await.expect("a report");
                let is_named = structure.damage.iter().any(|damage| damage.object == key.as_ref());
                assert!(is_named && structure.read_bytes == 0, "{case}: {structure:?}");
            }
        }
    }
    println!("{named} damages named");
}
