//! A stream of entries as pages, cut where the names say, bottom up.
//!
//! Pages go to a [`PageStore`], which may already have one of the same id: an unchanged part of a tree then costs
//! nothing. A page above the leaves holds at least two lines unless it is the last of its level, so that every
//! level is at most half as long as the one below, whatever the names hash to.

use std::collections::VecDeque;

use super::LeafEntry;
use crate::entry::{ChunkList, MAX_INLINE_CHUNKS};
use crate::error::{Error, Result};
use crate::format::page::{
    Child, ChunkPlacement, ListChild, PageBuilder, PageRef, Placed, Placement, child_line_bytes, ends_list_page,
    ends_tree_page, put_entry_line,
};
use crate::id::ChunkId;
use crate::tree_path::TreePath;

/// Leaves that may be on their way into a pack.
const LEAVES_AHEAD: usize = 8;

/// Takes finished pages.
pub(crate) trait PageStore {
    /// Stores a page, unless a copy is known that may be referred to, and tells where it lies.
    fn store(&mut self, level: u8, page: &PageBuilder) -> Result<PageRef>;

    /// Begins to store one; no more than a few may be begun and not stored.
    fn begin(&mut self, level: u8, page: PageBuilder) -> Result<()>;

    /// Waits until the first of those that were begun is stored, and tells where it lies.
    fn stored(&mut self) -> Result<PageRef>;
}

/// A tree whose pages are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenTree {
    /// Its root page.
    pub(crate) root: PageRef,
    /// Entries, without the root and sockets.
    pub(crate) entries: u64,
    /// Bytes of content.
    pub(crate) bytes: u64,
}

/// Cuts a stream of entries into pages.
#[derive(Debug, Default, Clone)]
pub(crate) struct TreeWriter {
    levels: Vec<Level>,
    /// Leaves that were begun: what the level above is to say of them.
    begun: VecDeque<Begun>,
    /// The line of an entry, for as long as it is made.
    line: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Begun {
    last: TreePath,
    entries: u64,
    bytes: u64,
}

/// One level of a tree while it is written: the page that is being filled, and the last one that was finished.
#[derive(Debug, Clone)]
struct Level {
    page: PageBuilder,
    last: TreePath,
    entries: u64,
    bytes: u64,
    finished_pages: u64,
    finished: Option<Child>,
}

impl Level {
    fn new(number: u8) -> Self {
        let page = PageBuilder::tree(number);
        Self { page, last: TreePath::root(), entries: 0, bytes: 0, finished_pages: 0, finished: None }
    }
}

impl TreeWriter {
    /// Adds the next entry in tree order.
    ///
    /// # Errors
    /// `Internal` if it is out of order, `Invalid` if it is too large for a page, or the page store's.
    pub(crate) fn push(&mut self, placed: &Placed, pages: &mut dyn PageStore) -> Result<()> {
        self.add(placed, ends_tree_page(0, &placed.entry.path), pages)
    }

    /// The same, of an entry that is on a leaf already: one that others follow there ends no page.
    ///
    /// # Errors
    /// As of [`push`](Self::push).
    pub(crate) fn push_kept(&mut self, kept: &LeafEntry, pages: &mut dyn PageStore) -> Result<()> {
        self.add(kept, kept.is_last() && ends_tree_page(0, &kept.entry.path), pages)
    }

    fn add(&mut self, placed: &Placed, ends_page: bool, pages: &mut dyn PageStore) -> Result<()> {
        let path = &placed.entry.path;
        let mut line = std::mem::take(&mut self.line);
        put_entry_line(&placed.entry, &mut line)
            .map_err(|error| Error::invalid(format!("cannot store {path}: {error}")))?;
        if self.levels.is_empty() {
            self.levels.push(Level::new(0));
        } else if self.levels[0].last >= *path {
            return Err(Error::internal(format!("entry {path} comes out of order")));
        }
        if self.levels[0].page.is_full_for(line.len()) {
            self.finish_page(0, pages)?;
        }
        let leaf = &mut self.levels[0];
        leaf.page.push_entry(&line, placed);
        self.line = line;
        leaf.last = path.clone();
        leaf.entries += u64::from(placed.entry.counts());
        leaf.bytes = leaf.bytes.saturating_add(placed.entry.size());
        if ends_page {
            self.finish_page(0, pages)?;
        }
        Ok(())
    }

    /// Stores what there is so far as a tree of its own, and goes on as if it had not; `None` without any entry.
    ///
    /// # Errors
    /// The page store's.
    pub(crate) fn so_far(&mut self, pages: &mut dyn PageStore) -> Result<Option<WrittenTree>> {
        self.settle(0, pages)?;
        if self.levels.is_empty() { Ok(None) } else { self.clone().finish(pages).map(Some) }
    }

    /// The last entry so far; `None` without any.
    pub(crate) fn last(&self) -> Option<&TreePath> {
        self.levels.first().map(|leaf| &leaf.last)
    }

    /// Stores what is left, and the levels above.
    ///
    /// # Errors
    /// `Internal` if there was no entry at all, or the page store's.
    pub(crate) fn finish(mut self, pages: &mut dyn PageStore) -> Result<WrittenTree> {
        let mut level = 0;
        while level < self.levels.len() {
            if self.levels[level].page.count() > 0 {
                self.finish_page(level, pages)?;
            }
            self.settle(0, pages)?;
            // The lowest level of one page is the root; the line that its end put above is dropped.
            let current = &mut self.levels[level];
            if current.finished_pages == 1
                && let Some(root) = current.finished.take()
            {
                return Ok(WrittenTree { root: root.page, entries: root.entries, bytes: root.bytes });
            }
            level += 1;
        }
        Err(Error::internal("a tree without any entry"))
    }

