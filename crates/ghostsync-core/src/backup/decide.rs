//! What is to be done about each path: pure, so that both passes over a tree decide the same.

use std::sync::Arc;

use super::BackupOptions;
use super::seen::{Seen, SeenEntry};
use super::survey::size_of;
use crate::entry::{Entry, EntryKind, FileContent};
use crate::format::page::{Placed, Placement};
use crate::source::{FoundKind, Matcher};
use crate::tree::{AtPath, LeafEntry, Pair};
use crate::tree_path::TreePath;

/// What is to be done about one path.
#[derive(Debug)]
pub(super) enum Step {
    /// The parent's entry stays as it is.
    Keep(Arc<SeenEntry>, LeafEntry),
    /// The content is the parent's, other metadata are new.
    Touch(Arc<SeenEntry>, LeafEntry),
    /// The content of a regular file must be read; the parent's entry, if any, may be of another kind.
    Read(Arc<SeenEntry>, Option<LeafEntry>),
    /// Anything but a regular file is new, or differs from the parent's entry.
    Make(Arc<SeenEntry>, Option<LeafEntry>),
    /// It could not be read: the parent's version is carried forward.
    Carry(LeafEntry),
    /// The parent's entry is gone.
    Gone(LeafEntry),
    /// The parent's entry is hidden by excludes.
    Hidden(LeafEntry),
    /// Nothing to keep.
    Skip,
}

/// Decides path by path, in tree order.
pub(super) struct Decider<'a> {
    pub(super) matcher: &'a Matcher,
    pub(super) reread: bool,
    /// Files that must be read and are larger keep the parent's version.
    defer_over: Option<u64>,
    /// What could not be read: everything at and below it is carried forward.
    unread: Option<TreePath>,
    /// What excludes hide: everything at and below it.
    hidden: Option<TreePath>,
}

impl<'a> Decider<'a> {
    pub(super) fn new(matcher: &'a Matcher, options: &BackupOptions) -> Self {
        Self { matcher, reread: options.reread, defer_over: options.defer_over, unread: None, hidden: None }
    }

    /// Decides one path; tells also what could not be read.
    pub(super) fn decide(&mut self, pair: Pair<Seen, LeafEntry>) -> (Step, Option<(TreePath, String)>) {
        match self.step(pair) {
            (Step::Read(seen, old), None) if self.defer_over.is_some_and(|most| size_of(&seen.found) > most) => {
                let problem =
                    Some((seen.found.path.clone(), "it is left for the next snapshot, because it is large".into()));
                (old.map_or(Step::Skip, Step::Carry), problem)
            }
            decided => decided,
        }
    }

    fn step(&mut self, pair: Pair<Seen, LeafEntry>) -> (Step, Option<(TreePath, String)>) {
        match pair {
            Pair::Left(Seen::Entry(seen)) => (new(seen, None), None),
            Pair::Both(Seen::Entry(seen), old) => (self.both(seen, old), None),
            Pair::Right(old) => (self.right(old), None),
            Pair::Left(marker) => (Step::Skip, self.mark(marker)),
            Pair::Both(marker, old) => {
                let problem = self.mark(marker);
                (self.right(old), problem)
            }
        }
    }

    /// Takes a marker of the walk.
    fn mark(&mut self, marker: Seen) -> Option<(TreePath, String)> {
        match marker {
            Seen::Unreadable { path, message, .. } => {
                self.unread = Some(path.clone());
                Some((path, message))
            }
            Seen::Excluded { path } => {
                self.hidden = Some(path);
                None
            }
            Seen::Entry(_) => None,
        }
    }

    fn right(&self, old: LeafEntry) -> Step {
        let path = old.path();
        let covers = |top: &Option<TreePath>| top.as_ref().is_some_and(|top| path.starts_with(top));
        if covers(&self.unread) {
            Step::Carry(old)
        } else if covers(&self.hidden) || self.matcher.excludes_below(path, old.entry.is_directory()) {
            Step::Hidden(old)
        } else {
            Step::Gone(old)
        }
    }

