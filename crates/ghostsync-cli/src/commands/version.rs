//! `version`: of the program and of the repository format.

use ghostsync_core::Result;
use ghostsync_core::format::FORMAT;
use serde_json::json;

use crate::context::Context;
use crate::exit::Exit;

pub(super) fn run(context: &mut Context) -> Result<Exit> {
    let version = env!("CARGO_PKG_VERSION");
    if context.output.is_json() {
        context.output.json(&json!({"version": version, "format": FORMAT}))?;
    } else {
        context.output.line(format!("ghostsync {version}, repository format {FORMAT}"))?;
    }
    Ok(Exit::Done)
}
