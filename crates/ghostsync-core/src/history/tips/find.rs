//! Finds the head, and everything beside its ancestors that it has not merged.
//!
//! The head is the commit with the highest number; of several, those with the highest floor; of several, the one with
//! the smallest session. A prune's floor is the number of its own commit, so it comes before whatever was on its way
//! when it looked, and that is void: what it refers to may be deleted. Nothing void can have a higher number, since
//! whoever lists the log later sees that commit.
//!
//! A number with one commit needs no look: it is the ancestor of whatever is above. The same holds for a number of whose
//! commits the head has merged all but one. Only where that leaves several, which is where somebody raced a moment ago,
//! they are read, and the `prev` of the ancestor above tells which of them is one too.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;

use super::Names;
use super::merge::{Void, merge};
use super::read::{Reader, damaged};
use crate::error::{Error, Result};
use crate::format::commit::{Commit, LogEntry, TipName, decode_link, decode_log_entry};
use crate::history::State;
use crate::history::head::not_as_it_was;
use crate::id::CommitHash;
use crate::store::{Store, keys};

/// What the log says.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) names: Names,
    /// The head, unless the log is empty.
    pub(super) head: Option<TipName>,
    /// What the head itself says that it has merged.
    merged: Vec<TipName>,
    /// The head's state, and beside it what it has not merged yet.
    pub(super) state: State,
    /// The stored bytes of the head.
    pub(super) bytes: Option<Bytes>,
    /// Commits that it has not merged yet and that it can take over.
    pub(super) beside: Vec<TipName>,
    /// Commits that it has not merged yet and that nobody may take over.
    pub(super) void: Vec<(TipName, Void)>,
}

/// What has become of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is the head, or an ancestor of it.
    InLine,
    /// The head, or an ancestor of it, has taken it over.
    Merged,
    /// It lies beside the head, and the next commit takes it over.
    Beside,
    /// It lies beside the head, and nobody takes it over.
    Void(Void),
    /// The store does not list it.
    Unlisted,
}

impl Seen {
    pub(super) fn fate(&self, name: TipName) -> Fate {
        if !self.names.contains(name) {
            return Fate::Unlisted;
        }
        if self.merged.contains(&name) {
            return Fate::Merged;
        }
        if let Some((_, void)) = self.void.iter().find(|(of, _)| *of == name) {
            return Fate::Void(*void);
        }
        if self.beside.contains(&name) { Fate::Beside } else { Fate::InLine }
    }
}

/// Reads the newest state, with what lies beside the head already taken over.
///
/// # Errors
/// `Corrupt` if the log does not hold together, or the store's.
pub(in crate::history) async fn find_head(
    store: &Store,
    config: CommitHash,
    cached: Option<&(u64, Bytes)>,
) -> Result<(State, Option<Bytes>)> {
    let mut reader = Reader::new(store, config);
    let last = cached.and_then(|(_, bytes)| match decode_log_entry(bytes) {
        Ok(LogEntry::Commit(commit)) => Some((TipName { seq: commit.seq, session: commit.session }, bytes)),
        // A damaged cache proves nothing about the repository.
        Ok(LogEntry::Emptied(_)) | Err(_) => None,
    });
    let Some((name, bytes)) = last else {
        let seen = look(&mut reader).await?;
        return Ok((seen.state, seen.bytes));
    };
    let seen = look_again(&mut reader, name, CommitHash::of(bytes)).await?;
    if !seen.names.contains(name) || (seen.head == Some(name) && seen.bytes.as_ref() != Some(bytes)) {
        return Err(not_as_it_was(&keys::tip(name)));
    }
    Ok((seen.state, seen.bytes))
}

/// Reads the state as it was when the newest commits were these, all of one number.
///
/// # Errors
/// `Corrupt` if the log does not hold together, or the store's.
pub(in crate::history) async fn state_as_of(store: &Store, config: CommitHash, newest: &[TipName]) -> Result<State> {
    let mut names = Names::list(store).await?;
    let seq = newest.first().map_or(0, |name| name.seq);
    names.0.retain(|of, _| *of <= seq);
    if let Some(sessions) = names.0.get_mut(&seq) {
        sessions.retain(|session| newest.contains(&TipName { seq, session: *session }));
    }
    Ok(look_at(&mut Reader::new(store, config), names).await?.state)
}

