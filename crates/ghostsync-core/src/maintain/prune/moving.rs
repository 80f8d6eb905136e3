//! Moves what snapshots need out of packs that are mostly dead, and that no head refers to.
//!
//! What a head refers to is moved by the next backup, which has the content at hand (`draining`). What only older
//! snapshots refer to would stay for as long as they do: a monthly snapshot keeps a pack for a year of which it needs a
//! file. So a prune stores that file again, and the pages that place it.
//!
//! Neither the id of a page nor that of a snapshot covers where things lie. A page copy is made again with the same
//! lines and other placements, up to the root; in the state that is committed the snapshot is what it was, and its tree
//! reference leads to the new copies. Where a head has the page or the chunk already, nothing is stored: its copy is
//! referred to. That is how older snapshots follow a head that backups have moved.
//!
//! Why that is safe:
//!
//! 1. New pages refer to packs of this prune's session, to what the old copies of the *same* snapshots referred to, and
//!    to what the heads refer to that were looked at. A snapshot's reference is replaced only in a state that retains
//!    this snapshot with its old reference, and all those heads with theirs ([`Commit::retains`]); so all three are there
//!    by the argument for any commit. The session is fenced by a floor like any other.
//! 2. Whoever read the old reference and commits later finds its parent not retained *as it was*, and begins anew: its
//!    pages might refer to packs that are deleted. Heads are never moved, so that happens to nobody but who was overtaken.
//! 3. Packs that were moved out of are deleted by the one rule, by a state in which nothing refers to them.
//!
//! A page that cannot be made again byte for byte, because a later version wrote it, moves nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::plan::Pack;
use super::reach::heads;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Commit, Snapshot, TreeRef};
use crate::format::page::{ChunkPlacement, Page, PageBuilder, PageRef, Placed, Placement, entry_line};
use crate::history::Session;
use crate::id::{ChunkId, PackName, PageId, SnapshotId};
use crate::interrupt::Waiter;
use crate::observer::Observer;
use crate::pack::{Block, BlockRef, ChunkCopies, MetaPacks, PackNames, Recent, Uploader, fetch_run, runs};
use crate::store::Store;
use crate::tree::{Access, ChunkReader, PageStore, Pages, refer_to};

/// Decoded blocks are kept up to so many bytes.
const RECENT_BLOCK_BYTES: usize = 32 << 20;

/// Snapshots whose pages were stored again, until a commit says so.
pub(super) struct Moved {
    pub(super) session: Session,
    /// The heads whose copies are referred to.
    heads: Vec<Snapshot>,
    /// The old and the new reference.
    trees: HashMap<SnapshotId, (TreeRef, TreeRef)>,
}

impl Moved {
    /// The snapshots of a state with the new references; `None` if nothing that was stored may be referred to from there.
    pub(super) fn snapshots_on(&self, state: &Commit) -> Option<Vec<Snapshot>> {
        let is_fenced = state.session_floor > self.session.begin;
        if is_fenced || !self.heads.iter().all(|head| state.retains(head)) {
            return None;
        }
        let moved = |mut snapshot: Snapshot| {
            if let Some((old, new)) = self.trees.get(&snapshot.id)
                && *old == snapshot.tree
            {
                snapshot.tree = new.clone();
            }
            snapshot
        };
        Some(state.snapshots.iter().cloned().map(moved).collect())
    }
}

/// Stores again what retained snapshots need of some packs; `None` if that changes nothing.
///
/// # Errors
/// `Corrupt` if a page or a chunk is not what it should be; the store's.
pub(super) fn move_out(
    store: &Store,
    pages: &Arc<Pages>,
    state: &Commit,
    packs: &HashSet<Pack>,
    session: Session,
    waiter: &Waiter,
    observer: &Arc<dyn Observer>,
) -> Result<Option<Moved>> {
    let ids = heads(state);
    let (heads, others): (Vec<_>, Vec<_>) =
        state.snapshots.iter().cloned().partition(|snapshot| ids.contains(&snapshot.id));
    let mut look = Look::new(pages, packs, waiter);
    let mut moving = Vec::new();
    for snapshot in others {
        if look.is_touched(&snapshot.tree.root())? {
            moving.push(snapshot);
        }
    }
    if moving.is_empty() {
        return Ok(None);
    }
    for head in &heads {
        look.find_in(&head.tree.root())?;
    }
    let mut mover = Mover::new(store, look, &session, observer);
    let roots = moving.iter().map(|snapshot| mover.page(&snapshot.tree.root())).collect::<Result<Vec<_>>>();
    let roots = match roots {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(None),
        roots => roots?,
    };
    let lengths = mover.finish()?;
    let mut trees = HashMap::new();
    for (snapshot, root) in moving.into_iter().zip(roots) {
        let tree = refer_to(&root, &lengths, heads.iter().map(|head| &head.tree), store, waiter)?;
        let tree = TreeRef { extra: snapshot.tree.extra.clone(), ..tree };
        trees.insert(snapshot.id, (snapshot.tree, tree));
    }
    Ok(Some(Moved { session, heads, trees }))
}

