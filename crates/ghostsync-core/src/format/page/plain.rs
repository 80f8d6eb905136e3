//! The plain line of a file or a directory, and the plain line of placements: nearly every line is one, and it is written
//! and read here in a third of the time that it takes a serializer and a parser of JSON.
//!
//! Nothing is refused here. An entry with anything rare, or that breaks a rule, is left to those, and so is a line that
//! is written in any other way, by a single space: they say what is wrong with it.

use serde::Serialize;

use super::lines::ChunkRow;
use crate::entry::{ChunkList, Entry, EntryKind, FileContent, FileTime, MAX_FILE_BYTES};
use crate::id::{ChunkId, ContentHash, IdMap, push_hex};
use crate::tree_path::TreePath;

/// About as many as the row of a chunk has in a line of placements.
const ROW_BYTES: usize = 96;

/// Adds the line of an entry, with its end; `None` if it is no plain one, and then there may be a part of it.
pub(super) fn encode(entry: &Entry, line: &mut Vec<u8>) -> Option<()> {
    let Entry { path, kind, mode, uid, gid, mtime, xattrs, link, unread, unstable } = entry;
    let path = std::str::from_utf8(path.as_bytes()).ok()?;
    if *unread || *unstable || link.is_some() || !xattrs.is_empty() || has_escapes(path.as_bytes()) {
        return None;
    }
    line.reserve(path.len() + 256);
    line.extend_from_slice(b"{\"path\":\"");
    line.extend_from_slice(path.as_bytes());
    let content = match kind {
        EntryKind::File(content) if matches!(content.chunks, ChunkList::None | ChunkList::Whole) => Some(content),
        EntryKind::Directory => None,
        _ => return None,
    };
    line.extend_from_slice(if content.is_some() { b"\",\"kind\":\"file\"" } else { b"\",\"kind\":\"dir\"" });
    put(line, b",\"mode\":", mode)?;
    put(line, b",\"uid\":", uid)?;
    put(line, b",\"gid\":", gid)?;
    put(line, b",\"mtime\":", &(mtime.seconds, mtime.nanoseconds))?;
    if let Some(content) = content {
        if !content.holes.is_empty() || content.size > MAX_FILE_BYTES {
            return None;
        }
        put(line, b",\"size\":", &content.size)?;
        line.extend_from_slice(b",\"hash\":\"");
        push_hex(content.hash.as_bytes(), line);
        line.push(b'"');
    }
    line.extend_from_slice(b"}\n");
    Some(())
}

fn put<T: Serialize>(line: &mut Vec<u8>, name: &[u8], value: &T) -> Option<()> {
    line.extend_from_slice(name);
    serde_json::to_writer(line, value).ok()
}

/// Adds a line of placements of chunks, and of no pages, without its end.
///
/// # Errors
/// Never in practice.
pub(super) fn encode_placements(chunks: &[(ChunkId, ChunkRow)], line: &mut Vec<u8>) -> serde_json::Result<()> {
    line.reserve(chunks.len() * ROW_BYTES + 32);
    let mut before: &[u8] = b"{\"chunks\":{\"";
    for (chunk, row) in chunks {
        line.extend_from_slice(before);
        push_hex(chunk.as_bytes(), line);
        line.extend_from_slice(b"\":");
        serde_json::to_writer(&mut *line, row)?;
        before = b",\"";
    }
    line.extend_from_slice(if chunks.is_empty() { b"{\"chunks\":{},\"pages\":{}}" } else { b"},\"pages\":{}}" });
    Ok(())
}

/// Tells whether there is a byte that ends a text of JSON, or is written in it in another way.
fn has_escapes(text: &[u8]) -> bool {
    // To the end in any case: so the processor takes many bytes at once.
    text.iter().fold(false, |has, byte| has | matches!(byte, b'"' | b'\\' | 0..b' '))
}

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
    let keeps_the_rules =
        matches!(rest.0, b"" | b"\n") && mode <= 0o7777 && nanoseconds < 1_000_000_000 && !(is_file && path.is_root());
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

