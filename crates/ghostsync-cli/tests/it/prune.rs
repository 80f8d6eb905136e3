//! `prune`.

use std::fs;

use serde_json::Value;

use crate::sandbox::Sandbox;

/// A repository with a snapshot, and packs of a session that never committed.
fn with_garbage() -> Sandbox {
    let sandbox = Sandbox::with_snapshot(3);
    litter(&sandbox);
    sandbox
}

fn litter(sandbox: &Sandbox) {
    let packs = sandbox.path("repository/packs/00000000000000000000-00000000000000000000000000000000");
    fs::create_dir(&packs).expect("a folder");
    for name in ["000000.data", "000001.meta"] {
        fs::write(packs.join(name), [0; 5000]).expect("a pack");
    }
}

#[test]
fn it_says_what_it_would_do_and_does_it() {
    let sandbox = with_garbage();
    let at_once = ["prune", "--grace", "0", "--session-idle", "0"];
    let before = sandbox.tree("repository");
    let planned = sandbox.json(0, &[&at_once[..], &["--dry-run"]].concat());
    assert!(sandbox.tree("repository") == before, "a dry run changes nothing");
    let done = sandbox.json(0, &at_once);
    for field in ["commit", "session_floor", "deleted_packs", "deleted_bytes", "kept_packs", "waiting_packs"] {
        assert_eq!(planned[field], done[field], "{field}");
    }
    assert_eq!((&planned["outcome"], &done["outcome"]), (&"planned".into(), &"done".into()));
    assert_eq!((&done["deleted_packs"], &done["deleted_bytes"]), (&2.into(), &10_000.into()));
    assert!(done["requests"]["delete"].as_u64() >= Some(2), "{done}");
    assert!(!sandbox.path("repository/packs/00000000000000000000-00000000000000000000000000000000").exists());
    let ran = sandbox.ok(&at_once);
    assert!(ran.stdout.starts_with("deleted 0 packs of 0 B, kept 2 packs"), "{}", ran.stdout);
    for warning in ["warning: --grace 0", "warning: --session-idle 0"] {
        assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    }
    sandbox.ok(&["restore", "back"]);
    assert!(sandbox.tree("back") == sandbox.tree("source"));
}

#[test]
fn what_is_young_waits_and_is_told() {
    let sandbox = with_garbage();
    let ran = sandbox.ok(&["prune"]);
    assert!(ran.stdout.contains("too young to be deleted: 2 packs of 9.8 KiB; prune again later"), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");
    assert_eq!(sandbox.json(0, &["prune"])["waiting_packs"], 2);
}

#[test]
fn damage_stops_it() {
    let sandbox = with_garbage();
    let pack = sandbox.tree("repository/packs").into_iter().find(|(name, _)| {
        let name = name.to_string_lossy();
        name.ends_with(".meta") && !name.contains("-0000")
    });
    let (name, mut bytes) = pack.expect("a pack of pages");
    bytes[20] ^= 1;
    sandbox.write(&format!("repository/packs/{}", name.display()), bytes);
    let ran = sandbox.run(&["prune", "--grace", "0", "--session-idle", "0"]);
    assert_eq!(ran.code, 14, "{}", ran.stderr);
    assert!(ran.stderr.contains("nothing was deleted, because it cannot be told what is needed"), "{}", ran.stderr);
    assert!(sandbox.path("repository/packs/00000000000000000000-00000000000000000000000000000000").exists());
}

#[test]
fn odd_durations_and_sizes_are_usage_errors() {
    let sandbox = Sandbox::with_snapshot(1);
    for odd in [["--grace", "1"], ["--session-idle", "soon"], ["--max-rewrite", "1M"]] {
        assert_eq!(sandbox.run(&[&["prune"], &odd[..]].concat()).code, 2, "{odd:?}");
    }
}

/// A repository in commit mode `detect` with some snapshots, and packs that nobody needs.
fn in_detect() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(&["init", "--skip-probe", "--commit-mode", "detect"]);
    for number in 0..3 {
        sandbox.write("source/number", number.to_string());
        sandbox.ok(&["backup", "source"]);
    }
    litter(&sandbox);
    sandbox
}

#[test]
fn in_commit_mode_detect_it_asks_for_a_promise_and_says_which() {
    let sandbox = in_detect();
    let before = sandbox.tree("repository");
    let at_once = ["prune", "--grace", "0"];
    let forget = ["forget", "--keep-last", "1", "--protect", "0"];
    for (args, command) in [(&at_once[..], "a prune"), (&forget[..], "a forget")] {
        let ran = sandbox.run(args);
        assert_eq!(ran.code, 10, "{}", ran.stderr);
        for said in [
            "refused by the guard \"exclusive\"",
            &format!("{command} needs the promise that no other process writes to the repository until it has ended"),
            "a backup that commits meanwhile could be lost although it was told that it is done",
            "not done: nothing was changed",
            "if this is what you want: ",
            &format!("ghostsync {} --exclusive", args.join(" ")),
        ] {
            assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
        }
        let document = sandbox.json(10, args);
        assert_eq!((&document["outcome"], &document["refusal"]["guard"]), (&"refused".into(), &"exclusive".into()));
        sandbox.ok(&[args, &["--dry-run"]].concat());
        assert!(sandbox.tree("repository") == before, "{command}");
    }
    let ran = sandbox.ok(&[&forget[..], &["--prune", "--grace", "0", "--session-idle", "0", "--exclusive"]].concat());
    assert!(ran.stdout.contains("dropped 1 snapshot") && ran.stdout.contains("deleted 4 packs"), "{}", ran.stdout);
    assert!(!ran.stderr.contains("--session-idle 0"), "nobody is fenced: {}", ran.stderr);
    let again = sandbox.json(0, &["prune", "--grace", "0", "--exclusive"]);
    assert_eq!(
        (&again["deleted_packs"], &again["waiting_packs"], &again["commit"]),
        (&0.into(), &0.into(), &Value::Null)
    );
    sandbox.ok(&["check", "--read-data"]);
    sandbox.ok(&["restore", "back"]);
    assert!(sandbox.tree("back") == sandbox.tree("source"));
}

#[test]
fn in_commit_mode_atomic_the_promise_changes_nothing() {
    let reports = [&[][..], &["--exclusive"]].map(|promise| {
        let sandbox = with_garbage();
        let done = sandbox.json(0, &[&["prune", "--grace", "0", "--session-idle", "1d"], promise].concat());
        ["commit", "session_floor", "deleted_packs", "waiting_packs", "kept_packs"].map(|field| done[field].clone())
    });
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[0][3], 2, "the session is waited for all the same");
}
