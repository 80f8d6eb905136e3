#![allow(clippy::disallowed_methods, reason = "tests choose their own places")]

use std::path::Path;

use super::*;
use crate::entry::{ChunkList, FileContent, FileTime};
use crate::format::config::Chunker;
use crate::format::page::{Placed, Placement};
use crate::id::ContentHash;

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: TreePath::parse(path).expect("valid"),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: FileTime { seconds: 0, nanoseconds: 0 },
        xattrs: Vec::new(),
        link: None,
        unread: false,
        unstable: false,
    }
}

fn file(path: &str, content: &[u8]) -> Entry {
    let hash = ContentHash::of(content);
    let content = FileContent { size: content.len() as u64, hash, chunks: ChunkList::Whole, holes: Vec::new() };
    entry(path, EntryKind::File(content))
}

#[test]
fn every_way_to_differ() {
    let link = |target: &str| EntryKind::Symlink { target: target.into() };
    let chmod = Entry { mode: 0o600, uid: 1, ..file("a", b"1") };
    let change = |before: Option<Entry>, after: Option<Entry>| compare(before, after).map(|found| found.change);
    assert_eq!(change(None, Some(file("a", b"1"))), Some(Change::Added));
    assert_eq!(change(Some(file("a", b"1")), None), Some(Change::Removed));
    assert_eq!(change(Some(file("a", b"1")), Some(file("a", b"2"))), Some(Change::Changed));
    assert_eq!(change(Some(file("a", b"1")), Some(entry("a", EntryKind::Fifo))), Some(Change::Kind));
    assert_eq!(change(Some(entry("a", link("x"))), Some(entry("a", link("y")))), Some(Change::Changed));
    assert_eq!(change(Some(file("a", b"1")), Some(chmod.clone())), Some(Change::Metadata));
    assert_eq!(change(Some(file("a", b"1")), Some(file("a", b"1"))), None);
    let found = compare(Some(file("a", b"1")), Some(chmod)).expect("differs");
    assert_eq!(found.metadata(), ["mode", "uid"]);
}

#[test]
fn how_a_file_is_cut_is_not_its_content() {
    let EntryKind::File(mut content) = file("a", b"12").kind else { return };
    content.chunks = ChunkList::None;
    content.holes = vec![crate::entry::Hole { offset: 0, length: 1 }];
    assert_eq!(compare(Some(file("a", b"12")), Some(entry("a", EntryKind::File(content)))), None);
}

/// What a comparison of entries with a directory tells, without the root, whose metadata nobody controls.
fn with_directory(before: Vec<Entry>, path: &Path, excludes: &Excludes) -> Vec<(Change, String)> {
    let placed = |entry| Ok(Placed { entry, content: Placement::Chunks(Vec::new()) });
    let mut told = Vec::new();
    let mut tell = |difference: Difference| {
        if !difference.path.is_root() {
            told.push((difference.change, difference.path.to_string()));
        }
        Ok(())
    };
    let before = before.into_iter().map(placed);
    let compared =
        directory::compare_all(before, path, excludes, &Chunker::default(), &Interrupt::default(), &mut tell);
    compared.expect("compares");
    told
}

/// The entry that a file of the directory has.
fn as_it_is(folder: &Path, path: &str, content: &[u8]) -> Entry {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(folder.join(path)).expect("exists");
    let kind = if metadata.is_dir() { EntryKind::Directory } else { file(path, content).kind };
    let mtime = FileTime {
        seconds: metadata.mtime(),
        nanoseconds: u32::try_from(metadata.mtime_nsec()).expect("below a second"),
    };
    let mode = metadata.mode() & 0o7777;
    Entry { mode, uid: metadata.uid(), gid: metadata.gid(), mtime, ..entry(path, kind) }
}

#[test]
fn a_directory_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::create_dir(at.join("d")).expect("made");
    for (name, content) in [("same", "1"), ("touched", "22"), ("rewritten", "new"), ("added", "x"), ("d/hidden", "")] {
        std::fs::write(at.join(name), content).expect("written");
    }
    let earlier = |entry: Entry| Entry { mtime: FileTime { seconds: 1, nanoseconds: 0 }, ..entry };
    let mut before = vec![
        as_it_is(at, "d", b""),
        as_it_is(at, "d/hidden", b""),
        earlier(as_it_is(at, "rewritten", b"old")),
        file("removed", b""),
        as_it_is(at, "same", b"1"),
        earlier(as_it_is(at, "touched", b"22")),
    ];
    before.sort_by(|a, b| a.path.cmp(&b.path));
    let excludes = Excludes { patterns: vec!["hidden".into()], ..Excludes::default() };
    let expected = [
        (Change::Added, "added"),
        (Change::Excluded, "d/hidden"),
        (Change::Removed, "removed"),
        (Change::Changed, "rewritten"),
        (Change::Metadata, "touched"),
    ];
    assert_eq!(with_directory(before, at, &excludes), expected.map(|(change, path)| (change, path.to_owned())));
}

#[test]
fn what_lies_below_an_excluded_directory_is_told_as_excluded() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("d")).expect("made");
    std::fs::create_dir(folder.path().join("unknown")).expect("made");
    let before = vec![entry("d", EntryKind::Directory), file("d/x", b"1"), file("d2", b"")];
    let excludes = Excludes { patterns: vec!["/d".into(), "unknown".into()], ..Excludes::default() };
    let expected = [(Change::Excluded, "d"), (Change::Excluded, "d/x"), (Change::Removed, "d2")];
    let told = with_directory(before, folder.path(), &excludes);
    assert_eq!(told, expected.map(|(change, path)| (change, path.to_owned())));
}

#[test]
fn a_missing_directory_is_an_error_and_not_an_empty_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let compared = directory::compare_all(
        std::iter::empty(),
        &folder.path().join("missing"),
        &Excludes::default(),
        &Chunker::default(),
        &Interrupt::default(),
        &mut |_| Ok(()),
    );
    assert_eq!(compared.map_err(|error| error.kind()), Err(crate::ErrorKind::LocalIo));
}
