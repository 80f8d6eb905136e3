//! The story of `sync`: events come in, the lifecycle says what to do, jobs do it.
//!
//! The loop itself never waits for the store or the disk: jobs run beside it, and it wakes up every few seconds
//! whatever they do. That is all that liveness looks at.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ghostsync_cli::exit::Exit;
use ghostsync_core::Result;
use ghostsync_core::clock::{Clock, SystemClock};
use ghostsync_core::interrupt::Interrupt;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::args::SyncArgs;
use crate::control::Socket;
use crate::heartbeat::HeartbeatUrl;
use crate::lifecycle::{Action, Began, Cause, Event, Lifecycle, Looked, Pass, Passed, Timing};
use crate::log::{self, Level};
use crate::maintain::rules;
use crate::pod::StoreSource;
use crate::restore::Restored;
use crate::serve;
use crate::shared::{Ended, Message, Shared};
use crate::status::{Status, Traffic};
use crate::terminate;
use crate::watch::{News, Watch};
use crate::work::{Told, Work, result_name, seconds};

/// What is done where changes are not told.
const INSTEAD: &str = "it is listed every few seconds instead, at most as long as --interval after the last time, which \
    costs two requests each; raise fs.inotify.max_user_instances and fs.inotify.max_user_watches of the node";

/// The loop wakes up at least so often.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Follows the directory until the shutdown, and makes the final snapshot.
///
/// # Errors
/// `Invalid` or `LocalIo` for settings that cannot be used; nothing that a store does.
pub async fn run(args: SyncArgs, source: StoreSource, shutdown: impl Future<Output = ()>) -> Result<Exit> {
    let timing = Timing {
        interval: args.interval.0,
        quiet: args.quiet.0,
        min_wait: args.min_wait.0,
        max_wait: args.max_wait.0,
        rescan: args.rescan.0,
        grace: args.pod.grace_period.0,
        maintain: (rules(&args.keep).is_some() || args.keep.prune).then_some(args.keep.maintain_every.0),
    };
    let heartbeat = args.heartbeat.as_deref().map(|url| HeartbeatUrl::new(url, args.interval.0)).transpose()?;
    let termination_log = args.pod.termination_log.clone();
    let work = Work::new(args.clone(), source)?;
    let socket = Socket::listen(&args.pod.place.socket())?;
    let listener = serve::listen(&args.listen).await?;
    let watch = match Watch::start(work.pod().path(), work.pod().never()?) {
        Ok(watch) => Some(watch),
        Err(error) => {
            log::warn(&format!("cannot watch the directory: {error}; {INSTEAD}"));
            None
        }
    };
    let status = Status {
        branch: args.pod.branch.clone(),
        owner: work.pod().owner().to_owned(),
        unsynced_bytes: Arc::clone(&work.unsynced_bytes),
        restored: Restored::load(&args.pod.place.state_dir),
        ..Status::default()
    };
    let (shared, mut inbox) = Shared::new(status);
    let fields = json!({"path": args.pod.path, "branch": args.pod.branch, "owner": work.pod().owner(),
        "listen": serve::address(&listener), "version": env!("CARGO_PKG_VERSION")});
    log::line(Level::Info, "following", fields);
    let served = [tokio::spawn(serve::serve(listener, shared.clone())), tokio::spawn(socket.serve(shared.clone()))];

    let mut following = Following {
        lifecycle: Lifecycle::new(timing, Duration::ZERO),
        work: Arc::new(tokio::sync::Mutex::new(work)),
        shared,
        running: Interrupt::default(),
        waiting: Vec::new(),
        answering: Vec::new(),
        last: None,
        failure: None,
        heartbeat,
        termination_log,
    };
    if watch.is_none() {
        following.on(Event::Unwatched);
    }
    following.on(Event::Tick);
    let mut shutdown = pin!(shutdown);
    let mut is_told_to_end = false;
    loop {
        let wake = following.wake();
        let event = tokio::select! {
            biased;
            () = &mut shutdown, if !is_told_to_end => {
                is_told_to_end = true;
                following.begin_the_end();
                Event::Terminate
            }
            Some(message) = inbox.recv() => following.take(message),
            news = news(watch.as_ref()) => match news {
                News::Changed => Event::Changed,
                News::Overflowed => Event::Overflowed,
                News::NoMoreWatches => {
                    log::warn(&format!("cannot watch a new folder: no watches are left; {INSTEAD}"));
                    Event::Unwatched
                }
            },
            () = tokio::time::sleep_until(wake) => Event::Tick,
        };
        if following.on(event) {
            break;
        }
    }
    let exit = following.end();
    for task in served {
        task.abort();
        // Only then is its socket gone.
        let _ = task.await;
    }
    Ok(exit)
}

