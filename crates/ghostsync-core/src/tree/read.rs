//! A tree as a stream of entries, and a large file's list as a stream of chunks.
//!
//! What comes out is in strict tree order and has one entry a path, whatever a repository claims: a page that
//! breaks the order, or whose last path is not the one its reference names, is `Corrupt`. Levels sink by one
//! at every step, so pages that refer to each other in a circle cannot be followed for ever.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use futures::future::join;

use super::leaf::{Leaf, LeafEntries, LeafEntry, Leaves};
use super::pages::{Access, Pages};
use crate::entry::ChunkList;
use crate::error::{Error, Result};
use crate::format::commit::TreeRef;
use crate::format::page::{Child, ChunkPlacement, ListChild, Page, PagePlacement, PageRef, Placed, Placement};
use crate::id::{ChunkId, PackName};
use crate::interrupt::Waiter;
use crate::tree_path::TreePath;

impl TreeRef {
    /// The reference to the tree's root page.
    #[must_use]
    pub fn root(&self) -> PageRef {
        PageRef {
            page: self.page,
            level: self.level,
            placement: PagePlacement { pack: self.pack, offset: self.offset, bytes: self.length, frame: self.frame },
        }
    }
}

/// A root page's pack up to this size is fetched whole even to look at one path.
const SMALL_PACK_BYTES: u64 = 4 << 20;

/// Packs that are fetched ahead at once, and bytes that they have at least.
const PACKS_AHEAD: usize = 7;
const BYTES_AHEAD: u64 = 16 << 20;

/// Decoded pages that wait for whoever takes them.
const PAGES_AHEAD: usize = 4;

/// Streams the entries of a tree, in order, at and below a path.
#[derive(Debug)]
pub(crate) struct TreeReader {
    pages: Arc<Pages>,
    access: Access,
    below: TreePath,
    /// What is left to visit, the next one last: a page and the last path that it must have.
    stack: Vec<(PageRef, Option<TreePath>)>,
    previous: Option<TreePath>,
    visited: Vec<PageRef>,
    /// The packs that were read or fetched ahead.
    packs: HashSet<PackName>,
    /// Leaves that need not be read.
    kept: Leaves,
}

impl TreeReader {
    pub(crate) fn new(pages: Arc<Pages>, tree: &TreeRef, below: TreePath) -> Self {
        let access = if below.is_root() || tree.pack_length <= SMALL_PACK_BYTES { Access::Scan } else { Access::Point };
        Self {
            pages,
            access,
            below,
            stack: vec![(tree.root(), None)],
            previous: None,
            visited: Vec::new(),
            packs: HashSet::new(),
            kept: Leaves::default(),
        }
    }

    /// The next entries, never none; `None` at the end.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<Placed>>> {
        Ok(self.next_leaf().await?.map(Arc::unwrap_or_clone))
    }

    /// The same, as they may be kept and handed on.
    async fn next_leaf(&mut self) -> Result<Option<Leaf>> {
        while let Some((page, last)) = self.stack.pop() {
            self.visited.push(page);
            if let Some(leaf) = self.kept.take(&page) {
                let leaf = self.take(&page, last, leaf)?;
                return Ok(Some(leaf));
            }
            let ahead = self.packs_ahead(&page);
            let (loaded, ()) = join(self.pages.load(&page, self.access), self.pages.fetch_ahead(ahead)).await;
            match loaded? {
                Page::Entries(entries) => {
                    let leaf = self.take(&page, last, Arc::new(entries))?;
                    if !leaf.is_empty() {
                        return Ok(Some(leaf));
                    }
                }
                Page::Children(children) => self.descend(&page, last, children)?,
                Page::Chunks(_) | Page::ListChildren(_) => {
                    return Err(Error::corrupt(format!("page {} of a tree is a list of chunks", page.page)));
                }
            }
        }
        Ok(None)
    }

    /// The first pages of the packs whose turn it is next, whenever the first page of another one is read: the pages of
    /// a tree lie in the packs of all the snapshots that have made them, and each would be a round trip.
    fn packs_ahead(&mut self, page: &PageRef) -> Vec<PageRef> {
        let mut ahead = Vec::new();
        if self.access == Access::Point || !self.packs.insert(page.placement.pack) {
            return ahead;
        }
        let mut bytes = 0;
        for (page, _) in self.stack.iter().rev() {
            let end = page.placement.offset.saturating_add(page.placement.bytes.into());
            if ahead.len() == PACKS_AHEAD || bytes + end > BYTES_AHEAD {
                break;
            }
            if self.packs.insert(page.placement.pack) {
                bytes += end;
                ahead.push(*page);
            }
        }
        ahead
    }

    /// The pages that were read since the last call.
    pub(crate) fn take_visited(&mut self) -> Vec<PageRef> {
        std::mem::take(&mut self.visited)
    }

    fn take(&mut self, page: &PageRef, last: Option<TreePath>, leaf: Leaf) -> Result<Leaf> {
        let out_of_order = || Error::corrupt(format!("page {} breaks the order of its tree", page.page));
        let Some((first, end)) = leaf.first().zip(leaf.last()) else {
            // Only the page of a tree without even a root could be empty; nobody writes one.
            return Err(Error::corrupt(format!("page {} has no entries", page.page)));
        };
        if self.previous.as_ref().is_some_and(|previous| first.entry.path <= *previous)
            || last.is_some_and(|last| end.entry.path != last)
        {
            return Err(out_of_order());
        }
        self.previous = Some(end.entry.path.clone());
        if self.below.is_root() {
            return Ok(leaf);
        }
        let mut entries = Arc::unwrap_or_clone(leaf);
        entries.retain(|placed| placed.entry.path.starts_with(&self.below));
        Ok(Arc::new(entries))
    }

    fn descend(&mut self, page: &PageRef, last: Option<TreePath>, children: Vec<Child>) -> Result<()> {
        if last.is_some_and(|last| children.last().is_none_or(|child| child.last != last)) {
            return Err(Error::corrupt(format!("page {} breaks the order of its tree", page.page)));
        }
        let mut wanted = Vec::with_capacity(children.len());
        for child in children {
            if child.last < self.below {
                self.previous = Some(child.last);
                continue;
            }
            // A child whose last path is beyond what lies below the path is the last that can hold any of it.
            let beyond = child.last > self.below && !child.last.starts_with(&self.below);
            wanted.push((child.page, Some(child.last)));
            if beyond {
                break;
            }
        }
        self.stack.extend(wanted.into_iter().rev());
        Ok(())
    }
}

