//! Many runs at once, and a table of what they have shown. A run that fails is told with the command that repeats it.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::Wrong;
use crate::judge::End;
use crate::judge::find::find;
use crate::judge::verdict::{Tally, judge};
use crate::pod::Control;
use crate::scenario::{self, Finished, RunPlan, Scenario};
use crate::setup::{Programs, Setup};
use crate::store::Server;

/// What a campaign is told.
#[derive(Debug, Clone, Args)]
pub struct CampaignArgs {
    /// Which scenarios; may be repeated [default: all]
    #[arg(long, value_enum)]
    pub(crate) scenario: Vec<Scenario>,
    /// Which set-ups; may be repeated [default: native]
    #[arg(long, value_enum)]
    pub(crate) setup: Vec<Setup>,
    /// How many runs of each
    #[arg(long, default_value = "10")]
    pub(crate) runs: u64,
    /// How many at once: they mostly sleep
    #[arg(long, default_value = "24")]
    parallel: u64,
    /// The seed of the first run of each
    #[arg(long, default_value = "0")]
    seed: u64,
    /// Begin no more runs after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Do something wrong, to see that it is found
    #[arg(long, value_enum)]
    pub(crate) control: Option<Control>,
    /// A fixed `sync --min-wait` and `--max-wait`, instead of their defaults
    #[arg(long)]
    pub(crate) max_wait: Option<String>,
    /// Seconds between two runs of `rclone sync`
    #[arg(long, default_value = "15")]
    rclone_seconds: u64,
    /// Seconds for which the store is away, and pods with a grace period of 150 s [default: 3 to 12, and 30 s]
    #[arg(long)]
    outage_seconds: Option<u64>,
    /// The program `ghostsync-k8s` [default: the one beside this program]
    #[arg(long)]
    ghostsync_k8s: Option<PathBuf>,
    /// The program `rclone`
    #[arg(long, default_value = "rclone")]
    rclone: PathBuf,
    /// Where the pods live [default: a folder in /dev/shm or the system's for temporary files]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Leave everything where it is, logs, volumes, journals, the store, also of runs that did not fail
    #[arg(long)]
    keep: bool,
}

/// Figures of one row.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    runs: u64,
    failed: u64,
    tally: Tally,
}

type Table = BTreeMap<(Scenario, usize), Row>;

/// What a campaign has shown.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    table: Table,
    /// The seconds that each run took, and its name.
    times: Vec<(f64, String)>,
    seconds: f64,
}

impl Shown {
    /// How many runs have failed.
    pub(crate) fn failed(&self) -> u64 {
        self.table.values().map(|row| row.failed).sum()
    }

    /// The table, and where the time went.
    pub(crate) fn print(&self) {
        print(&self.table);
        let mut times = self.times.clone();
        times.sort_by(|one, other| other.0.total_cmp(&one.0));
        let longest: Vec<String> =
            times.iter().take(3).map(|(seconds, name)| format!("{name} {seconds:.0} s")).collect();
        println!("{} runs in {:.0} s; the longest: {}", times.len(), self.seconds, longest.join(", "));
    }
}

/// Runs it, and prints its table; returns how many runs have failed.
///
/// # Errors
/// What keeps it from beginning.
pub fn run(args: &CampaignArgs) -> Result<u64, Wrong> {
    let shown = show(args, Failed::Keep)?;
    shown.print();
    Ok(shown.failed())
}

/// What is done with the folder of a run that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Somebody will look at it.
    Keep,
    /// It was meant to fail.
    Remove,
}