async fn news(watch: Option<&Watch>) -> News {
    match watch {
        Some(watch) => watch.news().await,
        None => std::future::pending().await,
    }
}

/// The loop's own state.
struct Following {
    lifecycle: Lifecycle,
    work: Arc<tokio::sync::Mutex<Work>>,
    shared: Shared,
    /// The wish to stop of the job that runs.
    running: Interrupt,
    /// Who waits for a pass that has not begun.
    waiting: Vec<oneshot::Sender<Value>>,
    /// Who waits for the pass that runs.
    answering: Vec<oneshot::Sender<Value>>,
    /// How the last pass ended.
    last: Option<(Pass, Passed, Told)>,
    /// What the last begin or pass that failed said, if none has gone well since.
    failure: Option<Told>,
    /// Who else is told that all is well.
    heartbeat: Option<HeartbeatUrl>,
    termination_log: std::path::PathBuf,
}

impl Following {
    /// When to wake up.
    fn wake(&self) -> Instant {
        let latest = Instant::now() + HEARTBEAT;
        self.lifecycle.wake_at().map_or(latest, |at| self.shared.instant(at).min(latest))
    }

    /// Takes an event, and does what follows from it; returns whether that is the end.
    fn on(&mut self, event: Event) -> bool {
        let now = self.shared.now();
        self.shared.heartbeat.beat(now);
        let actions = self.lifecycle.on(event, now);
        self.shared.note_change(self.lifecycle.last_change());
        let lifecycle = &self.lifecycle;
        self.shared.status(|status| {
            status.unsynced_since = lifecycle.unsynced_since();
            status.is_watched = lifecycle.is_watched();
            status.is_fenced = lifecycle.is_fenced();
            status.holds = lifecycle.is_ready() && !lifecycle.is_fenced();
            status.is_started |= lifecycle.is_ready();
            status.is_terminating = lifecycle.terminating_since().is_some();
        });
        let mut is_over = false;
        for action in actions {
            match action {
                Action::Begin | Action::Look | Action::Pass(_) | Action::Maintain => self.start(action),
                Action::Stop => self.running.set(),
                Action::End => is_over = true,
            }
        }
        is_over
    }

