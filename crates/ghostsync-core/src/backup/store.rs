//! The second pass: reads what must be read, stores chunks and pages, and writes the new tree.
//!
//! It goes through what the first pass saw, in the same order, in step with the parent's tree again. Threads read and
//! chunk files ahead, others compress blocks; this one takes their results in tree order. An entry waits until the
//! blocks of its chunks lie in a pack, then goes into the tree. Everything that waits is bounded.

mod groups;
mod settle;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::Context;
use super::blocks::Blocks;
use super::decide::{Decider, Step, special_entry};
use super::dedup::{Dedup, Location};
use super::known::{KnownFile, KnownWriter};
use super::publish::Publisher;
use super::readers::{News, Readers, Reading};
use super::seen::SeenEntry;
use super::survey::{Survey, count_made, size_of};
use super::tally::{AddedContents, Tallied, Tally};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Result};
use crate::format::page::Placed;
use crate::id::PackName;
use crate::observer::Progress;
use crate::pack::{DataPacks, MetaPacks, PageEncoder, Uploader};
use crate::recycled::Recycled;
use crate::source::{Content, ReadEvent, ReadOutcome, racy};
use crate::tree::{LeafEntry, Merge, TreeIter, TreeWriter, WrittenTree};
use crate::tree_path::TreePath;

use groups::Groups;

/// Files that are being read or wait to be taken.
const MAX_FILES_AHEAD: usize = 1024;
/// Their bytes, as far as they are in memory; one file may be larger.
const MAX_BYTES_AHEAD: u64 = 4 << 20;
/// What one file can have in memory at most: its chunks that wait, and the one being cut.
const MAX_FILE_BYTES_AHEAD: u64 = 24 << 20;
/// Entries that wait for a block, before it is sealed early.
const MAX_WAITING: usize = 8192;

/// What the second pass made. The packs that were not full yet wait for the word that they are wanted.
pub(super) struct Made {
    pub(super) tree: WrittenTree,
    pub(super) tallied: Tallied,
    pub(super) known: KnownFile,
    data: DataPacks,
    meta: MetaPacks,
}

/// The same, stored: every pack is acknowledged, and nothing refers to them yet.
pub(super) struct Stored {
    pub(super) tree: WrittenTree,
    /// Lengths of the meta packs made here.
    pub(super) pack_lengths: HashMap<PackName, u64>,
    pub(super) tallied: Tallied,
    pub(super) known: KnownFile,
}

impl Made {
    /// Sends what is left, and waits until every pack is acknowledged.
    pub(super) fn send(self) -> Result<Stored> {
        let Self { tree, tallied, known, mut data, mut meta } = self;
        data.finish(meta.uploader())?;
        meta.finish()?;
        Ok(Stored { tree, pack_lengths: meta.lengths().clone(), tallied, known })
    }
}

/// Makes blocks and pages of a source as the survey saw it; packs are sent as they become full.
/// What lies in draining packs is stored again while the budget lasts. A backup that lasts long is another session
/// afterwards than before.
pub(super) fn make(publisher: &mut Publisher<'_>, mut survey: Survey, draining: HashSet<PackName>) -> Result<Made> {
    let (context, parent) = (publisher.context, publisher.parent);
    publisher.steps.take_up(context, &mut survey)?;
    let Survey { seen, tallied, files, bytes, parent_chunks, parent_pages, parent_leaves, .. } = survey;
    context.observer.progress(Progress::Planned { files, bytes });
    let pages = Arc::clone(context.repository.pages());
    let names = publisher.pack_names();
    let begin = publisher.session.begin;
    let uploader =
        Uploader::new(context.repository.store().clone(), context.waiter.clone(), Arc::clone(&context.observer));
    std::thread::scope(|scope| {
        let rooms = Recycled::default();
        let readers = Readers::start(scope, context, &rooms);
        let mut assembly = Assembly {
            context,
            publisher,
            queue: VecDeque::new(),
            bytes_ahead: 0,
            blocks: Blocks::start(scope, &rooms),
            dedup: Dedup::new(
                parent_chunks,
                parent_pages.clone(),
                Arc::clone(&pages),
                context.waiter.clone(),
                context.folder(),
                draining.clone(),
            ),
            data: DataPacks::new(names.clone(), Arc::new(context.journal.clone())),
            meta: MetaPacks::new(names, &parent_pages, draining, uploader, Arc::clone(&pages))
                .encode_by(PageEncoder::start(scope)),
            waiting: VecDeque::new(),
            groups: Groups::default(),
            tree: TreeWriter::default(),
            tally: Tally::new(parent.id(), context.folder()),
            removed_sizes: tallied.removed_sizes,
            added: AddedContents::default(),
            known: KnownWriter::create(context.known_file()),
        };
        context.journal.each_chunk(|chunk, placement| assembly.dedup.adopt(chunk, placement))?;
        context.journal.start(begin);
        let mut decider = Decider::new(&context.matcher, &context.options);
        let left = seen.into_read()?;
        let right = TreeIter::new(&pages, parent.tree(), context.waiter.clone()).with(parent_leaves).ahead(scope);
        for pair in Merge::new(left, right) {
            context.options.interrupt.check()?;
            let (step, problem) = decider.decide(pair?);
            if let Some((path, message)) = problem {
                assembly.tally.unreadable(&path, message);
            }
            assembly.take(step, &readers)?;
            assembly.advance(&readers)?;
        }
        assembly.finish(&readers)
    })
}

