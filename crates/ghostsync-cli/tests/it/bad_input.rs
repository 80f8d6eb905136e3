//! Every message of `docs/operations.md`, as the real command prints it: page and program cannot diverge.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::documented::{Block, documented};
use crate::sandbox::Sandbox;

/// A folder with all that the page speaks of: a source, a repository, and odd copies of it.
fn prepared() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("source/a", "a");
    sandbox.write("source/b", "b");
    sandbox.write("full/x", "x");
    fs::create_dir(sandbox.path("folder")).expect("a folder");
    sandbox.ok(&["--repo", "repo", "init"]);
    sandbox.ok(&["--repo", "repo", "backup", "source"]);
    for (copy, from, to) in [
        ("newer", r#""format":1"#, r#""format":2"#),
        ("feature", r#""read_features":[]"#, r#""read_features":["later"]"#),
    ] {
        assert!(sandbox.shell(&format!("cp -a repo {copy}")).code == 0);
        let config = sandbox.read(&format!("{copy}/config.json"));
        assert!(config.contains(from));
        sandbox.write(&format!("{copy}/config.json"), config.replace(from, to));
    }
    assert!(sandbox.shell("cp -a repo torn").code == 0);
    sandbox.write("torn/log/00000000000000000001.json.zst", "no commit");
    sandbox
}

#[test]
fn every_documented_message_is_what_the_command_prints() {
    let sandbox = prepared();
    let place = fs::canonicalize(sandbox.path("")).expect("a place");
    let place = place.to_str().expect("UTF-8").trim_end_matches('/');
    let readonly = Mounted::new(&sandbox.path("readonly"), "ro");
    let documented = documented(None);
    assert!(documented.len() >= 10, "the page lost its blocks");
    for Block { line, expected } in documented {
        if line.contains("readonly") && readonly.is_none() {
            println!("skipped: nothing can be mounted here: {line}");
            continue;
        }
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let ran = sandbox.run(&words);
        let printed = format!("{}{}exit {}\n", ran.stdout, ran.stderr, ran.code)
            .replace(env!("CARGO_BIN_EXE_ghostsync"), "ghostsync")
            .replace(place, "TMP");
        assert_eq!(printed, expected, "{line}");
    }
}

/// A small file system of its own; needs root.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        mount.is_ok_and(|done| done.status.success()).then(|| Self(at.to_owned()))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status().expect("runs");
        assert!(done.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(&self.0).status());
    }
}

/// Restores onto a disk that is too small, makes it larger, and goes on.
fn restore_onto_a_small_disk(files: usize, bytes: usize, small: &str, large: &str) {
    let sandbox = Sandbox::new();
    for index in 0..files {
        // Contents that do not compress, and no two alike.
        let content: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(at + 7 * index + 13) >> 3) as u8).collect();
        sandbox.write(&format!("source/{index:04}"), content);
    }
    sandbox.ok(&["init", "--skip-probe"]);
    sandbox.ok(&["backup", "source"]);
    let at = sandbox.path("disk");
    let Some(disk) = Mounted::new(&at, small) else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    let args = ["restore", "disk/back", "--receipt", "receipt", "--overwrite", "changed"];
    let ran = sandbox.run(&args);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
    assert!(ran.stderr.contains("free bytes or inodes, run it again"), "{}", ran.stderr);
    assert!(!sandbox.path("receipt").exists());
    let there = fs::read_dir(sandbox.path("disk/back")).expect("a folder");
    for file in there.map(|file| file.expect("an entry").path()) {
        let name = file.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        assert!(!name.starts_with(".ghostsync"), "left over: {name}");
        assert!(fs::read(&file).expect("read") == fs::read(sandbox.path("source").join(&name)).expect("read"));
    }
    disk.remount(large);
    let all = sandbox.json(0, &["restore", "elsewhere"]);
    let rest = sandbox.json(0, &args);
    assert!(rest["unchanged"].as_u64() > Some(0), "{rest}");
    // Small files share a block, which comes as a whole.
    if bytes > 100_000 {
        assert!(rest["downloaded_bytes"].as_u64() < all["downloaded_bytes"].as_u64(), "{rest} {all}");
    }
    assert!(sandbox.tree("disk/back") == sandbox.tree("source"));
    assert!(sandbox.path("receipt").exists());
}

#[test]
fn a_disk_without_bytes_left_is_told_and_the_rest_fetched_later() {
    restore_onto_a_small_disk(40, 1 << 20, "size=24m", "size=80m");
}

#[test]
fn a_disk_without_inodes_left_is_told_and_the_rest_made_later() {
    restore_onto_a_small_disk(300, 100, "nr_inodes=150", "nr_inodes=1000");
}

#[test]
fn backups_at_once_are_told_the_truth_and_nothing_acknowledged_is_lost() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["init", "--skip-probe"]);
    let writers: Vec<String> = (0..8).map(|index| format!("writer{index}")).collect();
    for writer in &writers {
        sandbox.write(&format!("{writer}/shared"), "same");
        sandbox.write(&format!("{writer}/own"), writer);
    }
    let running: Vec<_> = writers
        .iter()
        .map(|writer| {
            let args = ["backup", writer, "--json", "--max-delete", "100%", "--cache-dir", &format!("cache-{writer}")];
            let mut command = sandbox.command(&args);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            (writer, command.spawn().expect("runs"))
        })
        .collect();
    let mut acknowledged = Vec::new();
    for (writer, child) in running {
        let ended = child.wait_with_output().expect("ends");
        let said: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("a document");
        match ended.status.code() {
            Some(0) => assert_eq!((&said["outcome"], &said["branch"]), (&"done".into(), &"main".into()), "{said}"),
            Some(11) => {
                assert_eq!(said["outcome"], "conflict", "{said}");
                assert!(said["fork"].as_str().expect("a fork").starts_with("fork/main/"), "{said}");
            }
            other => panic!("{other:?}: {said} {}", String::from_utf8_lossy(&ended.stderr)),
        }
        acknowledged.push((writer, said["snapshot"].as_str().expect("an id").to_owned()));
    }
    let listed = sandbox.ok(&["snapshots", "--json"]);
    assert_eq!(listed.stdout.lines().count(), acknowledged.len(), "{}", listed.stdout);
    for (writer, snapshot) in acknowledged {
        let back = format!("back-{writer}");
        sandbox.ok(&["restore", &back, "--snapshot", &snapshot]);
        assert!(sandbox.tree(&back) == sandbox.tree(writer));
    }
}
