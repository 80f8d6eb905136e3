//! The snapshot that a backup is compared with, how it may move its branch, and the receipt that proves where its
//! directory came from.
//!
//! Without a receipt the parent is the branch's head, and the new snapshot may follow whatever head there is by then:
//! it is a state of its own. With a receipt the parent is the receipt's snapshot, and only that may be followed: the
//! directory is an edit of what was restored. If the head is another's, the tree goes to a fork from the start.
//!
//! Before a commit the session is noted in the receipt (`pending`), so that after a crash in between a head made by
//! that very session brings the receipt forward instead of standing in the way. So are those of earlier runs that
//! ended like that, until a snapshot is acknowledged: any of their commits may be the one that lands.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::{BackupOptions, Context};
use crate::error::{Error, Result};
use crate::format::commit::{Snapshot, TreeRef};
use crate::guard::{Guard, Refusal};
use crate::history::judge::{Overtaken, Standing};
use crate::history::{Session, holder_of};
use crate::id::{SessionId, SnapshotId};
use crate::receipt::{DirectoryMark, Receipt};
use crate::repository::{Repository, State};

/// The parent of a backup.
pub(super) struct Parent {
    snapshot: Option<Snapshot>,
    receipt: Option<Held>,
    /// The epoch that the writer holds, or that the branch has now.
    epoch: u64,
    holds: bool,
    /// The claim in whose epoch that is, whoever made it and released it since.
    claim: Option<SessionId>,
    /// Why the tree goes to a fork whatever happens.
    overtaken: Option<Overtaken>,
}

/// A receipt that holds, and where it lies.
type Held = (PathBuf, Receipt);

/// Reads the receipt that is required, if one is: before the source is looked at.
///
/// # Errors
/// `Refused` by the guard `receipt` if it is for something else, or not to be read.
pub(super) fn require_receipt(
    repository: &Repository,
    options: &BackupOptions,
    directory: DirectoryMark,
) -> Result<Option<Held>> {
    let Some(path) = &options.receipt else { return Ok(None) };
    let receipt = Receipt::load(path).map_err(|error| refused(path, error))?;
    let checked = receipt.check(repository.id(), &options.branch, directory);
    checked.map_err(|error| refused(path, error))?;
    Ok(Some((path.clone(), receipt)))
}

fn refused(path: &Path, reason: impl Display) -> Error {
    Refusal::plain(Guard::Receipt, format!("{}: {reason}", path.display())).into()
}

impl Parent {
    /// Finds it; `again` after a prune went past the backup while it ran.
    ///
    /// # Errors
    /// `Refused` by the guard `receipt` if the receipt names what is not there.
    pub(super) fn find(state: &State, options: &BackupOptions, receipt: Option<Held>, again: bool) -> Result<Self> {
        let branch = state.commit.branches.get(&options.branch);
        let head = state.commit.head(&options.branch).cloned();
        let epoch = branch.map_or(0, |branch| branch.epoch);
        let holder = branch.and_then(holder_of);
        let holds = holder.is_some_and(|holder| Some(&holder.owner) == options.owner.as_ref());
        let overtaken = match holder {
            Some(_) if !holds => Some(Overtaken::Held),
            None if options.exclusive => Some(Overtaken::NotHeld),
            _ => None,
        };
        let Some((path, receipt)) = receipt else {
            return Ok(Self { snapshot: head, receipt: None, epoch, holds, claim: None, overtaken });
        };
        // What a repair has left of a snapshot is that snapshot for whoever has all of it.
        let mut repaired = std::iter::successors(head.as_ref(), |made| state.commit.snapshot(made.repaired?));
        let is_ours = |snapshot: &Snapshot| receipt.awaits(snapshot.session) || Some(snapshot.id) == receipt.snapshot;
        let is_ours = repaired.any(is_ours) || (head.is_none() && receipt.snapshot.is_none());
        // A person has looked at what a guard refused here, and made it the head: the directory adopts its epoch, unless
        // the branch was claimed since, be it by another of this owner's name.
        let claim = branch.and_then(|branch| branch.holder.as_ref()).map(|holder| holder.session);
        let is_promoted = |head: &Snapshot| head.promoted.is_some() && head.promoted == receipt.quarantined;
        let adopted = head.as_ref().is_some_and(is_promoted) && claim == receipt.quarantined_under;
        let is_head = is_ours || adopted;
        let snapshot = match receipt.snapshot {
            _ if is_head => head,
            None => None,
            // What the receipt names was there when the backup began: what the directory had since goes to a fork.
            Some(id) if again => state.commit.snapshot(id).cloned(),
            Some(id) => Some(state.commit.snapshot(id).cloned().ok_or_else(|| {
                refused(&path, format!("the receipt names snapshot {id}, which the repository does not have"))
            })?),
        };
        // An owner that claimed again, or another one of its name, has fenced what was restored before.
        let epoch = if holds && !adopted { receipt.epoch } else { epoch };
        let overtaken = overtaken.or((!is_head).then_some(Overtaken::OtherHead));
        let claim = claim.filter(|_| branch.is_some_and(|branch| branch.epoch == epoch));
        Ok(Self { snapshot, receipt: Some((path, receipt)), epoch, holds, claim, overtaken })
    }

