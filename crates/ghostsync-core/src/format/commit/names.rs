//! What branches and owners may be called.

use crate::format::FormatError;

/// The most bytes of a branch's name.
const MAX_BRANCH_BYTES: usize = 200;
/// The most bytes of the name of a branch that people write to: `quarantine/…/<session>` and
/// `fork/…/<owner>-<session>` must fit into [`MAX_BRANCH_BYTES`] too.
const MAX_WRITTEN_BRANCH_BYTES: usize = 96;
/// The most bytes of an owner's name.
const MAX_OWNER_BYTES: usize = 63;

fn is_part(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
        && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// Checks the name of a branch: parts of `[a-z0-9._-]` joined by slashes, 200 bytes in all.
///
/// # Errors
/// [`FormatError::Rule`] if it is not one.
pub fn check_branch_name(name: &str) -> Result<(), FormatError> {
    if name.len() <= MAX_BRANCH_BYTES && name.split('/').all(is_part) {
        return Ok(());
    }
    let rule = "is not made of parts of a-z, 0-9, '.', '_', '-' joined by '/'";
    Err(FormatError::rule("branch name", format!("{name:?} {rule}, {MAX_BRANCH_BYTES} bytes in all")))
}

/// Checks the name of a branch that somebody wants to write to: 96 bytes at most, and not one that is made for him.
///
/// # Errors
/// [`FormatError::Rule`] if it is not one.
pub fn check_written_branch_name(name: &str) -> Result<(), FormatError> {
    check_branch_name(name)?;
    let rule = |rule: String| Err(FormatError::rule("branch name", rule));
    if name.len() > MAX_WRITTEN_BRANCH_BYTES {
        return rule(format!("{name:?} has {} bytes, at most {MAX_WRITTEN_BRANCH_BYTES} are allowed", name.len()));
    }
    match name.split('/').next() {
        Some(reserved @ ("quarantine" | "fork" | "wip")) => {
            rule(format!("branches under {reserved}/ are made by ghostsync itself"))
        }
        _ => Ok(()),
    }
}

/// Checks the name of an owner: 1 to 63 of `[a-z0-9._-]`.
///
/// # Errors
/// [`FormatError::Rule`] if it is not one.
pub fn check_owner_name(name: &str) -> Result<(), FormatError> {
    if name.len() <= MAX_OWNER_BYTES && is_part(name) {
        return Ok(());
    }
    let rule = format!("{name:?} is not made of 1 to {MAX_OWNER_BYTES} of a-z, 0-9, '.', '_', '-'");
    Err(FormatError::rule("owner name", rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    #[test]
    fn branch_names() {
        for name in ["main", "fork/main/pod-1", "a.b_c/1"] {
            assert!(check_branch_name(name).is_ok(), "{name}");
        }
        for name in ["", "/", "a/", "A", "a b", "..", "a/../b", "ä"] {
            assert!(check_branch_name(name).is_err(), "{name}");
        }
        for name in ["fork/main/pod-1", "fork", "wip/x", "quarantine/main", &"a".repeat(97)] {
            assert!(check_branch_name(name).is_ok() && check_written_branch_name(name).is_err(), "{name}");
        }
        assert!(check_written_branch_name(&"a".repeat(96)).is_ok());
    }

    #[test]
    fn the_longest_names_make_a_fork_and_a_quarantine() {
        let (branch, owner, session) = ("a".repeat(96), "b".repeat(63), SessionId::from_bytes([0; 16]));
        assert!(check_owner_name(&owner).is_ok() && check_owner_name(&"b".repeat(64)).is_err());
        assert!(check_owner_name("").is_err() && check_owner_name("a/b").is_err());
        assert!(check_branch_name(&format!("fork/{branch}/{owner}-{session}")).is_ok());
        assert!(check_branch_name(&format!("quarantine/{branch}/{session}")).is_ok());
    }
}
