//! The story of a repair: look, find what is left of each damaged head, ask the guard, write it, commit.
//!
//! What is damaged stays as it is: a repair deletes nothing, overwrites nothing, and changes no record. It makes a new
//! snapshot of what is left of a branch's head, as the branch's new head, whose parent is the damaged one. A content
//! or a page is *rebuilt* where another copy of it is found, by its hash, in any pack of the store; where there is none
//! it is left out of the new snapshot alone, which then is incomplete, and named. Nothing older or similar ever takes its
//! place. Where all was rebuilt, the new tree has the id of the old one.
//!
//! Why that is safe:
//!
//! 1. **No wrong byte.** A chunk or page that is not where it should be is taken only after it was read and hashed.
//!    A reference that is kept was looked at just now, as a check does. So the new snapshot is as sound as a check can
//!    tell, and a second repair finds nothing to do.
//! 2. **Nothing that it refers to is deleted.** A copy that a table of contents names may lie in a pack that no snapshot
//!    needs, and that a prune deletes in this moment; that it is there now says nothing. So a new snapshot refers to two
//!    kinds of packs alone: those of its own session, which began at the state that was looked at, and those that pages
//!    of snapshots which were retained in that state refer to, *all* of which must be retained still in the state that it
//!    is committed on. Then a prune that deletes such a pack would have deleted what a retained snapshot needs. What
//!    lies in other packs is copied. (A backup has one such snapshot, its parent; a repair has several.)
//! 3. **Nobody is overtaken.** The commit follows the head that was looked at, in the epoch that was read, on a
//!    branch without a holder; else all begins anew. It sets a new epoch, so that a backup which began before, and refers
//!    to what is damaged, goes to a fork instead of back onto the branch.
//! 4. **The guard judges.** What is lost counts as removed. A head of which little is left is not replaced, unless
//!    somebody looks at what is lost and says so; the old one is there either way.
//! 5. **All or nothing.** Packs are acknowledged before the commit, and that is one for each branch. Cut short
//!    anywhere, a repair leaves packs that nothing refers to, and whole heads.
//!
//! A later backup reuses what its parent refers to and nothing else, so after a repair it stores again whatever was
//! lost and is still in the directory; that needs no rule of its own.
//!
//! What it does not do: older snapshots, forks and quarantined ones stay as they are. They are named; made a head by a
//! promotion, they are repaired as such. A damaged log or configuration is not rebuilt, and a table of contents that is damaged hides the copies in its pack.

mod copies;
mod publish;
mod rebuild;
mod shape;
mod walk;

use std::collections::HashSet;
use std::sync::Arc;

use super::check::{CheckOptions, Damage, Look, ReadData, look};
use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Snapshot;
use crate::guard::{self, Cap, Guard, PlanId, Policy, Refusal};
use crate::history::{Session, holder_of, side_of};
use crate::id::{PageId, SnapshotId};
use crate::interrupt::{Interrupt, Waiter};
use crate::observer::Observer;
use crate::repository::{Repository, State};
use crate::store::RequestCounts;
use crate::tree::Pages;
use crate::tree_path::TreePath;

use copies::Copies;
use publish::{Candidate, Ended, publish};
use rebuild::{Left, Writer, rebuild};
use walk::Walk;

/// How often it begins anew because the repository changed meanwhile.
const MAX_BEGINNINGS: u32 = 5;

