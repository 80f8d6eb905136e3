//! What the command says on a real store when something is wrong, as `docs/operations.md` shows it.
//!
//! The servers are started by `scripts/stores`; one that is not installed is skipped, visibly.

use crate::documented::{Block, documented};
use crate::sandbox::Sandbox;
use crate::server::Server;

/// Runs every block that needs a store, with its variables.
fn assert_as_documented(store: &str, scheme: &str, variables: &[(String, String)]) {
    let blocks = documented(Some(store));
    assert!(!blocks.is_empty(), "the page lost its blocks on {store}");
    for Block { line, expected } in blocks {
        if line.contains("faketime") && Sandbox::new().shell("command -v faketime").code != 0 {
            eprintln!("skipped: faketime is not installed: {line}");
            continue;
        }
        let ran = Sandbox::new().shell_on_store(scheme, variables, &line);
        let printed = format!("{}{}exit {}\n", ran.stdout, ran.stderr, ran.code);
        // How often a race is lost is another figure each time; of only four large keys none may be.
        let expected = if printed.contains(LARGE_RACE) { expected } else { without_large_race(&expected) };
        let (printed_without, expected_without) = (without_figures(&printed), without_figures(&expected));
        assert!(printed_without == expected_without, "{line}\n--- printed\n{printed}--- documented\n{expected}");
        assert_eq!(printed.lines().last(), expected.lines().last(), "{line}");
    }
}

const LARGE_RACE: &str = "race on large keys";

/// A text without what it says of the race on large keys.
fn without_large_race(text: &str) -> String {
    let Some((before, race)) = text.split_once(LARGE_RACE) else { return text.to_owned() };
    let (_, after) = race.split_once("of 8; ").expect("the end of the race");
    format!("{before}{after}")
}

/// A text with every number as `N`.
fn without_figures(text: &str) -> String {
    let mut without = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if without.ends_with('N') => {}
            '0'..='9' => without.push('N'),
            other => without.push(other),
        }
    }
    without
}

fn assert_as_documented_on(store: &str, scheme: &'static str) {
    if let Some(server) = Server::start(store, scheme) {
        assert_as_documented(store, scheme, &server.variables);
    }
}

#[test]
#[ignore = "starts a server (just stores)"]
fn ceph_is_as_documented() {
    assert_as_documented_on("ceph", "s3");
}

#[test]
#[ignore = "starts a server (just stores)"]
fn garage_is_as_documented() {
    assert_as_documented_on("garage", "s3");
}

#[test]
#[ignore = "starts a server (just stores)"]
fn s3s_is_as_documented() {
    assert_as_documented_on("s3s", "s3");
}

#[test]
#[ignore = "starts a server (just stores)"]
fn webdav_is_as_documented() {
    assert_as_documented_on("webdav", "http");
}

#[test]
#[ignore = "starts a server (just stores)"]
fn azurite_is_as_documented() {
    assert_as_documented_on("azurite", "az");
}

#[test]
fn a_store_that_nobody_runs_is_as_documented() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let variables = [("AWS_ENDPOINT_URL", &*endpoint), ("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_as_documented("nothing", "s3", &variables);
}
