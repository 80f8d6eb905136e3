//! What a backup stores, and what it does not store again.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ghostsync_core::backup::{BackupOptions, BackupOutcome, BackupReport, backup};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository};
use ghostsync_core::store::Store;
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
