//! `restore`, and the receipts that lie between it and `backup`.

use ghostsync_core::testing::restless::Restless;
use serde_json::{Value, json};

use crate::sandbox::Sandbox;

#[test]
fn a_directory_comes_back() {
    let sandbox = Sandbox::with_files(5);
    sandbox.write("source/deep/er/file", vec![7; 3 << 20]);
    std::os::unix::fs::symlink("file00", sandbox.path("source/link")).expect("a link");
    let backup = sandbox.json(0, &["backup", "source"]);
    let restored = sandbox.json(0, &["restore", "out"]);
    assert_eq!(restored["snapshot"], backup["snapshot"]);
    assert_eq!(sandbox.tree("out"), sandbox.tree("source"));
    for field in ["written", "unchanged", "deleted", "problems", "downloaded_bytes", "requests", "seconds"] {
        assert!(!restored[field].is_null(), "{field}");
    }
    let again = sandbox.json(0, &["restore", "out", "--overwrite", "changed"]);
    assert_eq!((&again["written"], &again["deleted"]), (&json!(0), &json!(0)));
}

#[test]
fn older_snapshots_and_parts() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.write("source/file00", "a newer content");
    sandbox.write("source/d/x", "x");
    sandbox.ok(&["backup", "source"]);
    sandbox.ok(&["restore", "old", "--snapshot", "latest~1"]);
    assert_eq!(sandbox.read("old/file00"), "content 0");
    sandbox.ok(&["restore", "part", "--include", "d"]);
    assert_eq!(sandbox.tree("part").len(), 2);
    sandbox.ok(&["restore", "most", "--exclude", "file0*"]);
    assert_eq!(sandbox.tree("most").len(), 2);
    assert_eq!(sandbox.run(&["restore", "none", "--snapshot", "latest~2"]).code, 12);
    assert_eq!(sandbox.run(&["restore", "none", "--snapshot", "@2001-01-01"]).code, 12);
}

#[test]
fn a_directory_with_something_in_it_is_refused() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.write("out/mine", "x");
    let refused = sandbox.json(10, &["restore", "out"]);
    assert_eq!(refused["refusal"]["guard"], "destination");
    assert_eq!(sandbox.tree("out").len(), 1);
    let ran = sandbox.run(&["restore", "out"]);
    assert!(ran.stderr.contains("nothing in out was written or deleted"), "{}", ran.stderr);
    let command = refused["command"].as_str().expect("a command");
    assert_eq!(sandbox.shell(command).code, 0, "{command}");
    assert_eq!(sandbox.tree("out").len(), 4);
}

#[test]
fn deleting_is_capped() {
    let sandbox = Sandbox::with_snapshot(3);
    for index in 0..20 {
        sandbox.write(&format!("out/extra{index:02}"), "x");
    }
    let refused = sandbox.json(10, &["restore", "out", "--delete"]);
    assert_eq!(refused["refusal"]["guard"], "max-delete");
    assert_eq!(sandbox.tree("out").len(), 20);
    let command = refused["command"].as_str().expect("a command");
    assert!(command.ends_with("--max-delete 20"), "{command}");
    let deleted = sandbox.shell(command);
    assert_eq!(deleted.code, 0, "{}", deleted.stderr);
    assert_eq!(deleted.document()["deleted"], 20);
    assert_eq!(sandbox.tree("out"), sandbox.tree("source"));
}

#[test]
fn a_dry_run_writes_nothing() {
    let sandbox = Sandbox::with_snapshot(3);
    let planned = sandbox.json(0, &["restore", "out", "--dry-run"]);
    assert_eq!((&planned["written"], &planned["dry_run"]), (&json!(3), &json!(true)));
    assert!(!sandbox.path("out").exists());
}

