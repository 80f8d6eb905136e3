//! Maintenance that needs the repository to itself, where the store cannot create an object at most once.
//!
//! There a writer is told that its commit is in the log after it has listed the log, and two commits of one number may
//! come into it. A floor, or a forgotten parent, that comes in beside such a commit makes it void, though its writer was
//! told that all is well. So nobody may write from before the maintainer looks until its own commit is known to be
//! there or known not to be. What dead writers have sent may still arrive: that was told to nobody.

use crate::error::{Error, ErrorKind, Result};
use crate::format::config::CommitMode;
use crate::guard::{Guard, Refusal};
use crate::repository::Repository;

/// Whether the repository has to be left alone.
pub(super) struct Alone {
    is_needed: bool,
    command: &'static str,
}

impl Alone {
    /// Refuses to do anything where nobody has promised that nobody else writes.
    pub(super) fn check(repository: &Repository, is_promised: bool, command: &'static str) -> Result<Self> {
        let is_needed = repository.config().commit_mode == CommitMode::Detect;
        if is_needed && !is_promised {
            let reason = format!(
                "in commit mode 'detect' a {command} needs the promise that no other process writes to the repository \
                 until it has ended: a backup that commits meanwhile could be lost although it was told that it is done"
            );
            return Err(Refusal::plain(Guard::Exclusive, reason).into());
        }
        Ok(Self { is_needed, command })
    }

    /// Says, where it is not known whether the commit is in the log, that the promise goes on.
    pub(super) fn goes_on(&self, error: Error) -> Error {
        if !self.is_needed || error.kind() != ErrorKind::Unknown {
            return error;
        }
        let command = self.command;
        Error::new(ErrorKind::Unknown, format!("{error}; nobody may write until a {command} has ended without that"))
    }
}