    fn finish_page(&mut self, level: usize, pages: &mut dyn PageStore) -> Result<()> {
        let number = level_number(level)?;
        let current = &mut self.levels[level];
        let page = std::mem::replace(&mut current.page, PageBuilder::tree(number));
        let (entries, bytes) = (std::mem::take(&mut current.entries), std::mem::take(&mut current.bytes));
        let begun = Begun { last: current.last.clone(), entries, bytes };
        if level == 0 {
            pages.begin(number, page)?;
            self.begun.push_back(begun);
            return self.settle(LEAVES_AHEAD - 1, pages);
        }
        let page = pages.store(number, &page)?;
        self.finished(level, begun, page, pages)
    }

    /// Waits until no more than so many leaves are on their way.
    fn settle(&mut self, most: usize, pages: &mut dyn PageStore) -> Result<()> {
        while self.begun.len() > most
            && let Some(begun) = self.begun.pop_front()
        {
            let page = pages.stored()?;
            self.finished(0, begun, page, pages)?;
        }
        Ok(())
    }

    /// Tells the level above of a page that is stored.
    fn finished(&mut self, level: usize, begun: Begun, page: PageRef, pages: &mut dyn PageStore) -> Result<()> {
        let Begun { last, entries, bytes } = begun;
        let child = Child { last, page, entries, bytes };
        let current = &mut self.levels[level];
        current.finished_pages += 1;
        current.finished = Some(child.clone());

        let above = level + 1;
        if above == self.levels.len() {
            self.levels.push(Level::new(level_number(above)?));
        }
        if self.levels[above].page.is_full_for(child_line_bytes(&child)?) {
            self.finish_page(above, pages)?;
        }
        let parent = &mut self.levels[above];
        parent.page.push_child(&child)?;
        parent.entries += child.entries;
        parent.bytes = parent.bytes.saturating_add(child.bytes);
        parent.last = child.last;
        if parent.page.count() >= 2 && ends_tree_page(level_number(above)?, &parent.last) {
            self.finish_page(above, pages)?;
        }
        Ok(())
    }
}

fn level_number(level: usize) -> Result<u8> {
    u8::try_from(level).map_err(|_| Error::internal("a tree of more levels than there can be"))
}

/// Names the chunks of a file: in its entry if they are few, in pages of their own otherwise.
///
/// `whole` says that there are no holes, so that a single chunk needs no name of its own.
///
/// # Errors
/// The page store's.
pub(crate) fn write_chunk_list(
    chunks: &[(ChunkId, ChunkPlacement)],
    whole: bool,
    pages: &mut dyn PageStore,
) -> Result<(ChunkList, Placement)> {
    let placements = || Placement::Chunks(chunks.iter().map(|(_, placement)| *placement).collect());
    Ok(match chunks {
        [] => (ChunkList::None, Placement::Chunks(Vec::new())),
        [_] if whole => (ChunkList::Whole, placements()),
        few if few.len() <= MAX_INLINE_CHUNKS => {
            (ChunkList::Inline(few.iter().map(|(chunk, _)| *chunk).collect()), placements())
        }
        many => {
            let root = write_list_pages(many, pages)?;
            let list = ChunkList::Pages { root: root.page, level: root.level, count: many.len() as u64 };
            (list, Placement::List(Box::new(root)))
        }
    })
}

fn write_list_pages(chunks: &[(ChunkId, ChunkPlacement)], pages: &mut dyn PageStore) -> Result<PageRef> {
    let mut level = 0;
    let mut children: Vec<ListChild> = Vec::new();
    let mut page = PageBuilder::list(level);
    let (mut count, mut bytes) = (0, 0);
    for (index, (chunk, placement)) in chunks.iter().enumerate() {
        page.push_chunk(*chunk, *placement)?;
        count += 1;
        bytes += u64::from(placement.bytes);
        // 256 bytes is more than any line of a list.
        if ends_list_page(level, *chunk) || page.is_full_for(256) || index + 1 == chunks.len() {
            let page = pages.store(level, &std::mem::replace(&mut page, PageBuilder::list(level)))?;
            children.push(ListChild {
                last: *chunk,
                page,
                chunks: std::mem::take(&mut count),
                bytes: std::mem::take(&mut bytes),
            });
        }
    }
    while children.len() > 1 {
        level += 1;
        let mut above = Vec::new();
        let mut page = PageBuilder::list(level);
        let last_index = children.len() - 1;
        for (index, child) in children.into_iter().enumerate() {
            page.push_list_child(&child)?;
            count += child.chunks;
            bytes += child.bytes;
            let cut = page.count() >= 2 && ends_list_page(level, child.last);
            if cut || page.is_full_for(256) || index == last_index {
                let page = pages.store(level, &std::mem::replace(&mut page, PageBuilder::list(level)))?;
                above.push(ListChild {
                    last: child.last,
                    page,
                    chunks: std::mem::take(&mut count),
                    bytes: std::mem::take(&mut bytes),
                });
            }
        }
        children = above;
    }
    children.pop().map(|root| root.page).ok_or_else(|| Error::internal("a list of no chunks"))
}
