//! Negative controls: something is done wrong, and the judge must find it.

use crate::Wrong;
use crate::campaign::{self, CampaignArgs};
use crate::pod::Control;
use crate::scenario::Scenario;
use crate::setup::Setup;

/// Runs each control in a scenario that shows it; returns whether every one was found.
///
/// # Errors
/// What keeps a campaign from beginning.
pub fn run(args: &CampaignArgs) -> Result<bool, Wrong> {
    let controls = [
        ("no final snapshot", Some(Control::NoFinalSnapshot), Scenario::Rollout, Setup::Native, None),
        ("no final snapshot beside a successor", Some(Control::NoFinalSnapshot), Scenario::Drain, Setup::Native, None),
        ("an init container that mirrors down", Some(Control::MirrorDown), Scenario::SandboxLost, Setup::Native, None),
        ("an app that waits for no restore", Some(Control::NoGate), Scenario::RestoreInterrupted, Setup::Shared, None),
        ("changes that are saved after a minute", None, Scenario::PowerLoss, Setup::Native, Some("1m")),
    ];
    let mut missed = Vec::new();
    for (what, control, scenario, setup, max_wait) in controls {
        println!("\n{what}:");
        let mut args = args.clone();
        (args.scenario, args.setup) = (vec![scenario], vec![setup]);
        (args.control, args.max_wait) = (control, max_wait.map(str::to_owned));
        if campaign::run(&args)? == 0 {
            missed.push(what);
        }
    }
    for what in &missed {
        eprintln!("MISSED: {what}");
    }
    Ok(missed.is_empty())
}
