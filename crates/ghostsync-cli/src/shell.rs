//! Command lines as a shell takes them: the one that was given, changed and quoted so that it can be pasted.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Quotes words for a POSIX shell; names that are no plain text need `$'…'`, which bash, zsh and ksh know.
pub fn quote(words: &[OsString]) -> String {
    words.iter().map(|word| quote_word(word)).collect::<Vec<_>>().join(" ")
}

fn quote_word(word: &OsStr) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.bytes().all(plain) => text.to_owned(),
        Some(text) if !text.chars().any(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => {
            let escaped = word.as_bytes().iter().map(|byte| match byte {
                b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
                b' '..=b'~' => char::from(*byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            });
            // A digit after a hexadecimal escape would be taken as a part of it by some shells; two digits are the
            // most that bash and zsh read.
            format!("$'{}'", escaped.collect::<String>())
        }
    }
}

/// The words with a flag, and its value if it has one, in the place of every earlier mention of that flag.
pub fn with_flag(words: &[OsString], flag: &str, value: Option<&str>) -> Vec<OsString> {
    let mut changed = without_flag(words, flag, value.is_some());
    let end = changed.iter().position(|word| word == "--").unwrap_or(changed.len());
    let added = std::iter::once(flag).chain(value).map(OsString::from);
    changed.splice(end..end, added);
    changed
}

/// The words without a flag; `valued` if a value follows it.
pub fn without_flag(words: &[OsString], flag: &str, valued: bool) -> Vec<OsString> {
    let mut kept = Vec::with_capacity(words.len());
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            kept.push(word.clone());
            kept.extend(rest.by_ref().cloned());
        } else if word == flag {
            if valued {
                rest.next();
            }
        } else if !(valued && is_assignment(word, flag)) {
            kept.push(word.clone());
        }
    }
    kept
}

fn is_assignment(word: &OsStr, flag: &str) -> bool {
    word.as_bytes().strip_prefix(flag.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_shell_reads_the_same_words_again() {
        let odd: Vec<OsString> =
            ["", "a b", "it's", "$HOME `x` \"y\"", "*", "~", "a;b", "--x=ü", "new\nline\t'\\", "#"]
                .map(OsString::from)
                .into_iter()
                .chain([OsString::from_vec(b"bytes\xff\x01a".to_vec())])
                .collect();
        let script = format!("printf '%s\\0' {}", quote(&odd));
        let output = std::process::Command::new("bash").arg("-c").arg(&script).output().expect("bash runs");
        let read: Vec<_> =
            output.stdout.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
        assert_eq!(read.split_last().map(|(_, words)| words.to_vec()), Some(odd), "{script}");
    }

    #[test]
    fn plain_words_stay_plain() {
        assert_eq!(quote(&words("ghostsync backup --max-delete 5% ./a_b")), "ghostsync backup --max-delete 5% ./a_b");
    }

    #[test]
    fn a_flag_replaces_its_earlier_mention() {
        let with = |text: &str| quote(&with_flag(&words(text), "--override", Some("b")));
        assert_eq!(with("g backup d"), "g backup d --override b");
        assert_eq!(with("g backup --override a d"), "g backup d --override b");
        assert_eq!(with("g --override=a backup d -- --override x"), "g backup d --override b -- --override x");
        assert_eq!(quote(&without_flag(&words("g backup --strict d"), "--strict", false)), "g backup d");
        assert_eq!(quote(&with_flag(&words("g --allow-empty d"), "--allow-empty", None)), "g d --allow-empty");
    }
}
