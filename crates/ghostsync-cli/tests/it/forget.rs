//! `forget`: the plan, and what is left after it.

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

fn snapshots(sandbox: &Sandbox) -> Vec<String> {
    let lines = sandbox.run(&["snapshots", "--json"]).lines();
    lines.iter().map(|line| line["id"].as_str().expect("a text").to_owned()).collect()
}

/// A repository with five snapshots, the first of them tagged and the second held.
fn five() -> Sandbox {
    let sandbox = Sandbox::with_files(3);
    for number in 0..5 {
        sandbox.write("source/number", number.to_string());
        sandbox.ok(&["backup", "source", "--tag", &format!("n={number}")]);
    }
    sandbox.ok(&["hold", "latest~3", "--reason", "audit"]);
    sandbox
}

#[test]
fn what_no_rule_keeps_is_dropped_and_the_plan_says_why() {
    let sandbox = five();
    let before = snapshots(&sandbox);
    let args = ["forget", "--keep-last", "1", "--keep-tag", "n=0", "--protect", "0", "--json"];
    let planned = sandbox.ok(&[&args[..], &["--dry-run"]].concat()).lines();
    assert_eq!(snapshots(&sandbox), before, "a dry run drops nothing");
    let done = sandbox.ok(&args).lines();
    let (result, lines) = done.split_last().expect("lines");
    assert_eq!(planned[..5], *lines, "what was planned is what is done");
    let expected = json!({"outcome": "done", "commit": 7, "kept": 4, "dropped": 1, "dropped_branches": [], "dry_run": false,
            "prune": null});
    assert_eq!(*result, expected);
    assert_eq!((&planned[5]["outcome"], &planned[5]["commit"]), (&json!("planned"), &Value::Null));
    let why: Vec<&Value> = lines.iter().map(|line| &line["why"]).collect();
    assert_eq!(why[0], &json!(["tag n=0"]));
    assert_eq!(why[1], &json!(["held: audit"]));
    assert_eq!(why[2], &json!(["no rule keeps it"]));
    assert_eq!(why[3], &json!(["parent of the head of main"]));
    assert_eq!(why[4], &json!(["last 1", "last complete", "head of main"]));
    let kept: Vec<bool> = lines.iter().map(|line| line["kept"] == true).collect();
    assert_eq!(kept, [true, true, false, true, true]);
    let left: Vec<String> =
        before.iter().enumerate().filter(|(number, _)| kept[*number]).map(|(_, id)| id.clone()).collect();
    assert_eq!(snapshots(&sandbox), left);
    let again = sandbox.ok(&args).lines();
    assert_eq!(again.last().expect("a result")["outcome"], "unchanged");
}

#[test]
fn forgetting_and_pruning_can_be_one_command() {
    let sandbox = five();
    let args = ["forget", "--keep-last", "1", "--protect", "0", "--prune", "--grace", "0s", "--session-idle", "0s"];
    let done = sandbox.ok(&[&args[..], &["--json"]].concat()).lines();
    let result = done.last().expect("a result");
    assert_eq!((&result["dropped"], &result["outcome"]), (&json!(2), &json!("done")));
    assert!(result["prune"]["deleted_packs"].as_u64() > Some(0), "{result}");
    sandbox.ok(&["check", "--read-data"]);
    assert!(sandbox.ok(&args).stdout.lines().last().expect("a line").starts_with("deleted 0 packs"));
}

#[test]
fn the_table_is_for_people() {
    let sandbox = five();
    let args = ["forget", "--keep-last", "1", "--protect", "0"];
    let table = sandbox.ok(&[&args[..], &["--dry-run"]].concat()).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["ID", "TIME", "BRANCH", "PLAN", "WHY"]);
    assert!(lines[1].contains("drop") && lines[1].ends_with("no rule keeps it"), "{table}");
    assert!(lines[2].contains("keep") && lines[2].contains("held: audit"), "{table}");
    assert!(lines[5].contains("head of main") && lines[5].contains("last 1;"), "{table}");
    assert_eq!(lines[6], "would drop 2 snapshots, kept 3");
    let done = sandbox.ok(&args).stdout;
    assert_eq!(done.lines().last(), Some("dropped 2 snapshots, kept 3"));
    assert!(sandbox.ok(&[&args[..], &["-q"]].concat()).stdout.is_empty());
}

#[test]
fn what_is_new_is_protected_unless_told_otherwise() {
    let sandbox = five();
    let ran = sandbox.ok(&["forget", "--keep-last", "1", "--json"]);
    assert_eq!(ran.lines().last().expect("a result")["outcome"], "unchanged");
    assert!(ran.stdout.contains("protected: within 10m"), "{}", ran.stdout);
    assert_eq!(snapshots(&sandbox).len(), 5);
}

#[test]
fn nothing_is_dropped_without_a_rule() {
    let sandbox = five();
    for args in
        [&["forget"][..], &["forget", "--all"], &["forget", "--protect", "0"], &["forget", "--keep-within", "0"]]
    {
        let ran = sandbox.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {}", ran.stderr);
    }
    assert_eq!(snapshots(&sandbox).len(), 5);
}

#[test]
fn only_the_branches_that_are_named_are_concerned() {
    let sandbox = five();
    for number in 0..3 {
        sandbox.write("source/number", format!("other {number}"));
        sandbox.ok(&["backup", "source", "--branch", "other"]);
    }
    let ran = sandbox.ok(&["forget", "--keep-last", "1", "--protect", "0", "--branch", "other", "--json"]);
    assert_eq!(ran.lines().last().expect("a result")["dropped"], 1);
    assert!(ran.lines()[..3].iter().all(|line| line["branch"] == "other"));
    assert_eq!(snapshots(&sandbox).len(), 7);
}

#[test]
fn hours_and_days_are_of_the_zone_of_this_machine() {
    let sandbox = five();
    let args = ["forget", "--keep-hourly", "1", "--dry-run", "--json"];
    for (zone, hour) in [("UTC", ":00+00"), ("Pacific/Apia", ":00+13")] {
        let output = sandbox.command(&args).env("TZ", zone).output().expect("runs");
        let printed = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(printed.contains(hour), "{zone}: {printed}");
    }
}
