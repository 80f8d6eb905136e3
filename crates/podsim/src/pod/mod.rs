//! A pod of real processes: what the [`Kubelet`](crate::kubelet::Kubelet) says is done with them, in a thread of its own,
//! while a scenario tells it what befalls the node.

mod node;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::content::Versions;
use crate::kubelet::{ContainerSpec, Event};

use node::{Message, Node};

/// What is run: words, and variables in addition to an empty environment.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// What it is called in the list of processes.
    pub name: String,
    /// Its arguments.
    pub words: Vec<String>,
    /// Its environment.
    pub variables: Vec<(String, String)>,
}

/// What a container is to the judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Brings the content.
    Restore,
    /// Saves it.
    Sync,
    /// Writes it.
    App,
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it is to the judge.
    pub role: Role,
    /// What it is to the kubelet.
    pub spec: ContainerSpec,
    /// What runs in it.
    pub program: Program,
    /// Its preStop hook.
    pub hook: Option<Program>,
    /// Where its startup probe asks for `/startupz`.
    pub probe: Option<SocketAddr>,
}

/// A pod that can be started.
#[derive(Debug, Clone)]
pub struct PodPlan {
    /// What it is called.
    pub name: String,
    /// Volumes, logs, journal.
    pub folder: PathBuf,
    /// The containers in the order of their start.
    pub containers: Vec<Container>,
    /// `terminationGracePeriodSeconds`.
    pub grace_seconds: u64,
    /// The pause before a second restart.
    pub backoff: Duration,
    /// What is done wrong.
    pub control: Option<Control>,
}

/// Something that is done wrong, so that it is seen that the judge finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// `sync` gets SIGKILL instead of SIGTERM: there is no final snapshot
    NoFinalSnapshot,
    /// An init container that runs again wipes the volume first, as one that mirrors down does
    MirrorDown,
    /// The app is started however the restore has ended
    NoGate,
}

impl PodPlan {
    /// The volume of the app.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The volume of `restore` and `sync`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// What the app has promised.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.folder.join("journal")
    }

    /// What the containers have said.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

/// What befalls a pod.
#[derive(Debug, Clone, Copy)]
pub enum Blow {
    /// Something that the kubelet knows of.
    Event(Event),
    /// The container of this role is killed, alone.
    Kill(Role),
    /// The node stands still, the kubelet too.
    Freeze,
    /// It goes on.
    Thaw,
}

/// What has happened in a pod, with the time since 1970.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Starts of the app, each with what lay in the volume just before.
    pub app_starts: Vec<(Duration, Versions)>,
    /// Restores that ended well, each with the receipt that it left, if it left one.
    pub restored: Vec<(Duration, Option<serde_json::Value>)>,
    /// When `sync` could be expected to save what changes, each time.
    pub sync_starts: Vec<Duration>,
    /// When a restore was begun.
    pub restore_starts: Vec<Duration>,
    /// When the app was last seen to end.
    pub app_end: Option<Duration>,
    /// When, and how, `sync` last ended.
    pub sync_end: Option<(Duration, Option<i32>)>,
    /// The first SIGKILL of the kubelet, or of a node without power.
    pub first_kill: Option<Duration>,
    /// When the pod was gone.
    pub gone: Option<Duration>,
    /// What a process could not be started for.
    pub trouble: Vec<String>,
}

/// A pod that runs; everything in it is killed when this is dropped.
pub struct Pod {
    /// What it was made of.
    pub plan: PodPlan,
    blows: Sender<Message>,
    record: Arc<(Mutex<Record>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Pod {
    /// Binds a pod to a node: it begins.
    ///
    /// # Errors
    /// The system's, of making its folders.
    pub fn start(plan: PodPlan) -> io::Result<Self> {
        for folder in [plan.data(), plan.state()] {
            std::fs::create_dir_all(folder)?;
        }
        File::create(plan.folder.join("termination-log"))?;
        let (blows, inbox) = mpsc::channel();
        let record = Arc::new((Mutex::default(), Condvar::new()));
        let node = Node::new(plan.clone(), blows.clone(), Arc::clone(&record));
        let thread = std::thread::spawn(move || node.run(&inbox));
        Ok(Self { plan, blows, record, thread: Some(thread) })
    }

    /// Lets something happen to it.
    pub fn strike(&self, blow: Blow) {
        // One that is gone feels nothing.
        let _ = self.blows.send(Message::Blow(blow));
    }

    /// Deletes it, as `kubectl delete pod` and a rollout do.
    pub fn delete(&self) {
        self.strike(Blow::Event(Event::Delete { grace_seconds: None }));
    }

    /// What has happened so far.
    #[must_use]
    pub fn record(&self) -> Record {
        self.record.0.lock().map(|record| record.clone()).unwrap_or_default()
    }

    /// Waits until something has happened; returns whether it has, within the limit.
    #[must_use]
    pub fn wait(&self, limit: Duration, mut condition: impl FnMut(&Record) -> bool) -> bool {
        let (record, changed) = &*self.record;
        let Ok(record) = record.lock() else { return false };
        let waited = changed.wait_timeout_while(record, limit, |record| !condition(record));
        waited.is_ok_and(|(_, waited)| !waited.timed_out())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.strike(Blow::Thaw);
        self.strike(Blow::Event(Event::PowerLost));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
