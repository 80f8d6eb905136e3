//! The tools that are measured, one file for each: how it makes a repository, backs up and restores, at its best settings.

mod borg;
mod floors;
mod ghostsync;
mod rclone;
mod restic;
mod rsync;
mod rustic;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome, Tried};
use crate::store::Bucket;
use crate::trees::Tree;

/// What is done with a tree, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Backup into an empty repository
    First,
    /// Backup of the same tree
    Unchanged,
    /// Backup after 1 % changed
    Changed,
    /// Restore into an empty directory, with an empty cache
    Restore,
    /// Restore over what that wrote
    Intact,
    /// Restore over it after 1 % was damaged
    Damaged,
}

impl Step {
    /// All, in order.
    pub const ALL: [Self; 6] =
        [Self::First, Self::Unchanged, Self::Changed, Self::Restore, Self::Intact, Self::Damaged];

    /// As a column is headed.
    pub fn title(self) -> &'static str {
        match self {
            Self::First => "first backup",
            Self::Unchanged => "unchanged",
            Self::Changed => "1 % changed",
            Self::Restore => "restore",
            Self::Intact => "over intact",
            Self::Damaged => "over 1 % damaged",
        }
    }

    /// Whether it reads the repository and writes the directory.
    pub fn restores(self) -> bool {
        self >= Self::Restore
    }
}

/// Where a repository lies.
#[derive(Clone)]
pub enum Repository {
    /// In this folder, or as this file; nothing is there yet
    Folder(PathBuf),
    /// In a bucket, under this prefix
    Bucket(Bucket, String),
}

/// Everything one peer works with.
pub struct Place {
    pub source: PathBuf,
    pub repository: Repository,
    /// Where it restores to.
    pub target: PathBuf,
    /// Home directories: one for backups, one for restores, so that a restore begins without a cache.
    pub homes: PathBuf,
}

impl Place {
    /// The home of `step`.
    pub fn home(&self, step: Step) -> PathBuf {
        self.homes.join(if step.restores() { "restore" } else { "backup" })
    }

    /// `program` with a clean environment and the home of `step`.
    fn command(&self, program: impl AsRef<Path>, step: Step) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("HOME", self.home(step)).env("LC_ALL", "C.UTF-8");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if let Repository::Bucket(bucket, _) = &self.repository {
            command.env("AWS_ACCESS_KEY_ID", &bucket.access_key).env("AWS_SECRET_ACCESS_KEY", &bucket.secret_key);
            command.env("AWS_REGION", &bucket.region).env("AWS_DEFAULT_REGION", &bucket.region);
            command.env("AWS_ENDPOINT_URL", &bucket.endpoint).env("AWS_ALLOW_HTTP", "true");
            command.env("AWS_EC2_METADATA_DISABLED", "true");
        }
        command
    }

    /// The local repository of a peer that knows no other.
    fn folder(&self) -> Option<&Path> {
        match &self.repository {
            Repository::Folder(folder) => Some(folder),
            Repository::Bucket(..) => None,
        }
    }
}

/// A tool that is measured.
pub trait Peer {
    /// Its name in tables and on the command line.
    fn name(&self) -> &'static str;
    /// The command that prints its version.
    fn version(&self) -> Command;
    /// Its settings, and what they mean, for the report.
    fn settings(&self) -> &'static str;
    /// Whether it can keep a repository in a bucket.
    fn knows_buckets(&self) -> bool {
        false
    }
    /// Makes the repository; not measured.
    fn prepare(&self, _place: &Place) -> Option<Command> {
        None
    }
    /// The measured command of `step`, if the peer can do that.
    fn command(&self, step: Step, place: &Place) -> Option<Command>;
    /// The requests in what the command printed, if it counts them.
    fn requests(&self, _printed: &str) -> Option<u64> {
        None
    }
}

/// The floor of ghostsync over the line.
pub const LOCAL: &str = "ghostsync-local";

/// All peers, in the order of the tables.
pub fn all(ghostsync: &Path) -> Vec<Box<dyn Peer>> {
    let ghostsync = || ghostsync::Ghostsync { program: ghostsync.to_owned() };
    vec![
        Box::new(ghostsync()),
        Box::new(restic::Restic),
        Box::new(rustic::Rustic),
        Box::new(borg::Borg),
        Box::new(rclone::Rclone),
        Box::new(rsync::Rsync),
        Box::new(floors::TarZstd),
        Box::new(floors::Cp),
        Box::new(floors::Find),
        Box::new(ghostsync::Local(ghostsync())),
    ]
}

/// Those that are measured on `tree` if none are named.
pub fn usual(tree: Tree) -> &'static [&'static str] {
    match tree {
        // The others take many minutes for a million files, and half a day for all runs.
        Tree::Wide => &["ghostsync", "restic", "rclone", "tar+zstd", "find"],
        _ => &["ghostsync", "restic", "rustic", "borg", "rclone", "rsync", "tar+zstd", "cp", "find"],
    }
}

/// The first line that the peer's version command prints, without what follows a comma.
pub fn version_of(peer: &dyn Peer) -> Outcome<String> {
    let mut command = peer.version();
    let output = command.output().tried(|| format!("run {}", crate::measure::shown(&command)))?;
    if !output.status.success() {
        return Err(Failure::new(format!("{}: {}", crate::measure::shown(&command), output.status)));
    }
    let line = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().replace('*', "");
    let version = line.split(',').next().unwrap_or_default();
    Ok(version.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A command with these words.
fn words(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}
