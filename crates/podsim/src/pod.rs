//! A pod of real processes: what the [`Kubelet`] says is done with them, in a thread of its own, while a scenario tells
//! it what befalls the node.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::content::{self, Versions};
use crate::journal;
use crate::kubelet::{Action, ContainerSpec, Event, Kubelet, PodSpec};
use crate::process::Process;

/// A probe has no longer: `timeoutSeconds`.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

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

enum Message {
    Blow(Blow),
    Exited { container: usize, code: Option<i32> },
    HookEnded(usize),
    Probed { container: usize, ok: bool },
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

/// The node's side of a pod.
struct Node {
    plan: PodPlan,
    kubelet: Kubelet,
    began: Instant,
    outbox: Sender<Message>,
    record: Arc<(Mutex<Record>, Condvar)>,
    processes: Vec<Option<Process>>,
    hooks: Vec<Option<Process>>,
    is_frozen: bool,
    /// What came while the node stood still.
    kept: VecDeque<Message>,
}

impl Node {
    fn new(plan: PodPlan, outbox: Sender<Message>, record: Arc<(Mutex<Record>, Condvar)>) -> Self {
        let containers = plan.containers.iter().map(|container| container.spec).collect();
        let spec = PodSpec { containers, grace_seconds: plan.grace_seconds, backoff: plan.backoff };
        let none = || plan.containers.iter().map(|_| None).collect();
        Self {
            kubelet: Kubelet::new(&spec),
            began: Instant::now(),
            outbox,
            record,
            processes: none(),
            hooks: none(),
            is_frozen: false,
            kept: VecDeque::new(),
            plan,
        }
    }

    fn run(mut self, inbox: &Receiver<Message>) {
        let mut is_gone = self.happen(Event::Begin);
        while !is_gone {
            let due = self.kubelet.wake_at().filter(|_| !self.is_frozen);
            let wait = due.map_or(Duration::from_secs(3600), |due| due.saturating_sub(self.began.elapsed()));
            is_gone = match inbox.recv_timeout(wait) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => self.happen(Event::Tick),
                Err(RecvTimeoutError::Disconnected) => true,
            };
        }
        self.note(|record| record.gone = Some(journal::now()));
    }