/// How to repair.
#[derive(Debug, Clone)]
pub struct RepairOptions {
    /// Reads all content to find what is damaged, not only whether packs are there and long enough.
    pub read_data: bool,
    /// The most of a head's files that may be lost, or nothing is published; default 50 %.
    pub max_delete: Cap,
    /// One refused plan that may pass.
    pub override_plan: Option<PlanId>,
    /// Looks and plans, and uploads nothing.
    pub dry_run: bool,
    /// Who writes, for people.
    pub writer: String,
    /// The wish to stop.
    pub interrupt: Interrupt,
    /// The clock: for the record of the commit.
    pub clock: Arc<dyn Clock>,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            read_data: false,
            max_delete: Policy::default().max_delete,
            override_plan: None,
            dry_run: false,
            writer: String::new(),
            interrupt: Interrupt::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// What became of a damaged head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOutcome {
    /// What is left of it is the branch's head now.
    Done,
    /// A dry run: that is what would be.
    Planned,
    /// Read again it was sound: there was nothing to do.
    Sound,
    /// A guard refused, and nothing was published.
    Refused,
    /// The branch belongs to a holder that has not released it, and was left alone.
    Held,
    /// Nothing of it is left.
    BeyondHelp,
    /// Another writer committed at the same time, and what is left of it was kept on a fork: in commit mode `detect`.
    Forked,
}

impl HeadOutcome {
    /// Names it as it appears in JSON output.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Planned => "planned",
            Self::Sound => "sound",
            Self::Refused => "refused",
            Self::Held => "held",
            Self::BeyondHelp => "beyond-help",
            Self::Forked => "forked",
        }
    }
}

/// Something that is lost: no good copy of it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The entry; of a page with several below it, the last.
    pub path: TreePath,
    /// How many entries are lost.
    pub entries: u64,
    /// The key of the object that should hold it; empty if that is not the cause.
    pub object: String,
    /// What is wrong.
    pub message: String,
}

/// A damaged head, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairedHead {
    /// The branch.
    pub branch: String,
    /// The snapshot that was its head.
    pub damaged: SnapshotId,
    /// What became of it.
    pub outcome: HeadOutcome,
    /// The snapshot that was made.
    pub snapshot: Option<SnapshotId>,
    /// The branch that this is on, if not the one that it was meant for.
    pub fork: Option<String>,
    /// Entries that are left, without the root and sockets.
    pub entries: u64,
    /// Bytes of content that are left.
    pub bytes: u64,
    /// Bytes of content that were copied from packs that no snapshot refers to.
    pub copied_bytes: u64,
    /// What is lost.
    pub losses: Vec<Loss>,
    /// Directories of which the entry is lost, made anew for what lies in them.
    pub directories: Vec<TreePath>,
    /// The refusal, if a guard refused.
    pub refusal: Option<Refusal>,
}

/// What a repair found and did.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct RepairReport {
    /// The number of the commit whose snapshots were looked at.
    pub commit: u64,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// The damage that was found, as [`check`](super::check()) names it.
    pub damage: Vec<Damage>,
    /// The damaged heads.
    pub heads: Vec<RepairedHead>,
    /// Packs whose table of contents cannot be read, and why: what they hold was not found.
    pub tables: Vec<(String, String)>,
    /// Snapshots that stay damaged, and whose tree no sound snapshot has.
    pub left: Vec<SnapshotId>,
    /// Requests made.
    pub requests: RequestCounts,
    /// How long it took.
    pub seconds: f64,
}

/// Rebuilds what can be rebuilt of the heads of all branches that people back up to, and names what cannot.
///
/// # Errors
/// `Corrupt` if the log does not hold together; `Conflict` if others kept changing the repository; `Unknown` if the
/// answer to a commit was lost; the store's. Damage and refusals are no errors but lines of the report.
pub async fn repair(
    repository: &Repository,
    options: RepairOptions,
    observer: Arc<dyn Observer>,
) -> Result<RepairReport> {
    repository.config().check_writable()?;
    let (watch, requests) = (Stopwatch::start(), repository.store().requests());
    let waiter = Waiter::new(options.interrupt.clone());
    let asked = repository.clone();
    let ran = tokio::task::spawn_blocking(move || run(&asked, &options, &waiter, &observer)).await;
    let report = ran.map_err(|error| Error::internal(format!("the repair did not end: {error}")))??;
    Ok(RepairReport { requests: repository.store().requests().since(requests), seconds: watch.seconds(), ..report })
}

