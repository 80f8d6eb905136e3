//! `init` and `backup`: outcomes, refusals, and how to go on.

use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::sandbox::Sandbox;

#[test]
fn init_prints_the_id_alone() {
    let sandbox = Sandbox::new();
    let id = sandbox.ok(&["init"]).stdout;
    assert_eq!(id.trim_end().len(), 32, "{id}");
    let again = sandbox.json(10, &["init"]);
    assert_eq!(again["refusal"]["guard"], "init");
    assert_eq!(again["outcome"], "refused");
    let command = again["command"].as_str().expect("a command");
    assert_eq!(sandbox.shell(command).document()["repository"], id.trim_end());
    assert_eq!(sandbox.json(0, &["init", "--if-missing"])["repository"], id.trim_end());
}

#[test]
fn init_refuses_a_folder_with_anything_in_it() {
    let sandbox = Sandbox::new();
    sandbox.write("repository/somebody's file", "x");
    for args in [&["init"][..], &["init", "--if-missing"], &["backup", "source", "--init"]] {
        assert_eq!(sandbox.json(10, args)["refusal"]["guard"], "init", "{args:?}");
    }
    assert_eq!(sandbox.tree("repository").len(), 1);
}

#[test]
fn a_snapshot_and_then_none() {
    let sandbox = Sandbox::with_files(3);
    let first = sandbox.json(0, &["backup", "source", "--tag", "a=b"]);
    assert_eq!(first["outcome"], "done");
    assert_eq!((&first["entries"], &first["added"], &first["removed"]), (&json!(3), &json!(3), &json!(0)));
    assert_eq!((&first["branch"], &first["parent"], &first["fork"]), (&json!("main"), &Value::Null, &Value::Null));
    assert!(first["uploaded_bytes"].as_u64() > Some(0));

    let unchanged = sandbox.json(0, &["backup", "source"]);
    assert_eq!(unchanged["outcome"], "unchanged");
    assert_eq!(unchanged["snapshot"], first["snapshot"]);

    let forced = sandbox.json(0, &["backup", "source", "--force"]);
    assert_eq!(forced["outcome"], "done");
    assert_eq!(forced["parent"], first["snapshot"]);
    assert_eq!(forced["tree"], first["tree"]);
    assert_eq!(sandbox.run(&["snapshots", "--json"]).lines().len(), 2);
}

#[test]
fn every_field_of_the_contract_is_there_whatever_the_outcome() {
    let sandbox = Sandbox::with_snapshot(12);
    let fields = [
        "snapshot",
        "tree",
        "branch",
        "parent",
        "entries",
        "bytes",
        "added",
        "changed",
        "removed",
        "moved",
        "problems",
        "uploaded_bytes",
        "requests",
        "seconds",
        "excluded",
        "onto",
        "fork",
        "outcome",
        "error",
    ];
    let unchanged = sandbox.json(0, &["backup", "source"]);
    for name in ["put", "get", "list", "delete", "head"] {
        assert!(unchanged["requests"][name].is_u64(), "{name}");
    }
    sandbox.remove("source");
    let refused = sandbox.json(10, &["backup", "source"]);
    let missing = sandbox.json(12, &["backup", "source", "--repo", "nowhere"]);
    for document in [unchanged, refused, missing] {
        for field in fields {
            assert!(document.get(field).is_some(), "{field} in {document}");
        }
    }
}

