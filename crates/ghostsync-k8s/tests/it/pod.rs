//! A pod without Kubernetes: its directory, its state folder, and its containers as processes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::id::RepositoryId;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, Selector, State};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::{StoreSettings, open_url};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than anything takes, also on a machine that is busy with something else.
const LIMIT: Duration = Duration::from_secs(60);

/// The flags of a sidecar that sees no reason to save anything before it is asked or ended.
pub(crate) const DROWSY: [&str; 3] = ["--quiet=1h", "--max-wait=1h", "--interval=1h"];

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait_at_most(LIMIT, what, condition);
}

#[track_caller]
pub(crate) fn wait_at_most(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A repository in a folder, and pods that work with it.
pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) id: RepositoryId,
    runtime: tokio::runtime::Runtime,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::within(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder"))
    }

    fn within(folder: tempfile::TempDir) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let url = folder.path().join("repository").display().to_string();
        let store = open_url(&url, &StoreSettings::default(), true).expect("a store");
        let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
        let made = runtime.block_on(Repository::create(store, create, OpenOptions::default())).expect("a repository");
        Self { folder, id: made.id(), runtime }
    }

    /// One whose repository `ghostsync init` makes, on a disk: what is written there takes its time.
    pub(crate) fn made_by(ghostsync: &Path) -> Self {
        let mut cluster = Self::within(tempfile::tempdir().expect("a folder"));
        fs::remove_dir_all(cluster.repository_folder()).expect("removed");
        let mut init = Command::new(ghostsync);
        init.env_clear().arg("--repo").arg(cluster.repository_folder()).arg("init");
        let output = init.output().expect("ghostsync: build it first");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        cluster.id = cluster.with(async |repository| repository.id());
        cluster
    }

    /// One with a snapshot of these files, made by a pod that has ended well.
    pub(crate) fn with_files(files: &[(&str, &str)]) -> Self {
        let cluster = Self::new();
        let first = cluster.pod("first");
        assert_eq!(first.restore().code, Some(0));
        files.iter().for_each(|(name, content)| first.write(name, content));
        assert_eq!(first.sync().terminate().code, Some(0));
        cluster
    }

    pub(crate) fn pod(&self, owner: &str) -> Pod<'_> {
        let folder = self.folder.path().join(owner);
        let pod = Pod { cluster: self, owner: owner.into(), data: folder.join("data"), state_dir: folder.join("run") };
        fs::create_dir_all(&pod.state_dir).expect("a folder");
        fs::create_dir_all(&pod.data).expect("a folder");
        fs::write(pod.last_words_file(), "").expect("written");
        pod
    }

    pub(crate) fn repository_folder(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// Lets something be done with the repository.
    pub(crate) fn with<T>(&self, work: impl AsyncFnOnce(Repository) -> T) -> T {
        let url = self.repository_folder().display().to_string();
        self.runtime.block_on(async {
            let store = open_url(&url, &StoreSettings::default(), false).expect("a store");
            work(Repository::open(store, OpenOptions::default()).await.expect("a repository")).await
        })
    }

    pub(crate) fn state(&self) -> State {
        self.with(async |repository| repository.state().await.expect("a state"))
    }

    pub(crate) fn head(&self) -> Snapshot {
        self.state().commit.head("main").expect("a head").clone()
    }

    pub(crate) fn is_released(&self) -> bool {
        self.state().commit.branches["main"].holder.as_ref().expect("a holder").released
    }

    /// The newest snapshots of branches that begin so.
    pub(crate) fn snapshots_aside(&self, begin: &str) -> Vec<Snapshot> {
        let state = self.state();
        state.commit.snapshots.iter().filter(|snapshot| snapshot.branch.starts_with(begin)).cloned().collect()
    }

    /// A snapshot, restored into a folder that the next one replaces.
    pub(crate) fn restored(&self, snapshot: &Snapshot) -> PathBuf {
        let back = self.folder.path().join("back");
        drop(fs::remove_dir_all(&back));
        let snapshot = Selector::Id(snapshot.id.to_string());
        let options = RestoreOptions { snapshot, ..RestoreOptions::default() };
        self.with(async |repository| restore(&repository, &back, options, Arc::new(NoObserver)).await)
            .map(drop)
            .expect("a restore");
        back
    }

    /// The files of a snapshot.
    pub(crate) fn files_of(&self, snapshot: &Snapshot) -> BTreeMap<String, String> {
        files_in(&self.restored(snapshot))
    }

    pub(crate) fn head_files(&self) -> BTreeMap<String, String> {
        self.files_of(&self.head())
    }
}