/// Runs it. Several may run at once.
///
/// # Errors
/// What keeps it from beginning.
pub(crate) fn show(args: &CampaignArgs, failed: Failed) -> Result<Shown, Wrong> {
    let programs = programs(args)?;
    let (network, _held) = network()?;
    let scenarios = if args.scenario.is_empty() { Scenario::value_variants() } else { args.scenario.as_slice() };
    let setups = if args.setup.is_empty() { &[Setup::Native][..] } else { args.setup.as_slice() };
    let base = args.folder.clone().unwrap_or_else(|| {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
    });
    let base = base.join(format!("podsim-{}-{network}", std::process::id()));
    std::fs::create_dir_all(&base)?;
    let mut scenarios = scenarios.to_vec();
    let needs_server = scenarios.contains(&Scenario::StoreDown);
    let server = if needs_server { Server::start(&base.join("server"))? } else { None };
    scenarios.retain(|scenario| *scenario != Scenario::StoreDown || server.is_some());

    let jobs: Vec<_> = (0..args.runs)
        .flat_map(|run| setups.iter().map(move |setup| (run, *setup)))
        .flat_map(|(run, setup)| scenarios.iter().map(move |scenario| (run, setup, *scenario)))
        .collect();
    let next = AtomicU64::new(0);
    let shown = Mutex::new(Shown::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for slot in 0..args.parallel.clamp(1, 250) {
            let (jobs, next, shown, args, base, programs) = (&jobs, &next, &shown, args, &base, &programs);
            let server = server.as_ref();
            scope.spawn(move || {
                while let Some((run, setup, scenario)) = jobs.get(next.fetch_add(1, Ordering::SeqCst) as usize) {
                    if args.seconds.is_some_and(|seconds| began.elapsed().as_secs() >= seconds) {
                        return;
                    }
                    let seed = args.seed + run;
                    let name = format!("{}-{}-{seed}", label(*scenario), label(*setup));
                    let plan = RunPlan {
                        scenario: *scenario,
                        setup: *setup,
                        programs,
                        control: args.control,
                        server: server.filter(|_| *scenario == Scenario::StoreDown),
                        folder: base.join(&name),
                        network: [127, network, u8::try_from(slot).unwrap_or(u8::MAX)],
                        seed,
                    };
                    let begun = Instant::now();
                    let outcome = one(&plan);
                    let keeps = args.keep || (outcome.is_failure() && failed == Failed::Keep);
                    tell(&name, args, &plan, &outcome, keeps);
                    if !keeps {
                        let _ = std::fs::remove_dir_all(&plan.folder);
                    }
                    if let Ok(mut shown) = shown.lock() {
                        shown.times.push((begun.elapsed().as_secs_f64(), name));
                        let row = shown.table.entry((*scenario, *setup as usize)).or_default();
                        row.runs += 1;
                        row.failed += u64::from(outcome.is_failure());
                        row.tally += outcome.tally;
                    }
                }
            });
        }
    });
    drop(server);
    let shown = shown.into_inner().map_err(|_| "a run panicked")?;
    if !args.keep && (shown.failed() == 0 || failed == Failed::Remove) {
        let _ = std::fs::remove_dir_all(&base);
    }
    Ok(Shown { seconds: began.elapsed().as_secs_f64(), ..shown })
}

fn label(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn programs(args: &CampaignArgs) -> Result<Programs, Wrong> {
    let podsim = std::env::current_exe()?;
    let beside = podsim.with_file_name("ghostsync-k8s");
    let ghostsync = args.ghostsync_k8s.clone().unwrap_or(beside);
    if !ghostsync.is_file() {
        return Err(format!("{} is not there: cargo build -p ghostsync-k8s", ghostsync.display()).into());
    }
    // The pods have no PATH to look it up in.
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&paths).map(|folder| folder.join(&args.rclone)).find(|file| file.is_file());
    let rclone = in_path.unwrap_or_else(|| args.rclone.clone());
    if args.setup.contains(&Setup::Rclone) && !rclone.is_file() {
        return Err(format!("{} is not there: scripts/tools.sh rclone", rclone.display()).into());
    }
    let (max_wait, rclone_seconds) = (args.max_wait.clone(), args.rclone_seconds);
    let outage_seconds = args.outage_seconds;
    Ok(Programs { podsim, ghostsync, rclone, max_wait, rclone_seconds, outage_seconds })
}

