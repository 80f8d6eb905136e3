//! A whole life of a repository, simulated: the real library on a store that delays, duplicates, loses and reorders
//! requests, with several writers that stall and crash, claims, forgets, prunes and promotions in between.
//!
//! After every write that is applied, the invariants of `docs/proof.md` are looked at. A seed decides
//! everything; a failure prints it with the schedule, and `GHOSTSYNC_SEED=s GHOSTSYNC_SEEDS=1` plays it again.

mod actors;
mod ledger;
mod random;
mod schedule;
mod store;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use schedule::{Failure, Setting, Tally, simulate};
use store::Creates;

/// Seeds that `cargo test` tries; `just simulate` tries more.
const SEEDS: u64 = 60;
/// What is started in each, all in all.
const JOBS: usize = 30;
/// Nothing hangs; this is for a defect in the simulation itself.
const LIMIT: Duration = Duration::from_secs(60);

type Outcome = Result<(Tally, Vec<String>), Failure>;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Simulates seeds on all processors, and calls a function with each outcome until it says that it has seen enough.
fn each(first: u64, seeds: u64, creates: Creates, mut function: impl FnMut(u64, Outcome) -> bool) {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64).min(seeds);
    let next = Arc::new(AtomicU64::new(first));
    let running = Arc::new(Mutex::new(BTreeSet::new()));
    let (sender, outcomes) = mpsc::channel();
    for _ in 0..threads {
        let (next, running, sender) = (Arc::clone(&next), Arc::clone(&running), sender.clone());
        std::thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= first + seeds {
                    return;
                }
                running.lock().expect("no panic").insert(seed);
                let outcome = simulate(Setting { seed, creates, jobs: JOBS });
                running.lock().expect("no panic").remove(&seed);
                if sender.send((seed, outcome)).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    for _ in 0..seeds {
        let next = outcomes.recv_timeout(LIMIT);
        let (seed, outcome) = next.unwrap_or_else(|error| panic!("{error} at one of the seeds {running:?}"));
        if function(seed, outcome) {
            return;
        }
    }
}

#[test]
fn every_invariant_holds_whatever_the_store_and_the_schedule_do() {
    let (first, seeds) = (number("GHOSTSYNC_SEED", 0), number("GHOSTSYNC_SEEDS", SEEDS));
    let mut sum = Tally::new();
    let mut failed = None;
    each(first, seeds, Creates::Atomic, |seed, outcome| match outcome {
        Ok((tally, _)) => {
            tally.into_iter().for_each(|(what, count)| *sum.entry(what).or_default() += count);
            false
        }
        Err(failure) => {
            failed = Some((seed, failure));
            true
        }
    });
    if let Some((seed, Failure { violation, trace })) = failed {
        let replay = format!("GHOSTSYNC_SEED={seed} GHOSTSYNC_SEEDS=1 just simulate");
        panic!("seed {seed}: {violation}\n{}\nplay it again: {replay}", trace.join("\n"));
    }
    println!("{seeds} seeds from {first}: {sum:?}");
    if seeds >= SEEDS {
        for what in [
            "backed up",
            "unchanged",
            "forked",
            "claimed",
            "restored",
            "begun anew",
            "steps",
            "unknown",
            "killed",
            "commits that were late",
            "packs deleted",
            "packs draining",
            "snapshots moved",
            "refused, or in conflict",
            "emptied",
            "prunes at once",
            "moved while another pruned",
        ] {
            assert!(sum.get(what).is_some_and(|count| *count > 0), "never {what}: {sum:?}");
        }
    }
}

#[test]
fn a_seed_decides_everything() {
    // A prune reads the pages of sessions that began together in the order of their random names.
    let plain = |line: &String| match line.split_once(" GET packs/") {
        Some((prunes, key)) if prunes.ends_with("prunes") => format!("{prunes} GET {}", &key[..5]),
        _ => line.clone(),
    };
    for seed in 0..number("GHOSTSYNC_SEEDS", 20) {
        let run = || -> Vec<String> {
            let (Ok((_, trace)) | Err(Failure { trace, .. })) =
                simulate(Setting { seed, creates: Creates::Atomic, jobs: JOBS });
            trace.iter().map(plain).collect()
        };
        let (once, again) = (run(), run());
        let differ = once.iter().zip(&again).find(|(once, again)| once != again);
        assert!(differ.is_none() && once.len() == again.len(), "seed {seed}: {differ:?}");
    }
}

/// Finds out how many seeds it takes until a store that breaks its promise is found out.
fn seeds_until_found_out(creates: Creates, most: u64) -> u64 {
    let mut found = None;
    each(0, most, creates, |seed, outcome| {
        found = outcome.err().map(|failure| (seed, failure.violation));
        found.is_some()
    });
    let (seed, violation) = found.expect("nobody noticed");
    println!("{creates:?}: seed {seed}: {violation}");
    seed
}

#[test]
fn a_create_that_is_ignored_is_found_out() {
    seeds_until_found_out(Creates::Ignored, 20);
}

#[test]
fn a_create_that_races_is_found_out() {
    seeds_until_found_out(Creates::Racing, 20);
}
