//! The library's door, `run(settings, store, shutdown)`, with stores that misbehave as no folder does.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ghostsync_cli::exit::Exit;
use ghostsync_core::Result;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, claim};
use ghostsync_core::restore::{RestoreOptions, restore};
use ghostsync_core::store::Store;
use ghostsync_core::testing::fault::{Call, Failure, Fault, FaultStore, Operation};
use ghostsync_k8s::args::{Command, SyncArgs};
use ghostsync_k8s::control::{Ask, ask};
use ghostsync_k8s::environment;
use ghostsync_k8s::pod::StoreSource;
use ghostsync_k8s::run::run;
use object_store::memory::InMemory;
use serde_json::Value;

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A pod whose branch is claimed, and whose directory was restored.
struct Bench {
    objects: Arc<InMemory>,
    repository: Repository,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let objects = Arc::new(InMemory::new());
        let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
        let store = Store::new(objects.clone(), "memory");
        let repository = Repository::create(store, create, OpenOptions::default()).await.expect("a repository");
        let folder = tempfile::tempdir().expect("a folder");
        let bench = Self { objects, repository, folder };
        claim(&bench.repository, "main", "pod", "test").await.expect("a claim");
        let options = RestoreOptions {
            receipt: Some(bench.path("run").join("receipt.json")),
            genesis: Some(bench.repository.id()),
            ..RestoreOptions::default()
        };
        fs::create_dir(bench.path("run")).expect("a folder");
        let restored = restore(&bench.repository, &bench.path("data"), options, Arc::new(NoObserver)).await;
        restored.map(drop).expect("a genesis receipt");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args(&self) -> SyncArgs {
        let words = "g sync --repo memory: --owner pod --interval 200ms --quiet 50ms --max-wait 200ms \
            --listen 127.0.0.1:0 --grace-period 3s --retry-time 1s --termination-log /nowhere/at/all";
        let mut words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        words.extend(["--path".into(), self.path("data").into(), "--state-dir".into(), self.path("run").into()]);
        match environment::parse(&words, &[]).expect("parses").command {
            Command::Sync(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    /// Starts `sync` on a store that does what the plan says.
    fn start(&self, plan: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> Started {
        let store = Store::new(Arc::new(FaultStore::new(self.objects.clone(), plan)), "memory");
        let store = store.with_settle_time(Duration::from_secs(1));
        let shutdown = Interrupt::default();
        let told = shutdown.clone();
        let running = run(self.args(), StoreSource::Given(store), async move { told.requested().await });
        Started { shutdown, running: tokio::spawn(running), socket: self.path("run").join("control.sock") }
    }

    /// Runs `sync` whose SIGTERM comes before anything of it has ended.
    async fn ended_at_once(&self, plan: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> Exit {
        let store = Store::new(Arc::new(FaultStore::new(self.objects.clone(), plan)), "memory");
        let running = run(self.args(), StoreSource::Given(store), std::future::ready(()));
        tokio::time::timeout(LIMIT, running).await.expect("ends").expect("an exit")
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path("data").join(name), content).expect("written");
    }

    /// The head, and how many entries it has.
    async fn head(&self) -> Option<(SnapshotId, u64)> {
        let state = self.repository.state().await.expect("a state");
        state.commit.head("main").map(|head| (head.id, head.entries))
    }
}

struct Started {
    shutdown: Interrupt,
    running: tokio::task::JoinHandle<Result<Exit>>,
    socket: PathBuf,
}

impl Started {
    async fn status(&self) -> Value {
        ask(&self.socket, &Ask::Status).await.unwrap_or_default()
    }

    async fn end(self) -> Exit {
        self.shutdown.set();
        tokio::time::timeout(LIMIT, self.running).await.expect("ends").expect("no panic").expect("an exit")
    }
}

async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

/// Runs a story without waiting for threads that a store never answers.
fn block_on(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(story);
    runtime.shutdown_background();
}

/// A switch that a plan looks at.
fn switch() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    (Arc::clone(&switch), switch)
}

#[test]
fn rotated_credentials_are_waited_for() {
    block_on(async {
        let bench = Bench::new().await;
        let (denied, looks) = switch();
        let started = bench.start(move |_| looks.load(Ordering::SeqCst).then_some(Fault::Before(Failure::Denied)));
        wait_for("it has started", async || started.status().await["started"] == true).await;
        denied.store(true, Ordering::SeqCst);
        bench.write("post", "written while the old credentials are refused");
        wait_for("it is refused", async || started.status().await["last_result"] == "error").await;
        denied.store(false, Ordering::SeqCst);
        wait_for("it is saved", async || bench.head().await.is_some_and(|(_, entries)| entries == 1)).await;
        assert_eq!(started.end().await, Exit::Done);
    });
}

#[test]
fn a_store_that_never_answers_stops_neither_the_loop_nor_the_end() {
    block_on(async {
        let bench = Bench::new().await;
        let (silent, looks) = switch();
        let started = bench.start(move |_| looks.load(Ordering::SeqCst).then_some(Fault::Never));
        wait_for("it has started", async || started.status().await["started"] == true).await;
        silent.store(true, Ordering::SeqCst);
        bench.write("post", "never saved");
        let unsaved = async || started.status().await["oldest_unsynced_seconds"].as_f64().unwrap_or_default();
        wait_for("the loop goes on, and knows", async || unsaved().await > 1.0).await;
        assert_eq!(started.end().await, Exit::Interrupted);
    });
}

#[test]
fn killed_between_upload_and_commit_it_does_the_work_once() {
    block_on(async {
        let bench = Bench::new().await;
        let (hangs, seen) = switch();
        let is_commit = |call: &Call| call.operation == Operation::Create && call.key.as_ref().starts_with("log/");
        let started = bench.start(move |call| {
            let hangs = is_commit(call);
            seen.fetch_or(hangs, Ordering::SeqCst);
            hangs.then_some(Fault::Never)
        });
        bench.write("post", "uploaded");
        wait_for("everything but the commit is done", async || hangs.load(Ordering::SeqCst)).await;
        started.running.abort();
        drop(started);
        assert_eq!(bench.head().await, None);
        let started = bench.start(|_| None);
        wait_for("it is saved", async || bench.head().await.is_some_and(|(_, entries)| entries == 1)).await;
        assert_eq!(started.end().await, Exit::Done);
        let state = bench.repository.state().await.expect("a state");
        assert_eq!(state.commit.snapshots.len(), 1, "{:?}", state.commit.snapshots);
    });
}

#[test]
fn sigterm_before_a_sidecar_that_was_ended_alone_has_begun_again_takes_the_branch_and_saves() {
    block_on(async {
        let bench = Bench::new().await;
        bench.write("post", "one");
        assert_eq!(bench.start(|_| None).end().await, Exit::Done, "as after a failed liveness probe");
        let claim_of = async || bench.repository.state().await.expect("a state").commit.branches["main"].holder.clone();
        assert!(claim_of().await.is_some_and(|held| held.released));

        bench.write("image", "written before the node was drained");
        assert_eq!(bench.ended_at_once(|_| None).await, Exit::Done);
        assert_eq!(bench.head().await.map(|(_, entries)| entries), Some(2));
        assert!(claim_of().await.is_some_and(|held| held.released));
        let snapshots = bench.repository.state().await.expect("a state").commit.snapshots;
        assert!(snapshots.iter().all(|snapshot| snapshot.branch == "main"), "nothing was left on a fork");

        bench.write("more", "and the store is away at first");
        let calls = AtomicUsize::new(0);
        let away = move |_: &Call| (calls.fetch_add(1, Ordering::SeqCst) < 2).then_some(Fault::Before(Failure::Server));
        assert_eq!(bench.ended_at_once(away).await, Exit::Done);
        assert_eq!(bench.head().await.map(|(_, entries)| entries), Some(3));
    });
}

#[test]
fn sigterm_before_the_begin_saves_nothing_on_a_branch_of_another_or_without_a_receipt() {
    block_on(async {
        let bench = Bench::new().await;
        bench.write("post", "one");
        let away = |_: &Call| Some(Fault::Before(Failure::Server));
        assert_eq!(bench.ended_at_once(away).await, Exit::Unreachable);
        claim(&bench.repository, "main", "other", "test").await.expect("a claim");
        assert_eq!(bench.ended_at_once(|_| None).await, Exit::Conflict);
        assert_eq!(bench.head().await, None);
        let state = bench.repository.state().await.expect("a state");
        assert!(state.commit.snapshots.iter().any(|snapshot| snapshot.branch.starts_with("fork/main/pod-")));
        fs::remove_file(bench.path("run").join("receipt.json")).expect("removed");
        assert_eq!(bench.ended_at_once(|_| None).await, Exit::Refused);
    });
}
