use super::*;
use proptest::prelude::*;

const RESTORE: usize = 0;
const SYNC: usize = 1;
const APP: usize = 2;

fn container(kind: Kind, has_hook: bool, has_startup_probe: bool) -> ContainerSpec {
    ContainerSpec { kind, has_hook, has_startup_probe }
}

fn native() -> PodSpec {
    let containers = vec![
        container(Kind::Init, false, false),
        container(Kind::Sidecar, true, true),
        container(Kind::Main, false, false),
    ];
    PodSpec { containers, grace_seconds: 30, backoff: Duration::from_secs(10) }
}

fn classic() -> PodSpec {
    let containers = vec![
        container(Kind::Init, false, false),
        container(Kind::Main, true, false),
        container(Kind::Main, false, false),
    ];
    PodSpec { containers, grace_seconds: 30, backoff: Duration::from_secs(10) }
}

struct Node(Kubelet);

impl Node {
    fn new(spec: &PodSpec) -> Self {
        Self(Kubelet::new(spec))
    }

    /// A pod whose app runs, after two seconds.
    fn running(spec: &PodSpec) -> Self {
        let mut node = Self::new(spec);
        node.at(0.0, Event::Begin);
        node.at(1.0, Event::Exited { container: RESTORE, ok: true });
        node.at(2.0, Event::Tick);
        node.at(2.0, Event::Probed { container: SYNC, ok: true });
        node
    }

    fn at(&mut self, seconds: f64, event: Event) -> Vec<Action> {
        self.0.on(event, Duration::from_secs_f64(seconds))
    }

    /// What is done next if nothing happens.
    fn next(&mut self) -> (f64, Vec<Action>) {
        let at = self.0.wake_at().expect("something is due");
        (at.as_secs_f64(), self.0.on(Event::Tick, at))
    }
}

fn exited(container: usize) -> Event {
    Event::Exited { container, ok: false }
}

const DELETE: Event = Event::Delete { grace_seconds: None };
const EVICT: Event = Event::Delete { grace_seconds: Some(1) };

#[test]
fn init_containers_and_sidecars_are_started_in_order_and_the_startup_probe_gates_the_app() {
    let mut node = Node::new(&native());
    assert_eq!(node.at(0.0, Event::Begin), [Action::Start(RESTORE)]);
    assert_eq!(node.at(5.0, Event::Tick), []);
    assert_eq!(node.at(7.0, Event::Exited { container: RESTORE, ok: true }), [Action::Start(SYNC)]);
    assert_eq!(node.next(), (8.0, vec![Action::Probe(SYNC)]));
    assert_eq!(node.at(8.1, Event::Probed { container: SYNC, ok: false }), []);
    assert_eq!(node.next(), (9.1, vec![Action::Probe(SYNC)]));
    assert_eq!(node.at(9.2, Event::Probed { container: SYNC, ok: true }), [Action::Start(APP)]);
    assert_eq!(node.0.wake_at(), None);
}

#[test]
fn an_init_container_that_fails_is_run_again_ever_more_rarely_and_nothing_else_is_started() {
    let mut node = Node::new(&native());
    node.at(0.0, Event::Begin);
    assert_eq!(node.at(3.0, exited(RESTORE)), [Action::Start(RESTORE)], "at once, the first time");
    assert_eq!(node.at(4.0, exited(RESTORE)), []);
    assert_eq!(node.next(), (14.0, vec![Action::Start(RESTORE)]));
    assert_eq!(node.at(15.0, exited(RESTORE)), []);
    assert_eq!(node.next(), (35.0, vec![Action::Start(RESTORE)]));
}

#[test]
fn a_sidecar_that_dies_alone_is_started_again_and_nothing_happens_to_the_app() {
    let mut node = Node::running(&native());
    assert_eq!(node.at(10.0, exited(SYNC)), [Action::Start(SYNC)]);
    assert_eq!(node.next(), (11.0, vec![Action::Probe(SYNC)]));
    assert_eq!(node.at(11.0, Event::Probed { container: SYNC, ok: true }), []);
    assert_eq!(node.at(20.0, exited(APP)), [Action::Start(APP)], "whatever the sidecar does");
}

