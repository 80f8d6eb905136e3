//! What may not happen is refused as a whole, before anything is changed. Pure.

use super::RestoreOptions;
use super::plan::Survey;
use crate::error::{Error, Result};
use crate::guard::{Guard, Refusal};

/// Refuses wishes that contradict each other.
///
/// # Errors
/// `Invalid`.
pub(super) fn contradictions(options: &RestoreOptions) -> Result<()> {
    match &options.receipt {
        Some(_) if !options.include.is_empty() => Err(Error::invalid(
            "a receipt stands for a whole snapshot; it cannot be written when only some paths are restored",
        )),
        None if options.genesis.is_some() => Err(Error::invalid("a genesis receipt needs a place to be written to")),
        _ => Ok(()),
    }
}

/// Holds what a survey found against what is allowed.
///
/// # Errors
/// `Refused` beyond the cap, `Invalid` if what stays or is left out would make a receipt untrue.
pub(super) fn excess(survey: &Survey, options: &RestoreOptions) -> Result<()> {
    let losses = &survey.losses;
    if options.delete && !options.max_delete.allows(losses.removed, losses.there) {
        let (removed, there) = (losses.removed, losses.there);
        return Err(Refusal {
            guard: Guard::MaxDelete,
            reason: format!("{removed} of the {there} files that are there would be removed"),
            limit: Some(options.max_delete.to_string()),
            actual: Some(removed),
            paths: losses.paths.clone(),
            plan: None,
        }
        .into());
    }
    let untrue = |path, why| Err(Error::invalid(format!("{path} {why}, so no receipt could be written")));
    match (&survey.stays, &survey.excluded) {
        (Some(path), _) if options.receipt.is_some() => untrue(path, "differs from the snapshot and would stay"),
        (_, Some(path)) if options.receipt.is_some() => untrue(path, "is in the snapshot and excluded"),
        _ => Ok(()),
    }
}
