//! The story of a prune: look, find what is needed, commit a floor, and delete what lies below it and nobody needs.
//!
//! One rule decides about every pack: with a state S that is *in the log*, exactly those packs are deleted that no
//! snapshot of S reaches **and** whose session began below S's session floor. No clock is part of it.
//!
//! Why that is safe: a commit after S is made by a session that began at or above the floor, or that session is
//! fenced. It refers to packs of its own, and to what its parent and the steps that it goes on from reach; all of them
//! are retained, with their pages where they lay, in the state that it commits on, and so on down to S. So what is below
//! the floor and not reached from S is reached from no later state either, and a state that has become old stays safe to
//! prune by. Names of packs are never used again, so a delete that arrives late or twice hits nothing else. A crash
//! anywhere leaves garbage, which the next prune finds. What a prune moves keeps to the same rule: see `moving`.
//!
//! A floor that is only about to be committed proves nothing: somebody below it may be first. So nothing is deleted
//! before the commit is known to be in the log; while its outcome is unknown, nothing is deleted at all.
//!
//! In commit mode `detect` no create decides who is first. There a prune must have the repository to itself, its floor is
//! the number of its own commit, which then comes before whatever was on its way, and it deletes nothing unless a listing
//! shows that commit, and no other new one. What lies beside the head counts as needed: the state that it begins with
//! has taken that over (`history/tips`).
//!
//! Times decide only when something is *tried*. The floor passes no session that was active lately (`session_idle`),
//! and S is a state that has been in the log for a while (`grace`), so that whoever still reads a snapshot that S no
//! longer has comes to an end. Both compare times of the store's own clock.

mod emptying;
mod execute;
mod moving;
mod plan;
mod reach;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::Commit;
use crate::format::config::CommitMode;
use crate::history::{Attempt, Session};
use crate::interrupt::{Interrupt, Waiter};
use crate::observer::Observer;
use crate::repository::{Repository, State};
use crate::store::RequestCounts;

use self::moving::{Moved, move_out};
use self::plan::{Listed, ListedPack, Plan};
use self::reach::Reach;
use super::alone::Alone;

/// How often a floor is tried again because somebody else committed first.
const MAX_ROUNDS: u32 = 20;
/// How often all begins anew because somebody else pruned what was being read.
const MAX_BEGINNINGS: u32 = 5;

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// How long a state must have been in the log before packs are deleted that it does not need; default 1 h.
    pub grace: Duration,
    /// How long a session must have shown no activity before it is fenced; default 24 h. In commit mode `detect` no
    /// session is waited for.
    pub session_idle: Duration,
    /// Nobody else writes to the repository until this has ended. Commit mode `detect` asks for that; in the other it
    /// changes nothing.
    pub exclusive: bool,
    /// The most bytes that are alive in packs which backups should move out of; default 1 GiB.
    pub max_rewrite: u64,
    /// Commits and deletes nothing, and says what would be.
    pub dry_run: bool,
    /// Who writes, for people.
    pub writer: String,
    /// The wish to stop.
    pub interrupt: Interrupt,
    /// The clock: for the record of the commit, and for a dry run, which does not ask the store for its own.
    pub clock: Arc<dyn Clock>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(60 * 60),
            session_idle: Duration::from_secs(24 * 60 * 60),
            exclusive: false,
            max_rewrite: 1 << 30,
            dry_run: false,
            writer: String::new(),
            interrupt: Interrupt::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// What a prune did, or in a dry run would have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[must_use]
pub struct PruneReport {
    /// The number of the commit that it made; `None` if none was needed.
    pub commit: Option<u64>,
    /// Sessions that began below this number may not commit any more.
    pub session_floor: u64,
    /// Packs deleted.
    pub deleted_packs: u64,
    /// Their bytes.
    pub deleted_bytes: u64,
    /// Packs that nobody needs and that wait: for the grace period, or for their session.
    pub waiting_packs: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Packs that snapshots need.
    pub kept_packs: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Packs, among the kept ones, that backups should move out of.
    pub draining_packs: u64,
    /// Bytes that are alive in them.
    pub draining_bytes: u64,
    /// Packs that were moved out of: what older snapshots than heads need of them was stored again.
    pub moved_packs: u64,
    /// Bytes that were alive in them.
    pub moved_bytes: u64,
    /// Old commits that were emptied.
    pub emptied_commits: u64,
    /// The bytes that they had, less those that are left.
    pub emptied_bytes: u64,
    /// Leftovers of probes and of interrupted writes that were deleted.
    pub leftovers: u64,
    /// Page copies read.
    pub pages: u64,
    /// Requests made.
    pub requests: RequestCounts,
    /// How long it took.
    pub seconds: f64,
}

