//! Where things are printed: progress, messages, manuals, and a stdout that nobody reads.

use std::io::Read;
use std::process::Stdio;

use crate::sandbox::Sandbox;

#[test]
fn progress_as_json_comes_before_the_result() {
    let sandbox = Sandbox::with_files(5);
    let ran = sandbox.ok(&["backup", "source", "--json", "--progress", "always"]);
    let lines = ran.lines();
    let (result, progress) = lines.split_last().expect("lines");
    assert_eq!(result["outcome"], "done");
    assert!(!progress.is_empty() && progress.iter().all(|line| line["progress"].is_object()), "{}", ran.stdout);
    let last = &progress[progress.len() - 1]["progress"];
    assert_eq!((last["files"].as_u64(), last["planned_files"].as_u64()), (Some(5), Some(5)), "{last}");
    let never = sandbox.ok(&["backup", "source", "--force", "--json", "--progress", "never"]);
    assert_eq!(never.lines().len(), 1);
}

#[test]
fn progress_as_plain_lines_when_asked_for() {
    let sandbox = Sandbox::with_files(5);
    let ran = sandbox.ok(&["backup", "source", "--progress", "always"]);
    assert!(ran.stderr.contains("5/5 files"), "{}", ran.stderr);
    assert!(!ran.stdout.contains("5/5 files"), "{}", ran.stdout);
}

#[test]
fn quiet_says_nothing_about_success() {
    let sandbox = Sandbox::with_files(5);
    let ran = sandbox.ok(&["backup", "source", "-q"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    assert!(sandbox.ok(&["backup", "source", "-v"]).stderr.contains("requests: "));
    sandbox.remove("source");
    assert!(sandbox.run(&["backup", "source", "-q"]).stderr.contains("not done"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let sandbox = Sandbox::with_files(0);
    for index in 0..3000 {
        sandbox.write(&format!("source/a-rather-long-name-to-fill-the-pipe-{index:05}"), "");
    }
    sandbox.ok(&["backup", "source"]);
    for args in [&["ls", "latest"][..], &["ls", "latest", "--json"], &["find", "*"], &["man"], &["completions", "bash"]]
    {
        let mut child = sandbox.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut first = [0; 10];
        let mut stdout = child.stdout.take().expect("a pipe");
        stdout.read_exact(&mut first).expect("ten bytes");
        drop(stdout);
        let output = child.wait_with_output().expect("ends");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_stdout_that_is_full_is_a_failure() {
    let sandbox = Sandbox::with_snapshot(3);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opens");
    let output = sandbox.command(&["ls", "latest"]).stdout(full).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("stdout"));
}

#[test]
fn manuals_completions_and_version() {
    let sandbox = Sandbox::new();
    assert!(sandbox.ok(&["man"]).stdout.contains(".TH ghostsync"));
    let page = sandbox.ok(&["man", "backup"]).stdout;
    assert!(page.contains("ghostsync-backup") && page.contains("max\\-delete"), "{page}");
    assert_eq!(sandbox.run(&["man", "nothing"]).code, 2);
    for shell in ["bash", "zsh", "fish"] {
        assert!(sandbox.ok(&["completions", shell]).stdout.contains("release-hold"), "{shell}");
    }
    assert_eq!(sandbox.json(0, &["version"])["format"], 1);
    assert!(sandbox.ok(&["version"]).stdout.contains("format 1"));
}
