//! What is left after a long life takes little more than a fresh repository with the same snapshots.

use std::sync::Arc;

use ghostsync_core::guard::Cap;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::Selector;
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::testing::tree::noise;
use object_store::memory::InMemory;

use super::support::{History, pruned, write_file};

struct Life {
    snapshots: u64,
    files: u64,
    file_bytes: usize,
    /// Files that change from one snapshot to the next, chosen among the first so many.
    changes: u64,
    among: u64,
}

impl Life {
    /// Lives it; then, as often as asked for: forgets all but the head and its parent, which a forget never drops,
    /// prunes, and backs up another change. Tells what was left after each prune, as a multiple of what a repository
    /// takes that has never had any other snapshot, commits included.
    async fn live(&self, rounds: usize) -> Vec<f64> {
        let mut history = History::new(Arc::new(InMemory::new())).await.without_copies();
        (0..self.files).for_each(|file| write_file(&history.source(), file, 0, self.file_bytes));
        let _ = history.back_up("main").await;
        for version in 1..self.snapshots {
            for change in 0..self.changes {
                let scattered = noise(version * self.changes + change, 8);
                let scattered = scattered.iter().fold(0, |sum, byte| sum * 251 + u64::from(*byte));
                write_file(&history.source(), scattered % self.among, version, self.file_bytes);
            }
            let _ = history.back_up("main").await;
        }
        let mut left = Vec::new();
        for round in 0..rounds as u64 {
            if round > 0 {
                write_file(&history.source(), round, self.snapshots + round, self.file_bytes);
                let _ = history.back_up("main").await;
            }
            let parent = history.state().await.commit.head("main").and_then(|head| head.parent);
            history.forget(|snapshot| Some(snapshot.id) != parent).await;
            let _ = pruned(&history.repository).await;
            left.push(history.bytes("").await as f64 / fresh(&history).await as f64);
        }
        println!("{} snapshots, against a fresh repository: {left:.3?}", self.snapshots);
        history.assert_all_restore("after a long life").await;
        left
    }
}

/// What a repository takes in which the retained snapshots are all that ever was.
async fn fresh(history: &History) -> u64 {
    let mut fresh = History::new(Arc::new(InMemory::new())).await.without_copies();
    for snapshot in &history.state().await.commit.snapshots {
        let options = RestoreOptions {
            snapshot: Selector::Id(snapshot.id.to_string()),
            delete: true,
            max_delete: Cap::Percent(100),
            ..RestoreOptions::default()
        };
        let report = restore(&history.repository, &fresh.source(), options, Arc::new(NoObserver)).await;
        assert!(report.expect("a restore").problems.is_empty());
        let _ = fresh.back_up("main").await;
    }
    fresh.bytes("").await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_same_files_change_a_prune_alone_leaves_little_more_than_a_fresh_repository_takes() {
    let life = Life { snapshots: 60, files: 600, file_bytes: 8000, changes: 40, among: 40 };
    let left = life.live(2).await;
    assert!(left.iter().all(|left| *left <= 1.3), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_any_file_changes_it_takes_backups_until_the_old_snapshots_have_gone() {
    let life = Life { snapshots: 60, files: 600, file_bytes: 8000, changes: 30, among: 600 };
    let left = life.live(4).await;
    // The second backup is the first whose parent has moved out of what drains.
    assert!(left[0] > 2.0 && left[2] < 1.4 && left[3] <= 1.3, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: 500 snapshots; `just scale` runs it"]
async fn scale_after_five_hundred_snapshots_little_more_is_left_than_a_fresh_repository_takes() {
    let same = Life { snapshots: 500, files: 2000, file_bytes: 20_000, changes: 20, among: 200 };
    let left = same.live(3).await;
    assert!(left.iter().any(|left| *left <= 1.3), "{left:?}");
    let any = Life { among: 2000, ..same };
    let left = any.live(4).await;
    assert!(left[3] <= 1.3, "{left:?}");
}
