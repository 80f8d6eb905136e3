//! What `restore` does to a directory, and what it leaves alone.

use std::fs;
use std::process::Stdio;

use ghostsync_core::testing::restless::Restless;
use rustix::process::{Pid, Signal, kill_process};

use crate::pod::{Cluster, DROWSY, Pod, files, wait_for};

/// A pod whose directory was restored from the head, and is followed by nobody.
fn restored<'a>(cluster: &'a Cluster, owner: &str) -> Pod<'a> {
    let pod = cluster.pod(owner);
    let ended = pod.restore();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    pod
}

/// Somebody else moves the head.
fn move_head(cluster: &Cluster) {
    let other = restored(cluster, "other");
    other.write("theirs", "of another pod");
    assert_eq!(other.sync().terminate().code, Some(0));
}

#[test]
fn init_re_run_over_a_clean_directory_with_the_same_head_has_nothing_to_do() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = restored(&cluster, "pod");
    let again = pod.restore();
    assert_eq!(again.code, Some(0), "{}", again.log);
    assert!(again.log.contains("nothing to do"), "{}", again.log);
    assert_eq!(pod.sync().terminate().code, Some(0), "the receipt is of the new claim");
    assert_eq!(cluster.snapshots_aside("fork/").len(), 0);
}

#[test]
fn init_re_run_over_a_dirty_directory_with_the_same_head_adopts_it() {
    let cluster = Cluster::with_files(&[("post", "saved"), ("kept", "saved")]);
    let pod = restored(&cluster, "pod");
    pod.write("post", "edited, and never uploaded");
    let again = pod.restore();
    assert_eq!(again.code, Some(0), "{}", again.log);
    assert_eq!(pod.files(), files(&[("post", "edited, and never uploaded"), ("kept", "saved")]));
    assert_eq!(pod.sync().terminate().code, Some(0));
    assert_eq!(cluster.head_files(), pod.files());
    assert_eq!(cluster.snapshots_aside("fork/").len(), 0);
}

#[test]
fn init_re_run_over_a_clean_directory_whose_head_moved_brings_it_forward() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = restored(&cluster, "pod");
    move_head(&cluster);
    let again = pod.restore();
    assert_eq!(again.code, Some(0), "{}", again.log);
    assert_eq!(pod.files(), files(&[("post", "saved"), ("theirs", "of another pod")]));
    assert_eq!(cluster.snapshots_aside("fork/").len(), 0, "there was nothing to keep");
    assert_eq!(pod.sync().terminate().code, Some(0));
}

#[test]
fn init_re_run_over_a_dirty_directory_whose_head_moved_keeps_it_on_a_fork_first() {
    let cluster = Cluster::with_files(&[("post", "saved"), ("gone", "saved")]);
    let pod = restored(&cluster, "pod");
    pod.write("post", "edited, and never uploaded");
    pod.write("mine", "new");
    fs::remove_file(pod.data.join("gone")).expect("removed");
    let edited = pod.files();
    move_head(&cluster);
    let again = pod.restore();
    assert_eq!(again.code, Some(0), "{}", again.log);
    assert_eq!(pod.files(), files(&[("post", "saved"), ("gone", "saved"), ("theirs", "of another pod")]));
    let forks = cluster.snapshots_aside("fork/main/pod-");
    assert_eq!(forks.len(), 1);
    assert_eq!(cluster.files_of(&forks[0]), edited);
    assert!(again.log.contains(&forks[0].branch), "which one: {}", again.log);
    assert_eq!(pod.sync().terminate().code, Some(0));
}

