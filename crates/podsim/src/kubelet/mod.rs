//! When the kubelet starts, probes, signals and kills the containers of a pod: pure. An event and the time go in,
//! actions come out; there is no I/O here, and no clock.
//!
//! The rules are those of `kuberuntime_container.go` of Kubernetes 1.29 and later:
//!
//! - init containers run one after the other, each until it has ended well; a native sidecar among them is started in
//!   its turn and gates the rest until its startup probe has passed; then the main containers are started together;
//! - a container that ends is started again, at once the first time, then after a pause that doubles;
//! - at the pod's end all preStop hooks run at the same time, and each container gets SIGTERM when its own hook has
//!   ended; a native sidecar waits in addition until the main containers, and the sidecars after it, have gone;
//! - time spent on the hook and on waiting is taken from the grace period in whole seconds, rounded down; two seconds
//!   are left at least between SIGTERM and SIGKILL; a hook dies with its container;
//! - a sandbox that was lost is made anew: everything begins again with the init containers, over the same volumes.
//!
//! Not here: liveness probes, startup probes that fail for too long, a second deletion with a shorter grace period.

#[cfg(test)]
mod tests;

use std::time::Duration;

/// What a container always has between SIGTERM and SIGKILL.
const FLOOR_SECONDS: u64 = 2;
/// Between two startup probes.
const PROBE_PERIOD: Duration = Duration::from_secs(1);

/// What kind of container it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs to its end before the next is started.
    Init,
    /// An init container that stays: `restartPolicy: Always`.
    Sidecar,
    /// One of those that the pod is there for; a classic sidecar is one, too.
    Main,
}

/// A container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerSpec {
    /// What kind.
    pub kind: Kind,
    /// Whether it has a preStop hook.
    pub has_hook: bool,
    /// Whether it has a startup probe.
    pub has_startup_probe: bool,
}

/// A pod: its containers in the order of their start, main containers last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSpec {
    /// The containers; they are spoken of by their index.
    pub containers: Vec<ContainerSpec>,
    /// `terminationGracePeriodSeconds`.
    pub grace_seconds: u64,
    /// The pause before the second restart of a container: ten seconds, in a real kubelet.
    pub backoff: Duration,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The pod is bound to the node.
    Begin,
    /// A container has ended.
    Exited {
        /// Which.
        container: usize,
        /// With exit code 0.
        ok: bool,
    },
    /// A container's preStop hook has ended.
    HookEnded(usize),
    /// A startup probe was answered.
    Probed {
        /// By which container.
        container: usize,
        /// Whether it is started.
        ok: bool,
    },
    /// The pod is deleted or evicted.
    Delete {
        /// Instead of the pod's own.
        grace_seconds: Option<u64>,
    },
    /// The sandbox is lost: everything is killed, the volumes stay.
    SandboxLost,
    /// The node is gone, and everything with it.
    PowerLost,
    /// Time has passed.
    Tick,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start this container.
    Start(usize),
    /// Ask it whether it is started.
    Probe(usize),
    /// Run its preStop hook.
    Hook(usize),
    /// Kill its hook: its container is gone.
    CutHook(usize),
    /// SIGTERM.
    Terminate(usize),
    /// SIGKILL.
    Kill(usize),
    /// Nothing is left of the pod.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting {
        not_before: Duration,
    },
    /// `probe_at` is `None` while a probe is under way, and when none is needed any more.
    Running {
        is_started: bool,
        probe_at: Option<Duration>,
    },
    /// The preStop hook runs.
    Hook {
        since: Duration,
        budget: u64,
    },
    /// Others go first.
    Turn {
        since: Duration,
        budget: u64,
    },
    /// SIGTERM was sent.
    Terminating {
        kill_at: Duration,
    },
    Killed,
    /// It is not there, and is not started again.
    Over,
}

impl Stage {
    fn is_alive(self) -> bool {
        !matches!(self, Self::Waiting { .. } | Self::Over)
    }
}

#[derive(Debug, Clone)]
struct Container {
    spec: ContainerSpec,
    stage: Stage,
    has_hook_running: bool,
    restarts: u32,
}

