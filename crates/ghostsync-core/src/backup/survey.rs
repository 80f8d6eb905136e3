//! The first pass: walks the source in step with the parent's tree, counts what differs, and keeps what it saw.
//!
//! Nothing is read but names, metadata and the headers of databases whose transients are gone, and nothing is uploaded:
//! a refusal that is known here costs no object.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use jiff::Timestamp;

use super::decide::{Decider, Step};
use super::dedup::ParentChunks;
use super::known::{Known, KnownReader, KnownWriter};
use super::seen::{Seen, SeenEntry, Spool, Spooled};
use super::tally::{AddedContents, Tallied, Tally};
use super::{Context, Parent};
use crate::entry::EntryKind;
use crate::error::Result;
use crate::format::page::PageRef;
use crate::id::SnapshotId;
use crate::observer::Progress;
use crate::source::{Desk, Found, FoundKind, ReadOutcome, Walk, Walked, racy, read_file};
use crate::tree::{Ahead, LeafEntry, Leaves, Merge, TreeIter};
use crate::tree_path::TreePath;

/// Entries that travel together from the walking thread.
const BATCH: usize = 256;
/// Of those that may wait.
const BATCHES: usize = 32;

struct Batch {
    items: Vec<Result<Seen>>,
    /// It is the last, and every entry of the cache of inodes and ctimes was met.
    is_known_used_up: bool,
}

/// What the first pass found.
pub(super) struct Survey {
    pub(super) seen: Spooled<Seen>,
    pub(super) tallied: Tallied,
    /// Files whose content must be read, and their bytes.
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// A file has another time than the parent's: whatever its content turns out to be, a snapshot comes of it.
    pub(super) is_sure_to_differ: bool,
    pub(super) parent_chunks: ParentChunks,
    pub(super) parent_pages: Vec<PageRef>,
    /// Leaves of the parent that the second pass need not read again.
    pub(super) parent_leaves: Leaves,
}

/// What a walk tells of the source.
pub(super) enum Surveyed {
    /// It is exactly as it was when the cache of inodes and ctimes was made with the parent.
    Unchanged(Box<Tallied>),
    /// It was compared with the parent's tree.
    Compared(Box<Survey>),
}

/// Walks the source and compares it with the parent.
///
/// As long as everything is as the cache of inodes and ctimes has it, and with `may_be_known`, no page of the parent
/// is read: whatever changes an entry sets its ctime, which nobody can set back, and what was written too shortly
/// before it was looked at is not in the cache.
pub(super) fn survey(context: &Context, parent: &Parent, may_be_known: bool) -> Result<Surveyed> {
    walking(context, parent, |walked| {
        let mut known = Spool::new(context.folder());
        let mut tally = Tally::new(parent.id(), context.folder());
        let mut is_known = may_be_known;
        while is_known {
            let Some(item) = walked.next().transpose()? else { break };
            match &item {
                Seen::Entry(entry) if entry.is_known => tally.same(&entry.found),
                Seen::Excluded { .. } => {}
                Seen::Entry(_) | Seen::Unreadable { .. } => is_known = false,
            }
            known.push(item)?;
        }
        if is_known && walked.is_known_used_up {
            return Ok(Surveyed::Unchanged(Box::new(tally.finish(AddedContents::default(), &context.root)?)));
        }
        let mut known = known.finish()?;
        Ok(Surveyed::Compared(Box::new(compare(context, parent, known.read()?.chain(walked))?)))
    })
}

fn compare(context: &Context, parent: &Parent, walked: impl Iterator<Item = Result<Seen>>) -> Result<Survey> {
    let noted = TreeIter::new(context.repository.pages(), parent.tree(), context.waiter.clone());
    std::thread::scope(|scope| compare_with(context, parent, walked, noted.ahead(scope).keeping()))
}

fn compare_with(
    context: &Context,
    parent: &Parent,
    walked: impl Iterator<Item = Result<Seen>>,
    mut right: Ahead<'_>,
) -> Result<Survey> {
    let (mut tally, mut seen) = (Tally::new(parent.id(), context.folder()), Spool::new(context.folder()));
    let mut decider = Decider::new(&context.matcher, &context.options);
    let (mut files, mut bytes, mut is_sure_to_differ) = (0, 0, false);
    let mut parent_chunks = ParentChunks::default();
    let spooled = walked.map(|item| {
        let item = item?;
        seen.push(item.clone())?;
        Ok(item)
    });
    let chunks = &mut parent_chunks;
    let noted = std::iter::from_fn(|| {
        let item = right.next()?;
        if let Ok(placed) = &item {
            chunks.push(placed, right.pages().len().saturating_sub(1));
        }
        Some(item)
    });
    for pair in Merge::new(spooled, noted) {
        let (step, problem) = decider.decide(pair?);
        if let Some((path, message)) = problem {
            tally.unreadable(&path, message);
        }
        if let Step::Read(seen, Some(old)) = &step {
            is_sure_to_differ |= seen.found.mtime != old.entry.mtime;
        }
        count(&mut tally, &step, &mut files, &mut bytes)?;
    }
    let (parent_pages, parent_leaves) = (right.pages().to_vec(), right.take_kept());
    let (seen, tallied) = (seen.finish()?, tally.finish(AddedContents::default(), &context.root)?);
    Ok(Survey { seen, tallied, files, bytes, is_sure_to_differ, parent_chunks, parent_pages, parent_leaves })
}

