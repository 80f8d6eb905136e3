//! `doctor` on a local store: what is as it should be, and what is not.

use std::fs;

use serde_json::Value;

use crate::sandbox::Sandbox;

/// The finding about a subject.
fn finding<'a>(document: &'a Value, subject: &str) -> &'a Value {
    let findings = document["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["subject"] == subject).unwrap_or_else(|| panic!("{subject}: {document}"))
}

#[test]
fn a_sound_repository_has_no_problem_and_nothing_is_left_behind() {
    let sandbox = Sandbox::with_snapshot(3);
    let before = sandbox.tree("repository");
    let document = sandbox.json(0, &["doctor"]);
    for subject in ["create", "visibility", "clock", "cache", "repository", "log", "hint"] {
        assert_eq!(finding(&document, subject)["severity"], "good", "{document}");
    }
    assert_eq!(document["possible_modes"], serde_json::json!(["atomic", "detect"]));
    assert_eq!(document["clock_ahead_seconds"], 0);
    assert_eq!(sandbox.tree("repository"), before);
    let text = sandbox.ok(&["doctor"]).stdout;
    assert!(text.contains("good: commit 1 is the head, and none before it is missing\n  means: "), "{text}");
}

#[test]
fn a_place_without_a_repository_is_no_problem() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("repository")).expect("a folder");
    let document = sandbox.json(0, &["doctor"]);
    assert_eq!(finding(&document, "repository")["severity"], "note");
    assert_eq!(document["outcome"], "done");
}

#[test]
fn a_missing_commit_is_damage() {
    let sandbox = Sandbox::with_snapshot(3);
    for content in ["b", "c", "d"] {
        sandbox.write("source/file00", content);
        sandbox.ok(&["backup", "source"]);
    }
    sandbox.remove("repository/log/00000000000000000002.json.zst");
    let document = sandbox.json(14, &["doctor"]);
    let found = finding(&document, "log");
    assert_eq!((&found["severity"], &found["kind"]), (&"problem".into(), &"corrupt".into()));
    assert_eq!(found["found"], "of 4 commits 1 are missing, among them 2");
    assert!(found["advice"].as_str().is_some_and(|advice| advice.contains("ghostsync check")), "{found}");
}

#[test]
fn an_old_hint_is_told_and_one_that_is_ahead_is_damage() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.write("repository/head.json", r#"{"seq":0}"#);
    assert_eq!(finding(&sandbox.json(0, &["doctor"]), "hint")["severity"], "note");
    sandbox.write("repository/head.json", r#"{"seq":2}"#);
    assert_eq!(finding(&sandbox.json(14, &["doctor"]), "hint")["severity"], "problem");
}

#[test]
fn a_configuration_of_a_newer_version_is_a_problem() {
    let sandbox = Sandbox::with_snapshot(3);
    let config = sandbox.read("repository/config.json").replace(r#""format":1"#, r#""format":2"#);
    sandbox.write("repository/config.json", config);
    sandbox.remove("home/.cache");
    let document = sandbox.json(1, &["doctor"]);
    assert_eq!(finding(&document, "repository")["kind"], "unsupported");
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.write("file", "no folder");
    let document = sandbox.json(0, &["doctor", "--cache-dir", "file"]);
    assert_eq!(finding(&document, "cache")["severity"], "warning");
}

#[test]
fn a_clock_that_is_an_hour_off_is_a_warning() {
    let sandbox = Sandbox::with_snapshot(3);
    if sandbox.shell("command -v faketime").code != 0 {
        eprintln!("skipped: faketime is not installed");
        return;
    }
    let line = format!("faketime -f -1h {} doctor --json", env!("CARGO_BIN_EXE_ghostsync"));
    let ran = sandbox.shell(&line);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let document = ran.document();
    let ahead = document["clock_ahead_seconds"].as_i64().expect("a number");
    assert!((3590..3610).contains(&ahead), "{ahead}");
    assert_eq!(finding(&document, "clock")["severity"], "warning");
}
