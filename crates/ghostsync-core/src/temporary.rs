//! Names of files that are not finished: recognised, so that what a cut run left behind can be swept.

use crate::id::SessionId;

const PREFIX: &[u8] = b".ghostsync-";
const SUFFIX: &[u8] = b".tmp";
const DIGITS: usize = 16;

/// Makes a new random name, `.ghostsync-<16 hex digits>.tmp`.
pub(crate) fn name() -> String {
    format!(".ghostsync-{:.16}.tmp", SessionId::random())
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
