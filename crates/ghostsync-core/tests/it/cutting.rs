//! What a backup stores is cut as `docs/format.md` says: a second writer, made from that page, gets the same ids.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ghostsync_core::backup::{BackupOptions, backup};
use ghostsync_core::format::page::Placed;
use ghostsync_core::id::{PackName, SessionId};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository};
use ghostsync_core::store::Store;
use ghostsync_core::tree_path::TreePath;
use object_store::memory::InMemory;

use crate::golden::LAST_OF_ITS_PAGE;
use crate::small_writer::PackWriter;

/// Backs a directory up, checks that both writers agree, and tells the level of the root.
async fn level_of_agreed_tree(source: &Path) -> u8 {
    let store = Store::new(Arc::new(InMemory::new()), "memory");
    let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
    let repository = Repository::create(store, create, OpenOptions::default()).await.expect("a new repository");
    drop(backup(&repository, source, BackupOptions::default(), Arc::new(NoObserver)).await.expect("a backup"));
    let state = repository.state().await.expect("a state");
    let tree = &state.commit.head("main").expect("a head").tree;
    let mut reader = repository.entries(state.commit.head("main").expect("a head"), &TreePath::root());
    let mut entries: Vec<Placed> = Vec::new();
    while let Some(page) = reader.next_page().await.expect("a page") {
        entries.extend(page);
    }
    let name = PackName { begin: 0, session: SessionId::from_bytes([0; 16]), number: 0 };
    let root = PackWriter::new(name).push_tree(&entries);
    assert_eq!((root.page, root.level), (tree.page, tree.level));
    root.level
}

#[tokio::test]
async fn a_backup_cuts_pages_as_the_document_says() {
    let source = tempfile::tempdir().expect("a folder");
    fs::create_dir(source.path().join("folder")).expect("made");
    for number in 0..5000 {
        fs::write(source.path().join(format!("folder/{number}")), b"").expect("written");
    }
    assert_eq!(level_of_agreed_tree(source.path()).await, 1);
}

#[tokio::test]
async fn a_page_above_the_leaves_has_two_lines_before_a_name_ends_it() {
    let source = tempfile::tempdir().expect("a folder");
    for name in ["a", LAST_OF_ITS_PAGE, "z"] {
        fs::write(source.path().join(name), b"").expect("written");
    }
    assert_eq!(level_of_agreed_tree(source.path()).await, 1);
}
