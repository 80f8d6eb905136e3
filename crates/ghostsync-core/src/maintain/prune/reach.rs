//! Which packs retained snapshots need: found by reading every page copy that they refer to, each once.
//!
//! A page copy is a pack and an offset. Equal pages may place their chunks in different packs, so an id says nothing
//! about what is needed. A page is stored after those that it refers to, in a newer pack or further back in the same
//! one; so the copy that was stored last is always read next, and each pack is fetched once. Nothing but the number
//! of requests rests on that order.
//!
//! One page that cannot be read, or is not what its reference says, ends it: unreadable is not unreachable.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use futures::future::join_all;

use super::plan::Pack;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Commit, Snapshot};
use crate::format::page::{ChunkPlacement, Page, PageRef, Placement};
use crate::history::is_step;
use crate::id::{PackName, SnapshotId};
use crate::interrupt::Interrupt;
use crate::observer::{Observer, Progress};
use crate::store::Store;
use crate::tree::{Access, Pages};

/// Packs that are fetched at once; those that are being read must fit into what `Pages` keeps in memory.
const READS: usize = 3;
/// Blocks of several chunks are about so long, before compression.
const USUAL_BLOCK_BYTES: u64 = 512 << 10;
/// What a chunk or a page takes in its pack's table of contents, about.
const TABLE_ROW_BYTES: u64 = 40;
/// What a table of contents takes without its rows, about.
const TABLE_BYTES: u64 = 128;

/// A page copy that is still to be read.
struct Ahead {
    page: PageRef,
    /// A list of chunks is expected there, not a tree.
    is_list: bool,
    whose: Whose,
}

/// Whose snapshots need something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Whose {
    /// A head that backups follow does.
    pub(super) heads: bool,
    /// A snapshot does that is neither such a head nor the parent of one: that goes with the next backup.
    pub(super) others: bool,
}

impl Whose {
    fn and(&mut self, whose: Self) {
        self.heads |= whose.heads;
        self.others |= whose.others;
    }
}

/// The live chunks of a block, sorted by their offset in it; some 8 bytes each.
#[derive(Default)]
struct LiveBlock {
    frame_bytes: u32,
    chunks: Vec<(u32, u32)>,
}

/// What snapshots need of a pack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Needed {
    /// Bytes of it that they need, about.
    pub(super) alive_bytes: u64,
    /// The same, but that nothing is dead which they do not show to be: a pack of which all is needed has all its bytes.
    pub(super) most_alive_bytes: u64,
    /// Who needs any of them.
    pub(super) whose: Whose,
}

/// What a number of snapshots need.
pub(super) struct Reach<'a> {
    /// Where they are read; what was read a moment ago is at hand.
    pub(super) pages: Arc<Pages>,
    interrupt: &'a Interrupt,
    observer: &'a dyn Observer,
    ahead: BTreeMap<(PackName, u64), Ahead>,
    numbers: HashMap<Pack, u32>,
    packs: Vec<Needed>,
    /// Page copies that were read, by the number of their pack and their offset, with what they were said to be.
    visited: HashMap<(u32, u64), u64>,
    /// Page copies that were read before it was begun anew.
    read_before: u64,
    blocks: HashMap<(u32, u64), LiveBlock>,
}

impl<'a> Reach<'a> {
    /// Begins with none. Pages come from the store, never from a cache that somebody else does not have.
    pub(super) fn new(store: &Store, interrupt: &'a Interrupt, observer: &'a dyn Observer) -> Self {
        Self {
            pages: Arc::new(Pages::new(store.clone(), None)),
            interrupt,
            observer,
            read_before: 0,
            ahead: BTreeMap::new(),
            numbers: HashMap::new(),
            packs: Vec::new(),
            visited: HashMap::new(),
            blocks: HashMap::new(),
        }
    }

    /// Forgets what is needed, and neither the pages nor how many there were.
    pub(super) fn begin_anew(&mut self) {
        self.read_before = self.pages();
        (self.ahead, self.visited) = Default::default();
        (self.numbers, self.packs, self.blocks) = Default::default();
    }

    /// Adds what the snapshots of a state need; those that were added before cost nothing.
    ///
    /// # Errors
    /// `Corrupt` if a page is missing or is not what it should be; the store's.
    pub(super) async fn add(&mut self, commit: &Commit) -> Result<()> {
        let heads = heads(commit);
        let of_head = |snapshot: &&Snapshot| heads.contains(&snapshot.id);
        let parents: HashSet<_> = commit.snapshots.iter().filter(of_head).filter_map(|head| head.parent).collect();
        for snapshot in &commit.snapshots {
            // By where they lie: a snapshot that was added before may have been moved since.
            let is_head = heads.contains(&snapshot.id);
            let whose = Whose { heads: is_head, others: !is_head && !parents.contains(&snapshot.id) };
            self.refer(snapshot.tree.root(), false, whose)?;
        }
        let mut fetched = None;
        while let Some((&(pack, offset), _)) = self.ahead.last_key_value() {
            self.interrupt.check()?;
            if fetched != Some(pack) {
                self.fetch_ahead().await;
                fetched = Some(pack);
            }
            if let Some(next) = self.ahead.remove(&(pack, offset)) {
                self.read(next).await?;
            }
        }
        Ok(())
    }

