//! What goes wrong in a benchmark ends it: one message, with what was tried on what.

use std::path::Path;

/// The message.
#[derive(Debug)]
pub struct Failure(pub String);

/// A result that carries a message on failure.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Says what was tried when it failed.
pub trait Tried<T> {
    /// On what: a program, an address.
    fn tried(self, what: impl FnOnce() -> String) -> Outcome<T>;
    /// On a path.
    fn on(self, what: &str, path: &Path) -> Outcome<T>;
}

impl<T, E: std::fmt::Display> Tried<T> for Result<T, E> {
    fn tried(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure(format!("{}: {error}", what())))
    }

    fn on(self, what: &str, path: &Path) -> Outcome<T> {
        self.map_err(|error| Failure(format!("{what} {}: {error}", path.display())))
    }
}