#[test]
fn sigterm_during_restore_leaves_no_receipt_and_the_next_one_finishes_it() {
    let cluster = Cluster::new();
    let first = restored(&cluster, "first");
    let content: String = (0..60_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_string()).collect();
    for number in 0..8 {
        first.write(&format!("{number}"), &content[number * 10_000..]);
    }
    assert_eq!(first.sync().terminate().code, Some(0));
    let pod = cluster.pod("pod");
    let genesis = format!("--genesis={}", cluster.id);
    let mut slow = pod.command(&["restore", &genesis, "--limit-download=200kB"]);
    let mut slow = slow.stderr(Stdio::null()).spawn().expect("starts");
    wait_for("it has begun", || pod.state_dir.join("restoring.json").exists());
    kill_process(Pid::from_raw(i32::try_from(slow.id()).expect("a pid")).expect("a pid"), Signal::TERM)
        .expect("is there");
    assert_eq!(slow.wait().expect("ends").code(), Some(130));
    assert!(!pod.receipt().exists());
    assert_eq!(pod.sync_with(&["--grace-period=1s"]).terminate().code, Some(10), "nothing is saved from there");
    assert_eq!(pod.restore().code, Some(0));
    assert_eq!(pod.files(), first.files());
}

#[test]
fn a_killed_restore_is_finished_by_the_next_one_even_when_the_head_has_moved() {
    let cluster = Cluster::with_files(&[("post", "saved"), ("theirs", "an earlier one")]);
    let pod = restored(&cluster, "pod");
    // As a kill in the middle leaves it: the mark is there, and the receipt is not.
    let mark = fs::read_to_string(pod.receipt()).expect("a receipt");
    let receipt: serde_json::Value = serde_json::from_str(&mark).expect("JSON");
    fs::remove_file(pod.receipt()).expect("removed");
    let refused = pod.restore();
    assert_eq!(refused.code, Some(10), "without the mark nothing is known: {}", refused.log);
    let mark = serde_json::json!({"directory": receipt["directory"]});
    fs::write(pod.state_dir.join("restoring.json"), mark.to_string()).expect("written");
    move_head(&cluster);
    let again = pod.restore();
    assert_eq!(again.code, Some(0), "{}", again.log);
    assert_eq!(pod.files(), cluster.head_files());
    assert!(!pod.state_dir.join("restoring.json").exists());
}

#[test]
fn a_stale_receipt_from_an_earlier_incarnation_proves_nothing() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = restored(&cluster, "pod");
    // The state folder survived, the directory is another.
    fs::rename(&pod.data, pod.data.with_file_name("before")).expect("moved");
    fs::create_dir(&pod.data).expect("a folder");
    let sidecar = pod.sync();
    wait_for("it is refused", || sidecar.metric(r#"ghostsync_guard_refused{guard="receipt"}"#) == Some(1.0));
    assert_eq!(sidecar.get("/startupz").0, 503);
    assert!(sidecar.get("/startupz").1.contains("another directory"), "{}", sidecar.get("/startupz").1);
    assert_eq!(sidecar.terminate().code, Some(10));
    assert_eq!(cluster.head_files(), files(&[("post", "saved")]), "the empty directory is not published");

    pod.write("foreign", "of which nothing is known");
    let refused = pod.restore();
    assert_eq!(refused.code, Some(10), "{}", refused.log);
    assert_eq!(pod.files(), files(&[("foreign", "of which nothing is known")]));
    fs::remove_file(pod.data.join("foreign")).expect("removed");
    assert_eq!(pod.restore().code, Some(0));
    assert_eq!(pod.files(), files(&[("post", "saved")]));
}

#[test]
fn a_wrong_or_empty_prefix_never_looks_like_a_first_boot() {
    let cluster = Cluster::new();
    let pod = cluster.pod("pod");
    let without = pod.run(&["restore"]);
    assert_eq!(without.code, Some(12), "{}", without.log);
    assert!(without.log.contains(&format!("--genesis {}", cluster.id)), "{}", without.log);
    assert!(pod.last_words().starts_with("restore failed: branch main has no snapshot"), "{}", pod.last_words());
    let other = pod.run(&["restore", "--genesis=00000000000000000000000000000000"]);
    assert_eq!(other.code, Some(10), "{}", other.log);
    assert_eq!(cluster.state().commit.seq, 0, "nothing was claimed");
    let nowhere = pod.command(&["restore"]).env("GHOSTSYNC_REPO", cluster.folder.path().join("nowhere")).output();
    assert_eq!(nowhere.expect("runs").status.code(), Some(12));
    assert!(!pod.receipt().exists());
    assert_eq!(pod.restore().code, Some(0));
}

/// `--genesis` stays in the manifest, so a branch that is misspelt begins empty: at least it is told at once.
#[test]
fn a_branch_that_begins_empty_beside_others_is_told_with_their_names() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let without = pod.run(&["restore", "--branch=trunk"]);
    assert_eq!(without.code, Some(12), "{}", without.log);
    assert!(pod.last_words().contains("others have: main;"), "{}", pod.last_words());
    assert!(pod.last_words().contains("--branch is wrong"), "what next: {}", pod.last_words());
    let begun = pod.restore_with(&["--branch=trunk"]);
    assert_eq!(begun.code, Some(0), "{}", begun.log);
    assert!(begun.log.contains("it begins with an empty directory; other branches have snapshots: main"));
}

