//! The program as a pod runs it: real processes, a repository in a folder.

mod lint;
mod lint_command;
mod packaging;

use std::process::Command;

#[test]
fn ghostsync_port_of_a_service_is_no_setting() {
    let run = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostsync-k8s"));
        command.env_clear().env(name, "tcp://10.0.0.1:9108").args(["--version"]).output().expect("runs").status.code()
    };
    assert_eq!(run("GHOSTSYNC_PORT"), Some(0));
    assert_eq!(run("GHOSTSYNC_REPOSITORY"), Some(2));
}
