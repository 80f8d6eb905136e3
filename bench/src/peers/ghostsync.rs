//! ghostsync, as released: defaults, and the receipt that a pod would ask for. Beside a store behind the line also its
//! backups to a local directory, without the line.

use std::path::PathBuf;
use std::process::Command;

use super::{Peer, Place, Repository, Step};

pub(super) struct Ghostsync {
    pub(super) program: PathBuf,
}

impl Ghostsync {
    fn at(&self, step: Step, place: &Place) -> Command {
        let mut command = place.command(&self.program, step);
        command.args(["--json", "--progress", "never", "--repo"]);
        match &place.repository {
            Repository::Folder(folder) => command.arg(folder),
            Repository::Bucket(bucket, prefix) => command.arg(format!("s3://{}/{prefix}", bucket.name)),
        };
        command
    }
}

impl Peer for Ghostsync {
    fn name(&self) -> &'static str {
        "ghostsync"
    }

    fn version(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--version");
        command
    }

    fn settings(&self) -> &'static str {
        "defaults; restores write a receipt. Checks every byte, and ends a restore with `syncfs`. No encryption."
    }

    fn knows_buckets(&self) -> bool {
        true
    }

    fn prepare(&self, place: &Place) -> Option<Command> {
        let mut command = self.at(Step::First, place);
        command.arg("init");
        if let Repository::Bucket(bucket, _) = &place.repository {
            command.args(["--commit-mode", if bucket.creates_once { "atomic" } else { "detect" }]);
        }
        Some(command)
    }

    fn command(&self, step: Step, place: &Place) -> Option<Command> {
        let mut command = self.at(step, place);
        if step.restores() {
            command.arg("restore").arg(&place.target).arg("--receipt").arg(place.home(step).join("receipt"));
        } else {
            command.arg("backup").arg(&place.source);
        }
        Some(command)
    }

    fn requests(&self, printed: &str) -> Option<u64> {
        let result: serde_json::Value = serde_json::from_str(printed.lines().last()?).ok()?;
        result.get("requests")?.as_object()?.values().map(serde_json::Value::as_u64).sum()
    }
}

/// What is left of a backup when nothing lies between it and its store: the walk, and reading where something changed.
pub(super) struct Local(pub(super) Ghostsync);

impl Peer for Local {
    fn name(&self) -> &'static str {
        super::LOCAL
    }

    fn version(&self) -> Command {
        self.0.version()
    }

    fn settings(&self) -> &'static str {
        "only beside a store behind the line: the same backups to a local directory, so what remains without the line."
    }

    fn prepare(&self, place: &Place) -> Option<Command> {
        self.0.prepare(place)
    }

    fn command(&self, step: Step, place: &Place) -> Option<Command> {
        if step.restores() { None } else { self.0.command(step, place) }
    }
}
