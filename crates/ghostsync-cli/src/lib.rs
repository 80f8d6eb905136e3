//! The command `ghostsync`, and what it has in common with `ghostsync-k8s` at the edge: where settings come from, what
//! people write after a flag, exit codes, hints, and how an error is told. It promises nothing to anybody else.

mod args;
pub mod causes;
mod commands;
mod config;
mod context;
pub mod exit;
pub mod hint;
mod progress;
mod render;
pub mod settings;
pub mod shell;
pub mod signals;
pub mod values;

use std::ffi::OsString;

use clap::Parser;
use ghostsync_core::{Error, ErrorKind, Result};

use crate::args::{Cli, Command};
use crate::config::{Settings, Surroundings};
use crate::context::Context;
use crate::exit::Exit;

/// Does what the words of a command line say, the first of which is the program's name.
#[must_use]
pub fn run(words: Vec<OsString>) -> Exit {
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
