//! rclone: a mirror, file by file.

use std::path::Path;
use std::process::Command;

use super::{Peer, Place, Repository, Step, words};

pub(super) struct Rclone;

impl Peer for Rclone {
    fn name(&self) -> &'static str {
        "rclone"
    }

    fn version(&self) -> Command {
        words("rclone", &["version"])
    }

    fn settings(&self) -> &'static str {
        "`sync --metadata --links --create-empty-src-dirs`; to a bucket 32 transfers and checkers, one list \
         (`--fast-list`), no request to look at an object again, and unchanged files told by size and checksum, since \
         each time would be a request. No snapshots, stores files as they are."
    }

    fn knows_buckets(&self) -> bool {
        true
    }

    fn command(&self, step: Step, place: &Place) -> Option<Command> {
        let mut command = place.command("rclone", step);
        command.env("RCLONE_CONFIG", "").args(["sync", "--quiet", "--metadata", "--links", "--create-empty-src-dirs"]);
        let remote = match &place.repository {
            Repository::Folder(folder) => folder.to_string_lossy().into_owned(),
            Repository::Bucket(bucket, prefix) => {
                command.env("RCLONE_CONFIG_STORE_TYPE", "s3").env("RCLONE_CONFIG_STORE_PROVIDER", "Other");
                command.env("RCLONE_CONFIG_STORE_ENV_AUTH", "true").env("RCLONE_CONFIG_STORE_FORCE_PATH_STYLE", "true");
                command.env("RCLONE_CONFIG_STORE_ENDPOINT", &bucket.endpoint);
                command.env("RCLONE_CONFIG_STORE_REGION", &bucket.region);
                command.args(["--transfers=32", "--checkers=32", "--fast-list", "--checksum"]);
                command.args(["--s3-no-check-bucket", "--s3-no-head"]);
                format!("store:{}/{prefix}", bucket.name)
            }
        };
        let (from, to) = match step.restores() {
            true => (Path::new(&remote), place.target.as_path()),
            false => (place.source.as_path(), Path::new(&remote)),
        };
        command.arg(from).arg(to);
        Some(command)
    }
}
