//! Somebody elsewhere hears that all is well, and hears nothing when it is not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::pod::{Cluster, files, wait_for};

/// A service that is told, and answers as its switch says.
struct Listener {
    url: String,
    told: Arc<AtomicUsize>,
    is_failing: Arc<AtomicBool>,
}

impl Listener {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let url = format!("http://{}/secret", listener.local_addr().expect("an address"));
        let (told, is_failing) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counts, fails) = (Arc::clone(&told), Arc::clone(&is_failing));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a client");
                let mut request = [0; 1024];
                let length = stream.read(&mut request).expect("reads");
                assert!(request[..length].starts_with(b"GET /secret HTTP/1.1\r\n"));
                let status = if fails.load(Ordering::SeqCst) { "500 Broken" } else { "200 OK" };
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).expect("writes");
                counts.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { url, told, is_failing }
    }

    fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }
}

#[test]
fn a_heartbeat_is_told_after_passes_and_looks_that_go_well_and_not_while_the_directory_is_refused() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    assert_eq!(pod.restore().code, Some(0));
    let listener = Listener::new();
    let sidecar = pod.sync_with(&["--interval=100ms", &format!("--heartbeat={}", listener.url)]);
    wait_for("it is told again and again", || listener.told() > 3);

    std::fs::remove_file(pod.data.join("post")).expect("removed");
    wait_for("it is refused", || sidecar.metric(r#"ghostsync_guard_refused{guard="empty"}"#) == Some(1.0));
    let looks = || sidecar.metric(r#"ghostsync_store_requests_total{op="head",code="not-found"}"#).unwrap_or_default();
    let (told, looked) = (listener.told(), looks());
    wait_for("the looks go on, and go well", || looks() > looked + 5.0);
    assert!(listener.told() <= told + 1, "the one that was under way, and no other");
    pod.write("post", "again");
    wait_for("it is saved", || cluster.head_files() == files(&[("post", "again")]));
    wait_for("it is told again", || listener.told() > told + 2);
    assert_eq!(sidecar.terminate().code, Some(0));
}

#[test]
fn a_heartbeat_that_nobody_hears_is_logged_once_without_its_secret_and_ends_nothing() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    assert_eq!(pod.restore().code, Some(0));
    let listener = Listener::new();
    listener.is_failing.store(true, Ordering::SeqCst);
    let sidecar = pod.sync_with(&["--interval=100ms", &format!("--heartbeat={}", listener.url)]);
    wait_for("it fails again and again", || listener.told() > 3);
    listener.is_failing.store(false, Ordering::SeqCst);
    sidecar.wait_for_line("the heartbeat is told again");
    let ended = sidecar.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert_eq!(ended.log.matches("cannot tell the heartbeat").count(), 1, "{}", ended.log);
    assert!(ended.log.contains("answered 500") && !ended.log.contains("secret"), "{}", ended.log);
}

/// Waiting is bounded everywhere else; here it is the point that nothing happens for a while.
#[test]
fn a_heartbeat_is_told_at_most_once_an_interval() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    assert_eq!(pod.restore().code, Some(0));
    let listener = Listener::new();
    let sidecar = pod.sync_with(&["--interval=1h", &format!("--heartbeat={}", listener.url)]);
    wait_for("it is told", || listener.told() == 1);
    for content in ["one", "two", "three"] {
        pod.write("post", content);
        wait_for("it is saved", || cluster.head_files() == files(&[("post", content)]));
    }
    let until = std::time::Instant::now() + Duration::from_millis(200);
    wait_for("a while", || std::time::Instant::now() > until);
    assert_eq!(listener.told(), 1);
    assert_eq!(sidecar.terminate().code, Some(0));
}
