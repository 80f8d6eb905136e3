//! The real command, killed at random moments on a local repository: costs nothing but time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ghostsync_core::testing::tree::noise;

use crate::sandbox::Sandbox;

/// A small generator, so that a seed tells the whole story.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        (0..count).map(|_| self.below(256) as u8).collect()
    }
}

/// Starts the command and kills it after so long, if it still runs; tells whether it ended by itself, and how.
fn killed_after(sandbox: &Sandbox, args: &[&str], pause: Duration) -> Option<i32> {
    let mut child = sandbox.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    let deadline = Instant::now() + pause;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().expect("waits") {
            return status.code();
        }
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("waits").code()
}

fn change(random: &mut Random, source: &Path) {
    for _ in 0..=random.below(20) {
        let folder = source.join(random.below(5).to_string());
        fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join(random.below(60).to_string());
        match random.below(6) {
            0 => drop(fs::remove_file(file)),
            1 => {
                let size = random.below(300_000);
                fs::write(file, random.bytes(size)).expect("written");
            }
            _ => {
                let size = random.below(2_000);
                fs::write(file, random.bytes(size)).expect("written");
            }
        }
    }
}

#[test]
fn kills_of_backups_and_restores_cost_nothing_but_time() {
    let kills: u64 = std::env::var("GHOSTSYNC_KILLS").ok().map_or(20, |text| text.parse().expect("a number"));
    let seed = std::env::var("GHOSTSYNC_SEED").ok().map_or(0x5EED_1234_5678, |text| text.parse().expect("a number"));
    println!("GHOSTSYNC_KILLS={kills} GHOSTSYNC_SEED={seed}");
    let mut random = Random(seed);
    let sandbox = Sandbox::new();
    sandbox.ok(&["init", "--skip-probe"]);
    let source = sandbox.path("source");
    let back_up = ["backup", "source", "--max-delete", "100%"];
    // Snapshots that were acknowledged, the newest last, each with a copy of the source as it was.
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    let (mut killed, mut ended) = (0, 0);
    for round in 0.. {
        if killed >= kills {
            break;
        }
        change(&mut random, &source);
        let pause = Duration::from_micros(random.below(60_000));
        match killed_after(&sandbox, &back_up, pause) {
            None => killed += 1,
            Some(code) => {
                assert_eq!(code, 0, "round {round}");
                ended += 1;
            }
        }
        if round % 4 == 0 {
            assert_eq!(sandbox.ok(&["check", "--read-data", "--json"]).document()["outcome"], "done", "round {round}");
        }
        let done = sandbox.json(0, &back_up);
        let snapshot = done["snapshot"].as_str().expect("an id").to_owned();
        if acknowledged.last().is_none_or(|(newest, _)| *newest != snapshot) {
            let copy = format!("copy{round}");
            assert_eq!(sandbox.shell(&format!("cp -a source {copy}")).code, 0);
            acknowledged.push((snapshot, copy));
        }
        // A restore that is killed has no receipt, and goes on when it is run again.
        let at = random.below(acknowledged.len() as u64) as usize;
        let (snapshot, copy) = &acknowledged[at];
        let restore =
            ["restore", "back", "--snapshot", snapshot, "--receipt", "receipt", "--delete", "--max-delete", "100%"];
        let pause = Duration::from_micros(random.below(40_000));
        drop(fs::remove_file(sandbox.path("receipt")));
        match killed_after(&sandbox, &restore, pause) {
            None => {
                killed += 1;
                if sandbox.path("receipt").exists() {
                    assert!(
                        sandbox.tree("back") == sandbox.tree(copy),
                        "round {round}: a receipt before it was complete"
                    );
                }
            }
            Some(code) => assert_eq!(code, 0, "round {round}"),
        }
        sandbox.ok(&restore);
        assert!(sandbox.tree("back") == sandbox.tree(copy), "round {round}");
        assert!(sandbox.path("receipt").exists());
    }
    for (snapshot, copy) in &acknowledged {
        sandbox.ok(&["restore", "back", "--snapshot", snapshot, "--delete", "--max-delete", "100%"]);
        assert!(sandbox.tree("back") == sandbox.tree(copy), "snapshot {snapshot}");
    }
    println!("{killed} killed, {ended} backups ended before that, {} snapshots restored", acknowledged.len());
}

/// How many packs of 16 chunks the journal says are acknowledged, at 80 bytes a chunk. A pack that can be seen in the
/// repository need not be durable yet.
fn acknowledged_packs(sandbox: &Sandbox) -> u64 {
    let below =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let journals = below(sandbox.path("home/.cache/ghostsync")).flat_map(|folder| below(folder.join("journal")));
    journals.filter_map(|journal| Some(fs::metadata(journal).ok()?.len() / (16 * 80))).sum()
}

/// Starts a first backup of ten packs and kills it when nine of them are acknowledged; tells whether it was still running.
fn is_killed_at_nine_of_ten_packs(sandbox: &Sandbox) -> bool {
    let mut child =
        sandbox.command(&["backup", "source"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("runs");
    while acknowledged_packs(sandbox) < 9 && child.try_wait().expect("waits").is_none() {
        std::thread::yield_now();
    }
    child.kill().expect("killed");
    child.wait().expect("waits").code().is_none()
}

#[test]
fn a_first_backup_killed_at_nine_tenths_uploads_about_the_last_when_it_is_run_again() {
    let sandbox = Sandbox::new();
    for number in 0..160 {
        sandbox.write(&format!("source/{number:03}"), noise(number, 1 << 20));
    }
    let was_killed = (0..5).any(|_| {
        for folder in ["repository", "home/.cache"] {
            drop(fs::remove_dir_all(sandbox.path(folder)));
        }
        sandbox.ok(&["init", "--skip-probe"]);
        is_killed_at_nine_of_ten_packs(&sandbox)
    });
    assert!(was_killed, "it ended before it could be killed, five times");
    assert_eq!(sandbox.shell("cp -a repository repository2").code, 0);
    let without = sandbox.json(0, &["--repo", "repository2", "backup", "source", "--cache-dir", "empty"]);
    assert!(without["uploaded_bytes"].as_u64() > without["bytes"].as_u64(), "it cannot know: {without}");
    let done = sandbox.json(0, &["backup", "source"]);
    let (uploaded, bytes) = (done["uploaded_bytes"].as_u64().expect("bytes"), done["bytes"].as_u64().expect("bytes"));
    assert!(uploaded < bytes / 5, "{uploaded} of {bytes}");
    println!("{uploaded} of {bytes} bytes uploaded by the second run");
    sandbox.ok(&["restore", "back"]);
    assert!(sandbox.tree("back") == sandbox.tree("source"));
    assert_eq!(sandbox.ok(&["check", "--json"]).document()["outcome"], "done");
    assert_eq!(sandbox.json(0, &["backup", "source"])["outcome"], "unchanged");
}
