//! Damage through the real command: named with what it affects, with the commands that go on, and exit code 14; with
//! and without a cache. And what names and marks say to a terminal: nothing but text.

use std::path::Path;

use serde_json::json;

use crate::sandbox::Sandbox;

/// Three snapshots; the last adds a file of its own.
fn repository(word: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(&["init", "--skip-probe"]);
    for number in 0..3 {
        let content = format!("{word} {number} ").repeat(50);
        sandbox.write(&format!("source/file{number}"), content);
        sandbox.ok(&["backup", "source"]);
    }
    sandbox
}

fn objects(sandbox: &Sandbox) -> Vec<(String, Vec<u8>)> {
    let objects =
        sandbox.tree("repository").into_iter().filter(|(name, _)| sandbox.path("repository").join(name).is_file());
    objects.map(|(name, content)| (name.to_str().expect("text").to_owned(), content)).collect()
}

fn kind(name: &str) -> &str {
    name.rsplit('.').next().expect("an end")
}

fn put(sandbox: &Sandbox, name: &str, content: Option<&[u8]>) {
    let name = format!("repository/{name}");
    match content {
        Some(content) => sandbox.write(&name, content),
        None => sandbox.remove(&name),
    }
}

#[test]
fn every_kind_of_damage_is_named_with_and_without_a_cache() {
    let (sandbox, other) = (repository("this"), repository("other"));
    let (ours, theirs) = (objects(&sandbox), objects(&other));
    let newest = "log/00000000000000000003.json.zst";
    let cached = |args: &[&str], with_cache: bool| {
        if !with_cache && sandbox.path("home/.cache").exists() {
            sandbox.remove("home/.cache");
        }
        sandbox.run(args)
    };
    for (name, content) in &ours {
        let flipped = |at: usize| {
            let mut flipped = content.clone();
            flipped[at] ^= 4;
            Some(flipped)
        };
        let stranger = |objects: &[(String, Vec<u8>)], skip: usize| {
            let of_kind: Vec<_> = objects.iter().filter(|(other, _)| kind(other) == kind(name)).collect();
            let place = ours.iter().filter(|(other, _)| kind(other) == kind(name)).position(|(other, _)| other == name);
            Some(of_kind[(place.expect("it is among them") + skip) % of_kind.len()].1.clone())
        };
        for (what, damaged) in [
            ("deleted", None),
            ("emptied", Some(Vec::new())),
            ("cut", Some(content[..content.len() / 2].to_vec())),
            ("flipped in its middle", flipped(content.len() / 2)),
            ("flipped near its end", flipped(content.len() - content.len().min(9))),
            ("swapped", stranger(&ours, 1)),
            ("another repository's", stranger(&theirs, 0)),
        ] {
            for with_cache in [true, false] {
                let case = format!("{name} {what}, cache {with_cache}");
                if damaged.as_ref() == Some(content) || (name == "head.json" && what == "deleted") {
                    continue;
                }
                // The cache has seen the repository as it was.
                sandbox.ok(&["snapshots"]);
                put(&sandbox, name, damaged.as_deref());
                let ran = cached(&["check", "--read-data"], with_cache);
                put(&sandbox, name, Some(content));
                assert_eq!(ran.code, 14, "{case}: {}{}", ran.stdout, ran.stderr);
                assert!(ran.stderr.contains(name), "{case}: {}", ran.stderr);
                if name.starts_with("packs/") {
                    assert!(ran.stderr.contains("snapshot"), "{case}: {}", ran.stderr);
                }
                if name == newest {
                    let hint = ["docs/recover-by-hand.md", "commit 2 were", "head.json"];
                    assert!(hint.iter().any(|hint| ran.stderr.contains(hint)), "{case}: {}", ran.stderr);
                }
            }
        }
    }
    assert_eq!(sandbox.ok(&["check", "--read-data"]).stderr, "", "everything is as it was");
    // With the hint gone too only this machine knows that there was a newer commit.
    put(&sandbox, newest, None);
    put(&sandbox, "head.json", None);
    let ran = cached(&["check"], true);
    assert!(ran.code == 14 && ran.stderr.contains(newest), "{}", ran.stderr);
    assert_eq!(cached(&["check"], false).code, 0);
}

/// A repair rebuilds trees: whoever is sent there by what a damaged log says, or by a repair itself, is sent in a circle.
#[test]
fn of_a_damaged_log_nobody_is_told_that_a_repair_rebuilds_it() {
    let sandbox = repository("content");
    let newest = "log/00000000000000000003.json.zst";
    let before = objects(&sandbox);
    let (_, whole) = before.iter().find(|(name, _)| name == newest).expect("the newest commit");
    for damaged in [None, Some(&whole[..whole.len() / 2])] {
        for command in [&["snapshots"][..], &["backup", "source"], &["repair"], &["prune"]] {
            put(&sandbox, newest, damaged);
            let ran = sandbox.run(command);
            put(&sandbox, newest, Some(whole));
            assert_eq!(ran.code, 14, "{command:?}: {}", ran.stderr);
            let hint = ran.stderr.lines().find(|line| line.starts_with("hint: ")).expect("a hint");
            assert!(!hint.contains("repair") && hint.contains("recover-by-hand"), "{command:?}: {hint}");
        }
    }
}

