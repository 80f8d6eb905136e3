//! Names of files that are not finished: recognised, so that what a cut run left behind can be swept.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::SessionId;

const PREFIX: &[u8] = b".ghostsync-";
const SUFFIX: &[u8] = b".tmp";
const DIGITS: usize = 16;

/// Counts from a random number: random bytes of its own for each of a million files are a system call each.
static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
    let mut half = [0; 8];
    half.copy_from_slice(&SessionId::random().as_bytes()[..8]);
    AtomicU64::new(u64::from_le_bytes(half))
});

/// Makes a new name, `.ghostsync-<16 hex digits>.tmp`, that no other process makes but by a chance of 2^-64 or so.
pub(crate) fn name() -> String {
    format!(".ghostsync-{:016x}.tmp", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Tells whether a name is exactly of that pattern.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    let digits = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
    digits.is_some_and(|digits| {
        digits.len() == DIGITS && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_recognised() {
        let name = name();
        assert!(is_temporary(name.as_bytes()), "{name}");
        for other in ["", ".ghostsync-.tmp", ".ghostsync-0123456789abcde.tmp", ".ghostsync-0123456789ABCDEF.tmp"] {
            assert!(!is_temporary(other.as_bytes()), "{other}");
        }
        assert!(!is_temporary(format!("x{name}").as_bytes()));
        assert!(!is_temporary(format!("{name}x").as_bytes()));
    }
}
