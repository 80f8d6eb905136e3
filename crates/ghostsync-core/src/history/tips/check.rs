//! The whole tree of commits: for a check, which takes no head for granted.

use std::collections::{BTreeMap, HashSet};

use futures::StreamExt;

use super::Names;
use super::find::look;
use super::read::Reader;
use crate::error::{ErrorKind, Result};
use crate::format::commit::{Commit, LogEntry, MAX_COMMIT_BYTES, TipName, decode_link, decode_log_entry};
use crate::history::chain::{LogCheck, READS, with_cause};
use crate::history::head::State;
use crate::id::CommitHash;
use crate::interrupt::Interrupt;
use crate::store::{Store, keys};

/// Reads every commit, and checks that each follows one of the number before it.
///
/// # Errors
/// The store's; what does not hold is no error.
pub(in crate::history) async fn check_log(
    store: &Store,
    config: CommitHash,
    interrupt: &Interrupt,
) -> Result<LogCheck> {
    let names = Names::list(store).await?;
    let mut tree = Tree { found: LogCheck::default(), hashes: BTreeMap::from([(0, HashSet::from([config]))]) };
    let all: Vec<TipName> = names.0.keys().flat_map(|seq| names.of(*seq)).collect();
    if all.is_empty() {
        tree.found.newest = Some(State { commit: Commit::empty(config), hash: config });
    }
    let mut entries = futures::stream::iter(all)
        .map(|name| async move { (name, store.get(&keys::tip(name), MAX_COMMIT_BYTES).await) })
        .buffered(READS);
    let mut highest = 0;
    while let Some((name, stored)) = entries.next().await {
        interrupt.check()?;
        for seq in highest + 1..name.seq {
            tree.note(keys::commit(seq), "no commit has this number");
        }
        highest = name.seq;
        match stored {
            Ok(Some(stored)) => tree.grow(name, &stored),
            Ok(None) => tree.note(keys::tip(name), "it is missing"),
            Err(error) if error.kind() == ErrorKind::Corrupt => tree.note(keys::tip(name), error.to_string()),
            Err(error) => return Err(error),
        }
    }
    let mut found = tree.found;
    match look(&mut Reader::new(store, config)).await {
        Ok(seen) => {
            found.void.extend(seen.void.iter().map(|(name, why)| (keys::tip(*name).to_string(), why.to_string())));
            found.newest = Some(seen.state);
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            if found.broken.is_empty() {
                found.broken.push((keys::log().to_string(), error.to_string()));
            }
        }
        Err(error) => return Err(error),
    }
    Ok(found)
}

struct Tree {
    found: LogCheck,
    /// The hashes of the commits of each number.
    hashes: BTreeMap<u64, HashSet<CommitHash>>,
}

impl Tree {
    fn note(&mut self, object: impl ToString, message: impl Into<String>) {
        self.found.broken.push((object.to_string(), message.into()));
    }

    fn grow(&mut self, name: TipName, stored: &[u8]) {
        let key = keys::tip(name);
        let link = match decode_link(stored) {
            Ok(link) => link,
            Err(error) => return self.note(key, with_cause(error)),
        };
        self.hashes.entry(name.seq).or_default().insert(link.hash);
        let follows = self.hashes.get(&(name.seq - 1)).is_some_and(|before| before.contains(&link.prev));
        if link.seq != name.seq {
            return self.note(key, format!("it says that it is number {}", link.seq));
        }
        match decode_log_entry(stored) {
            Ok(LogEntry::Commit(commit)) if commit.session != name.session => {
                self.note(key, format!("it says that it is of session {}", commit.session));
            }
            Ok(_) if !follows => self.note(key, "it follows no commit that is there"),
            // The newest that can be read, in case that the head cannot be found.
            Ok(LogEntry::Commit(commit)) => self.found.newest = Some(State { commit: *commit, hash: link.hash }),
            Ok(LogEntry::Emptied(_)) => {}
            Err(error) => self.note(key, with_cause(error)),
        }
    }
}
