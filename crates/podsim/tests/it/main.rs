//! The shell around the kubelet, with small programs: what the scenarios rely on.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use podsim::kubelet::{ContainerSpec, Event, Kind};
use podsim::pod::{Blow, Container, Pod, PodPlan, Program, Role};

/// Longer than anything takes, also on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(60);

fn container(role: Role, kind: Kind, script: &str, hook: Option<&str>) -> Container {
    let program = |script: &str| Program {
        path: "/bin/sh".into(),
        name: "sh".into(),
        words: vec!["-c".into(), script.into()],
        variables: vec![("PATH".into(), "/usr/bin:/bin".into())],
    };
    Container {
        role,
        spec: ContainerSpec { kind, has_hook: hook.is_some(), has_startup_probe: false },
        program: program(script),
        hook: hook.map(program),
        probe: None,
    }
}

fn pod(folder: &Path, containers: Vec<Container>) -> Pod {
    let plan = PodPlan {
        name: "pod".into(),
        folder: folder.to_owned(),
        containers,
        grace_seconds: 20,
        backoff: Duration::from_millis(10),
        control: None,
    };
    Pod::start(plan).expect("a pod")
}

/// Waits for a condition.
#[track_caller]
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn lines(file: &Path) -> usize {
    fs::read_to_string(file).unwrap_or_default().lines().count()
}

/// Writes a line every moment; in a process that its parent has started, as an app has.
fn ticking(file: &Path) -> String {
    format!("(while :; do echo tick >> {}; sleep 0.02; done) & wait", file.display())
}

#[test]
fn an_app_that_does_not_hear_sigterm_is_killed_with_what_it_has_started_when_its_time_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ticks");
    let app = container(Role::App, Kind::Main, &format!("trap '' TERM; {}", ticking(&file)), None);
    let pod = pod(folder.path(), vec![container(Role::Restore, Kind::Init, "exit 0", None), app]);
    wait_for("it ticks", || lines(&file) > 0);
    let began = Instant::now();
    pod.strike(Blow::Event(Event::Delete { grace_seconds: Some(1) }));
    assert!(pod.wait(LIMIT, |record| record.gone.is_some()));
    assert!(began.elapsed() >= Duration::from_secs(2), "the kubelet leaves two seconds");
    assert!(pod.record().first_kill.is_some());
    let ticks = lines(&file);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lines(&file), ticks, "nothing of it is left");
}

#[test]
fn a_native_sidecar_hears_sigterm_after_the_app_has_gone_and_its_hook_runs_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("said");
    let say = |what: &str| format!("echo {what} >> {}", file.display());
    let until_term = |what: &str| {
        format!("trap '{}; exit 0' TERM; {}; while :; do sleep 0.02; done", say(&format!("{what}-end")), say(what))
    };
    let hook = say("hook");
    let pod = pod(
        folder.path(),
        vec![
            container(Role::Restore, Kind::Init, &say("restore"), None),
            container(Role::Sync, Kind::Sidecar, &until_term("sync"), Some(&hook)),
            container(Role::App, Kind::Main, &until_term("app"), None),
        ],
    );
    wait_for("all are there", || lines(&file) == 3);
    pod.delete();
    assert!(pod.wait(LIMIT, |record| record.gone.is_some()));
    let said = fs::read_to_string(&file).expect("reads");
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said[0], "restore");
    assert_eq!(said.last(), Some(&"sync-end"), "{said:?}");
    assert!(said.contains(&"hook") && said.contains(&"app-end"), "{said:?}");
    assert_eq!(pod.record().first_kill, None);
}

#[test]
fn a_node_that_stands_still_does_nothing_until_it_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ticks");
    let pod = pod(folder.path(), vec![container(Role::App, Kind::Main, &ticking(&file), None)]);
    wait_for("it ticks", || lines(&file) > 0);
    pod.strike(Blow::Freeze);
    pod.delete();
    let mut ticks = 0;
    wait_for("it stands still", || {
        let before = std::mem::replace(&mut ticks, lines(&file));
        std::thread::sleep(Duration::from_millis(200));
        before == ticks
    });
    assert!(pod.record().gone.is_none(), "the kubelet stands still, too");
    pod.strike(Blow::Thaw);
    assert!(pod.wait(LIMIT, |record| record.gone.is_some()), "it was deleted meanwhile");
}

#[test]
fn a_restore_that_is_killed_is_run_again_and_the_app_waits_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("begun");
    // The second time it ends by itself.
    let script = format!("echo begun >> {0}; [ $(wc -l < {0}) -gt 1 ] || sleep 60", file.display());
    let app = container(Role::App, Kind::Main, "sleep 60", None);
    let pod = pod(folder.path(), vec![container(Role::Restore, Kind::Init, &script, None), app]);
    wait_for("it has begun", || lines(&file) == 1);
    assert!(pod.record().app_starts.is_empty());
    pod.strike(Blow::Kill(Role::Restore));
    assert!(pod.wait(LIMIT, |record| !record.app_starts.is_empty()));
    assert_eq!((lines(&file), pod.record().restored.len()), (2, 1));
}

#[test]
fn a_campaign_that_is_told_to_end_takes_its_pods_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (restore, started) = (folder.path().join("restore"), folder.path().join("started"));
    // A restore that never ends.
    let script = format!("#!/bin/sh\necho $$ >{0}.new && mv {0}.new {0} && exec sleep 1000\n", started.display());
    fs::write(&restore, script).expect("written");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&restore, executable).expect("set");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_podsim"));
    command.args(["campaign", "--runs=1", "--scenario=rollout", "--folder"]).arg(folder.path());
    let mut campaign = command.arg("--ghostsync-k8s").arg(&restore).spawn().expect("starts");
    wait_for("the restore is started", || started.is_file());
    let process = fs::read_to_string(&started).expect("reads");
    let process = Path::new("/proc").join(process.trim());
    assert!(process.is_dir());
    let pid = i32::try_from(campaign.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("is there");
    assert_eq!(campaign.wait().expect("ends").code(), Some(130));
    wait_for("the restore has gone", || !process.is_dir());
}
