//! Counts what a comparison finds, in the words that the guard judges by.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::seen::{Kept, Spool};
use super::survey::size_of;
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Result};
use crate::format::commit::Changes;
use crate::guard::Findings;
use crate::id::{ContentHash, SnapshotId};
use crate::problem::Problem;
use crate::source::{Found, FoundKind, SourceRoot, is_transient};
use crate::tree_path::TreePath;

/// Problems that are listed one by one; the rest are counted.
const MAX_PROBLEMS: usize = 1000;

/// How often each content was added, by size and the first half of its hash: enough to match what was removed.
#[derive(Debug, Default)]
pub(super) struct AddedContents(HashMap<(u64, [u8; 16]), u32>);

impl AddedContents {
    pub(super) fn push(&mut self, size: u64, hash: ContentHash) {
        *self.0.entry(Self::key(size, hash.as_bytes())).or_default() += 1;
    }

    /// Takes one file of this content away, if there is one.
    fn take(&mut self, size: u64, hash: &[u8; 32]) -> bool {
        match self.0.get_mut(&Self::key(size, hash)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }

    fn key(size: u64, hash: &[u8; 32]) -> (u64, [u8; 16]) {
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        (size, half)
    }
}

/// Something of the parent that is gone, unless its content shows up under a new path.
#[derive(Clone, Serialize, Deserialize)]
struct Removed {
    path: Vec<u8>,
    size: u64,
    hash: Option<[u8; 32]>,
}

impl Kept for Removed {
    type Record = Self;

    fn record(&self) -> Self {
        self.clone()
    }

    fn from_record(record: Self) -> Result<Self> {
        Ok(record)
    }
}

/// Counts while a comparison goes on.
pub(super) struct Tally {
    findings: Findings,
    removed: Spool<Removed>,
    removed_sizes: HashSet<u64>,
    added: u64,
    differences: u64,
    sockets: u64,
    bytes: u64,
    problems: Vec<Problem>,
    more_problems: u64,
}

/// What was counted.
pub(super) struct Tallied {
    pub(super) findings: Findings,
    pub(super) changes: Changes,
    /// Sizes of the files that are gone: only added files of these sizes can be moves.
    pub(super) removed_sizes: HashSet<u64>,
    /// Entries of the new tree that are not the parent's as they are, and the parent's that are gone.
    pub(super) differences: u64,
    pub(super) sockets: u64,
    pub(super) bytes: u64,
    pub(super) problems: Vec<Problem>,
}

impl Tally {
    pub(super) fn new(parent: Option<SnapshotId>, folder: Option<&Path>) -> Self {
        Self {
            findings: Findings { parent, ..Findings::default() },
            removed: Spool::new(folder),
            removed_sizes: HashSet::new(),
            added: 0,
            differences: 0,
            sockets: 0,
            bytes: 0,
            problems: Vec::new(),
            more_problems: 0,
        }
    }

    /// An entry that the parent has.
    pub(super) fn parent(&mut self, old: &Entry) {
        self.findings.parent_entries += u64::from(old.counts());
        self.findings.parent_files += u64::from(old.counts_for_caps());
    }

