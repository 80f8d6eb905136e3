//! The cabinet of horrors, compared by a tool that is not ours; and every snapshot of random histories.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ghostsync_core::backup::{BackupOptions, BackupOutcome, backup};
use ghostsync_core::guard::{Cap, Policy};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{OpenOptions, Repository, Selector};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::cabinet::{cabinet, make_removable};
use ghostsync_core::testing::tree::{apply, changes, differences, tree};
use object_store::memory::InMemory;
use proptest::test_runner::{Config, TestRunner};

use crate::restoring::{back_up, create};

/// What rsync would have to change to make the second like the first.
fn rsync_differences(source: &Path, destination: &Path) -> Option<Vec<String>> {
    let slash = |path: &Path| format!("{}/", path.display());
    let ran = Command::new("rsync")
        .args(["-rlptgoDHAXn", "--modify-window=-1", "--checksum", "--delete", "-i"])
        .args([slash(source), slash(destination)])
        .output()
        .ok()?;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Some(String::from_utf8_lossy(&ran.stdout).lines().map(str::to_owned).collect())
}

/// Backs the cabinet up, restores it, and lets rsync compare, before which `trim` may shorten both sides.
async fn compare_by_rsync(entries: usize, trim: impl Fn(&Path)) {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, destination) = (folder.path().join("source"), folder.path().join("destination"));
    std::fs::create_dir(&source).expect("a folder");
    let report = cabinet(&source, entries).expect("a cabinet");
    for (what, why) in &report.skipped {
        println!("skipped: {what}: {why}");
    }
    let repository = create(Arc::new(InMemory::new())).await;
    back_up(&repository, &source).await;
    let restored = restore(&repository, &destination, RestoreOptions::default(), Arc::new(NoObserver)).await;
    let restored = restored.expect("a restore");
    assert!(restored.problems.is_empty(), "{:?}", restored.problems);
    trim(&source);
    trim(&destination);
    match rsync_differences(&source, &destination) {
        None => println!("skipped: rsync is not installed"),
        Some(lines) => {
            // Sockets: `S` in the second column.
            let others: Vec<_> = lines.iter().filter(|line| line.as_bytes().get(1) != Some(&b'S')).collect();
            assert!(others.is_empty(), "{others:#?}");
        }
    }
    make_removable(&source).and_then(|()| make_removable(&destination)).expect("rights");
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_finds_nothing_to_do_but_sockets() {
    // rsync would read 10 GiB of nothing twice: `just scale` lets it. Our own comparison looks at that file each time.
    let shorten = |side: &Path| {
        let file = std::fs::File::options().write(true).open(side.join("holes/10g")).expect("the sparse file");
        let modified = file.metadata().and_then(|metadata| metadata.modified()).expect("a time");
        file.set_len(1 << 20).and_then(|()| file.set_modified(modified)).expect("shortened");
    };
    compare_by_rsync(500, shorten).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: rsync reads 10 GiB twice, and there are 100,000 entries; `just scale` runs it"]
async fn scale_rsync_finds_nothing_to_do_in_the_whole_cabinet() {
    compare_by_rsync(100_000, |_| {}).await;
}

#[test]
fn every_snapshot_of_a_random_history_comes_back() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut runner = TestRunner::new(Config { cases: 12, failure_persistence: None, ..Config::default() });
    let histories = (tree(0..25), proptest::collection::vec(changes(0..8), 1..4), proptest::bool::ANY);
    runner
        .run(&histories, |(mut model, steps, cached)| {
            let folder = tempfile::tempdir().expect("a folder");
            let source = folder.path().join("source");
            std::fs::create_dir(&source).expect("a folder");
            model.write(&source).expect("a tree");
            runtime.block_on(async {
                let objects = Arc::new(InMemory::new());
                create(objects.clone()).await;
                let cache_dir = cached.then(|| folder.path().join("cache"));
                let mut kept = Vec::new();
                for step in 0..=steps.len() {
                    if let Some(changes) = step.checked_sub(1).and_then(|step| steps.get(step)) {
                        for change in changes {
                            apply(change, &mut model, &source).expect("a change");
                        }
                    }
                    let store = Store::new(objects.clone(), "memory");
                    let options = OpenOptions { cache_dir: cache_dir.clone() };
                    let repository = Repository::open(store, options).await.expect("a repository");
                    let policy = Policy { max_delete: Cap::Percent(100), allow_empty: true, ..Policy::default() };
                    let options = BackupOptions { policy, ..BackupOptions::default() };
                    let report = backup(&repository, &source, options, Arc::new(NoObserver)).await.expect("a backup");
                    assert!(report.is_complete(), "{:?}", report.problems);
                    if report.outcome == BackupOutcome::Done {
                        let copy = folder.path().join(format!("copy{step}"));
                        assert!(Command::new("cp").arg("-a").args([&source, &copy]).status().expect("runs").success());
                        kept.push((report.snapshot.expect("a snapshot"), copy));
                    }
                }
                let store = Store::new(objects.clone(), "memory");
                let repository = Repository::open(store, OpenOptions::default()).await.expect("a repository");
                let moving = folder.path().join("moving");
                for (snapshot, copy) in kept.iter().rev() {
                    let options = RestoreOptions {
                        snapshot: Selector::Id(snapshot.to_string()),
                        delete: true,
                        max_delete: Cap::Percent(100),
                        ..RestoreOptions::default()
                    };
                    for destination in [&folder.path().join(format!("back{snapshot}")), &moving] {
                        let restored = restore(&repository, destination, options.clone(), Arc::new(NoObserver)).await;
                        assert!(restored.expect("a restore").problems.is_empty());
                        let differences = differences(copy, destination);
                        assert!(differences.is_empty(), "{differences:#?}");
                    }
                }
            });
            Ok(())
        })
        .expect("every snapshot");
}