/// Deletes packs that no snapshot needs.
///
/// # Errors
/// `Corrupt` if a page that a snapshot refers to cannot be read: then nothing was deleted. `Denied` without the right
/// to delete, `Unknown` if the answer to the commit was lost, `Conflict` if others kept committing first. In commit mode
/// `detect`: `Refused` if it is not `exclusive`, unless it is a dry run; `Conflict` if anybody else wrote meanwhile.
pub async fn prune(repository: &Repository, options: PruneOptions, observer: Arc<dyn Observer>) -> Result<PruneReport> {
    repository.config().check_writable()?;
    let alone = Alone::check(repository, options.exclusive || options.dry_run, "prune")?;
    let (watch, requests) = (Stopwatch::start(), repository.store().requests());
    let mut beginnings = 0;
    let run = loop {
        beginnings += 1;
        let mut looked_at = None;
        let run = run(repository, &options, &observer, &mut looked_at).await;
        let looks_damaged = run.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt);
        if !(looks_damaged && beginnings < MAX_BEGINNINGS && went_on(repository, looked_at.as_ref()).await) {
            break run;
        }
    };
    let run = run.map_err(|error| execute::what_it_needs(alone.goes_on(error)))?;
    let requests = repository.store().requests().since(requests);
    Ok(PruneReport { requests, seconds: watch.seconds(), ..run })
}

/// What looks like damage may be a snapshot that was forgotten or moved, and pruned by somebody else, while it was read.
async fn went_on(repository: &Repository, looked_at: Option<&State>) -> bool {
    let Some(looked_at) = looked_at else { return false };
    let retains_all = |now: State| looked_at.commit.snapshots.iter().all(|snapshot| now.commit.retains(snapshot));
    repository.state().await.is_ok_and(|now| !retains_all(now))
}

/// Notes the state whose snapshots it reads.
async fn run(
    repository: &Repository,
    options: &PruneOptions,
    observer: &Arc<dyn Observer>,
    looked_at: &mut Option<State>,
) -> Result<PruneReport> {
    let store = repository.store();
    let log = repository.log();
    let (listed, leftovers) = execute::look(store, log.mode, options).await?;
    let mut reach = Reach::new(store, &options.interrupt, observer.as_ref());
    let Floor { state, plan, commit, moved } =
        commit_floor(repository, options, &listed, &mut reach, observer, looked_at).await?;
    if moved {
        *looked_at = Some(state.clone());
        // Old references need nothing any more, unless a state of a grace period ago has them.
        reach.begin_anew();
        reach.add(&state.commit).await?;
    }
    let needed = reach.needed();
    let unneeded: Vec<ListedPack> = plan::garbage(&listed.packs, &needed, u64::MAX).collect();

    let mut settled = execute::settled(&log, &state, &listed, options).await?;
    if let Some(old) = &settled
        && let Err(error) = reach.add(&old.commit).await
    {
        // A prune with a shorter grace has deleted what that state alone needs. Nothing goes until it is too old to count.
        let is_left = old.commit.snapshots.iter().all(|snapshot| state.commit.retains(snapshot));
        if error.kind() != ErrorKind::Corrupt || is_left {
            return Err(error);
        }
        settled = None;
    }
    let needed = reach.needed();
    let floor = settled.as_ref().map_or(0, |settled| settled.commit.session_floor);
    let garbage: Vec<ListedPack> = plan::garbage(&listed.packs, &needed, floor).collect();
    if !options.dry_run {
        execute::delete_packs(store, &garbage, options, observer.as_ref()).await?;
    }
    let emptied = match &settled {
        Some(settled) => emptying::empty(repository, &state, settled, &listed.commits, options).await?,
        None => emptying::Emptied::default(),
    };
    let leftovers = execute::sweep(store, leftovers, listed.now, options).await?;

    let sum = |packs: &[ListedPack]| (packs.len() as u64, packs.iter().map(|listed| listed.bytes).sum::<u64>());
    let ((all, all_bytes), (deleted_packs, deleted_bytes)) = (sum(&listed.packs), sum(&garbage));
    let (unneeded, unneeded_bytes) = sum(&unneeded);
    Ok(PruneReport {
        commit,
        session_floor: state.commit.session_floor,
        deleted_packs,
        deleted_bytes,
        waiting_packs: unneeded - deleted_packs,
        waiting_bytes: unneeded_bytes - deleted_bytes,
        kept_packs: all - unneeded,
        kept_bytes: all_bytes - unneeded_bytes,
        draining_packs: plan.draining.len() as u64,
        draining_bytes: plan.draining_bytes,
        moved_packs: plan.moving.len() as u64,
        moved_bytes: plan.moving_bytes,
        emptied_commits: emptied.commits,
        emptied_bytes: emptied.bytes,
        leftovers,
        pages: reach.pages(),
        requests: RequestCounts::default(),
        seconds: 0.0,
    })
}

