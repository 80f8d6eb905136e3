//! The first pass of a check: reads every page copy once, and notes what is bad.
//!
//! What a page copy says is kept as a few figures, so that a page that many snapshots share is read and judged once:
//! its entries and bytes, its first and last path, and its hard links. Memory: about 200 bytes and two paths a page
//! copy (one for some 500 entries, and few for each further snapshot), 16 bytes a hard-link group and page copy,
//! about 60 bytes for each pack in the store, and what [`super::content`] and damage itself need.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::CheckOptions;
use super::content::{BadBlocks, Contents};
use super::lists::{ListSums, Lists};
use super::print::Print;
use super::shape::{Links, Part, Sums};
use crate::entry::ChunkList;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::format::page::{Child, ChunkPlacement, Page, PageRef, Placed, Placement};
use crate::id::{ChunkId, PackName, SnapshotId};
use crate::observer::{Observer, Progress};
use crate::pack::BlockRef;
use crate::store::{Store, keys};
use crate::tree::{Access, ChunkReader, Pages};

/// What is wrong with a page copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) message: String,
    pub(super) reach: Reach,
}

/// How far a flaw reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// What the page holds cannot be read.
    Below,
    /// The tree is none: nothing of the snapshot is restored.
    Snapshot,
    /// Figures are wrong; a restore does without them.
    Figures,
}

/// What is bad, and why.
#[derive(Debug, Default)]
pub(super) struct Bad {
    pub(super) pages: HashMap<Print, Flaw>,
    pub(super) blocks: BadBlocks,
    /// Data packs that are missing, or end before what pages refer to: with their size.
    pub(super) packs: HashMap<PackName, Option<u64>>,
    /// Snapshots whose record does not match their tree.
    pub(super) records: HashMap<SnapshotId, Flaw>,
    /// Files whose content is not what their entry says.
    pub(super) contents: HashMap<Print, String>,
    /// By root page: hard-link groups without their first member.
    pub(super) links: HashMap<Print, HashSet<Print>>,
}

impl Bad {
    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
            && self.blocks.is_empty()
            && self.packs.is_empty()
            && self.records.is_empty()
            && self.contents.is_empty()
            && self.links.is_empty()
    }

    /// What is wrong with a copy of a chunk: the object, and why.
    pub(super) fn chunk_flaw(&self, chunk: ChunkId, placement: &ChunkPlacement) -> Option<(String, String)> {
        let object = || keys::data_pack(placement.pack).to_string();
        let end = placement.frame_offset.saturating_add(u64::from(placement.frame_bytes));
        match self.packs.get(&placement.pack) {
            Some(None) => return Some((object(), "it is missing".into())),
            Some(Some(size)) if *size < end => {
                return Some((object(), format!("it is cut short: it has {size} bytes, pages refer to more")));
            }
            _ => {}
        }
        let (chunks, message) = self.blocks.get(&BlockRef::of(placement))?;
        chunks.as_ref().is_none_or(|chunks| chunks.contains(&chunk)).then(|| (object(), message.clone()))
    }

    pub(super) fn page(&mut self, page: &PageRef, message: impl Into<String>, reach: Reach) {
        self.pages.entry(Print::of_page(page)).or_insert_with(|| Flaw { message: message.into(), reach });
    }
}

/// What the first pass found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) pages: u64,
    pub(super) read_bytes: u64,
    pub(super) bad: Bad,
}

/// Packs by their name, and whether they are packs of file content.
pub(super) type Pack = (PackName, bool);

/// What is known of a page copy that was read.
#[derive(Debug)]
struct Known {
    /// `None`: it, or something below it, is no part of a tree.
    part: Option<Part>,
    links: Option<Box<Links>>,
    /// The numbers of the children with hard links below them.
    linked: Box<[usize]>,
}

impl Known {
    fn has_links(&self) -> bool {
        self.links.is_some() || !self.linked.is_empty()
    }
}