    fn both(&self, seen: Arc<SeenEntry>, old: LeafEntry) -> Step {
        if let (FoundKind::File { size }, EntryKind::File(content)) = (&seen.found.kind, &old.entry.kind) {
            let same = !self.reread
                && seen.trusted
                && !old.entry.unread
                && !old.entry.unstable
                && *size == content.size
                && seen.found.mtime == old.entry.mtime;
            if !same {
                return Step::Read(seen, Some(old));
            }
        } else if !same_kind(&seen.found.kind, &old.entry.kind) {
            return new(seen, Some(old));
        }
        if same_metadata(&seen, &old.entry) { Step::Keep(seen, old) } else { Step::Touch(seen, old) }
    }
}

fn new(seen: Arc<SeenEntry>, old: Option<LeafEntry>) -> Step {
    if matches!(seen.found.kind, FoundKind::File { .. }) { Step::Read(seen, old) } else { Step::Make(seen, old) }
}

/// Whether two things other than regular files are the same but for their metadata.
fn same_kind(found: &FoundKind, old: &EntryKind) -> bool {
    match (found, old) {
        (FoundKind::Directory, EntryKind::Directory)
        | (FoundKind::Fifo, EntryKind::Fifo)
        | (FoundKind::Socket, EntryKind::Socket) => true,
        (FoundKind::Symlink { target }, EntryKind::Symlink { target: old }) => target == old,
        (FoundKind::CharDevice(device), EntryKind::CharDevice(old))
        | (FoundKind::BlockDevice(device), EntryKind::BlockDevice(old)) => device == old,
        _ => false,
    }
}

fn same_metadata(seen: &SeenEntry, old: &Entry) -> bool {
    let found = &seen.found;
    found.mode == old.mode
        && found.uid == old.uid
        && found.gid == old.gid
        && found.mtime == old.mtime
        && seen.link == old.link
        && !old.unread
        && seen.xattrs.as_ref().is_none_or(|xattrs| *xattrs == old.xattrs)
}

/// The entry for what was seen, with this kind; attributes that were not read again are the parent's.
pub(super) fn entry(seen: &SeenEntry, kind: EntryKind, old: Option<&Entry>, unstable: bool) -> Entry {
    let found = &seen.found;
    Entry {
        path: found.path.clone(),
        kind,
        mode: found.mode,
        uid: found.uid,
        gid: found.gid,
        mtime: found.mtime,
        xattrs: match &seen.xattrs {
            Some(xattrs) => xattrs.clone(),
            None => old.map(|old| old.xattrs.clone()).unwrap_or_default(),
        },
        link: seen.link.clone(),
        unread: false,
        unstable,
    }
}

/// The entry for a file whose content is known.
pub(super) fn file_entry(
    seen: &SeenEntry,
    content: FileContent,
    placement: Placement,
    old: Option<&Entry>,
    unstable: bool,
) -> Placed {
    Placed { entry: entry(seen, EntryKind::File(content), old, unstable), content: placement }
}

/// The entry for anything but a regular file.
pub(super) fn special_entry(seen: &SeenEntry, old: Option<&Entry>) -> Option<Placed> {
    let kind = match &seen.found.kind {
        FoundKind::File { .. } => return None,
        FoundKind::Directory => EntryKind::Directory,
        FoundKind::Symlink { target } => EntryKind::Symlink { target: target.clone() },
        FoundKind::Fifo => EntryKind::Fifo,
        FoundKind::CharDevice(device) => EntryKind::CharDevice(*device),
        FoundKind::BlockDevice(device) => EntryKind::BlockDevice(*device),
        FoundKind::Socket => EntryKind::Socket,
    };
    Some(Placed { entry: entry(seen, kind, old, false), content: Placement::Chunks(Vec::new()) })
}
