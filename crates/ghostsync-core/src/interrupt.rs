//! The wish to stop, told to whoever works, and looked at between steps and while waiting for the store.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};

/// A shared wish to stop: set once by a signal handler; clones share it.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Wish>);

#[derive(Default)]
struct Wish {
    is_set: AtomicBool,
    told: Notify,
}

impl Interrupt {
    /// Asks every holder of a clone to stop at its next step.
    pub fn set(&self) {
        self.0.is_set.store(true, Ordering::SeqCst);
        self.0.told.notify_waiters();
    }

    /// Tells whether somebody asked to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// Returns an error of kind [`ErrorKind::Interrupted`] if somebody asked to stop.
    ///
    /// # Errors
    /// `Interrupted`.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(interrupted()) } else { Ok(()) }
    }

    /// Does something that may be dropped at any point, such as reading, until it is done or somebody asks to stop.
    ///
    /// # Errors
    /// Those of the work; `Interrupted` if the wish came first.
    pub async fn unless_set<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.requested() => Err(interrupted()),
        }
    }

    /// Waits until somebody asks to stop.
    pub async fn requested(&self) {
        let mut told = pin!(self.0.told.notified());
        // Registered before the look, so that a wish between the two is not missed.
        told.as_mut().enable();
        if !self.is_set() {
            told.await;
        }
    }
}

fn interrupted() -> Error {
    Error::new(ErrorKind::Interrupted, "interrupted")
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interrupt({})", self.is_set())
    }
}

/// Waits for the store from a plain thread, as long as nobody asks to stop.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    runtime: Handle,
    interrupt: Interrupt,
}

impl Waiter {
    /// A waiter on the runtime that this is called from.
    pub(crate) fn new(interrupt: Interrupt) -> Self {
        Self { runtime: Handle::current(), interrupt }
    }

    /// Waits for something that may be dropped at any point.
    ///
    /// # Errors
    /// Those of the work; `Interrupted` if somebody asked to stop before it was done.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime.block_on(self.interrupt.unless_set(work))
    }

    /// Waits for something that must come to its end, such as a commit whose outcome is to be known.
    pub(crate) fn wait_for_the_end<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Where what goes on meanwhile runs.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_with_the_wish_to_stop_whether_it_came_before_or_comes_after() {
        let before = Interrupt::default();
        before.set();
        let forever = || std::future::pending::<Result<()>>();
        assert_eq!(before.unless_set(forever()).await.map_err(|error| error.kind()), Err(ErrorKind::Interrupted));
        assert_eq!(before.unless_set(async { Ok(7) }).await.map_err(|error| error.kind()), Ok(7), "it was done");

        let after = Interrupt::default();
        let (ended, ()) = tokio::join!(after.unless_set(forever()), async { after.clone().set() });
        assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::Interrupted));
    }
}
