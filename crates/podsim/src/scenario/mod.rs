//! What befalls the pods of a run: each scenario is a short story, told with chance.

mod run;

use std::thread::sleep;
use std::time::Duration;

use crate::Wrong;
use crate::journal;
use crate::kubelet::Event;
use crate::pod::{Blow, Control, Record, Role};
use crate::proxy::Way;

use run::{LIMIT, Run, expect};

pub use run::{Finished, RunPlan};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Scenario {
    /// A new version: the new pod is started when the old one has gone
    Rollout,
    /// A drain: the new pod is started while the old one is still ending
    Drain,
    /// An eviction with one second
    Eviction,
    /// The node loses its power, and everything on it is gone
    PowerLoss,
    /// The node is cut off, the pod is replaced; later it comes back
    NodeCutOff,
    /// The sidecar is killed alone
    SidecarKilled,
    /// The sandbox is lost, the volumes stay: init containers run again
    SandboxLost,
    /// The restore is interrupted in every way
    RestoreInterrupted,
    /// The store is away when it is needed
    StoreDown,
}

impl Scenario {
    /// For tables.
    #[must_use]
    pub fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().map(|value| value.get_name().replace('-', " ")).unwrap_or_default()
    }
}

/// Runs a scenario.
///
/// # Errors
/// What did not happen as it should, such as a pod that never starts.
pub fn run(plan: &RunPlan<'_>) -> Result<Finished, Wrong> {
    let mut run = Run::new(plan)?;
    if plan.scenario != Scenario::RestoreInterrupted {
        run.fill(60, 10_000)?;
    }
    match plan.scenario {
        Scenario::Rollout => run.rollout()?,
        Scenario::Drain => run.drain()?,
        Scenario::Eviction => run.eviction()?,
        Scenario::PowerLoss => run.power_loss()?,
        Scenario::NodeCutOff => run.node_cut_off()?,
        Scenario::SidecarKilled => run.sidecar_killed()?,
        Scenario::SandboxLost => run.sandbox_lost()?,
        Scenario::RestoreInterrupted => run.restore_interrupted()?,
        Scenario::StoreDown => run.store_down()?,
    }
    Ok(Finished { ended: run.ended, store: run.store, runtime: run.runtime })
}

