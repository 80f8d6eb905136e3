//! `repair` through the real command: what it says, what it does, how it ends, and the commands that go on.

use std::fs;

use serde_json::json;

use crate::sandbox::Sandbox;

/// A snapshot of 12 files, and after it one of a thirteenth, whose content has a pack of its own.
fn repository() -> Sandbox {
    let sandbox = Sandbox::with_snapshot(12);
    sandbox.write("source/new", "of the last snapshot");
    sandbox.ok(&["backup", "source"]);
    sandbox
}

fn packs(sandbox: &Sandbox) -> Vec<String> {
    let files = sandbox.tree("repository").into_iter().map(|(name, _)| name.to_str().expect("text").to_owned());
    files.filter(|name| name.ends_with(".data")).collect()
}

#[test]
fn nothing_to_repair_is_done() {
    let sandbox = repository();
    let ran = sandbox.ok(&["repair", "--read-data"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("no head is damaged: 2 snapshots looked at\n", ""));
    let said = sandbox.json(0, &["repair"]);
    assert_eq!((&said["outcome"], &said["heads"], &said["left"]), (&json!("done"), &json!([]), &json!([])));
}

#[test]
fn what_check_names_is_rebuilt_or_lost_and_comes_back_with_the_next_backup() {
    let sandbox = repository();
    let pack = packs(&sandbox).pop().expect("a pack");
    sandbox.remove(&format!("repository/{pack}"));
    let found = sandbox.json(14, &["check"]);
    let command = found["repair"].as_str().expect("a command");
    assert!(command.ends_with(" repair") && sandbox.run(&["check"]).stderr.contains(command), "{found}");

    let dry = sandbox.run(&["repair", "--dry-run"]);
    assert_eq!(dry.code, 14, "{}", dry.stderr);
    assert!(dry.stdout.starts_with("dry run: branch main: would be left of it: 12 entries"), "{}", dry.stdout);
    assert_eq!(sandbox.ok(&["snapshots", "--json"]).lines().len(), 2);

    let ran = sandbox.shell(command);
    assert_eq!(ran.code, 14, "{}", ran.stderr);
    let lost = format!("  lost: new: {pack}: it is missing, and there is no good copy of it\n");
    assert!(ran.stderr.contains(&lost) && ran.stderr.contains("comes back with the next backup"), "{}", ran.stderr);
    assert!(ran.stdout.contains("12 entries") && ran.stdout.ends_with("1 entry is lost\n"), "{}", ran.stdout);
    sandbox.ok(&["restore", "out"]);
    assert_eq!(fs::read_dir(sandbox.path("out")).expect("a folder").count(), 12);

    sandbox.ok(&["backup", "source"]);
    sandbox.ok(&["restore", "whole"]);
    assert!(sandbox.tree("whole") == sandbox.tree("source"));
    let again = sandbox.json(0, &["repair"]);
    assert_eq!(
        (&again["outcome"], &again["heads"]),
        (&json!("done"), &json!([])),
        "the lost tree is there again: {again}"
    );
}

#[test]
fn what_another_branch_has_is_there_again_and_nothing_is_lost() {
    let sandbox = repository();
    let of_main = packs(&sandbox);
    sandbox.ok(&["backup", "source", "--branch", "other"]);
    of_main.iter().for_each(|pack| sandbox.remove(&format!("repository/{pack}")));
    let said = sandbox.json(14, &["repair"]);
    let head = &said["heads"][0];
    assert_eq!((&head["outcome"], &head["losses"], &head["copied_bytes"]), (&json!("done"), &json!([]), &json!(0)));
    let snapshots = sandbox.ok(&["snapshots", "--json"]).lines();
    assert_eq!(said["left"], json!([snapshots[0]["id"]]), "the first had no file new, so nobody has its very tree");
    sandbox.ok(&["restore", "whole"]);
    assert!(sandbox.tree("whole") == sandbox.tree("source"));
    let ran = sandbox.run(&["repair"]);
    assert_eq!(ran.stdout, "no head is damaged: 4 snapshots looked at\n");
    // The older one is repaired too once it is the head.
    let promote = ran.stderr.split(": ").last().expect("a command").trim();
    assert_eq!(sandbox.shell(promote).code, 0, "{promote}");
    let ran = sandbox.ok(&["repair"]);
    assert!(ran.stdout.ends_with("nothing is lost\n"), "{}", ran.stdout);
}

#[test]
fn a_refusal_names_the_guard_and_the_command_that_goes_on() {
    let sandbox = repository();
    packs(&sandbox).iter().for_each(|pack| sandbox.remove(&format!("repository/{pack}")));
    let said = sandbox.json(14, &["repair"]);
    let head = &said["heads"][0];
    assert_eq!((&head["outcome"], &head["snapshot"]), (&json!("refused"), &json!(null)), "{said}");
    assert_eq!((&head["refusal"]["guard"], &head["refusal"]["actual"]), (&json!("empty"), &json!(13)), "{said}");
    let ran = sandbox.run(&["repair"]);
    let command = head["command"].as_str().expect("a command").replace(" --json", "");
    assert!(command.contains("--override") && ran.stderr.contains(&command), "{command}: {}", ran.stderr);
    assert!(ran.stderr.contains("not done: nothing was published: branch main"), "{}", ran.stderr);
    let overridden = sandbox.shell(&command);
    assert_eq!(overridden.code, 14, "{}", overridden.stderr);
    sandbox.ok(&["backup", "source"]);
    sandbox.ok(&["restore", "whole"]);
    assert!(sandbox.tree("whole") == sandbox.tree("source"));
}

#[test]
fn a_held_branch_and_an_older_snapshot_are_left_and_named() {
    let sandbox = repository();
    let pack = packs(&sandbox).pop().expect("a pack");
    sandbox.remove(&format!("repository/{pack}"));
    sandbox.ok(&["claim", "--owner", "pod-1"]);
    let held = sandbox.run(&["repair"]);
    assert!(held.code == 14 && held.stderr.contains("belongs to a writer that has not released it"), "{}", held.stderr);
    sandbox.ok(&["release", "--owner", "pod-1"]);
    assert_eq!(sandbox.run(&["repair"]).code, 14);
    let older = sandbox.run(&["repair"]);
    assert_eq!((older.code, older.stdout.as_str()), (14, "no head is damaged: 3 snapshots looked at\n"));
    let snapshots = sandbox.ok(&["snapshots", "--json"]).lines();
    let id = snapshots[1]["id"].as_str().expect("an id");
    assert!(older.stderr.contains(&format!("promote {}", &id[..8])), "{}", older.stderr);
}
