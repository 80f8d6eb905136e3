//! The log of commit mode `detect`, for stores that cannot create an object at most once.
//!
//! Every commit has a key of its own, `log/<seq>.<session>.json.zst`, so no bytes are ever overwritten, whatever the
//! store does; two writers at once make two commits of one number, and the log is a tree by `prev`. The head is the
//! commit with the highest number, then the highest floor, then the smallest session. What lies beside its ancestors
//! lost a race. Nothing of that is thrown away: whoever reads the log sees what such a commit made as forks
//! ([`merge`]), and whoever commits next makes that lasting and names it in `merged`.
//!
//! Why an acknowledged snapshot stays: its commit is listed from then on, and is never deleted. So every later reader
//! finds it among the head's ancestors, among what the head has merged, or takes it over. Two things make it void: a
//! session floor above its begin, and a parent that was forgotten. A writer that sees one does not acknowledge, and a
//! prune, which alone sets floors, and a forget have the repository to themselves (`--exclusive`).
//!
//! What is not kept: the order of two commits (a snapshot may move from its branch to a fork), and what a claim or a
//! release did that lost a race after it was acknowledged. Epochs are advice here.

mod attempt;
mod check;
mod find;
mod merge;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::format::commit::{MAX_SEQ, TipName};
use crate::id::SessionId;
use crate::store::{Store, keys};

pub(super) use attempt::attempt;
pub(super) use check::check_log;
pub(super) use find::{find_head, state_as_of};

/// The sessions of the commits of each number, as they are listed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names(BTreeMap<u64, BTreeSet<SessionId>>);

impl Names {
    async fn list(store: &Store) -> Result<Self> {
        let mut names = Self::default();
        store
            .for_each(&keys::log(), |object| {
                let name = keys::tip_name(&object.location);
                if let Some(name) = name.filter(|name| (1..=MAX_SEQ).contains(&name.seq)) {
                    names.insert(name);
                }
            })
            .await?;
        Ok(names)
    }

    /// The commits of the highest number.
    fn newest(&self) -> impl Iterator<Item = TipName> {
        self.of(self.0.last_key_value().map_or(0, |(seq, _)| *seq))
    }

    fn insert(&mut self, name: TipName) {
        self.0.entry(name.seq).or_default().insert(name.session);
    }

    fn contains(&self, name: TipName) -> bool {
        self.0.get(&name.seq).is_some_and(|sessions| sessions.contains(&name.session))
    }

    fn of(&self, seq: u64) -> impl Iterator<Item = TipName> {
        self.0.get(&seq).into_iter().flatten().map(move |session| TipName { seq, session: *session })
    }

    /// The lowest number at or below the highest that no commit has.
    fn gap(&self) -> Option<u64> {
        (1..).zip(self.0.keys()).find(|(expected, found)| expected != *found).map(|(expected, _)| expected)
    }
}
