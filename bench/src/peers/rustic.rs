//! rustic: restic's format, written in Rust.

use std::process::Command;

use super::{Peer, Place, Repository, Step, words};

pub(super) struct Rustic;

impl Rustic {
    fn at(step: Step, place: &Place) -> Command {
        let mut command = place.command("rustic", step);
        command.env("RUSTIC_PASSWORD", "bench").args(["--no-progress", "--log-level", "error", "--repository"]);
        match &place.repository {
            Repository::Folder(folder) => command.arg(folder),
            Repository::Bucket(bucket, prefix) => command
                .arg("opendal:s3")
                .env("OPENDAL_BUCKET", &bucket.name)
                .env("OPENDAL_ROOT", format!("/{prefix}"))
                .env("OPENDAL_ENDPOINT", &bucket.endpoint)
                .env("OPENDAL_REGION", &bucket.region),
        };
        command
    }
}

impl Peer for Rustic {
    fn name(&self) -> &'static str {
        "rustic"
    }

    fn version(&self) -> Command {
        words("rustic", &["--version"])
    }

    fn settings(&self) -> &'static str {
        "`backup . --as-path / --no-scan` with its cache, defaults otherwise; compiled with its own release profile. Encrypts."
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
            command.args(["restore", "latest"]).arg(&place.target);
        } else {
            command.args(["backup", ".", "--as-path", "/", "--no-scan"]).current_dir(&place.source);
        }
        Some(command)
    }
}