fn run(
    repository: &Repository,
    options: &RepairOptions,
    waiter: &Waiter,
    observer: &Arc<dyn Observer>,
) -> Result<RepairReport> {
    let mut report = RepairReport::default();
    for _ in 0..MAX_BEGINNINGS {
        // What was made stays made; all else is looked at again.
        report.heads.retain(|head| head.snapshot.is_some());
        let state = waiter.wait(repository.state())?;
        // Never from a cache: what is looked at is what the store would give to somebody who has none.
        let pages = Arc::new(Pages::new(repository.store().clone(), None));
        let read_data = if options.read_data { ReadData::All } else { ReadData::No };
        let how = CheckOptions { read_data, interrupt: options.interrupt.clone() };
        let snapshots = &state.commit.snapshots;
        let look = waiter.wait(look(repository.store(), &pages, snapshots, &how, observer.as_ref()))?;
        report.commit = state.commit.seq;
        report.snapshots = snapshots.len() as u64;
        report.damage.clone_from(&look.damage);
        let mut round =
            Round { repository, options, waiter, observer, state: &state, pages, look, newest: state.clone() };
        if round.heads(&mut report)? {
            report.left = left(&round.newest, &report);
            return Ok(report);
        }
    }
    let message = format!("others changed the repository, {MAX_BEGINNINGS} times in a row; run it again");
    Err(Error::new(ErrorKind::Conflict, message))
}

/// One look at the repository, and what is done about it.
struct Round<'a> {
    repository: &'a Repository,
    options: &'a RepairOptions,
    waiter: &'a Waiter,
    observer: &'a Arc<dyn Observer>,
    /// What was looked at.
    state: &'a State,
    pages: Arc<Pages>,
    look: Look,
    /// What commits are built on.
    newest: State,
}

impl Round<'_> {
    /// Repairs each damaged head; `false` if the repository changed so that it is to be looked at again.
    fn heads(&mut self, report: &mut RepairReport) -> Result<bool> {
        let commit = &self.state.commit;
        let damaged: HashSet<SnapshotId> =
            self.look.damage.iter().flat_map(|damage| damage.snapshots.clone()).collect();
        let heads = commit.branches.iter().filter(|(name, _)| side_of(name).is_none());
        let heads: Vec<_> = heads.filter_map(|(name, branch)| Some((name, branch, commit.head(name)?))).collect();
        let mut copies = None;
        for (name, branch, head) in heads.into_iter().filter(|(.., head)| damaged.contains(&head.id)) {
            let mut repaired = RepairedHead::of(name, head);
            if holder_of(branch).is_some() {
                repaired.outcome = HeadOutcome::Held;
                report.heads.push(repaired);
                continue;
            }
            if copies.is_none() {
                let found = Copies::find(self.repository.store(), &self.look, &self.options.interrupt);
                copies = Some(self.waiter.wait(found)?);
            }
            let Some(copies) = &mut copies else { continue };
            report.tables.clone_from(&copies.unread);
            if !self.head(head, branch.epoch, copies, &mut repaired)? {
                return Ok(false);
            }
            report.heads.push(repaired);
        }
        Ok(true)
    }

    /// Repairs one head; `false` as above.
    fn head(&mut self, head: &Snapshot, epoch: u64, copies: &mut Copies, repaired: &mut RepairedHead) -> Result<bool> {
        let Self { repository, options, waiter, .. } = *self;
        let policy =
            Policy { max_delete: options.max_delete, override_plan: options.override_plan, ..Policy::default() };
        let mut walk = Walk::new(&self.pages, &self.look, copies, &options.interrupt, head);
        let left = rebuild(head, &mut walk, waiter, None)?;
        let kept = std::mem::take(&mut walk.kept);
        repaired.found(&left);
        if left.is_nothing() {
            repaired.outcome = HeadOutcome::BeyondHelp;
            return Ok(true);
        }
        if let Err(refusal) = guard::judge(&left.findings, &policy) {
            repaired.refused(*refusal, head);
            return Ok(true);
        }
        if options.dry_run {
            repaired.outcome = HeadOutcome::Planned;
            return Ok(true);
        }
        let session = Session::begin(self.state, &options.writer, None);
        let store = repository.store();
        let mut writer = Writer::new(store, repository.pages(), &session, &kept, waiter, self.observer);
        let mut walk = Walk::new(&self.pages, &self.look, copies, &options.interrupt, head);
        let left = rebuild(head, &mut walk, waiter, Some(&mut writer))?;
        repaired.found(&left);
        // Again, with what the second pass met.
        let approved = match guard::judge(&left.findings, &policy) {
            Ok(approved) => approved,
            Err(refusal) => {
                repaired.refused(*refusal, head);
                return Ok(true);
            }
        };
        let (tree, lengths) = writer.finish()?;
        let candidate = Candidate { head, epoch, session: &session, looked_at: self.state, tree, lengths, left: &left };
        let ended = publish(repository, options, waiter, &mut self.newest, candidate, &approved)?;
        (repaired.outcome, repaired.snapshot) = match ended {
            Ended::Made(id) => (HeadOutcome::Done, Some(id)),
            Ended::Same => (HeadOutcome::Sound, None),
            Ended::Forked(id, branch) => {
                repaired.fork = Some(branch);
                (HeadOutcome::Forked, Some(id))
            }
            Ended::Changed => return Ok(false),
        };
        Ok(true)
    }
}

