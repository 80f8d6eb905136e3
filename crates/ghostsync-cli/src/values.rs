//! What people write after a flag: sizes, durations, times, snapshots and paths inside them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;
use std::time::Duration;

use ghostsync_core::repository::Selector;
use ghostsync_core::tree_path::TreePath;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;

/// A number of bytes: `64MiB`, `2GB`, `512`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not a size: {text:?}; write 512, 64MiB or 2GB");
        let (number, unit) = split_unit(text);
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1000,
            "mb" => 1000_u64.pow(2),
            "gb" => 1000_u64.pow(3),
            "tb" => 1000_u64.pow(4),
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(|| format!("too large a size: {text:?}"))
    }
}

/// A length of time: `90s`, `24h`, `30d`, `500ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not a duration: {text:?}; write 90s, 15m, 24h or 30d");
        let (number, unit) = split_unit(text);
        let milliseconds: u64 = match unit {
            "" if number == "0" => 1,
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 24 * 3_600_000,
            "w" => 7 * 24 * 3_600_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let milliseconds = number.checked_mul(milliseconds).ok_or_else(|| format!("too long a duration: {text:?}"))?;
        Ok(Self(Duration::from_millis(milliseconds)))
    }
}

macro_rules! from_string {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )*};
}
from_string!(Size, Span);

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(end)
}

/// Parses RFC 3339, with the zone of this machine if the text names none; a date alone is its midnight.
pub fn parse_time(text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    let wrong = || format!("not a time: {text:?}; write 2026-01-31T18:30:00Z, 2026-01-31T18:30 or 2026-01-31");
    // A civil time would silently ignore an offset, so texts with one come first.
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let civil: DateTime = text.parse().map_err(|_| wrong())?;
    zone.to_timestamp(civil).map_err(|_| wrong())
}

/// Parses `ID`, `latest`, `latest~N` or `@TIME`.
pub fn parse_selector(text: &str) -> Result<Selector, String> {
    match text.strip_prefix('@') {
        Some(time) => parse_time(time, &TimeZone::system()).map(Selector::At),
        None => text.parse().map_err(|error: ghostsync_core::Error| error.to_string()),
    }
}

/// Parses a path inside a snapshot, with or without slashes at its ends; `.` and the empty path are the root.
pub fn parse_tree_path(text: &OsStr) -> Result<TreePath, String> {
    let mut bytes = text.as_bytes();
    while let Some(rest) = bytes.strip_prefix(b"./").or_else(|| bytes.strip_prefix(b"/")) {
        bytes = rest;
    }
    while let Some(rest) = bytes.strip_suffix(b"/") {
        bytes = rest;
    }
    let bytes = if bytes == b"." { b"" } else { bytes };
    TreePath::parse(bytes).map_err(|error| error.to_string())
}

/// A snapshot, and a path inside it: `SNAP` or `SNAP:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPath {
    /// The snapshot.
    pub selector: Selector,
    /// The path.
    pub path: TreePath,
}

/// Parses `SNAP[:PATH]`. A time contains colons itself: it is as long as it can be.
pub fn parse_snapshot_path(text: &OsStr) -> Result<SnapshotPath, String> {
    let (snapshot, path) = split_snapshot_path(text.as_bytes());
    let snapshot = std::str::from_utf8(snapshot).map_err(|_| "a snapshot's name is not UTF-8".to_owned())?;
    let selector = parse_selector(snapshot)?;
    Ok(SnapshotPath { selector, path: parse_tree_path(&OsString::from_vec(path.to_vec()))? })
}

fn split_snapshot_path(text: &[u8]) -> (&[u8], &[u8]) {
    let colons = || (0..text.len()).filter(|at| text[*at] == b':');
    let is_time = |end: &usize| {
        let time = std::str::from_utf8(&text[1..*end]);
        time.is_ok_and(|time| parse_time(time, &TimeZone::UTC).is_ok())
    };
    let end = match text.first() {
        Some(b'@') => std::iter::once(text.len()).chain(colons().collect::<Vec<_>>().into_iter().rev()).find(is_time),
        _ => colons().next(),
    };
    match end {
        Some(end) if end < text.len() => (&text[..end], &text[end + 1..]),
        _ => (text, b""),
    }
}

