//! What a person can do about an error in a pod: nobody runs anything again there, and what is set stands in a manifest.
//! Where a pod is no different, the hint is that of the command `ghostsync`.

use ghostsync_cli::hint;
use ghostsync_core::guard::Guard;
use ghostsync_core::{Error, ErrorKind};

/// A hint for an error of `restore` or `sync`.
pub(crate) fn for_error(error: &Error) -> Option<&'static str> {
    let text = error.to_string();
    let is_full =
        |io: &std::io::Error| matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    match error.kind() {
        ErrorKind::Refused => error.refusal().and_then(|refusal| for_refusal(refusal.guard, &text)),
        ErrorKind::NotFound if text.contains("has no snapshot") => {
            Some("if this is not the first boot of this branch, --repo or --branch is wrong")
        }
        ErrorKind::NotFound => Some("check --repo; 'ghostsync init' creates a repository, a pod never does"),
        ErrorKind::Unavailable => Some("nothing half done is left behind, and it is tried again"),
        ErrorKind::Denied if hint::for_error(error, true) == Some(hint::CREDENTIALS) => Some(
            "check the store's variables (AWS_*, GOOGLE_*, AZURE_*, WEBDAV_*) or their files in --credentials-dir, and \
             what these credentials may do",
        ),
        ErrorKind::LocalIo if error.io_error().is_some_and(is_full) => {
            Some("the disk of the volume is full: free bytes or inodes, or give it more; it is tried again")
        }
        ErrorKind::LocalIo if text.contains("control socket") => Some(
            "the state folder is a volume of its own, mounted by 'restore' and 'sync' and written by the same user",
        ),
        ErrorKind::Interrupted => None,
        _ => hint::for_error(error, !text.contains("config.json")),
    }
}

fn for_refusal(guard: Guard, text: &str) -> Option<&'static str> {
    match guard {
        Guard::Receipt if text.contains("--genesis") => {
            Some("check --repo; if this repository is the right one, its id belongs into --genesis")
        }
        Guard::Receipt => Some(
            "'restore' writes the receipt, and must have ended well before 'sync' begins, with the same --repo, --branch, \
             --path and --state-dir",
        ),
        Guard::Destination => Some(
            "nothing there was touched: check --path, --branch and --state-dir; what is to be kept must be moved away \
             before the directory is restored, or saved with 'ghostsync backup'",
        ),
        Guard::Source | Guard::Empty => Some("check --path, and what has happened to the directory; it is tried again"),
        Guard::MaxDelete | Guard::MaxChange | Guard::Excluded => Some(
            "put back what is missing, or raise the cap while this is saved; with --on-refusal quarantine it would be \
             kept, and a person could promote it",
        ),
        Guard::Exclusive => Some(
            "a pod cannot promise that: leave --keep-… and --prune out, and run 'ghostsync forget --exclusive' by hand while \
             no pod writes",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_of(kind: ErrorKind, text: &str) -> String {
        for_error(&Error::new(kind, text.to_owned())).unwrap_or_default().to_owned()
    }

    #[test]
    fn a_hint_names_what_a_pod_has() {
        for (kind, text, says) in [
            (ErrorKind::NotFound, "branch trunk has no snapshot", "--branch"),
            (ErrorKind::NotFound, "there is no repository at s3://b/p", "'ghostsync init'"),
            (ErrorKind::Denied, "cannot read config.json in s3://b/p: access denied", "--credentials-dir"),
            (ErrorKind::Denied, "cannot read config.json in s3://b/p: the bucket does not exist", "bucket's name"),
            (ErrorKind::Unavailable, "no route", "tried again"),
            (ErrorKind::LocalIo, "cannot make the control socket /run/x: Permission denied", "the same user"),
            (ErrorKind::Corrupt, "config.json is damaged", "put config.json back"),
        ] {
            let hint = hint_of(kind, text);
            assert!(hint.contains(says), "{text}: {hint}");
            assert!(!hint.contains("run it again") && !hint.contains("ghostsync snapshots"), "{text}: {hint}");
        }
        assert_eq!(hint_of(ErrorKind::Interrupted, "interrupted"), "");
    }

    #[test]
    fn a_disk_that_is_full_is_not_told_to_be_run_again() {
        let full = std::io::Error::new(std::io::ErrorKind::StorageFull, "no room");
        let hint = for_error(&Error::new(ErrorKind::LocalIo, full)).unwrap_or_default();
        assert!(hint.contains("volume") && !hint.contains("run it again"), "{hint}");
    }
}
