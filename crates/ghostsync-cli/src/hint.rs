//! What a person can do about an error: hints, and the exact command that would go on.
//!
//! The library says what happened; only here, at the edge, is it known which command was given.

use std::ffi::OsString;

use ghostsync_core::guard::{Guard, Refusal};
use ghostsync_core::maintain::{Finding, Severity, Subject};
use ghostsync_core::{Error, ErrorKind};

use crate::shell;

/// The hint where nothing more is known than that the store did not let anybody in.
pub const CREDENTIALS: &str =
    "check the credentials in the environment (AWS_*, GOOGLE_*, AZURE_*, WEBDAV_*) and their permissions";

/// What was being done when it failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Action {
    /// A backup to a branch.
    Backup {
        /// The branch.
        branch: String,
        /// The command that restores the source with its receipt, if one is required.
        restore: Option<Vec<OsString>>,
    },
    /// A restore into a directory, as it was named.
    Restore {
        /// The directory.
        destination: String,
    },
    /// A repair of a branch's head.
    Repair {
        /// The branch.
        branch: String,
    },
    /// `init`.
    Init {
        /// Whether there is a repository already that can be opened.
        is_there: bool,
        /// The command that makes one in commit mode `detect`.
        in_detect: Vec<OsString>,
    },
    /// Anything else.
    #[default]
    Other,
}

impl Action {
    /// What did not happen because of a refusal.
    pub fn not_done(&self) -> String {
        match self {
            Self::Backup { branch, .. } | Self::Repair { branch } => {
                format!("nothing was published: branch {branch} is what it was, and every snapshot is still there")
            }
            Self::Restore { destination } => format!("nothing in {destination} was written or deleted"),
            Self::Init { .. } => "no repository was created, and nothing that was there was touched".to_owned(),
            Self::Other => "nothing was changed".to_owned(),
        }
    }
}

/// The command that would go on in spite of a refusal; `None` where no flag would help.
pub fn going_on(refusal: &Refusal, action: &Action, words: &[OsString]) -> Option<Vec<OsString>> {
    if refusal.guard == Guard::Empty && !matches!(action, Action::Repair { .. }) {
        return Some(shell::with_flag(words, "--allow-empty", None));
    }
    if let Some(plan) = refusal.plan {
        return Some(shell::with_flag(words, "--override", Some(&plan.to_string())));
    }
    match (refusal.guard, action) {
        (Guard::Receipt, Action::Backup { restore, .. }) => restore.clone(),
        (Guard::Unreadable, Action::Backup { .. }) => Some(shell::without_flag(words, "--strict", false)),
        (Guard::Destination, Action::Restore { .. }) => Some(shell::with_flag(words, "--overwrite", Some("changed"))),
        (Guard::MaxDelete, Action::Restore { .. }) => {
            refusal.actual.map(|actual| shell::with_flag(words, "--max-delete", Some(&actual.to_string())))
        }
        (Guard::Probe, Action::Init { in_detect, .. }) => Some(in_detect.clone()),
        (Guard::Exclusive, _) => Some(shell::with_flag(words, "--exclusive", None)),
        (Guard::Init, Action::Init { is_there: true, .. }) => Some(shell::with_flag(words, "--if-missing", None)),
        _ => None,
    }
}

/// What an interrupted command leaves behind, and how to go on.
pub fn interrupted(action: &Action, words: &[OsString]) -> Vec<String> {
    let Action::Restore { destination } = action else {
        return vec!["interrupted: nothing half done, run it again".to_owned()];
    };
    // Without one of these a directory that is no longer empty is refused.
    let has = |flag: &str| shell::without_flag(words, flag, true).len() < words.len();
    let again = if has("--overwrite") || has("--delete") {
        words.to_vec()
    } else {
        shell::with_flag(words, "--overwrite", Some("changed"))
    };
    vec![
        format!("interrupted: {destination} is not complete yet, and has no receipt"),
        format!("to go on: {}", shell::quote(&again)),
    ]
}