    /// How many page copies were read.
    pub(super) fn pages(&self) -> u64 {
        self.read_before + self.visited.len() as u64
    }

    /// Every pack that is needed, and what of it.
    pub(super) fn needed(&self) -> HashMap<Pack, Needed> {
        let mut packs = self.packs.clone();
        for ((number, _), block) in &self.blocks {
            if let Some(pack) = packs.get_mut(*number as usize) {
                pack.alive_bytes = pack.alive_bytes.saturating_add(block.alive_bytes());
                pack.most_alive_bytes = pack.most_alive_bytes.saturating_add(block.most_alive_bytes());
            }
        }
        let of = |(pack, number): (&Pack, &u32)| Some((*pack, *packs.get(*number as usize)?));
        self.numbers.iter().filter_map(of).collect()
    }

    /// Fetches the packs whose turn it is next. What fails here is asked for again, and told, when it is read.
    async fn fetch_ahead(&self) {
        let mut newest = Vec::with_capacity(READS);
        let mut last = self.ahead.last_key_value();
        while let Some(((pack, _), next)) = last.filter(|_| newest.len() < READS) {
            newest.push(self.pages.load(&next.page, Access::Scan));
            last = self.ahead.range(..(*pack, 0)).next_back();
        }
        drop(self.interrupt.unless_set(async { Ok(join_all(newest).await) }).await);
    }

    async fn read(&mut self, next: Ahead) -> Result<()> {
        let Ahead { page, is_list, whose } = next;
        let number = self.need(Pack::meta(page.placement.pack), whose);
        if let Some(pack) = self.packs.get_mut(number as usize) {
            let bytes = u64::from(page.placement.bytes) + TABLE_ROW_BYTES;
            pack.alive_bytes = pack.alive_bytes.saturating_add(bytes);
            pack.most_alive_bytes = pack.most_alive_bytes.saturating_add(bytes);
        }
        self.visited.insert((number, page.placement.offset), fingerprint(&page, is_list));
        let loaded = self.interrupt.unless_set(self.pages.load(&page, Access::Scan)).await;
        match loaded.map_err(unreadable)? {
            Page::Children(children) if !is_list => {
                for child in children {
                    self.refer(child.page, false, whose)?;
                }
            }
            Page::Entries(entries) if !is_list => {
                self.observer.progress(Progress::Listed { entries: entries.len() as u64 });
                for placed in entries {
                    match placed.content {
                        Placement::Chunks(chunks) => chunks.iter().for_each(|chunk| self.chunk(chunk, whose)),
                        Placement::List(root) => self.refer(*root, true, whose)?,
                    }
                }
            }
            Page::ListChildren(children) if is_list => {
                for child in children {
                    self.refer(child.page, true, whose)?;
                }
            }
            Page::Chunks(chunks) if is_list => chunks.iter().for_each(|(_, chunk)| self.chunk(chunk, whose)),
            _ => return Err(unreadable(Error::corrupt(format!("page {} is of another kind", page.page)))),
        }
        Ok(())
    }

    /// Takes a reference to a page copy.
    fn refer(&mut self, page: PageRef, is_list: bool, whose: Whose) -> Result<()> {
        let number = self.need(Pack::meta(page.placement.pack), whose);
        let claimed = fingerprint(&page, is_list);
        let place = (page.placement.pack, page.placement.offset);
        let known = match (self.visited.get(&(number, place.1)), self.ahead.get_mut(&place)) {
            (Some(known), _) => *known,
            (None, Some(ahead)) => {
                ahead.whose.and(whose);
                fingerprint(&ahead.page, ahead.is_list)
            }
            (None, None) => {
                self.ahead.insert(place, Ahead { page, is_list, whose });
                return Ok(());
            }
        };
        if known == claimed {
            return Ok(());
        }
        // One of the two references is wrong, and what its page would refer to cannot be known.
        let pack = Pack::meta(place.0).key();
        Err(unreadable(Error::corrupt(format!("two references to byte {} of {pack} contradict each other", place.1))))
    }