/// The second byte of addresses that no other campaign on this machine uses, held as long as what comes with it lives.
fn network() -> Result<(u8, TcpListener), Wrong> {
    let held = |byte: u8| Some((byte, TcpListener::bind((std::net::Ipv4Addr::new(127, byte, 255, 254), 9108)).ok()?));
    (16..=254).find_map(held).ok_or_else(|| "no free network in 127.0.0.0/8".into())
}

/// What came of a run.
#[derive(Debug, Default)]
struct Outcome {
    tally: Tally,
    wrong: Vec<String>,
}

impl Outcome {
    fn is_failure(&self) -> bool {
        !self.wrong.is_empty()
    }
}

fn one(plan: &RunPlan<'_>) -> Outcome {
    match scenario::run(plan).and_then(|finished| judged(plan, &finished)) {
        Ok(outcome) => outcome,
        Err(error) => Outcome { wrong: vec![error.to_string()], ..Outcome::default() },
    }
}

fn judged(plan: &RunPlan<'_>, finished: &Finished) -> Result<Outcome, Wrong> {
    let findings = find(finished, plan.setup, plan.programs, &plan.folder.join("back"))?;
    let mut outcome = Outcome { wrong: findings.too_early, ..Outcome::default() };
    for pod in &finished.ended {
        let verdict = judge(&pod.plan.name, &pod.promised, pod.end, &findings.found);
        outcome.tally += verdict.tally;
        outcome.wrong.extend(pod.record.trouble.iter().cloned());
        outcome.wrong.extend(verdict.untold.iter().map(|branch| format!("no log names {branch}")));
        // A sidecar that sees a port alone cannot know when the app has gone, and a mirror promises nothing: measured.
        let is_promised = match plan.setup {
            Setup::Native | Setup::Shared => true,
            Setup::Classic => pod.end != End::Graceful,
            Setup::Rclone => false,
        };
        if is_promised {
            outcome.wrong.extend(verdict.lost);
        }
    }
    Ok(outcome)
}

fn tell(name: &str, args: &CampaignArgs, plan: &RunPlan<'_>, outcome: &Outcome, keeps: bool) {
    if !outcome.is_failure() {
        return;
    }
    let more: Vec<String> = [
        args.control.map(|control| format!(" --control {}", label(control))),
        args.max_wait.as_ref().map(|wait| format!(" --max-wait {wait}")),
        args.outage_seconds.map(|seconds| format!(" --outage-seconds {seconds}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let wrong: Vec<&str> = outcome.wrong.iter().take(4).map(String::as_str).collect();
    let kept = if keeps { format!("\n  kept: {}", plan.folder.display()) } else { String::new() };
    eprintln!(
        "FAILED {name}: {} ({} in all){kept}\n  again: podsim campaign --keep --scenario {} --setup {} --seed {} --runs 1{}",
        wrong.join("\n  "),
        outcome.wrong.len(),
        label(plan.scenario),
        label(plan.setup),
        plan.seed,
        more.concat(),
    );
}

fn print(table: &Table) {
    println!(
        "| scenario | set-up | runs | files acknowledged | lost, of the last 5 s before a hard end | lost otherwise | on \
         forks | rows acknowledged | rows lost, late / otherwise | torn databases | runs that failed |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for ((scenario, setup), row) in table {
        let setup = Setup::value_variants().get(*setup).map(|setup| setup.name()).unwrap_or_default();
        let it = row.tally;
        println!(
            "| {} | {setup} | {} | {} | {} | {} | {} | {} | {} / {} | {} | {} |",
            scenario.name(),
            row.runs,
            it.files,
            it.late,
            it.lost,
            it.forked,
            it.rows,
            it.rows_late,
            it.rows_lost,
            it.torn,
            row.failed
        );
    }
}
