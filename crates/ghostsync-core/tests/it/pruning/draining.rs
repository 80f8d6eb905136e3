//! Packs that are mostly dead drain: backups that publish anyway move out of them, and a prune deletes them.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use ghostsync_core::backup::{BackupOptions, BackupOutcome, backup};
use ghostsync_core::format::config::Config;
use ghostsync_core::maintain::PruneOptions;
use ghostsync_core::observer::{NoObserver, Progress};
use ghostsync_core::testing::tree::noise;
use ghostsync_core::tree_path::TreePath;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use super::support::{History, at_once, open, packs_in, pruned, reachable, run, write_file, write_old};

const FILE_BYTES: usize = 40_000;

/// A repository whose first pack is four fifths dead, and the keys of that session's packs.
async fn mostly_dead() -> (History, BTreeSet<Key>) {
    let mut history = History::new(Arc::new(InMemory::new())).await;
    (0..100).for_each(|file| write_file(&history.source(), file, 0, FILE_BYTES));
    fs::hard_link(history.source().join("000/00004"), history.source().join("link")).expect("a link");
    write_old(&history.source().join("same"), &fs::read(history.source().join("000/00009")).expect("a file"), 0);
    let _ = history.back_up("main").await;
    let first = packs_in(&history.objects).await;
    (0..100).filter(|file| file % 5 != 4).for_each(|file| write_file(&history.source(), file, 1, FILE_BYTES));
    let _ = history.back_up("main").await;
    history.forget(|_| true).await;
    (history, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_moves_out_of_draining_packs_and_then_they_go() {
    let (mut history, first) = mostly_dead().await;
    let report = pruned(&history.repository).await;
    assert_eq!(report.draining_packs, 1, "{report:?}");
    let alive = 20 * FILE_BYTES as u64;
    // An estimate: pages do not tell how long a block is behind its last live file.
    assert!((alive * 9 / 10..alive * 11 / 10).contains(&report.draining_bytes), "{report:?}");
    let draining = history.state().await.commit.draining;
    assert!(first.contains(&Key::from(format!("packs/{}.data", draining[0]))));

    let unchanged = BackupOptions::default();
    let idle = backup(&history.repository, &history.source(), unchanged, Arc::new(NoObserver)).await;
    let idle = idle.expect("a backup");
    assert_eq!((idle.outcome, idle.requests.put), (BackupOutcome::Unchanged, 0), "it makes no backup of its own");

    let moved = history.back_up("main").await;
    assert_eq!((moved.changes.changed, moved.changes.added), (0, 0));
    assert!((alive..alive + 15_000).contains(&moved.uploaded_bytes), "{}", moved.uploaded_bytes);
    let idle = history.back_up("main").await;
    assert_eq!(idle.requests.put, 2, "a commit and a hint: nothing moves twice");

    history.forget(|_| true).await;
    let report = pruned(&history.repository).await;
    assert_eq!((report.draining_packs, history.state().await.commit.draining.len()), (0, 0));
    let left = packs_in(&history.objects).await;
    assert!(left.is_disjoint(&first), "{left:?}");
    assert_eq!(left, reachable(&history.objects, &history.state().await).await);
    history.assert_all_restore("moved").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_drains_than_may_be_rewritten() {
    let (history, _) = mostly_dead().await;
    for (files, draining) in [(15, 0), (25, 1)] {
        let options = PruneOptions { max_rewrite: files * FILE_BYTES as u64, ..at_once() };
        let report = run(&history.repository, options).await.expect("a prune");
        assert_eq!((report.draining_packs, report.draining_bytes > 0), (draining, draining > 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_when_it_is_to_be_moved_stays_where_it_is() {
    let (mut history, _) = mostly_dead().await;
    let _ = pruned(&history.repository).await;
    let file = history.source().join("000/00009");
    let content = fs::read(&file).expect("a file");
    let (gone, at) = (file.clone(), std::sync::atomic::AtomicBool::new(false));
    // After the walk, before the second pass.
    let report = history
        .back_up_watched(move |news: Progress| {
            if matches!(news, Progress::Planned { .. }) && !at.swap(true, std::sync::atomic::Ordering::SeqCst) {
                fs::remove_file(&gone).expect("removed");
            }
        })
        .await;
    assert_eq!((report.changes.removed, report.problems.len()), (0, 0), "a wish makes no snapshot incomplete");
    let state = history.state().await;
    let snapshot = state.commit.snapshot(report.snapshot.expect("one")).expect("retained");
    assert!(snapshot.complete);
    let mut entries = history.repository.entries(snapshot, &TreePath::parse("000/00009").expect("a path"));
    let placed = entries.next_page().await.expect("a page").expect("an entry");
    let mut read = Vec::new();
    history.repository.cat(&placed[0], &mut read).await.expect("content");
    assert!(read == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_chunks_are_followed_and_move_too() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    drop(History::new(objects.clone()).await);
    // Chunks so small that a file of 1.5 MB has more of them than its entry can name.
    let config = objects.get(&Key::from("config.json")).await.expect("there").bytes().await.expect("its bytes");
    let mut config = Config::decode(&config).expect("a configuration");
    config.chunker.whole_bytes = 4 << 10;
    config.chunker.min_bytes = 1 << 10;
    config.chunker.average_bytes = 4 << 10;
    config.chunker.max_bytes = 16 << 10;
    let config = config.encode().expect("encodes");
    objects.put(&Key::from("config.json"), config.into()).await.expect("put");
    let mut history = History::of(open(objects.clone()).await, objects);

    // After two packs of 4.5 MiB a third holds the end of the one file, and the other.
    write_old(&history.source().join("listed"), &noise(1, 1500 << 10), 0);
    write_old(&history.source().join("large"), &noise(2, 11 << 20), 0);
    let _ = history.back_up("main").await;
    let first = packs_in(&history.objects).await;
    write_old(&history.source().join("large"), &noise(3, 11 << 20), 1);
    let _ = history.back_up("main").await;
    history.forget(|_| true).await;
    let report = pruned(&history.repository).await;
    assert!(report.pages > 3, "a tree and at least two pages of a list: {report:?}");
    assert!(report.draining_packs >= 1, "{report:?}");
    history.assert_all_restore("draining").await;

    let _ = history.back_up("main").await;
    history.forget(|_| true).await;
    let _ = pruned(&history.repository).await;
    let left = packs_in(&history.objects).await;
    assert!(left.is_disjoint(&first), "{left:?}");
    assert_eq!(left, reachable(&history.objects, &history.state().await).await);
    history.assert_all_restore("moved").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_move_too() {
    let mut history = History::new(Arc::new(InMemory::new())).await;
    // Many pages and hardly any content; then all but the last of them change.
    for file in 0..3000 {
        write_old(&history.source().join(format!("{file:05}")), b"x", 0);
    }
    let _ = history.back_up("main").await;
    let first = packs_in(&history.objects).await;
    for file in 0..2200 {
        write_old(&history.source().join(format!("{file:05}")), b"yy", 1);
    }
    let _ = history.back_up("main").await;
    history.forget(|_| true).await;
    let report = pruned(&history.repository).await;
    assert!(report.draining_packs > 0, "{report:?}");
    let meta = |keys: &BTreeSet<Key>| keys.iter().filter(|key| key.as_ref().ends_with(".meta")).cloned().collect();
    let before: BTreeSet<Key> = meta(&first);
    assert!(before.is_subset(&packs_in(&history.objects).await));

    let _ = history.back_up("main").await;
    history.forget(|_| true).await;
    let _ = pruned(&history.repository).await;
    assert!(before.is_disjoint(&packs_in(&history.objects).await));
    history.assert_all_restore("moved").await;
}