    /// Returns whether nothing is left of the pod.
    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Blow(Blow::Thaw) => {
                self.is_frozen = false;
                self.signal_all(Signal::CONT);
                let kept = std::mem::take(&mut self.kept);
                return kept.into_iter().any(|message| self.take(message)) || self.happen(Event::Tick);
            }
            _ if self.is_frozen => self.kept.push_back(message),
            Message::Blow(Blow::Freeze) => {
                self.is_frozen = true;
                self.signal_all(Signal::STOP);
            }
            Message::Blow(Blow::Kill(role)) => {
                let containers = self.plan.containers.iter().zip(&self.processes);
                let process =
                    containers.filter(|(container, _)| container.role == role).find_map(|(_, it)| it.as_ref());
                process.inspect(|process| process.signal_all(Signal::KILL));
            }
            Message::Blow(Blow::Event(event)) => return self.happen(event),
            Message::Exited { container, code } => {
                self.processes[container] = None;
                self.note_exit(container, code);
                let is_wrong = self.plan.control == Some(Control::NoGate);
                return self.happen(Event::Exited { container, ok: code == Some(0) || is_wrong });
            }
            Message::HookEnded(container) => {
                self.hooks[container] = None;
                return self.happen(Event::HookEnded(container));
            }
            Message::Probed { container, ok } => return self.happen(Event::Probed { container, ok }),
        }
        false
    }

    fn happen(&mut self, event: Event) -> bool {
        let actions = self.kubelet.on(event, self.began.elapsed());
        let mut is_gone = false;
        for action in actions {
            self.say(&format!("kubelet: {action:?}"));
            match action {
                Action::Start(container) => self.start(container),
                Action::Probe(container) => self.probe(container),
                Action::Hook(container) => self.hook(container),
                Action::CutHook(container) => self.hooks[container] = None,
                Action::Terminate(container) => {
                    let is_sync = self.plan.containers[container].role == Role::Sync;
                    let is_wrong = is_sync && self.plan.control == Some(Control::NoFinalSnapshot);
                    self.signal(container, if is_wrong { Signal::KILL } else { Signal::TERM });
                }
                Action::Kill(container) => {
                    self.note(|record| _ = record.first_kill.get_or_insert(journal::now()));
                    self.signal(container, Signal::KILL);
                }
                Action::Gone => is_gone = true,
            }
        }
        is_gone
    }

    fn start(&mut self, container: usize) {
        let role = self.plan.containers[container].role;
        let now = journal::now();
        if role == Role::App {
            // Nobody writes to the volume at this moment.
            let found = content::scan(&self.plan.data()).unwrap_or_default();
            self.note(|record| record.app_starts.push((now, found)));
        }
        let started =
            self.spawn(&self.plan.containers[container].program, move |code| Message::Exited { container, code });
        match started {
            Ok(process) => self.processes[container] = Some(process),
            Err(error) => {
                self.note(|record| record.trouble.push(format!("cannot start container {container}: {error}")));
                let _ = self.outbox.send(Message::Exited { container, code: None });
            }
        }
        self.note(|record| match role {
            Role::Restore => record.restore_starts.push(now),
            Role::Sync => record.sync_starts.push(now),
            Role::App => {}
        });
    }

    fn hook(&mut self, container: usize) {
        let ended = move |_| Message::HookEnded(container);
        let started = self.plan.containers[container].hook.as_ref().map(|program| self.spawn(program, ended));
        match started {
            Some(Ok(process)) => self.hooks[container] = Some(process),
            _ => _ = self.outbox.send(Message::HookEnded(container)),
        }
    }

    fn spawn(
        &self,
        program: &Program,
        ended: impl FnOnce(Option<i32>) -> Message + Send + 'static,
    ) -> io::Result<Process> {
        use std::os::unix::process::CommandExt;
        let log = File::options().create(true).append(true).open(self.plan.log())?;
        let mut command = Command::new(&program.path);
        command.arg0(&program.name).args(&program.words).env_clear().envs(program.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let outbox = self.outbox.clone();
        Process::start(&mut command, move |code| _ = outbox.send(ended(code)))
    }

    fn probe(&self, container: usize) {
        let (outbox, address) = (self.outbox.clone(), self.plan.containers[container].probe);
        std::thread::spawn(move || {
            let ok = address.is_some_and(is_started);
            let _ = outbox.send(Message::Probed { container, ok });
        });
    }

    fn signal(&self, container: usize, signal: Signal) {
        match &self.processes[container] {
            Some(process) if signal == Signal::KILL => process.signal_all(signal),
            Some(process) => process.signal(signal),
            None => {}
        }
    }

    fn signal_all(&self, signal: Signal) {
        self.processes.iter().chain(&self.hooks).flatten().for_each(|process| process.signal_all(signal));
    }

    fn note_exit(&self, container: usize, code: Option<i32>) {
        self.say(&format!("container {container} has ended: {code:?}"));
        let now = journal::now();
        match self.plan.containers[container].role {
            Role::Restore if code == Some(0) || self.plan.control == Some(Control::NoGate) => {
                let receipt = std::fs::read(self.plan.state().join("receipt.json")).ok();
                let receipt = receipt.and_then(|bytes| serde_json::from_slice(&bytes).ok());
                self.note(|record| record.restored.push((now, receipt)));
            }
            Role::Restore => {}
            Role::Sync => self.note(|record| record.sync_end = Some((now, code))),
            Role::App => self.note(|record| record.app_end = Some(now)),
        }
    }

    /// A line of the node's own in the log of the pod.
    fn say(&self, what: &str) {
        let opened = File::options().create(true).append(true).open(self.plan.log());
        let line = format!("{:.3} {what}\n", journal::now().as_secs_f64());
        let _ = opened.and_then(|mut log| log.write_all(line.as_bytes()));
    }

    fn note(&self, change: impl FnOnce(&mut Record)) {
        let (record, changed) = &*self.record;
        if let Ok(mut record) = record.lock() {
            change(&mut record);
            changed.notify_all();
        }
    }
}

/// Asks `/startupz`.
fn is_started(address: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
        stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
        stream.write_all(b"GET /startupz HTTP/1.0\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(answer.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