/// Lists the log, and reads the head and what lies beside it.
pub(super) async fn look(reader: &mut Reader<'_>) -> Result<Seen> {
    let names = reader.list().await?;
    look_at(reader, names).await
}

/// The same for who has looked before: the commit that was the head then is asked for while the log is listed. If it
/// still is, that was all.
pub(super) async fn look_again(reader: &mut Reader<'_>, last: TipName, hash: CommitHash) -> Result<Seen> {
    let names = reader.list_and_ask_for(last, hash).await?;
    look_at(reader, names).await
}

async fn look_at(reader: &mut Reader<'_>, names: Names) -> Result<Seen> {
    let config = reader.config;
    let mut newest = Vec::new();
    for name in names.newest() {
        newest.push((name, reader.commit(name).await?));
    }
    let rank = |(name, (_, commit)): &(TipName, (Bytes, Commit))| (commit.session_floor, Reverse(name.session));
    newest.sort_unstable_by_key(rank);
    let Some((head, (bytes, commit))) = newest.pop() else {
        let state = State { commit: Commit::empty(config), hash: config };
        let (merged, beside, void) = (Vec::new(), Vec::new(), Vec::new());
        return Ok(Seen { names, head: None, merged, state, bytes: None, beside, void });
    };
    if let Some(seq) = names.gap() {
        return Err(not_as_it_was(&keys::commit(seq)));
    }
    let beside = newest.into_iter().map(|(name, (_, commit))| (name, commit)).collect();
    let unsettled = unsettled(reader, &names, &commit, beside).await?;
    let (view, void) = merge(&commit, &unsettled);
    let is_void = |name: &TipName| void.iter().any(|(of, _)| of == name);
    let beside = unsettled.keys().copied().filter(|name| !is_void(name)).collect();
    let state = State { commit: view, hash: CommitHash::of(&bytes) };
    Ok(Seen { names, head: Some(head), merged: commit.merged, state, bytes: Some(bytes), beside, void })
}

/// The commits that are neither ancestors of the head nor merged by it, those of its number among them. Checks that the
/// head follows the one before it.
async fn unsettled(
    reader: &mut Reader<'_>,
    names: &Names,
    head: &Commit,
    mut found: BTreeMap<TipName, Commit>,
) -> Result<BTreeMap<TipName, Commit>> {
    // What the ancestor above says that the one before it hashes to; `None` where it was not read.
    let mut prev = Some(head.prev);
    let mut above = TipName { seq: head.seq, session: head.session };
    // What is below the floor is void whatever it is; only what the head follows is looked at there.
    let lowest = head.session_floor.saturating_add(1).min(head.seq.saturating_sub(1)).max(1);
    for seq in (lowest..head.seq).rev() {
        let is_below_floor = seq <= head.session_floor;
        let candidates: Vec<TipName> =
            names.of(seq).filter(|name| is_below_floor || !head.merged.contains(name)).collect();
        if let [only] = candidates.as_slice()
            && (seq + 1 < head.seq || reader.has_seen_before(above))
        {
            (above, prev) = (*only, None);
            continue;
        }
        let expected = match prev {
            Some(prev) => prev,
            None => reader.link(above).await?.prev,
        };
        let mut ancestor = None;
        for name in candidates {
            let (bytes, entry) = reader.read(name).await?;
            let link = decode_link(&bytes).map_err(|error| damaged(name, error))?;
            if link.hash == expected {
                ancestor = Some((name, link.prev));
            } else if let (LogEntry::Commit(commit), false) = (entry, is_below_floor) {
                found.insert(name, *commit);
            }
        }
        let Some((name, before)) = ancestor else {
            return Err(Error::corrupt(format!(
                "{} does not follow any commit before it: the bucket was rolled back or mixed with another",
                keys::tip(above)
            )));
        };
        (above, prev) = (name, Some(before));
    }
    if head.seq == 1 && head.prev != reader.config {
        return Err(Error::corrupt(format!("{} is of another repository", keys::tip(above))));
    }
    Ok(found)
}
