//! `snapshots`, `ls`, `cat`, `find`, `diff`, `stats`, `branches` and `check`.

use serde_json::json;

use crate::sandbox::Sandbox;

fn two_snapshots() -> Sandbox {
    let sandbox = Sandbox::with_files(4);
    sandbox.write("source/d/deep.txt", "deep");
    sandbox.ok(&["backup", "source", "--tag", "n=1"]);
    sandbox.write("source/file00", "a changed content");
    sandbox.write("source/new.txt", "new");
    sandbox.remove("source/file01");
    sandbox.ok(&["backup", "source", "--tag", "n=2"]);
    sandbox
}

#[test]
fn snapshots_as_lines() {
    let sandbox = two_snapshots();
    let lines = sandbox.run(&["snapshots", "--json"]).lines();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["head"], &lines[1]["head"]), (&json!(false), &json!(true)));
    assert_eq!(lines[1]["parent"], lines[0]["id"]);
    let (added, changed, removed) = (&lines[1]["added"], &lines[1]["changed"], &lines[1]["removed"]);
    assert_eq!((added, changed, removed), (&json!(1), &json!(1), &json!(1)));
    let source = lines[0]["source"].as_str().expect("a text");
    assert_eq!(source, sandbox.path("source").to_str().expect("UTF-8"));
    let tagged = |tag: &str| sandbox.run(&["snapshots", "--json", "--tag", tag]).lines().len();
    assert_eq!((tagged("n=1"), tagged("n"), tagged("n=3"), tagged("m")), (1, 2, 0, 0));
    assert_eq!(sandbox.run(&["snapshots", "--branch", "none"]).code, 12);
    let table = sandbox.ok(&["snapshots"]).stdout;
    let id = lines[0]["id"].as_str().expect("a text");
    assert!(table.lines().count() == 3 && table.contains(&id[..8]), "{table}");
    assert_eq!(sandbox.ok(&["ls", &id[..8]]).stdout.lines().count(), 6);
}

#[test]
fn entries_at_and_below_a_path() {
    let sandbox = two_snapshots();
    let paths = |what: &str| {
        let lines = sandbox.run(&["ls", what, "--json"]).lines();
        lines.iter().map(|line| line["path"].as_str().expect("a path").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths("latest"), ["d", "d/deep.txt", "file00", "file02", "file03", "new.txt"]);
    assert_eq!(paths("latest~1:/d/"), ["d", "d/deep.txt"]);
    assert_eq!(paths("latest:file00"), ["file00"]);
    let line = &sandbox.run(&["ls", "latest:d/deep.txt", "--json"]).lines()[0];
    assert_eq!((&line["kind"], &line["size"]), (&json!("file"), &json!(4)));
    assert_eq!(line["hash"].as_str().map(str::len), Some(64));
    assert!(sandbox.ok(&["ls", "latest"]).stdout.contains("-rw"));
    assert_eq!(sandbox.run(&["ls", "latest:nothing"]).code, 12);
    assert_eq!(sandbox.run(&["ls", "latest:../etc"]).code, 2);
}

#[test]
fn a_file_byte_for_byte() {
    let sandbox = two_snapshots();
    assert_eq!(sandbox.ok(&["cat", "latest:file00"]).stdout, "a changed content");
    assert_eq!(sandbox.ok(&["cat", "latest~1:file00", "--json"]).stdout, "content 0");
    let directory = sandbox.run(&["cat", "latest:d"]);
    assert_eq!((directory.code, directory.stdout.as_str()), (2, ""));
    assert_eq!(sandbox.run(&["cat", "latest:nothing"]).code, 12);
}

#[test]
fn patterns_in_every_snapshot() {
    let sandbox = two_snapshots();
    let found = |args: &[&str]| sandbox.run(&[&["find", "--json"], args].concat()).lines().len();
    assert_eq!(found(&["*.txt"]), 3);
    assert_eq!(found(&["/*.txt"]), 1);
    assert_eq!(found(&["file01"]), 1);
    assert_eq!(found(&["file01", "--snapshot", "latest"]), 0);
    assert_eq!(found(&["d/*", "--snapshot", "latest"]), 1);
    assert!(sandbox.ok(&["find", "new.txt"]).stdout.contains("new.txt"));
    assert_eq!(sandbox.run(&["find", "["]).code, 2);
    assert_eq!(sandbox.run(&["find", "x", "--branch", "none"]).code, 12);
}

#[test]
fn differences_are_no_failure() {
    let sandbox = two_snapshots();
    let changes = |args: &[&str]| {
        let ran = sandbox.run(&[&["diff", "--json"], args].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let line = |line: &serde_json::Value| format!("{} {}", line["change"], line["path"]).replace('"', "");
        ran.lines().iter().filter(|line| line["path"] != "").map(line).collect::<Vec<_>>()
    };
    let expected = ["changed file00", "removed file01", "added new.txt"];
    assert_eq!(changes(&["latest~1", "latest"]), expected);
    assert_eq!(changes(&["latest~1", "./source"]), expected);
    assert!(changes(&["latest", "latest"]).is_empty());
    assert!(changes(&["latest", "./source"]).is_empty());
    sandbox.write("source/d/more", "x");
    let ran = sandbox.ok(&["diff", "latest", "./source"]);
    assert!(ran.stdout.contains("added      d/more"), "{}", ran.stdout);
    assert_ne!(sandbox.run(&["diff", "latest", "./missing"]).code, 0);
}

#[test]
fn figures_and_branches() {
    let sandbox = two_snapshots();
    let stats = sandbox.json(0, &["stats"]);
    assert_eq!(
        (&stats["snapshots"], &stats["branches"], &stats["heads"][0]["entries"]),
        (&json!(2), &json!(1), &json!(6))
    );
    assert!(sandbox.ok(&["stats"]).stdout.contains("main"));
    let branches = sandbox.run(&["branches", "--json"]).document();
    assert_eq!((&branches["branch"], &branches["snapshots"]), (&json!("main"), &json!(2)));
    assert!(sandbox.ok(&["branches"]).stdout.contains("main"));
}

#[test]
fn damage_is_named() {
    let sandbox = two_snapshots();
    for args in [&["check"][..], &["check", "--read-data"], &["check", "--read-data-subset", "1/1"]] {
        let sound = sandbox.json(0, args);
        assert_eq!((&sound["damage"], &sound["snapshots"]), (&json!([]), &json!(2)), "{args:?}");
    }
    let packs = sandbox.tree("repository/packs");
    let (name, content) =
        packs.iter().find(|(name, _)| name.extension().is_some_and(|end| end == "data")).expect("a pack");
    let mut damaged = content.clone();
    damaged[8] ^= 0xff;
    sandbox.write(&format!("repository/packs/{}", name.display()), damaged);
    let found = sandbox.json(14, &["check", "--read-data"]);
    assert!(found["damage"][0]["paths"].as_array().is_some_and(|paths| !paths.is_empty()), "{found}");
    let ran = sandbox.run(&["check", "--read-data"]);
    assert!(ran.stderr.contains("damage: "), "{}", ran.stderr);
    sandbox.remove(&format!("repository/packs/{}", name.display()));
    assert_eq!(sandbox.run(&["check"]).code, 14);
}