/// What has its place in the order, and may still be read.
enum Slot {
    /// With what was seen of it, unless it may have changed since.
    Entry(LeafEntry, Option<Arc<SeenEntry>>),
    /// `only_moves`: the parent's content stays if it cannot be read.
    File {
        seen: Arc<SeenEntry>,
        old: Option<LeafEntry>,
        reading: Reading,
        weight: u64,
        only_moves: bool,
    },
    Link {
        seen: Arc<SeenEntry>,
        old: Option<LeafEntry>,
        only_moves: bool,
    },
}

/// What has been read, and may still wait for its blocks.
enum Waiting {
    Entry(LeafEntry, Option<Arc<SeenEntry>>),
    File(Box<ReadFile>),
    Link { seen: Arc<SeenEntry>, old: Option<LeafEntry> },
}

struct ReadFile {
    seen: SeenEntry,
    old: Option<LeafEntry>,
    content: Content,
    locations: Vec<Location>,
    unstable: bool,
}

struct Assembly<'a, 'b> {
    context: &'a Context,
    publisher: &'a mut Publisher<'b>,
    queue: VecDeque<Slot>,
    bytes_ahead: u64,
    blocks: Blocks,
    dedup: Dedup,
    data: DataPacks,
    meta: MetaPacks,
    waiting: VecDeque<Waiting>,
    groups: Groups,
    tree: TreeWriter,
    tally: Tally,
    removed_sizes: std::collections::HashSet<u64>,
    added: AddedContents,
    known: KnownWriter,
}

impl Assembly<'_, '_> {
    /// Puts one path in its place.
    fn take(&mut self, step: Step, readers: &Readers) -> Result<()> {
        match step {
            Step::Keep(seen, old) | Step::Touch(seen, old) if self.dedup.should_move(&old)? => {
                self.read(seen, Some(old), true, readers)?;
            }
            Step::Keep(seen, old) => {
                self.tally.parent(&old.entry);
                self.count(&old.entry);
                let seen = (!seen.racy).then_some(seen);
                self.queue.push_back(Slot::Entry(old, seen));
            }
            Step::Touch(seen, old) => {
                self.tally.parent(&old.entry);
                let entry = super::decide::entry(&seen, old.entry.kind.clone(), Some(&old.entry), false);
                self.count(&entry);
                self.tally.touched();
                let seen = (!seen.racy).then_some(seen);
                let placed = Placed { entry, content: old.content.clone() };
                self.queue.push_back(Slot::Entry(placed.into(), seen));
            }
            Step::Make(seen, old) => {
                let old = old.as_ref().map(|old| &old.entry);
                count_made(&mut self.tally, &seen, old)?;
                if let Some(placed) = special_entry(&seen, old) {
                    let seen = (!seen.racy).then_some(seen);
                    self.queue.push_back(Slot::Entry(placed.into(), seen));
                }
            }
            Step::Carry(old) => self.carry(old),
            Step::Gone(old) => {
                self.tally.parent(&old.entry);
                self.tally.removed(&old.entry)?;
            }
            Step::Hidden(old) => {
                self.tally.parent(&old.entry);
                self.tally.excluded(&old.entry);
            }
            Step::Read(seen, old) => self.read(seen, old, false, readers)?,
            Step::Skip => {}
        }
        Ok(())
    }

