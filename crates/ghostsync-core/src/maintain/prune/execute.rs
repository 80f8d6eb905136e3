//! What a prune asks of the store: a look at what lies there, a state that is old enough, and the deletions.

use std::time::Duration;

use object_store::ObjectMeta;
use object_store::path::Path as Key;

use super::PruneOptions;
use super::plan::{Listed, ListedCommit, ListedPack, Millis, commits, has_passed, modified, packs};
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{LogEntry, MAX_COMMIT_BYTES, decode_log_entry};
use crate::format::config::CommitMode;
use crate::history::{Log, State};
use crate::id::{CommitHash, SessionId};
use crate::observer::{Observer, Progress};
use crate::store::{Store, keys};

/// Packs that are deleted between two looks whether somebody wants to stop; also the most that S3 takes at once.
const BATCH: usize = 1000;
/// Leftovers are deleted when they are so old: whoever made them has long been gone.
const LEFTOVERS_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks at the clock of the store, and at what lies there. Also returns what lies under `probe/`.
pub(super) async fn look(store: &Store, mode: CommitMode, options: &PruneOptions) -> Result<(Listed, Vec<ObjectMeta>)> {
    let (now, probes) = options.interrupt.unless_set(now(store, options)).await?;
    let list = |prefix: Key| async move { options.interrupt.unless_set(store.list(&prefix, usize::MAX)).await };
    // Commits before packs: no commit that is counted on is younger than what it refers to.
    let commits = commits(&list(keys::log()).await?, mode);
    let packs = packs(&list(keys::packs()).await?);
    Ok((Listed { now, packs, commits }, probes))
}

/// Asks the store's clock, by an object that is written and deleted again: who may not delete learns it before
/// anything else is done.
async fn now(store: &Store, options: &PruneOptions) -> Result<(Millis, Vec<ObjectMeta>)> {
    if options.dry_run {
        return Ok((options.clock.now().as_millisecond(), store.list(&keys::probes(), usize::MAX).await?));
    }
    let key = keys::probe(SessionId::random(), "now");
    store.put(&key, "now".into()).await?;
    let mut listed = store.list(&keys::probes(), usize::MAX).await?;
    store.delete(vec![key.clone()]).await?;
    let ours = listed.iter().position(|object| object.location == key).ok_or_else(|| {
        Error::new(
            ErrorKind::Unavailable,
            format!("{key} is not listed in {}, a moment after it was written", store.location()),
        )
    })?;
    Ok((modified(&listed.swap_remove(ours)), listed))
}

/// The newest state that has been in the log for the grace period.
pub(super) async fn settled(log: &Log, head: &State, listed: &Listed, options: &PruneOptions) -> Result<Option<State>> {
    if options.grace.is_zero() {
        return Ok(Some(head.clone()));
    }
    match log.mode {
        CommitMode::Atomic => settled_below(&log.store, head, listed, options).await,
        CommitMode::Detect => settled_as_of(log, listed, options).await,
    }
}

/// In commit mode `detect` it is what a reader saw a grace period ago, what lay beside the head of then included.
async fn settled_as_of(log: &Log, listed: &Listed, options: &PruneOptions) -> Result<Option<State>> {
    let is_old = |commit: &&ListedCommit| has_passed(commit.modified, listed.now, options.grace);
    let Some(newest) = listed.commits.iter().rfind(is_old) else { return Ok(None) };
    let of_its_number = listed.commits.iter().filter(|commit| commit.seq == newest.seq);
    let names: Vec<_> = of_its_number.filter(is_old).filter_map(ListedCommit::name).collect();
    Ok(Some(options.interrupt.unless_set(log.state_as_of(&names)).await?))
}

/// Goes down from the head, and checks each commit against what the one after it says, so that what it finds is in the
/// log of this very head.
async fn settled_below(store: &Store, head: &State, listed: &Listed, options: &PruneOptions) -> Result<Option<State>> {
    let is_old = |seq: u64| {
        let found = listed.commits.binary_search_by_key(&seq, |commit| commit.seq).ok();
        let commit = found.and_then(|at| listed.commits.get(at));
        // What was not there when the store was looked at is young.
        commit.is_some_and(|commit| has_passed(commit.modified, listed.now, options.grace))
    };
    if is_old(head.commit.seq) {
        return Ok(Some(head.clone()));
    }
    let (mut seq, mut expected) = (head.commit.seq.saturating_sub(1), head.commit.prev);
    while seq > 0 {
        let key = keys::commit(seq);
        let read = options.interrupt.unless_set(store.get(&key, MAX_COMMIT_BYTES)).await?;
        let bytes = read.ok_or_else(|| broken(&key))?;
        match decode_log_entry(&bytes)? {
            LogEntry::Commit(commit) if CommitHash::of(&bytes) == expected => {
                if is_old(seq) {
                    return Ok(Some(State { commit: *commit, hash: expected }));
                }
                expected = commit.prev;
            }
            // Below a stub there are only stubs, or little more: no state is old enough yet.
            LogEntry::Emptied(stub) if stub.hash == expected => return Ok(None),
            _ => return Err(broken(&key)),
        }
        seq -= 1;
    }
    Ok(None)
}

pub(super) fn broken(key: &Key) -> Error {
    Error::corrupt(format!("{key} is not the commit that the one after it follows: the log does not hold together"))
}

/// Deletes packs; those that are gone already are as good as deleted.
pub(super) async fn delete_packs(
    store: &Store,
    garbage: &[ListedPack],
    options: &PruneOptions,
    observer: &dyn Observer,
) -> Result<()> {
    let bytes = |packs: &[ListedPack]| packs.iter().map(|listed| listed.bytes).sum();
    observer.progress(Progress::Planned { files: garbage.len() as u64, bytes: bytes(garbage) });
    for batch in garbage.chunks(BATCH) {
        options.interrupt.check()?;
        store.delete(batch.iter().map(|listed| listed.pack.key()).collect()).await?;
        observer.progress(Progress::Advanced { files: batch.len() as u64, bytes: bytes(batch) });
    }
    Ok(())
}

/// Deletes what probes and interrupted writes left behind more than a day ago, and tells how much that was.
pub(super) async fn sweep(
    store: &Store,
    mut probes: Vec<ObjectMeta>,
    now: Millis,
    options: &PruneOptions,
) -> Result<u64> {
    options.interrupt.check()?;
    probes.retain(|object| has_passed(modified(object), now, LEFTOVERS_AGE));
    let unfinished = store.unfinished(now.saturating_sub(LEFTOVERS_AGE.as_millis() as i64)).await?;
    let count = probes.len() + unfinished.len();
    if !options.dry_run {
        store.delete(probes.into_iter().map(|object| object.location).collect()).await?;
        store.delete_unfinished(unfinished).await?;
    }
    Ok(count as u64)
}

/// Says, to whom the store denies something, which rights a prune needs.
pub(super) fn what_it_needs(error: Error) -> Error {
    if error.kind() != ErrorKind::Denied {
        return error;
    }
    let needs = "prune needs the rights to list, read, write and delete objects";
    Error::new(ErrorKind::Denied, format!("{needs}: {error}"))
}
