//! Progress, told to whoever wants to watch.

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