impl Run<'_> {
    fn rollout(&mut self) -> Result<(), Wrong> {
        let old = self.start(|_| {})?;
        self.pause(3.0, 9.0);
        old.delete();
        self.end(old, None)?;
        self.successor()
    }

    fn drain(&mut self) -> Result<(), Wrong> {
        let old = self.start(|_| {})?;
        self.pause(3.0, 9.0);
        old.delete();
        self.pause(0.0, 1.0);
        // As the manifests have it; or it cannot wait for so long.
        let wait = if self.random.percent(40) { Duration::from_secs(40) } else { self.random.between(0.0, 4.0) };
        let new = self.start(|pod| pod.wait_predecessor = wait)?;
        self.pause(2.0, 5.0);
        self.end(old, None)?;
        new.delete();
        self.end(new, None)
    }

    fn eviction(&mut self) -> Result<(), Wrong> {
        let old = self.start(|_| {})?;
        self.pause(5.0, 16.0);
        let at = journal::now();
        old.strike(Blow::Event(Event::Delete { grace_seconds: Some(1) }));
        self.end(old, Some(at + Duration::from_secs(1)))?;
        self.successor()
    }

    fn power_loss(&mut self) -> Result<(), Wrong> {
        let old = self.start(|_| {})?;
        self.pause(5.0, 22.0);
        let at = journal::now();
        old.strike(Blow::Event(Event::PowerLost));
        self.end(old, Some(at))?;
        self.successor()
    }

    fn node_cut_off(&mut self) -> Result<(), Wrong> {
        let old = self.start(|_| {})?;
        self.pause(3.0, 9.0);
        // The machine stands still, or goes on by itself and still reaches the store.
        let stands_still = self.random.percent(70);
        if stands_still {
            old.strike(Blow::Freeze);
        }
        self.pause(0.0, 2.0);
        let wait = self.random.between(0.0, 2.0);
        let new = self.start(|pod| pod.wait_predecessor = wait)?;
        self.pause(1.0, 6.0);
        old.strike(Blow::Thaw);
        self.pause(0.0, 4.0);
        if self.random.percent(25) {
            // It was booted again: its restore takes the branch back.
            let starts = old.record().app_starts.len();
            old.strike(Blow::Event(Event::SandboxLost));
            expect(old.wait(LIMIT, |record| record.app_starts.len() > starts), &old, "the app is started again")?;
            self.pause(1.0, 3.0);
        }
        old.delete();
        self.end(old, None)?;
        self.pause(0.0, 2.0);
        new.delete();
        self.end(new, None)
    }

    fn sidecar_killed(&mut self) -> Result<(), Wrong> {
        let old = self.start(|_| {})?;
        for _ in 0..=self.random.below(2) {
            self.pause(0.0, 4.0);
            let starts = old.record().sync_starts.len();
            old.strike(Blow::Kill(Role::Sync));
            expect(old.wait(LIMIT, |record| record.sync_starts.len() > starts), &old, "the sidecar is started again")?;
        }
        // Long enough to have begun: a sidecar that is not there saves nothing.
        self.pause(3.0, 5.0);
        old.delete();
        self.end(old, None)?;
        self.successor()
    }

    fn sandbox_lost(&mut self) -> Result<(), Wrong> {
        let pod = self.start(|_| {})?;
        for _ in 0..=self.random.below(2) {
            self.pause(1.0, 7.0);
            let starts = pod.record().app_starts.len();
            pod.strike(Blow::Event(Event::SandboxLost));
            expect(pod.wait(LIMIT, |record| record.app_starts.len() > starts), &pod, "the app is started again")?;
        }
        self.pause(0.5, 4.0);
        pod.delete();
        self.end(pod, None)?;
        self.successor()
    }

    fn restore_interrupted(&mut self) -> Result<(), Wrong> {
        let files = 60 + self.random.below(60);
        self.fill(files, 100_000)?;
        let limit = 1_500_000 + self.random.below(2_000_000);
        let mut pod = self.begin(|pod| pod.limit_download = Some(limit))?;
        for _ in 0..=self.random.below(3) {
            let starts = pod.record().restore_starts.len();
            // The control is to be seen in every run.
            let is_control = self.control == Some(Control::NoGate);
            let pause = self.random.between(0.0, if is_control { 0.8 } else { 4.0 });
            let is_started = pod.wait(pause, |record| !record.app_starts.is_empty());
            if is_started {
                break;
            }
            match if is_control { 1 } else { self.random.below(4) } {
                0 => pod.strike(Blow::Event(Event::SandboxLost)),
                1 | 2 => pod.strike(Blow::Kill(Role::Restore)),
                _ => {
                    // Deleted in the middle of it, and made anew elsewhere.
                    pod.delete();
                    self.end(pod, None)?;
                    pod = self.begin(|pod| pod.limit_download = Some(limit))?;
                    continue;
                }
            }
            let again = |record: &Record| record.restore_starts.len() > starts;
            // One that had ended a moment before is not started again by a blow to it.
            let _ = pod.wait(Duration::from_secs(5), |record| again(record) || !record.app_starts.is_empty());
        }
        self.await_app(&pod)?;
        self.pause(1.0, 3.0);
        pod.delete();
        self.end(pod, None)
    }

    fn store_down(&mut self) -> Result<(), Wrong> {
        let way = if self.random.percent(50) { Way::Refused } else { Way::Still };
        let outage = self.random.between(3.0, 12.0);
        let outage = self.programs.outage_seconds.map_or(outage, Duration::from_secs);
        let old = self.start(|_| {})?;
        self.pause(2.0, 8.0);
        match self.random.below(3) {
            // While the app writes.
            0 => {
                self.cut(way)?;
                sleep(outage);
                self.cut(Way::Open)?;
                self.pause(0.0, 3.0);
                old.delete();
            }
            // From just before the end.
            1 => {
                self.cut(way)?;
                self.pause(0.0, 2.0);
                old.delete();
                sleep(outage);
                self.cut(Way::Open)?;
            }
            // From a moment in the middle of the end.
            _ => {
                old.delete();
                self.pause(0.0, 3.0);
                self.cut(way)?;
                sleep(outage);
                self.cut(Way::Open)?;
            }
        }
        self.end(old, None)?;
        let is_at_start = self.random.percent(30);
        if is_at_start {
            self.cut(way)?;
        }
        let new = self.begin(|_| {})?;
        if is_at_start {
            sleep(self.random.between(2.0, 6.0));
            self.cut(Way::Open)?;
        }
        self.await_app(&new)?;
        self.pause(0.5, 2.0);
        new.delete();
        self.end(new, None)
    }
}
