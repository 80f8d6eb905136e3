//! What the commands take that mark snapshots and move branches.

use clap::Args;
use ghostsync_core::repository::Selector;

use crate::values::{Span, parse_selector};

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// ID, latest, latest~N or @TIME
    #[arg(value_name = "SNAP", value_parser = parse_selector)]
    pub(crate) snapshot: Selector,
    /// Tags to set
    #[arg(value_name = "KEY=VALUE", value_parser = crate::values::parse_tag, required_unless_present = "remove")]
    pub(crate) set: Vec<(String, String)>,
    /// Remove this tag; may be repeated
    #[arg(long, value_name = "KEY")]
    pub(crate) remove: Vec<String>,
    /// The branch that 'latest' and times are looked up on
    #[arg(long, default_value = "main")]
    pub(crate) branch: String,
}

#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    #[command(flatten)]
    pub(crate) which: OneSnapshotArgs,
    /// Why it is held
    #[arg(long, value_name = "TEXT", default_value = "held by hand")]
    pub(crate) reason: String,
}

#[derive(Debug, Args)]
pub(crate) struct OneSnapshotArgs {
    /// ID, latest, latest~N or @TIME
    #[arg(value_name = "SNAP", value_parser = parse_selector)]
    pub(crate) snapshot: Selector,
    /// The branch that 'latest' and times are looked up on
    #[arg(long, default_value = "main")]
    pub(crate) branch: String,
}

/// A branch, and who owns it.
#[derive(Debug, Args)]
pub(crate) struct OwnedBranchArgs {
    /// The branch
    #[arg(long, default_value = "main")]
    pub(crate) branch: String,
    /// The owner: 1 to 63 of a-z, 0-9, '.', '_', '-', such as the pod's name
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: String,
}

#[derive(Debug, Args)]
pub(crate) struct ClaimArgs {
    #[command(flatten)]
    pub(crate) which: OwnedBranchArgs,
    /// How long to wait for another holder to release it first; then it is taken all the same
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub(crate) wait: Span,
}

#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    pub(crate) which: OwnedBranchArgs,
}
