//! The end of a pod: nobody knows how much time there is.

use std::time::{Duration, Instant};

use crate::pod::{Cluster, wait_for};

#[test]
fn sigterm_saves_what_was_written_just_before_and_gives_the_branch_back() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_drowsily();
    for number in 0..10 {
        pod.write(&format!("late {number}"), "written a moment before the end");
    }
    let unsynced = || sidecar.metric("ghostsync_oldest_unsynced_seconds").unwrap_or_default();
    wait_for("the watch has seen it", || unsynced() > 0.0);
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(cluster.head_files(), pod.files());
    assert!(cluster.is_released());
    assert!(pod.last_words().starts_with("final snapshot done: snapshot "), "{}", pod.last_words());
    let note = &cluster.state().commit.op["note"];
    assert_eq!(note["cause"], "SIGTERM");
    assert!(note["oldest_unsynced_seconds"].as_f64().is_some_and(|seconds| seconds < 60.0), "{note}");
    assert!(!pod.state_dir.join("control.sock").exists());
}

#[test]
fn an_unchanged_directory_gives_the_branch_back_too() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_drowsily();
    let head = cluster.head().id;
    assert_eq!(sidecar.terminate().code, Some(0));
    assert_eq!((cluster.head().id, cluster.is_released()), (head, true));
}

#[test]
fn an_eviction_with_one_second_saves_what_is_small_before_what_is_large() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    // So slow that the large file takes a minute.
    let sidecar = pod.begin_with(&["--quiet=1h", "--max-wait=1h", "--limit-upload=100kB"]);
    let mut large = vec![0_u8; 6 << 20];
    let mut random = 1_u64;
    large.fill_with(|| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    });
    std::fs::write(pod.data.join("large"), &large).expect("written");
    pod.write("small", "written a moment before the end");
    sidecar.send_sigterm();
    wait_for("what is small is saved", || cluster.head_files().contains_key("small"));
    assert!(!cluster.head_files().contains_key("large") && !cluster.is_released());
    assert!(pod.last_words().starts_with("final snapshot begun, not finished"), "{}", pod.last_words());
    sidecar.kill();
    // The same pod again, as after the loss of its sandbox: nothing of what was there is gone.
    let sidecar = pod.sync();
    wait_for("the rest is saved", || cluster.head_files().contains_key("large"));
    assert_eq!(sidecar.terminate().code, Some(0));
}

#[test]
fn the_pre_stop_hook_of_a_native_sidecar_returns_at_once_and_may_run_twice() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_drowsily();
    pod.write("early", "at T0");
    assert_eq!(pod.run(&["ctl", "terminating"]).code, Some(0));
    wait_for("the early pass", || cluster.head_files().contains_key("early"));
    assert!(!cluster.is_released(), "the app is still there");
    assert_eq!(pod.run(&["ctl", "terminating"]).code, Some(0));
    assert_eq!(sidecar.status()["terminating"], true);
    pod.write("late", "the app's last words");
    assert_eq!(sidecar.terminate().code, Some(0));
    assert_eq!(cluster.head_files(), pod.files());
}

#[test]
fn the_pre_stop_hook_of_a_classic_sidecar_waits_for_the_app_and_may_run_twice() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_drowsily();
    // The app listens, closes its port, and goes on writing: a closed port is not a gone process.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let wait_app = format!("--wait-app=tcp:{}", port.local_addr().expect("an address"));
    let words = ["ctl", "final-sync", &wait_app, "--quiet=1s", "--deadline=50s"];
    let mut hooks = [pod.command(&words).spawn().expect("starts"), pod.command(&words).spawn().expect("starts")];
    sidecar.wait_for_line("final-sync: waiting for the app");
    pod.write("one", "while it listens");
    drop(port);
    for number in 0..5 {
        pod.write("two", &format!("after it has closed, {number}"));
        let until = Instant::now() + Duration::from_millis(200);
        wait_for("a moment", || Instant::now() > until);
        assert!(hooks[0].try_wait().expect("a child").is_none(), "it is still writing");
    }
    for hook in &mut hooks {
        assert_eq!(hook.wait().expect("ends").code(), Some(0));
    }
    assert_eq!(cluster.head_files(), pod.files());
    assert!(sidecar.line("that is no proof that the app has gone").is_some(), "{}", sidecar.log());
    pod.write("three", "between the hook and SIGTERM");
    assert_eq!(sidecar.terminate().code, Some(0));
    assert_eq!(cluster.head_files(), pod.files());
    assert!(cluster.is_released());
}

