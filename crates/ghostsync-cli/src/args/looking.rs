//! What the commands take that look at snapshots.

use std::ffi::OsString;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use ghostsync_core::repository::Selector;

use crate::values::{SnapshotPath, parse_selector};

#[derive(Debug, Args)]
pub(crate) struct SnapshotsArgs {
    /// Only those of this branch [default: of every branch]
    #[arg(long)]
    pub(crate) branch: Option<String>,
    /// Only those with this tag: KEY=VALUE, or KEY with any value; may be repeated, all must hold
    #[arg(long = "tag", value_name = "KEY[=VALUE]")]
    pub(crate) tags: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// ID, latest, latest~N or @TIME, and a path inside
    #[arg(value_name = "SNAP[:PATH]", value_parser = snapshot_path())]
    pub(crate) what: SnapshotPath,
    /// The branch that 'latest' and times are looked up on
    #[arg(long, default_value = "main")]
    pub(crate) branch: String,
}

#[derive(Debug, Args)]
pub(crate) struct CatArgs {
    /// ID, latest, latest~N or @TIME, and the path of a file inside
    #[arg(value_name = "SNAP:PATH", value_parser = snapshot_path())]
    pub(crate) what: SnapshotPath,
    /// The branch that 'latest' and times are looked up on
    #[arg(long, default_value = "main")]
    pub(crate) branch: String,
}

#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// A pattern in gitignore syntax: *.txt anywhere, /a/*.txt at one place
    #[arg(value_name = "GLOB")]
    pub(crate) pattern: String,
    /// Only in this snapshot: ID, latest, latest~N or @TIME [default: in every snapshot]
    #[arg(long, value_name = "SNAP", value_parser = parse_selector)]
    pub(crate) snapshot: Option<Selector>,
    /// Only in snapshots of this branch [default: every branch; 'main' for --snapshot]
    #[arg(long)]
    pub(crate) branch: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The snapshot before: ID, latest, latest~N or @TIME
    #[arg(value_name = "A", value_parser = parse_selector)]
    pub(crate) before: Selector,
    /// The snapshot after, or a directory: what contains a slash, '.' and '..' are directories
    #[arg(value_name = "B")]
    pub(crate) after: OsString,
    /// The branch that 'latest' and times are looked up on
    #[arg(long, default_value = "main")]
    pub(crate) branch: String,
}

fn snapshot_path() -> impl TypedValueParser<Value = SnapshotPath> {
    OsStringValueParser::new().try_map(|text| crate::values::parse_snapshot_path(&text))
}
