//! The command `ghostsync`: arguments in, one call of the library, a result and an exit code out.

mod args;
mod commands;
mod config;
mod context;
mod progress;
mod render;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use ghostsync_cli::{causes, exit, hint, settings, shell, signals, values};
use ghostsync_core::{Error, ErrorKind, Result};

use crate::args::{Cli, Command};
use crate::config::{Settings, Surroundings};
use crate::context::Context;
use crate::exit::Exit;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // A panic has told itself on stderr already; its exit code is to be one of ours.
    std::panic::catch_unwind(|| run(words)).unwrap_or(Exit::Failed).into()
}

fn run(words: Vec<OsString>) -> Exit {
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return render::usage::tell(&error, &words),
    };
    let ended = Settings::resolve(&cli.global, &Surroundings::of_process())
        .and_then(|settings| with_runtime(settings, cli.command, words));
    ended.unwrap_or_else(|error| render::usage::tell_early(&error, cli.global.json))
}

fn with_runtime(settings: Settings, command: Command, words: Vec<OsString>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::LocalIo, error))?;
    let exit = runtime.block_on(async {
        let mut context = Context::new(settings, signals::listen(render::message)?, words);
        let done = commands::run(&mut context, command).await;
        let exit = done.unwrap_or_else(|error| context.fail(&error));
        Ok(context.output.finish().map_or_else(|error| context.fail(&error), |()| exit))
    });
    // Threads that still wait for a disk or a store hold nothing that is not made good by the next run.
    runtime.shutdown_background();
    exit
}
