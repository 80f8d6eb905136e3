//! What befalls the pods of a run: each scenario is a short story, told with chance.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use ghostsync_core::backup::{BackupOptions, backup};
use ghostsync_core::observer::NoObserver;

use crate::Wrong;
use crate::content;
use crate::journal::{self, Journal, What};
use crate::judge::{End, Ended};
use crate::kubelet::Event;
use crate::pod::{Blow, Control, Pod, PodPlan, Role};
use crate::proxy::Way;
use crate::random::Random;
use crate::setup::{self, PodSettings, Programs, Setup};
use crate::store::{Server, Store};

/// Longer than anything takes, also on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(120);

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

/// A run: a store of its own, and pods that come and go.
pub struct Run<'a> {
    setup: Setup,
    programs: &'a Programs,
    control: Option<Control>,
    folder: PathBuf,
    /// The first three bytes of the pods' addresses.
    network: [u8; 3],
    random: Random,
    runtime: tokio::runtime::Runtime,
    store: Store,
    pods: u8,
    ended: Vec<Ended>,
}

/// What a run begins with.
#[derive(Debug, Clone)]
pub struct RunPlan<'a> {
    /// What happens.
    pub scenario: Scenario,
    /// To which pods.
    pub setup: Setup,
    /// What runs in them.
    pub programs: &'a Programs,
    /// What is done wrong.
    pub control: Option<Control>,
    /// An S3 server; a folder is the store if there is none.
    pub server: Option<&'a Server>,
    /// Its own.
    pub folder: PathBuf,
    /// The first three bytes of the pods' addresses.
    pub network: [u8; 3],
    /// Decides everything else.
    pub seed: u64,
}

