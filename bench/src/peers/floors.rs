//! What the machine can do: no tool is much faster than these, which keep no history and check nothing.

use std::process::Command;

use super::{Peer, Place, Step, words};

pub(super) struct TarZstd;
pub(super) struct Cp;
pub(super) struct Find;

/// A shell runs `script`, which finds the source as `$1`, the repository as `$2` and the target as `$3`.
fn shell(script: &str, step: Step, place: &Place) -> Option<Command> {
    let folder = place.folder()?;
    let mut command = place.command("bash", step);
    command.args(["-euo", "pipefail", "-c", script, "floor"]).arg(&place.source).arg(folder).arg(&place.target);
    Some(command)
}

impl Peer for TarZstd {
    fn name(&self) -> &'static str {
        "tar+zstd"
    }

    fn version(&self) -> Command {
        words("zstd", &["--version"])
    }

    fn settings(&self) -> &'static str {
        "`tar -c | zstd -3 -T0` and `zstd -d | tar -x`, one file."
    }

    fn command(&self, step: Step, place: &Place) -> Option<Command> {
        match step {
            Step::First | Step::Changed => shell(r#"tar -C "$1" -cf - . | zstd -3 -T0 -q -f -o "$2""#, step, place),
            Step::Restore => shell(r#"zstd -dc "$2" | tar -C "$3" -xf -"#, step, place),
            _ => None,
        }
    }
}

impl Peer for Cp {
    fn name(&self) -> &'static str {
        "cp"
    }

    fn version(&self) -> Command {
        words("cp", &["--version"])
    }

    fn settings(&self) -> &'static str {
        "`cp -a`, folder to folder."
    }

    fn command(&self, step: Step, place: &Place) -> Option<Command> {
        match step {
            Step::First | Step::Changed => shell(r#"exec cp -aT "$1" "$2""#, step, place),
            Step::Restore => shell(r#"exec cp -a "$2/." "$3""#, step, place),
            _ => None,
        }
    }
}

impl Peer for Find {
    fn name(&self) -> &'static str {
        "find"
    }

    fn version(&self) -> Command {
        words("find", &["--version"])
    }

    fn settings(&self) -> &'static str {
        "`find -printf '%p %s %T@ %m'`: looks at every entry."
    }

    fn command(&self, step: Step, place: &Place) -> Option<Command> {
        match step {
            Step::Unchanged => shell(r#"exec find "$1" -printf '%p %s %T@ %m\n'"#, step, place),
            _ => None,
        }
    }
}
