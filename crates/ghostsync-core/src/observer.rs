//! Progress, told to whoever wants to watch, and the wish to stop, told to whoever works.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// What a running backup or restore tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// So many entries of the source or destination were listed so far.
    Listed {
        /// Entries so far.
        entries: u64,
    },
    /// The plan is known: so much is to be read (backup) or written (restore).
    Planned {
        /// Files to read or write.
        files: u64,
        /// Bytes of content to read or write.
        bytes: u64,
    },
    /// A piece of that work is done.
    Advanced {
        /// Files finished since the last call.
        files: u64,
        /// Bytes of content done since the last call.
        bytes: u64,
    },
    /// Bytes were sent to or received from the store since the last call.
    Transferred {
        /// Bytes since the last call.
        bytes: u64,
    },
}

/// Watches progress. Calls come from several threads and must return quickly.
pub trait Observer: Send + Sync {
    /// Takes one piece of news.
    fn progress(&self, progress: Progress);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn progress(&self, _progress: Progress) {}
}

impl<F: Fn(Progress) + Send + Sync> Observer for F {
    fn progress(&self, progress: Progress) {
        self(progress);
    }
}

/// A shared wish to stop: set once by a signal handler, looked at between steps.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks every holder of a clone to stop at its next step.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Tells whether somebody asked to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns an error of kind [`ErrorKind::Interrupted`] if somebody asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::new(ErrorKind::Interrupted, "interrupted")) } else { Ok(()) }
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interrupt({})", self.is_set())
    }
}
