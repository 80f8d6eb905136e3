//! Real processes on one repository: backups, claims, forgets and prunes at once, and writers that are killed.
//!
//! What was acknowledged and not forgotten restores byte for byte in the end, and a last prune leaves nothing behind.
//! `GHOSTSYNC_RACES` says how many operations there are, `GHOSTSYNC_RACES_SEED` which (`just races N`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::Sandbox;
use crate::server::Server;

/// Processes at once.
const LANES: u64 = 4;

/// A small generator of numbers that anybody can run again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

type Tree = Vec<(PathBuf, Vec<u8>)>;

/// What the processes said, all of them together.
#[derive(Default)]
struct Told {
    /// Acknowledged snapshots, and what they must restore to.
    acknowledged: Mutex<BTreeMap<String, Tree>>,
    forgotten: Mutex<BTreeSet<String>>,
    counts: Mutex<BTreeMap<String, u32>>,
}

impl Told {
    fn count(&self, what: &str) {
        *self.counts.lock().expect("a lock").entry(what.to_owned()).or_default() += 1;
    }
}

/// One process after the other, each with a cache of its own lane.
struct Lane<'a> {
    sandbox: &'a Sandbox,
    told: &'a Told,
    dice: Dice,
    name: String,
    /// How long the last command took that was let alone.
    took: Duration,
}

impl Lane<'_> {
    fn start(&self, args: &[&str]) -> Child {
        let cache = format!("cache-{}", self.name);
        let args = [args, &["--cache-dir", &cache, "--json"]].concat();
        self.sandbox.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
    }

    /// Runs a command, and kills it once in a while; the exit code and the document, or nothing if it was killed.
    fn run(&mut self, args: &[&str]) -> Option<(i32, Vec<Value>)> {
        let (mut child, began) = (self.start(args), Instant::now());
        if args[0] != "forget" && self.dice.below(8) == 0 {
            let wait = self.took * self.dice.below(100) as u32 / 100;
            while began.elapsed() < wait && child.try_wait().expect("waited for").is_none() {
                std::thread::yield_now();
            }
            child.kill().expect("killed, or over already");
            let code = child.wait().expect("ends").code();
            self.told.count(if code.is_some() { "ended before it was killed" } else { "killed" });
            return None;
        }
        let ended = child.wait_with_output().expect("ends");
        self.took = began.elapsed();
        let code = ended.status.code().expect("ends by itself");
        let stdout = String::from_utf8(ended.stdout).expect("UTF-8");
        let lines = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(matches!(code, 0 | 11), "{args:?} ended with {code}: {stdout} {stderr}");
        self.told.count(&format!("{} {code}", args[0]));
        Some((code, lines))
    }

    fn step(&mut self) {
        match self.dice.below(20) {
            0..=13 => self.back_up(),
            14..=15 => {
                let name = self.name.clone();
                if self.run(&["claim", "--owner", &name]).is_some() && self.dice.below(2) == 0 {
                    self.back_up();
                }
                // Fails with 11 where another has claimed meanwhile: nobody ever has to unlock anything.
                drop(self.run(&["release", "--owner", &name]));
            }
            16..=17 => {
                let keep = (1 + self.dice.below(4)).to_string();
                let forget = ["forget", "--keep-last", &keep, "--protect", "0s"];
                if let Some((_, lines)) = self.run(&forget) {
                    let dropped = lines.iter().filter(|line| line["kept"] == false);
                    let ids = dropped.map(|line| line["snapshot"].as_str().expect("an id").to_owned());
                    self.told.forgotten.lock().expect("a lock").extend(ids);
                }
            }
            _ => drop(self.run(&["prune", "--grace", "0s", "--session-idle", "0s"])),
        }
    }

    /// Changes the lane's directory a little, and backs it up.
    fn back_up(&mut self) {
        let directory = format!("source-{}", self.name);
        for _ in 0..1 + self.dice.below(3) {
            let (file, bytes) = (self.dice.below(12), 1 + self.dice.below(20_000));
            let content: Vec<u8> = (0..bytes).map(|_| self.dice.below(256) as u8).collect();
            self.sandbox.write(&format!("{directory}/{file:02}"), content);
        }
        let name = self.name.clone();
        let backup = ["backup", &directory, "--owner", &name, "--max-delete", "100%"];
        let Some((_, lines)) = self.run(&backup) else { return };
        let Some(id) = lines.last().and_then(|told| told["snapshot"].as_str()) else { return };
        let tree = self.sandbox.tree(&directory);
        self.told.acknowledged.lock().expect("a lock").insert(id.to_owned(), tree);
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn races_of_processes_lose_nothing_that_was_acknowledged_and_leave_nothing_behind() {
    race(&Sandbox::new());
}

#[test]
#[ignore = "starts a server (just races)"]
fn races_of_processes_on_ceph_lose_nothing_that_was_acknowledged_and_leave_nothing_behind() {
    let Some(server) = Server::start("ceph", "s3") else { return };
    race(&Sandbox::with_store(&format!("s3://{}/races", server.value("BUCKET")), &server.variables));
}

fn race(sandbox: &Sandbox) {
    let operations = usize::try_from(setting("GHOSTSYNC_RACES", 60)).expect("a number");
    let seed = setting("GHOSTSYNC_RACES_SEED", 1);
    println!("{operations} operations, seed {seed}");
    let told = Told::default();
    sandbox.ok(&["init", "--skip-probe"]);
    let left = AtomicUsize::new(operations);
    std::thread::scope(|scope| {
        for number in 0..LANES {
            let name = format!("w{number}");
            let dice = Dice(seed.wrapping_mul(1_000_003).wrapping_add(number));
            let mut lane = Lane { sandbox, told: &told, dice, name, took: Duration::from_millis(60) };
            let left = &left;
            scope.spawn(move || {
                let one_less = |left: usize| left.checked_sub(1);
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                    lane.step();
                }
            });
        }
    });
    println!("{:?}", told.counts.into_inner().expect("a lock"));
    let acknowledged = told.acknowledged.into_inner().expect("a lock");
    let forgotten = told.forgotten.into_inner().expect("a lock");

    for _ in 0..2 {
        sandbox.ok(&["prune", "--grace", "0s", "--session-idle", "0s"]);
    }
    let last = sandbox.json(0, &["prune", "--grace", "0s", "--session-idle", "0s"]);
    assert_eq!((&last["deleted_packs"], &last["waiting_packs"]), (&0.into(), &0.into()), "nothing is left: {last}");
    assert_eq!(sandbox.run(&["check", "--read-data"]).code, 0);

    let listed = sandbox.ok(&["snapshots", "--json"]).lines();
    let retained: BTreeSet<&str> = listed.iter().map(|line| line["id"].as_str().expect("an id")).collect();
    let mut restored = 0;
    for (id, tree) in &acknowledged {
        if !retained.contains(id.as_str()) {
            assert!(forgotten.contains(id), "snapshot {id} was acknowledged, never forgotten, and is gone");
            continue;
        }
        sandbox.ok(&["restore", "back", "--snapshot", id]);
        assert!(sandbox.tree("back") == *tree, "snapshot {id} is not what was backed up");
        sandbox.remove("back");
        restored += 1;
    }
    println!("{} acknowledged, {} forgotten, {restored} restored", acknowledged.len(), forgotten.len());
    assert!(restored > 0);
}
