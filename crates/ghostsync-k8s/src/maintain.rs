//! Retention on a schedule: forgets the snapshots of the branch that no rule keeps, and prunes if that is asked for.

use std::sync::Arc;

use ghostsync_core::Result;
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::maintain::{ForgetOptions, KeepRules, PruneOptions, Scope, forget, prune};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::Repository;
use serde_json::json;

use crate::args::{KeepArgs, SyncArgs};
use crate::log::{self, Level};

/// The rules, if there are any.
pub(crate) fn rules(args: &KeepArgs) -> Option<KeepRules> {
    let rules = KeepRules {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
        within: args.keep_within.0,
        tags: Vec::new(),
    };
    (rules != KeepRules::default()).then_some(rules)
}

/// Forgets and prunes.
///
/// # Errors
/// As [`forget`] and [`prune`]: it is tried again the next time.
pub(crate) async fn maintain(
    repository: &Repository,
    args: &SyncArgs,
    writer: &str,
    interrupt: &Interrupt,
) -> Result<()> {
    if let Some(keep) = rules(&args.keep) {
        let options = ForgetOptions {
            keep,
            scope: Scope::Branches(vec![args.pod.branch.clone()]),
            zone: jiff::tz::TimeZone::system(),
            writer: writer.to_owned(),
            ..ForgetOptions::default()
        };
        interrupt.check()?;
        let report = forget(repository, &options).await?;
        let dropped = report.plan.dropped().count();
        let fields = json!({"dropped": dropped, "kept": report.plan.snapshots.len() - dropped});
        log::line(Level::Info, "snapshots that no rule keeps are forgotten", fields);
    }
    if args.keep.prune {
        let options =
            PruneOptions { writer: writer.to_owned(), interrupt: interrupt.clone(), ..PruneOptions::default() };
        let report = prune(repository, options, Arc::new(NoObserver)).await?;
        log::line(Level::Info, "packs that no snapshot needs are deleted", json!(report));
    }
    Ok(())
}