/// The kubelet, as far as it deals with one pod.
#[derive(Debug, Clone)]
pub struct Kubelet {
    containers: Vec<Container>,
    grace_seconds: u64,
    backoff: Duration,
    /// The main containers were started once: sidecars gate nothing any more.
    is_initialized: bool,
    is_ending: bool,
    is_losing_sandbox: bool,
    is_gone: bool,
}

impl Kubelet {
    /// The kubelet of a pod that has not begun.
    #[must_use]
    pub fn new(spec: &PodSpec) -> Self {
        let stage = Stage::Waiting { not_before: Duration::ZERO };
        let container = |spec: &ContainerSpec| Container { spec: *spec, stage, has_hook_running: false, restarts: 0 };
        Self {
            containers: spec.containers.iter().map(container).collect(),
            grace_seconds: spec.grace_seconds,
            backoff: spec.backoff,
            is_initialized: false,
            is_ending: false,
            is_losing_sandbox: false,
            is_gone: false,
        }
    }

    /// Takes an event, and tells what is done.
    pub fn on(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Begin | Event::Tick => {}
            Event::Exited { container, ok } => self.exited(container, ok, now, &mut actions),
            Event::HookEnded(container) => self.hook_ended(container, now),
            Event::Probed { container, ok } => self.probed(container, ok, now),
            Event::Delete { grace_seconds } => self.delete(grace_seconds, now, &mut actions),
            Event::SandboxLost => {
                self.is_losing_sandbox = !self.is_ending;
                self.kill_everything(&mut actions);
            }
            Event::PowerLost => {
                self.is_ending = true;
                self.is_losing_sandbox = false;
                self.kill_everything(&mut actions);
            }
        }
        if self.is_losing_sandbox && !self.containers.iter().any(|container| container.stage.is_alive()) {
            self.is_losing_sandbox = false;
            self.is_initialized = false;
            let waiting = Stage::Waiting { not_before: Duration::ZERO };
            self.containers.iter_mut().for_each(|container| container.stage = waiting);
        }
        if self.is_ending {
            self.end(now, &mut actions);
        } else if !self.is_losing_sandbox {
            self.start(now, &mut actions);
        }
        actions
    }

    /// When something is due, if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        let due = |container: &Container| match container.stage {
            // What is not its turn yet is woken by what it waits for.
            Stage::Waiting { not_before } => (not_before > Duration::ZERO && !self.is_ending).then_some(not_before),
            Stage::Running { probe_at, .. } => probe_at,
            Stage::Hook { since, budget } | Stage::Turn { since, budget } => Some(since + seconds(budget)),
            Stage::Terminating { kill_at } => Some(kill_at),
            Stage::Killed | Stage::Over => None,
        };
        self.containers.iter().filter_map(due).min()
    }

    fn start(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for (index, container) in self.containers.iter_mut().enumerate() {
            if let Stage::Waiting { not_before } = container.stage
                && now >= not_before
            {
                let probe_at = container.spec.has_startup_probe.then_some(now + PROBE_PERIOD);
                container.stage = Stage::Running { is_started: probe_at.is_none(), probe_at };
                actions.push(Action::Start(index));
            }
            if let Stage::Running { is_started, probe_at: Some(at) } = container.stage
                && now >= at
            {
                container.stage = Stage::Running { is_started, probe_at: None };
                actions.push(Action::Probe(index));
            }
            let lets_others_start = match container.spec.kind {
                Kind::Init => container.stage == Stage::Over,
                Kind::Sidecar => {
                    self.is_initialized || matches!(container.stage, Stage::Running { is_started: true, .. })
                }
                Kind::Main => true,
            };
            if !lets_others_start {
                return;
            }
        }
        self.is_initialized = true;
    }

    fn probed(&mut self, container: usize, ok: bool, now: Duration) {
        let stage = &mut self.containers[container].stage;
        if let Stage::Running { is_started: false, .. } = stage {
            *stage = Stage::Running { is_started: ok, probe_at: (!ok).then_some(now + PROBE_PERIOD) };
        }
    }

    fn exited(&mut self, index: usize, ok: bool, now: Duration, actions: &mut Vec<Action>) {
        let container = &mut self.containers[index];
        if std::mem::take(&mut container.has_hook_running) {
            actions.push(Action::CutHook(index));
        }
        let is_done = self.is_ending || self.is_losing_sandbox || (container.spec.kind == Kind::Init && ok);
        if is_done {
            container.stage = Stage::Over;
            return;
        }
        let doubled = container.restarts.checked_sub(1).map(|before| 1_u32.checked_shl(before).unwrap_or(u32::MAX));
        let pause = doubled.map_or(Duration::ZERO, |times| self.backoff.saturating_mul(times));
        container.restarts += 1;
        container.stage = Stage::Waiting { not_before: now + pause.min(Duration::from_secs(300)) };
    }

    fn delete(&mut self, grace_seconds: Option<u64>, now: Duration, actions: &mut Vec<Action>) {
        if self.is_ending {
            return;
        }
        self.is_ending = true;
        self.is_losing_sandbox = false;
        let budget = grace_seconds.unwrap_or(self.grace_seconds);
        for (index, container) in self.containers.iter_mut().enumerate() {
            container.stage = match container.stage {
                Stage::Waiting { .. } | Stage::Over => Stage::Over,
                // Its sandbox was lost a moment ago.
                Stage::Killed => Stage::Killed,
                _ if container.spec.has_hook && budget > 0 => {
                    container.has_hook_running = true;
                    actions.push(Action::Hook(index));
                    Stage::Hook { since: now, budget }
                }
                _ => Stage::Turn { since: now, budget },
            };
        }
    }

    fn hook_ended(&mut self, index: usize, now: Duration) {
        let container = &mut self.containers[index];
        container.has_hook_running = false;
        if let Stage::Hook { since, budget } = container.stage {
            container.stage = Stage::Turn { since: now, budget: left(budget, since, now) };
        }
    }

    /// One step of the end: whatever is due.
    fn end(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for index in 0..self.containers.len() {
            if let Stage::Hook { since, budget } = self.containers[index].stage
                && now >= since + seconds(budget)
            {
                // It goes on, and dies with its container.
                self.containers[index].stage = Stage::Turn { since: now, budget: left(budget, since, now) };
            }
            if let Stage::Turn { since, budget } = self.containers[index].stage
                && (self.has_its_turn(index) || now >= since + seconds(budget))
            {
                let budget = left(budget, since, now).max(FLOOR_SECONDS);
                self.containers[index].stage = Stage::Terminating { kill_at: now + seconds(budget) };
                actions.push(Action::Terminate(index));
            }
            if let Stage::Terminating { kill_at } = self.containers[index].stage
                && now >= kill_at
            {
                self.containers[index].stage = Stage::Killed;
                actions.push(Action::Kill(index));
            }
        }
        if !self.is_gone && self.containers.iter().all(|container| container.stage == Stage::Over) {
            self.is_gone = true;
            actions.push(Action::Gone);
        }
    }

    /// Whether nobody has to go before this one.
    fn has_its_turn(&self, index: usize) -> bool {
        let goes_before = |other: usize, kind: Kind| kind == Kind::Main || (kind == Kind::Sidecar && other > index);
        let mut others = self.containers.iter().enumerate();
        self.containers[index].spec.kind != Kind::Sidecar
            || others.all(|(other, it)| !goes_before(other, it.spec.kind) || it.stage == Stage::Over)
    }

    fn kill_everything(&mut self, actions: &mut Vec<Action>) {
        for (index, container) in self.containers.iter_mut().enumerate() {
            if std::mem::take(&mut container.has_hook_running) {
                actions.push(Action::CutHook(index));
            }
            if container.stage.is_alive() {
                container.stage = Stage::Killed;
                actions.push(Action::Kill(index));
            } else {
                container.stage = Stage::Over;
            }
        }
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What is left of a budget: whole seconds are taken.
fn left(budget: u64, since: Duration, now: Duration) -> u64 {
    budget.saturating_sub((now - since).as_secs())
}
