//! The command line. Every flag that has a variable and a key in the file says so here, and nowhere else: see
//! [`environment`](crate::environment).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ghostsync_cli::values::{Size, Span};
use ghostsync_core::guard::Cap;
use ghostsync_core::id::RepositoryId;

use crate::lint::command::LintArgs;
use crate::manifest::ManifestArgs;

/// Keep a pod's directory in an object store: restored before the app starts, saved while it runs and at its end.
#[derive(Debug, Parser)]
#[command(name = "ghostsync-k8s", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the directory equal to the head of its branch, and claim the branch: an init container
    Restore(Box<RestoreArgs>),
    /// Take snapshots of the directory while the app runs, and the final one at the end: a sidecar
    Sync(Box<SyncArgs>),
    /// Talk to a running `sync` over its socket: preStop hooks, people
    Ctl(CtlArgs),
    /// Probe an address over HTTP: exec probes, HEALTHCHECK
    Health(HealthArgs),
    /// Print a complete Deployment around a placeholder app
    Manifest(ManifestArgs),
    /// Hold manifests against every trap that they can show, and print the patches
    Lint(LintArgs),
}

/// What `restore` and `sync` are told alike.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The pod")]
pub struct PodArgs {
    /// Configuration file, TOML: its keys are the names of the flags
    #[arg(long, env = "GHOSTSYNC_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the repository lies: s3://bucket/prefix, gs://…, az://container/prefix, https://host/path (WebDAV),
    /// file:///path or a path
    #[arg(long, env = "GHOSTSYNC_REPO", value_name = "URL")]
    pub repo: String,
    /// The directory
    #[arg(long, env = "GHOSTSYNC_PATH", value_name = "DIR")]
    pub path: PathBuf,
    /// The branch
    #[arg(long, env = "GHOSTSYNC_BRANCH", default_value = "main")]
    pub branch: String,
    /// On whose behalf: what tells this pod from the next, such as its UID [default: the name of the host]
    #[arg(long, env = "GHOSTSYNC_OWNER", value_name = "NAME")]
    pub owner: Option<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
    /// Local cache; losing it loses nothing [default: cache in the state folder]
    #[arg(long, env = "GHOSTSYNC_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// The pod's terminationGracePeriodSeconds
    #[arg(long, env = "GHOSTSYNC_GRACE_PERIOD", value_name = "DURATION", default_value = "30s")]
    pub grace_period: Span,
    /// A folder of files that are called like the variables of the store (AWS_SECRET_ACCESS_KEY …), such as a mounted
    /// Secret: read again before each use, before the environment
    #[arg(long, env = "GHOSTSYNC_CREDENTIALS_DIR", value_name = "DIR")]
    pub credentials_dir: Option<PathBuf>,
    /// Leave out what matches (gitignore syntax); may be repeated, in the environment one a line
    #[arg(long, env = "GHOSTSYNC_EXCLUDE", value_name = "GLOB", value_delimiter = '\n')]
    pub exclude: Vec<String>,
    /// What to do while the store cannot be reached: fail, or go on with a directory whose receipt is whole
    #[arg(long, env = "GHOSTSYNC_ON_UNREACHABLE", value_enum, value_name = "WHAT", default_value = "fail")]
    pub on_unreachable: OnUnreachable,
    /// Where the last words go
    #[arg(long, env = "GHOSTSYNC_TERMINATION_LOG", value_name = "FILE", default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
    /// The most bytes per second that are sent to the store, such as 2MB [default: no limit]
    #[arg(long, env = "GHOSTSYNC_LIMIT_UPLOAD", value_name = "SIZE")]
    pub limit_upload: Option<Size>,
    /// The most bytes per second that are received from the store [default: no limit]
    #[arg(long, env = "GHOSTSYNC_LIMIT_DOWNLOAD", value_name = "SIZE")]
    pub limit_download: Option<Size>,
    /// The most requests in flight
    #[arg(long, env = "GHOSTSYNC_CONNECTIONS", value_name = "N", default_value = "8",
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: u16,
    /// How long one attempt tries to reach the store
    #[arg(long, env = "GHOSTSYNC_RETRY_TIME", value_name = "DURATION", default_value = "60s")]
    pub retry_time: Span,
}

/// Where the two containers of a pod meet.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// The folder of the receipt, the control socket and the cache: a volume of its own, in both containers
    #[arg(long, env = "GHOSTSYNC_STATE_DIR", value_name = "DIR", default_value = "/run/ghostsync")]
    pub state_dir: PathBuf,
}

impl PlaceArgs {
    /// The receipt of the directory.
    #[must_use]
    pub fn receipt(&self) -> PathBuf {
        self.state_dir.join("receipt.json")
    }

    /// The socket that a running `sync` listens on.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("control.sock")
    }
}

/// What to do while the store cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnUnreachable {
    /// Fail, and be started again
    Fail,
    /// Go on with the directory as it is, if its receipt is whole
    Cache,
}

/// What `restore` is told.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pod: PodArgs,
    /// How long to wait for the holder of the branch to release it; then the branch is claimed all the same
    #[arg(long, env = "GHOSTSYNC_WAIT_PREDECESSOR", value_name = "DURATION", default_value = "0s")]
    pub wait_predecessor: Span,
    /// First boot: on a branch without a snapshot, in this very repository, begin with an empty directory
    #[arg(long, env = "GHOSTSYNC_GENESIS", value_name = "REPOSITORY-ID")]
    pub genesis: Option<RepositoryId>,
}

