//! The control socket: what is said to a running `sync`. One line of JSON each way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ghostsync_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::lifecycle::Event;
use crate::log;
use crate::shared::{Message, Shared};
use crate::wait_app::WaitApp;

/// More than any request has.
const MAX_REQUEST_BYTES: u64 = 16 * 1024;
/// How often the app is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Ask {
    /// The pod is being ended.
    Terminating,
    /// The same, in a classic sidecar: wait for the app, then save.
    FinalSync {
        /// What to wait for.
        wait_app: Vec<WaitApp>,
        /// How long nothing may have changed.
        quiet_ms: u64,
        /// How long to wait in all.
        deadline_ms: u64,
    },
    /// How does it stand?
    Status,
    /// Save now.
    Sync,
}

/// The socket, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// Begins to listen. A socket that is there already is of a process that is gone: there is one sidecar in a pod.
    ///
    /// # Errors
    /// `LocalIo` if it cannot be made.
    pub(crate) fn listen(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::LocalIo, format!("cannot make the control socket {}: {error}", path.display()))
        };
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(failed(error));
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), listener })
    }

    /// Serves for ever.
    pub(crate) async fn serve(self, shared: Shared) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let shared = shared.clone();
            tokio::spawn(async move {
                // A hook that was cut does not wait for its answer; what it asked for goes on.
                let _ = converse(stream, &shared).await;
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, shared: &Shared) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(MAX_REQUEST_BYTES)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Ask>(&line) {
        Ok(ask) => answer(ask, shared).await,
        Err(error) => json!({"error": format!("not understood: {error}")}),
    };
    writer.write_all(format!("{answer}\n").as_bytes()).await
}

async fn answer(ask: Ask, shared: &Shared) -> Value {
    match ask {
        Ask::Status => shared.status(|status| status.document(shared.now())),
        Ask::Terminating => {
            log::info("the pod is being ended: an early pass");
            shared.tell(Message::Event(Event::Terminating));
            json!({"outcome": "told"})
        }
        Ask::Sync => pass(shared).await,
        Ask::FinalSync { wait_app, quiet_ms, deadline_ms } => {
            log::info(&format!("final-sync: waiting {}, at most {deadline_ms} ms", until(&wait_app)));
            shared.tell(Message::Event(Event::AppMayWrite));
            let deadline = Instant::now() + Duration::from_millis(deadline_ms);
            let waited = wait(&wait_app, Duration::from_millis(quiet_ms), deadline, shared).await;
            log::info(&format!("final-sync: {}", waited.words()));
            if waited == Waited::Gone {
                shared.tell(Message::Event(Event::AppGone));
            }
            // A hook that waits for longer takes the time of the final snapshot, which begins with SIGTERM.
            let no_time = || json!({"error": "there was no more time: the rest is left to SIGTERM", "exit": 130});
            tokio::time::timeout_at(deadline, pass(shared)).await.unwrap_or_else(|_| no_time())
        }
    }
}

/// What is waited for, in words.
fn until(apps: &[WaitApp]) -> String {
    let apps = apps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if apps.is_empty() { "until nothing changes".to_owned() } else { format!("for the app to go ({apps})") }
}

/// Has a pass made that begins from now on, and tells what came of it.
async fn pass(shared: &Shared) -> Value {
    let (reply, told) = oneshot::channel();
    shared.tell(Message::Pass(reply));
    told.await.unwrap_or_else(|_| json!({"error": "sync has ended", "exit": 1}))
}

/// How waiting for the app ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    /// Its process is gone.
    Gone,
    /// Nothing has changed for a while.
    Quiet,
    /// There was no more time.
    Deadline,
}

impl Waited {
    fn words(self) -> &'static str {
        match self {
            Self::Gone => "the app has gone",
            Self::Quiet => "nothing has changed for a while; that is no proof that the app has gone",
            Self::Deadline => "the app is still there, or still writing; what it writes from now on may be lost",
        }
    }
}

async fn wait(apps: &[WaitApp], quiet: Duration, deadline: Instant, shared: &Shared) -> Waited {
    let mut seen = vec![false; apps.len()];
    let mut unseen_told = false;
    // Where nobody listens any more since: only then is being quiet worth anything.
    let mut closed: Option<Duration> = None;
    loop {
        let mut is_there = false;
        for (app, seen) in apps.iter().zip(&mut seen) {
            let there = app.is_there().await;
            *seen |= there;
            is_there |= there;
        }
        let certain = apps.iter().zip(&seen).any(|(app, seen)| app.is_certain() && *seen);
        if !is_there && certain {
            return Waited::Gone;
        }
        let unseen = apps.iter().zip(&seen).find(|(app, seen)| app.is_certain() && !**seen);
        if let (Some((app, _)), false) = (unseen, unseen_told) {
            unseen_told = true;
            log::warn(&format!("{app} is not to be seen: it has gone already, or shareProcessNamespace is not set"));
        }
        let now = shared.now();
        closed = if is_there { None } else { closed.or(Some(now)) };
        let last = shared.last_change().unwrap_or_default();
        if closed.is_some_and(|closed| now >= closed.max(last) + quiet) {
            return Waited::Quiet;
        }
        if Instant::now() + LOOK >= deadline {
            return Waited::Deadline;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Says something to a running `sync`, and waits for the answer.
///
/// # Errors
/// `NotFound` if nobody listens, `LocalIo` if it ended before it answered.
pub async fn ask(socket: &Path, ask: &Ask) -> Result<Value> {
    let nobody = |error: std::io::Error| {
        let what = format!(
            "no sync listens on {}: {error}; does the sidecar run, and is this its --state-dir?",
            socket.display()
        );
        Error::new(ErrorKind::NotFound, what)
    };
    let failed = |error: std::io::Error| Error::new(ErrorKind::LocalIo, format!("sync did not answer: {error}"));
    let stream = UnixStream::connect(socket).await.map_err(nobody)?;
    let (reader, mut writer) = stream.into_split();
    let request = serde_json::to_string(ask).map_err(|error| Error::new(ErrorKind::Internal, error))?;
    writer.write_all(format!("{request}\n").as_bytes()).await.map_err(failed)?;
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).await.map_err(failed)?;
    let nothing = |error| Error::new(ErrorKind::LocalIo, format!("sync ended before it answered: {error}"));
    serde_json::from_str(&line).map_err(nothing)
}