    /// What the session that stores it may do.
    pub(super) fn standing(&self, session: &Session) -> Standing<SnapshotId> {
        let appends = self.receipt.is_none();
        Standing { begin: session.begin, parent: self.id(), epoch: self.epoch, holds: self.holds, appends }
    }

    /// The same on a state with this head: one that an earlier session of this very directory made, whose commit
    /// landed late, is not another's, and may be followed.
    pub(super) fn standing_on(&self, head: Option<&Snapshot>, session: &Session) -> Standing<SnapshotId> {
        let awaits = |head: &&Snapshot| self.receipt.as_ref().is_some_and(|(_, receipt)| receipt.awaits(head.session));
        let landed = head.filter(awaits).map(|head| head.id);
        Standing { parent: landed.or(self.id()), ..self.standing(session) }
    }

    /// Why the tree goes to a fork, if that is known from the start.
    pub(super) fn overtaken(&self) -> Option<Overtaken> {
        self.overtaken
    }

    pub(super) fn holds(&self) -> bool {
        self.holds
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

    /// Notes in the receipt that this session is about to commit.
    pub(super) fn announce(&self, context: &Context, session: &Session) -> Result<()> {
        let Some((path, receipt)) = &self.receipt else { return Ok(()) };
        // A head that the pending session of a crashed run made becomes the receipt's snapshot here.
        let current = self.snapshot().map_or_else(|| receipt.clone(), |head| self.names(receipt, head, context));
        // What an earlier run asked for may land as long as nothing of this one has.
        let unsettled = current.unsettled.iter().copied().chain(current.pending).collect();
        Receipt { pending: Some(session.id), unsettled, ..current }.write(path)
    }

    /// Takes that back, when it is certain that the session made no commit.
    pub(super) fn withdraw(&self) -> Result<()> {
        let Some((path, receipt)) = &self.receipt else { return Ok(()) };
        receipt.write(path)
    }

    /// Rewrites the receipt for a snapshot that the directory equals: the one just made, or the head.
    pub(super) fn keep_receipt(&self, context: &Context, snapshot: &Snapshot) -> Result<()> {
        let Some((path, receipt)) = &self.receipt else { return Ok(()) };
        let names = self.names(receipt, snapshot, context);
        Receipt { pending: None, unsettled: Vec::new(), quarantined: None, quarantined_under: None, ..names }
            .write(path)
    }

    /// Notes in the receipt that the directory, as it is, was refused and is kept in quarantine.
    pub(super) fn note_quarantine(&self, snapshot: &Snapshot) -> Result<()> {
        let Some((path, receipt)) = &self.receipt else { return Ok(()) };
        Receipt { quarantined: Some(snapshot.id), quarantined_under: self.claim, ..receipt.clone() }.write(path)
    }

    /// The receipt as it says that the directory equals a snapshot.
    fn names(&self, receipt: &Receipt, snapshot: &Snapshot, context: &Context) -> Receipt {
        Receipt {
            epoch: self.epoch,
            snapshot: Some(snapshot.id),
            tree: Some(snapshot.tree.page),
            entries: snapshot.entries,
            bytes: snapshot.bytes,
            finished: context.options.clock.now(),
            ..receipt.clone()
        }
    }
}
