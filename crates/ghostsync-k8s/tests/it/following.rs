//! A pod from its start to the next one's.

use std::time::Duration;

use ghostsync_core::repository::promote;

use crate::pod::{Cluster, DROWSY, files, wait_for};

#[test]
fn a_pod_is_restored_followed_and_saved_and_the_next_one_goes_on() {
    let cluster = Cluster::new();
    let first = cluster.pod("first");
    let sidecar = first.begin_with(&[]);
    first.write("post", "one");
    wait_for("the change is saved", || cluster.head_files() == files(&[("post", "one")]));
    first.write("post", "two");
    wait_for("the next change is saved", || cluster.head_files() == files(&[("post", "two")]));
    first.write("image", "three");
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(cluster.is_released());

    let second = cluster.pod("second");
    let restored = second.restore_with(&["--wait-predecessor=60s"]);
    assert_eq!(restored.code, Some(0), "{}", restored.log);
    assert_eq!(second.files(), files(&[("image", "three"), ("post", "two")]));
    assert!(restored.log.contains(r#""cause":"SIGTERM""#), "how the last one ended: {}", restored.log);
    let sidecar = second.sync();
    sidecar.wait_until_started();
    assert_eq!(sidecar.metric("ghostsync_predecessor_unclean"), Some(0.0));
    assert_eq!(sidecar.terminate().code, Some(0));
}

#[test]
fn a_sidecar_restarted_alone_while_the_app_writes_never_restores() {
    let cluster = Cluster::with_files(&[("post", "saved"), ("kept", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_drowsily();
    sidecar.kill();
    pod.write("post", "edited while nobody looked");
    std::fs::remove_file(pod.data.join("kept")).expect("removed");
    let sidecar = pod.sync();
    wait_for("the edits are saved", || cluster.head_files() == files(&[("post", "edited while nobody looked")]));
    assert_eq!(pod.files(), cluster.head_files());
    assert_eq!(sidecar.terminate().code, Some(0));
}

#[test]
fn a_sidecar_that_was_ended_and_started_again_in_the_same_pod_takes_its_branch_again() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    assert_eq!(pod.restore().code, Some(0));
    // As after a failed liveness probe.
    assert_eq!(pod.sync().terminate().code, Some(0));
    assert!(cluster.is_released());
    let sidecar = pod.sync();
    sidecar.wait_until_started();
    pod.write("post", "later");
    wait_for("saved", || cluster.head_files() == files(&[("post", "later")]));
    assert!(!cluster.is_released());
    assert_eq!(sidecar.terminate().code, Some(0));
    assert_eq!(cluster.snapshots_aside("fork/").len(), 0);
}

#[test]
fn a_refused_tree_is_quarantined_once_and_promoted_without_fencing_the_pod_that_made_it() {
    let names: Vec<String> = (0..20).map(|number| format!("{number:02}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let cluster = Cluster::with_files(&all);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_with(&["--rescan=300ms"]);
    let head = cluster.head().id;
    for name in &names[5..] {
        std::fs::remove_file(pod.data.join(name)).expect("removed");
    }
    wait_for("it is refused", || sidecar.metric(r#"ghostsync_guard_refused{guard="max-delete"}"#) == Some(1.0));
    let passes = sidecar.passes();
    wait_for("it is looked at again and again", || sidecar.passes() > passes + 3);
    assert_eq!(cluster.head().id, head, "the branch was not moved");
    let kept = cluster.snapshots_aside("quarantine/main/");
    assert_eq!(kept.len(), 1, "once for each tree");
    let refused = sidecar.wait_for_line("max-delete");
    assert_eq!(refused["refusal"]["actual"], 15, "{refused}");
    let accept = format!("to accept it: ghostsync promote {}", &kept[0].id.to_string()[..12]);
    assert!(refused["message"].as_str().expect("a message").ends_with(&accept), "{refused}");

    cluster.with(async |repository| promote(&repository, kept[0].id, "a person").await).expect("promotes");
    wait_for("it is approved", || sidecar.metric(r#"ghostsync_guard_refused{guard="max-delete"}"#) == Some(0.0));
    pod.write("after", "the promotion");
    wait_for("it goes on", || cluster.head_files().contains_key("after"));
    assert_eq!(sidecar.terminate().code, Some(0));
    assert_eq!(cluster.snapshots_aside("fork/").len(), 0, "nobody was fenced");
}

#[test]
fn an_emptied_directory_is_never_published() {
    let cluster = Cluster::with_files(&[("one", "1"), ("two", "2")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_drowsily();
    for name in ["one", "two"] {
        std::fs::remove_file(pod.data.join(name)).expect("removed");
    }
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(10), "{}", ended.log);
    assert!(pod.last_words().starts_with("final snapshot NOT done: refused"), "{}", pod.last_words());
    assert_eq!(cluster.head_files(), files(&[("one", "1"), ("two", "2")]));
    assert!(cluster.is_released(), "nothing more comes from there");
}

#[test]
fn an_idle_directory_makes_no_snapshots_and_lists_nothing() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_with(&["--interval=100ms"]);
    let heads = || sidecar.metric(r#"ghostsync_store_requests_total{op="head",code="not-found"}"#).unwrap_or_default();
    let before = (cluster.state().commit.seq, sidecar.passes());
    let looked = heads();
    wait_for("it looks at the head", || heads() > looked + 5.0);
    assert_eq!((cluster.state().commit.seq, sidecar.passes()), before);
    let metrics = sidecar.get("/metrics").1;
    assert!(!metrics.contains(r#"requests_total{op="list""#), "{metrics}");
    assert_eq!(sidecar.terminate().code, Some(0));
}

#[test]
fn where_no_watches_are_left_listings_find_what_changes() {
    for (what, most, says) in [
        ("max_inotify_instances", 0, "cannot watch the directory"),
        ("max_inotify_watches", 1, "cannot watch a new folder"),
    ] {
        let cluster = Cluster::with_files(&[("post", "saved")]);
        let pod = cluster.pod("pod");
        assert_eq!(pod.restore().code, Some(0));
        let Some(sidecar) = pod.sync_limited(what, most, &[&DROWSY[..], &["--min-wait=200ms"]].concat()) else {
            println!("skipped: a process cannot have limits of its own here");
            return;
        };
        sidecar.wait_until_started();
        // Of the watch on the folder above it, this is the last word.
        std::fs::create_dir(pod.data.join("new")).expect("a folder");
        let told = sidecar.wait_for_line(says)["message"].to_string();
        assert!(told.contains("two requests each; raise fs.inotify.max_user_"), "{told}");
        assert_eq!(
            (sidecar.metric("ghostsync_watched"), sidecar.status()["watched"].as_bool()),
            (Some(0.0), Some(false))
        );
        pod.write("new/post", "late");
        wait_for(what, || cluster.restored(&cluster.head()).join("new/post").is_file());
        assert_eq!(sidecar.terminate().code, Some(0));
    }
}

#[test]
fn a_sidecar_stays_small_in_the_process_that_was_started_unless_somebody_says_otherwise() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    assert_eq!(pod.restore().code, Some(0));
    let sidecar = pod.sync();
    assert_eq!(sidecar.environment("MALLOC_ARENA_MAX").as_deref(), Some("1"));
    assert_eq!(sidecar.environment("GHOSTSYNC_OWNER").as_deref(), Some("pod"));
    // Its own pid, as the kubelet knows it, still ends it.
    assert_eq!(sidecar.terminate().code, Some(0));
    let mut command = pod.command(&["sync", "--listen=127.0.0.1:0"]);
    let sidecar = crate::pod::Sidecar::start(command.env("MALLOC_ARENA_MAX", "4"));
    // The first has given the branch back: this one has to take it before it can end well.
    sidecar.wait_until_started();
    assert_eq!(sidecar.environment("MALLOC_ARENA_MAX").as_deref(), Some("4"));
    assert_eq!(sidecar.terminate().code, Some(0));
}

#[test]
fn retention_on_a_schedule_forgets_what_no_rule_keeps() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_with(&["--keep-last=1", "--prune", "--maintain-every=200ms"]);
    sidecar.wait_for_line("snapshots that no rule keeps are forgotten");
    sidecar.wait_for_line("packs that no snapshot needs are deleted");
    assert_eq!(sidecar.terminate().code, Some(0));
    assert_eq!(cluster.head_files(), files(&[("post", "saved")]));
}

/// Waiting is bounded everywhere else; here it is the point that nothing happens for a while.
#[test]
fn a_change_below_what_is_never_content_wakes_nobody() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let mut pod = cluster.pod("pod");
    pod.state_dir = pod.data.join(".ghostsync");
    let sidecar = pod.begin_with(&[]);
    std::fs::write(pod.state_dir.join("other"), "x").expect("written");
    pod.write("post", "changed");
    wait_for("saved", || cluster.head_files() == files(&[("post", "changed")]));
    let until = std::time::Instant::now() + Duration::from_millis(400);
    let passes = sidecar.passes();
    wait_for("a while", || std::time::Instant::now() > until);
    assert_eq!(sidecar.passes(), passes, "{}", sidecar.log());
    assert_eq!(sidecar.terminate().code, Some(0));
}