/// Calls with what a walk finds, which has a thread of its own.
fn walking<T>(context: &Context, parent: &Parent, function: impl FnOnce(&mut Batches<'_>) -> Result<T>) -> Result<T> {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(BATCHES);
        scope.spawn(move || {
            let mut walking = Walking::new(context, parent);
            let mut items = Vec::with_capacity(BATCH);
            for item in walking.by_ref() {
                let failed = item.is_err();
                items.push(item);
                let is_due = failed || items.len() == BATCH;
                let batch = |items| Batch { items, is_known_used_up: false };
                let mut take = || std::mem::replace(&mut items, Vec::with_capacity(BATCH));
                let nobody_listens = is_due && sender.send(batch(take())).is_err();
                if failed || nobody_listens {
                    return;
                }
            }
            drop(sender.send(Batch { items, is_known_used_up: walking.known.is_used_up() }));
        });
        function(&mut Batches { receiver, batch: Vec::new().into_iter(), is_known_used_up: false, entries: 0, context })
    })
}

/// Counts what metadata alone can tell: a file whose size is the same may still turn out unchanged.
fn count(tally: &mut Tally, step: &Step, files: &mut u64, bytes: &mut u64) -> Result<()> {
    match step {
        Step::Keep(_, old) | Step::Carry(old) => {
            tally.parent(&old.entry);
            tally.entry(old.entry.counts(), matches!(old.entry.kind, EntryKind::Socket), old.entry.size());
        }
        Step::Touch(_, old) => {
            tally.parent(&old.entry);
            tally.entry(old.entry.counts(), matches!(old.entry.kind, EntryKind::Socket), old.entry.size());
            tally.touched();
        }
        Step::Read(seen, old) => {
            let size = size_of(&seen.found);
            *files += 1;
            *bytes += size;
            tally.entry(true, false, size);
            match old {
                None => tally.added(true),
                Some(old) => {
                    tally.parent(&old.entry);
                    match old.entry.content() {
                        None => {
                            tally.removed(&old.entry)?;
                            tally.added(true);
                        }
                        Some(content) if size == 0 && content.size > 0 => tally.removed(&old.entry)?,
                        Some(content) if content.size != size => tally.changed(&old.entry.path),
                        Some(_) => {}
                    }
                }
            }
        }
        Step::Make(seen, old) => count_made(tally, seen, old.as_ref().map(|old| &old.entry))?,
        Step::Gone(old) => {
            tally.parent(&old.entry);
            tally.removed(&old.entry)?;
        }
        Step::Hidden(old) => {
            tally.parent(&old.entry);
            tally.excluded(&old.entry);
        }
        Step::Skip => {}
    }
    Ok(())
}

/// Counts something other than a regular file that is new or other than the parent's.
pub(super) fn count_made(tally: &mut Tally, seen: &SeenEntry, old: Option<&crate::entry::Entry>) -> Result<()> {
    let is_socket = matches!(seen.found.kind, FoundKind::Socket);
    let counts = !is_socket && !seen.found.path.is_root();
    tally.entry(counts, is_socket, 0);
    let Some(old) = old else {
        tally.added(counts);
        return Ok(());
    };
    tally.parent(old);
    // A link with another target is still a link: neither removed nor added.
    if matches!((&seen.found.kind, &old.kind), (FoundKind::Symlink { .. }, EntryKind::Symlink { .. })) {
        tally.touched();
        return Ok(());
    }
    tally.removed(old)?;
    tally.added(counts);
    Ok(())
}

pub(super) fn size_of(found: &Found) -> u64 {
    match found.kind {
        FoundKind::File { size } => size,
        _ => 0,
    }
}

/// Hashes the added files whose size is that of a removed one, and counts again: a move is no removal.
pub(super) fn recount_with_moves(context: &Context, parent: &Parent, survey: &mut Survey) -> Result<()> {
    let mut added = AddedContents::default();
    let mut tally = Tally::new(parent.id(), context.folder());
    let mut decider = Decider::new(&context.matcher, &context.options);
    let mut desk = Desk::default();
    let left = survey.seen.read()?;
    let right = TreeIter::new(context.repository.pages(), parent.tree(), context.waiter.clone())
        .map(|placed| placed.map(LeafEntry::from));
    for pair in Merge::new(left, right) {
        context.options.interrupt.check()?;
        let (step, problem) = decider.decide(pair?);
        if let Some((path, message)) = problem {
            tally.unreadable(&path, message);
        }
        if let Step::Read(seen, old) = &step
            && old.as_ref().is_none_or(|old| old.entry.content().is_none())
            && survey.tallied.removed_sizes.contains(&size_of(&seen.found))
            && let ReadOutcome::Read { content, .. } = read_file(
                &context.root,
                &mut desk,
                &seen.found,
                &context.repository.config().chunker,
                &context.options.interrupt,
                &mut |_| Ok(()),
            )?
        {
            added.push(content.size, content.hash);
        }
        count(&mut tally, &step, &mut 0, &mut 0)?;
    }
    survey.tallied = tally.finish(added, &context.root)?;
    Ok(())
}