/// A [`TreeReader`] for a plain thread, outside of any asynchronous context.
#[derive(Debug)]
pub(crate) struct TreeIter {
    reader: Option<TreeReader>,
    waiter: Waiter,
    entries: std::vec::IntoIter<Placed>,
    pages: Vec<PageRef>,
}

impl TreeIter {
    /// Streams a whole tree, or nothing if there is none; remembers the pages it met.
    pub(crate) fn new(pages: &Arc<Pages>, tree: Option<&TreeRef>, waiter: Waiter) -> Self {
        let reader = tree.map(|tree| TreeReader::new(Arc::clone(pages), tree, TreePath::root()));
        Self { reader, waiter, entries: Vec::new().into_iter(), pages: Vec::new() }
    }

    /// Has leaves that need not be read again.
    pub(crate) fn with(mut self, kept: Leaves) -> Self {
        if let Some(reader) = &mut self.reader {
            reader.kept = kept;
        }
        self
    }

    /// Reads and decodes on a thread of its own, a few pages ahead of whoever takes the entries.
    pub(crate) fn ahead<'scope>(mut self, scope: &'scope Scope<'scope, '_>) -> Ahead<'scope> {
        let (sender, receiver) = sync_channel(PAGES_AHEAD);
        let thread = scope.spawn(move || {
            loop {
                let leaf = self.next_leaf().transpose();
                let is_last = !matches!(leaf, Ok(Some(_)));
                let met = std::mem::take(&mut self.pages);
                if sender.send((met, leaf)).is_err() || is_last {
                    return;
                }
            }
        });
        let (entries, pages) = (LeafEntries::default(), Vec::new());
        Ahead { receiver, thread: Some(thread), entries, pages, kept: None, has_ended: false }
    }

    fn next_leaf(&mut self) -> Option<Result<Leaf>> {
        let reader = self.reader.as_mut()?;
        let leaf = self.waiter.wait(reader.next_leaf());
        self.pages.extend(reader.take_visited());
        if !matches!(leaf, Ok(Some(_))) {
            self.reader = None;
        }
        leaf.transpose()
    }

    /// The pages met so far, in the order they were read.
    pub(crate) fn pages(&self) -> &[PageRef] {
        &self.pages
    }
}

impl Iterator for TreeIter {
    type Item = Result<Placed>;

