//! What the loop of `sync` shares with its jobs and with whoever serves: the status, the time, and a way to tell it
//! something.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::lifecycle::Event;
use crate::status::{Heartbeat, Status, Traffic};
use crate::work::Told;

/// What the loop is told.
pub(crate) enum Message {
    /// Something happened.
    Event(Event),
    /// Somebody wants a pass, and to hear what came of it.
    Pass(oneshot::Sender<Value>),
    /// A job has ended.
    Ended(Box<Ended>),
}

/// A job that has ended.
pub(crate) struct Ended {
    /// How.
    pub(crate) event: Event,
    /// What it tells besides.
    pub(crate) told: Told,
    /// What was asked of the store so far.
    pub(crate) traffic: Option<Traffic>,
    /// How full the disk is.
    pub(crate) volume_used_ratio: Option<f64>,
}

/// What the loop shares with whoever serves.
#[derive(Clone)]
pub(crate) struct Shared {
    began: Instant,
    status: Arc<Mutex<Status>>,
    last_change: Arc<Mutex<Option<Duration>>>,
    pub(crate) heartbeat: Arc<Heartbeat>,
    messages: mpsc::UnboundedSender<Message>,
}

impl Shared {
    /// Shares a status; what the loop is told comes out of the other end.
    pub(crate) fn new(status: Status) -> (Self, mpsc::UnboundedReceiver<Message>) {
        let (messages, inbox) = mpsc::unbounded_channel();
        let status = Arc::new(Mutex::new(status));
        let (last_change, heartbeat) = (Arc::default(), Arc::default());
        (Self { began: Instant::now(), status, last_change, heartbeat, messages }, inbox)
    }

    /// A time of the loop, for those who sleep until then.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.began + at
    }

    /// Notes when something changed last.
    pub(crate) fn note_change(&self, at: Option<Duration>) {
        *self.last_change.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// The time of the loop.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Looks at the status, or changes it.
    pub(crate) fn status<T>(&self, function: impl FnOnce(&mut Status) -> T) -> T {
        function(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When something changed last.
    pub(crate) fn last_change(&self) -> Option<Duration> {
        *self.last_change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the loop something; nothing happens if it has ended.
    pub(crate) fn tell(&self, message: Message) {
        let _ = self.messages.send(message);
    }
}