#[test]
fn an_empty_source_is_refused_until_it_is_meant() {
    let sandbox = Sandbox::with_snapshot(3);
    for index in 0..3 {
        sandbox.remove(&format!("source/file0{index}"));
    }
    let refused = sandbox.json(10, &["backup", "source"]);
    assert_eq!(refused["refusal"]["guard"], "empty");
    assert_eq!(refused["error"]["kind"], "refused");
    let ran = sandbox.run(&["backup", "source"]);
    assert!(ran.stderr.contains("nothing was published") && ran.stderr.contains("file00"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    let command = refused["command"].as_str().expect("a command");
    assert!(command.ends_with(" --allow-empty"), "{command}");
    assert_eq!(sandbox.shell(command).code, 0);
    assert_eq!(sandbox.run(&["snapshots", "--json"]).lines().len(), 2);
}

#[test]
fn a_refused_plan_passes_once() {
    let sandbox = Sandbox::with_snapshot(20);
    for index in 0..11 {
        sandbox.remove(&format!("source/file{index:02}"));
    }
    let refused = sandbox.json(10, &["backup", "source"]);
    assert_eq!(refused["refusal"]["guard"], "max-delete");
    assert_eq!((&refused["refusal"]["limit"], &refused["refusal"]["actual"]), (&json!("50%"), &json!(11)));
    assert_eq!(refused["refusal"]["paths"].as_array().map(Vec::len), Some(11));
    let plan = refused["plan"].as_str().expect("a plan");

    let ran = sandbox.run(&["backup", "source"]);
    for part in ["max-delete", "found 11, the limit is 50%", "file10", "not done", "--override", plan] {
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }
    // Additions do not matter.
    sandbox.write("source/new", "x");
    let command = refused["command"].as_str().expect("a command");
    let passed = sandbox.shell(command);
    assert_eq!(passed.code, 0, "{}", passed.stderr);
    assert_eq!(passed.document()["removed"], 11);
    // The head has moved.
    for index in 11..20 {
        sandbox.remove(&format!("source/file{index:02}"));
    }
    assert_eq!(sandbox.run(&["backup", "source", "--override", plan]).code, 10);
}

#[test]
fn at_most_20_paths_are_shown() {
    let sandbox = Sandbox::with_snapshot(30);
    for index in 0..25 {
        sandbox.remove(&format!("source/file{index:02}"));
    }
    let refused = sandbox.json(10, &["backup", "source", "--max-delete", "3"]);
    assert_eq!(refused["refusal"]["paths"].as_array().map(Vec::len), Some(20));
    let ran = sandbox.run(&["backup", "source", "--max-delete=3"]);
    assert!(ran.stderr.contains("… and 5 more"), "{}", ran.stderr);
    assert_eq!(sandbox.json(0, &["backup", "source", "--max-delete", "25"])["removed"], 25);
}

#[test]
fn too_many_changes_are_refused_when_that_is_asked_for() {
    let sandbox = Sandbox::with_snapshot(20);
    for index in 0..5 {
        sandbox.write(&format!("source/file{index:02}"), "something of another length");
    }
    assert_eq!(sandbox.json(10, &["backup", "source", "--max-change", "20%"])["refusal"]["guard"], "max-change");
    assert_eq!(sandbox.json(0, &["backup", "source", "--max-change", "25%"])["changed"], 5);
}

#[test]
fn a_dry_run_changes_nothing() {
    let sandbox = Sandbox::with_snapshot(12);
    sandbox.write("source/new", "x");
    let before = sandbox.tree("repository");
    let planned = sandbox.json(0, &["backup", "source", "--dry-run"]);
    assert_eq!((&planned["added"], &planned["dry_run"]), (&json!(1), &json!(true)));
    assert_eq!(planned["snapshot"], Value::Null);
    for index in 0..11 {
        sandbox.remove(&format!("source/file{index:02}"));
    }
    assert_eq!(sandbox.json(10, &["backup", "source", "-n"])["outcome"], "refused");
    assert_eq!(sandbox.tree("repository"), before);
}

#[test]
fn what_is_refused_can_be_kept_and_promoted() {
    let sandbox = Sandbox::with_snapshot(12);
    for index in 0..11 {
        sandbox.remove(&format!("source/file{index:02}"));
    }
    let kept = sandbox.json(10, &["backup", "source", "--on-refusal", "quarantine"]);
    assert_eq!((&kept["outcome"], &kept["onto"]), (&json!("refused"), &json!("main")));
    assert!(kept["branch"].as_str().is_some_and(|branch| branch.starts_with("quarantine/main/")), "{kept}");
    assert!(kept["snapshot"].is_string());
    let command = kept["command"].as_str().expect("a command");
    assert!(command.contains(" promote "), "{command}");
    let promoted = sandbox.shell(&format!("{command} --json"));
    assert_eq!(promoted.code, 0, "{}", promoted.stderr);
    assert_eq!(promoted.document()["branch"], "main");
    assert_eq!(sandbox.run(&["ls", "latest"]).stdout.lines().count(), 1);
}

#[test]
fn excludes_from_flags_and_files() {
    let sandbox = Sandbox::with_files(2);
    sandbox.write("source/a.tmp", "x");
    sandbox.write("source/keep.tmp", "x");
    sandbox.write("source/cache/big", "x");
    sandbox.write("excludes", "*.tmp\n# a comment\n/cache\n");
    let args = ["backup", "source", "--exclude-from", "excludes", "--exclude", "!keep.tmp"];
    assert_eq!(sandbox.json(0, &args)["entries"], 3);
    let listed = sandbox.run(&["ls", "latest"]).stdout;
    assert!(listed.contains("keep.tmp") && !listed.contains("a.tmp") && !listed.contains("cache"), "{listed}");
}

#[test]
fn a_repository_cache_and_receipt_inside_the_source_are_not_content() {
    let sandbox = Sandbox::new();
    sandbox.write("source/a", "x");
    let repository = ["--repo", "source/repository", "--cache-dir", "source/cache"];
    sandbox.ok(&[&["init"], &repository[..]].concat());
    let first = sandbox.json(0, &[&["backup", "source"], &repository[..]].concat());
    assert_eq!(first["entries"], 1);
    let second = sandbox.json(0, &[&["backup", "source"], &repository[..]].concat());
    // The source's own mtime may differ; its entries must not.
    assert_eq!((&second["entries"], &second["added"]), (&json!(1), &json!(0)));
}

#[test]
fn paths_that_are_no_text_survive_in_json() {
    let sandbox = Sandbox::with_snapshot(12);
    let odd = sandbox.path("source").join(std::ffi::OsStr::from_bytes(b"odd\xff"));
    std::fs::write(&odd, "x").expect("written");
    sandbox.ok(&["backup", "source"]);
    let listed = sandbox.run(&["find", "odd*", "--json"]).document();
    assert_eq!((&listed["path"], &listed["path_b64"]), (&json!("odd\u{fffd}"), &json!("b2Rk/w==")));
    std::fs::remove_file(odd).expect("removed");
    let refused = sandbox.json(10, &["backup", "source", "--max-delete", "0"]);
    assert_eq!(refused["refusal"]["paths_b64"], json!(["b2Rk/w=="]));
}