/// How the pods of a run have ended, and where their content is.
pub struct Finished {
    /// The pods.
    pub ended: Vec<Ended>,
    /// Where the content is.
    pub store: Store,
    /// For who asks it.
    pub runtime: tokio::runtime::Runtime,
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

impl<'a> Run<'a> {
    fn new(plan: &RunPlan<'a>) -> Result<Self, Wrong> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        std::fs::create_dir_all(&plan.folder)?;
        let name = plan.folder.file_name().and_then(|name| name.to_str()).unwrap_or("run");
        let store = match plan.server {
            Some(server) => runtime.block_on(Store::on_server(server, name))?,
            None => runtime.block_on(Store::in_folder(&plan.folder))?,
        };
        Ok(Self {
            setup: plan.setup,
            programs: plan.programs,
            control: plan.control,
            folder: plan.folder.clone(),
            network: plan.network,
            random: Random::new(plan.seed),
            runtime,
            store,
            pods: 0,
            ended: Vec::new(),
        })
    }

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
            let pause = self.random.between(0.0, 4.0);
            let is_started = pod.wait(pause, |record| !record.app_starts.is_empty());
            if is_started {
                break;
            }
            match self.random.below(4) {
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
            let again = |record: &crate::pod::Record| record.restore_starts.len() > starts;
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

    /// Cuts the way to the store, or opens it.
    fn cut(&self, way: Way) -> Result<(), Wrong> {
        self.store.proxy.as_ref().ok_or("the way to this store cannot be cut")?.set(way);
        Ok(())
    }

    /// A pod on another node, which shows that what is in the store can be worked with.
    fn successor(&mut self) -> Result<(), Wrong> {
        let new = self.start(|_| {})?;
        self.pause(0.5, 2.0);
        new.delete();
        self.end(new, None)
    }

    /// Starts a pod, and waits until its app runs.
    fn start(&mut self, change: impl FnOnce(&mut PodSettings)) -> Result<Pod, Wrong> {
        let pod = self.begin(change)?;
        self.await_app(&pod)?;
        Ok(pod)
    }

    /// Starts a pod with an empty volume.
    fn begin(&mut self, change: impl FnOnce(&mut PodSettings)) -> Result<Pod, Wrong> {
        let plan = self.plan(change);
        Ok(Pod::start(plan)?)
    }

    fn plan(&mut self, change: impl FnOnce(&mut PodSettings)) -> PodPlan {
        self.pods += 1;
        let [a, b, c] = self.network;
        let name = format!("pod-{}", self.pods);
        let random = &mut self.random;
        let rate = [0.5, 2.0, 5.0, 12.0][random.below(4) as usize];
        let max_kib = [32, 256, 3000][random.below(3) as usize];
        let linger = if random.percent(30) { 0.0 } else { random.between(0.0, 6.0).as_secs_f64() };
        let pause = if random.percent(30) { 4.5 } else { 0.8 };
        let seed = random.bits();
        let app = [
            format!("--rate={rate}"),
            format!("--max-kib={max_kib}"),
            format!("--linger={linger}"),
            format!("--linger-pause={pause}"),
            format!("--seed={seed}"),
        ];
        let mut settings = PodSettings {
            ip: IpAddr::V4(Ipv4Addr::new(a, b, c, self.pods)),
            folder: self.folder.join(&name),
            name,
            grace_seconds: 30,
            wait_predecessor: Duration::from_secs(40),
            limit_download: None,
            app: app.to_vec(),
            control: self.control,
        };
        change(&mut settings);
        setup::plan(self.setup, self.programs, &self.store, &settings)
    }

    fn await_app(&self, pod: &Pod) -> Result<(), Wrong> {
        expect(pod.wait(LIMIT, |record| !record.app_starts.is_empty()), pod, "the app is started")
    }

    /// Waits until a pod has gone; `hard` is when it was dealt a blow that leaves no time.
    fn end(&mut self, pod: Pod, hard: Option<Duration>) -> Result<(), Wrong> {
        expect(pod.wait(LIMIT, |record| record.gone.is_some()), &pod, "the pod is gone")?;
        let record = pod.record();
        let first = record.first_kill.into_iter().chain(hard).min();
        let end = hard.map_or(End::Graceful, |hard| End::Hard(first.unwrap_or(hard)));
        let promised = journal::load(&pod.plan.journal())?;
        self.ended.push(Ended { plan: pod.plan.clone(), record, end, promised });
        Ok(())
    }

    fn pause(&mut self, least: f64, most: f64) {
        sleep(self.random.between(least, most));
    }

    /// Puts content into the branch before there is a pod: as if one had ended long ago.
    fn fill(&mut self, files: u64, most_bytes: u64) -> Result<(), Wrong> {
        let name = "pod-0";
        let plan = PodPlan {
            name: name.to_owned(),
            folder: self.folder.join(name),
            containers: Vec::new(),
            grace_seconds: 0,
            backoff: Duration::ZERO,
            control: None,
        };
        std::fs::create_dir_all(plan.data().join(name))?;
        let mut journal = Journal::open(&plan.journal())?;
        for _ in 0..files {
            let name = format!("{name}/{:08x}", self.random.below(1 << 32));
            let most = if self.random.percent(5) { most_bytes * 10 } else { most_bytes };
            let length = usize::try_from(self.random.below(most))?;
            std::fs::write(plan.data().join(&name), content::encode(&name, 1, &self.random.bytes(length)))?;
            journal.acknowledge(&What::File { name, version: 1 })?;
        }
        if self.setup == Setup::Rclone {
            let mut command = std::process::Command::new(&self.programs.rclone);
            command.arg("copy").arg(plan.data()).arg(&self.store.remote);
            let status = command.env_clear().envs(self.store.rclone_variables()).status()?;
            return if status.success() { self.keep_filled(plan) } else { Err("rclone copy has failed".into()) };
        }
        self.runtime.block_on(async {
            let repository = self.store.open().await?;
            let observer = std::sync::Arc::new(NoObserver);
            let report = backup(&repository, &plan.data(), BackupOptions::default(), observer).await?;
            if report.is_complete() { Ok::<_, Wrong>(()) } else { Err("the content is not saved".into()) }
        })?;
        self.keep_filled(plan)
    }

    fn keep_filled(&mut self, plan: PodPlan) -> Result<(), Wrong> {
        let promised = journal::load(&plan.journal())?;
        self.ended.push(Ended { plan, record: crate::pod::Record::default(), end: End::Graceful, promised });
        Ok(())
    }
}

fn expect(has_happened: bool, pod: &Pod, what: &str) -> Result<(), Wrong> {
    if has_happened {
        return Ok(());
    }
    let log = std::fs::read_to_string(pod.plan.log()).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(12).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(format!("{}: waited in vain until {what}:\n{}", pod.plan.name, last.join("\n")).into())
}