/// Notes inodes and ctimes of an unchanged tree, so that the next run need not look as closely, and tidies the cache.
pub(super) fn note_known(context: &Context, survey: &mut Survey, snapshot: SnapshotId) -> Result<()> {
    let mut known = KnownWriter::create(context.known_file());
    for seen in survey.seen.read()? {
        if let Seen::Entry(entry) = seen?
            && !entry.racy
        {
            known.push(&entry.found);
        }
    }
    known.end().finish(snapshot, context.root.directory_id());
    // The head's pages are all that the next run can want.
    let wanted = survey.parent_pages.iter().map(|page| page.placement.pack).collect();
    context.repository.pages().forget_others(&wanted);
    Ok(())
}

/// The walk on its own thread: with attributes where they may have changed, and hard-link groups.
struct Walking {
    walk: Walk,
    known: KnownReader,
    /// The first member of each group of several links.
    groups: HashMap<(u64, u64), TreePath>,
    /// Without a cache, a file that is as young as the parent snapshot may have changed after it was read.
    oldest_untrusted: Option<i64>,
    /// There is nothing to compare with, and every file is read: its attributes are read with it.
    is_first: bool,
    now: Timestamp,
}

impl Walking {
    fn new(context: &Context, parent: &Parent) -> Self {
        let directory = context.root.directory_id();
        Self {
            walk: Walk::new(&context.root, context.matcher.clone(), &context.options.excludes).ahead(),
            known: KnownReader::open(context.known_file().as_deref(), parent.id(), directory),
            groups: HashMap::new(),
            oldest_untrusted: parent.snapshot().map(|snapshot| snapshot.time.as_second() - 2),
            is_first: parent.tree().is_none(),
            now: context.options.clock.now(),
        }
    }

    fn seen(&mut self, found: Found) -> Seen {
        let known = self.known.look(&found);
        let trusted = match known {
            Known::Same => true,
            Known::Different => false,
            Known::Nothing => self.oldest_untrusted.is_none_or(|oldest| found.mtime.seconds < oldest),
        };
        let is_read_anyway = self.is_first && found.links == 1 && matches!(found.kind, FoundKind::File { .. });
        let xattrs = if known == Known::Same || is_read_anyway {
            None
        } else {
            match self.walk.xattrs(&found) {
                Ok(xattrs) => Some(xattrs),
                Err(error) => {
                    let message = format!("its attributes could not be read: {error}");
                    return Seen::Unreadable { path: found.path, below: false, message };
                }
            }
        };
        let link = (found.links > 1 && !matches!(found.kind, FoundKind::Directory))
            .then(|| self.groups.entry((found.device, found.inode)).or_insert_with(|| found.path.clone()).clone());
        let racy = racy(&found, self.now);
        Seen::Entry(Arc::new(SeenEntry { found, xattrs, link, is_known: known == Known::Same, trusted, racy }))
    }
}

impl Iterator for Walking {
    type Item = Result<Seen>;

    fn next(&mut self) -> Option<Result<Seen>> {
        Some(self.walk.next()?.map(|walked| match walked {
            Walked::Found(found) => self.seen(found),
            Walked::Excluded { path } => Seen::Excluded { path },
            Walked::Unreadable { path, below, error } => {
                let what = if below { "the directory could not be listed" } else { "it could not be read" };
                Seen::Unreadable { path, below, message: format!("{what}: {error}") }
            }
        }))
    }
}

/// Takes batches apart, tells how far the walk is, and notices the wish to stop.
struct Batches<'a> {
    receiver: Receiver<Batch>,
    batch: std::vec::IntoIter<Result<Seen>>,
    is_known_used_up: bool,
    entries: u64,
    context: &'a Context,
}

impl Iterator for Batches<'_> {
    type Item = Result<Seen>;

    fn next(&mut self) -> Option<Result<Seen>> {
        loop {
            if let Some(item) = self.batch.next() {
                return Some(item);
            }
            if let Err(error) = self.context.options.interrupt.check() {
                return Some(Err(error));
            }
            let batch = self.receiver.recv().ok()?;
            self.entries += batch.items.len() as u64;
            self.context.observer.progress(Progress::Listed { entries: self.entries });
            self.is_known_used_up = batch.is_known_used_up;
            self.batch = batch.items.into_iter();
        }
    }
}
