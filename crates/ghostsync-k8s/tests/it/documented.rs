//! `docs/kubernetes.md` against the program: every setting with its default, and the commands that run as they stand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use clap::{ArgAction, CommandFactory};
use ghostsync_k8s::args::Cli;

use crate::packaging::metrics_in;
use crate::pod::Cluster;

fn page() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kubernetes.md");
    std::fs::read_to_string(file).expect("the page")
}

/// The part of the page below a heading, up to the next of its kind.
fn section(heading: &str) -> String {
    let page = page();
    let mark = format!("\n{heading}\n");
    let (_, rest) = page.split_once(&mark).unwrap_or_else(|| panic!("no {heading}"));
    let kind = format!("\n{} ", heading.split(' ').next().expect("a kind"));
    rest.split(&kind).next().expect("a part").to_owned()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Each setting of a command, such as `sync --interval`, and its defaults. What `restore` and `sync` have in common
/// stands without a command.
fn settings() -> BTreeMap<String, Vec<String>> {
    fn collect(command: &clap::Command, name: &str, found: &mut BTreeMap<String, BTreeMap<String, Vec<String>>>) {
        let of_command = found.entry(name.to_owned()).or_default();
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long().filter(|long| !matches!(*long, "help" | "version")) else { continue };
            let is_flag = matches!(arg.get_action(), ArgAction::SetTrue);
            let defaults = arg.get_default_values().iter().filter(|_| !is_flag);
            let defaults = defaults.map(|value| value.to_str().expect("text").to_owned()).collect();
            of_command.insert(format!("--{long}"), defaults);
        }
        for command in command.get_subcommands() {
            collect(command, format!("{name} {}", command.get_name()).trim(), found);
        }
    }
    let mut found = BTreeMap::new();
    collect(&Cli::command(), "", &mut found);
    let shared: BTreeSet<String> =
        found["restore"].keys().filter(|flag| found["sync"].contains_key(*flag)).cloned().collect();
    let mut settings = BTreeMap::new();
    for (command, flags) in found {
        for (flag, defaults) in flags {
            let is_shared = shared.contains(&flag) && matches!(command.as_str(), "restore" | "sync" | "ctl");
            settings.insert(if is_shared { flag } else { format!("{command} {flag}") }, defaults);
        }
    }
    settings
}

/// The same as the page has them: a row has several flags of one command, and their defaults in that order.
fn documented() -> BTreeMap<String, Vec<String>> {
    let mut settings = BTreeMap::new();
    for row in section("## Settings").lines().filter(|line| line.starts_with("| `")) {
        let row = row.replace("\\|", "/");
        let cells: Vec<&str> = row.split('|').collect();
        let mut command = "";
        let flags: Vec<String> = quoted(cells[1])
            .map(|flag| {
                let (of, rest) = flag.split_once("--").unwrap_or_else(|| panic!("{flag} is no flag"));
                command = if of.is_empty() { command } else { of };
                format!("{command}--{}", rest.split(' ').next().expect("a name"))
            })
            .collect();
        let defaults: Vec<&str> = cells[2].split(", ").collect();
        for (number, flag) in flags.iter().enumerate() {
            let of_flag = if defaults.len() == flags.len() { defaults[number] } else { cells[2] };
            let before = settings.insert(flag.clone(), quoted(of_flag).map(str::to_owned).collect());
            assert!(before.is_none(), "{flag} stands there twice");
        }
    }
    settings
}

#[test]
fn every_setting_stands_on_the_page_with_its_default_and_no_other_does() {
    let (told, there) = (documented(), settings());
    assert!(there.len() > 50, "{there:?}");
    for (setting, defaults) in &there {
        assert_eq!(told.get(setting), Some(defaults), "{setting}");
    }
    for setting in told.keys() {
        assert!(there.contains_key(setting), "{setting} is no setting");
    }
}

#[test]
fn every_metric_stands_on_the_page_and_no_other_does() {
    let cluster = Cluster::with_files(&[("post", "saved")]);
    let pod = cluster.pod("pod");
    assert_eq!(pod.restore().code, Some(0));
    let sidecar = pod.sync();
    sidecar.wait_until_started();
    let page = sidecar.get("/metrics").1;
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert_eq!(metrics_in(&section("## Probes, metrics, logs")), families.map(str::to_owned).collect());
    assert_eq!(sidecar.terminate().code, Some(0));
}

/// The lines of the shell in a page, whole where they go on, without what comes after them.
fn commands(page: &str) -> Vec<String> {
    let blocks =
        page.split("```").skip(1).step_by(2).filter(|block| block.starts_with("sh\n") || block.starts_with("text\n"));
    let text: String = blocks.map(|block| block.replace("\\\n", " ")).collect();
    let called = text.lines().filter_map(|line| line.split_once("ghostsync-k8s ").map(|(_, rest)| rest));
    called.map(|rest| rest.split([';', '&', '>', '|', '#']).next().expect("a part").trim().to_owned()).collect()
}

#[test]
fn every_command_on_the_pages_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut count = 0;
    for page in ["docs/kubernetes.md", "README.md", "deploy/README.md", "examples/ghost-kubernetes/README.md"] {
        let text = std::fs::read_to_string(root.join(page)).expect("a page");
        for line in commands(&text) {
            let words = line.replace("REPOSITORY-ID", "ID").replace("\"$id\"", "ID").replace("ID", &"0".repeat(32));
            let words = std::iter::once("ghostsync-k8s").chain(words.split_whitespace());
            // What is required may come from variables.
            let lenient = Cli::command().mut_subcommands(|command| command.mut_args(|arg| arg.required(false)));
            let parsed = lenient.try_get_matches_from(words);
            assert!(parsed.is_ok(), "{page}: {line}: {}", parsed.expect_err("is wrong"));
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

/// A reader copies what stands there into a shell.
#[test]
fn the_commands_that_need_no_cluster_run_as_they_stand() {
    let text = section("### Without a cluster");
    let (_, script) = text.split_once("```sh\n").expect("a block");
    let port = TcpListener::bind("127.0.0.1:0").expect("listens").local_addr().expect("an address").port();
    let script = script.split("```").next().expect("a block").replace("9108", &port.to_string());
    // Where a line fails, nothing is left running.
    let script = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}");
    let folder = tempfile::tempdir().expect("a folder");
    let programs = folder.path().join("programs");
    std::fs::create_dir(&programs).expect("a folder");
    for name in ["ghostsync", "ghostsync-k8s"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ghostsync-k8s"), programs.join(name)).expect("a link");
    }
    let place = folder.path().join("empty");
    std::fs::create_dir(&place).expect("a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path"));
    let mut shell = Command::new("timeout");
    shell.args(["60", "bash", "-euo", "pipefail", "-c", &script]).current_dir(&place).env_clear();
    let output = shell.env("PATH", path).env("HOME", folder.path()).output().expect("runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{log}");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(printed.contains("\nhello\nand goodbye\n"), "{printed}\n{log}");
    assert!(log.contains("final snapshot done"), "{log}");
}
