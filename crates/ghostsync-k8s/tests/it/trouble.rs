//! A store that is away, credentials that rotate, files that cannot be read: nothing of it ends the app.

use std::fs;

use crate::pod::{Cluster, files, wait_for};

#[test]
fn a_store_that_is_down_ends_nothing_and_what_changed_meanwhile_is_saved_when_it_is_back() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_with(&[]);
    let away = cluster.folder.path().join("away");
    fs::rename(cluster.repository_folder(), &away).expect("moved");
    pod.write("post", "written while the store was away");
    let failed = || sidecar.metric(r#"ghostsync_sync_total{result="error"}"#).unwrap_or_default();
    wait_for("it fails again and again", || failed() > 2.0);
    assert_eq!(sidecar.get("/livez").0, 200, "liveness looks at the loop, never at the store");
    assert_eq!(sidecar.get("/startupz").0, 200);
    assert!(sidecar.metric("ghostsync_oldest_unsynced_seconds").expect("a metric") > 0.0);
    fs::rename(&away, cluster.repository_folder()).expect("moved");
    wait_for("it is saved", || cluster.head_files() == files(&[("post", "written while the store was away")]));
    wait_for("nothing is unsaved", || sidecar.metric("ghostsync_oldest_unsynced_seconds") == Some(0.0));
    assert_eq!(sidecar.terminate().code, Some(0));
}

#[test]
fn a_store_that_is_down_at_the_start_is_waited_for_by_sync_and_fails_restore() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    assert_eq!(pod.restore().code, Some(0));
    let away = cluster.folder.path().join("away");
    fs::rename(cluster.repository_folder(), &away).expect("moved");
    let restored = pod.restore();
    assert!(!matches!(restored.code, Some(0) | None), "{restored:?}");
    let sidecar = pod.sync();
    sidecar.wait_for_line("cannot begin yet");
    assert_eq!((sidecar.get("/startupz").0, sidecar.get("/livez").0), (503, 200));
    fs::rename(&away, cluster.repository_folder()).expect("moved");
    wait_for("it has begun", || sidecar.get("/startupz").0 == 200);
    assert_eq!(sidecar.terminate().code, Some(0));
}

/// A port where nobody listens: what it is to have no network.
fn dead_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
    format!("http://{}/repository", listener.local_addr().expect("an address"))
}

#[test]
fn with_the_cache_allowed_an_unreachable_store_lets_the_app_start_from_the_last_good_state() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let (url, genesis) = (dead_port(), format!("--genesis={}", cluster.id));
    let words = ["restore", &genesis, "--on-unreachable=cache"];
    let fresh = pod.command(&words).env("GHOSTSYNC_REPO", &url).output().expect("runs");
    assert_eq!(fresh.status.code(), Some(13), "unreachable is never empty");

    assert_eq!(pod.restore().code, Some(0));
    pod.write("post", "edited");
    let cached = pod.command(&words).env("GHOSTSYNC_REPO", &url).output().expect("runs");
    let log = String::from_utf8_lossy(&cached.stderr).into_owned();
    assert_eq!(cached.status.code(), Some(0), "{log}");
    assert_eq!(pod.files(), files(&[("post", "edited")]));
    let strict = pod.command(&["restore", &genesis]).env("GHOSTSYNC_REPO", &url).output().expect("runs");
    assert_eq!(strict.status.code(), Some(13));

    let mut command = pod.command(&["sync", "--on-unreachable=cache", "--listen=127.0.0.1:0", "--grace-period=1s"]);
    let sidecar = crate::pod::Sidecar::start(command.env("GHOSTSYNC_REPO", &url));
    wait_for("the app may start", || sidecar.get("/startupz").0 == 200);
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(13), "{}", ended.log);
    // The store is back: the directory goes on from its head.
    assert_eq!(pod.sync().terminate().code, Some(0));
    assert_eq!(cluster.head_files(), files(&[("post", "edited")]));
}

#[test]
fn a_file_of_a_foreign_uid_that_cannot_be_read_is_kept_as_it_was_and_told() {
    use std::os::unix::fs::PermissionsExt;

    if !rustix::process::geteuid().is_root() {
        // Only root can be somebody else.
        return;
    }
    let cluster = Cluster::with_files(&[("post", "saved"), ("secret", "saved")]);
    let pod = cluster.pod("pod");
    assert_eq!(pod.restore().code, Some(0));
    // The sidecar is somebody else than the app.
    let chown = std::process::Command::new("chown").args(["-R", "65532:65532"]).arg(cluster.folder.path()).status();
    assert!(chown.expect("runs").success());
    pod.write("secret", "edited");
    std::os::unix::fs::chown(pod.data.join("secret"), Some(0), Some(0)).expect("changed");
    fs::set_permissions(pod.data.join("secret"), fs::Permissions::from_mode(0o600)).expect("set");
    fs::set_permissions(pod.last_words_file(), fs::Permissions::from_mode(0o666)).expect("set");
    pod.write("post", "edited");
    let mut command = pod.command_of_another(65532, &["sync", "--listen=127.0.0.1:0"]);
    let sidecar = crate::pod::Sidecar::start(&mut command);
    sidecar.wait_until_started();
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(3), "{}", ended.log);
    assert!(ended.log.contains("secret: it could not be read"), "{}", ended.log);
    assert!(ended.log.contains("runAsUser"), "what to put into the pod: {}", ended.log);
    assert_eq!(cluster.head_files(), files(&[("post", "edited"), ("secret", "saved")]));
}
