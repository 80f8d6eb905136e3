//! borg, without encryption.

use std::process::Command;

use super::{Peer, Place, Step, words};

pub(super) struct Borg;

impl Borg {
    fn at(step: Step, place: &Place) -> Option<Command> {
        let folder = place.folder()?;
        let mut command = place.command("borg", step);
        // Each home is new, so that borg would ask whether it may read a repository that it does not know.
        command.env("BORG_REPO", folder).env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes");
        Some(command)
    }
}

impl Peer for Borg {
    fn name(&self) -> &'static str {
        "borg"
    }

    fn version(&self) -> Command {
        words("borg", &["--version"])
    }

    fn settings(&self) -> &'static str {
        "`--encryption none`, lz4, `--noflags`. Writes everything anew when it restores over a directory; syncs what it \
         stores."
    }

    fn prepare(&self, place: &Place) -> Option<Command> {
        let mut command = Self::at(Step::First, place)?;
        command.args(["init", "--encryption", "none"]);
        Some(command)
    }

    fn command(&self, step: Step, place: &Place) -> Option<Command> {
        let mut command = Self::at(step, place)?;
        match step {
            Step::First => command.args(["create", "--noflags", "::first", "."]).current_dir(&place.source),
            Step::Unchanged => command.args(["create", "--noflags", "::unchanged", "."]).current_dir(&place.source),
            Step::Changed => command.args(["create", "--noflags", "::changed", "."]).current_dir(&place.source),
            _ => command.args(["extract", "--noflags", "::changed"]).current_dir(&place.target),
        };
        Some(command)
    }
}