    /// Has a file read, or waits for the one that it is a link to.
    fn read(
        &mut self,
        seen: Arc<SeenEntry>,
        old: Option<LeafEntry>,
        only_moves: bool,
        readers: &Readers,
    ) -> Result<()> {
        if seen.link.as_ref().is_some_and(|first| *first != seen.found.path) {
            self.queue.push_back(Slot::Link { seen, old, only_moves });
            return Ok(());
        }
        if self.is_large(&seen) {
            self.dedup.learn_lists()?;
        }
        let weight = size_of(&seen.found).min(MAX_FILE_BYTES_AHEAD);
        self.bytes_ahead += weight;
        let reading = readers.read(&seen.found)?;
        self.queue.push_back(Slot::File { seen, old, reading, weight, only_moves });
        Ok(())
    }

    /// Tells whether a file is more than one chunk.
    fn is_large(&self, seen: &SeenEntry) -> bool {
        size_of(&seen.found) > self.context.repository.config().chunker.whole_bytes.into()
    }

    fn count(&mut self, entry: &Entry) {
        self.tally.entry(entry.counts(), matches!(entry.kind, EntryKind::Socket), entry.size());
    }

    /// Carries the parent's version forward.
    fn carry(&mut self, old: LeafEntry) {
        let carried = self.carried(&old);
        self.queue.push_back(Slot::Entry(carried, None));
    }

    /// Takes from the front of the queue while too much is ahead; what needs no reading never waits there.
    fn advance(&mut self, readers: &Readers) -> Result<()> {
        while self.queue.len() > MAX_FILES_AHEAD
            || self.bytes_ahead > MAX_BYTES_AHEAD
            || self.queue.front().is_some_and(|slot| matches!(slot, Slot::Entry(..)))
        {
            self.take_front(readers)?;
        }
        Ok(())
    }

    fn take_front(&mut self, readers: &Readers) -> Result<()> {
        match self.queue.pop_front() {
            None => return Ok(()),
            Some(Slot::Entry(placed, seen)) => {
                if placed.entry.link.as_ref() == Some(&placed.entry.path) {
                    self.groups.read.insert(placed.entry.path.clone());
                }
                self.waiting.push_back(Waiting::Entry(placed, seen));
            }
            Some(Slot::Link { seen, old, only_moves }) => self.take_link(seen, old, only_moves, readers)?,
            Some(Slot::File { seen, old, reading, weight, only_moves }) => {
                self.take_file(seen, old, readers, reading, only_moves)?;
                self.bytes_ahead -= weight;
            }
        }
        self.settle(false)?;
        if self.publisher.step_is_due(self.last()) { self.step() } else { Ok(()) }
    }

    /// The last path that is in the tree, or would be if nothing waited.
    fn last(&self) -> Option<&TreePath> {
        match self.waiting.back() {
            Some(Waiting::Entry(placed, _)) => Some(&placed.entry.path),
            Some(Waiting::File(file)) => Some(&file.seen.found.path),
            Some(Waiting::Link { seen, .. }) => Some(&seen.found.path),
            None => self.tree.last(),
        }
    }

    /// Keeps all that has been read so far as a step, and goes on as another session.
    fn step(&mut self) -> Result<()> {
        self.settle(true)?;
        let Some(tree) = self.tree.so_far(&mut self.meta)? else { return Ok(()) };
        self.data.finish(self.meta.uploader())?;
        self.meta.finish()?;
        self.publisher.step(&tree, self.meta.lengths())?;
        let names = self.publisher.pack_names();
        self.data.go_on_as(names.clone());
        self.meta.go_on_as(names);
        self.dedup.go_on();
        Ok(())
    }

    /// A later member of a hard-link group has the content of the first, unless that was gone when it was to be read.
    fn take_link(
        &mut self,
        mut seen: Arc<SeenEntry>,
        old: Option<LeafEntry>,
        only_moves: bool,
        readers: &Readers,
    ) -> Result<()> {
        if let Some(first) = seen.link.as_ref().and_then(|first| self.groups.renamed.get(first)) {
            Arc::make_mut(&mut seen).link = Some(first.clone());
        }
        if seen.link.as_ref().is_some_and(|first| self.groups.read.contains(first)) {
            self.waiting.push_back(Waiting::Link { seen, old });
            return Ok(());
        }
        let path = seen.found.path.clone();
        if let Some(first) = Arc::make_mut(&mut seen).link.replace(path.clone()) {
            self.groups.renamed.insert(first, path);
        }
        let reading = readers.read(&seen.found)?;
        self.take_file(seen, old, readers, reading, only_moves)
    }

