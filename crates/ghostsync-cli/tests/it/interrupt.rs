//! SIGINT and SIGTERM.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::Sandbox;

/// Starts a backup that would take minutes, and waits until it has a plan.
fn slow_backup(sandbox: &Sandbox) -> (Child, impl Read + use<>) {
    // Not compressible, so that it has to go through the limited line.
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..4 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    sandbox.write("source/noise", noise);
    let args = ["backup", "source", "--limit-upload", "20kB", "--json", "--progress", "always"];
    let mut child = sandbox.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    while !line.contains("\"planned_files\":") || line.contains("\"planned_files\":null") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).expect("readable"), 0, "it ended before it had a plan");
    }
    (child, stdout)
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_child(child);
    kill_process(pid, signal).expect("sent");
}

#[test]
fn a_signal_ends_a_backup_with_130_and_nothing_published() {
    for signal in [Signal::INT, Signal::TERM] {
        let sandbox = Sandbox::with_snapshot(1);
        let (child, mut stdout) = slow_backup(&sandbox);
        send(&child, signal);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).expect("readable");
        let output = child.wait_with_output().expect("ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("interrupted"), "{stderr}");
        let result: serde_json::Value = serde_json::from_str(rest.lines().last().expect("a line")).expect("JSON");
        assert_eq!(result["outcome"], "interrupted");
        assert_eq!(sandbox.run(&["snapshots", "--json"]).lines().len(), 1);
    }
}
