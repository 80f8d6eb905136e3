//! Takes up what a backup that was cut short left on this machine, when that may be used.
//!
//! The new run is a session of its own with the journal's begin, and may refer to packs that the journal says are
//! acknowledged: a floor above that begin, which alone lets a prune delete them, fences it too.
//!
//! First it finds out what became of the commit that was noted last. Numbers are dense, so a head right below it means
//! that it has not landed. It may be on its way still, and the first commit of this run goes exactly there: one of
//! the two is made, and the other one lost for ever. That is why a run that finds nothing to do makes a snapshot all
//! the same then. It is also why only the highest number that was noted matters: nobody went on from a lower one
//! before it was taken.

use super::Context;
use super::journal::{self, Journal};
use crate::error::{Error, Result};
use crate::format::commit::{LogEntry, MAX_COMMIT_BYTES, decode_log_entry};
use crate::format::config::CommitMode;
use crate::id::CommitHash;
use crate::repository::{Repository, State};
use crate::store::keys;

/// Takes up the journal of the branch and the source, on a state that was read just now.
///
/// # Errors
/// `Corrupt` if the log ends below what it has been; the store's.
pub(super) fn take_up(context: &Context, state: &State) -> Result<Journal> {
    let Context { repository, options, source, waiter, .. } = context;
    // In commit mode `detect` no two commits want one place, so there is none that could be taken: a commit of the run
    // that was cut short, should it still land, goes to a fork, and the work is done again.
    // A first step leaves it to the next: that one is to have what was uploaded of the large files.
    let takes_up =
        !options.dry_run && options.defer_over.is_none() && repository.config().commit_mode == CommitMode::Atomic;
    let Some(folder) = repository.cache_folder().filter(|_| takes_up) else { return Ok(Journal::default()) };
    let file = journal::file(folder, &options.branch, source);
    let journal = Journal::open(file, &[repository.config_hash().as_bytes(), options.branch.as_bytes()]);
    let Some(left) = journal.left() else { return Ok(journal) };
    let (head, slot) = (state.commit.seq, left.create.as_ref().map_or(0, |(slot, _)| *slot));
    if left.begin.max(slot.saturating_sub(1)) > head {
        let noted = "a backup on this machine built on a later one: the bucket was rolled back";
        return Err(Error::corrupt(format!("the newest commit is {}, but {noted}", keys::commit(head))));
    }
    if state.commit.session_floor > left.begin {
        journal.discard();
        return Ok(journal);
    }
    match left.create {
        Some((slot, _)) if slot > head => journal.leave_open(),
        Some((slot, hashes)) if hashes.contains(&waiter.wait(hash_in_log(repository, state, slot))?) => {
            // The work of that run is done, and this one begins with what it made.
            journal.discard();
        }
        _ => {}
    }
    Ok(journal)
}

/// The hash of a commit that is there, also of one that was emptied.
async fn hash_in_log(repository: &Repository, state: &State, seq: u64) -> Result<CommitHash> {
    if seq == state.commit.seq {
        return Ok(state.hash);
    }
    let key = keys::commit(seq);
    let Some(stored) = repository.store().get(&key, MAX_COMMIT_BYTES).await? else {
        return Err(Error::corrupt(format!("{key} is missing: the log has a gap")));
    };
    Ok(match decode_log_entry(&stored)? {
        LogEntry::Commit(_) => CommitHash::of(&stored),
        LogEntry::Emptied(stub) => stub.hash,
    })
}
