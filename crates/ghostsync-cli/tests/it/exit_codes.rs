//! What a script can tell from the number alone.

use crate::sandbox::Sandbox;

#[test]
fn bad_input() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.write("a file", "x");
    let table: &[(i32, &[&str])] = &[
        (0, &["--help"]),
        (0, &["--version"]),
        (0, &["backup", "--help"]),
        (2, &[]),
        (2, &["no-such-command"]),
        (2, &["forget"]),
        (2, &["forget", "--keep-last", "0"]),
        (2, &["backup"]),
        (2, &["backup", "source", "--max-delete", "many"]),
        (2, &["backup", "source", "--override", "xyz"]),
        (2, &["backup", "source", "--limit-upload", "1XB"]),
        (2, &["backup", "source", "--exclude-from", "missing"]),
        (2, &["backup", "source", "--branch", "Not A Branch"]),
        (2, &["snapshots", "--repo", "ftp://host/x"]),
        (2, &["snapshots", "--config", "missing.toml"]),
        (2, &["ls", "latest~x"]),
        (2, &["ls", "@yesterday"]),
        (2, &["restore", "out", "--receipt", "r", "--include", "x"]),
        (10, &["backup", "missing"]),
        (10, &["backup", "a file"]),
        (10, &["restore", "a file"]),
        (12, &["snapshots", "--repo", "nowhere"]),
        (12, &["backup", "source", "--repo", "nowhere"]),
        (12, &["ls", "latest", "--branch", "none"]),
        (12, &["ls", "0123abcd"]),
        (12, &["forget", "--keep-last", "1", "--branch", "none"]),
        (12, &["restore", "out", "--branch", "none"]),
    ];
    for (code, args) in table {
        let ran = sandbox.run(args);
        assert_eq!(ran.code, *code, "{args:?}: {}{}", ran.stdout, ran.stderr);
        assert!(*code == 0 || !ran.stderr.is_empty(), "{args:?} says why");
        assert!(*code == 0 || ran.stdout.is_empty(), "{args:?} keeps stdout for results");
    }
}

#[test]
fn with_json_there_is_one_document_whatever_fails() {
    let sandbox = Sandbox::with_snapshot(3);
    for (code, kind, args) in [
        (2, "usage", &["backup"][..]),
        (2, "usage", &["no-such-command"]),
        (2, "invalid", &["snapshots", "--repo", "ftp://host/x"]),
        (2, "invalid", &["snapshots", "--config", "missing.toml"]),
        (12, "not-found", &["snapshots", "--repo", "nowhere"]),
        (10, "refused", &["backup", "missing"]),
    ] {
        let document = sandbox.json(code, args);
        assert_eq!(document["error"]["kind"], kind, "{args:?}: {document}");
        assert!(document["error"]["message"].is_string() && document["outcome"].is_string(), "{document}");
    }
    assert!(sandbox.json(12, &["snapshots", "--repo", "nowhere"])["error"]["hint"].is_string());
}

#[test]
fn no_repository_given() {
    let sandbox = Sandbox::new();
    let output = sandbox.command(&["snapshots"]).env_remove("GHOSTSYNC_REPO").output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--repo"));
}

#[test]
fn a_repository_that_lost_its_configuration_is_damaged_not_missing() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.remove("repository/config.json");
    sandbox.remove("home/.cache");
    assert_eq!(sandbox.json(14, &["snapshots"])["error"]["kind"], "corrupt");
}

#[test]
fn a_newer_repository_is_left_alone() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.write("repository/config.json", r#"{"format":2}"#);
    sandbox.remove("home/.cache");
    assert_eq!(sandbox.json(1, &["backup", "source"])["error"]["kind"], "unsupported");
}

#[test]
fn a_store_that_does_not_answer() {
    // Bound and never accepting would hang; a port that was just closed refuses at once.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["snapshots", "--repo", "s3://bucket/x", "--retry-time", "0", "--json"]);
    let endpoint = format!("http://127.0.0.1:{port}");
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let output = command.envs(variables).output().expect("runs");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(13), "{stdout}");
    assert!(stdout.contains("\"unavailable\""), "{stdout}");
}