impl RepairedHead {
    fn of(branch: &str, head: &Snapshot) -> Self {
        Self {
            branch: branch.to_owned(),
            damaged: head.id,
            outcome: HeadOutcome::Planned,
            snapshot: None,
            fork: None,
            entries: 0,
            bytes: 0,
            copied_bytes: 0,
            losses: Vec::new(),
            directories: Vec::new(),
            refusal: None,
        }
    }

    fn found(&mut self, left: &Left) {
        (self.entries, self.bytes, self.copied_bytes) = (left.entries, left.bytes, left.copied_bytes);
        self.losses.clone_from(&left.losses);
        self.directories.clone_from(&left.directories);
    }

    fn refused(&mut self, mut refusal: Refusal, head: &Snapshot) {
        if refusal.guard == Guard::Empty {
            refusal.reason = format!("none of the head's {} entries is left but directories", head.entries);
        }
        self.outcome = HeadOutcome::Refused;
        self.refusal = Some(refusal);
    }

    /// Whether all of it is there again, or would be.
    fn is_whole(&self) -> bool {
        let is_good = matches!(self.outcome, HeadOutcome::Done | HeadOutcome::Planned | HeadOutcome::Sound);
        is_good && self.losses.is_empty() && self.directories.is_empty()
    }
}

/// The snapshots that stay damaged, and whose tree no sound snapshot has.
fn left(newest: &State, report: &RepairReport) -> Vec<SnapshotId> {
    let snapshots = &newest.commit.snapshots;
    let affects = report.damage.iter().filter(|damage| damage.affected > 0);
    let damaged: HashSet<SnapshotId> = affects.flat_map(|damage| damage.snapshots.clone()).collect();
    let whole: HashSet<SnapshotId> =
        report.heads.iter().filter(|head| head.is_whole()).map(|head| head.damaged).collect();
    let is_sound = |snapshot: &&Snapshot| !damaged.contains(&snapshot.id) || whole.contains(&snapshot.id);
    let sound: HashSet<PageId> = snapshots.iter().filter(is_sound).map(|snapshot| snapshot.tree.page).collect();
    let stays = |snapshot: &&Snapshot| damaged.contains(&snapshot.id) && !sound.contains(&snapshot.tree.page);
    snapshots.iter().filter(stays).map(|snapshot| snapshot.id).collect()
}
