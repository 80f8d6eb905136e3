//! Figures, times and entries as people read them.

use ghostsync_core::entry::{Entry, EntryKind, FileTime};
use ghostsync_core::id::SnapshotId;
use ghostsync_core::problem::Problem;
use ghostsync_core::restore::Unstable;
use ghostsync_core::store::RequestCounts;
use ghostsync_core::tree_path::TreePath;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The fewest digits of a snapshot's id that are shown.
const SHORT_ID_DIGITS: usize = 8;

/// A number of bytes: `512 B`, `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// A number and its noun: `1 entry`, `2 entries`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A point in time, in the zone of this machine.
pub(crate) fn time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The time of a file; one that no calendar has is shown in seconds since 1970.
pub(crate) fn file_time(file: FileTime) -> String {
    match Timestamp::new(file.seconds, 0) {
        Ok(timestamp) => time(timestamp),
        Err(_) => format!("@{}", file.seconds),
    }
}

/// A path; the root is `.`.
pub(crate) fn path(path: &TreePath) -> String {
    if path.is_root() { ".".to_owned() } else { path.to_string() }
}

/// The beginning of an id that is unique among the others, at least 8 digits.
pub(crate) fn short_id(id: SnapshotId, among: &[SnapshotId]) -> String {
    let text = id.to_string();
    let common = |other: &SnapshotId| text.bytes().zip(other.to_string().bytes()).take_while(|(a, b)| a == b).count();
    let longest = among.iter().filter(|other| **other != id).map(common).max().unwrap_or(0);
    text.chars().take(SHORT_ID_DIGITS.max(longest + 1)).collect()
}

/// The first digits of an id, where a message has no room for all.
pub(crate) fn brief_id(id: SnapshotId) -> String {
    short_id(id, &[])
}

/// An entry as `ls -l` shows it.
pub(crate) fn long_entry(entry: &Entry) -> String {
    let size = match &entry.kind {
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => format!("{},{}", device.major, device.minor),
        _ => entry.size().to_string(),
    };
    let target = match &entry.kind {
        EntryKind::Symlink { target } => format!(" -> {}", shown_bytes(target)),
        _ => String::new(),
    };
    let marks = match (entry.unread, entry.unstable) {
        (true, _) => " (unread: the parent's version)",
        (false, true) => " (changed while it was read)",
        (false, false) => "",
    };
    format!(
        "{} {:>5} {:>5} {size:>12} {} {}{target}{marks}",
        permissions(entry),
        entry.uid,
        entry.gid,
        file_time(entry.mtime),
        path(&entry.path),
    )
}

/// Text that somebody else wrote, on one line: a terminal obeys control characters, so none is printed.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { plain.extend(character.escape_default()) } else { plain.push(character) }
    }
    plain
}

/// Bytes that need not be text, without control characters.
fn shown_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&plain(&chunk.valid().replace('\\', "\\\\")));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn permissions(entry: &Entry) -> String {
    let kind = match entry.kind {
        EntryKind::File(_) => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::CharDevice(_) => 'c',
        EntryKind::BlockDevice(_) => 'b',
        EntryKind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, entry.mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => set,
            (false, true) => unset,
        });
    }
    text
}

/// Requests in one line: `3 put, 1 get`.
pub(crate) fn requests(counts: RequestCounts) -> String {
    let kinds = [
        ("put", counts.put),
        ("get", counts.get),
        ("list", counts.list),
        ("delete", counts.delete),
        ("head", counts.head),
    ];
    let made: Vec<_> =
        kinds.iter().filter(|(_, made)| *made > 0).map(|(kind, made)| format!("{made} {kind}")).collect();
    if made.is_empty() { "no request".to_owned() } else { made.join(", ") }
}