    /// An entry that the new tree has.
    pub(super) fn entry(&mut self, counts: bool, is_socket: bool, bytes: u64) {
        self.findings.entries += u64::from(counts);
        self.sockets += u64::from(is_socket);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// An entry that is in the parent as it is.
    pub(super) fn same(&mut self, found: &Found) {
        let (is_socket, is_directory) =
            (matches!(found.kind, FoundKind::Socket), matches!(found.kind, FoundKind::Directory));
        let counts = !is_socket && !found.path.is_root();
        self.findings.parent_entries += u64::from(counts);
        self.findings.parent_files += u64::from(!is_socket && !is_directory);
        self.entry(counts, is_socket, size_of(found));
    }

    /// An entry at a path where the parent has none, or one of another kind.
    pub(super) fn added(&mut self, counts: bool) {
        self.added += u64::from(counts);
        self.differences += 1;
    }

    /// A file whose content differs.
    pub(super) fn changed(&mut self, path: &TreePath) {
        self.findings.changed.push(path);
        self.differences += 1;
    }

    /// Other metadata, or another link target.
    pub(super) fn touched(&mut self) {
        self.differences += 1;
    }

    /// An entry of the parent that is gone, changed kind or became empty.
    pub(super) fn removed(&mut self, old: &Entry) -> Result<()> {
        self.differences += 1;
        if !old.counts_for_caps() {
            return Ok(());
        }
        let content = old.content();
        if let Some(content) = content {
            self.removed_sizes.insert(content.size);
        }
        self.removed.push(Removed {
            path: old.path.as_bytes().to_vec(),
            size: old.size(),
            hash: content.map(|content| *content.hash.as_bytes()),
        })
    }

    /// An entry of the parent that excludes hide.
    pub(super) fn excluded(&mut self, old: &Entry) {
        self.differences += 1;
        if old.counts_for_caps() {
            self.findings.excluded.push(&old.path);
        }
    }

    /// Something that could not be read.
    pub(super) fn unreadable(&mut self, path: &TreePath, message: String) {
        self.findings.unreadable.push(path);
        self.problem(path, message, true);
    }

    /// Something worth knowing.
    pub(super) fn problem(&mut self, path: &TreePath, message: String, incomplete: bool) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { path: path.clone(), message, incomplete });
        } else {
            self.more_problems += 1;
        }
    }

    /// Ends counting: what is gone and turns up among the added contents has moved, and what SQLite itself took away
    /// beside a database of the source is no loss that a guard counts.
    pub(super) fn finish(mut self, mut added: AddedContents, root: &SourceRoot) -> Result<Tallied> {
        let (mut moved, mut transient) = (0, 0);
        if self.removed.len() > 0 {
            for removed in self.removed.finish()?.read()? {
                let removed = removed?;
                if removed.hash.is_some_and(|hash| added.take(removed.size, &hash)) {
                    moved += 1;
                    continue;
                }
                let path = TreePath::parse(removed.path).map_err(|error| Error::internal(error.to_string()))?;
                if removed.hash.is_some() && is_transient(root, &path) {
                    transient += 1;
                } else {
                    self.findings.removed.push(&path);
                }
            }
        }
        if self.more_problems > 0 {
            let message = format!("and {} more problems", self.more_problems);
            self.problems.push(Problem { path: TreePath::root(), message, incomplete: true });
        }
        let changes = Changes {
            added: self.added.saturating_sub(moved),
            changed: self.findings.changed.count(),
            removed: self.findings.removed.count() + transient,
            moved,
        };
        Ok(Tallied {
            findings: self.findings,
            changes,
            removed_sizes: self.removed_sizes,
            differences: self.differences,
            sockets: self.sockets,
            bytes: self.bytes,
            problems: self.problems,
        })
    }
}

/// Compares two trees whose contents are all known, the new one on the left, which was made of the source.
pub(super) fn compare_trees(
    pairs: impl Iterator<Item = Result<crate::tree::Pair<crate::format::page::Placed, crate::format::page::Placed>>>,
    parent: Option<SnapshotId>,
    folder: Option<&Path>,
    root: &SourceRoot,
) -> Result<Tallied> {
    use crate::tree::Pair;
    let mut tally = Tally::new(parent, folder);
    let mut added = AddedContents::default();
    let count = |tally: &mut Tally, new: &Entry| {
        tally.entry(new.counts(), matches!(new.kind, EntryKind::Socket), new.size());
    };
    let mut add = |tally: &mut Tally, new: &Entry| {
        tally.added(new.counts());
        if let Some(content) = new.content() {
            added.push(content.size, content.hash);
        }
    };
    for pair in pairs {
        match pair? {
            Pair::Left(new) => {
                count(&mut tally, &new.entry);
                add(&mut tally, &new.entry);
            }
            Pair::Right(old) => {
                tally.parent(&old.entry);
                tally.removed(&old.entry)?;
            }
            Pair::Both(new, old) => {
                let (new, old) = (new.entry, old.entry);
                count(&mut tally, &new);
                tally.parent(&old);
                match (new.content(), old.content()) {
                    (Some(content), Some(before)) if content.size == 0 && before.size > 0 => tally.removed(&old)?,
                    (Some(content), Some(before)) if content.hash != before.hash => tally.changed(&new.path),
                    _ if new.kind.name() != old.kind.name() => {
                        tally.removed(&old)?;
                        add(&mut tally, &new);
                    }
                    _ if new != old => tally.touched(),
                    _ => {}
                }
            }
        }
    }
    tally.finish(added, root)
}
