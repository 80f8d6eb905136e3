//! What `backup` and `restore` take: a directory, and what may be done with it.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use ghostsync_core::backup::OnRefusal;
use ghostsync_core::guard::{Cap, PlanId};
use ghostsync_core::id::RepositoryId;
use ghostsync_core::repository::Selector;
use ghostsync_core::restore::Overwrite;
use ghostsync_core::tree_path::TreePath;

use crate::values::parse_selector;

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The directory
    #[arg(value_name = "DIR")]
    pub(crate) source: PathBuf,
    /// The branch
    #[arg(long, default_value = "main")]
    pub(crate) branch: String,
    /// Tag the snapshot; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = crate::values::parse_tag)]
    pub(crate) tags: Vec<(String, String)>,
    /// Leave out what matches (gitignore syntax); may be repeated, the last that matches wins
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Leave out what the lines of a file say (gitignore syntax); may be repeated, read before --exclude
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_from: Vec<PathBuf>,
    /// Leave out the content of directories with a CACHEDIR.TAG
    #[arg(long)]
    pub(crate) exclude_caches: bool,
    /// Leave out the content of other file systems' mount points
    #[arg(long)]
    pub(crate) one_file_system: bool,
    /// Read every file, whatever its metadata say
    #[arg(long)]
    pub(crate) reread: bool,
    /// Refuse a snapshot that would remove more: a number, or a percentage of the parent's entries
    #[arg(long, value_name = "N|P%", default_value = "50%")]
    pub(crate) max_delete: Cap,
    /// Refuse a snapshot that would change more files [default: no cap]
    #[arg(long, value_name = "N|P%")]
    pub(crate) max_change: Option<Cap>,
    /// Let an empty source follow a snapshot that is not
    #[arg(long)]
    pub(crate) allow_empty: bool,
    /// Refuse when an entry cannot be read, instead of carrying its parent's version forward
    #[arg(long)]
    pub(crate) strict: bool,
    /// Require the receipt that a restore wrote, and keep it current
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    /// Move the branch only while it belongs to --owner, as `claim` made it; else make a fork, and exit with 11
    #[arg(long, requires = "owner")]
    pub(crate) exclusive: bool,

    /// On whose behalf: the owner who claimed the branch
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: Option<String>,

    /// What to do with what a guard refuses
    #[arg(long, value_enum, value_name = "WHAT", default_value = "fail")]
    pub(crate) on_refusal: OnRefusalArg,
    /// Let one refused plan pass, as the refusal printed it
    #[arg(long = "override", value_name = "PLAN-ID")]
    pub(crate) override_plan: Option<PlanId>,
    /// Create the repository if there is none
    #[arg(long)]
    pub(crate) init: bool,
    /// Make a snapshot even of an unchanged tree
    #[arg(long)]
    pub(crate) force: bool,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// What to do with what a guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnRefusalArg {
    /// Publish nothing
    Fail,
    /// Keep it on a branch of its own
    Quarantine,
}

impl From<OnRefusalArg> for OnRefusal {
    fn from(arg: OnRefusalArg) -> Self {
        match arg {
            OnRefusalArg::Fail => Self::Fail,
            OnRefusalArg::Quarantine => Self::Quarantine,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The directory
    #[arg(value_name = "DIR")]
    pub(crate) destination: PathBuf,
    /// Which snapshot: ID, latest, latest~N or @TIME
    #[arg(long, value_name = "SNAP", default_value = "latest", value_parser = parse_selector)]
    pub(crate) snapshot: Selector,
    /// The branch that 'latest' and times are looked up on
    #[arg(long, default_value = "main")]
    pub(crate) branch: String,
    /// Restore this path and what lies below it, nothing else; may be repeated
    #[arg(long, value_name = "PATH", value_parser = tree_path())]
    pub(crate) include: Vec<TreePath>,
    /// Neither write nor delete what matches (gitignore syntax); may be repeated
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Remove what the snapshot lacks
    #[arg(long)]
    pub(crate) delete: bool,
    /// Refuse a --delete that would remove more: a number, or a percentage of what is there
    #[arg(long, value_name = "N|P%", default_value = "50%")]
    pub(crate) max_delete: Cap,
    /// What happens to entries that are there already [default: changed, into an empty directory]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub(crate) overwrite: Option<OverwriteArg>,
    /// Write the receipt that proves a complete restore
    #[arg(long, value_name = "FILE", conflicts_with = "include")]
    pub(crate) receipt: Option<PathBuf>,
    /// On a branch without a head, in this very repository: write a genesis receipt
    #[arg(long, value_name = "REPOSITORY-ID", requires = "receipt")]
    pub(crate) genesis: Option<RepositoryId>,
    /// Read again what is there already, instead of trusting its metadata
    #[arg(long)]
    pub(crate) verify: bool,

    /// Restore everything else when something is damaged; each loss is named, the exit code is 14
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// What happens to entries that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverwriteArg {
    /// Those whose kind, size or mtime differ are replaced
    Changed,
    /// Every one is written again
    Always,
    /// None is touched
    Never,
}

impl From<OverwriteArg> for Overwrite {
    fn from(arg: OverwriteArg) -> Self {
        match arg {
            OverwriteArg::Changed => Self::Changed,
            OverwriteArg::Always => Self::Always,
            OverwriteArg::Never => Self::Never,
        }
    }
}

fn tree_path() -> impl TypedValueParser<Value = TreePath> {
    OsStringValueParser::new().try_map(|text| crate::values::parse_tree_path(&text))
}
