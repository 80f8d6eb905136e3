//! `tag`, `hold`, `release-hold` and `promote`.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn newest(sandbox: &Sandbox) -> Value {
    sandbox.run(&["snapshots", "--json"]).lines().pop().expect("a snapshot")
}

#[test]
fn tags_come_and_go() {
    let sandbox = Sandbox::with_snapshot(2);
    assert_eq!(sandbox.json(0, &["tag", "latest", "a=1", "b=2"])["outcome"], "done");
    assert_eq!(sandbox.json(0, &["tag", "latest", "a=1"])["outcome"], "unchanged");
    assert_eq!(newest(&sandbox)["tags"], json!({"a": "1", "b": "2"}));
    sandbox.ok(&["tag", "latest", "--remove", "a", "c=3"]);
    assert_eq!(newest(&sandbox)["tags"], json!({"b": "2", "c": "3"}));
    assert_eq!(sandbox.run(&["tag", "0000", "a=1"]).code, 12);
    assert_eq!(sandbox.run(&["tag", "latest"]).code, 2);
    assert_eq!(sandbox.run(&["tag", "latest", "a"]).code, 2);
}

#[test]
fn holds_come_and_go() {
    let sandbox = Sandbox::with_snapshot(2);
    sandbox.ok(&["hold", "latest", "--reason", "audit"]);
    assert_eq!(newest(&sandbox)["hold"], "audit");
    assert!(sandbox.ok(&["snapshots"]).stdout.contains("held (audit)"));
    sandbox.ok(&["release-hold", "latest"]);
    assert_eq!(newest(&sandbox)["hold"], Value::Null);
}

#[test]
fn a_branch_rolls_back() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.write("source/bad", "x");
    sandbox.ok(&["backup", "source"]);
    assert_eq!(sandbox.json(0, &["promote", "latest~1"])["branch"], "main");
    assert_eq!(sandbox.run(&["cat", "latest:bad"]).code, 12);
    assert_eq!(sandbox.run(&["promote", "latest"]).code, 2);
}

#[test]
fn an_exclusive_writer_without_a_claim_is_told_how_to_get_one() {
    let sandbox = Sandbox::with_files(1);
    let ran = sandbox.run(&["backup", "source", "--owner", "pod", "--exclusive", "--branch", "blog"]);
    assert_eq!(ran.code, 11, "{}", ran.stderr);
    let line = ran.stderr.lines().find_map(|line| line.strip_prefix("to have it from the next backup on: "));
    assert_eq!(sandbox.shell(line.expect("a command")).code, 0, "{}", ran.stderr);
    sandbox.ok(&["backup", "source", "--owner", "pod", "--exclusive", "--branch", "blog"]);
}
