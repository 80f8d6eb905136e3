//! The set-ups that are compared: which containers a pod has, and what runs in them. Flags and hooks are those of the
//! manifests in `deploy/`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::kubelet::{ContainerSpec, Kind};
use crate::pod::{Container, Control, PodPlan, Program, Role};
use crate::store::Store;

/// How content and pod are kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Setup {
    /// `ghostsync-k8s` as a native sidecar
    Native,
    /// As a classic sidecar that sees the app's process: `shareProcessNamespace`
    Shared,
    /// As a classic sidecar that sees the app's port alone
    Classic,
    /// `rclone copy` in an init container, a loop of `rclone sync`, and one more in preStop
    Rclone,
}

impl Setup {
    /// For tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Shared => "classic, shared processes",
            Self::Classic => "classic, port alone",
            Self::Rclone => "rclone",
        }
    }
}

/// Programs and settings that all pods have in common.
#[derive(Debug, Clone)]
pub struct Programs {
    /// This program: it is the app, too.
    pub podsim: PathBuf,
    /// `ghostsync-k8s`.
    pub ghostsync: PathBuf,
    /// `rclone`.
    pub rclone: PathBuf,
    /// `sync --min-wait` and `--max-wait` alike, so that the wait is fixed; the defaults of `ghostsync-k8s` if there is none.
    pub max_wait: Option<String>,
    /// Between two runs of `rclone sync`.
    pub rclone_seconds: u64,
    /// How long the store is away; 3 to 12 s if nothing is said.
    pub outage_seconds: Option<u64>,
}

/// What one pod is like.
#[derive(Debug, Clone)]
pub struct PodSettings {
    /// Its name, and its folder in the volume.
    pub name: String,
    /// Its own address.
    pub ip: IpAddr,
    /// Its folder on this machine.
    pub folder: PathBuf,
    /// `terminationGracePeriodSeconds`.
    pub grace_seconds: u64,
    /// `restore --wait-predecessor`.
    pub wait_predecessor: Duration,
    /// `restore --limit-download`, in bytes per second.
    pub limit_download: Option<u64>,
    /// The flags of the app's pace.
    pub app: Vec<String>,
    /// What is done wrong.
    pub control: Option<Control>,
}

/// The pod of a set-up.
#[must_use]
pub fn plan(setup: Setup, programs: &Programs, store: &Store, pod: &PodSettings) -> PodPlan {
    let containers = match setup {
        Setup::Native => vec![
            restore(programs, store, pod),
            Container {
                spec: ContainerSpec { kind: Kind::Sidecar, has_hook: true, has_startup_probe: true },
                probe: Some(SocketAddr::new(pod.ip, 9108)),
                ..sync(programs, store, pod, &["ctl", "terminating"])
            },
            app(programs, pod),
        ],
        Setup::Shared | Setup::Classic => {
            // What is not in the same namespace has no name here.
            let process = if setup == Setup::Shared { app_name(pod) } else { format!("unseen-{}", app_name(pod)) };
            let (process, port) = (format!("--wait-app=process:{process}"), format!("--wait-app=tcp:{}:2368", pod.ip));
            let deadline = format!("--deadline={}s", pod.grace_seconds.saturating_sub(20).max(pod.grace_seconds / 2));
            let hook = ["ctl", "final-sync", &process, &port, "--quiet=3s", &deadline];
            vec![restore(programs, store, pod), app(programs, pod), sync(programs, store, pod, &hook)]
        }
        Setup::Rclone => rclone(programs, store, pod),
    };
    PodPlan {
        name: pod.name.clone(),
        folder: pod.folder.clone(),
        containers,
        grace_seconds: pod.grace_seconds,
        backoff: Duration::from_secs(1),
        control: pod.control,
    }
}

fn spec(kind: Kind) -> ContainerSpec {
    ContainerSpec { kind, has_hook: false, has_startup_probe: false }
}

/// The app's name in the list of processes: no other pod on this machine has it.
fn app_name(pod: &PodSettings) -> String {
    format!("app-{}", pod.ip)
}

fn app(programs: &Programs, pod: &PodSettings) -> Container {
    let folder = |name: &str| pod.folder.join(name).display().to_string();
    let listen = SocketAddr::new(pod.ip, 2368).to_string();
    let words =
        ["app", "--dir", &folder("data"), "--name", &pod.name, "--journal", &folder("journal"), "--listen", &listen];
    let words = words.iter().map(|word| (*word).to_owned()).chain(pod.app.iter().cloned()).collect();
    let program = Program { path: programs.podsim.clone(), name: app_name(pod), words, variables: Vec::new() };
    Container { role: Role::App, spec: spec(Kind::Main), program, hook: None, probe: None }
}