#[test]
fn the_tripwire() {
    let sandbox = Sandbox::with_snapshot(3);
    let backup = ["backup", "out", "--receipt", "out/receipt.json"];
    std::fs::create_dir(sandbox.path("out")).expect("a folder");
    sandbox.write("out/file00", "not restored");
    let refused = sandbox.json(10, &backup);
    assert_eq!(refused["refusal"]["guard"], "receipt");
    assert!(refused["command"].as_str().is_some_and(|command| command.contains(" restore ")), "{refused}");
    sandbox.remove("out");

    sandbox.ok(&["restore", "out", "--receipt", "out/receipt.json"]);
    let receipt: Value = serde_json::from_str(&sandbox.read("out/receipt.json")).expect("JSON");
    assert_eq!((&receipt["branch"], &receipt["entries"]), (&json!("main"), &json!(3)));
    assert_eq!(sandbox.json(0, &backup)["outcome"], "unchanged");
    sandbox.write("out/new", "x");
    let backed_up = sandbox.json(0, &backup);
    assert_eq!((&backed_up["entries"], &backed_up["added"]), (&json!(4), &json!(1)));
    let receipt: Value = serde_json::from_str(&sandbox.read("out/receipt.json")).expect("JSON");
    assert_eq!(receipt["snapshot"], backed_up["snapshot"]);

    // Somebody else moves the branch.
    sandbox.write("source/other", "x");
    sandbox.ok(&["backup", "source", "--max-delete", "100%"]);
    sandbox.write("out/late", "x");
    let overtaken = sandbox.json(11, &backup);
    assert_eq!(overtaken["outcome"], "conflict");
    let fork = overtaken["snapshot"].as_str().expect("what it had is kept");
    assert!(overtaken["fork"].as_str().is_some_and(|fork| fork.starts_with("fork/main/")), "{overtaken}");
    sandbox.ok(&["restore", "late", "--snapshot", fork]);
    assert_eq!(sandbox.read("late/late"), "x");

    sandbox.write("out/receipt.json", "{}");
    assert_eq!(sandbox.json(10, &backup)["refusal"]["guard"], "receipt");
}

#[test]
fn a_directory_that_was_made_anew_is_not_the_one_that_was_restored() {
    let sandbox = Sandbox::with_snapshot(3);
    sandbox.ok(&["restore", "out", "--receipt", "receipt"]);
    if std::fs::metadata(sandbox.path("out")).and_then(|out| out.created()).is_err() {
        println!("skipped: this file system does not tell when a directory was made");
        return;
    }
    // ext4 gives the number that became free to the next directory.
    sandbox.remove("out");
    for file in 0..3 {
        sandbox.write(&format!("out/file{file:02}"), "of another origin");
    }
    let backup = ["backup", "out", "--receipt", "receipt"];
    let refused = sandbox.json(10, &backup);
    assert_eq!(refused["refusal"]["guard"], "receipt");
    assert_eq!(sandbox.ok(&["snapshots", "--json"]).lines().len(), 1);
}

#[test]
fn a_genesis_receipt_opens_an_empty_branch() {
    let sandbox = Sandbox::new();
    let id = sandbox.ok(&["init"]).stdout.trim_end().to_owned();
    let restore = ["restore", "out", "--receipt", "receipt"];
    assert_eq!(sandbox.run(&restore).code, 12);
    let genesis = [&restore[..], &["--genesis", &id]].concat();
    assert_eq!(sandbox.json(0, &genesis)["snapshot"], Value::Null);
    sandbox.write("out/first", "x");
    assert_eq!(sandbox.json(0, &["backup", "out", "--receipt", "receipt"])["entries"], 1);
    // The flag is harmless when it stays.
    assert_eq!(sandbox.run(&genesis).code, 0);
    let other = "0".repeat(32);
    let wrong = [&restore[..], &["--branch", "b", "--genesis", &other]].concat();
    assert_ne!(sandbox.run(&wrong).code, 0);
}

#[test]
fn files_that_changed_while_the_snapshot_was_made_are_warned_of_by_restore() {
    let sandbox = Sandbox::with_files(1);
    sandbox.write("source/hot", vec![1; 8 << 20]);
    sandbox.ok(&["backup", "source"]);
    let calm = sandbox.json(0, &["restore", "calm"]);
    assert_eq!(calm["unstable"], json!({"count": 0, "paths": []}));

    let restless = Restless::begin(&sandbox.path("source/hot")).expect("opened");
    let is_unstable = |_| sandbox.ok(&["backup", "source"]).stderr.contains("hot: it changed while it was read");
    let found = (0..100).any(is_unstable);
    drop(restless);
    assert!(found, "it never changed while it was read");

    let ran = sandbox.ok(&["restore", "out"]);
    let warning =
        "warning: 1 file changed while the snapshot was made, and may mix several states: hot\nhint: have the app";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    let restored = sandbox.json(0, &["restore", "out", "--overwrite", "changed"]);
    assert_eq!(restored["unstable"], json!({"count": 1, "paths": [{"path": "hot"}]}));
}
