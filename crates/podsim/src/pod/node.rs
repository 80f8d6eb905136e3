//! The node's side of a pod: processes are started, probed and signalled, and what happens is noted.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::content;
use crate::journal;
use crate::kubelet::{Action, Event, Kubelet, PodSpec};
use crate::process::Process;

use super::{Blow, Control, PodPlan, Program, Record, Role};

/// A probe has no longer: `timeoutSeconds`.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the node hears.
pub(super) enum Message {
    Blow(Blow),
    Exited { container: usize, code: Option<i32> },
    HookEnded(usize),
    Probed { container: usize, ok: bool },
}

/// The node's side of a pod.
pub(super) struct Node {
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
    pub(super) fn new(plan: PodPlan, outbox: Sender<Message>, record: Arc<(Mutex<Record>, Condvar)>) -> Self {
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

    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
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
