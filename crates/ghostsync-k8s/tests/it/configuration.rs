//! Variables that are ours, and some that only look so.

use std::path::Path;
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

#[test]
fn a_variable_is_stronger_than_the_file_and_a_flag_stronger_than_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("k8s.toml");
    std::fs::write(&file, "repo = '/file'\npath = '/proc/file'\n").expect("writes");
    let error_of = |flag: &[&str], variable: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostsync-k8s"));
        command.env_clear().env("GHOSTSYNC_CONFIG", &file).arg("restore").args(flag);
        command.envs(variable.map(|value| ("GHOSTSYNC_PATH", value)));
        String::from_utf8(command.output().expect("runs").stderr).expect("text")
    };
    assert!(error_of(&[], None).contains("cannot write to /proc/file"));
    assert!(error_of(&[], Some("/proc/variable")).contains("cannot write to /proc/variable"));
    assert!(error_of(&["--path", "/proc/flag"], Some("/proc/variable")).contains("cannot write to /proc/flag"));
}

/// The image has one program and a link to it.
#[test]
fn called_by_the_name_ghostsync_it_is_that_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("ghostsync");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ghostsync-k8s"), &link).expect("a link");
    let version_of = |program: &Path| {
        let output = Command::new(program).env_clear().arg("version").output().expect("runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, text) = version_of(&link);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("ghostsync "), "{text}");
    // Which is no word of its own.
    assert_eq!(version_of(Path::new(env!("CARGO_BIN_EXE_ghostsync-k8s"))).0, Some(2));
}