/// What `sync` is told.
#[derive(Debug, Clone, Args)]
pub struct SyncArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub pod: PodArgs,
    /// How often the head is looked at, and what failed is tried again
    #[arg(long, env = "GHOSTSYNC_INTERVAL", value_name = "DURATION", default_value = "30s")]
    pub interval: Span,
    /// A changed directory is saved when it has been quiet for so long …
    #[arg(long, env = "GHOSTSYNC_QUIET", value_name = "DURATION", default_value = "2s")]
    pub quiet: Span,
    /// … or was changed so long ago; three times as long as a pass takes, if that is longer …
    #[arg(long, env = "GHOSTSYNC_MIN_WAIT", value_name = "DURATION", default_value = "3s")]
    pub min_wait: Span,
    /// … and never longer than this
    #[arg(long, env = "GHOSTSYNC_MAX_WAIT", value_name = "DURATION", default_value = "15s")]
    pub max_wait: Span,
    /// How often the whole directory is listed, whatever the watch has seen
    #[arg(long, env = "GHOSTSYNC_RESCAN", value_name = "DURATION", default_value = "10m")]
    pub rescan: Span,
    /// Where probes and metrics are served
    #[arg(long, env = "GHOSTSYNC_LISTEN", value_name = "ADDRESS", default_value = ":9108")]
    pub listen: String,
    /// An address that is asked for (GET, http or https) after a pass or a look that went well, at most once an interval
    #[arg(long, env = "GHOSTSYNC_HEARTBEAT", value_name = "URL", hide_env_values = true)]
    pub heartbeat: Option<String>,
    /// Refuse a snapshot that would remove more: a number, or a percentage of the parent's entries
    #[arg(long, env = "GHOSTSYNC_MAX_DELETE", value_name = "N|P%", default_value = "25%")]
    pub max_delete: Cap,
    /// Refuse a snapshot that would change more files [default: no cap]
    #[arg(long, env = "GHOSTSYNC_MAX_CHANGE", value_name = "N|P%")]
    pub max_change: Option<Cap>,
    /// Refuse when an entry cannot be read, instead of carrying its parent's version forward
    #[arg(long, env = "GHOSTSYNC_STRICT")]
    pub strict: bool,
    /// What to do with what a guard refuses
    #[arg(long, env = "GHOSTSYNC_ON_REFUSAL", value_enum, value_name = "WHAT", default_value = "quarantine")]
    pub on_refusal: OnRefusalArg,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub keep: KeepArgs,
}

/// Which snapshots of the branch are kept, if not all; forks and quarantine are never touched.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retention (default: nothing is ever forgotten)")]
pub struct KeepArgs {
    /// Keep the N newest snapshots
    #[arg(long, env = "GHOSTSYNC_KEEP_LAST", value_name = "N", default_value = "0")]
    pub keep_last: u32,
    /// Keep the newest snapshot of each of the N newest hours that have one
    #[arg(long, env = "GHOSTSYNC_KEEP_HOURLY", value_name = "N", default_value = "0")]
    pub keep_hourly: u32,
    /// The same for days, in the zone of the container
    #[arg(long, env = "GHOSTSYNC_KEEP_DAILY", value_name = "N", default_value = "0")]
    pub keep_daily: u32,
    /// The same for weeks, which begin on Monday
    #[arg(long, env = "GHOSTSYNC_KEEP_WEEKLY", value_name = "N", default_value = "0")]
    pub keep_weekly: u32,
    /// The same for months
    #[arg(long, env = "GHOSTSYNC_KEEP_MONTHLY", value_name = "N", default_value = "0")]
    pub keep_monthly: u32,
    /// The same for years
    #[arg(long, env = "GHOSTSYNC_KEEP_YEARLY", value_name = "N", default_value = "0")]
    pub keep_yearly: u32,
    /// Keep every snapshot that is not older than this, counted from the newest
    #[arg(long, env = "GHOSTSYNC_KEEP_WITHIN", value_name = "DURATION", default_value = "0")]
    pub keep_within: Span,
    /// Delete packs that no snapshot needs, too: these credentials may delete
    #[arg(long, env = "GHOSTSYNC_PRUNE")]
    pub prune: bool,
    /// How often
    #[arg(long, env = "GHOSTSYNC_MAINTAIN_EVERY", value_name = "DURATION", default_value = "24h")]
    pub maintain_every: Span,
}

/// What to do with what a guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnRefusalArg {
    /// Publish nothing
    Fail,
    /// Keep it on a branch of its own
    Quarantine,
}

/// What is said to a running `sync`.
#[derive(Debug, Clone, Args)]
pub struct CtlArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub place: PlaceArgs,
    /// What to say.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to say to a running `sync`.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// The pod is being ended: begin to save what there is; returns at once (native sidecar's preStop)
    Terminating,
    /// Wait for the app, take the last snapshot but one; returns when that is made (classic sidecar's preStop)
    FinalSync(FinalSyncArgs),
    /// Print how it stands, as JSON
    Status,
    /// Take a snapshot now; returns when it is made
    Sync,
}

/// How `ctl final-sync` waits.
#[derive(Debug, Clone, Args)]
pub struct FinalSyncArgs {
    /// Wait until the app has gone: process:NAME (shareProcessNamespace) or tcp:HOST:PORT (a closed port is not a gone
    /// process); may be repeated
    #[arg(long, value_name = "WHAT")]
    pub wait_app: Vec<String>,
    /// Then wait until nothing has changed for so long
    #[arg(long, value_name = "DURATION", default_value = "3s")]
    pub quiet: Span,
    /// Wait no longer than this in all
    #[arg(long, value_name = "DURATION", default_value = "20s")]
    pub deadline: Span,
}

/// What to probe.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// The address, http alone
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// A header, such as 'Host: blog.example'; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub timeout: Span,
}