    fn chunk(&mut self, chunk: &ChunkPlacement, whose: Whose) {
        let number = self.need(Pack::data(chunk.pack), whose);
        let block = self.blocks.entry((number, chunk.frame_offset)).or_default();
        block.frame_bytes = block.frame_bytes.max(chunk.frame_bytes);
        if let Err(place) = block.chunks.binary_search_by_key(&chunk.offset, |(offset, _)| *offset) {
            block.chunks.reserve_exact(if block.chunks.is_empty() { 1 } else { 0 });
            block.chunks.insert(place, (chunk.offset, chunk.bytes));
        }
    }

    /// Notes that a pack is needed, and tells its number.
    fn need(&mut self, pack: Pack, whose: Whose) -> u32 {
        let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(pack).or_insert(next);
        match self.packs.get_mut(number as usize) {
            Some(pack) => pack.whose.and(whose),
            None => self.packs.push(Needed { alive_bytes: TABLE_BYTES, most_alive_bytes: TABLE_BYTES, whose }),
        }
        number
    }
}

impl LiveBlock {
    /// The part of the frame that its live chunks take, about: how long the block's content is behind the last of them
    /// is not told by pages. It is guessed from how densely they lie, and never so that a block that is wholly alive
    /// would look less than half alive, or its chunks would be moved again and again.
    fn alive_bytes(&self) -> u64 {
        let (count, end) = (self.chunks.len() as u64, self.end());
        self.share_of((end + end / count.max(1)).min(USUAL_BLOCK_BYTES).max(end))
    }

    /// The same if nothing lies behind the last of them.
    fn most_alive_bytes(&self) -> u64 {
        self.share_of(self.end())
    }

    /// Where the last of them ends.
    fn end(&self) -> u64 {
        self.chunks.iter().map(|(offset, bytes)| u64::from(*offset) + u64::from(*bytes)).max().unwrap_or(0)
    }

    fn share_of(&self, length: u64) -> u64 {
        let content: u64 = self.chunks.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        let share = u128::from(self.frame_bytes) * u128::from(content.min(self.end())) / u128::from(length.max(1));
        u64::try_from(share).unwrap_or(u64::MAX).saturating_add(TABLE_ROW_BYTES * self.chunks.len() as u64)
    }
}

/// The heads that backups follow, and the steps that they go on from: nobody goes on from what was refused, or came too
/// late.
pub(super) fn heads(commit: &Commit) -> HashSet<SnapshotId> {
    let goes_on = |name: &str| !name.starts_with("quarantine/") && !name.starts_with("fork/");
    commit
        .branches
        .iter()
        .filter(|(name, _)| goes_on(name))
        .filter_map(|(_, branch)| branch.head)
        .chain(commit.snapshots.iter().filter(|snapshot| is_step(snapshot)).map(|step| step.id))
        .collect()
}

/// Tells references to one place apart that expect different things there.
fn fingerprint(page: &PageRef, is_list: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    (page.page, page.level, page.placement.bytes, page.placement.frame, is_list).hash(&mut hasher);
    hasher.finish()
}

/// Why the prune goes no further.
fn unreadable(error: Error) -> Error {
    let kind = match error.kind() {
        // That a pack of pages is gone is damage here, not a wrong name.
        ErrorKind::NotFound => ErrorKind::Corrupt,
        kind => kind,
    };
    match kind {
        ErrorKind::Corrupt | ErrorKind::Unsupported => {
            Error::new(kind, format!("nothing was deleted, because it cannot be told what is needed: {error}"))
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(frame_bytes: u32, chunks: &[(u32, u32)]) -> u64 {
        LiveBlock { frame_bytes, chunks: chunks.to_vec() }.alive_bytes() - TABLE_ROW_BYTES * chunks.len() as u64
    }

    #[test]
    fn a_block_is_as_alive_as_the_part_that_is_needed_of_it() {
        const KIB: u32 = 1 << 10;
        let table: &[(u32, &[(u32, u32)], u64)] = &[
            (100, &[(0, 512 * KIB)], 100),
            (100, &[(0, 64 * KIB), (448 * KIB, 64 * KIB)], 25),
            (100, &[(0, 9 << 20)], 100),
            // How long the block is behind its last live chunk is a guess.
            (100, &[(0, 400 * KIB)], 78),
            (100, &[(0, 10)], 50),
            (100, &[(0, 10), (10, 10), (20, 10)], 75),
            (100, &[(80, 20)], 10),
            // What only a damaged page can claim.
            (100, &[], 0),
            (100, &[(0, 0)], 0),
            (100, &[(0, 500), (10, 500)], 66),
            (u32::MAX, &[(u32::MAX, u32::MAX)], u64::from(u32::MAX) / 2),
        ];
        for (frame, chunks, alive) in table {
            assert_eq!(block(*frame, chunks), *alive, "{chunks:?}");
        }
    }
}
