//! What is told before a command has begun: help, the version, and mistakes in the command line or configuration.

use std::ffi::OsString;
use std::io::Write;

use clap::error::ErrorKind as ClapKind;
use ghostsync_core::Error;
use serde_json::json;

use super::{failure, message};
use crate::exit::Exit;

/// Tells what the parser of the command line said; help and the version are no mistakes.
pub(crate) fn tell(error: &clap::Error, words: &[OsString]) -> Exit {
    // Nobody reading the help is no failure either.
    let _ = error.print();
    if matches!(error.kind(), ClapKind::DisplayHelp | ClapKind::DisplayVersion) {
        return Exit::Done;
    }
    if words.iter().take_while(|word| *word != "--").any(|word| word == "--json") {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        document("usage", first, None);
    }
    Exit::Usage
}

/// Tells an error from before there was anything to do.
pub(crate) fn tell_early(error: &Error, json: bool) -> Exit {
    failure::error_lines(error, false).iter().for_each(|line| message(line));
    if json {
        let fields = failure::error_fields(error, false);
        document(fields.kind, &fields.message, fields.hint.as_deref());
    }
    Exit::of(error.kind())
}

fn document(kind: &str, message: &str, hint: Option<&str>) {
    let document = json!({"outcome": "failed", "error": {"kind": kind, "message": message, "hint": hint}});
    let _ = writeln!(std::io::stdout().lock(), "{document}");
}
