//! restic: with its cache, and more connections to a bucket than its default of 5.

use std::process::Command;

use super::{Peer, Place, Repository, Step, words};

pub(super) struct Restic;

impl Restic {
    fn at(step: Step, place: &Place) -> Command {
        let mut command = place.command("restic", step);
        command.env("RESTIC_PASSWORD", "bench").arg("--quiet").arg("--repo");
        match &place.repository {
            Repository::Folder(folder) => command.arg(folder),
            Repository::Bucket(bucket, prefix) => command
                .arg(format!("s3:{}/{}/{prefix}", bucket.endpoint, bucket.name))
                .args(["-o", "s3.connections=16", "-o", "s3.bucket-lookup=path"])
                .args(["-o", &format!("s3.region={}", bucket.region)]),
        };
        command
    }
}

impl Peer for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn version(&self) -> Command {
        words("restic", &["version"])
    }

    fn settings(&self) -> &'static str {
        "`backup .` with its cache, repository version 2; `s3.connections=16`. Encrypts. This version writes everything \
         anew when it restores over a directory."
    }

    fn knows_buckets(&self) -> bool {
        true
    }

    fn prepare(&self, place: &Place) -> Option<Command> {
        let mut command = Self::at(Step::First, place);
        command.arg("init");
        Some(command)
    }

    fn command(&self, step: Step, place: &Place) -> Option<Command> {
        let mut command = Self::at(step, place);
        if step.restores() {
            command.args(["restore", "latest", "--target"]).arg(&place.target);
        } else {
            command.args(["backup", "."]).current_dir(&place.source);
        }
        Some(command)
    }
}