/// A tag: `key=value`.
pub fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("not a tag: {text:?}; write key=value")),
    }
}

/// Tags that are meant: those of a key with this value, or with any.
pub fn parse_tag_pattern(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        Some(_) => parse_tag(text).map(|(key, value)| (key, Some(value))),
        None if !text.is_empty() => Ok((text.to_owned(), None)),
        None => Err("not a tag: write key or key=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let table = [("0", 0), ("512", 512), ("64MiB", 64 << 20), ("2GB", 2_000_000_000), ("1kib", 1024), ("7B", 7)];
        for (text, bytes) in table {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "1.5GB", "-1", "64M", "1 MB", "1MiBs", "99999999999TB", "18446744073709551616"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in
            [("90s", 90), ("24h", 86_400), ("30d", 2_592_000), ("5m", 300), ("0", 0), ("1w", 604_800)]
        {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(seconds))), "{text}");
        }
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        for text in ["", "s", "90", "1.5h", "1y", "-3s", "1h30m", "999999999999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_take_the_local_zone_only_where_they_name_none() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let at = |text: &str| parse_time(text, &zone).map(|time| time.to_string());
        assert_eq!(at("2026-01-31T18:30:00Z").as_deref(), Ok("2026-01-31T18:30:00Z"));
        assert_eq!(at("2026-01-31T18:30:00+05:00").as_deref(), Ok("2026-01-31T13:30:00Z"));
        assert_eq!(at("2026-01-31T18:30:00").as_deref(), Ok("2026-01-31T16:30:00Z"));
        assert_eq!(at("2026-01-31 18:30").as_deref(), Ok("2026-01-31T16:30:00Z"));
        assert_eq!(at("2026-01-31").as_deref(), Ok("2026-01-30T22:00:00Z"));
        for text in ["", "yesterday", "18:30", "2026-13-01", "2026-01-31T18:30:00X"] {
            assert!(at(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_keeps_its_colons() {
        let split = |text: &'static str| {
            let (snapshot, path) = split_snapshot_path(text.as_bytes());
            (String::from_utf8_lossy(snapshot), String::from_utf8_lossy(path))
        };
        for (text, snapshot, path) in [
            ("latest", "latest", ""),
            ("latest:a:b", "latest", "a:b"),
            ("latest~2:", "latest~2", ""),
            ("@2026-01-31T18:30:00Z", "@2026-01-31T18:30:00Z", ""),
            ("@2026-01-31T18:30:00Z:a/b", "@2026-01-31T18:30:00Z", "a/b"),
            ("@2026-01-31T18:30:a", "@2026-01-31T18:30", "a"),
            ("@2026-01-31T18:30:15", "@2026-01-31T18:30:15", ""),
            ("@2026-01-31:15", "@2026-01-31", "15"),
            ("@2026-01-31T18:30:00+02:00:x", "@2026-01-31T18:30:00+02:00", "x"),
        ] {
            assert_eq!(split(text), (snapshot.into(), path.into()), "{text}");
        }
    }

    #[test]
    fn paths_inside_a_snapshot() {
        let path = |text: &str| parse_tree_path(OsStr::new(text)).map(|path| path.to_string());
        for (text, parsed) in [("", ""), ("/", ""), (".", ""), ("./a/", "a"), ("/a/b", "a/b"), ("a", "a")] {
            assert_eq!(path(text).as_deref(), Ok(parsed), "{text}");
        }
        for text in ["..", "a/../b", "a//b"] {
            assert!(path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tags() {
        assert_eq!(parse_tag("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_tag("a").is_err() && parse_tag("=b").is_err());
        assert_eq!(parse_tag_pattern("a"), Ok(("a".into(), None)));
        assert_eq!(parse_tag_pattern("a=b=c"), Ok(("a".into(), Some("b=c".into()))));
        assert!(parse_tag_pattern("").is_err() && parse_tag_pattern("=b").is_err());
    }
}