/// A hint for an error; `opened` tells whether the repository had been opened.
pub fn for_error(error: &Error, opened: bool) -> Option<&'static str> {
    let hint = match error.kind() {
        ErrorKind::Unavailable => "nothing half done is left behind; run it again, --retry-time says how long to try",
        ErrorKind::Denied if error.to_string().contains("RequestTimeTooSkewed") => "set this machine's clock",
        ErrorKind::Denied if error.to_string().contains("AWS_PROFILE is set") => {
            "eval \"$(aws configure export-credentials --format env)\" puts the keys of a profile into the environment"
        }
        ErrorKind::Denied if error.to_string().contains("bucket does not exist") => {
            "check the bucket's name and the endpoint; ghostsync does not create buckets"
        }
        ErrorKind::Denied if error.to_string().starts_with("prune needs") => {
            "give these credentials that right, or prune with others; backups and restores never delete"
        }
        ErrorKind::Denied => CREDENTIALS,
        ErrorKind::Conflict if error.to_string().contains("have it to itself") => {
            "stop everything else that writes to this repository, and run it again"
        }
        ErrorKind::Conflict => {
            "'ghostsync branches' shows whose a branch is; its owner's 'ghostsync release' gives it back"
        }
        ErrorKind::Fenced if error.to_string().contains("below the floor") => {
            "a prune took this backup for dead; run it again"
        }
        ErrorKind::Fenced => {
            "prunes went past this backup again and again; run it again, and prune with a --session-idle"
        }
        ErrorKind::NotFound if opened => "'ghostsync snapshots' and 'ghostsync branches' list what is there",
        ErrorKind::NotFound => "check the URL; 'ghostsync init' creates a repository",
        ErrorKind::Corrupt if !opened => {
            "put config.json back from a copy of the repository; docs/recover-by-hand.md gets files back without it"
        }
        // Its numbers have twenty digits.
        ErrorKind::Corrupt if error.to_string().contains("log/0") => {
            "nothing rebuilds the log: 'ghostsync check' names what to put back from the bucket's versions or a copy; \
             until then docs/recover-by-hand.md gets files back"
        }
        ErrorKind::Corrupt => {
            "'ghostsync check --read-data' names what is damaged, and what that affects; 'ghostsync repair' rebuilds \
             what can be rebuilt, 'restore --keep-going' restores the rest"
        }
        ErrorKind::Unsupported => "use a newer version of ghostsync",
        ErrorKind::Unknown if error.to_string().contains("nobody may write") => {
            "keep everything else that writes away, and run it again once the store answers"
        }
        ErrorKind::Unknown => {
            "the snapshot may or may not be there; 'ghostsync snapshots' tells once the store answers, and running it \
             again does the work once"
        }
        ErrorKind::Interrupted => "nothing half done is left behind; run it again",
        ErrorKind::Internal => "this is a defect of ghostsync; please report it",
        ErrorKind::LocalIo => {
            let full = |error: &std::io::Error| {
                matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
            };
            return error
                .io_error()
                .is_some_and(full)
                .then_some("the disk is full: free bytes or inodes, run it again");
        }
        _ => return None,
    };
    Some(hint)
}

/// What a person can do about restored files that changed while the snapshot was made: their bytes are those that were
/// stored, so that a check finds nothing.
pub const FOR_UNSTABLE: &str = "have the app verify them (a SQLite database: PRAGMA integrity_check); if one is broken, \
    restore an older snapshot ('ghostsync snapshots')";

