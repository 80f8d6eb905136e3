//! Repositories as earlier releases stored them: every one can still be read, and every format has one.
//!
//! `tests/frozen/format-<n>/` holds a repository, which is never changed again, and `expected.json`: what each of its
//! snapshots restores to. A new format brings its own: `just freeze` makes it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ghostsync_core::backup::{BackupOptions, OnRefusal, backup};
use ghostsync_core::format::FORMAT;
use ghostsync_core::maintain::{CheckOptions, ReadData, check};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, Selector, claim, hold, promote, tag};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::{StoreSettings, open_url};
use ghostsync_core::testing::tree::noise;
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/frozen")
}

/// What a directory holds: each path, escaped, with what a restore must bring back for any user.
fn listing(root: &Path) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        let name = path.strip_prefix(root).expect("below").as_os_str().as_bytes().escape_ascii().to_string();
        let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
        let entry = if metadata.is_symlink() {
            json!({"kind": "link", "target": fs::read_link(&path).expect("a link").to_string_lossy(), "mtime": time})
        } else if metadata.is_dir() {
            left.extend(fs::read_dir(&path).expect("listed").map(|entry| entry.expect("an entry").path()));
            json!({"kind": "directory", "mode": metadata.mode() & 0o7777, "mtime": time})
        } else {
            let content = fs::read(&path).expect("readable");
            let hash = blake3::hash(&content).to_hex().to_string();
            json!({
                "kind": "file", "mode": metadata.mode() & 0o7777, "mtime": time, "bytes": content.len(), "hash": hash,
                "links": metadata.nlink(),
            })
        };
        found.insert(name, entry);
    }
    found
}

fn open_folder(folder: &Path) -> ghostsync_core::store::Store {
    open_url(folder.to_str().expect("UTF-8"), &StoreSettings::default(), true).expect("a store")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("an entry").path();
        let name = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &name);
        } else {
            fs::copy(&path, &name).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_of_every_format_are_read_as_they_were_stored() {
    for format in 1..=FORMAT {
        let fixture = fixtures().join(format!("format-{format}"));
        assert!(fixture.exists(), "format {format} has no frozen repository; just freeze makes one");
        let folder = tempfile::tempdir().expect("a folder");
        // A copy: whatever is done here, the fixture stays.
        let place = folder.path().join("repository");
        copy(&fixture.join("repository"), &place);
        let repository = Repository::open(open_folder(&place), OpenOptions::default()).await.expect("opens");
        assert_eq!(u64::from(repository.config().format), u64::from(format));
        let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        let checked = check(&repository, options, &NoObserver).await.expect("a check");
        assert!(checked.damage.is_empty(), "{:?}", checked.damage);

        let text = fs::read_to_string(fixture.join("expected.json")).expect("what is expected");
        let expected: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&text).expect("JSON");
        let state = repository.state().await.expect("a state");
        assert_eq!(state.commit.snapshots.len(), expected.len());
        for (snapshot, listed) in expected {
            let back = folder.path().join(&snapshot);
            let options = RestoreOptions { snapshot: Selector::Id(snapshot.clone()), ..RestoreOptions::default() };
            let restored = restore(&repository, &back, options, Arc::new(NoObserver)).await.expect("a restore");
            assert!(!restored.problems.iter().any(|problem| problem.incomplete), "{:?}", restored.problems);
            assert_eq!(listing(&back), listed, "format {format}, snapshot {snapshot}");
        }

        // And it can be written to.
        fs::write(folder.path().join("new"), "new").expect("written");
        let source = folder.path().join(state.commit.snapshots[0].id.to_string());
        fs::rename(folder.path().join("new"), source.join("new")).expect("moved");
        let options = BackupOptions { branch: "other".into(), ..BackupOptions::default() };
        assert!(
            backup(&repository, &source, options, Arc::new(NoObserver)).await.expect("a backup").snapshot.is_some()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes the frozen repository of a new format (just freeze)"]
async fn freeze_this_format() {
    let fixture = fixtures().join(format!("format-{FORMAT}"));
    assert!(!fixture.exists(), "{} is frozen", fixture.display());
    fs::create_dir_all(&fixture).expect("a folder");
    let place = fixture.join("repository");
    let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
    let repository = Repository::create(open_folder(&place), create, OpenOptions::default()).await.expect("created");
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path();
    let mut expected = BTreeMap::new();
    let run = async |options: BackupOptions| {
        let report = backup(&repository, source, options, Arc::new(NoObserver)).await.expect("a backup");
        (report.snapshot.expect("a snapshot"), listing(source))
    };

    fs::create_dir_all(source.join("content/empty")).expect("a folder");
    fs::write(source.join("content/text"), "a line of text\n".repeat(2000)).expect("written");
    fs::hard_link(source.join("content/text"), source.join("linked")).expect("linked");
    fs::write(source.join(std::ffi::OsStr::from_bytes(b"caf\xe9\nname")), noise(1, 700)).expect("written");
    std::os::unix::fs::symlink("content/text", source.join("link")).expect("linked");
    // Several chunks, and a hole between them.
    let sparse = fs::File::create(source.join("sparse")).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&sparse, &b"many equal lines\n".repeat(100_000), 0).expect("written");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"the end", 6 << 20).expect("written");
    fs::set_permissions(source.join("content/text"), PermissionsExt::from_mode(0o640)).expect("set");
    let (first, listed) = run(BackupOptions::default()).await;
    expected.insert(first.to_string(), listed);
    tag(&repository, first, &[("made".into(), "first".into())], &[], "freezer").await.expect("tagged");
    hold(&repository, first, Some("frozen"), "freezer").await.expect("held");

    for number in 0..1200 {
        let name = format!("many/{:02}/{number:04}", number % 7);
        fs::create_dir_all(source.join(&name).parent().expect("above")).expect("a folder");
        fs::write(source.join(name), number.to_string()).expect("written");
    }
    fs::remove_file(source.join("link")).expect("removed");
    let (second, listed) = run(BackupOptions::default()).await;
    expected.insert(second.to_string(), listed);

    fs::remove_dir_all(source.join("many")).expect("removed");
    let (refused, listed) = run(BackupOptions { on_refusal: OnRefusal::Quarantine, ..BackupOptions::default() }).await;
    expected.insert(refused.to_string(), listed.clone());
    let promoted = promote(&repository, refused, "freezer").await.expect("promoted");
    expected.insert(promoted.id.to_string(), listed);
    claim(&repository, "main", "pod-0", "freezer").await.expect("claimed");
    fs::write(source.join("late"), "too late").expect("written");
    let (forked, listed) = run(BackupOptions::default()).await;
    expected.insert(forked.to_string(), listed);
    let text = serde_json::to_string_pretty(&expected).expect("JSON");
    fs::write(fixture.join("expected.json"), text + "\n").expect("written");
}
