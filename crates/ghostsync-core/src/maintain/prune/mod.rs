//! The story of a prune: look, find what is needed, commit a floor, and delete what lies below it and nobody needs.
//!
//! One rule decides about every pack: with a state S that is *in the log*, exactly those packs are deleted that no
//! snapshot of S reaches **and** whose session began below S's session floor. No clock is part of it.
//!
//! Why that is safe: a commit after S is made by a session that began at or above the floor, or that session is
//! fenced. It refers to packs of its own, and to what its parent and the steps that it goes on from reach; all of them
//! are retained in the state that it commits on, and so on down to S. So what is below the floor and not reached from S is reached from no later state
//! either, and a state that has become old stays safe to prune by. Names of packs are never used again, so a delete
//! that arrives late or twice hits nothing else. A crash anywhere leaves garbage, which the next prune finds.
//!
//! A floor that is only about to be committed proves nothing: somebody below it may be first. So nothing is deleted
//! before the commit is known to be in the log; while its outcome is unknown, nothing is deleted at all.
//!
//! Times decide only when something is *tried*. The floor passes no session that was active lately (`session_idle`),
//! and S is a state that has been in the log for a while (`grace`), so that whoever still reads a snapshot that S no
//! longer has comes to an end. Both compare times of the store's own clock.

mod emptying;
mod execute;
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
use crate::interrupt::Interrupt;
use crate::observer::Observer;
use crate::repository::{Repository, State};
use crate::store::RequestCounts;

use self::plan::{Listed, ListedPack, Plan};
use self::reach::Reach;

/// How often a floor is tried again because somebody else committed first.
const MAX_ROUNDS: u32 = 20;

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// How long a state must have been in the log before packs are deleted that it does not need; default 1 h.
    pub grace: Duration,
    /// How long a session must have shown no activity before it is fenced; default 24 h.
    pub session_idle: Duration,
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
/// to delete, `Unsupported` in commit mode `detect`, `Unknown` if the answer to the commit was lost, `Conflict` if others kept committing first.
pub async fn prune(repository: &Repository, options: PruneOptions, observer: &dyn Observer) -> Result<PruneReport> {
    repository.config().check_writable()?;
    // There a commit that is on its way may still become the head below the floor, and what it refers to must be there.
    // That needs a prune that has the repository to itself, deletes only what was not needed a grace period earlier
    // either, and leaves commits that others have not merged as they are.
    if repository.config().commit_mode == CommitMode::Detect {
        let reason = "this version does not prune a repository in commit mode 'detect'; nothing was deleted";
        return Err(Error::new(ErrorKind::Unsupported, reason));
    }
    let (watch, requests) = (Stopwatch::start(), repository.store().requests());
    let run = run(repository, &options, observer).await.map_err(execute::what_it_needs)?;
    let requests = repository.store().requests().since(requests);
    Ok(PruneReport { requests, seconds: watch.seconds(), ..run })
}

async fn run(repository: &Repository, options: &PruneOptions, observer: &dyn Observer) -> Result<PruneReport> {
    let store = repository.store();
    let (listed, leftovers) = execute::look(store, options).await?;
    let mut reach = Reach::new(store, &options.interrupt, observer);
    let (state, plan, commit) = commit_floor(repository, options, &listed, &mut reach).await?;
    let needed = reach.needed();
    let unneeded: Vec<ListedPack> = plan::garbage(&listed.packs, &needed, u64::MAX).collect();

    let settled = execute::settled(store, &state, &listed, options).await?;
    if let Some(settled) = &settled {
        reach.add(&settled.commit).await?;
    }
    let needed = reach.needed();
    let floor = settled.as_ref().map_or(0, |settled| settled.commit.session_floor);
    let garbage: Vec<ListedPack> = plan::garbage(&listed.packs, &needed, floor).collect();
    if !options.dry_run {
        execute::delete_packs(store, &garbage, options, observer).await?;
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
        emptied_commits: emptied.commits,
        emptied_bytes: emptied.bytes,
        leftovers,
        pages: reach.pages(),
        requests: RequestCounts::default(),
        seconds: 0.0,
    })
}

/// Finds what the newest state needs, and commits a floor and the draining packs if anything comes of it. Returns the
/// newest state, which is in the log; in a dry run the one that would be.
async fn commit_floor(
    repository: &Repository,
    options: &PruneOptions,
    listed: &Listed,
    reach: &mut Reach<'_>,
) -> Result<(State, Plan, Option<u64>)> {
    for _ in 0..MAX_ROUNDS {
        let state = options.interrupt.unless_set(repository.state()).await?;
        reach.add(&state.commit).await?;
        let plan = plan::plan(&state.commit, listed, &reach.needed(), options.session_idle, options.max_rewrite);
        if !plan.needs_commit {
            return Ok((state, plan, None));
        }
        let session = Session::begin(&state, &options.writer, None);
        let op = json!({"kind": "prune", "session_floor": plan.session_floor, "draining": plan.draining.len()});
        let commit = Commit {
            session_floor: plan.session_floor,
            draining: plan.draining.clone(),
            ..session.next_commit(&state, &*options.clock, op)
        };
        let seq = Some(commit.seq);
        if options.dry_run {
            return Ok((State { commit, hash: state.hash }, plan, seq));
        }
        // Whatever is asked for meanwhile: the outcome of a commit is to be known.
        match repository.log().attempt(&session, &state, &commit).await? {
            Attempt::Done(state) => return Ok((*state, plan, seq)),
            // Made again for the newer state: what it needs, it says itself.
            Attempt::Lost | Attempt::TakenOver(_) => {}
        }
    }
    let message = format!("other writers committed first, {MAX_ROUNDS} times in a row; nothing was deleted");
    Err(Error::new(ErrorKind::Conflict, message))
}
