//! A run: a store and pods of its own, and the means to let something happen to them.

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
use crate::pod::{Control, Pod, PodPlan, Record};
use crate::proxy::Way;
use crate::random::Random;
use crate::setup::{self, PodSettings, Programs, Setup};
use crate::store::{Server, Store};

use super::Scenario;

/// Longer than anything takes, also on a machine that is busy with something else.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// A run: a store of its own, and pods that come and go.
pub(super) struct Run<'a> {
    setup: Setup,
    pub(super) programs: &'a Programs,
    pub(super) control: Option<Control>,
    folder: PathBuf,
    /// The first three bytes of the pods' addresses.
    network: [u8; 3],
    pub(super) random: Random,
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) store: Store,
    pods: u8,
    pub(super) ended: Vec<Ended>,
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

impl<'a> Run<'a> {
    pub(super) fn new(plan: &RunPlan<'a>) -> Result<Self, Wrong> {
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

    /// Cuts the way to the store, or opens it.
    pub(super) fn cut(&self, way: Way) -> Result<(), Wrong> {
        self.store.proxy.as_ref().ok_or("the way to this store cannot be cut")?.set(way);
        Ok(())
    }

    /// A pod on another node, which shows that what is in the store can be worked with.
    pub(super) fn successor(&mut self) -> Result<(), Wrong> {
        let new = self.start(|_| {})?;
        self.pause(0.5, 2.0);
        new.delete();
        self.end(new, None)
    }

    /// Starts a pod, and waits until its app runs.
    pub(super) fn start(&mut self, change: impl FnOnce(&mut PodSettings)) -> Result<Pod, Wrong> {
        let pod = self.begin(change)?;
        self.await_app(&pod)?;
        Ok(pod)
    }

    /// Starts a pod with an empty volume.
    pub(super) fn begin(&mut self, change: impl FnOnce(&mut PodSettings)) -> Result<Pod, Wrong> {
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
            // As the manifests have it, where the store is away for long.
            grace_seconds: if self.programs.outage_seconds.is_some() { 150 } else { 30 },
            wait_predecessor: Duration::from_secs(40),
            limit_download: None,
            app: app.to_vec(),
            control: self.control,
        };
        change(&mut settings);
        setup::plan(self.setup, self.programs, &self.store, &settings)
    }

    pub(super) fn await_app(&self, pod: &Pod) -> Result<(), Wrong> {
        expect(pod.wait(LIMIT, |record| !record.app_starts.is_empty()), pod, "the app is started")
    }

    /// Waits until a pod has gone; `hard` is when it was dealt a blow that leaves no time.
    pub(super) fn end(&mut self, pod: Pod, hard: Option<Duration>) -> Result<(), Wrong> {
        expect(pod.wait(LIMIT, |record| record.gone.is_some()), &pod, "the pod is gone")?;
        let record = pod.record();
        let first = record.first_kill.into_iter().chain(hard).min();
        let end = hard.map_or(End::Graceful, |hard| End::Hard(first.unwrap_or(hard)));
        let promised = journal::load(&pod.plan.journal())?;
        self.ended.push(Ended { plan: pod.plan.clone(), record, end, promised });
        Ok(())
    }

    pub(super) fn pause(&mut self, least: f64, most: f64) {
        sleep(self.random.between(least, most));
    }

    /// Puts content into the branch before there is a pod: as if one had ended long ago.
    pub(super) fn fill(&mut self, files: u64, most_bytes: u64) -> Result<(), Wrong> {
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
        self.ended.push(Ended { plan, record: Record::default(), end: End::Graceful, promised });
        Ok(())
    }
}

pub(super) fn expect(has_happened: bool, pod: &Pod, what: &str) -> Result<(), Wrong> {
    if has_happened {
        return Ok(());
    }
    let log = std::fs::read_to_string(pod.plan.log()).unwrap_or_default();
    let last: Vec<&str> = log.lines().rev().take(12).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(format!("{}: waited in vain until {what}:\n{}", pod.plan.name, last.join("\n")).into())
}