/// Goes through snapshots, one after the other.
pub(super) struct Finder<'a> {
    store: &'a Store,
    pages: &'a Arc<Pages>,
    options: &'a CheckOptions,
    observer: &'a dyn Observer,
    numbers: HashMap<Print, usize>,
    known: Vec<Known>,
    lists: Lists,
    /// Sizes of the packs that lie in the store.
    sizes: HashMap<Pack, u64>,
    packs: HashSet<Pack>,
    contents: Contents,
    found: Found,
    listed: u64,
}

impl<'a> Finder<'a> {
    pub(super) async fn new(
        store: &'a Store,
        pages: &'a Arc<Pages>,
        options: &'a CheckOptions,
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        let mut sizes = HashMap::new();
        let keep = |object: &object_store::ObjectMeta| {
            sizes.extend(keys::pack_name(&object.location).map(|pack| (pack, object.size)));
        };
        store.for_each(&keys::packs(), keep).await?;
        Ok(Self {
            store,
            pages,
            options,
            observer,
            numbers: HashMap::new(),
            known: Vec::new(),
            lists: Lists::default(),
            sizes,
            packs: HashSet::new(),
            contents: Contents::new(options.read_data),
            found: Found::default(),
            listed: 0,
        })
    }

    /// Reads what this snapshot refers to and no earlier one did.
    pub(super) async fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let root = snapshot.tree.root();
        // Depth first, children before their parent is judged: the second visit of a page is for that.
        let mut stack = vec![(root, None)];
        while let Some((page, children)) = stack.pop() {
            self.options.interrupt.check()?;
            match children {
                None if self.numbers.contains_key(&Print::of_page(&page)) => {}
                None => {
                    if let Some(children) = self.page(&page).await? {
                        let below: Vec<_> = children.iter().rev().map(|child| (child.page, None)).collect();
                        stack.push((page, Some(children)));
                        stack.extend(below);
                    }
                }
                Some(children) => self.judge(&page, &children),
            }
        }
        self.judge_whole(snapshot, &root);
        Ok(())
    }

    /// Reads one page; the children of a page above the leaves are left to visit.
    async fn page(&mut self, page: &PageRef) -> Result<Option<Vec<Child>>> {
        self.found.pages += 1;
        self.packs.insert((page.placement.pack, false));
        match self.pages.load(page, Access::Scan).await {
            Ok(Page::Children(children)) => return Ok(Some(children)),
            Ok(Page::Entries(entries)) => {
                let part = match Part::of_entries(&entries) {
                    Ok(part) => Some(part),
                    Err(message) => {
                        self.found.bad.page(page, message, Reach::Snapshot);
                        None
                    }
                };
                let links = Links::of_entries(&entries).map(Box::new);
                self.know(page, Known { part, links, linked: Box::default() });
                for placed in &entries {
                    self.entry(placed).await?;
                }
                self.listed += entries.len() as u64;
                self.observer.progress(Progress::Listed { entries: self.listed });
            }
            Ok(Page::Chunks(_) | Page::ListChildren(_)) => {
                self.lose(page, "a list of chunks stands where a tree must".into());
            }
            Err(error) if is_damage(&error) => self.lose(page, error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    fn know(&mut self, page: &PageRef, known: Known) {
        self.numbers.insert(Print::of_page(page), self.known.len());
        self.known.push(known);
    }

    fn lose(&mut self, page: &PageRef, message: String) {
        self.found.bad.page(page, message, Reach::Below);
        self.know(page, Known { part: None, links: None, linked: Box::default() });
    }

    /// Judges a page by its children, which are known.
    fn judge(&mut self, page: &PageRef, children: &[Child]) {
        let mut linked = Vec::new();
        let mut is_whole = true;
        let mut joined: Option<Part> = None;
        for child in children {
            let Some(number) = self.numbers.get(&Print::of_page(&child.page)).copied() else { continue };
            let Some(known) = self.known.get(number) else { continue };
            if known.has_links() {
                linked.push(number);
            }
            let Some(part) = &known.part else {
                // What lies beyond a lost page cannot be held against what lies before it.
                (is_whole, joined) = (false, None);
                continue;
            };
            if part.last != child.last {
                let message = format!("page {} below it ends with another path than it says", child.page.page);
                self.found.bad.page(page, message, Reach::Snapshot);
                is_whole = false;
            } else if part.sums != (Sums { entries: child.entries, bytes: child.bytes }) {
                let message = format!("it counts other entries or bytes than page {} below it has", child.page.page);
                self.found.bad.page(page, message, Reach::Figures);
            }
            joined = match joined.map_or(Ok(part.clone()), |before| before.join(part)) {
                Ok(part) => Some(part),
                Err(message) => {
                    self.found.bad.page(page, message, Reach::Snapshot);
                    is_whole = false;
                    None
                }
            };
        }
        let part = joined.filter(|_| is_whole);
        self.know(page, Known { part, links: None, linked: linked.into() });
    }

    /// Compares a snapshot's record with its tree, and looks for what only the whole tree shows.
    fn judge_whole(&mut self, snapshot: &Snapshot, root: &PageRef) {
        let print = Print::of_page(root);
        let Some(number) = self.numbers.get(&print).copied() else { return };
        let Some(part) = self.known.get(number).and_then(|known| known.part.as_ref()) else { return };
        let flaw = if !part.first.is_root() {
            Some(("its tree lacks the root directory", Reach::Snapshot))
        } else if part.sums != (Sums { entries: snapshot.entries, bytes: snapshot.bytes }) {
            Some(("its record counts other entries or bytes than its tree has", Reach::Figures))
        } else {
            None
        };
        if let Some((message, reach)) = flaw {
            self.found.bad.records.insert(snapshot.id, Flaw { message: message.into(), reach });
        }
        let lost = self.lost_groups(number);
        if !lost.is_empty() {
            self.found.bad.links.insert(print, lost);
        }
    }

    /// The hard-link groups below a page of which some member is there and the first is not.
    fn lost_groups(&self, root: usize) -> HashSet<Print> {
        let (mut firsts, mut wanted) = (HashSet::<Print>::new(), HashSet::<Print>::new());
        let mut stack = vec![root];
        while let Some(known) = stack.pop().and_then(|number| self.known.get(number)) {
            stack.extend(&known.linked);
            if let Some(links) = &known.links {
                firsts.extend(&links.firsts);
                wanted.extend(&links.wanted);
            }
        }
        wanted.retain(|wanted| !firsts.contains(wanted));
        wanted
    }

    async fn entry(&mut self, placed: &Placed) -> Result<()> {
        let Some(content) = placed.entry.content() else { return Ok(()) };
        if let (Placement::List(root), ChunkList::Pages { count, .. }) = (&placed.content, &content.chunks) {
            match self.list(root).await? {
                // It is named already, with what is wrong.
                None => return Ok(()),
                Some(sums) if (sums.chunks, sums.bytes) == (*count, content.data_bytes()) => {}
                Some(_) => {
                    let message = "the list of its chunks is not as long as its entry says".to_owned();
                    self.found.bad.contents.extend(Print::of_content(placed).map(|print| (print, message)));
                    return Ok(());
                }
            }
        }
        if self.contents.joins_files() && !matches!(content.chunks, ChunkList::Whole) {
            self.join(placed).await?;
        } else if let Placement::Chunks(_) = &placed.content {
            let chunks = ChunkReader::new(Arc::clone(self.pages), placed).next_chunks().await?;
            self.chunks(chunks.as_deref().unwrap_or_default(), true).await?;
        }
        Ok(())
    }

    /// Reads the pages of a list that were not read before, and looks at the chunks that they name.
    async fn list(&mut self, root: &PageRef) -> Result<Option<ListSums>> {
        let mut stack = vec![(*root, None)];
        while let Some((page, children)) = stack.pop() {
            self.options.interrupt.check()?;
            let print = Print::of_page(&page);
            match children {
                None if self.lists.contains_key(&print) => {}
                None => {
                    self.found.pages += 1;
                    self.packs.insert((page.placement.pack, false));
                    match self.pages.load(&page, Access::Scan).await {
                        Ok(Page::Chunks(chunks)) => {
                            self.lists.insert(print, ListSums::of_chunks(&chunks));
                            let alone = !self.contents.joins_files();
                            self.chunks(&chunks, alone).await?;
                        }
                        Ok(Page::ListChildren(children)) => {
                            let below: Vec<_> = children.iter().rev().map(|child| (child.page, None)).collect();
                            stack.push((page, Some(children)));
                            stack.extend(below);
                        }
                        Ok(Page::Entries(_) | Page::Children(_)) => {
                            let message = "a page of a tree stands where a list of chunks must";
                            self.found.bad.page(&page, message, Reach::Below);
                            self.lists.insert(print, None);
                        }
                        Err(error) if is_damage(&error) => {
                            self.found.bad.page(&page, error.to_string(), Reach::Below);
                            self.lists.insert(print, None);
                        }
                        Err(error) => return Err(error),
                    }
                }
                Some(children) => {
                    let sums = ListSums::of_children(&children, &self.lists).unwrap_or_else(|message| {
                        self.found.bad.page(&page, message, Reach::Below);
                        None
                    });
                    self.lists.insert(print, sums);
                }
            }
        }
        Ok(self.lists.get(&Print::of_page(root)).copied().flatten())
    }

    /// Puts a file of several chunks, or with holes, together and compares the whole with its hash.
    async fn join(&mut self, placed: &Placed) -> Result<()> {
        let (Some(content), Some(print)) = (placed.entry.content(), Print::of_content(placed)) else { return Ok(()) };
        if !self.contents.begin(print, content) {
            return Ok(());
        }
        let mut reader = ChunkReader::new(Arc::clone(self.pages), placed);
        loop {
            self.options.interrupt.check()?;
            match reader.next_chunks().await {
                Ok(Some(chunks)) => {
                    self.chunks(&chunks, false).await?;
                    for chunk in chunks {
                        self.contents.add(chunk);
                        self.read_if_due().await?;
                    }
                }
                Ok(None) => break,
                Err(error) if is_damage(&error) => {
                    self.found.bad.contents.insert(print, error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        self.contents.end();
        self.read_if_due().await
    }

    /// Looks whether the packs of chunks are there and long enough; with `alone` reads them, if that is asked for.
    async fn chunks(&mut self, chunks: &[(ChunkId, ChunkPlacement)], alone: bool) -> Result<()> {
        for (chunk, placement) in chunks {
            self.packs.insert((placement.pack, true));
            let end = placement.frame_offset.saturating_add(u64::from(placement.frame_bytes));
            let size = self.sizes.get(&(placement.pack, true)).copied();
            if size.is_none_or(|size| size < end) {
                self.found.bad.packs.insert(placement.pack, size);
            } else if alone {
                self.contents.push((*chunk, *placement));
                self.read_if_due().await?;
            }
        }
        Ok(())
    }

    async fn read_if_due(&mut self) -> Result<()> {
        if self.contents.is_due() { self.read_contents().await } else { Ok(()) }
    }

    async fn read_contents(&mut self) -> Result<()> {
        let verified = self.contents.read(self.store, &self.options.interrupt, self.observer).await?;
        self.found.read_bytes += verified.bytes;
        for (block, (chunks, message)) in verified.blocks {
            match (self.found.bad.blocks.entry(block).or_insert((chunks.clone(), message)), chunks) {
                ((Some(known), _), Some(more)) => known.extend(more),
                ((known, _), None) => *known = None,
                ((None, _), Some(_)) => {}
            }
        }
        self.found.bad.contents.extend(verified.contents);
        Ok(())
    }

    /// Reads the contents that are left; tells also the packs that are referred to, with their sizes if they are there.
    pub(super) async fn finish(mut self) -> Result<(Found, BTreeMap<Pack, Option<u64>>)> {
        self.read_contents().await?;
        // A pack that is cut short has no table either, and is told of by what needs it.
        let is_cut = |pack: &Pack| pack.1 && self.found.bad.packs.contains_key(&pack.0);
        let size = |pack: &Pack| self.sizes.get(pack).copied().filter(|_| !is_cut(pack));
        let packs = self.packs.iter().map(|pack| (*pack, size(pack))).collect();
        Ok((self.found, packs))
    }
}

/// Whether an error is about what lies in the store, and not about reaching it.
pub(in crate::maintain) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Unsupported)
}