/// Which page copies refer to the packs, what they need of them, and what of that the heads have elsewhere.
/// Memory: some 50 bytes for each page copy, and 90 for each chunk in those packs.
struct Look<'a> {
    pages: &'a Arc<Pages>,
    packs: &'a HashSet<Pack>,
    waiter: &'a Waiter,
    /// By place: whether the copy lies in one of the packs, or refers to one.
    touched: HashMap<(PackName, u64), bool>,
    /// Where else a chunk lies.
    chunks: HashMap<ChunkId, Option<ChunkPlacement>>,
    /// Copies of pages that heads refer to.
    of_heads: HashMap<(PageId, u8), PageRef>,
}

impl<'a> Look<'a> {
    fn new(pages: &'a Arc<Pages>, packs: &'a HashSet<Pack>, waiter: &'a Waiter) -> Self {
        let (touched, chunks, of_heads) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { pages, packs, waiter, touched, chunks, of_heads }
    }

    fn load(&self, page: &PageRef) -> Result<Page> {
        self.waiter.wait(self.pages.load(page, Access::Scan))
    }

    fn is_touched(&mut self, page: &PageRef) -> Result<bool> {
        let place = (page.placement.pack, page.placement.offset);
        if let Some(known) = self.touched.get(&place) {
            return Ok(*known);
        }
        let mut touched = self.packs.contains(&Pack::meta(place.0));
        match self.load(page)? {
            Page::Children(children) => {
                for child in children {
                    touched |= self.is_touched(&child.page)?;
                }
            }
            Page::ListChildren(children) => {
                for child in children {
                    touched |= self.is_touched(&child.page)?;
                }
            }
            Page::Entries(entries) => {
                for placed in entries {
                    touched |= match placed.content {
                        Placement::List(root) => self.is_touched(&root)?,
                        Placement::Chunks(_) => self.are_touched(&self.chunks_of(&placed)?),
                    };
                }
            }
            Page::Chunks(chunks) => touched |= self.are_touched(&chunks),
        }
        self.touched.insert(place, touched);
        Ok(touched)
    }

    fn are_touched(&mut self, chunks: &[(ChunkId, ChunkPlacement)]) -> bool {
        let is_there = |placement: &ChunkPlacement| self.packs.contains(&Pack::data(placement.pack));
        let there: Vec<_> = chunks.iter().filter(|(_, placement)| is_there(placement)).collect();
        self.chunks.extend(there.iter().map(|(chunk, _)| (*chunk, None)));
        !there.is_empty()
    }

    /// The chunks of an entry that names them itself.
    fn chunks_of(&self, placed: &Placed) -> Result<Vec<(ChunkId, ChunkPlacement)>> {
        let chunks = self.waiter.wait(ChunkReader::new(Arc::clone(self.pages), placed).next_chunks())?;
        Ok(chunks.unwrap_or_default())
    }

    /// Finds the pages of a head, and what it has of the chunks.
    fn find_in(&mut self, page: &PageRef) -> Result<()> {
        if self.of_heads.insert((page.page, page.level), *page).is_some() {
            return Ok(());
        }
        match self.load(page)? {
            Page::Children(children) => {
                children.iter().try_for_each(|child| self.find_in(&child.page))?;
            }
            Page::ListChildren(children) => {
                children.iter().try_for_each(|child| self.find_in(&child.page))?;
            }
            Page::Entries(entries) => {
                for placed in entries {
                    match placed.content {
                        Placement::List(root) => self.find_in(&root)?,
                        Placement::Chunks(_) => self.found(self.chunks_of(&placed)?),
                    }
                }
            }
            Page::Chunks(chunks) => self.found(chunks),
        }
        Ok(())
    }

    fn found(&mut self, chunks: Vec<(ChunkId, ChunkPlacement)>) {
        for (chunk, placement) in chunks {
            if let Some(place) = self.chunks.get_mut(&chunk) {
                place.get_or_insert(placement);
            }
        }
    }
}

/// Makes page copies again, each once for all snapshots that refer to it.
struct Mover<'a> {
    store: &'a Store,
    look: Look<'a>,
    moved: HashMap<(PackName, u64), PageRef>,
    blocks: Recent<BlockRef, Arc<Block>>,
    copies: ChunkCopies,
    meta: MetaPacks,
}

impl<'a> Mover<'a> {
    fn new(store: &'a Store, look: Look<'a>, session: &Session, observer: &Arc<dyn Observer>) -> Self {
        let names = PackNames::new(session.begin, session.id);
        let uploader = Uploader::new(store.clone(), look.waiter.clone(), Arc::clone(observer));
        let mut meta = MetaPacks::new(names.clone(), &[], HashSet::new(), uploader, Arc::clone(look.pages));
        // A page is the same only if what it refers to lies where it says: its id does not tell.
        meta.note_moved();
        let copies = ChunkCopies::new(names);
        let (moved, blocks) = (HashMap::new(), Recent::new(RECENT_BLOCK_BYTES));
        Self { store, look, moved, blocks, copies, meta }
    }