#[test]
fn the_commands_that_are_printed_go_on() {
    let sandbox = repository("content");
    let before = objects(&sandbox);
    sandbox.write("source/new", "of the last snapshot");
    sandbox.ok(&["backup", "source"]);
    let all = objects(&sandbox);
    let added = |(name, _): &&(String, Vec<u8>)| kind(name) == "data" && !before.iter().any(|(other, _)| other == name);
    let (name, _) = all.iter().find(added).expect("a pack");
    put(&sandbox, name, None);
    let found = sandbox.json(14, &["check"]);
    let damage = &found["damage"][0];
    assert_eq!((&found["outcome"], &found["commit"], &found["snapshots"]), (&json!("damaged"), &json!(4), &json!(4)));
    assert_eq!((&damage["object"], &damage["message"]), (&json!(name), &json!("it is missing")));
    assert_eq!((&damage["affected"], &damage["paths"][0]["path"]), (&json!(1), &json!("new")));
    let snapshots = sandbox.run(&["snapshots", "--json"]).lines();
    assert_eq!(damage["snapshots"], json!([snapshots[3]["id"]]));
    assert_eq!(found["newest_whole"], snapshots[2]["id"]);
    let ran = sandbox.run(&["check"]);
    let commands = found["commands"].as_array().expect("commands");
    for (command, (code, files)) in commands.iter().zip([(14, 3), (0, 3)]) {
        let command = command.as_str().expect("text");
        assert!(ran.stderr.contains(command), "{}", ran.stderr);
        let out = format!("out{code}");
        let restored = sandbox.shell(&command.replace("DIR", &out));
        assert_eq!(restored.code, code, "{command}: {}", restored.stderr);
        assert_eq!(std::fs::read_dir(sandbox.path(&out)).expect("a folder").count(), files, "{command}");
    }
    assert_eq!(commands.len(), 2);
}

#[test]
fn a_damaged_configuration_says_what_to_do() {
    let sandbox = repository("content");
    for content in [None, Some(&b""[..]), Some(b"{\"format\":1")] {
        put(&sandbox, "config.json", content);
        if sandbox.path("home/.cache").exists() {
            sandbox.remove("home/.cache");
        }
        let ran = sandbox.run(&["check"]);
        assert_eq!(ran.code, 14, "{}", ran.stderr);
        assert!(ran.stderr.contains("config.json") && ran.stderr.contains("recover-by-hand"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("'ghostsync check'"), "{}", ran.stderr);
    }
}

#[test]
fn no_name_or_mark_says_anything_to_the_terminal_but_text() {
    let sandbox = Sandbox::new();
    let evil = "evil\u{1b}[2J\r\nname\u{9b}31m";
    sandbox.write(&format!("source/{evil}/file"), "content");
    std::os::unix::fs::symlink(format!("to{evil}"), sandbox.path("source/link")).expect("a link");
    sandbox.ok(&["init", "--skip-probe"]);
    sandbox.ok(&["backup", "source", "--tag", &format!("{evil}={evil}")]);
    sandbox.ok(&["hold", "latest", "--reason", evil]);
    sandbox.write(&format!("source/{evil}/more"), "content too");
    sandbox.ok(&["backup", "source"]);
    sandbox.write(&format!("source/{evil}/not backed up"), "more content");
    let pack = objects(&sandbox).into_iter().find(|(name, _)| kind(name) == "data").expect("a pack").0;
    put(&sandbox, &pack, None);
    let nothing = format!("latest:{evil}/nothing");
    let commands: [&[&str]; 8] = [
        &["ls", "latest"],
        &["find", "*"],
        &["diff", "latest~1", "latest"],
        &["diff", "latest", "./source"],
        &["snapshots"],
        &["check"],
        &["cat", &nothing],
        &["restore", "out", "--keep-going"],
    ];
    for args in commands {
        let ran = sandbox.run(args);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("evil"), "{args:?} shows the name: {said}");
        assert!(!said.chars().any(|character| character.is_control() && character != '\n'), "{args:?}: {said:?}");
        assert!(!said.lines().any(|line| line.starts_with("name")), "{args:?}: {said:?}");
    }
    let paths: Vec<_> = sandbox.run(&["ls", "latest", "--json"]).lines();
    assert_eq!(paths[0]["path"], evil);
    assert!(Path::new(evil).components().count() == 1);
}
