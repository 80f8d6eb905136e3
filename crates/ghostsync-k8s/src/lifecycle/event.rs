//! What the lifecycle is told.

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Something in the directory changed.
    Changed,
    /// The watch lost something.
    Overflowed,
    /// There is no watch, or not of everything: only passes tell what changed.
    Unwatched,
    /// Somebody wants a snapshot now.
    Asked,
    /// The pod is being ended.
    Terminating,
    /// The same, of a classic sidecar: the app may go on writing after our SIGTERM.
    AppMayWrite,
    /// The app's process has gone.
    AppGone,
    /// SIGTERM.
    Terminate,
    /// The begin has ended.
    Began(Began),
    /// A look at the head has ended.
    Looked(Looked),
    /// A pass has ended.
    Passed(Passed),
    /// Maintenance has ended, whatever came of it.
    Maintained,
    /// Time has passed.
    Tick,
}

/// How the begin ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Began {
    /// The receipt holds, and the branch is ours.
    Ready,
    /// The branch is another's.
    Fenced,
    /// The receipt does not hold, or the directory cannot be read: nothing may be saved from here.
    Refused,
    /// Not yet: the store cannot be reached.
    NotYet,
}

/// How a look at the head ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// The branch is as we left it.
    Still,
    /// The branch was moved or taken: a pass tells what follows from that.
    Moved,
    /// The store could not be reached.
    NotYet,
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The branch's head is what the directory was; not complete if an entry could not be read, or was left for a next
    /// step.
    Saved {
        /// Whether it holds everything.
        complete: bool,
    },
    /// A guard refused.
    Refused {
        /// Whether the directory is kept in quarantine.
        kept: bool,
    },
    /// The branch is another's; what the directory was is on a fork, unless it was no edit at all.
    Fenced,
    /// The store, or the disk, did not let it.
    NotYet,
    /// It was told to stop.
    Stopped,
}
