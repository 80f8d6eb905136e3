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
    /// Which snapshots are kept beside the head and its parent, which a forget never drops: every so many, counted back.
    kept_every: u64,
}

impl Life {
    /// Lives it, forgets, and prunes; backs up another change, and prunes. Tells what was left after each prune,
    /// as a multiple of what a repository takes that has never had any other snapshots, commits included.
    async fn live(&self) -> [f64; 2] {
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
        let mut left = [0.0; 2];
        for (round, left) in left.iter_mut().enumerate() {
            if round > 0 {
                write_file(&history.source(), 0, self.snapshots, self.file_bytes);
                let _ = history.back_up("main").await;
            }
            if round == 0 {
                let snapshots = history.state().await.commit.snapshots;
                let parent = snapshots.last().and_then(|head| head.parent);
                let old = snapshots.iter().rev().step_by(self.kept_every as usize).map(|snapshot| snapshot.id);
                let kept: Vec<_> = old.chain(parent).collect();
                history.forget(|snapshot| !kept.contains(&snapshot.id)).await;
            }
            let report = pruned(&history.repository).await;
            println!("packs {} log {}", history.bytes("packs").await, history.bytes("log").await);
            println!("{} of {} packs moved, {:?}", report.moved_packs, report.kept_packs, report.requests);
            *left = history.bytes("").await as f64 / fresh(&history).await as f64;
        }
        let kept = history.state().await.commit.snapshots.len();
        println!("{} snapshots, {kept} kept, against a fresh repository: {left:.3?}", self.snapshots);
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
    println!("fresh: packs {} log {}", fresh.bytes("packs").await, fresh.bytes("log").await);
    fresh.bytes("").await
}

const LIFE: Life = Life { snapshots: 60, files: 600, file_bytes: 8000, changes: 30, among: 600, kept_every: 1000 };

#[tokio::test(flavor = "multi_thread")]
async fn where_the_same_files_change_a_prune_alone_leaves_little_more_than_a_fresh_repository_takes() {
    let left = Life { changes: 40, among: 40, ..LIFE }.live().await;
    assert!(left.iter().all(|left| *left <= 1.3), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_any_file_changes_the_next_backup_and_prune_leave_little_more() {
    let left = LIFE.live().await;
    assert!(left[0] > 1.5, "there is something left for the backup to do: {left:?}");
    assert!(left[1] <= 1.3, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_snapshots_that_are_kept_do_not_keep_what_is_dead() {
    let left = Life { kept_every: 15, ..LIFE }.live().await;
    assert!(left[1] <= 1.3, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_many_snapshots_have_made_is_put_together_again() {
    let mut history = History::new(Arc::new(InMemory::new())).await.without_copies();
    for file in 0..60 {
        write_file(&history.source(), file, 0, 3000);
        let _ = history.back_up("main").await;
    }
    let mut packs = Vec::new();
    for round in 0..3 {
        let head = history.state().await.commit.snapshots.last().cloned().expect("a head");
        let parent = head.parent.expect("a parent");
        history.forget(|snapshot| snapshot.id != parent).await;
        let report = pruned(&history.repository).await;
        packs.push((report.kept_packs, report.draining_packs, report.moved_packs));
        write_file(&history.source(), round, 1, 3000);
        let _ = history.back_up("main").await;
    }
    println!("{packs:?}");
    // One of data of each snapshot and one of the pages of both; 16 stay; the head's, and what is left of its parent's.
    assert_eq!(packs[0], (62, 44, 0));
    assert_eq!((packs[1].1, packs[1].2), (0, 44));
    assert!(packs[2].0 < 25 && packs[2].1 == 0, "{packs:?}");
    history.assert_all_restore("after it was put together").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: 500 snapshots; `just scale` runs it"]
async fn scale_after_five_hundred_snapshots_little_more_is_left_than_a_fresh_repository_takes() {
    let life = Life { snapshots: 500, files: 2000, file_bytes: 20_000, changes: 20, among: 2000, kept_every: 1000 };
    for life in [Life { among: 200, ..life }, Life { kept_every: 50, ..life }, life] {
        let left = life.live().await;
        assert!(left[1] <= 1.3, "{left:?}");
    }
}
