//! Goes through a damaged tree and puts together what is left: once to see what that is, once to write it.
//!
//! Both passes decide alike; the first uploads nothing, so that a guard judges before anything is written. The second
//! copies chunks that lie in packs which nobody may rely on into packs of its own session, verified on the way, and
//! writes the pages that changed. Memory: the places of one page's chunks, one block, and 100 bytes a copied chunk.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Loss;
use super::shape::{NO_PLACE, Shape};
use super::walk::{Content, Judged, Leaf, Place, Walk};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Result};
use crate::format::commit::Snapshot;
use crate::format::page::{ChunkPlacement, PageRef, Placed, Placement};
use crate::guard::Findings;
use crate::history::Session;
use crate::id::{ChunkId, PackName};
use crate::interrupt::Waiter;
use crate::observer::Observer;
use crate::pack::{ChunkCopies, MetaPacks, PackNames, Uploader};
use crate::store::Store;
use crate::tree::{Pages, TreeWriter, WrittenTree, write_chunk_list};
use crate::tree_path::TreePath;

/// What is left of a tree, and what is not.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) findings: Findings,
    pub(super) losses: Vec<Loss>,
    /// Directories that were made anew.
    pub(super) directories: Vec<TreePath>,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    copied: HashSet<ChunkId>,
    /// Bytes of content that lie where nobody may rely on them.
    pub(super) copied_bytes: u64,
    has_entry: bool,
}

impl Left {
    fn new(head: &Snapshot) -> Self {
        let findings = Findings { parent: Some(head.id), parent_entries: head.entries, ..Findings::default() };
        Self { findings, ..Self::default() }
    }

    /// Whether there is nothing at all, not even a directory.
    pub(super) fn is_nothing(&self) -> bool {
        !self.has_entry
    }

    fn lose(&mut self, entry: &Entry, loss: Loss) {
        if entry.counts_for_caps() {
            self.findings.removed.push(&entry.path);
        }
        self.losses.push(loss);
    }

    fn count(&mut self, entry: &Entry) {
        self.has_entry = true;
        self.entries += u64::from(entry.counts());
        self.bytes = self.bytes.saturating_add(entry.size());
        self.findings.entries = self.entries;
    }
}

/// Sees what is left of a head, and writes it if there is a writer.
///
/// # Errors
/// The store's; `Corrupt` if a copy that was good is so no more.
pub(super) fn rebuild(
    head: &Snapshot,
    walk: &mut Walk<'_>,
    waiter: &Waiter,
    mut writer: Option<&mut Writer>,
) -> Result<Left> {
    let mut left = Left::new(head);
    let mut shape = Shape::default();
    while let Some(leaf) = waiter.wait(walk.next())? {
        let judged = match leaf {
            Leaf::Entries(judged) => judged,
            Leaf::Lost(loss) => {
                // Directories among them are counted too: how many there were is not known.
                left.findings.parent_files = left.findings.parent_files.saturating_add(loss.entries);
                left.findings.removed.push_unknown(&loss.path, loss.entries);
                left.losses.push(loss);
                continue;
            }
        };
        let mut ready = Vec::with_capacity(judged.len());
        for judged in judged {
            put(judged, &mut left, &mut shape, &mut ready);
        }
        if let Some(writer) = &mut writer {
            writer.take(ready, walk, waiter)?;
        }
    }
    Ok(left)
}

/// An entry in its place; with the places of its chunks if they are others than before.
type Ready = (Placed, Option<Vec<(ChunkId, Place)>>);

