//! The command line, as it is parsed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use ghostsync_core::backup::OnRefusal;
use ghostsync_core::format::config::CommitMode;
use ghostsync_core::guard::{Cap, PlanId};
use ghostsync_core::id::RepositoryId;
use ghostsync_core::maintain::ReadData;
use ghostsync_core::repository::Selector;
use ghostsync_core::restore::Overwrite;
use ghostsync_core::tree_path::TreePath;
use serde::Deserialize;

pub(crate) use crate::values::{Size, SnapshotPath, Span, parse_selector};

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

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Read all content, put every file together, and compare it with its hash
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Read and verify a part of the stored blocks: a percentage, another choice on every run, or the N-th of M parts
    #[arg(long, value_name = "P%|N/M", value_parser = parse_subset, conflicts_with = "read_data")]
    pub(crate) read_data_subset: Option<ReadData>,
}

#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// Read all content to find what is damaged, not only whether packs are there and long enough
    #[arg(long)]
    pub(crate) read_data: bool,
    /// Refuse to replace a head of which more is lost: a number, or a percentage of its files
    #[arg(long, value_name = "N|P%", default_value = "50%")]
    pub(crate) max_delete: Cap,
    /// Let one refused plan pass, as the refusal printed it
    #[arg(long = "override", value_name = "PLAN-ID")]
    pub(crate) override_plan: Option<PlanId>,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) how: PruneHowArgs,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// How packs are deleted.
#[derive(Debug, Args)]
pub(crate) struct PruneHowArgs {
    /// Wait so long after snapshots were forgotten, so that whoever restores one of them comes to an end
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub(crate) grace: Span,
    /// Fence backups that have uploaded nothing for so long
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) session_idle: Span,
    /// The most bytes in packs, less than half of which is needed, that later backups are to store again
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub(crate) max_rewrite: Size,
    /// Promise that no other process writes to the repository until this has ended; needed in commit mode detect alone
    #[arg(long)]
    pub(crate) exclusive: bool,
}

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

#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    /// Only snapshots of this branch; may be repeated [default: every branch but forks and quarantine]
    #[arg(long, value_name = "BRANCH")]
    pub(crate) branch: Vec<String>,
    /// Snapshots of every branch, of forks and quarantine too
    #[arg(long, conflicts_with = "branch")]
    pub(crate) all: bool,
    /// Keep what writers may be building on: the newest snapshot of each hour for so long, and all of 10 minutes
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub(crate) protect: Span,
    /// Then prune
    #[arg(long)]
    pub(crate) prune: bool,
    #[command(flatten)]
    pub(crate) how: PruneHowArgs,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

/// What is kept of each branch; one of these is required.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct KeepArgs {
    /// Keep the N newest snapshots of a branch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest snapshot of each of the N newest hours that have one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_hourly: Option<u32>,
    /// The same for days, in the zone of this machine
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_daily: Option<u32>,
    /// The same for weeks, which begin on Monday
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_weekly: Option<u32>,
    /// The same for months
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_monthly: Option<u32>,
    /// The same for years
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_yearly: Option<u32>,
    /// Keep every snapshot that is not older than this, counted from the newest of its branch
    #[arg(long, value_name = "DURATION")]
    pub(crate) keep_within: Option<Span>,
    /// Keep every snapshot with this tag: KEY=VALUE, or KEY with any value; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = crate::values::parse_tag_pattern)]
    pub(crate) keep_tag: Vec<(String, Option<String>)>,
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

fn snapshot_path() -> impl TypedValueParser<Value = SnapshotPath> {
    OsStringValueParser::new().try_map(|text| crate::values::parse_snapshot_path(&text))
}

fn tree_path() -> impl TypedValueParser<Value = TreePath> {
    OsStringValueParser::new().try_map(|text| crate::values::parse_tree_path(&text))
}

fn parse_subset(text: &str) -> Result<ReadData, String> {
    let wrong = || format!("not a part: {text:?}; write 10% or 1/5");
    if let Some(percent) = text.strip_suffix('%') {
        let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent));
        return percent.map(ReadData::Percent).ok_or_else(wrong);
    }
    let (n, m) = text.split_once('/').ok_or_else(wrong)?;
    let (n, m): (u32, u32) = (n.parse().map_err(|_| wrong())?, m.parse().map_err(|_| wrong())?);
    if (1..=m).contains(&n) { Ok(ReadData::Part { n, m }) } else { Err(wrong()) }
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
    fn parts_of_a_check() {
        assert_eq!(parse_subset("10%"), Ok(ReadData::Percent(10)));
        assert_eq!(parse_subset("2/5"), Ok(ReadData::Part { n: 2, m: 5 }));
        for text in ["", "0%", "101%", "0/5", "6/5", "5", "a/b"] {
            assert!(parse_subset(text).is_err(), "{text}");
        }
    }

    #[test]
    fn forgetting_needs_a_rule() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).is_ok();
        for rule in
            ["--keep-last 1", "--keep-daily 7 --keep-yearly 1", "--keep-within 30d", "--keep-tag a --keep-tag b=1"]
        {
            assert!(parse(&format!("ghostsync forget {rule} --all --dry-run")), "{rule}");
        }
        for line in ["", " --all", " --branch main --protect 0", " --keep-last 0", " --keep-tag =1"] {
            assert!(!parse(&format!("ghostsync forget{line}")), "{line}");
        }
        assert!(!parse("ghostsync forget --keep-last 1 --all --branch main"));
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