    /// Starts a job beside the loop.
    fn start(&mut self, action: Action) {
        self.running = Interrupt::default();
        if let Action::Pass(pass) = action {
            self.answering.append(&mut self.waiting);
            self.last = Some((pass, Passed::Stopped, Told::default()));
        }
        let (work, interrupt, note) = (Arc::clone(&self.work), self.running.clone(), self.note());
        let job = tokio::spawn(async move {
            let mut work = work.lock().await;
            let (event, told) = match action {
                Action::Begin => {
                    let (began, told) = work.begin(&interrupt).await;
                    (Event::Began(began), told)
                }
                Action::Look => {
                    let (looked, told) = work.look(&interrupt).await;
                    (Event::Looked(looked), told)
                }
                Action::Pass(pass) => {
                    let (passed, told) = work.pass(pass, note, &interrupt).await;
                    (Event::Passed(passed), told)
                }
                Action::Maintain | Action::Stop | Action::End => {
                    work.maintain(&interrupt).await;
                    (Event::Maintained, Told::default())
                }
            };
            let traffic = work.opened().map(|repository| Traffic {
                answers: repository.store().answers(),
                sent_bytes: repository.store().sent_bytes(),
                received_bytes: repository.store().received_bytes(),
            });
            Ended { event, told, traffic, volume_used_ratio: used_ratio(work.pod().path()) }
        });
        let shared = self.shared.clone();
        tokio::spawn(async move {
            // A job that panicked has told itself on stderr; it is tried again like one that failed.
            let ended = job.await.unwrap_or_else(|error| Ended {
                event: match action {
                    Action::Begin => Event::Began(Began::NotYet),
                    Action::Look => Event::Looked(Looked::NotYet),
                    Action::Pass(_) => Event::Passed(Passed::NotYet),
                    Action::Maintain | Action::Stop | Action::End => Event::Maintained,
                },
                told: Told { message: error.to_string(), exit: Some(Exit::Failed), ..Told::default() },
                traffic: None,
                volume_used_ratio: None,
            });
            shared.tell(Message::Ended(Box::new(ended)));
        });
    }

    /// What the commit of a final snapshot says about its circumstances.
    fn note(&self) -> Value {
        let now = self.shared.now();
        let since = |at: Option<Duration>| at.map(|at| seconds(now.saturating_sub(at)));
        json!({"cause": "SIGTERM", "seconds_since_end_began": since(self.lifecycle.terminating_since()),
            "oldest_unsynced_seconds": since(self.lifecycle.unsynced_since())})
    }

    /// Turns a message into an event.
    fn take(&mut self, message: Message) -> Event {
        match message {
            Message::Event(event) => event,
            Message::Pass(reply) => {
                self.waiting.push(reply);
                Event::Asked
            }
            Message::Ended(ended) => self.ended(*ended),
        }
    }

    fn ended(&mut self, ended: Ended) -> Event {
        let Ended { event, told, traffic, volume_used_ratio } = ended;
        self.shared.status(|status| {
            if let Some(traffic) = traffic {
                status.traffic = traffic;
            }
            status.volume_used_ratio = volume_used_ratio.or(status.volume_used_ratio);
            if let Some(receipt) = &told.receipt {
                (status.epoch, status.snapshot) = (receipt.epoch, receipt.snapshot);
            }
            match event {
                Event::Began(began) => {
                    status.is_started |= told.holds_locally;
                    status.refused_by = told.guard;
                    status.trouble = match began {
                        Began::Ready => None,
                        Began::Fenced => Some("the branch is another's".to_owned()),
                        Began::Refused | Began::NotYet => Some(told.message.clone()),
                    };
                }
                Event::Passed(passed) => note_pass(status, passed, &told),
                Event::Looked(Looked::NotYet) => status.trouble = Some(told.message.clone()),
                _ => {}
            }
        });
        match event {
            Event::Began(Began::Ready | Began::Fenced) => self.failure = None,
            // One that was told to stop says nothing about why it did not end before.
            Event::Began(_) if told.exit != Some(Exit::Interrupted) => self.failure = Some(told.clone()),
            _ => {}
        }
        if let Event::Passed(passed) = event {
            let answer = pass_answer(passed, &told);
            for reply in self.answering.drain(..) {
                // A hook that was cut does not wait any more.
                let _ = reply.send(answer.clone());
            }
            match passed {
                Passed::NotYet => self.failure = Some(told.clone()),
                Passed::Stopped => {}
                _ => self.failure = None,
            }
            if let Some((pass, ..)) = self.last {
                self.last = Some((pass, passed, told));
            }
        }
        self.tell_heartbeat(event);
        event
    }

