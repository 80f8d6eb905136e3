//! What a backup stores is cut as `docs/format.md` says: a second writer, made from that page, gets the same ids.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ghostsync_core::backup::{BackupOptions, backup};
use ghostsync_core::format::page::{Placed, ends_tree_page};
use ghostsync_core::id::{PackName, SessionId};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository};
use ghostsync_core::store::Store;
use ghostsync_core::tree_path::TreePath;
use object_store::memory::InMemory;

use crate::golden::LAST_OF_ITS_PAGE;
use crate::small_writer::PackWriter;

async fn new_repository() -> Repository {
    let store = Store::new(Arc::new(InMemory::new()), "memory");
    let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
    Repository::create(store, create, OpenOptions::default()).await.expect("a new repository")
}

/// Backs a directory up, checks that both writers agree, and tells the entries and the level of the root.
async fn agreed_tree(repository: &Repository, source: &Path) -> (Vec<Placed>, u8) {
    drop(backup(repository, source, BackupOptions::default(), Arc::new(NoObserver)).await.expect("a backup"));
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
    (entries, root.level)
}

#[tokio::test]
async fn a_backup_cuts_pages_as_the_document_says() {
    let source = tempfile::tempdir().expect("a folder");
    fs::create_dir(source.path().join("folder")).expect("made");
    for number in 0..5000 {
        fs::write(source.path().join(format!("folder/{number}")), b"").expect("written");
    }
    let repository = new_repository().await;
    assert_eq!(agreed_tree(&repository, source.path()).await.1, 1);
    // Entries that are kept are cut as if they were new, whatever goes away or comes before, between and after them.
    for number in (0..5000).step_by(7) {
        fs::remove_file(source.path().join(format!("folder/{number}"))).expect("removed");
        fs::write(source.path().join(format!("folder/{number}-new")), b"").expect("written");
    }
    agreed_tree(&repository, source.path()).await;
    let entries = agreed_tree(&repository, source.path()).await.0;
    let ends: Vec<&Placed> = entries.iter().filter(|placed| ends_tree_page(0, &placed.entry.path)).collect();
    assert!(ends.len() > 3, "{} pages", ends.len());
    // The last of a page: what was inside now follows the end of another.
    for end in ends.iter().step_by(2) {
        fs::remove_file(source.path().join(end.entry.path.to_string())).expect("removed");
    }
    agreed_tree(&repository, source.path()).await;
}

#[tokio::test]
async fn a_page_above_the_leaves_has_two_lines_before_a_name_ends_it() {
    let source = tempfile::tempdir().expect("a folder");
    for name in ["a", LAST_OF_ITS_PAGE, "z"] {
        fs::write(source.path().join(name), b"").expect("written");
    }
    assert_eq!(agreed_tree(&new_repository().await, source.path()).await.1, 1);
}