/// What a person can do about a finding of `doctor`, if there is something to do.
pub fn for_finding(finding: &Finding) -> Option<&'static str> {
    if finding.severity == Severity::Good {
        return None;
    }
    let problem = finding.severity == Severity::Problem;
    match finding.subject {
        Subject::Create => Some("use another store, or commit mode detect ('ghostsync init --commit-mode detect')"),
        Subject::Visibility => Some("use another store"),
        Subject::Provider => Some("look at the bucket's lifecycle rules: none may expire objects under log/ or packs/"),
        Subject::Clock => Some("set this machine's clock"),
        Subject::Cache => Some("free some room, or name another folder with --cache-dir"),
        Subject::Repository if finding.kind == Some(ErrorKind::Unsupported) => Some("use a newer version of ghostsync"),
        Subject::Repository if problem => Some("put config.json back from a copy; see docs/recover-by-hand.md"),
        Subject::Repository => Some("'ghostsync init' makes one; check the URL if there should be one already"),
        Subject::Log => Some("'ghostsync check' names what is damaged, and what that affects"),
        Subject::Hint if problem => Some("'ghostsync check', and look for who rolled the bucket back"),
        Subject::Hint => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(guard: Guard, plan: Option<&str>) -> Refusal {
        Refusal {
            guard,
            reason: "because".into(),
            limit: None,
            actual: Some(7),
            paths: Vec::new(),
            plan: plan.map(|plan| plan.parse().expect("a plan")),
        }
    }

    #[test]
    fn the_command_that_goes_on() {
        let words: Vec<OsString> = "g backup d --strict".split(' ').map(OsString::from).collect();
        let backup = Action::Backup { branch: "main".into(), restore: Some(vec!["restore it".into()]) };
        let restore = Action::Restore { destination: "d".into() };
        let line = |guard, plan, action: &Action| {
            going_on(&refusal(guard, plan), action, &words).map(|words| shell::quote(&words))
        };
        let plan = Some("0123456789abcdef");
        let overridden = Some("g backup d --strict --override 0123456789abcdef".to_owned());
        assert_eq!(line(Guard::MaxDelete, plan, &backup), overridden);
        assert_eq!(line(Guard::MaxChange, plan, &backup), overridden);
        assert_eq!(line(Guard::Excluded, plan, &backup), overridden);
        assert_eq!(line(Guard::Empty, plan, &backup), Some("g backup d --strict --allow-empty".into()));
        assert_eq!(line(Guard::Unreadable, None, &backup), Some("g backup d".into()));
        assert_eq!(line(Guard::Receipt, None, &backup), Some("'restore it'".into()));
        assert_eq!(line(Guard::Source, None, &backup), None);
        assert_eq!(line(Guard::Exclusive, None, &Action::Other), Some("g backup d --strict --exclusive".into()));
        assert_eq!(line(Guard::Destination, None, &restore), Some("g backup d --strict --overwrite changed".into()));
        assert_eq!(line(Guard::MaxDelete, None, &restore), Some("g backup d --strict --max-delete 7".into()));
        let repair = Action::Repair { branch: "main".into() };
        assert_eq!(line(Guard::Empty, plan, &repair), overridden);
        let if_missing = Some("g backup d --strict --if-missing".into());
        let init = |is_there| Action::Init { is_there, in_detect: vec!["in detect".into()] };
        assert_eq!(line(Guard::Init, None, &init(true)), if_missing);
        assert_eq!(line(Guard::Init, None, &init(false)), None);
        assert_eq!(line(Guard::Probe, None, &init(false)), Some("'in detect'".into()));
    }

    #[test]
    fn an_interrupted_restore_goes_on() {
        let restore = Action::Restore { destination: "d".into() };
        let last = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            interrupted(&restore, &words).pop()
        };
        assert_eq!(last("g restore d"), Some("to go on: g restore d --overwrite changed".into()));
        assert_eq!(last("g restore d --delete"), Some("to go on: g restore d --delete".into()));
        assert_eq!(last("g restore --overwrite=always d"), Some("to go on: g restore --overwrite=always d".into()));
        assert_eq!(interrupted(&Action::Other, &[]), ["interrupted: nothing half done, run it again"]);
    }
}
