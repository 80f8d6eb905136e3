//! Logs that no writer would make: numbers that count to the end of the world, gaps, and hints at nothing.

use std::sync::Arc;

use ghostsync_core::ErrorKind;
use ghostsync_core::format::commit::{Commit, Snapshot};
use ghostsync_core::maintain::ReadData;
use ghostsync_core::repository::Repository;
use ghostsync_core::store::keys;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::hostile_snapshots::checked;
use crate::restoring::{back_up, create};

struct Log {
    objects: Arc<dyn ObjectStore>,
    repository: Repository,
}

impl Log {
    /// A repository with commits 1 to 4.
    async fn new() -> Self {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let repository = create(Arc::clone(&objects)).await;
        let source = tempfile::tempdir().expect("a folder");
        for number in 0..4 {
            std::fs::write(source.path().join("a"), format!("content {number}")).expect("written");
            back_up(&repository, source.path()).await;
        }
        Self { objects, repository }
    }

    async fn put(&self, key: &Key, bytes: impl Into<Vec<u8>>) {
        self.objects.put(key, bytes.into().into()).await.expect("written");
    }

    async fn get(&self, key: &Key) -> Vec<u8> {
        self.objects.get(key).await.expect("there").bytes().await.expect("read").to_vec()
    }

    async fn delete(&self, key: &Key) {
        self.objects.delete(key).await.expect("deleted");
    }

    async fn newest(&self) -> Commit {
        self.repository.state().await.expect("a state").commit
    }

    /// The objects that a check names, and the commit that it looked at.
    async fn named(&self) -> (Vec<String>, u64) {
        let report = checked(&self.repository, ReadData::No).await;
        (report.damage.into_iter().map(|damage| damage.object).collect(), report.commit)
    }
}

fn names(numbers: &[u64]) -> Vec<String> {
    numbers.iter().map(|number| keys::commit(*number).to_string()).collect()
}

#[tokio::test]
async fn a_search_for_the_newest_commit_ends_whatever_numbers_there_are() {
    let log = Log::new().await;
    let stored = log.get(&keys::commit(4)).await;
    log.delete(&keys::head()).await;
    // Wherever a search that doubles its steps looks, something lies.
    for begin in [1_u64, 2, 4] {
        for power in 0..64 {
            let number = begin.saturating_add(1 << power);
            if number > 4 {
                log.put(&keys::commit(number), stored.clone()).await;
            }
        }
    }
    log.put(&keys::commit(u64::MAX), stored.clone()).await;
    let error = log.repository.state().await.expect_err("no log");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let (named, commit) = log.named().await;
    assert!(named.contains(&keys::commit(1 << 52 | 1).to_string()) && commit == 4, "{named:?} {commit}");
}

#[tokio::test]
async fn a_hint_at_nothing_costs_requests_and_is_named() {
    let log = Log::new().await;
    for hint in ["", "{", "{\"seq\":-1}", "{\"seq\":18446744073709551615}", "{\"seq\":99999999999999999999}", "[]"] {
        log.put(&keys::head(), hint).await;
        assert_eq!(log.newest().await.seq, 4, "{hint}");
        assert_eq!(log.named().await, (vec!["head.json".to_owned()], 4), "{hint}");
    }
    log.put(&keys::head(), vec![b' '; 1 << 20]).await;
    assert_eq!((log.newest().await.seq, log.named().await.0), (4, vec!["head.json".to_owned()]), "a large one");
    for hint in ["{\"seq\":0}", "{\"seq\":3}"] {
        log.put(&keys::head(), hint).await;
        assert_eq!(log.named().await, (Vec::new(), 4), "{hint}: an old hint is none the worse");
    }
    log.put(&keys::head(), "{\"seq\":5}").await;
    assert_eq!(log.newest().await.seq, 4);
    assert_eq!(log.named().await, (names(&[5]), 4), "a commit that was made is gone");
}

#[tokio::test]
async fn gaps_are_named_and_what_lies_behind_them_is_checked() {
    let log = Log::new().await;
    log.delete(&keys::head()).await;
    log.delete(&keys::commit(2)).await;
    // Nobody who counts finds more than the first commit; a check lists.
    assert_eq!(log.newest().await.seq, 1);
    assert_eq!(log.named().await, (names(&[2]), 4));
    log.delete(&keys::commit(1)).await;
    assert_eq!(log.named().await, (names(&[1]), 4));
    log.put(&keys::commit(4), "no commit").await;
    assert_eq!(log.named().await, (names(&[4, 1]), 3));
    log.delete(&keys::commit(3)).await;
    assert_eq!(log.named().await, (names(&[4, 1]), 0), "nothing can be read any more");
}

#[tokio::test]
async fn a_newest_commit_of_another_repository_is_not_believed() {
    let (log, other) = (Log::new().await, Log::new().await);
    log.put(&keys::commit(4), other.get(&keys::commit(4)).await).await;
    assert_eq!(log.repository.state().await.expect_err("no chain").kind(), ErrorKind::Corrupt);
    assert_eq!(log.named().await, (names(&[3]), 3), "it says that one of two was changed");
}

#[tokio::test]
async fn records_that_claim_the_world_are_refused() {
    type Change = fn(&mut Snapshot);
    let changes: [(&str, Change); 5] = [
        ("level", |snapshot| snapshot.tree.level = 33),
        ("length", |snapshot| snapshot.tree.length = u32::MAX),
        ("offset", |snapshot| snapshot.tree.offset = u64::MAX),
        ("pack length", |snapshot| snapshot.tree.pack_length = u64::MAX),
        ("id", |snapshot| snapshot.id = ghostsync_core::id::SnapshotId::from_bytes([7; 32])),
    ];
    for (what, change) in changes {
        let log = Log::new().await;
        let mut commit = log.newest().await;
        commit.prev = ghostsync_core::id::CommitHash::of(&log.get(&keys::commit(4)).await);
        commit.seq = 5;
        let mut snapshot = commit.snapshots.pop().expect("one");
        change(&mut snapshot);
        if what != "id" {
            snapshot.id = snapshot.derive_id().expect("derives");
        }
        commit.branches.get_mut("main").expect("there").head = Some(snapshot.id);
        commit.snapshots.push(snapshot);
        log.put(&keys::commit(5), commit.encode().expect("encodes")).await;
        assert_eq!(log.repository.state().await.expect_err(what).kind(), ErrorKind::Corrupt);
        assert_eq!(log.named().await, (names(&[5]), 4), "{what}");
    }
}
