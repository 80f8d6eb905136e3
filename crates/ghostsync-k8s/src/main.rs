//! The command `ghostsync-k8s`: arguments in, one of the library's stories, an exit code out.
//!
//! Called by the name `ghostsync`, as by the link in the image, it is that command: both are nearly all core, and two files
//! would make the image twice as large.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use ghostsync_cli::causes::with_causes;
use ghostsync_cli::exit::Exit;
use ghostsync_cli::signals;
use ghostsync_core::{Error, ErrorKind, Result};
use ghostsync_k8s::args::{Cli, Command};
use ghostsync_k8s::log::{self, Level};
use ghostsync_k8s::pod::StoreSource;
use ghostsync_k8s::{ctl, environment, health, lint, manifest, memory, restore, run};

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // A panic has told itself on stderr already; its exit code is to be one of ours.
    let ended =
        std::panic::catch_unwind(|| if is_ghostsync(&words) { ghostsync_cli::run(words) } else { begin(&words) });
    ended.unwrap_or(Exit::Failed).into()
}

fn is_ghostsync(words: &[OsString]) -> bool {
    words.first().is_some_and(|name| Path::new(name).file_name() == Some(OsStr::new("ghostsync")))
}

fn begin(words: &[OsString]) -> Exit {
    match environment::parse(words, &std::env::vars_os().collect::<Vec<_>>()) {
        Ok(cli) => {
            if matches!(cli.command, Command::Sync(_))
                && let Err(error) = memory::stay_small(words)
            {
                log::info(&format!("cannot start again with less memory: {error}"));
            }
            with_runtime(cli).unwrap_or_else(|error| fail(&error))
        }
        Err(environment::Wrong::Words(error)) => {
            // Nobody reading the help is no failure.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Done }
        }
        Err(environment::Wrong::Setting(error)) => fail(&error),
    }
}

fn with_runtime(cli: Cli) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::LocalIo, error))?;
    let exit = runtime.block_on(async {
        match cli.command {
            Command::Restore(args) => {
                let interrupt = signals::listen(log::info)?;
                restore::run(*args, StoreSource::of_process()?, interrupt).await
            }
            Command::Sync(args) => {
                let interrupt = signals::listen(log::info)?;
                run::run(*args, StoreSource::of_process()?, interrupt.requested()).await
            }
            Command::Manifest(args) => Ok(by_hand(manifest::print(&args))),
            Command::Lint(args) => Ok(by_hand(lint::command::run(&args))),
            Command::Ctl(args) => Ok(by_hand(ctl::run(args).await)),
            Command::Health(args) => Ok(by_hand(health::run(args).await)),
        }
    });
    // Threads that still wait for a disk or a store hold nothing that is not made good by the next run.
    runtime.shutdown_background();
    exit
}

/// What a person, CI, a hook or a probe calls tells an error as `ghostsync` does, and not as a line of a log: what it
/// prints is shown by itself, as in an event of the pod.
fn by_hand(done: Result<Exit>) -> Exit {
    done.unwrap_or_else(|error| {
        eprintln!("error: {}", with_causes(&error));
        Exit::of(error.kind())
    })
}

fn fail(error: &Error) -> Exit {
    log::error(Level::Error, "failed", error);
    Exit::of(error.kind())
}