    fn take_file(
        &mut self,
        seen: Arc<SeenEntry>,
        old: Option<LeafEntry>,
        readers: &Readers,
        mut reading: Reading,
        only_moves: bool,
    ) -> Result<()> {
        let mut locations = Vec::new();
        let (outcome, read_at) = loop {
            match readers.next(&mut reading)? {
                News::Event(ReadEvent::Begin) => locations.clear(),
                News::Event(ReadEvent::Chunk { id, bytes }) => {
                    self.context.observer.progress(Progress::Advanced { files: 0, bytes: bytes.len() as u64 });
                    locations.push(match self.dedup.find(id)? {
                        Some(location) => location,
                        None => {
                            let number = self.dedup.insert(id);
                            self.blocks.push(id, bytes)?;
                            self.pump(self.blocks.has_enough())?;
                            Location::Ours(number)
                        }
                    });
                }
                News::Done(outcome, read_at) => break (outcome?, read_at),
            }
        };
        self.context.observer.progress(Progress::Advanced { files: 1, bytes: 0 });
        let lost = match outcome {
            ReadOutcome::Vanished
            | ReadOutcome::Replaced
            | ReadOutcome::Unreadable(_)
            | ReadOutcome::Read { xattrs: Err(_), .. }
                if only_moves =>
            {
                return self.keep(seen, old);
            }
            ReadOutcome::Read { xattrs: Err(error), .. } => format!("its attributes could not be read: {error}"),
            ReadOutcome::Read { found, content, xattrs: Ok(xattrs), unstable } => {
                let SeenEntry { link, is_known, trusted, .. } = Arc::unwrap_or_clone(seen);
                let racy = racy(&found, read_at);
                let seen = SeenEntry { found, xattrs: Some(xattrs), link, is_known, trusted, racy };
                if seen.link.is_some() {
                    self.groups.read.insert(seen.found.path.clone());
                }
                let file = ReadFile { seen, old, content, locations, unstable };
                self.waiting.push_back(Waiting::File(Box::new(file)));
                return Ok(());
            }
            ReadOutcome::Vanished => {
                if let Some(old) = old {
                    self.tally.parent(&old.entry);
                    self.tally.removed(&old.entry)?;
                }
                return Ok(());
            }
            ReadOutcome::Replaced => "it was replaced by something else while it was read".to_owned(),
            ReadOutcome::Unreadable(error) => format!("it could not be read: {error}"),
        };
        self.tally.unreadable(&seen.found.path, lost);
        if let Some(old) = old {
            let carried = self.carried(&old);
            self.waiting.push_back(Waiting::Entry(carried, None));
        }
        Ok(())
    }

    /// The parent's version of what could not be read.
    fn carried(&mut self, old: &Placed) -> LeafEntry {
        self.tally.parent(&old.entry);
        self.count(&old.entry);
        let mut carried = old.clone();
        carried.entry.unread = true;
        carried.into()
    }

    /// Keeps the parent's content where it lies: it was to be moved, and nothing else.
    fn keep(&mut self, seen: Arc<SeenEntry>, old: Option<LeafEntry>) -> Result<()> {
        let old = old.ok_or_else(|| Error::internal("a file without a parent was to be moved"))?;
        self.tally.parent(&old.entry);
        let entry = super::decide::entry(&seen, old.entry.kind.clone(), Some(&old.entry), false);
        self.count(&entry);
        if entry != old.entry {
            self.tally.touched();
        }
        if entry.link.as_ref() == Some(&entry.path) {
            self.groups.read.insert(entry.path.clone());
        }
        let seen = (!seen.racy).then_some(seen);
        let placed = Placed { entry, content: old.content.clone() };
        self.waiting.push_back(Waiting::Entry(placed.into(), seen));
        Ok(())
    }

    fn finish(mut self, readers: &Readers) -> Result<Made> {
        while !self.queue.is_empty() {
            self.context.options.interrupt.check()?;
            self.take_front(readers)?;
        }
        self.settle(true)?;
        let known = self.known.end();
        let tree = self.tree.finish(&mut self.meta)?;
        let tallied = self.tally.finish(self.added, &self.context.root)?;
        // The thread that encoded pages ends here.
        let meta = self.meta.encode_by(PageEncoder::default());
        Ok(Made { tree, tallied, known, data: self.data, meta })
    }
}
