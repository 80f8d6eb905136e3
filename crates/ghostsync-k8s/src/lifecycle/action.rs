//! What the lifecycle says is to be done.

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Check the receipt, and that the branch is ours.
    Begin,
    /// Ask whether the head has moved.
    Look,
    /// Save the directory.
    Pass(Pass),
    /// Forget and prune.
    Maintain,
    /// Tell the job that runs to stop.
    Stop,
    /// End the process.
    End,
}

/// A pass over the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Why.
    pub cause: Cause,
    /// Large files may wait for the next step.
    pub small_first: bool,
    /// The branch is given back with its commit.
    pub release: bool,
}

/// Why a pass is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Something changed.
    Change,
    /// It is time to list everything again, or nobody knows what changed.
    Rescan,
    /// Somebody asked for it.
    Asked,
    /// The process is being ended.
    Final,
}

impl Cause {
    /// Names it, for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Rescan => "rescan",
            Self::Asked => "asked",
            Self::Final => "final",
        }
    }
}