    /// A copy of a page that refers to none of the packs.
    fn page(&mut self, page: &PageRef) -> Result<PageRef> {
        let place = (page.placement.pack, page.placement.offset);
        if self.look.touched.get(&place) != Some(&true) {
            return Ok(*page);
        }
        if let Some(moved) = self.moved.get(&place).or_else(|| self.look.of_heads.get(&(page.page, page.level))) {
            return Ok(*moved);
        }
        let loaded = self.look.load(page)?;
        let mut builder = match &loaded {
            Page::Entries(_) | Page::Children(_) => PageBuilder::tree(page.level),
            Page::Chunks(_) | Page::ListChildren(_) => PageBuilder::list(page.level),
        };
        match loaded {
            Page::Children(children) => {
                for mut child in children {
                    child.page = self.page(&child.page)?;
                    builder.push_child(&child)?;
                }
            }
            Page::ListChildren(children) => {
                for mut child in children {
                    child.page = self.page(&child.page)?;
                    builder.push_list_child(&child)?;
                }
            }
            Page::Entries(entries) => {
                let mut chunks = Vec::new();
                for placed in &entries {
                    if matches!(placed.content, Placement::Chunks(_)) {
                        chunks.extend(self.look.chunks_of(placed)?);
                    }
                }
                let mut places = self.places(&chunks)?.into_iter();
                for mut placed in entries {
                    match &mut placed.content {
                        Placement::List(root) => **root = self.page(root)?,
                        Placement::Chunks(chunks) => {
                            chunks.iter_mut().zip(places.by_ref()).for_each(|(at, place)| *at = place);
                        }
                    }
                    builder.push_entry(&entry_line(&placed.entry)?, &placed);
                }
            }
            Page::Chunks(chunks) => {
                for ((chunk, _), place) in chunks.iter().zip(self.places(&chunks)?) {
                    builder.push_chunk(*chunk, place)?;
                }
            }
        }
        if builder.id() != page.page {
            return Err(Error::new(ErrorKind::Unsupported, format!("page {} was made by a later version", page.page)));
        }
        let moved = self.meta.store(page.level, &builder)?;
        self.moved.insert(place, moved);
        Ok(moved)
    }

    /// Where chunks are to be found from now on; copies those that lie in the packs alone.
    fn places(&mut self, chunks: &[(ChunkId, ChunkPlacement)]) -> Result<Vec<ChunkPlacement>> {
        let mut lone = Vec::new();
        for (chunk, placement) in chunks {
            let stays = !self.look.packs.contains(&Pack::data(placement.pack));
            if !stays && self.elsewhere(*chunk).is_none() {
                lone.push((*chunk, *placement));
            }
        }
        self.fetch(&lone)?;
        for (chunk, placement) in lone {
            if !self.copies.has(chunk) {
                let block = self.block(&placement)?;
                self.copies.add(chunk, block.chunk(chunk, &placement)?, self.meta.uploader())?;
            }
        }
        self.copies.seal(self.meta.uploader())?;
        let place = |(chunk, placement): &(ChunkId, ChunkPlacement)| {
            let stays = !self.look.packs.contains(&Pack::data(placement.pack));
            if stays { Ok(*placement) } else { self.elsewhere(*chunk).ok_or_else(|| not_copied(*chunk)) }
        };
        chunks.iter().map(place).collect()
    }

    fn elsewhere(&self, chunk: ChunkId) -> Option<ChunkPlacement> {
        self.look.chunks.get(&chunk).copied().flatten().or_else(|| self.copies.placement(chunk))
    }

    /// Fetches the blocks of some chunks, those that lie close together in one read, as long as they are kept.
    fn fetch(&mut self, chunks: &[(ChunkId, ChunkPlacement)]) -> Result<()> {
        let missing: Vec<_> =
            chunks.iter().map(|(_, at)| BlockRef::of(at)).filter(|at| self.blocks.get(at).is_none()).collect();
        for run in runs(missing) {
            for (at, stored) in self.look.waiter.wait(async { Ok(fetch_run(self.store, &run).await?) })? {
                let block = Arc::new(Block::decode(at, &stored)?);
                self.blocks.insert(at, Arc::clone(&block), block.bytes());
            }
        }
        Ok(())
    }

    fn block(&mut self, placement: &ChunkPlacement) -> Result<Arc<Block>> {
        let at = BlockRef::of(placement);
        if self.blocks.get(&at).is_none() {
            self.fetch(&[(ChunkId::of(&[]), *placement)])?;
        }
        self.blocks.get(&at).ok_or_else(|| Error::internal("a block that is larger than what is kept"))
    }

    fn finish(self) -> Result<HashMap<PackName, u64>> {
        let Self { copies, mut meta, .. } = self;
        copies.finish(meta.uploader())?;
        meta.finish()?;
        Ok(meta.lengths().clone())
    }
}

fn not_copied(chunk: ChunkId) -> Error {
    Error::internal(format!("chunk {chunk} was not copied"))
}