/// Decodes a line of placements of chunks, and of no pages; `None` for any other.
pub(super) fn decode_placements(line: &[u8]) -> Option<IdMap<ChunkId, ChunkRow>> {
    let mut rest = Rest(line);
    rest.skip(b"{\"chunks\":{")?;
    let mut chunks = IdMap::with_capacity_and_hasher(line.len() / ROW_BYTES, Default::default());
    let mut before: &[u8] = b"\"";
    while rest.skip(before).is_some() {
        let chunk = std::str::from_utf8(rest.text()?).ok()?.parse().ok()?;
        let row = (rest.after(b":[")?, rest.after(b",")?, rest.after(b",")?, rest.after(b",")?, rest.after(b",")?);
        rest.skip(b"]")?;
        chunks.insert(chunk, row);
        before = b",\"";
    }
    (rest.0 == b"},\"pages\":{}}").then_some(chunks)
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
        let (text, rest) = self.0.split_at(memchr::memchr(b'"', self.0)?);
        self.0 = rest.strip_prefix(b"\"")?;
        (!has_escapes(text)).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Hole, Xattr};
    use crate::format::page::decode::parse_placements;
    use crate::format::page::lines::{parse_entry_line, serialize_entry_line};

    fn encode(entry: &Entry) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        super::encode(entry, &mut line)?;
        Some(line)
    }

    /// Entries that are plain but for one thing or another.
    fn any_entry() -> impl Strategy<Value = Entry> {
        let plain = prop::sample::select(PLAIN.to_vec()).prop_map(|line| decode(line).expect("plain"));
        (plain, 0..12_u8, any::<Vec<u8>>()).prop_map(|(mut entry, which, bytes)| {
            let path = TreePath::parse(bytes.clone()).ok();
            match (which, &mut entry.kind) {
                (0, _) => entry.link = path,
                (1, _) => entry.xattrs = vec![Xattr { name: b"user.a".to_vec(), value: bytes }],
                (2, _) => entry.unread = true,
                (3, _) => entry.unstable = true,
                (4, kind) => *kind = EntryKind::Symlink { target: bytes },
                (5, kind) => *kind = EntryKind::Fifo,
                (6, EntryKind::File(content)) => content.holes = vec![Hole { offset: 0, length: 1 }],
                (7, EntryKind::File(content)) => content.chunks = ChunkList::Inline(vec![ChunkId::of(&bytes)]),
                (8, _) => entry.mtime.seconds = -1,
                _ => entry.path = path.unwrap_or_default(),
            }
            entry
        })
    }

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
            let written = encode(&entry).expect(line);
            assert_eq!(written, [line.as_bytes(), b"\n"].concat());
            assert_eq!(written, serialize_entry_line(&entry).expect("a form"));
            assert_eq!(decode(std::str::from_utf8(&written).expect("text")), Some(entry));
        }
    }

    const PLACEMENTS: [&str; 3] = [
        r#"{"chunks":{},"pages":{}}"#,
        r#"{"chunks":{"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262":[0,1,2,3,4]},"pages":{}}"#,
        r#"{"chunks":{"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262":[0,18446744073709,4294967295,3,4],"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef":[4294967295,0,0,0,0]},"pages":{}}"#,
    ];

    #[test]
    fn plain_placements_are_read_as_the_parser_reads_them() {
        for line in PLACEMENTS {
            let chunks = decode_placements(line.as_bytes()).expect(line);
            assert_eq!(parse_placements(line.as_bytes()).expect("placements").chunks, chunks);
            // In an order of its own where there are several.
            let mut written = Vec::new();
            encode_placements(&chunks.clone().into_iter().collect::<Vec<_>>(), &mut written).expect("writes");
            assert_eq!(decode_placements(&written), Some(chunks));
            assert_eq!(written.len(), line.len());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn what_is_read_of_any_placements_is_what_the_parser_reads(
            line in prop::sample::select(PLACEMENTS.to_vec()),
            at: prop::sample::Index,
            removed in 0..4_usize,
            added in prop::sample::select(vec![
                "", "0", "-1", "99999999999", " ", "\"", "\\", ",", "]", "}", "{", ":", "A", "f", "[1,2,3,4,5]",
                ",\"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\":[9,9,9,9,9]",
            ]),
        ) {
            let at = at.index(line.len() + 1);
            let end = (at + removed).min(line.len());
            let bytes = [&line.as_bytes()[..at], added.as_bytes(), &line.as_bytes()[end..]].concat();
            if let Some(chunks) = decode_placements(&bytes) {
                prop_assert_eq!(parse_placements(&bytes).expect("the parser reads it too").chunks, chunks);
            }
        }

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
            if let Ok(entry) = parse_entry_line(&bytes)
                && let Some(line) = encode(&entry)
            {
                prop_assert_eq!(line, serialize_entry_line(&entry).expect("a form"));
            }
        }

        #[test]
        fn what_is_written_of_any_entry_is_what_the_serializer_writes(entry in any_entry()) {
            if let Some(line) = encode(&entry) {
                prop_assert_eq!(line, serialize_entry_line(&entry).expect("a form"));
            }
        }
    }
}