/// A URL with its password masked.
pub(crate) fn without_password(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(mut url) if url.password().is_some() => {
            // It has a password, so it can have another one.
            let _ = url.set_password(Some("***"));
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

/// The first of the problems, a line each.
pub(crate) fn problems(problems: &[Problem], most: usize) -> Vec<String> {
    let mut lines: Vec<_> = problems
        .iter()
        .take(most)
        .map(|problem| {
            let mark = if problem.incomplete { "problem" } else { "note" };
            format!("{mark}: {}: {}", path(&problem.path), plain(&problem.message))
        })
        .collect();
    if problems.len() > most {
        lines.push(format!("… and {} more; -v prints all", problems.len() - most));
    }
    lines
}

/// How many files changed while the snapshot was made, and the first of them; `None` if none did.
pub(crate) fn unstable(unstable: &Unstable) -> Option<String> {
    let (files, named) = (count(unstable.count, "file", "files"), unstable.paths.len() as u64);
    let paths: Vec<String> = unstable.paths.iter().map(path).collect();
    let more = if unstable.count > named { format!(", and {} more", unstable.count - named) } else { String::new() };
    let what = "changed while the snapshot was made, and may mix several states";
    (unstable.count > 0).then(|| format!("{files} {what}: {}{more}", paths.join(", ")))
}

/// Rows under a heading, in columns as wide as their widest cell. The columns whose heading begins with `>` are
/// aligned to the right. Cells may hold what others wrote.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let titles: Vec<String> = heading.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&titles).chain(&rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(heading).zip(&widths).map(|((cell, title), width)| {
            if title.starts_with('>') { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(&titles).chain(&rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_change_their_unit_in_time() {
        let table = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (number, text) in table {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn short_ids_are_unique() {
        let id = |last: u8| {
            let mut bytes = [7; 32];
            bytes[5] = last;
            SnapshotId::from_bytes(bytes)
        };
        let all = [id(1), id(2), SnapshotId::from_bytes([9; 32])];
        assert_eq!(short_id(all[0], &all), "070707070701");
        assert_eq!(short_id(all[2], &all), "09090909");
    }

    #[test]
    fn entries_look_as_ls_shows_them() {
        let mut entry = Entry {
            path: TreePath::parse("a/link").expect("valid"),
            kind: EntryKind::Symlink { target: b"../x\xff".to_vec() },
            mode: 0o4755,
            uid: 1,
            gid: 2,
            mtime: FileTime { seconds: i64::MAX, nanoseconds: 0 },
            xattrs: Vec::new(),
            link: None,
            unread: false,
            unstable: false,
        };
        let line = long_entry(&entry);
        assert!(line.starts_with("lrwsr-xr-x     1     2            0 @9223372036854775807 "), "{line}");
        assert!(line.ends_with("a/link -> ../x\\xff"), "{line}");
        entry.kind = EntryKind::Directory;
        entry.mode = 0o1700;
        assert!(long_entry(&entry).starts_with("drwx-----T "));
    }

    #[test]
    fn a_terminal_is_told_nothing_but_text() {
        assert_eq!(plain("a\u{1b}[2J\r\n\u{9b}ä\\"), "a\\u{1b}[2J\\r\\n\\u{9b}ä\\");
        assert_eq!(shown_bytes(b"\x1b]0;x\x07\\\xff"), "\\u{1b}]0;x\\u{7}\\\\\\xff");
        assert_eq!(table(&["X"], &[vec!["a\nb\u{1b}c".into()]]), ["X", "a\\nb\\u{1b}c"]);
    }

    #[test]
    fn passwords_are_masked() {
        assert_eq!(without_password("https://me:secret@host/x"), "https://me:***@host/x");
        assert_eq!(without_password("s3://bucket/x"), "s3://bucket/x");
        assert_eq!(without_password("a/path"), "a/path");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["abc".into(), "1".into()], vec!["d".into(), "23".into()]];
        assert_eq!(table(&["X", ">N"], &rows), ["X     N", "abc   1", "d    23"]);
    }
}
