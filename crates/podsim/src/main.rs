//! The command `podsim`: see the library. It is the app of its pods, too.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use podsim::app::AppArgs;
use podsim::campaign::CampaignArgs;
use podsim::process::kill_all_and_exit;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(about = "Pods of real processes: what is lost, measured")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios many times, and print what was lost
    Campaign(Box<CampaignArgs>),
    /// Do something wrong in each of the ways that are known, and see that it is found
    Controls(Box<CampaignArgs>),
    /// Be the app of a pod
    App(Box<AppArgs>),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Campaign(args) => {
            end_pods_with_us().and_then(|()| podsim::campaign::run(&args)).map(|failed| failed == 0)
        }
        Command::Controls(args) => end_pods_with_us().and_then(|()| podsim::controls::run(&args)),
        Command::App(args) => app(*args).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("podsim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Pods have nobody who ends them when this program is told to end.
fn end_pods_with_us() -> Result<(), podsim::Wrong> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        eprintln!("podsim: stopped; the pods are killed, and their folders are left");
        kill_all_and_exit(130)
    });
    Ok(())
}

fn app(args: AppArgs) -> Result<(), podsim::Wrong> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(podsim::app::run(args))
}