    fn next(&mut self) -> Option<Result<Placed>> {
        loop {
            if let Some(placed) = self.entries.next() {
                return Some(Ok(placed));
            }
            match self.next_leaf()? {
                Ok(leaf) => self.entries = Arc::unwrap_or_clone(leaf).into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Pages met on the way to a leaf, and the leaf. The end, `None`, is said in so many words: a thread that ends without it
/// has seen no end.
type ReadAhead = (Vec<PageRef>, Result<Option<Leaf>>);

/// A [`TreeIter`] that another thread reads and decodes for.
#[derive(Debug)]
pub(crate) struct Ahead<'scope> {
    receiver: Receiver<ReadAhead>,
    /// Taken when it has ended without a word.
    thread: Option<ScopedJoinHandle<'scope, ()>>,
    entries: LeafEntries,
    pages: Vec<PageRef>,
    kept: Option<Leaves>,
    has_ended: bool,
}

impl Ahead<'_> {
    /// Keeps leaves for another time, as many as are worth it.
    pub(crate) fn keeping(self) -> Self {
        Self { kept: Some(Leaves::default()), ..self }
    }

    /// The leaves that were kept.
    pub(crate) fn take_kept(&mut self) -> Leaves {
        self.kept.take().unwrap_or_default()
    }

    /// The pages met so far, in the order they were read: the last one is that of the entry that was taken last.
    pub(crate) fn pages(&self) -> &[PageRef] {
        &self.pages
    }
}

impl Iterator for Ahead<'_> {
    type Item = Result<LeafEntry>;

    fn next(&mut self) -> Option<Result<LeafEntry>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            if self.has_ended {
                return None;
            }
            let Ok((met, leaf)) = self.receiver.recv() else {
                self.has_ended = true;
                // It panicked: that goes on here, as if the pages were read on this thread.
                if let Some(Err(panic)) = self.thread.take().map(ScopedJoinHandle::join) {
                    std::panic::resume_unwind(panic);
                }
                return Some(Err(Error::internal("the thread that reads pages ahead ended")));
            };
            self.pages.extend(met);
            match leaf {
                Ok(Some(leaf)) => {
                    if let (Some(kept), Some(page)) = (&mut self.kept, self.pages.last()) {
                        kept.keep(page, &leaf);
                    }
                    self.entries = LeafEntries::of(leaf);
                }
                Ok(None) => self.has_ended = true,
                Err(error) => {
                    self.has_ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Streams the chunks of one file, in order, wherever they are listed.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    pages: Arc<Pages>,
    inline: Vec<(ChunkId, ChunkPlacement)>,
    stack: Vec<(PageRef, Option<ChunkId>)>,
    chunks_left: u64,
    bytes_left: u64,
    path: TreePath,
    visited: Vec<PageRef>,
}

impl ChunkReader {
    pub(crate) fn new(pages: Arc<Pages>, placed: &Placed) -> Self {
        let path = placed.entry.path.clone();
        let (inline, stack, visited) = (Vec::new(), Vec::new(), Vec::new());
        let mut reader = Self { pages, inline, stack, chunks_left: 0, bytes_left: 0, path, visited };
        let Some(content) = placed.entry.content() else { return reader };
        reader.bytes_left = content.data_bytes();
        match (&placed.content, &content.chunks) {
            (Placement::Chunks(placements), ChunkList::Whole) => {
                reader.inline =
                    placements.iter().map(|placement| (ChunkId::of_whole(content.hash), *placement)).collect();
            }
            (Placement::Chunks(placements), ChunkList::Inline(chunks)) => {
                reader.inline = chunks.iter().copied().zip(placements.iter().copied()).collect();
            }
            (Placement::List(root), ChunkList::Pages { count, .. }) => {
                reader.stack.push((**root, None));
                reader.chunks_left = *count;
                return reader;
            }
            _ => {}
        }
        reader.chunks_left = reader.inline.len() as u64;
        reader
    }

    /// The next chunks, never none; `None` at the end, when they have added up to the file's data.
    pub(crate) async fn next_chunks(&mut self) -> Result<Option<Vec<(ChunkId, ChunkPlacement)>>> {
        if !self.inline.is_empty() {
            let chunks = std::mem::take(&mut self.inline);
            return self.count(chunks).map(Some);
        }
        while let Some((page, last)) = self.stack.pop() {
            self.visited.push(page);
            match self.pages.load(&page, Access::Scan).await? {
                Page::Chunks(chunks)
                    if last.is_none_or(|last| chunks.last().is_some_and(|(chunk, _)| *chunk == last)) =>
                {
                    return self.count(chunks).map(Some);
                }
                Page::ListChildren(children) => {
                    let next = |child: ListChild| (child.page, Some(child.last));
                    self.stack.extend(children.into_iter().rev().map(next));
                }
                _ => return Err(self.damaged()),
            }
        }
        if self.chunks_left > 0 || self.bytes_left > 0 { Err(self.damaged()) } else { Ok(None) }
    }

    /// The list pages that were read since the last call.
    pub(crate) fn take_visited(&mut self) -> Vec<PageRef> {
        std::mem::take(&mut self.visited)
    }

    fn count(&mut self, chunks: Vec<(ChunkId, ChunkPlacement)>) -> Result<Vec<(ChunkId, ChunkPlacement)>> {
        let bytes: u64 = chunks.iter().map(|(_, placement)| u64::from(placement.bytes)).sum();
        let left = self.chunks_left.checked_sub(chunks.len() as u64).zip(self.bytes_left.checked_sub(bytes));
        (self.chunks_left, self.bytes_left) = left.ok_or_else(|| self.damaged())?;
        Ok(chunks)
    }

    fn damaged(&self) -> Error {
        Error::corrupt(format!("the list of chunks of {} does not match its entry", self.path))
    }
}
