//! The snapshot that a backup is compared with, and the receipt that proves where its directory came from.
//!
//! Without a receipt the parent is the branch's head. With one it is the receipt's snapshot, which must be the head:
//! anything else would be a backup of a directory that was never restored from, or not from what it would replace.
//! Before a commit the session is noted in the receipt (`pending`), so that after a crash in between a head made by
//! that very session brings the receipt forward instead of standing in the way.

use std::path::PathBuf;

use super::{BackupOptions, Context};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Snapshot, TreeRef};
use crate::guard::{Guard, Refusal};
use crate::history::Session;
use crate::id::SnapshotId;
use crate::receipt::{DirectoryId, Receipt};
use crate::repository::{Repository, State};

/// The parent of a backup.
pub(super) struct Parent {
    snapshot: Option<Snapshot>,
    receipt: Option<(PathBuf, Receipt)>,
}

impl Parent {
    /// Finds it.
    ///
    /// # Errors
    /// `Refused` by the guard `receipt` if the receipt does not hold; `Conflict` if the head is another's.
    pub(super) fn find(
        repository: &Repository,
        state: &State,
        options: &BackupOptions,
        directory: DirectoryId,
    ) -> Result<Self> {
        let head = state.commit.head(&options.branch).cloned();
        let Some(path) = &options.receipt else { return Ok(Self { snapshot: head, receipt: None }) };
        let refuse = |reason: String| -> Error {
            Refusal::plain(Guard::Receipt, format!("{}: {reason}", path.display())).into()
        };
        let receipt = Receipt::load(path).map_err(|error| refuse(error.to_string()))?;
        receipt.check(repository.id(), &options.branch, directory).map_err(|error| refuse(error.to_string()))?;
        let head_id = head.as_ref().map(|head| head.id);
        let made_by_us = head.as_ref().is_some_and(|head| Some(head.session) == receipt.pending);
        if head_id != receipt.snapshot && !made_by_us {
            if let Some(snapshot) = receipt.snapshot
                && state.commit.snapshot(snapshot).is_none()
            {
                return Err(refuse(format!(
                    "the receipt names snapshot {snapshot}, which the repository does not have"
                )));
            }
            let head = head_id.map_or_else(|| "empty".to_owned(), |head| head.to_string());
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the head of branch {} is {head}, not the snapshot that the directory was restored from; nothing was published",
                    options.branch
                ),
            ));
        }
        Ok(Self { snapshot: head, receipt: Some((path.clone(), receipt)) })
    }

    pub(super) fn id(&self) -> Option<SnapshotId> {
        self.snapshot.as_ref().map(|snapshot| snapshot.id)
    }

    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    pub(super) fn tree(&self) -> Option<&TreeRef> {
        self.snapshot.as_ref().map(|snapshot| &snapshot.tree)
    }

    pub(super) fn has_receipt(&self) -> bool {
        self.receipt.is_some()
    }

    /// Notes in the receipt that this session is about to commit.
    pub(super) fn announce(&self, context: &Context, session: &Session) -> Result<()> {
        let Some((path, receipt)) = &self.receipt else { return Ok(()) };
        // A head that the pending session of a crashed run made becomes the receipt's snapshot here.
        let current = self.snapshot().map_or_else(|| receipt.clone(), |head| names(receipt, head, context));
        Receipt { pending: Some(session.id), ..current }.write(path)
    }

    /// Takes that back, when it is certain that the session made no commit.
    pub(super) fn withdraw(&self) -> Result<()> {
        let Some((path, receipt)) = &self.receipt else { return Ok(()) };
        receipt.write(path)
    }

    /// Rewrites the receipt for a snapshot that the directory equals: the one just made, or the head.
    pub(super) fn keep_receipt(&self, context: &Context, snapshot: &Snapshot) -> Result<()> {
        let Some((path, receipt)) = &self.receipt else { return Ok(()) };
        let receipt = Receipt { pending: None, ..names(receipt, snapshot, context) };
        receipt.write(path)
    }
}

/// The receipt as it says that the directory equals a snapshot.
fn names(receipt: &Receipt, snapshot: &Snapshot, context: &Context) -> Receipt {
    Receipt {
        snapshot: Some(snapshot.id),
        tree: Some(snapshot.tree.page),
        entries: snapshot.entries,
        bytes: snapshot.bytes,
        finished: context.options.clock.now(),
        ..receipt.clone()
    }
}
