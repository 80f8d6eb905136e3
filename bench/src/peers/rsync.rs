//! rsync: a mirror in another folder.

use std::path::Path;
use std::process::Command;

use super::{Peer, Place, Step, words};

pub(super) struct Rsync;

impl Peer for Rsync {
    fn name(&self) -> &'static str {
        "rsync"
    }

    fn version(&self) -> Command {
        words("rsync", &["--version"])
    }

    fn settings(&self) -> &'static str {
        "`--archive --delete` from folder to folder. No snapshots, stores files as they are."
    }

    fn command(&self, step: Step, place: &Place) -> Option<Command> {
        let folder = place.folder()?;
        let (from, to) =
            if step.restores() { (folder, place.target.as_path()) } else { (place.source.as_path(), folder) };
        let mut command = place.command("rsync", step);
        command.args(["--archive", "--delete"]).arg(contents(from)).arg(contents(to));
        Some(command)
    }
}

/// With a slash at its end: what is in the folder, not the folder.
fn contents(folder: &Path) -> String {
    format!("{}/", folder.display())
}