#[test]
fn a_native_sidecar_gets_sigterm_when_the_app_has_gone_and_what_remains_of_the_time() {
    let mut node = Node::running(&native());
    assert_eq!(node.at(100.0, DELETE), [Action::Hook(SYNC), Action::Terminate(APP)]);
    assert_eq!(node.at(100.2, Event::HookEnded(SYNC)), []);
    assert_eq!(node.at(112.7, exited(APP)), [Action::Terminate(SYNC)]);
    assert_eq!(node.next(), (112.7 + 18.0, vec![Action::Kill(SYNC)]), "30 - 12, counted in whole seconds");
    assert_eq!(node.at(131.0, exited(SYNC)), [Action::Gone]);
}

#[test]
fn an_app_that_outlasts_the_grace_period_leaves_a_native_sidecar_two_seconds() {
    let mut node = Node::running(&native());
    node.at(100.0, DELETE);
    node.at(100.0, Event::HookEnded(SYNC));
    assert_eq!(node.next(), (130.0, vec![Action::Terminate(SYNC), Action::Kill(APP)]));
    assert_eq!(node.at(130.1, exited(APP)), []);
    assert_eq!(node.next(), (132.0, vec![Action::Kill(SYNC)]));
}

#[test]
fn a_classic_sidecar_gets_sigterm_after_its_own_hook_and_the_app_does_not_wait_for_that() {
    let mut node = Node::running(&classic());
    assert_eq!(node.at(100.0, DELETE), [Action::Hook(SYNC), Action::Terminate(APP)]);
    assert_eq!(node.at(105.9, Event::HookEnded(SYNC)), [Action::Terminate(SYNC)], "whether or not the app has gone");
    assert_eq!(node.at(106.0, exited(APP)), []);
    assert_eq!(node.next(), (130.9, vec![Action::Kill(SYNC)]), "five whole seconds were taken from thirty");
}

#[test]
fn a_hook_that_never_ends_uses_up_the_grace_period_and_dies_with_its_container() {
    let mut node = Node::running(&classic());
    node.at(100.0, DELETE);
    node.at(101.0, exited(APP));
    assert_eq!(node.next(), (130.0, vec![Action::Terminate(SYNC)]));
    assert_eq!(node.next(), (132.0, vec![Action::Kill(SYNC)]));
    assert_eq!(node.at(132.1, exited(SYNC)), [Action::CutHook(SYNC), Action::Gone]);
}

#[test]
fn an_eviction_gives_the_app_two_seconds_and_the_sidecar_sigterm_after_one() {
    let mut node = Node::running(&native());
    assert_eq!(node.at(100.0, EVICT), [Action::Hook(SYNC), Action::Terminate(APP)]);
    assert_eq!(node.at(100.1, Event::HookEnded(SYNC)), []);
    assert_eq!(node.next(), (101.1, vec![Action::Terminate(SYNC)]), "while the app is still there");
    assert_eq!(node.next(), (102.0, vec![Action::Kill(APP)]));
    node.at(102.0, exited(APP));
    assert_eq!(node.next(), (103.1, vec![Action::Kill(SYNC)]));
}

#[test]
fn a_pod_that_is_deleted_while_it_is_restored_starts_nothing_any_more() {
    let mut node = Node::new(&native());
    node.at(0.0, Event::Begin);
    assert_eq!(node.at(3.0, DELETE), [Action::Terminate(RESTORE)]);
    assert_eq!(node.at(4.0, Event::Exited { container: RESTORE, ok: true }), [Action::Gone]);
    assert_eq!(node.0.wake_at(), None);
}

#[test]
fn after_the_loss_of_the_sandbox_everything_begins_again_when_everything_is_dead() {
    let mut node = Node::running(&native());
    assert_eq!(node.at(50.0, Event::SandboxLost), [Action::Kill(SYNC), Action::Kill(APP)]);
    assert_eq!(node.at(50.1, exited(APP)), []);
    assert_eq!(node.at(50.2, exited(SYNC)), [Action::Start(RESTORE)]);
    assert_eq!(node.at(51.0, Event::Exited { container: RESTORE, ok: true }), [Action::Start(SYNC)]);
    assert_eq!(node.next(), (52.0, vec![Action::Probe(SYNC)]));
    assert_eq!(node.at(52.0, Event::Probed { container: SYNC, ok: true }), [Action::Start(APP)]);
}

