//! Prints what runs find, and says whether that is what they should.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::runs::Run;

/// No run of the whole takes nearly as long on an idle machine.
const LIMIT: Duration = Duration::from_secs(1200);

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Explores runs that must hold. Each must be exhausted, and together they must have seen what they are about.
pub fn designs(runs: &[Run]) -> bool {
    println!("{:40} {:>12} {:>12} {:>6} {:>8}  result", "run", "generated", "states", "depth", "seconds");
    let (mut is_sound, mut seen, mut unseen) = (true, BTreeSet::new(), BTreeSet::new());
    let (mut states, mut seconds) = (0, 0.0);
    for run in runs {
        let found = run.model.check(threads(), LIMIT);
        let result = match &found.counterexample {
            Some(counterexample) => format!("BROKEN: {}", counterexample.invariant),
            None if found.is_exhausted => "holds".to_owned(),
            None => "NOT EXHAUSTED".to_owned(),
        };
        println!(
            "{:40} {:>12} {:>12} {:>6} {:>8.1}  {result}",
            run.name, found.generated, found.unique, found.depth, found.seconds
        );
        for step in found.counterexample.iter().flat_map(|counterexample| &counterexample.steps) {
            println!("    {step}");
        }
        is_sound &= found.is_exhausted;
        states += found.unique;
        seconds += found.seconds;
        seen.extend(found.seen.into_iter().map(|what| (run.of, what)));
        unseen.extend(found.unseen.into_iter().map(|what| (run.of, what)));
    }
    for (of, what) in unseen.difference(&seen) {
        println!("NEVER SEEN by any run of {of}: {what}");
        is_sound = false;
    }
    println!("{} runs, {states} states, {seconds:.1} s{}\n", runs.len(), peak_memory());
    is_sound
}

/// Explores runs with a broken rule, one thread each, so that a counterexample is as short as any.
pub fn controls(runs: &[Run]) -> bool {
    println!("{:40} {:>12} {:>6} {:>8}  what breaks", "broken rule", "states", "steps", "seconds");
    let mut is_sound = true;
    for run in runs {
        let found = run.model.check(1, LIMIT);
        let (steps, what) = match &found.counterexample {
            Some(counterexample) => (counterexample.steps.len().to_string(), counterexample.invariant),
            None => ("-".to_owned(), "NOTHING: the checker does not see it"),
        };
        println!("{:40} {:>12} {steps:>6} {:>8.1}  {what}", run.name, found.unique, found.seconds);
        is_sound &= found.counterexample.is_some();
    }
    println!("{} broken rules{}", runs.len(), peak_memory());
    is_sound
}

/// Explores one run and prints the steps to what breaks, as few as there are.
pub fn steps(run: &Run) -> bool {
    let found = run.model.check(if run.is_large { threads() } else { 1 }, LIMIT);
    println!("{}: {} states, depth {}, {:.1} s", run.name, found.unique, found.depth, found.seconds);
    println!("seen: {:?}\nunseen: {:?}", found.seen, found.unseen);
    if let Some(counterexample) = &found.counterexample {
        println!("broken: {}", counterexample.invariant);
        counterexample.steps.iter().for_each(|step| println!("    {step}"));
    }
    true
}

/// The most memory that this process ever had, where the system tells.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = kib.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(String::new(), |kib| format!(", at most {} MiB of memory", kib / 1024))
}
