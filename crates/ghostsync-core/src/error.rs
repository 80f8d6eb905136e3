//! The public error: a few kinds, one for each different thing a caller would do.
//!
//! Every module has a private, detailed error type; it becomes the source of an [`Error`] with a kind.
//! Nothing here prints, and no message contains a hint: hints belong to the programs at the edge.

use std::error::Error as StdError;
use std::fmt;

/// The result of every fallible call of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The store could not be reached or did not answer in time: try again later.
    Unavailable,
    /// Another writer moved the branch first: nothing was published, look at its head and decide.
    Conflict,
    /// The session was fenced by a newer epoch or floor: stop writing.
    Fenced,
    /// A guard refused; a person decides. `Error::refusal` has the figures and the paths.
    Refused,
    /// The repository, branch, snapshot or path does not exist.
    NotFound,
    /// The store refused the credentials or the permission.
    Denied,
    /// Stored bytes do not match what they should be: run a check.
    Corrupt,
    /// The repository uses a newer format or a feature that this version does not know: upgrade.
    Unsupported,
    /// The input is wrong: fix it and call again.
    Invalid,
    /// Reading or writing the local file system failed.
    LocalIo,
    /// The answer to a commit was lost and could not be read back: the outcome is not known.
    Unknown,
    /// The caller asked to stop; nothing half done was left behind.
    Interrupted,
    /// A defect of this library: report it.
    Internal,
}

impl ErrorKind {
    /// Names the kind in lower case, as it appears in JSON output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::Fenced => "fenced",
            Self::Refused => "refused",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Invalid => "invalid",
            Self::LocalIo => "local-io",
            Self::Unknown => "unknown",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }
}

/// Why a call failed: a kind to act on, a message to read, and the cause below it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    source: Box<dyn StdError + Send + Sync>,
}

impl Error {
    /// Makes an error of a kind from a detailed one.
    pub fn new(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// Tells what a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The detail, if it is of this type.
    pub(crate) fn detail<T: StdError + 'static>(&self) -> Option<&T> {
        self.source.downcast_ref()
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message.into())
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message.into())
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message.into())
    }

    /// A failure of the local file system: what was tried, on which path.
    pub(crate) fn local(action: &'static str, path: impl fmt::Display, source: std::io::Error) -> Self {
        Self::new(ErrorKind::LocalIo, LocalIoError { action, path: path.to_string(), source })
    }

    /// The first I/O error below this one, from which a program can tell a full disk from a missing folder.
    #[must_use]
    pub fn io_error(&self) -> Option<&std::io::Error> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(&*self.source);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return Some(io);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.source()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
struct LocalIoError {
    action: &'static str,
    path: String,
    source: std::io::Error,
}
