//! Two pods at once: a drain, a cut-off node.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::pod::{Cluster, files, wait_for};

#[test]
fn of_two_pods_at_a_drain_the_one_that_is_fenced_keeps_what_it_has_on_a_fork() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let old = cluster.pod("old");
    let old_sidecar = old.begin_drowsily();
    old.write("old", "not saved yet");

    let new = cluster.pod("new");
    // It cannot wait for longer.
    let restored = new.restore_with(&["--wait-predecessor=500ms"]);
    assert_eq!(restored.code, Some(0), "{}", restored.log);
    assert!(restored.log.contains(r#""fenced":"old""#), "{}", restored.log);
    let new_sidecar = new.sync();
    new_sidecar.wait_until_started();
    assert_eq!(new_sidecar.metric("ghostsync_predecessor_unclean"), Some(1.0));
    new.write("new", "of the successor");
    wait_for("the successor is saved", || cluster.head_files() == new.files());

    let ended = old_sidecar.terminate();
    assert_eq!(ended.code, Some(11), "{}", ended.log);
    assert!(old.last_words().contains("fork/main/old-"), "which one: {}", old.last_words());
    let forks = cluster.snapshots_aside("fork/main/old-");
    assert_eq!(forks.len(), 1);
    assert_eq!(cluster.files_of(&forks[0]), old.files());
    assert_eq!(cluster.head_files(), files(&[("post", "saved"), ("new", "of the successor")]));
    assert_eq!(new_sidecar.terminate().code, Some(0));
}

#[test]
fn the_fork_of_a_final_snapshot_has_its_large_files_too() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let old = cluster.pod("old");
    let sidecar = old.begin_drowsily();
    assert_eq!(cluster.pod("new").restore().code, Some(0));
    old.write("small", "written a moment before the end");
    old.write("large", &"written a moment before the end\n".repeat(100_000));
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(11), "{}", ended.log);
    let forks = cluster.snapshots_aside("fork/main/old-");
    assert_eq!(cluster.files_of(forks.last().expect("a fork")), old.files());
}

#[test]
fn a_zombie_on_a_cut_off_node_notices_by_itself_and_goes_on_keeping_forks() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let zombie = cluster.pod("zombie");
    let sidecar = zombie.begin_with(&[]);
    let new = cluster.pod("new");
    assert_eq!(new.restore().code, Some(0));
    // It has changed nothing: it finds out by its look at the head.
    wait_for("it knows", || sidecar.status()["fenced"] == true);
    assert_eq!(cluster.snapshots_aside("fork/").len(), 0, "there was nothing to keep");
    assert_eq!(sidecar.metric("ghostsync_holder"), Some(0.0));
    assert_eq!(sidecar.get("/livez").0, 200, "its app goes on");
    zombie.write("post", "written on the cut-off node");
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(11), "{}", ended.log);
    let forks = cluster.snapshots_aside("fork/main/zombie-");
    assert_eq!(cluster.files_of(forks.last().expect("a fork")), zombie.files());
    assert_eq!(cluster.head_files(), files(&[("post", "saved")]));
}

#[test]
fn a_fenced_sidecar_that_is_restarted_does_not_take_the_branch_back() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let old = cluster.pod("old");
    assert_eq!(old.restore().code, Some(0));
    let new = cluster.pod("new");
    assert_eq!(new.restore().code, Some(0));
    let epoch = cluster.state().commit.branches["main"].epoch;
    old.write("old", "edited");
    let sidecar = old.sync();
    wait_for("a fork", || !cluster.snapshots_aside("fork/main/old-").is_empty());
    assert_eq!(sidecar.get("/startupz").0, 503, "its branch is not claimed");
    assert_eq!(sidecar.terminate().code, Some(11));
    assert_eq!(cluster.state().commit.branches["main"].epoch, epoch);
}

#[test]
fn a_successor_waits_for_the_final_snapshot_of_its_predecessor() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let old = cluster.pod("old");
    let sidecar = old.begin_drowsily();
    old.write("post", "edited");
    let new = cluster.pod("new");
    let genesis = format!("--genesis={}", cluster.id);
    let mut restore = new.command(&["restore", &genesis, "--wait-predecessor=60s"]);
    let mut restore = restore.stderr(Stdio::piped()).spawn().expect("starts");
    let until = Instant::now() + Duration::from_millis(600);
    wait_for("a while", || Instant::now() > until);
    assert!(restore.try_wait().expect("a child").is_none(), "it waits");
    assert_eq!(sidecar.terminate().code, Some(0));
    let restored = restore.wait_with_output().expect("ends");
    let log = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert_eq!(restored.status.code(), Some(0), "{log}");
    assert!(log.contains(r#""cause":"SIGTERM""#), "how it ended: {log}");
    assert_eq!(new.files(), files(&[("post", "edited")]));
    assert_eq!(cluster.snapshots_aside("fork/").len(), 0);
}
