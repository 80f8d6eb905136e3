//! The log of a repository, whichever way its store lets it be kept: numbered slots that are created at most once
//! (`head`, `commit`, `chain`), or a tree of tips where a store cannot do that (`tips`).

use bytes::Bytes;
use serde_json::Value;

use super::cache::HeadCache;
use super::chain::{self, LogCheck};
use super::commit::{self, Attempt, Session};
use super::head::{self, State};
use super::tips;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::commit::{Commit, TipName};
use crate::format::config::CommitMode;
use crate::id::CommitHash;
use crate::interrupt::Interrupt;
use crate::store::Store;

/// How often a small change is made again on a newer state.
const MAX_REBASES: u32 = 20;

/// Where the commits of one repository are.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) store: Store,
    /// The hash of `config.json`, which the first commit follows.
    pub(crate) config: CommitHash,
    pub(crate) mode: CommitMode,
    pub(crate) cache: Option<HeadCache>,
}

impl Log {
    /// Reads the newest state, and the stored bytes of the head where there is one. `cached` are the stored bytes of the
    /// commit that was the head when somebody looked last.
    ///
    /// # Errors
    /// `Corrupt` if the log does not hold together, or the store's.
    pub(crate) async fn find_head(&self, cached: Option<&(u64, Bytes)>) -> Result<(State, Option<Bytes>)> {
        match self.mode {
            CommitMode::Atomic => head::find_head(&self.store, self.config, cached).await,
            CommitMode::Detect => tips::find_head(&self.store, self.config, cached).await,
        }
    }

    /// Tells whether anything was committed after a state.
    ///
    /// # Errors
    /// As [`Log::find_head`]; the store's alone where commits are numbered.
    pub(crate) async fn has_moved(&self, since: &State) -> Result<bool> {
        match self.mode {
            CommitMode::Atomic => head::exists(&self.store, since.commit.seq + 1).await,
            CommitMode::Detect => {
                let cached = self.cache.as_ref().and_then(HeadCache::load);
                Ok(self.find_head(cached.as_ref()).await?.0.hash != since.hash)
            }
        }
    }

    /// Reads the state as it was when the newest commits were these, all of one number: in commit mode `detect`, with
    /// what lay beside the head taken over.
    ///
    /// # Errors
    /// `Corrupt` if the log does not hold together, or the store's.
    pub(crate) async fn state_as_of(&self, newest: &[TipName]) -> Result<State> {
        tips::state_as_of(&self.store, self.config, newest).await
    }

    /// Tries to make one commit on the state that it was built on.
    ///
    /// # Errors
    /// `Unknown` if the outcome could not be found out in time; `Fenced` if the session began below the floor;
    /// `Corrupt` if the commit that it is built on is not what it was.
    pub(crate) async fn attempt(&self, session: &Session, base: &State, commit: &Commit) -> Result<Attempt> {
        match self.mode {
            CommitMode::Atomic => commit::attempt(&self.store, self.cache.as_ref(), session, base, commit).await,
            CommitMode::Detect => tips::attempt(self, session, base, commit).await,
        }
    }

    /// Looks at the whole log.
    ///
    /// # Errors
    /// The store's; what does not hold is no error.
    pub(crate) async fn check(&self, interrupt: &Interrupt) -> Result<LogCheck> {
        match self.mode {
            CommitMode::Atomic => chain::check_log(&self.store, self.config, interrupt).await,
            CommitMode::Detect => tips::check_log(&self.store, self.config, interrupt).await,
        }
    }

    /// Makes a small change that is a function of the state: when it loses a race it is made again on the newer state.
    /// `None` from the function means that there is nothing to do.
    ///
    /// # Errors
    /// The function's; `Conflict` if others kept winning; and as [`Log::attempt`].
    pub(crate) async fn change(
        &self,
        writer: &str,
        clock: &dyn Clock,
        mut function: impl FnMut(&State, &Session) -> Result<Option<(Commit, Value)>>,
    ) -> Result<Option<State>> {
        let (mut base, _) = self.find_head(self.cache.as_ref().and_then(HeadCache::load).as_ref()).await?;
        let mut taken_over = None;
        for _ in 0..MAX_REBASES {
            let session = Session::begin(&base, writer, None);
            // Nothing is left to do also where another's commit took over what ours did.
            let Some((changed, op)) = function(&base, &session)? else { return Ok(taken_over) };
            let Commit { branches, snapshots, .. } = changed;
            let commit = Commit { branches, snapshots, ..session.next_commit(&base, clock, op) };
            base = match self.attempt(&session, &base, &commit).await? {
                Attempt::Done(state) => return Ok(Some(*state)),
                Attempt::TakenOver(state) => taken_over.insert(*state).clone(),
                Attempt::Lost => self.find_head(None).await?.0,
            };
        }
        Err(Error::new(ErrorKind::Conflict, format!("other writers won {MAX_REBASES} times in a row")))
    }
}
