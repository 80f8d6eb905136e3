//! The plain line of a file or a directory, as [`entry_line`](super::entry_line) writes it: nearly every line is one,
//! and it is read here in a third of the time that a parser of JSON takes.
//!
//! Nothing is refused here. A line that is written in any other way, by a single space, holds anything rare, or breaks
//! a rule, is left to that parser, which says what is wrong with it.

use crate::entry::{ChunkList, Entry, EntryKind, FileContent, FileTime, MAX_FILE_BYTES};
use crate::id::ContentHash;
use crate::tree_path::TreePath;

/// Decodes a plain line; `None` for any other.
pub(super) fn decode(line: &str) -> Option<Entry> {
    let mut rest = Rest(line.as_bytes());
    rest.skip(b"{\"path\":\"")?;
    let path = TreePath::parse(rest.text()?).ok()?;
    let is_file = rest.skip(b",\"kind\":\"file\"").is_some();
    if !is_file {
        rest.skip(b",\"kind\":\"dir\"")?;
    }
    let mode = rest.after(b",\"mode\":")?;
    let uid = rest.after(b",\"uid\":")?;
    let gid = rest.after(b",\"gid\":")?;
    let seconds = rest.after(b",\"mtime\":[")?;
    let nanoseconds = rest.after(b",")?;
    rest.skip(b"]")?;
    let kind = if is_file {
        let size = rest.after(b",\"size\":").filter(|size| *size <= MAX_FILE_BYTES)?;
        rest.skip(b",\"hash\":\"")?;
        let hash: ContentHash = std::str::from_utf8(rest.text()?).ok()?.parse().ok()?;
        let chunks = if size == 0 { ChunkList::None } else { ChunkList::Whole };
        EntryKind::File(FileContent { size, hash, chunks, holes: Vec::new() })
    } else {
        EntryKind::Directory
    };
    rest.skip(b"}")?;
    let keeps_the_rules = matches!(rest.0, b"" | b"\n")
        && mode <= 0o7777
        && nanoseconds < 1_000_000_000
        && !(is_file && path.is_root());
    keeps_the_rules.then_some(Entry {
        path,
        kind,
        mode,
        uid,
        gid,
        mtime: FileTime { seconds, nanoseconds },
        xattrs: Vec::new(),
        link: None,
        unread: false,
        unstable: false,
    })
}

/// What of a line was not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip(&mut self, expected: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// The number that follows something.
    fn after<T: TryFrom<u64>>(&mut self, expected: &[u8]) -> Option<T> {
        self.skip(expected)?;
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        // So many fit whatever they are, and no number of JSON begins with a zero but zero itself.
        let (number, rest) = self.0.split_at_checked(digits).filter(|_| (1..=19).contains(&digits))?;
        if number[0] == b'0' && digits > 1 {
            return None;
        }
        self.0 = rest;
        let value = number.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
        T::try_from(value).ok()
    }

    /// The rest of a text without anything escaped in it, and the quote at its end.
    fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..b' '))?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\"")?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::page::lines::{entry_line, parse_entry_line};

    const PLAIN: [&str; 4] = [
        r#"{"path":"","kind":"dir","mode":493,"uid":0,"gid":0,"mtime":[1700000000,0]}"#,
        r#"{"path":"dir/ä b","kind":"dir","mode":0,"uid":4294967295,"gid":7,"mtime":[0,999999999]}"#,
        r#"{"path":"a","kind":"file","mode":4095,"uid":1,"gid":2,"mtime":[3,4],"size":0,"hash":"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"}"#,
        r#"{"path":"a/b","kind":"file","mode":420,"uid":1,"gid":2,"mtime":[3,4],"size":9007199254740992,"hash":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}"#,
    ];

    #[test]
    fn plain_lines_are_read_as_the_parser_reads_them() {
        for line in PLAIN {
            let entry = decode(line).expect(line);
            assert_eq!(parse_entry_line(line.as_bytes()).expect("a line"), entry);
            let written = entry_line(&entry).expect("a form");
            assert_eq!(written, [line.as_bytes(), b"\n"].concat());
            assert_eq!(decode(std::str::from_utf8(&written).expect("text")), Some(entry));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn what_is_read_of_any_line_is_what_the_parser_reads(
            line in prop::sample::select(PLAIN.to_vec()),
            at: prop::sample::Index,
            removed in 0..4_usize,
            added in prop::sample::select(vec![
                "", "0", "00", "-", "9", "99999", "1e3", ".5", " ", "\n", "\"", "\\", "\\u0000", "\u{1}", "\u{7f}", "/", "..", "ä",
                ",", "]", "}", "{", ":", "A", "x", ",\"link\":\"a\"", ",\"unread\":true", "null", "184467440737095516150",
            ]),
        ) {
            let at = at.index(line.len() + 1);
            let end = (at + removed).min(line.len());
            let bytes = [&line.as_bytes()[..at], added.as_bytes(), &line.as_bytes()[end..]].concat();
            if let Some(entry) = std::str::from_utf8(&bytes).ok().and_then(decode) {
                prop_assert_eq!(parse_entry_line(&bytes).expect("the parser reads it too"), entry);
            }
        }
    }
}
