//! Real processes that back up into one repository at once, on real stores that cannot create an object at most once.
//!
//! In commit mode `detect` every snapshot that anybody was told of is there afterwards, on the branch or on a fork, and
//! whoever lost was told so. In commit mode `atomic`, with the probe overridden, the same races lose snapshots: that is
//! what the probe is for. `GHOSTSYNC_STORE_RACES` says how many rounds (`just store-races N`).
//!
//! The servers are started by `scripts/stores`; one that is not installed is skipped, visibly.

use std::process::{Child, Stdio};

use ghostsync_core::testing::loopback;
use serde_json::Value;

use crate::sandbox::{Ran, Sandbox};
use crate::server::Server;

const WRITERS: usize = 4;

fn rounds(default: usize) -> usize {
    std::env::var("GHOSTSYNC_STORE_RACES").map_or(default, |rounds| rounds.parse().expect("a number"))
}

/// A repository on a real store, with a source for each of several writers.
struct Races {
    sandbox: Sandbox,
    server: Server,
    url: String,
    /// Every snapshot that a writer was told of, and the content of its one file.
    told: Vec<(String, String)>,
    forks: usize,
}

impl Races {
    fn new(server: Server, init: &[&str]) -> Self {
        let url = match server.scheme {
            "http" => format!("{}/races", server.value("HTTP_URL")),
            scheme => format!("{scheme}://{}/races", server.value("BUCKET")),
        };
        let races = Self { sandbox: Sandbox::new(), server, url, told: Vec::new(), forks: 0 };
        let ran = races.run(&[&["init"], init].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        races
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.sandbox.on_store(&self.url, &self.server.variables, args)
    }

    fn spawn(&self, args: &[&str]) -> Child {
        let variables = loopback::checked(self.server.scheme, &self.server.variables).expect("only this machine");
        let mut command = self.sandbox.command(args);
        command.env("GHOSTSYNC_REPO", &self.url).envs(variables);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs")
    }

    /// Lets every writer back up at once, and returns what any was told but that it is done, or moved to a fork.
    fn race(&mut self, round: usize) -> Vec<Value> {
        let mut running = Vec::new();
        for writer in 0..WRITERS {
            let (name, content) = (format!("writer{writer}"), format!("{}{writer} in {round}", "x".repeat(writer)));
            self.sandbox.write(&format!("{name}/file"), &content);
            running.push((self.spawn(&["backup", &name, "--json", "--owner", &name]), content));
        }
        let mut failures = Vec::new();
        for (child, content) in running {
            let ran = Ran::of(child.wait_with_output().expect("ends"));
            let document = ran.document();
            let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
            match (ran.code, text("outcome").as_str()) {
                (0, "done") => assert_eq!(text("branch"), "main"),
                (11, "conflict") => {
                    assert!(text("fork").starts_with("fork/main/writer"), "{document}");
                    assert_eq!(text("onto"), "main");
                    self.forks += 1;
                }
                _ => {
                    failures.push(document);
                    continue;
                }
            }
            self.told.push((text("snapshot"), content));
        }
        failures
    }

    /// What was told and is not there, or is not what it was.
    fn lost(&self) -> Vec<String> {
        let is_there = |(id, content): &&(String, String)| {
            let ran = self.run(&["cat", &format!("{id}:file")]);
            ran.code != 0 || ran.stdout != *content
        };
        self.told.iter().filter(is_there).map(|(id, content)| format!("{id}: {content}")).collect()
    }
}

fn assert_nothing_is_lost(store: &str, scheme: &'static str) {
    let Some(server) = Server::start(store, scheme) else { return };
    let mut races = Races::new(server, &["--commit-mode", "detect"]);
    for round in 0..rounds(6) {
        assert_eq!(races.race(round), Vec::<Value>::new());
    }
    assert_eq!(races.lost(), Vec::<String>::new());
    let listed = races.run(&["snapshots", "--json"]).lines();
    assert_eq!(listed.len(), races.told.len(), "both of every race are there, and none twice");
    let forks = listed.iter().filter(|snapshot| snapshot["branch"] != "main").count();
    // One that was told to be on the branch may have moved to a fork since, and never the other way.
    assert!(forks >= races.forks, "{forks} {}", races.forks);
    let ran = races.run(&["check", "--json"]);
    assert_eq!((ran.code, ran.document()["void"].as_array().map(Vec::len)), (0, Some(0)), "{}", ran.stdout);
    println!("{store}: of {} snapshots {} were told to be on a fork, {forks} are", races.told.len(), races.forks);
}

#[test]
#[ignore = "starts a server (just stores)"]
fn on_garage_nothing_is_lost_in_commit_mode_detect() {
    assert_nothing_is_lost("garage", "s3");
}

#[test]
#[ignore = "starts a server (just stores)"]
fn on_webdav_nothing_is_lost_in_commit_mode_detect() {
    assert_nothing_is_lost("webdav", "http");
}

/// The negative control: the same races on a store that lets several be first, while everybody believes it does not.
///
/// A writer may find the overwritten commit before anybody looks for the snapshot: its cache knows what was there.
#[test]
#[ignore = "starts a server (just stores)"]
fn on_s3s_commit_mode_atomic_loses_what_was_told() {
    let Some(server) = Server::start("s3s", "s3") else { return };
    let mut races = Races::new(server, &["--skip-probe"]);
    for round in 0..rounds(100) {
        let failures = races.race(round);
        for failure in &failures {
            assert_eq!(failure["error"]["kind"], "corrupt", "{failure}");
        }
        let lost = races.lost();
        if !lost.is_empty() || !failures.is_empty() {
            println!("s3s: after {} snapshots: lost {lost:?}, told {failures:?}", races.told.len());
            return;
        }
    }
    panic!("nothing was lost: is the store honest by now?");
}

/// `init` and `backup --init` say why not, and what would go on.
#[test]
#[ignore = "starts a server (just stores)"]
fn where_atomic_is_refused_detect_is_offered() {
    for (store, scheme) in [("garage", "s3"), ("webdav", "http")] {
        let Some(server) = Server::start(store, scheme) else { continue };
        let races = Races::new(server, &["--commit-mode", "detect"]);
        let elsewhere = format!("{}/elsewhere", races.url);
        races.sandbox.write("source/file", "content");
        for args in [&["init", "--repo", &*elsewhere][..], &["backup", "--init", "source", "--repo", &elsewhere]] {
            let ran = races.run(&[args, &["--json"]].concat());
            let document = ran.document();
            assert_eq!((ran.code, &document["refusal"]["guard"]), (10, &Value::from("probe")), "{document}");
            let command = document["command"].as_str().expect("a command");
            assert!(command.contains(" init ") && command.contains("--commit-mode detect"), "{command}");
            let said = ran.stderr;
            assert!(said.contains("create") && said.contains("not done: no repository was created"), "{said}");
        }
        let document = races.run(&["doctor", "--json"]).document();
        assert_eq!(document["possible_modes"], serde_json::json!(["detect"]), "{document}");
        assert_eq!(document["outcome"], "done", "{document}");
        let nothing = races.run(&["doctor", "--json", "--repo", &elsewhere]);
        assert_eq!(nothing.code, 10, "{}", nothing.stdout);
    }
}
