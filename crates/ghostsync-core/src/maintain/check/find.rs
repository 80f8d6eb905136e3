//! The first pass of a check: reads every page copy once, and notes what is bad.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::content::Contents;
use super::{CheckOptions, ReadData};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::format::pack::{FOOTER_BYTES, MAX_TABLE_BYTES, TableOfContents};
use crate::format::page::{ChunkPlacement, Page, PageRef, Placed, Placement};
use crate::id::{ChunkId, PackName, SnapshotId};
use crate::observer::{Observer, Progress};
use crate::pack::BlockRef;
use crate::store::{Store, keys};
use crate::tree::{Access, ChunkReader, Pages};

/// A page copy: the pack and the offset in it.
pub(super) type PageAt = (PackName, u64);

/// What is bad, and why.
#[derive(Debug, Default)]
pub(super) struct Bad {
    pub(super) pages: HashMap<PageAt, String>,
    /// `None`: the whole block; otherwise these chunks of it.
    pub(super) blocks: HashMap<BlockRef, (Option<HashSet<ChunkId>>, String)>,
    /// Data packs that are missing, or end before so many bytes.
    pub(super) packs: HashMap<PackName, Option<u64>>,
    /// Snapshots whose record does not match their tree.
    pub(super) records: HashMap<SnapshotId, String>,
}

impl Bad {
    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.blocks.is_empty() && self.packs.is_empty() && self.records.is_empty()
    }
}

/// What the first pass found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) pages: u64,
    pub(super) packs: u64,
    pub(super) read_bytes: u64,
    pub(super) bad: Bad,
    /// Packs whose table of contents is damaged: only a repair would need it.
    pub(super) tables: Vec<(String, String)>,
}

/// Entries and bytes below a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    entries: u64,
    bytes: u64,
}

/// Goes through snapshots, one after the other.
pub(super) struct Finder<'a> {
    store: &'a Store,
    pages: &'a Arc<Pages>,
    options: &'a CheckOptions,
    observer: &'a dyn Observer,
    /// Page copies that were read, with their sums.
    visited: HashMap<PageAt, Sums>,
    /// Sizes of the packs that lie in the store; filled by one listing.
    sizes: Option<HashMap<String, u64>>,
    packs: HashSet<(PackName, bool)>,
    contents: Contents,
    found: Found,
}

