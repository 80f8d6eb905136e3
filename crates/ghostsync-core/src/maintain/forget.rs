//! `forget`: drops the snapshots that no rule keeps, by one commit. Their content stays in the store until it is pruned.
//!
//! The commit is a function of the state that it is built on: when another writer was first, the whole plan is made
//! again on the newer state, so that nothing which became a head, was held or was tagged meanwhile is dropped. The
//! time of the plan stays what it was when the call began.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::json;

use super::alone::Alone;
use super::retention::{self, ForgetPlan, KeepRules, Scope};
use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::history::{Session, without_snapshots};
use crate::repository::{Repository, State};

/// What is forgotten.
#[derive(Debug, Clone)]
pub struct ForgetOptions {
    /// What is kept; at least one rule is needed.
    pub keep: KeepRules,
    /// Which branches are concerned.
    pub scope: Scope,
    /// For how long the newest head of each hour is kept for writers that may be building on it, and every head of the
    /// last 10 minutes. Zero turns that off; nothing unsafe happens then, but such a writer has to begin anew.
    pub protect: Duration,
    /// Nobody else writes to the repository until this has ended. Commit mode `detect` asks for that; in the other it
    /// changes nothing.
    pub exclusive: bool,
    /// The calendar that days, weeks, months and years are of.
    pub zone: TimeZone,
    /// Who writes, for people.
    pub writer: String,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Default for ForgetOptions {
    fn default() -> Self {
        Self {
            keep: KeepRules::default(),
            scope: Scope::default(),
            protect: Duration::from_secs(24 * 3600),
            exclusive: false,
            zone: TimeZone::UTC,
            writer: String::new(),
            clock: Arc::new(SystemClock),
        }
    }
}

/// What was forgotten.
#[derive(Debug, Clone, PartialEq)]
pub struct ForgetReport {
    /// The plan that was carried out.
    pub plan: ForgetPlan,
    /// The number of the commit; `None` if there was nothing to drop.
    pub commit: Option<u64>,
}

/// Plans a [`forget`] on the newest state, and does nothing.
///
/// # Errors
/// `Invalid` if no rule is given; `NotFound` if a branch that is named does not exist; the store's.
pub async fn plan_forget(repository: &Repository, options: &ForgetOptions) -> Result<ForgetPlan> {
    options.keep.check()?;
    retention::plan(&repository.state().await?, options, options.clock.now())
}

/// Drops every snapshot of the branches concerned that no rule keeps.
///
/// # Errors
/// As [`plan_forget`]; `Conflict`, `Unknown` as any commit. In commit mode `detect`, `Refused` if it is not `exclusive`.
pub async fn forget(repository: &Repository, options: &ForgetOptions) -> Result<ForgetReport> {
    options.keep.check()?;
    let alone = Alone::check(repository, options.exclusive, "forget")?;
    let now = options.clock.now();
    let mut plan = ForgetPlan::default();
    let function = |state: &State, _: &Session| {
        plan = retention::plan(state, options, now)?;
        let dropped = plan.dropped_ids();
        if dropped.is_empty() {
            return Ok(None);
        }
        let commit = without_snapshots(state, &dropped)?;
        Ok(Some((commit, json!({"kind": "forget", "dropped": dropped}))))
    };
    let changed = repository.change(&options.writer, &*options.clock, function).await;
    let changed = changed.map_err(|error| alone.goes_on(error))?;
    Ok(ForgetReport { plan, commit: changed.map(|state| state.commit.seq) })
}
