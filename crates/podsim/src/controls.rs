//! Negative controls: something is done wrong, and the judge must find it. All at once: they mostly sleep.

use crate::Wrong;
use crate::campaign::{self, CampaignArgs, Failed};
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
    let shown: Vec<_> = std::thread::scope(|scope| {
        let running = controls.map(|(_, control, scenario, setup, max_wait)| {
            let mut args = args.clone();
            (args.scenario, args.setup) = (vec![scenario], vec![setup]);
            (args.control, args.max_wait) = (control, max_wait.map(str::to_owned));
            scope.spawn(move || campaign::show(&args, Failed::Remove))
        });
        running.into_iter().map(|control| control.join().map_err(|_| "a control panicked")).collect()
    });
    let mut missed = Vec::new();
    for ((what, ..), shown) in controls.iter().zip(shown) {
        let shown = shown??;
        println!("\n{what}:");
        shown.print();
        if shown.failed() == 0 {
            missed.push(what);
        }
    }
    for what in &missed {
        println!("MISSED: {what}");
    }
    Ok(missed.is_empty())
}
