//! The command `ghostsync`: arguments in, one call of the library, a result and an exit code out.

use std::ffi::OsString;
use std::process::ExitCode;

use ghostsync_cli::exit::Exit;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // A panic has told itself on stderr already; its exit code is to be one of ours.
    std::panic::catch_unwind(|| ghostsync_cli::run(words)).unwrap_or(Exit::Failed).into()
}