/// The files directly in a folder.
pub(crate) fn files_in(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let entries = entries.map(|entry| entry.expect("an entry")).filter(|entry| entry.path().is_file());
    let read = |path: PathBuf| String::from_utf8_lossy(&fs::read(path).expect("a file")).into_owned();
    entries.map(|entry| (entry.file_name().into_string().expect("a name"), read(entry.path()))).collect()
}

pub(crate) fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

/// A pod.
pub(crate) struct Pod<'a> {
    cluster: &'a Cluster,
    pub(crate) owner: String,
    pub(crate) data: PathBuf,
    pub(crate) state_dir: PathBuf,
}

/// How a container has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    /// Its log.
    pub(crate) log: String,
}

impl Pod<'_> {
    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.data.join(name), content).expect("written");
    }

    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        files_in(&self.data)
    }

    pub(crate) fn receipt(&self) -> PathBuf {
        self.state_dir.join("receipt.json")
    }

    pub(crate) fn last_words_file(&self) -> PathBuf {
        self.data.with_file_name("termination-log")
    }

    pub(crate) fn last_words(&self) -> String {
        fs::read_to_string(self.last_words_file()).expect("the termination message")
    }

    /// The program with this pod's environment.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_ghostsync-k8s")), words)
    }

    /// The same for another user: what is compiled may lie where he does not get to.
    pub(crate) fn command_of_another(&self, uid: u32, words: &[&str]) -> Command {
        let program = self.cluster.folder.path().join("program");
        // By a process of its own: one that is started here meanwhile would hold the file open for writing.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_ghostsync-k8s")).arg(&program).status();
        assert!(copied.expect("cp runs").success());
        let mut command = self.command_of(&program, words);
        command.uid(uid).gid(uid);
        command
    }

    fn command_of(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        let variables = [
            ("GHOSTSYNC_REPO", self.cluster.repository_folder()),
            ("GHOSTSYNC_PATH", self.data.clone()),
            ("GHOSTSYNC_STATE_DIR", self.state_dir.clone()),
            ("GHOSTSYNC_OWNER", PathBuf::from(&self.owner)),
            ("GHOSTSYNC_GRACE_PERIOD", "20s".into()),
            ("GHOSTSYNC_RETRY_TIME", "1s".into()),
            ("GHOSTSYNC_TERMINATION_LOG", self.last_words_file()),
            ("GHOSTSYNC_PORT", "tcp://10.0.0.1:9108".into()),
        ];
        command.env_clear().envs(variables).args(words).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        let output = self.command(words).output().expect("runs");
        let log = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned();
        Ended { code: output.status.code(), log }
    }

    pub(crate) fn restore(&self) -> Ended {
        self.restore_with(&[])
    }

    pub(crate) fn restore_with(&self, more: &[&str]) -> Ended {
        let genesis = format!("--genesis={}", self.cluster.id);
        self.run(&[&["restore", &genesis], more].concat())
    }

    /// Restores, starts the sidecar, and waits until the app may start.
    pub(crate) fn begin_with(&self, more: &[&str]) -> Sidecar {
        assert_eq!(self.restore().code, Some(0));
        let sidecar = self.sync_with(more);
        sidecar.wait_until_started();
        sidecar
    }

    /// The same with a sidecar that sees no reason to save anything before it is asked or ended.
    pub(crate) fn begin_drowsily(&self) -> Sidecar {
        self.begin_with(&DROWSY)
    }

    /// Starts the sidecar, and waits until it serves.
    pub(crate) fn sync(&self) -> Sidecar {
        self.sync_with(&[])
    }

    pub(crate) fn sync_with(&self, more: &[&str]) -> Sidecar {
        Sidecar::start(&mut self.sync_command(more))
    }

    /// The sidecar where the system gives so much of something (a file of `/proc/sys/user`); `None` if it cannot be
    /// limited for a process alone.
    pub(crate) fn sync_limited(&self, what: &str, most: u32, more: &[&str]) -> Option<Sidecar> {
        let limit = format!("echo {most} > /proc/sys/user/{what}");
        let limited = |then: &str| [limit.as_str(), then].join(" && ");
        let mut try_it = Command::new("unshare");
        let can = try_it.args(["--user", "--map-root-user", "sh", "-c", &limited("true")]).output();
        can.ok().filter(|tried| tried.status.success())?;
        let sync = self.sync_command(more);
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", &limited(r#"exec "$0" "$@""#)]);
        command.arg(sync.get_program()).args(sync.get_args());
        let variables = sync.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(variables);
        Some(Sidecar::start(command.stdin(Stdio::null())))
    }

    fn sync_command(&self, more: &[&str]) -> Command {
        let variables = [("INTERVAL", "500ms"), ("QUIET", "100ms"), ("MAX_WAIT", "1s"), ("LISTEN", "127.0.0.1:0")];
        let mut command = self.command(&[&["sync"], more].concat());
        for (name, value) in variables {
            command.env(format!("GHOSTSYNC_{name}"), value);
        }
        command
    }
}

