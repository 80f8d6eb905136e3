//! The command line, as it is parsed.

mod directories;
mod looking;
mod maintaining;
mod marking;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ghostsync_core::format::config::CommitMode;
use serde::Deserialize;

pub(crate) use crate::values::{Size, Span};
pub(crate) use directories::{BackupArgs, RestoreArgs};
pub(crate) use looking::{CatArgs, DiffArgs, FindArgs, LsArgs, SnapshotsArgs};
pub(crate) use maintaining::{CheckArgs, ForgetArgs, KeepArgs, PruneArgs, PruneHowArgs, RepairArgs};
pub(crate) use marking::{ClaimArgs, HoldArgs, OneSnapshotArgs, ReleaseArgs, TagArgs};

/// Keep a directory in an object store as guarded, content-addressed snapshots, and bring it back.
#[derive(Debug, Parser)]
#[command(name = "ghostsync", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the repository lies: s3://bucket/prefix, gs://…, az://container/prefix, https://host/path
    /// (WebDAV), file:///path or a path [env: GHOSTSYNC_REPO]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) repo: Option<String>,
    /// Local cache; losing it loses nothing [default: the platform's cache folder] [env: GHOSTSYNC_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Configuration file, TOML [default: ghostsync/config.toml in the platform's config folder]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print exactly one JSON document on stdout; lists are JSON lines; messages stay on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print errors alone
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print more; twice: still more [env: GHOSTSYNC_LOG=quiet|normal|verbose|debug]
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Bars on a terminal, plain lines elsewhere; with --json, 'always' prints JSON lines [default: auto]
    #[arg(long, global = true, value_enum, value_name = "WHEN")]
    pub(crate) progress: Option<ProgressWhen>,
    /// The most bytes per second that are sent to the store, such as 2MB [default: no limit]
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) limit_upload: Option<Size>,
    /// The most bytes per second that are received from the store [default: no limit]
    #[arg(long, global = true, value_name = "SIZE")]
    pub(crate) limit_download: Option<Size>,
    /// The most requests in flight [default: 8]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) connections: Option<u16>,
    /// How long an unreachable store is tried [default: 60s]
    #[arg(long, global = true, value_name = "DURATION")]
    pub(crate) retry_time: Option<Span>,
}

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProgressWhen {
    /// Bars on a terminal, a plain line now and then elsewhere
    Auto,
    /// Also where nobody seems to look; with --json as JSON lines on stdout
    Always,
    /// Not at all
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a repository, after probing the store; prints its id
    Init(InitArgs),
    /// Make one snapshot of a directory
    Backup(Box<BackupArgs>),
    /// Make a directory equal to a snapshot
    Restore(Box<RestoreArgs>),
    /// List snapshots
    Snapshots(SnapshotsArgs),
    /// List the entries of a snapshot, at and below a path
    Ls(LsArgs),
    /// Print a file of a snapshot
    Cat(CatArgs),
    /// Find entries by a pattern, in every snapshot
    Find(FindArgs),
    /// Show what differs between two snapshots, or between a snapshot and a directory
    Diff(DiffArgs),
    /// Print figures of the repository
    Stats,
    /// Verify the repository: names what is damaged, and what that affects
    Check(CheckArgs),
    /// Rebuild what can be rebuilt of damaged heads, and name what cannot; nothing is ever deleted
    Repair(RepairArgs),
    /// Probe the store, the clock, the cache and the repository, and say what each finding means
    Doctor,
    /// Delete packs that no snapshot needs
    Prune(PruneArgs),
    /// Print the configuration in force, and where each setting comes from
    Config,
    /// Set and remove tags of a snapshot
    Tag(TagArgs),
    /// Keep a snapshot from ever being forgotten
    Hold(HoldArgs),
    /// Take the hold of a snapshot away
    ReleaseHold(OneSnapshotArgs),
    /// List branches
    Branches,
    /// Make a quarantined or forked snapshot the head of the branch it was meant for, or roll a branch back
    Promote(OneSnapshotArgs),
    /// Take a branch for an owner: earlier writers are fenced, and keep what they have on forks
    Claim(ClaimArgs),
    /// Give a branch back
    Release(ReleaseArgs),
    /// Drop the snapshots that no rule keeps; their content stays until it is pruned
    Forget(ForgetArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the manual page, of this program or of one command
    Man(ManArgs),
    /// Print the version of the program and of the repository format
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// A repository that is there already is fine
    #[arg(long)]
    pub(crate) if_missing: bool,
    /// How commits are made visible
    #[arg(long, value_enum, value_name = "MODE", default_value = "atomic")]
    pub(crate) commit_mode: CommitModeArg,
    /// Trust the store without probing it
    #[arg(long)]
    pub(crate) skip_probe: bool,
}

/// How commits are made visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CommitModeArg {
    /// The store creates an object at most once, and of several writers one is first
    Atomic,
    /// The store cannot do that: of several writers at once all but one find what they had on a fork
    Detect,
}

impl From<CommitModeArg> for CommitMode {
    fn from(arg: CommitModeArg) -> Self {
        match arg {
            CommitModeArg::Atomic => Self::Atomic,
            CommitModeArg::Detect => Self::Detect,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// One command [default: the program]
    pub(crate) command: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_receipt_needs_everything() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("ghostsync backup d --max-delete 10 --receipt r --json -v").is_ok());
        assert!(parse("ghostsync backup d --max-delete 101%").is_err());
        assert!(parse("ghostsync backup d -q -v").is_err());
        assert!(parse("ghostsync tag abcdef12").is_err());
        assert!(parse("ghostsync unknown").is_err());
    }
}
