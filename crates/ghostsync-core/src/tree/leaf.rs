//! Decoded leaves of a tree, and their entries as they are handed on: without a copy of each, and for another time.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use super::AtPath;
use crate::format::page::{ChunkPlacement, PageRef, Placed, Placement};
use crate::id::PageId;
use crate::tree_path::TreePath;

/// The entries of a leaf.
pub(crate) type Leaf = Arc<Vec<Placed>>;

/// The leaves that are kept for another time take no more memory than this.
const MAX_KEPT_BYTES: usize = 24 << 20;

/// An entry where it stands on its leaf, which stays as long as one of them is held.
#[derive(Debug, Clone)]
pub(crate) struct LeafEntry {
    leaf: Leaf,
    at: usize,
}

impl LeafEntry {
    /// Whether none follows it on its leaf.
    pub(crate) fn is_last(&self) -> bool {
        self.at + 1 == self.leaf.len()
    }
}

impl Deref for LeafEntry {
    type Target = Placed;

    fn deref(&self) -> &Placed {
        &self.leaf[self.at]
    }
}

impl From<Placed> for LeafEntry {
    fn from(placed: Placed) -> Self {
        Self { leaf: Arc::new(vec![placed]), at: 0 }
    }
}

impl AtPath for LeafEntry {
    fn path(&self) -> &TreePath {
        &self.entry.path
    }
}

/// Goes through the entries of a leaf.
#[derive(Debug, Default)]
pub(crate) struct LeafEntries {
    leaf: Leaf,
    next: usize,
}

impl LeafEntries {
    pub(crate) fn of(leaf: Leaf) -> Self {
        Self { leaf, next: 0 }
    }
}

impl Iterator for LeafEntries {
    type Item = LeafEntry;

    fn next(&mut self) -> Option<LeafEntry> {
        let at = self.next;
        (at < self.leaf.len()).then(|| {
            self.next += 1;
            LeafEntry { leaf: Arc::clone(&self.leaf), at }
        })
    }
}

/// Leaves that were read, for who goes through the same tree again: the first ones, as far as they fit. (The last ones
/// would be gone each time before their turn comes.)
#[derive(Debug, Default)]
pub(crate) struct Leaves {
    leaves: HashMap<PageId, (PageRef, Leaf)>,
    bytes: usize,
}

impl Leaves {
    /// Keeps a leaf if it fits.
    pub(crate) fn keep(&mut self, page: &PageRef, leaf: &Leaf) {
        let bytes = leaf.iter().map(bytes_of).sum::<usize>();
        if self.bytes.saturating_add(bytes) <= MAX_KEPT_BYTES && !self.leaves.contains_key(&page.page) {
            self.bytes += bytes;
            self.leaves.insert(page.page, (*page, Arc::clone(leaf)));
        }
    }

    /// Gives a leaf back, if it is this very copy of it: another may place the same content elsewhere.
    pub(crate) fn take(&mut self, page: &PageRef) -> Option<Leaf> {
        let (kept, leaf) = self.leaves.remove(&page.page)?;
        (kept == *page).then_some(leaf)
    }
}

/// About what an entry takes; attributes, link targets and long lists are rare.
fn bytes_of(placed: &Placed) -> usize {
    let chunks = match &placed.content {
        Placement::Chunks(chunks) => chunks.len(),
        Placement::List(_) => 0,
    };
    let entry = &placed.entry;
    let xattrs: usize = entry.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
    size_of::<Placed>() + entry.path.as_bytes().len() + xattrs + chunks * size_of::<ChunkPlacement>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, EntryKind, FileTime};
    use crate::format::page::PagePlacement;
    use crate::id::{FrameHash, PackName, SessionId};

    fn page(id: u8, offset: u64) -> PageRef {
        let pack = PackName { begin: 1, session: SessionId::from_bytes([2; 16]), number: 3 };
        let placement = PagePlacement { pack, offset, bytes: 4, frame: FrameHash::from_bytes([5; 32]) };
        PageRef { page: PageId::from_bytes([id; 32]), level: 0, placement }
    }

    fn leaf(path_bytes: usize) -> Leaf {
        let names = vec!["n".repeat(200); path_bytes / 200].join("/");
        let entry = Entry {
            path: TreePath::parse(names).expect("a path"),
            kind: EntryKind::Directory,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: FileTime { seconds: 0, nanoseconds: 0 },
            xattrs: Vec::new(),
            link: None,
            unread: false,
            unstable: false,
        };
        Arc::new(vec![Placed { entry, content: Placement::Chunks(Vec::new()) }])
    }

    #[test]
    fn a_leaf_is_given_back_once_and_to_its_own_reference() {
        let mut leaves = Leaves::default();
        leaves.keep(&page(1, 0), &leaf(200));
        leaves.keep(&page(2, 0), &leaf(200));
        assert_eq!(leaves.take(&page(1, 0)), Some(leaf(200)));
        assert_eq!(leaves.take(&page(1, 0)), None);
        assert_eq!(leaves.take(&page(2, 8)), None, "another copy may place its chunks elsewhere");
    }

    #[test]
    fn only_the_first_leaves_that_fit_are_kept() {
        let mut leaves = Leaves::default();
        let large: Leaf = Arc::new(vec![leaf(60_000)[0].clone(); 10]);
        (0..=u8::MAX).for_each(|id| leaves.keep(&page(id, 0), &large));
        let given: Vec<u8> = (0..=u8::MAX).filter(|id| leaves.take(&page(*id, 0)).is_some()).collect();
        assert_eq!(given, (0..=40).collect::<Vec<_>>(), "of 600 kB and a little each");
    }
}