/// A running sidecar; killed when it is dropped.
pub(crate) struct Sidecar {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Sidecar {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (written, stderr) = (Arc::clone(&log), child.stderr.take().expect("a pipe"));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                *written.lock().expect("a log") += &format!("{line}\n");
            }
        });
        let mut sidecar = Self { child, address: String::new(), log, reader: Some(reader) };
        wait_for("the sidecar serves", || match sidecar.line("following") {
            Some(line) => {
                sidecar.address = line["listen"].as_str().expect("an address").to_owned();
                true
            }
            None => {
                let ended = sidecar.child.try_wait().expect("a child");
                assert!(ended.is_none(), "ended with {ended:?}: {}", sidecar.log());
                false
            }
        });
        sidecar
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("a log").clone()
    }

    /// The first line with this message.
    pub(crate) fn line(&self, message: &str) -> Option<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut found = lines.filter(|line| line["message"].as_str().is_some_and(|said| said.contains(message)));
        found.next()
    }

    #[track_caller]
    pub(crate) fn wait_for_line(&self, message: &str) -> Value {
        wait_for(&format!("{message:?} in {}", self.log()), || self.line(message).is_some());
        self.line(message).expect("a line")
    }

    /// Waits until it has begun and looked at everything once.
    #[track_caller]
    pub(crate) fn wait_until_started(&self) {
        wait_for("the first pass", || self.passes() > 0);
        assert_eq!(self.get("/startupz").0, 200);
    }

    /// How many passes were told.
    pub(crate) fn passes(&self) -> usize {
        self.log().lines().filter(|line| line.contains("\"cause\":")).count()
    }

    /// Asks over HTTP.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("asks");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reads");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, answer.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.get("/status").1).expect("JSON")
    }

    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get("/metrics").1;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))?;
        line.parse().ok()
    }

    /// A variable of the process as it is.
    pub(crate) fn environment(&self, name: &str) -> Option<String> {
        let variables = fs::read_to_string(format!("/proc/{}/environ", self.child.id())).expect("a process");
        variables.split('\0').find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("is there");
    }

    pub(crate) fn send_sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGTERM, and its end.
    pub(crate) fn terminate(self) -> Ended {
        self.send_sigterm();
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let mut code = None;
        wait_for("the end of the sidecar", || {
            code = self.child.try_wait().expect("a child");
            code.is_some()
        });
        self.reader.take().expect("a reader").join().expect("read to the end");
        Ended { code: code.and_then(|code| code.code()), log: self.log() }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("is there");
        self.child.wait().expect("is there");
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It has ended already, or is to end now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