fn ghostsync(programs: &Programs, store: &Store, pod: &PodSettings, words: &[&str]) -> Program {
    let folder = |name: &str| pod.folder.join(name).display().to_string();
    let own = [
        ("GHOSTSYNC_REPO", store.url.clone()),
        ("GHOSTSYNC_PATH", folder("data")),
        ("GHOSTSYNC_STATE_DIR", folder("run")),
        ("GHOSTSYNC_OWNER", pod.name.clone()),
        ("GHOSTSYNC_GRACE_PERIOD", format!("{}s", pod.grace_seconds)),
        ("GHOSTSYNC_TERMINATION_LOG", folder("termination-log")),
    ];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    Program {
        path: programs.ghostsync.clone(),
        name: "ghostsync-k8s".to_owned(),
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        variables: own.chain(store.variables.iter().cloned()).collect(),
    }
}

fn restore(programs: &Programs, store: &Store, pod: &PodSettings) -> Container {
    let wait = format!("--wait-predecessor={}ms", pod.wait_predecessor.as_millis());
    let genesis = format!("--genesis={}", store.repository);
    let limit = pod.limit_download.map(|limit| format!("--limit-download={limit}"));
    let words: Vec<&str> = ["restore", &wait, &genesis].into_iter().chain(limit.as_deref()).collect();
    let mut program = ghostsync(programs, store, pod, &words);
    if pod.control == Some(Control::MirrorDown) {
        program = wiping_first(program, pod);
    }
    Container { role: Role::Restore, spec: spec(Kind::Init), program, hook: None, probe: None }
}

/// The negative control: what lies in the volume is nothing to it.
fn wiping_first(program: Program, pod: &PodSettings) -> Program {
    let script = r#"cd "$0" && rm -rf data/* run/receipt.json && exec "$@""#;
    let words = ["-c".to_owned(), script.to_owned(), pod.folder.display().to_string()];
    let rest = [program.path.display().to_string()].into_iter().chain(program.words);
    let path = ("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    Program {
        path: "/bin/sh".into(),
        name: "sh".to_owned(),
        words: words.into_iter().chain(rest).collect(),
        variables: program.variables.into_iter().chain([path]).collect(),
    }
}

fn sync(programs: &Programs, store: &Store, pod: &PodSettings, hook: &[&str]) -> Container {
    let listen = format!("--listen={}:9108", pod.ip);
    let wait = programs.max_wait.as_ref().map(|wait| [format!("--min-wait={wait}"), format!("--max-wait={wait}")]);
    let words = ["sync", "--interval=30s", &listen].into_iter();
    let words: Vec<&str> = words.chain(wait.iter().flatten().map(String::as_str)).collect();
    Container {
        role: Role::Sync,
        spec: ContainerSpec { kind: Kind::Main, has_hook: true, has_startup_probe: false },
        program: ghostsync(programs, store, pod, &words),
        hook: Some(ghostsync(programs, store, pod, hook)),
        probe: None,
    }
}

fn rclone(programs: &Programs, store: &Store, pod: &PodSettings) -> Vec<Container> {
    let data = pod.folder.join("data").display().to_string();
    let program = programs.rclone.display().to_string();
    let run = |path: &str, words: &[&str]| Program {
        path: path.into(),
        name: path.rsplit('/').next().unwrap_or(path).to_owned(),
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        variables: store.rclone_variables().into_iter().chain([("PATH".into(), "/usr/bin:/bin".into())]).collect(),
    };
    let remote = store.remote.clone();
    let up = ["sync", data.as_str(), remote.as_str()];
    let seconds = programs.rclone_seconds;
    let lines = r#"trap 'exit 0' TERM; while :; do sleep "$0" & wait $!; "$@"; done"#;
    let seconds = seconds.to_string();
    let follow = [&["-c", lines, &seconds, program.as_str()], up.as_slice()].concat();
    vec![
        Container {
            role: Role::Restore,
            spec: spec(Kind::Init),
            program: run(&program, &["copy", &remote, &data]),
            hook: None,
            probe: None,
        },
        app(programs, pod),
        Container {
            role: Role::Sync,
            spec: ContainerSpec { kind: Kind::Main, has_hook: true, has_startup_probe: false },
            program: run("/bin/sh", &follow),
            hook: Some(run(&program, &up)),
            probe: None,
        },
    ]
}