fn put(judged: Judged, left: &mut Left, shape: &mut Shape, ready: &mut Vec<Ready>) {
    let Judged { mut placed, content } = judged;
    left.findings.parent_files += u64::from(placed.entry.counts_for_caps());
    let moves = match content {
        Content::Stays => None,
        Content::Moves(places) => Some(places),
        Content::Lost(loss) => return left.lose(&placed.entry, loss),
    };
    let Some(made) = shape.take(&mut placed.entry) else {
        let (path, object) = (placed.entry.path.clone(), String::new());
        return left.lose(&placed.entry, Loss { path, entries: 1, object, message: NO_PLACE.to_owned() });
    };
    for directory in made {
        left.count(&directory);
        left.directories.push(directory.path.clone());
        ready.push((Placed { entry: directory, content: Placement::Chunks(Vec::new()) }, None));
    }
    for (chunk, place) in moves.iter().flatten() {
        if let Place::Elsewhere(placement) = place
            && left.copied.insert(*chunk)
        {
            left.copied_bytes += u64::from(placement.bytes);
        }
    }
    left.count(&placed.entry);
    ready.push((placed, moves));
}

/// Writes a tree, and copies what must be.
pub(super) struct Writer {
    tree: TreeWriter,
    meta: MetaPacks,
    /// Copies of this session.
    copies: ChunkCopies,
}

impl Writer {
    /// `kept` are good copies of pages that may be referred to.
    pub(super) fn new(
        store: &Store,
        pages: &Arc<Pages>,
        session: &Session,
        kept: &[PageRef],
        waiter: &Waiter,
        observer: &Arc<dyn Observer>,
    ) -> Self {
        let names = PackNames::new(session.begin, session.id);
        let uploader = Uploader::new(store.clone(), waiter.clone(), Arc::clone(observer));
        let mut meta = MetaPacks::new(names.clone(), kept, HashSet::new(), uploader, Arc::clone(pages));
        // A page is the same only if what it refers to lies where it says: its id does not tell.
        meta.note_moved();
        Self { tree: TreeWriter::default(), meta, copies: ChunkCopies::new(names) }
    }

    fn take(&mut self, entries: Vec<Ready>, walk: &mut Walk<'_>, waiter: &Waiter) -> Result<()> {
        for (chunk, place) in entries.iter().filter_map(|(_, moves)| moves.as_ref()).flatten() {
            if let Place::Elsewhere(placement) = place
                && !self.copies.has(*chunk)
            {
                let bytes = waiter.wait(walk.copies.read(*chunk, placement))?.ok_or_else(|| gone(*chunk, placement))?;
                self.copies.add(*chunk, &bytes, self.meta.uploader())?;
            }
        }
        self.copies.seal(self.meta.uploader())?;
        for (mut placed, moves) in entries {
            if let (Some(places), EntryKind::File(content)) = (moves, &mut placed.entry.kind) {
                let places = places.into_iter().map(|(chunk, place)| Ok((chunk, self.resolve(chunk, place)?)));
                let places = places.collect::<Result<Vec<_>>>()?;
                let (list, placement) = write_chunk_list(&places, content.holes.is_empty(), &mut self.meta)?;
                (content.chunks, placed.content) = (list, placement);
            }
            self.tree.push(&placed, &mut self.meta)?;
        }
        Ok(())
    }

    fn resolve(&self, chunk: ChunkId, place: Place) -> Result<ChunkPlacement> {
        match place {
            Place::Here(placement) => Ok(placement),
            Place::Elsewhere(_) => {
                self.copies.placement(chunk).ok_or_else(|| Error::internal("a chunk was not copied"))
            }
        }
    }

    /// Sends what is left, and waits until every pack is acknowledged; tells also the lengths of the meta packs.
    pub(super) fn finish(mut self) -> Result<(WrittenTree, HashMap<PackName, u64>)> {
        let tree = self.tree.finish(&mut self.meta)?;
        self.copies.finish(self.meta.uploader())?;
        self.meta.finish()?;
        Ok((tree, self.meta.lengths().clone()))
    }
}

fn gone(chunk: ChunkId, placement: &ChunkPlacement) -> Error {
    let pack = crate::store::keys::data_pack(placement.pack);
    Error::corrupt(format!("{pack} does not hold chunk {chunk} any more, which it did a moment ago"))
}
