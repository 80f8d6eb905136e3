//! The entries of a snapshot at and below a path that has to be there.

use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::format::page::Placed;
use ghostsync_core::id::SnapshotId;
use ghostsync_core::repository::{Entries, Repository};
use ghostsync_core::tree_path::TreePath;
use ghostsync_core::{Error, ErrorKind, Result};

use crate::render::human;

/// Reads entries a page at a time.
pub(super) struct Reader {
    entries: Entries,
    snapshot: SnapshotId,
    path: TreePath,
    found: bool,
}

impl Reader {
    pub(super) fn new(repository: &Repository, snapshot: &Snapshot, path: TreePath) -> Self {
        Self { entries: repository.entries(snapshot, &path), snapshot: snapshot.id, path, found: false }
    }

    /// The next entries; `None` at the end.
    ///
    /// # Errors
    /// `NotFound` if nothing is at the path, and as [`Entries::next_page`].
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<Placed>>> {
        let page = self.entries.next_page().await?;
        self.found |= page.as_ref().is_some_and(|page| !page.is_empty());
        if page.is_none() && !self.found {
            let id = human::brief_id(self.snapshot);
            return Err(Error::new(ErrorKind::NotFound, format!("snapshot {id} has no entry {:?}", self.path)));
        }
        Ok(page)
    }
}
