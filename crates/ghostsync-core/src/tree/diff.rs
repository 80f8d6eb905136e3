//! Two streams of entries in, their differences out: one lock-step merge, one page of each side in memory.
//!
//! The streams must be in tree order, as trees and walks are. Nothing is skipped, so equal trees cost as much as
//! different ones; who wants to know only whether they differ compares their ids.

use std::collections::VecDeque;

use crate::entry::{Entry, EntryKind};
use crate::error::Result;
use crate::tree_path::TreePath;

/// In which way a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Only the second side has it.
    Added,
    /// Only the first side has it.
    Removed,
    /// The content of the file, the target of the link, or the number of the device differs.
    Changed,
    /// What it is has changed, such as a file that became a directory.
    Kind,
    /// The content is the same; mode, owner, mtime, extended attributes or hard links differ.
    Metadata,
}

impl Change {
    /// Names the change as it appears in JSON output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Kind => "kind",
            Self::Metadata => "metadata",
        }
    }
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path that differs.
    pub path: TreePath,
    /// In which way.
    pub change: Change,
    /// The entry of the first side.
    pub before: Option<Entry>,
    /// The entry of the second side.
    pub after: Option<Entry>,
}

impl Difference {
    /// The metadata that differ, by the names of their fields; none where a side has no entry.
    #[must_use]
    pub fn metadata(&self) -> Vec<&'static str> {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => changed_metadata(before, after),
            _ => Vec::new(),
        }
    }
}

/// Compares two streams and tells each difference, in tree order. A stream returns some entries at a time, and
/// `None` at its end.
///
/// # Errors
/// Whatever a stream or `each` returns; nothing more is told after that.
pub async fn diff(
    before: impl AsyncFnMut() -> Result<Option<Vec<Entry>>>,
    after: impl AsyncFnMut() -> Result<Option<Vec<Entry>>>,
    mut each: impl FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let mut before = Side::new(before);
    let mut after = Side::new(after);
    loop {
        let pair = match (before.next_path().await?, after.next_path().await?) {
            (None, None) => return Ok(()),
            (Some(first), Some(second)) if first == second => (before.take(), after.take()),
            (Some(first), second) if second.is_none_or(|second| first < second) => (before.take(), None),
            _ => (None, after.take()),
        };
        if let Some(difference) = compare(pair) {
            each(difference)?;
        }
    }
}

struct Side<F> {
    next_page: F,
    page: VecDeque<Entry>,
    ended: bool,
}

impl<F: AsyncFnMut() -> Result<Option<Vec<Entry>>>> Side<F> {
    fn new(next_page: F) -> Self {
        Self { next_page, page: VecDeque::new(), ended: false }
    }

    async fn next_path(&mut self) -> Result<Option<&TreePath>> {
        while self.page.is_empty() && !self.ended {
            match (self.next_page)().await? {
                Some(page) => self.page = page.into(),
                None => self.ended = true,
            }
        }
        Ok(self.page.front().map(|entry| &entry.path))
    }

    fn take(&mut self) -> Option<Entry> {
        self.page.pop_front()
    }
}

fn compare((before, after): (Option<Entry>, Option<Entry>)) -> Option<Difference> {
    let change = match (&before, &after) {
        (None, None) => return None,
        (None, Some(_)) => Change::Added,
        (Some(_), None) => Change::Removed,
        (Some(first), Some(second)) if first.kind.name() != second.kind.name() => Change::Kind,
        (Some(first), Some(second)) if !same_content(&first.kind, &second.kind) => Change::Changed,
        (Some(first), Some(second)) if !changed_metadata(first, second).is_empty() => Change::Metadata,
        _ => return None,
    };
    let path = before.as_ref().or(after.as_ref())?.path.clone();
    Some(Difference { path, change, before, after })
}

/// How a file is cut into chunks, and where its holes are, is not part of its content.
fn same_content(before: &EntryKind, after: &EntryKind) -> bool {
    match (before, after) {
        (EntryKind::File(before), EntryKind::File(after)) => before.size == after.size && before.hash == after.hash,
        (before, after) => before == after,
    }
}

