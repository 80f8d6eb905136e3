//! A writer that stood still while others went on.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sandbox::Sandbox;

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(&mut next).take(bytes).collect()
}

#[test]
fn a_writer_that_was_stopped_across_a_claim_a_forget_and_a_prune_is_told_and_keeps_what_it_has() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.ok(&["claim", "--owner", "a"]);
    sandbox.ok(&["restore", "a", "--receipt", "a.receipt"]);
    sandbox.write("a/late", noise(2 << 20));
    let args = ["backup", "a", "--receipt", "a.receipt", "--exclusive", "--owner", "a", "--json"];
    let slow = ["--limit-upload", "1MB", "--progress", "always", "--cache-dir", "a.cache"];
    let mut command = sandbox.command(&[&args[..], &slow].concat());
    let mut a = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdout = BufReader::new(a.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("\"planned_files\":") || line.contains("\"planned_files\":null") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).expect("readable"), 0, "it ended before it had a plan");
    }
    let pid = Pid::from_child(&a);
    kill_process(pid, Signal::STOP).expect("stopped");

    sandbox.ok(&["claim", "--owner", "b"]);
    sandbox.ok(&["restore", "b", "--receipt", "b.receipt"]);
    // Two, so that what a began with is neither head nor parent of the head.
    for round in ["one", "two"] {
        sandbox.write(&format!("b/{round}"), round);
        sandbox.ok(&["backup", "b", "--receipt", "b.receipt", "--exclusive", "--owner", "b"]);
    }
    let head = sandbox.json(0, &["branches"])["head"].clone();
    sandbox.ok(&["forget", "--keep-last", "1", "--protect", "0s"]);
    sandbox.ok(&["prune", "--grace", "0s", "--session-idle", "0s"]);

    kill_process(pid, Signal::CONT).expect("goes on");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("readable");
    let ended = a.wait_with_output().expect("ends");
    assert_eq!(ended.status.code(), Some(11), "{rest} {}", String::from_utf8_lossy(&ended.stderr));
    let told: Value = serde_json::from_str(rest.lines().last().expect("a line")).expect("JSON");
    assert_eq!(told["outcome"], "conflict");
    assert!(told["fork"].as_str().is_some_and(|fork| fork.starts_with("fork/main/a-")), "{told}");
    sandbox.ok(&["restore", "kept", "--snapshot", told["snapshot"].as_str().expect("an id")]);
    assert!(sandbox.tree("kept") == sandbox.tree("a"));
    let branches = sandbox.ok(&["branches", "--json"]).lines();
    let main = branches.iter().find(|branch| branch["branch"] == "main").expect("main");
    assert_eq!(main["head"], head, "the branch never moved");
    assert_eq!(sandbox.run(&["check", "--read-data"]).code, 0);
}
