//! `ctl`: says something to a running `sync`, and prints its answer.

use std::io::Write;

use ghostsync_cli::exit::Exit;
use ghostsync_cli::settings::invalid;
use ghostsync_core::Result;

use crate::args::{CtlArgs, Verb};
use crate::control::{Ask, ask};
use crate::wait_app::WaitApp;

/// Says it.
///
/// # Errors
/// `NotFound` if no `sync` listens.
pub async fn run(args: CtlArgs) -> Result<Exit> {
    let milliseconds = |span: ghostsync_cli::values::Span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
    let what = match args.verb {
        Verb::Terminating => Ask::Terminating,
        Verb::Status => Ask::Status,
        Verb::Sync => Ask::Sync,
        Verb::FinalSync(how) => Ask::FinalSync {
            wait_app: how.wait_app.iter().map(|app| app.parse::<WaitApp>().map_err(invalid)).collect::<Result<_>>()?,
            quiet_ms: milliseconds(how.quiet),
            deadline_ms: milliseconds(how.deadline),
        },
    };
    let answer = ask(&args.place.socket(), &what).await?;
    // A hook's output goes nowhere; a person's does.
    let _ = writeln!(std::io::stdout().lock(), "{answer}");
    Ok(match answer.get("exit").and_then(serde_json::Value::as_u64) {
        Some(code) => Exit::from_code(u8::try_from(code).unwrap_or(1)),
        None if answer.get("error").is_some() => Exit::Failed,
        None => Exit::Done,
    })
}