    /// Tells the heartbeat what went well. A look that finds the branch as it was says nothing about a directory that
    /// could not be saved.
    fn tell_heartbeat(&mut self, event: Event) {
        let Some(heartbeat) = &mut self.heartbeat else { return };
        let is_refused = self.shared.status(|status| status.refused_by.is_some());
        let is_well = match event {
            Event::Passed(Passed::Saved { .. }) => true,
            Event::Looked(Looked::Still) => self.failure.is_none() && !is_refused,
            _ => false,
        };
        if is_well {
            heartbeat.beat(self.shared.now());
        }
    }

    /// SIGTERM has come: the last words, in case that there is no time for others.
    fn begin_the_end(&self) {
        let now = self.shared.now();
        let unsynced = self.lifecycle.unsynced_since().map(|since| seconds(now.saturating_sub(since)));
        let words = match unsynced {
            Some(seconds) => {
                format!("final snapshot begun, not finished: changes of up to {seconds} s ago may be lost")
            }
            None => "final snapshot begun, not finished: nothing was known to be unsaved".to_owned(),
        };
        terminate::write(&self.termination_log, &words);
        log::line(Level::Info, "SIGTERM: the final snapshot", json!({"oldest_unsynced_seconds": unsynced}));
    }

    /// The last words, and the code to end with.
    fn end(mut self) -> Exit {
        let now = self.shared.now();
        let since = self.lifecycle.terminating_since().map(|since| seconds(now.saturating_sub(since)));
        let no_time =
            Told { message: "there was no more time".into(), exit: Some(Exit::Interrupted), ..Told::default() };
        let told = match self.last.take() {
            Some((Pass { cause: Cause::Final, .. }, passed, told)) if passed != Passed::Stopped => told,
            // The time was up while it was tried again: what it was tried again for is what matters.
            _ => self.failure.take().unwrap_or(no_time),
        };
        let (mut exit, words) = (told.exit.unwrap_or(Exit::Failed), told.message);
        if self.lifecycle.is_fenced() {
            exit = Exit::first_of(&[exit, Exit::Conflict]);
        }
        let what = if exit == Exit::Done { "final snapshot done" } else { "final snapshot NOT done" };
        let what = if exit == Exit::Incomplete { "final snapshot done, but incomplete" } else { what };
        let words = format!("{what}: {words}");
        terminate::write(&self.termination_log, &words);
        let level = if exit == Exit::Done { Level::Info } else { Level::Error };
        log::line(level, &words, json!({"exit": exit.code(), "seconds_since_end_began": since}));
        let answer = json!({"error": "sync has ended", "message": words, "exit": exit.code()});
        for reply in self.answering.drain(..).chain(self.waiting.drain(..)) {
            let _ = reply.send(answer.clone());
        }
        exit
    }
}

fn note_pass(status: &mut Status, passed: Passed, told: &Told) {
    let result = result_name(passed, told);
    if passed != Passed::Stopped {
        *status.passes.entry(result).or_default() += 1;
        status.pass_seconds += told.report.as_ref().map_or(0.0, |report| report.seconds);
        status.last_result = Some(result);
    }
    match passed {
        Passed::Saved { .. } => {
            status.last_success = Some(SystemClock.now());
            (status.refused_by, status.trouble) = (None, None);
        }
        Passed::Refused { .. } => (status.refused_by, status.trouble) = (told.guard, Some(told.message.clone())),
        Passed::Fenced | Passed::NotYet => status.trouble = Some(told.message.clone()),
        Passed::Stopped => {}
    }
}

fn pass_answer(passed: Passed, told: &Told) -> Value {
    let report = told.report.as_ref();
    json!({
        "outcome": result_name(passed, told),
        "snapshot": report.and_then(|report| report.snapshot),
        "branch": report.map(|report| &report.branch),
        "message": told.message,
        "exit": told.exit.unwrap_or(Exit::Failed).code(),
    })
}

/// How full a disk is.
fn used_ratio(path: &std::path::Path) -> Option<f64> {
    let disk = rustix::fs::statvfs(path).ok().filter(|disk| disk.f_blocks > 0)?;
    Some(1.0 - disk.f_bavail as f64 / disk.f_blocks as f64)
}
