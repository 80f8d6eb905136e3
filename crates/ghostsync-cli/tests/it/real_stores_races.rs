//! Real processes that back up into one repository at once, on real stores that cannot create an object at most once.
//!
//! In commit mode `detect` every snapshot that anybody was told of is there afterwards, on the branch or on a fork, and
//! whoever lost was told so; between the rounds, while nobody writes, snapshots are forgotten and packs are deleted. In
//! commit mode `atomic`, with the probe overridden, the same races lose snapshots: that is
//! what the probe is for. `GHOSTSYNC_STORE_RACES` says how many rounds (`just store-races N`).
//!
//! The servers are started by `scripts/stores`; one that is not installed is skipped, visibly.

use std::process::{Child, Stdio};

use ghostsync_core::testing::loopback;
use serde_json::Value;

use crate::sandbox::{Ran, Sandbox};
use crate::server::Server;

const WRITERS: usize = 4;
/// Rounds on one repository: each commit holds the whole state, and no fork is forgotten before a month has passed.
const MAX_ROUNDS: usize = 50;

fn rounds(default: usize) -> usize {
    std::env::var("GHOSTSYNC_STORE_RACES").map_or(default, |rounds| rounds.parse().expect("a number"))
}

/// A repository on a real store, with a source for each of several writers.
struct Races<'a> {
    sandbox: Sandbox,
    server: &'a Server,
    url: String,
    /// Every snapshot that a writer was told of and that was not forgotten, and the content of its one file.
    told: Vec<(String, String)>,
    seen: Seen,
}

/// What there was to see, in numbers.
#[derive(Debug, Default)]
struct Seen {
    backups: usize,
    told_of_a_fork: usize,
    forks: usize,
    forgotten: usize,
    deleted_packs: u64,
    emptied_commits: u64,
}

impl<'a> Races<'a> {
    /// Makes a repository of its own on a server.
    fn new(server: &'a Server, name: &str, init: &[&str]) -> Self {
        let url = match server.scheme {
            "http" => format!("{}/{name}", server.value("HTTP_URL")),
            scheme => format!("{scheme}://{}/{name}", server.value("BUCKET")),
        };
        let races = Self { sandbox: Sandbox::new(), server, url, told: Vec::new(), seen: Seen::default() };
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
                    self.seen.told_of_a_fork += 1;
                }
                _ => {
                    failures.push(document);
                    continue;
                }
            }
            self.seen.backups += 1;
            self.told.push((text("snapshot"), content));
        }
        failures
    }

    /// Forgets and prunes while nobody writes, in one way or another.
    fn maintain(&mut self, round: usize) {
        let keep = (2 + round % 7).to_string();
        let forget = ["forget", "--all", "--keep-last", &keep, "--protect", "0", "--exclusive"];
        let at_once = ["--grace", "0", "--session-idle", "0"];
        match round % 6 {
            1 => self.forget(&forget),
            3 => self.forget(&[&forget[..], &["--prune"], &at_once].concat()),
            4 => self.prune(&[]),
            5 => self.prune(&at_once),
            _ => {}
        }
    }

    fn forget(&mut self, args: &[&str]) {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        let lines = ran.lines();
        let dropped = lines.iter().filter(|line| line["kept"] == false);
        let dropped: Vec<_> = dropped.filter_map(|line| line["snapshot"].as_str()).collect();
        let before = self.told.len();
        self.told.retain(|(id, _)| !dropped.contains(&id.as_str()));
        assert_eq!(before - self.told.len(), dropped.len(), "only what somebody was told of is there to be dropped");
        self.seen.forgotten += dropped.len();
        self.count(&lines.last().expect("a result")["prune"]);
    }

    fn prune(&mut self, args: &[&str]) {
        let ran = self.run(&[&["prune", "--exclusive", "--json"], args].concat());
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        self.count(&ran.document());
    }

    fn count(&mut self, pruned: &Value) {
        self.seen.deleted_packs += pruned["deleted_packs"].as_u64().unwrap_or_default();
        self.seen.emptied_commits += pruned["emptied_commits"].as_u64().unwrap_or_default();
    }

    /// What is there at the end is just what should be.
    fn assert_it_is_whole(&mut self) {
        assert_eq!(self.lost(), Vec::<String>::new());
        let listed = self.run(&["snapshots", "--json"]).lines();
        assert_eq!(listed.len(), self.told.len(), "both of every race are there, and none twice");
        self.seen.forks = listed.iter().filter(|snapshot| snapshot["branch"] != "main").count();
        // One that was told to be on the branch may have moved to a fork since, and never the other way.
        assert!(self.seen.forks >= self.seen.told_of_a_fork, "{:?}", self.seen);
        self.prune(&["--grace", "0"]);
        let ran = self.run(&["prune", "--grace", "0", "--dry-run", "--json"]);
        let left = ["deleted_packs", "waiting_packs"].map(|field| ran.document()[field].clone());
        assert_eq!(left, [0, 0], "nothing unreachable is left: {}", ran.stdout);
        let ran = self.run(&["check", "--read-data", "--json"]);
        assert_eq!((ran.code, ran.document()["void"].as_array().map(Vec::len)), (0, Some(0)), "{}", ran.stdout);
        assert_eq!(self.lost(), Vec::<String>::new(), "after the last prune");
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
    let all: Vec<usize> = (0..rounds(6)).collect();
    for (number, rounds) in all.chunks(MAX_ROUNDS).enumerate() {
        let mut races = Races::new(&server, &format!("races{number}"), &["--commit-mode", "detect"]);
        for round in rounds {
            assert_eq!(races.race(*round), Vec::<Value>::new());
            races.maintain(*round);
        }
        assert_eq!(races.run(&["prune"]).code, 10, "nobody has promised anything");
        races.assert_it_is_whole();
        println!("{store}: {} rounds: {:?}", rounds.len(), races.seen);
    }
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
    let mut races = Races::new(&server, "races", &["--skip-probe"]);
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
        let races = Races::new(&server, "races", &["--commit-mode", "detect"]);
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
