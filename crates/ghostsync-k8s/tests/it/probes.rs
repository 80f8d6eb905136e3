//! Probes: ours, and those of an app.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use crate::pod::Cluster;

#[test]
fn probes_and_metrics_are_served_and_nothing_can_be_asked_for_over_http() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    let sidecar = pod.begin_with(&[]);
    for path in ["/livez", "/startupz", "/readyz", "/metrics", "/status"] {
        assert_eq!(sidecar.get(path).0, 200, "{path}");
    }
    for path in ["/", "/sync", "/terminating", "/final-sync"] {
        assert_eq!(sidecar.get(path).0, 404, "{path}");
    }
    let epoch = cluster.state().commit.branches["main"].epoch;
    assert_eq!(sidecar.metric("ghostsync_epoch"), Some(epoch as f64));
    assert_eq!(sidecar.metric("ghostsync_holder"), Some(1.0));
    let info = format!(r#"ghostsync_snapshot_info{{id="{}"}}"#, cluster.head().id);
    assert_eq!(sidecar.metric(&info), Some(1.0));
    assert!(sidecar.metric("ghostsync_volume_used_ratio").is_some_and(|ratio| (0.0..=1.0).contains(&ratio)));
    assert!(sidecar.metric("ghostsync_restore_duration_seconds").is_some());
    assert!(sidecar.metric(r#"ghostsync_last_success_timestamp_seconds{direction="up"}"#).is_some());
    assert!(sidecar.metric(r#"ghostsync_store_requests_total{op="get",code="ok"}"#).is_some_and(|count| count > 0.0));
    assert_eq!(sidecar.terminate().code, Some(0));
}

/// An app that redirects to https, as Ghost does, unless its proxy says that it was https.
fn app() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut request = [0; 1024];
            let length = stream.read(&mut request).expect("reads");
            let request = String::from_utf8_lossy(&request[..length]);
            let is_https =
                request.contains("X-Forwarded-Proto: https\r\n") && request.contains("Host: blog.example\r\n");
            let status = if is_https { "200 OK" } else { "301 Moved Permanently" };
            stream
                .write_all(format!("HTTP/1.1 {status}\r\nLocation: https://{address}/\r\n\r\n").as_bytes())
                .expect("writes");
        }
    });
    format!("http://{address}/")
}

#[test]
fn a_probe_that_is_redirected_to_https_fails_and_the_headers_of_a_proxy_help() {
    let url = app();
    let health = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostsync-k8s"));
        let output = command.env_clear().args(["health", "--url", &url]).args(more).output().expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, log) = health(&[]);
    assert_eq!(code, Some(13), "{log}");
    assert!(log.contains("301") && log.contains("X-Forwarded-Proto"), "{log}");
    assert_eq!(health(&["-H", "Host: blog.example", "-H", "X-Forwarded-Proto: https"]).0, Some(0));
    let (code, _) = {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostsync-k8s"));
        let output = command.env_clear().args(["health", "--url=http://127.0.0.1:1/"]).output().expect("runs");
        (output.status.code(), output)
    };
    assert_eq!(code, Some(13));
}