/// What was committed.
struct Floor {
    /// The newest state, which is in the log; in a dry run the one that would be.
    state: State,
    plan: Plan,
    commit: Option<u64>,
    /// Snapshots were moved by that commit.
    moved: bool,
}

/// Finds what the newest state needs, moves what is to be moved, and commits that, a floor and the draining packs, if
/// anything comes of it.
async fn commit_floor(
    repository: &Repository,
    options: &PruneOptions,
    listed: &Listed,
    reach: &mut Reach<'_>,
    observer: &Arc<dyn Observer>,
    looked_at: &mut Option<State>,
) -> Result<Floor> {
    let mode = repository.config().commit_mode;
    let mut moved: Option<Moved> = None;
    for _ in 0..MAX_ROUNDS {
        let state = options.interrupt.unless_set(repository.state()).await?;
        *looked_at = Some(state.clone());
        reach.add(&state.commit).await?;
        let needed = reach.needed();
        let mut plan = match mode {
            CommitMode::Atomic => plan::plan(&state.commit, listed, &needed, options.session_idle, options.max_rewrite),
            CommitMode::Detect => plan::plan_alone(&state.commit, listed, &needed, options.max_rewrite),
        };
        let mut snapshots = moved.as_ref().and_then(|moved| moved.snapshots_on(&state.commit));
        if snapshots.is_none() && !plan.moving.is_empty() && !options.dry_run {
            moved = move_packs(repository, options, reach, &state, &plan, observer).await?;
            snapshots = moved.as_ref().and_then(|moved| moved.snapshots_on(&state.commit));
        }
        if snapshots.is_none() && !options.dry_run {
            (plan.moving, plan.moving_bytes) = Default::default();
        }
        if !plan.needs_commit && plan.moving.is_empty() {
            return Ok(Floor { state, plan, commit: None, moved: false });
        }
        let begun = moved.as_ref().filter(|_| snapshots.is_some()).map(|moved| moved.session.clone());
        let session = begun.unwrap_or_else(|| Session::begin(&state, &options.writer, None));
        let op = json!({
            "kind": "prune",
            "session_floor": plan.session_floor,
            "draining": plan.draining.len(),
            "moved": plan.moving.len(),
        });
        let has_moved = snapshots.is_some();
        let commit = Commit {
            session_floor: plan.session_floor,
            draining: plan.draining.clone(),
            snapshots: snapshots.unwrap_or_else(|| state.commit.snapshots.clone()),
            ..session.next_commit(&state, &*options.clock, op)
        };
        let seq = Some(commit.seq);
        if options.dry_run {
            return Ok(Floor { state: State { commit, hash: state.hash }, plan, commit: seq, moved: false });
        }
        // Whatever is asked for meanwhile: the outcome of a commit is to be known.
        match repository.log().attempt(&session, &state, &commit).await? {
            Attempt::Done(state) => return Ok(Floor { state: *state, plan, commit: seq, moved: has_moved }),
            Attempt::Lost | Attempt::TakenOver(_) if mode == CommitMode::Detect => {
                let other = "another process wrote to the repository while this one was to have it to itself";
                return Err(Error::new(ErrorKind::Conflict, other));
            }
            // Made again for the newer state: what it needs, it says itself.
            Attempt::Lost | Attempt::TakenOver(_) => {}
        }
    }
    let message = format!("other writers committed first, {MAX_ROUNDS} times in a row; nothing was deleted");
    Err(Error::new(ErrorKind::Conflict, message))
}

async fn move_packs(
    repository: &Repository,
    options: &PruneOptions,
    reach: &Reach<'_>,
    state: &State,
    plan: &Plan,
    observer: &Arc<dyn Observer>,
) -> Result<Option<Moved>> {
    let (store, pages, state) = (repository.store().clone(), Arc::clone(&reach.pages), state.clone());
    let (packs, observer) = (plan.moving.clone(), Arc::clone(observer));
    let session = Session::begin(&state, &options.writer, None);
    let waiter = Waiter::new(options.interrupt.clone());
    let work = move || move_out(&store, &pages, &state.commit, &packs, session, &waiter, &observer);
    let ran = tokio::task::spawn_blocking(work).await;
    ran.map_err(|error| Error::internal(format!("what was to be moved did not come to its end: {error}")))?
}
