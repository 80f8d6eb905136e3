//! Exit codes: what a script can tell from the number alone.

use std::process::ExitCode;

use ghostsync_core::ErrorKind;

/// How the program ends. The numbers are a contract; scripts depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; also "nothing to do" and "there are differences".
    Done = 0,
    /// Failed for a reason without a number of its own.
    Failed = 1,
    /// The command line, the configuration or an input is wrong.
    Usage = 2,
    /// Done, but some entries could not be read or written.
    Incomplete = 3,
    /// Refused by a guard.
    Refused = 10,
    /// Overtaken or fenced by another writer.
    Conflict = 11,
    /// No such repository, branch, snapshot or path.
    NotFound = 12,
    /// The store could not be reached, or denied access.
    Unreachable = 13,
    /// Damage was found.
    Damaged = 14,
    /// The answer to a commit was lost.
    Unknown = 15,
    /// SIGINT or SIGTERM.
    Interrupted = 130,
}

impl Exit {
    /// Of several the first of this list applies. Failures without a number of their own come after those that
    /// have one, and before "done, but".
    const ORDER: [Self; 11] = [
        Self::Interrupted,
        Self::Unknown,
        Self::Damaged,
        Self::Conflict,
        Self::Refused,
        Self::Unreachable,
        Self::NotFound,
        Self::Usage,
        Self::Failed,
        Self::Incomplete,
        Self::Done,
    ];

    /// The one that applies of all that hold; [`Exit::Done`] if there is none.
    pub fn first_of(held: &[Self]) -> Self {
        Self::ORDER.into_iter().find(|exit| held.contains(exit)).unwrap_or(Self::Done)
    }

    /// The code for a kind of error.
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Unavailable | ErrorKind::Denied => Self::Unreachable,
            ErrorKind::Conflict | ErrorKind::Fenced => Self::Conflict,
            ErrorKind::Refused => Self::Refused,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Corrupt => Self::Damaged,
            ErrorKind::Invalid => Self::Usage,
            ErrorKind::Unknown => Self::Unknown,
            ErrorKind::Interrupted => Self::Interrupted,
            // Unsupported, LocalIo, Internal, and kinds that a later library adds.
            _ => Self::Failed,
        }
    }

    /// The one with a number; [`Exit::Failed`] for a number that none has.
    pub fn from_code(code: u8) -> Self {
        Self::ORDER.into_iter().find(|exit| exit.code() == code).unwrap_or(Self::Failed)
    }

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        let table = [
            (ErrorKind::Unavailable, 13),
            (ErrorKind::Denied, 13),
            (ErrorKind::Conflict, 11),
            (ErrorKind::Fenced, 11),
            (ErrorKind::Refused, 10),
            (ErrorKind::NotFound, 12),
            (ErrorKind::Corrupt, 14),
            (ErrorKind::Unsupported, 1),
            (ErrorKind::Invalid, 2),
            (ErrorKind::LocalIo, 1),
            (ErrorKind::Unknown, 15),
            (ErrorKind::Interrupted, 130),
            (ErrorKind::Internal, 1),
        ];
        for (kind, code) in table {
            assert_eq!(Exit::of(kind).code(), code, "{kind:?}");
        }
    }

    #[test]
    fn of_several_the_first_of_the_order_applies() {
        let contract = [130, 15, 14, 11, 10, 13, 12, 3];
        let listed: Vec<u8> =
            Exit::ORDER.iter().map(|exit| exit.code()).filter(|code| contract.contains(code)).collect();
        assert_eq!(listed, contract);
        assert_eq!(Exit::first_of(&[Exit::Incomplete, Exit::Refused]), Exit::Refused);
        assert_eq!(Exit::first_of(&[Exit::Refused, Exit::Unreachable, Exit::Damaged]), Exit::Damaged);
        assert_eq!(Exit::first_of(&[Exit::Done, Exit::Incomplete]), Exit::Incomplete);
        assert_eq!(Exit::first_of(&[]), Exit::Done);
    }

    #[test]
    fn none_is_missing_from_the_order() {
        assert_eq!(Exit::from_code(99), Exit::Failed);
        for code in [0, 1, 2, 3, 10, 11, 12, 13, 14, 15, 130] {
            assert_eq!(Exit::from_code(code).code(), code);
        }
    }
}