#[test]
fn an_app_whose_process_is_seen_to_go_is_not_waited_for_any_longer() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_drowsily();
    // A program that nobody else runs: its name is that of the link.
    let name = format!("app-{}", std::process::id());
    let program = cluster.folder.path().join(&name);
    std::fs::hard_link("/bin/sleep", &program)
        .or_else(|_| std::fs::copy("/bin/sleep", &program).map(drop))
        .expect("a program");
    let mut app = std::process::Command::new(&program).arg("60").spawn().expect("starts");
    let wait_app = format!("--wait-app=process:{name}");
    let mut hook =
        pod.command(&["ctl", "final-sync", &wait_app, "--quiet=1h", "--deadline=50s"]).spawn().expect("starts");
    sidecar.wait_for_line("final-sync: waiting for the app");
    pod.write("last", "words");
    app.kill().expect("is there");
    // Nobody has waited for it: it is a zombie, and writes nothing any more.
    assert_eq!(hook.wait().expect("ends").code(), Some(0));
    app.wait().expect("is there");
    sidecar.wait_for_line("final-sync: the app has gone");
    assert_eq!(cluster.head_files(), pod.files());
    assert_eq!(sidecar.terminate().code, Some(0));
}

#[test]
fn a_hook_ends_with_its_deadline_although_the_store_is_away() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    assert_eq!(pod.restore().code, Some(0));
    let away = cluster.folder.path().join("away");
    std::fs::rename(cluster.repository_folder(), &away).expect("moved");
    let sidecar = pod.sync();
    sidecar.wait_for_line("cannot begin yet");
    let hook = pod.run(&["ctl", "final-sync", "--quiet=0", "--deadline=1s"]);
    assert_eq!(hook.code, Some(130), "{}", hook.log);
    std::fs::rename(&away, cluster.repository_folder()).expect("moved");
    assert_eq!(sidecar.terminate().code, Some(0));
}

#[test]
fn a_hook_that_is_cut_leaves_the_final_snapshot_to_sigterm() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_drowsily();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    let wait_app = format!("--wait-app=tcp:{}", port.local_addr().expect("an address"));
    let mut hook = pod.command(&["ctl", "final-sync", &wait_app, "--deadline=1h"]).spawn().expect("starts");
    sidecar.wait_for_line("final-sync: waiting for the app");
    hook.kill().expect("is there");
    hook.wait().expect("is there");
    pod.write("last", "words");
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(cluster.head_files(), pod.files());
}

#[test]
fn a_store_that_is_down_at_the_end_is_tried_until_the_deadline_and_told() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_with(&["--quiet=1h", "--max-wait=1h", "--grace-period=3s"]);
    pod.write("late", "words");
    let away = cluster.folder.path().join("away");
    std::fs::rename(cluster.repository_folder(), &away).expect("moved");
    let ended = sidecar.terminate();
    std::fs::rename(&away, cluster.repository_folder()).expect("moved");
    assert!(!matches!(ended.code, Some(0) | None), "{ended:?}");
    assert!(pod.last_words().starts_with("final snapshot NOT done: "), "{}", pod.last_words());
    assert!(!cluster.is_released());
    // What was not saved is still in the directory, and the pod's next container saves it.
    assert_eq!(pod.sync().terminate().code, Some(0));
    assert_eq!(cluster.head_files(), pod.files());
}

#[test]
fn ctl_sync_returns_when_the_snapshot_is_made_and_status_tells_of_it() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let nobody = pod.run(&["ctl", "status"]);
    assert_eq!(nobody.code, Some(12), "{nobody:?}");
    // What a hook prints is shown by itself, in an event of the pod.
    assert!(nobody.log.starts_with("error: no sync listens on ") && nobody.log.contains("--state-dir"), "{nobody:?}");
    let sidecar = pod.begin_drowsily();
    pod.write("asked", "for");
    let told = pod.run(&["ctl", "sync"]);
    assert_eq!(told.code, Some(0), "{}", told.log);
    assert_eq!(cluster.head_files(), pod.files());
    let status: serde_json::Value = serde_json::from_str(&pod.run(&["ctl", "status"]).log).expect("JSON");
    assert_eq!(status["snapshot"], serde_json::json!(cluster.head().id));
    assert_eq!((&status["holds"], &status["last_result"]), (&true.into(), &"ok".into()));
    assert_eq!(sidecar.terminate().code, Some(0));
}
