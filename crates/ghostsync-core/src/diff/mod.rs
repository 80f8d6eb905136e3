//! What differs between two snapshots, or between a snapshot and a directory: one lock-step merge, told as a stream.
//!
//! Nothing is skipped, so equal trees cost as much as different ones; who wants to know only whether they differ
//! compares their ids. Memory holds one page of each tree, the names of the directories on the way down, and the
//! files that a directory links more than once.

mod directory;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::entry::{Entry, EntryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::interrupt::{Interrupt, Waiter};
use crate::repository::Repository;
use crate::source::Excludes;
use crate::tree::{Merge, Pair, TreeIter};
use crate::tree_path::TreePath;

/// How many differences may wait to be read.
const WAITING: usize = 256;

/// The second side of a comparison.
#[derive(Debug, Clone)]
pub enum After {
    /// Another snapshot.
    Snapshot(Box<Snapshot>),
    /// A directory. A file whose kind, size and mtime are those of the snapshot is taken for unchanged, as a backup
    /// takes it; any other is read.
    Directory {
        /// Where it is.
        path: PathBuf,
        /// What is not looked at.
        excludes: Excludes,
    },
}

/// In which way a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// Only the second side has it.
    Added,
    /// Only the first side has it.
    Removed,
    /// The content of the file, the target of the link, or the number of the device differs.
    Changed,
    /// What it is has changed, such as a file that became a directory.
    Kind,
    /// The content is the same; mode, owner, mtime, extended attributes or hard links differ.
    Metadata,
    /// The snapshot has it, and the excludes hide it, or the directory that it is in; it is not known to be gone.
    Excluded,
    /// It, or what is below it, cannot be read in the directory; nothing is known about it.
    Unreadable,
}

impl Change {
    /// Names the change as it appears in JSON output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Kind => "kind",
            Self::Metadata => "metadata",
            Self::Excluded => "excluded",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path.
    pub path: TreePath,
    /// In which way it differs.
    pub change: Change,
    /// The entry of the first side.
    pub before: Option<Entry>,
    /// The entry of the second side. A file of a directory names no chunks: how it would be cut is not decided here.
    pub after: Option<Entry>,
    /// Why nothing is known, for [`Change::Unreadable`].
    pub reason: Option<String>,
}

impl Difference {
    /// The metadata that differ, by the names of their fields; none where a side has no entry.
    #[must_use]
    pub fn metadata(&self) -> Vec<&'static str> {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => changed_metadata(before, after),
            _ => Vec::new(),
        }
    }
}

/// Begins to compare a snapshot with another one or with a directory. Needs the runtime of tokio.
#[must_use]
pub fn diff(repository: &Repository, before: &Snapshot, after: After) -> Differences {
    let (sender, receiver) = mpsc::channel(WAITING);
    let interrupt = Interrupt::default();
    let waiter = Waiter::new(interrupt.clone());
    let pages = Arc::clone(repository.pages());
    let chunker = repository.config().chunker.clone();
    let tree = before.tree.clone();
    let stop = interrupt.clone();
    let work = tokio::task::spawn_blocking(move || {
        let before = TreeIter::new(&pages, Some(&tree), waiter.clone());
        let mut tell = |difference| {
            // Nobody waits for the rest.
            sender.blocking_send(difference).map_err(|_| Error::new(ErrorKind::Interrupted, "interrupted"))
        };
        match after {
            After::Snapshot(after) => Merge::new(before, TreeIter::new(&pages, Some(&after.tree), waiter))
                .try_for_each(|pair| {
                    let (before, after) = match pair? {
                        Pair::Left(before) => (Some(before.entry), None),
                        Pair::Right(after) => (None, Some(after.entry)),
                        Pair::Both(before, after) => (Some(before.entry), Some(after.entry)),
                    };
                    compare(before, after).map_or(Ok(()), &mut tell)
                }),
            After::Directory { path, excludes } => {
                directory::compare_all(before, &path, &excludes, &chunker, &stop, &mut tell)
            }
        }
    });
    Differences { receiver, work: Some(work), interrupt }
}

/// The differences, in tree order. Dropping it ends the comparison.
#[derive(Debug)]
pub struct Differences {
    receiver: mpsc::Receiver<Difference>,
    work: Option<JoinHandle<Result<()>>>,
    interrupt: Interrupt,
}

impl Differences {
    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// `Corrupt` if a page does not match its reference, `NotFound` if its pack is gone, `LocalIo` if the directory
    /// cannot be read at its root, `Invalid` for excludes that cannot be understood.
    pub async fn next(&mut self) -> Result<Option<Difference>> {
        if let Some(difference) = self.receiver.recv().await {
            return Ok(Some(difference));
        }
        match self.work.take() {
            None => Ok(None),
            Some(work) => work.await.map_err(|_| Error::internal("a comparison ended half way"))?.map(|()| None),
        }
    }
}

impl Drop for Differences {
    fn drop(&mut self) {
        self.interrupt.set();
    }
}

fn compare(before: Option<Entry>, after: Option<Entry>) -> Option<Difference> {
    let change = match (&before, &after) {
        (None, None) => return None,
        (None, Some(_)) => Change::Added,
        (Some(_), None) => Change::Removed,
        (Some(first), Some(second)) if first.kind.name() != second.kind.name() => Change::Kind,
        (Some(first), Some(second)) if !same_content(&first.kind, &second.kind) => Change::Changed,
        (Some(first), Some(second)) if !changed_metadata(first, second).is_empty() => Change::Metadata,
        _ => return None,
    };
    let path = before.as_ref().or(after.as_ref())?.path.clone();
    Some(Difference { path, change, before, after, reason: None })
}

/// How a file is cut into chunks, and where its holes are, is not part of its content.
fn same_content(before: &EntryKind, after: &EntryKind) -> bool {
    match (before, after) {
        (EntryKind::File(before), EntryKind::File(after)) => before.size == after.size && before.hash == after.hash,
        (before, after) => before == after,
    }
}

fn changed_metadata(before: &Entry, after: &Entry) -> Vec<&'static str> {
    let fields = [
        ("mode", before.mode != after.mode),
        ("uid", before.uid != after.uid),
        ("gid", before.gid != after.gid),
        ("mtime", before.mtime != after.mtime),
        ("xattrs", before.xattrs != after.xattrs),
        ("link", before.link != after.link),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests;
