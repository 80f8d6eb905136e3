//! Measures ghostsync beside its peers, checks every restore, and writes `docs/benchmarks.md`.
//!
//! ```text
//! trees -> steps | history | curve -> results (JSON) -> report (page, picture, README)
//! ```

mod bench;
mod changes;
mod compare;
mod curve;
mod failure;
mod history;
mod line;
mod machine;
mod measure;
mod peers;
mod random;
mod report;
mod requests;
mod results;
mod steps;
mod store;
mod trees;
mod walk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use bench::Bench;
use failure::{Failure, Outcome, Tried};
use results::{Key, Medium, Results, Scenario};
use store::StoreKind;
use trees::Tree;

#[derive(Parser)]
#[command(name = "bench", about = "Measures ghostsync beside its peers and writes docs/benchmarks.md")]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: What,
}

#[derive(Args)]
struct Settings {
    /// The project's checkout
    #[arg(long, global = true, default_value = ".")]
    project: PathBuf,
    /// The command that is measured
    #[arg(long, global = true, default_value = "target/release/ghostsync")]
    ghostsync: PathBuf,
    /// A folder in memory
    #[arg(long, global = true, default_value = "/dev/shm/ghostsync-bench")]
    tmpfs: PathBuf,
    /// A folder on a disk
    #[arg(long, global = true, default_value = "bench/work")]
    disk: PathBuf,
    /// What was measured [default: docs/benchmarks.json, at a scale below 1 DISK/scaled.json]
    #[arg(long, global = true)]
    results: Option<PathBuf>,
    /// Runs of each command; the report has medians
    #[arg(long, global = true, default_value_t = 5)]
    runs: u32,
    /// The part of each tree that is made, to try things out; the report is then printed and not written
    #[arg(long, global = true, default_value_t = 1.0)]
    scale: f64,
    /// The longest that one command may take
    #[arg(long, global = true, default_value_t = 3600)]
    limit_seconds: u64,
}

#[derive(Subcommand)]
enum What {
    /// Everything that docs/benchmarks.md shows
    All,
    /// Backups and restores of trees by every peer
    Steps {
        /// Of these trees
        #[arg(long, value_delimiter = ',', default_values = ["docs", "media", "db", "source", "wide"])]
        trees: Vec<Tree>,
        /// By these peers [default: all; of wide, those that end in time]
        #[arg(long, value_delimiter = ',')]
        peers: Vec<String>,
        /// Where trees and local repositories lie
        #[arg(long = "where", value_delimiter = ',', default_values = ["tmpfs"])]
        medium: Vec<Medium>,
        /// Where the repositories lie
        #[arg(long, value_delimiter = ',', default_values = ["local"])]
        store: Vec<StoreKind>,
    },
    /// Restores after 200 snapshots and after one
    History,
    /// Trees of 10,000 to two million files
    Curve,
    /// Make the report again from what was measured
    Report,
    /// Pass connections on to a store over the slow line, until standard input ends; prints where it listens
    Line {
        /// Where the store listens
        store: SocketAddr,
    },
    /// Run a command and write what it took (how the bench starts everything)
    #[command(hide = true)]
    Measured {
        result: PathBuf,
        output: PathBuf,
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let What::Measured { result, output, command } = &cli.command {
        return match measure::measured(result, output, command) {
            Ok(code) => ExitCode::from(code as u8),
            Err(failure) => complain(&failure),
        };
    }
    let done = match cli.command {
        What::Line { store } => pass_on(store),
        _ => run(cli),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => complain(&failure),
    }
}

fn complain(failure: &Failure) -> ExitCode {
    eprintln!("bench: {failure}");
    ExitCode::FAILURE
}

/// For a script that measures something else over the line.
fn pass_on(store: SocketAddr) -> Outcome<()> {
    let line = line::Line::start(store)?;
    println!("{}", line.address);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).tried(|| "read standard input".into())?;
    Ok(())
}

fn run(cli: Cli) -> Outcome<()> {
    let settings = cli.settings;
    let mut peers = Vec::new();
    let whole = settings.scale >= 1.0;
    let usual = if whole { settings.project.join("docs/benchmarks.json") } else { settings.disk.join("scaled.json") };
    let bench = Bench {
        results: settings.results.unwrap_or(usual),
        ghostsync: absolute(&settings.ghostsync)?,
        project: absolute(&settings.project)?,
        tmpfs: settings.tmpfs,
        disk: settings.disk,
        runs: settings.runs,
        scale: settings.scale,
        limit_seconds: settings.limit_seconds,
    };
    let plan = match cli.command {
        What::All => whole_plan()?,
        What::Steps { trees, peers: names, medium, store } => {
            peers = names;
            let steps = |medium, store, tree| Key { scenario: Scenario::Steps, medium, store, tree };
            let of_medium = |medium: &Medium| {
                let of_store =
                    |store: &StoreKind| trees.iter().map(|tree| steps(*medium, *store, *tree)).collect::<Vec<_>>();
                store.iter().flat_map(of_store).collect::<Vec<_>>()
            };
            medium.iter().flat_map(of_medium).collect()
        }
        What::History => vec![history::KEY],
        What::Curve => vec![curve::KEY],
        What::Report | What::Line { .. } | What::Measured { .. } => Vec::new(),
    };
    for key in &plan {
        measure_one(&bench, *key, &peers)?;
    }
    let results = Results::load(&bench.results)?;
    let asked = |key: &Key| plan.is_empty() || plan.contains(key);
    let now = Results { campaigns: results.campaigns.iter().filter(|known| asked(&known.key)).cloned().collect() };
    println!("{}\n{}", report::tables(&now), report::goals(&now));
    if whole {
        report::write(&results, &bench.project)?;
    }
    Ok(())
}

fn measure_one(bench: &Bench, key: Key, peers: &[String]) -> Outcome<()> {
    match key.scenario {
        Scenario::Steps => steps::run(bench, key, peers),
        Scenario::History => history::run(bench),
        Scenario::Curve => curve::run(bench),
    }
}

/// What `all` measures. Three copies of `wide` in memory take 16 GiB; with less it is measured on disk.
fn whole_plan() -> Outcome<Vec<Key>> {
    let fits = machine::available_bytes()? > 19 << 30;
    let steps = |medium, store, tree| Key { scenario: Scenario::Steps, medium, store, tree };
    let local = [Tree::Docs, Tree::Media, Tree::Db, Tree::Source];
    let mut plan: Vec<Key> = local.map(|tree| steps(Medium::Tmpfs, StoreKind::Local, tree)).to_vec();
    plan.push(steps(Medium::Tmpfs, StoreKind::Garage, Tree::Docs));
    plan.extend([history::KEY, curve::KEY]);
    plan.extend(local.map(|tree| steps(Medium::Disk, StoreKind::Local, tree)));
    plan.push(steps(if fits { Medium::Tmpfs } else { Medium::Disk }, StoreKind::Local, Tree::Wide));
    Ok(plan)
}

fn absolute(path: &std::path::Path) -> Outcome<PathBuf> {
    failure::Tried::on(path.canonicalize(), "find", path)
}