fn changed_metadata(before: &Entry, after: &Entry) -> Vec<&'static str> {
    let fields = [
        ("mode", before.mode != after.mode),
        ("uid", before.uid != after.uid),
        ("gid", before.gid != after.gid),
        ("mtime", before.mtime != after.mtime),
        ("xattrs", before.xattrs != after.xattrs),
        ("link", before.link != after.link),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::entry::{ChunkList, FileContent, FileTime};
    use crate::error::Error;
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

    fn differences(before: Vec<Vec<Entry>>, after: Vec<Vec<Entry>>) -> Vec<(Change, String, Vec<&'static str>)> {
        let (mut before, mut after) = (before.into_iter(), after.into_iter());
        let mut found = Vec::new();
        let compared = diff(async || Ok(before.next()), async || Ok(after.next()), |difference| {
            found.push((difference.change, difference.path.to_string(), difference.metadata()));
            Ok(())
        });
        block_on(compared).expect("no stream fails");
        found
    }

    #[test]
    fn every_way_to_differ() {
        let fifo = EntryKind::Fifo;
        let link = |target: &str| EntryKind::Symlink { target: target.into() };
        let before = vec![
            vec![entry("", EntryKind::Directory), file("changed", b"1"), entry("kind", fifo.clone())],
            vec![],
            vec![entry("link", link("a")), file("metadata", b"1")],
            vec![file("removed", b"1"), file("same", b"1")],
        ];
        let chmod = Entry { mode: 0o600, uid: 1, ..file("metadata", b"1") };
        let after = vec![
            vec![entry("", EntryKind::Directory), file("added", b""), file("changed", b"2"), file("kind", b"1")],
            vec![entry("link", link("b")), chmod, file("same", b"1"), file("zadded", b"")],
        ];
        let expected = [
            (Change::Added, "added", vec![]),
            (Change::Changed, "changed", vec![]),
            (Change::Kind, "kind", vec![]),
            (Change::Changed, "link", vec![]),
            (Change::Metadata, "metadata", vec!["mode", "uid"]),
            (Change::Removed, "removed", vec![]),
            (Change::Added, "zadded", vec![]),
        ];
        assert_eq!(differences(before, after), expected.map(|(change, path, fields)| (change, path.to_owned(), fields)));
    }

    #[test]
    fn an_error_ends_it() {
        let fails = diff(async || Err(Error::invalid("no")), async || Ok(None), |_| Ok(()));
        assert!(block_on(fails).is_err());
        let mut once = Some(vec![file("a", b""), file("b", b"")]);
        let mut told = 0;
        let stops = diff(async || Ok(once.take()), async || Ok(None), |_| {
            told += 1;
            Err(Error::invalid("enough"))
        });
        assert!(block_on(stops).is_err());
        assert_eq!(told, 1);
    }

    proptest! {
        #[test]
        fn as_a_map_would_tell(
            before in prop::collection::btree_map("[ab/]{0,3}", 0_u8..3, 0..12),
            after in prop::collection::btree_map("[ab/]{0,3}", 0_u8..3, 0..12),
            cut in 1_usize..5,
        ) {
            let tree = |map: BTreeMap<String, u8>| -> BTreeMap<TreePath, u8> {
                map.into_iter().filter_map(|(path, content)| Some((TreePath::parse(path).ok()?, content))).collect()
            };
            let (before, after) = (tree(before), tree(after));
            let pages = |tree: &BTreeMap<TreePath, u8>| -> Vec<Vec<Entry>> {
                let entries: Vec<_> = tree.iter().map(|(path, content)| file(&path.to_string(), &[*content])).collect();
                entries.chunks(cut).map(<[_]>::to_vec).collect()
            };
            let mut expected = BTreeMap::new();
            for (path, content) in &before {
                match after.get(path) {
                    None => { expected.insert(path.clone(), Change::Removed); }
                    Some(other) if other != content => { expected.insert(path.clone(), Change::Changed); }
                    Some(_) => {}
                }
            }
            for path in after.keys().filter(|path| !before.contains_key(path)) {
                expected.insert(path.clone(), Change::Added);
            }
            let found: Vec<_> =
                differences(pages(&before), pages(&after)).into_iter().map(|(change, path, _)| (path, change)).collect();
            let expected: Vec<_> = expected.into_iter().map(|(path, change)| (path.to_string(), change)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