impl<'a> Finder<'a> {
    pub(super) fn new(
        store: &'a Store,
        pages: &'a Arc<Pages>,
        options: &'a CheckOptions,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            store,
            pages,
            options,
            observer,
            visited: HashMap::new(),
            sizes: None,
            packs: HashSet::new(),
            contents: Contents::new(options.read_data),
            found: Found::default(),
        }
    }

    /// Reads what this snapshot refers to and no earlier one did.
    pub(super) async fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let root = snapshot.tree.root();
        // Depth first, children before their parent is summed up: the second visit of a page is for its sums.
        let mut stack = vec![(root, None)];
        while let Some((page, children)) = stack.pop() {
            self.options.interrupt.check()?;
            match children {
                None if self.visited.contains_key(&at(&page)) => {}
                None => {
                    if let Some(children) = self.page(&page).await? {
                        stack.push((page, Some(children.clone())));
                        stack.extend(children.into_iter().rev().map(|(child, _)| (child, None)));
                    }
                }
                Some(children) => self.sum_up(&page, &children),
            }
        }
        let expected = Sums { entries: snapshot.entries, bytes: snapshot.bytes };
        let whole = self.found.bad.pages.is_empty();
        if whole && self.visited.get(&at(&root)).is_some_and(|sums| *sums != expected) {
            let message = "its record counts other entries or bytes than its tree has".to_owned();
            self.found.bad.records.insert(snapshot.id, message);
        }
        Ok(())
    }

    /// Reads one page; the children of a page above the leaves are left to visit.
    async fn page(&mut self, page: &PageRef) -> Result<Option<Vec<(PageRef, Sums)>>> {
        self.found.pages += 1;
        self.packs.insert((page.placement.pack, false));
        let loaded = match self.pages.load(page, Access::Scan).await {
            Err(error) => {
                self.bad_page(page, error)?;
                return Ok(None);
            }
            Ok(loaded) => loaded,
        };
        match loaded {
            Page::Children(children) => {
                let sums = |entries, bytes| Sums { entries, bytes };
                Ok(Some(children.iter().map(|child| (child.page, sums(child.entries, child.bytes))).collect()))
            }
            Page::Entries(entries) => {
                let mut sums = Sums::default();
                for placed in &entries {
                    sums.entries += u64::from(placed.entry.counts());
                    sums.bytes = sums.bytes.saturating_add(placed.entry.size());
                    self.entry(placed).await?;
                }
                self.visited.insert(at(page), sums);
                self.observer.progress(Progress::Listed { entries: entries.len() as u64 });
                Ok(None)
            }
            Page::Chunks(_) | Page::ListChildren(_) => {
                self.bad_page(page, Error::corrupt("a list of chunks stands where a tree must"))?;
                Ok(None)
            }
        }
    }

    fn sum_up(&mut self, page: &PageRef, children: &[(PageRef, Sums)]) {
        let mut sums = Sums::default();
        for (child, claimed) in children {
            sums.entries = sums.entries.saturating_add(claimed.entries);
            sums.bytes = sums.bytes.saturating_add(claimed.bytes);
            if self.visited.get(&at(child)).is_some_and(|real| real != claimed) {
                let message = format!("it counts other entries or bytes than page {} below it has", child.page);
                self.found.bad.pages.entry(at(page)).or_insert(message);
            }
        }
        self.visited.insert(at(page), sums);
    }

    /// Takes a page that cannot be read as damage, and any other failure as one.
    fn bad_page(&mut self, page: &PageRef, error: Error) -> Result<()> {
        if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unsupported) {
            return Err(error);
        }
        self.visited.insert(at(page), Sums::default());
        self.found.bad.pages.insert(at(page), error.to_string());
        Ok(())
    }

    async fn entry(&mut self, placed: &Placed) -> Result<()> {
        if let Placement::List(root) = &placed.content {
            self.packs.insert((root.placement.pack, false));
        }
        let mut chunks = ChunkReader::new(Arc::clone(self.pages), placed);
        loop {
            let next = chunks.next_chunks().await;
            for page in chunks.take_visited() {
                if self.visited.insert(at(&page), Sums::default()).is_none() {
                    self.found.pages += 1;
                }
                if let Err(error) = &next {
                    self.found.bad.pages.insert(at(&page), error.to_string());
                }
            }
            match next {
                Ok(Some(chunks)) => self.chunks(chunks).await?,
                Ok(None) => return Ok(()),
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks whether the packs of chunks are there and long enough, and reads contents if that is asked for.
    async fn chunks(&mut self, chunks: Vec<(ChunkId, ChunkPlacement)>) -> Result<()> {
        for (chunk, placement) in chunks {
            self.packs.insert((placement.pack, true));
            if self.found.bad.packs.contains_key(&placement.pack) {
                continue;
            }
            let end = placement.frame_offset + u64::from(placement.frame_bytes);
            match self.size(placement.pack).await? {
                None => drop(self.found.bad.packs.insert(placement.pack, None)),
                Some(size) if size < end => drop(self.found.bad.packs.insert(placement.pack, Some(size))),
                Some(_) => self.contents.push(chunk, placement),
            }
        }
        if self.contents.is_due() {
            self.read_contents().await?;
        }
        Ok(())
    }

    async fn read_contents(&mut self) -> Result<()> {
        let (bytes, bad) = self.contents.read(self.store, &self.options.interrupt, self.observer).await?;
        self.found.read_bytes += bytes;
        self.found.bad.blocks.extend(bad);
        Ok(())
    }

    /// The size of a data pack, from one listing of them all.
    async fn size(&mut self, pack: PackName) -> Result<Option<u64>> {
        if self.sizes.is_none() {
            let objects = self.store.list(&keys::packs(), usize::MAX).await?;
            self.sizes = Some(objects.into_iter().map(|object| (object.location.to_string(), object.size)).collect());
        }
        let key = keys::data_pack(pack).to_string();
        Ok(self.sizes.as_ref().and_then(|sizes| sizes.get(&key)).copied())
    }

    /// Reads the contents that are left, and, when all content is read, the tables of contents.
    pub(super) async fn finish(mut self) -> Result<Found> {
        self.read_contents().await?;
        self.found.packs = self.packs.len() as u64;
        if self.options.read_data == ReadData::All {
            let mut tables = BTreeMap::new();
            for (pack, is_data) in &self.packs {
                self.options.interrupt.check()?;
                let key = if *is_data { keys::data_pack(*pack) } else { keys::meta_pack(*pack) };
                if let Err(message) = table(self.store, &key).await? {
                    tables.insert(key.to_string(), message);
                }
            }
            // A pack that is missing is told of already, with what needs it.
            self.found.tables = tables.into_iter().collect();
        }
        Ok(self.found)
    }
}

/// Reads the table of contents at the end of a pack; `Ok(Err(_))` says what is wrong with it.
async fn table(store: &Store, key: &object_store::path::Path) -> Result<std::result::Result<(), String>> {
    let Some(size) = store.size(key).await? else { return Ok(Ok(())) };
    let footer = store.get_range(key, size.saturating_sub(FOOTER_BYTES as u64)..size).await?;
    let length = match TableOfContents::length_from_footer(&footer) {
        Ok(length) if length <= size.min(MAX_TABLE_BYTES) => length,
        Ok(_) => return Ok(Err("its table of contents claims to be longer than it can be".into())),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let tail = store.get_range(key, size - length..size).await?;
    Ok(TableOfContents::decode(&tail)
        .map(drop)
        .map_err(|error| format!("only a repair would need it, but its table of contents is damaged: {error}")))
}

fn at(page: &PageRef) -> PageAt {
    (page.placement.pack, page.placement.offset)
}
