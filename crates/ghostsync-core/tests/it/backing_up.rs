//! What a backup stores, and what it does not store again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, backup};
use ghostsync_core::observer::{NoObserver, Progress};
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::tree::noise;
use ghostsync_core::tree_path::TreePath;
use object_store::memory::InMemory;

async fn repository() -> Repository {
    let store = Store::new(Arc::new(InMemory::new()), "memory");
    let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
    Repository::create(store, create, OpenOptions::default()).await.expect("a new repository")
}

async fn run(repository: &Repository, source: &Path) -> BackupReport {
    backup(repository, source, BackupOptions::default(), Arc::new(NoObserver)).await.expect("a backup")
}

#[tokio::test]
async fn a_tree_is_stored_and_an_unchanged_one_is_not_stored_again() {
    let repository = repository().await;
    let source = tempfile::tempdir().expect("a folder");
    fs::create_dir(source.path().join("d")).expect("made");
    fs::write(source.path().join("d/a"), b"hello").expect("written");
    fs::write(source.path().join("large"), vec![7; 5 << 20]).expect("written");
    let first = run(&repository, source.path()).await;
    assert_eq!((first.outcome, first.entries, first.bytes), (BackupOutcome::Done, 3, 5 + (5 << 20)));
    let second = run(&repository, source.path()).await;
    assert_eq!((second.outcome, second.snapshot), (BackupOutcome::Unchanged, first.snapshot));
    assert_eq!(second.requests.put, 0);

    let state = repository.state().await.expect("a state");
    let snapshot = state.commit.head("main").expect("a head");
    let mut entries = repository.entries(snapshot, &TreePath::root());
    let mut names = Vec::new();
    while let Some(page) = entries.next_page().await.expect("a page") {
        for placed in page {
            names.push(placed.entry.path.to_string());
            if placed.entry.path.as_bytes() == b"d/a" {
                let mut content = Vec::new();
                repository.cat(&placed, &mut content).await.expect("content");
                assert_eq!(content, b"hello");
            }
        }
    }
    assert_eq!(names, ["", "d", "d/a", "large"]);
}

#[tokio::test]
async fn a_hard_link_that_is_carried_forward_without_its_first_member_can_be_restored() {
    let repository = repository().await;
    let source = tempfile::tempdir().expect("a folder");
    let path = |name: &str| source.path().join(name);
    fs::write(path("first"), b"one content").expect("written");
    for name in ["second", "third"] {
        fs::hard_link(path("first"), path(name)).expect("linked");
    }
    let _ = run(&repository, source.path()).await;
    // The first name goes; the others get content that cannot be read: something else stands there by then.
    for name in ["first", "second", "third"] {
        fs::remove_file(path(name)).expect("removed");
    }
    fs::write(path("second"), b"changed").expect("written");
    fs::write(path("third"), b"changed").expect("written");
    let replace = {
        let paths = [path("second"), path("third")];
        move |progress| {
            if matches!(progress, Progress::Planned { .. }) {
                for path in &paths {
                    fs::remove_file(path).and_then(|()| fs::create_dir(path)).expect("replaced");
                }
            }
        }
    };
    let report = backup(&repository, source.path(), BackupOptions::default(), Arc::new(replace)).await;
    let report = report.expect("a backup");
    assert_eq!(report.problems.len(), 2, "{:?}", report.problems);

    let folder = tempfile::tempdir().expect("a folder");
    let destination = folder.path().join("destination");
    let restored = restore(&repository, &destination, RestoreOptions::default(), Arc::new(NoObserver)).await;
    assert!(!restored.expect("a restore").damaged);
    let inode = |name: &str| fs::metadata(destination.join(name)).expect("there").ino();
    assert_eq!(fs::read(destination.join("second")).expect("there"), b"one content");
    assert_eq!(inode("second"), inode("third"));
    assert!(!destination.join("first").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_that_has_grown_since_it_was_looked_at_is_read_whole() {
    let repository = repository().await;
    let source = tempfile::tempdir().expect("a folder");
    for name in ["a", "b", "c", "d"] {
        fs::write(source.path().join(name), name).expect("written");
    }
    let path = source.path().join("b");
    let grow = move |progress| {
        if matches!(progress, Progress::Planned { .. }) {
            write_large(&path, 20);
        }
    };
    let report = backup(&repository, source.path(), BackupOptions::default(), Arc::new(grow)).await.expect("a backup");
    assert_eq!((report.entries, report.bytes, report.problems), (4, 3 + (20 << 20), Vec::new()));
    let folder = tempfile::tempdir().expect("a folder");
    let destination = folder.path().join("destination");
    let restored = restore(&repository, &destination, RestoreOptions::default(), Arc::new(NoObserver)).await;
    assert_eq!(restored.expect("a restore").problems, Vec::new());
    for name in ["a", "b", "c", "d"] {
        let read = |folder: &Path| fs::read(folder.join(name)).expect("read");
        assert!(read(&destination) == read(source.path()), "{name}");
    }
}

/// A file of so many MiB that do not compress, written in pieces.
fn write_large(path: &Path, megabytes: u64) {
    let mut file = fs::File::create(path).expect("a file");
    for number in 0..megabytes {
        std::io::Write::write_all(&mut file, &noise(number, 1 << 20)).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_large_file_had_is_not_stored_again_when_it_changes_moves_or_is_copied() {
    let repository = repository().await;
    let source = tempfile::tempdir().expect("a folder");
    let at = |name: &str| source.path().join(name);
    // More chunks than an entry names itself.
    let megabytes = 400;
    write_large(&at("large"), megabytes);
    let first = run(&repository, source.path()).await;
    assert!(first.uploaded_bytes > megabytes << 20);

    let mut file = fs::File::options().write(true).open(at("large")).expect("a file");
    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(100 << 20)).expect("there");
    std::io::Write::write_all(&mut file, b"changed").expect("written");
    drop(file);
    let changed = run(&repository, source.path()).await;
    assert_eq!((changed.outcome, changed.changes.changed), (BackupOutcome::Done, 1));
    assert!(changed.uploaded_bytes < 12 << 20, "{} bytes for a changed chunk", changed.uploaded_bytes);

    fs::rename(at("large"), at("moved")).expect("moved");
    fs::copy(at("moved"), at("copy")).expect("copied");
    let moved = run(&repository, source.path()).await;
    assert_eq!((moved.changes.moved, moved.changes.added), (1, 1));
    assert!(moved.uploaded_bytes < 1 << 20, "{} bytes for no new chunk", moved.uploaded_bytes);
}
