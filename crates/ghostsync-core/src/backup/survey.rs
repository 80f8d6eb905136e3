//! The first pass: goes through what the walk finds in step with the parent's tree, counts what differs, and keeps what
//! the walk saw.
//!
//! Nothing is read but names, metadata and the headers of databases whose transients are gone, and nothing is uploaded:
//! a refusal that is known here costs no object.

use super::decide::{Decider, Step};
use super::dedup::ParentChunks;
use super::known::KnownWriter;
use super::seen::{Seen, SeenEntry, Spool, Spooled};
use super::tally::{AddedContents, Tallied, Tally};
use super::walking::Walking;
use super::{Context, Parent};
use crate::entry::EntryKind;
use crate::error::Result;
use crate::format::page::PageRef;
use crate::id::SnapshotId;
use crate::source::{Desk, Found, FoundKind, ReadOutcome, read_file};
use crate::tree::{Ahead, LeafEntry, Leaves, Merge, TreeIter};

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

/// Compares what a walk of the source finds with the parent.
///
/// As long as everything is as the cache of inodes and ctimes has it, and with `may_be_known`, no page of the parent
/// is read: whatever changes an entry sets its ctime, which nobody can set back, and what was written too shortly
/// before it was looked at is not in the cache.
pub(super) fn survey(context: &Context, parent: &Parent, mut walked: Walking, may_be_known: bool) -> Result<Surveyed> {
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
    if is_known && walked.has_met_all_known() {
        return Ok(Surveyed::Unchanged(Box::new(tally.finish(AddedContents::default(), &context.root)?)));
    }
    let mut known = known.finish()?;
    Ok(Surveyed::Compared(Box::new(compare(context, parent, known.read()?.chain(walked))?)))
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