#[test]
fn a_pod_that_is_deleted_while_its_sandbox_is_lost_is_not_begun_again() {
    let mut node = Node::running(&native());
    node.at(50.0, Event::SandboxLost);
    assert_eq!(node.at(50.1, DELETE), [], "everything is being killed already");
    node.at(50.2, exited(APP));
    assert_eq!(node.at(50.2, exited(SYNC)), [Action::Gone]);
}

#[test]
fn a_node_without_power_takes_everything_with_it_hooks_too() {
    let mut node = Node::running(&classic());
    node.at(100.0, DELETE);
    assert_eq!(node.at(100.5, Event::PowerLost), [Action::CutHook(SYNC), Action::Kill(SYNC), Action::Kill(APP)]);
    assert_eq!(node.at(100.6, exited(SYNC)), []);
    assert_eq!(node.at(100.6, exited(APP)), [Action::Gone]);
}

proptest! {
    /// Whatever happens: no container is started twice at once, the app is never started before the restore has ended
    /// well and the sidecar is started, a deleted pod starts nothing, and is gone within its time.
    #[test]
    fn whatever_happens_the_app_is_gated_and_the_end_comes_in_time(
        is_native in any::<bool>(),
        steps in prop::collection::vec((0_u64..3000, 0_u8..12, 0_usize..3), 1..80),
    ) {
        let spec = if is_native { native() } else { classic() };
        let mut kubelet = Kubelet::new(&spec);
        let mut alive = [false; 3];
        let (mut restored, mut probed, mut deleted, mut gone) = (false, !is_native, None, false);
        let mut now = Duration::ZERO;
        let mut take = |kubelet: &mut Kubelet, event: Event, now: Duration, alive: &mut [bool; 3], deleted: Option<Duration>| {
            if let Event::Exited { container, ok } = event {
                alive[container] = false;
                restored |= container == RESTORE && ok;
            }
            if let Event::SandboxLost = event { (restored, probed) = (false, !is_native) }
            if let Event::Probed { ok, .. } = event { probed |= ok && alive[SYNC] }
            for action in kubelet.on(event, now) {
                match action {
                    Action::Start(container) => {
                        prop_assert!(!alive[container] && deleted.is_none());
                        prop_assert!(container == RESTORE || restored);
                        prop_assert!(container != APP || probed);
                        alive[container] = true;
                    }
                    Action::Kill(container) | Action::Terminate(container) | Action::Probe(container) => {
                        prop_assert!(alive[container]);
                    }
                    Action::Gone => { prop_assert!(!gone && alive.iter().all(|alive| !alive)); gone = true }
                    Action::Hook(_) | Action::CutHook(_) => {}
                }
            }
            Ok(())
        };
        take(&mut kubelet, Event::Begin, now, &mut alive, None)?;
        for (milliseconds, kind, container) in steps {
            now += Duration::from_millis(milliseconds);
            let event = match kind {
                0..=4 if alive[container] => Event::Exited { container, ok: kind % 2 == 0 },
                5 => Event::HookEnded(SYNC),
                6 | 7 if alive[SYNC] => Event::Probed { container: SYNC, ok: kind == 7 },
                8 if milliseconds < 500 => Event::Delete { grace_seconds: None },
                9 if milliseconds < 500 && deleted.is_none() => Event::SandboxLost,
                _ => Event::Tick,
            };
            if let Event::Delete { .. } = event { deleted.get_or_insert(now); }
            take(&mut kubelet, event, now, &mut alive, deleted)?;
        }
        if let Some(deleted) = deleted {
            // Nobody goes by himself: the kubelet kills.
            for _ in 0..20 {
                let Some(at) = kubelet.wake_at() else { break };
                now = now.max(at);
                take(&mut kubelet, Event::Tick, now, &mut alive, Some(deleted))?;
                prop_assert!(now <= deleted.max(now) + Duration::from_secs(60));
            }
            for container in 0..3 {
                if alive[container] { take(&mut kubelet, Event::Exited { container, ok: false }, now, &mut alive, Some(deleted))?; }
            }
            prop_assert!(kubelet.is_gone);
        }
    }
}