#[test]
fn genesis_is_harmless_when_it_stays_in_the_manifest() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = restored(&cluster, "pod");
    assert_eq!(pod.files(), files(&[("post", "saved")]));
}

#[test]
fn a_directory_that_may_not_be_written_is_told_with_the_line_for_the_pod() {
    use std::os::unix::fs::PermissionsExt;

    if !rustix::process::geteuid().is_root() {
        // Only root can be somebody else.
        return;
    }
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    fs::set_permissions(cluster.folder.path(), fs::Permissions::from_mode(0o755)).expect("set");
    fs::set_permissions(&pod.state_dir, fs::Permissions::from_mode(0o777)).expect("set");
    std::os::unix::fs::chown(&pod.data, Some(1000), Some(1000)).expect("changed");
    let genesis = format!("--genesis={}", cluster.id);
    let output = pod.command_of_another(65532, &["restore", &genesis]).output().expect("runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("uid 65532, gid 65532 cannot write to"), "{log}");
    assert!(log.contains("securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000"), "{log}");
}

#[test]
fn lost_and_found_of_a_new_disk_is_neither_content_nor_in_the_way() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    fs::create_dir(pod.data.join("lost+found")).expect("a folder");
    assert_eq!(pod.restore().code, Some(0));
    pod.write("new", "file");
    assert_eq!(pod.sync().terminate().code, Some(0));
    let back = cluster.pod("back");
    assert_eq!(back.restore().code, Some(0));
    assert!(!back.data.join("lost+found").exists());
    assert_eq!(back.files(), pod.files());
}

#[test]
fn files_that_changed_while_the_snapshot_was_made_are_warned_of_by_restore() {
    let cluster = Cluster::new();
    let first = restored(&cluster, "first");
    first.write("ghost.db", &"a page ".repeat(1 << 20));
    let sidecar = first.sync_with(&DROWSY);
    sidecar.wait_until_started();
    let restless = Restless::begin(&first.data.join("ghost.db")).expect("opened");
    let is_unstable = || {
        let passes = sidecar.passes();
        assert_eq!(first.run(&["ctl", "sync"]).code, Some(0));
        wait_for("the pass is told", || sidecar.passes() > passes);
        let log = sidecar.log();
        let last = log.lines().rfind(|line| line.contains("\"cause\":")).expect("a pass");
        last.contains("it changed while it was read")
    };
    wait_for("it changes while it is read", is_unstable);
    // The pod dies here: no later pass reads it again.
    sidecar.kill();
    drop(restless);

    let ended = cluster.pod("second").restore();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    let warned = ended.log.lines().find(|line| line.contains("may mix several states"));
    let warned: serde_json::Value = serde_json::from_str(warned.expect("a warning")).expect("JSON");
    assert_eq!((&warned["level"], &warned["files"]), (&"warn".into(), &1.into()));
    assert_eq!(warned["paths"], serde_json::json!(["ghost.db"]));
    assert!(warned["hint"].as_str().is_some_and(|hint| hint.contains("older snapshot")));
}
