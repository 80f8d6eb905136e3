//! `completions`: prints the completions of a shell.

use clap::CommandFactory;
use ghostsync_core::{Error, ErrorKind, Result};

use crate::args::{Cli, CompletionsArgs};
use crate::context::Context;
use crate::exit::Exit;

pub(super) fn run(context: &mut Context, args: CompletionsArgs) -> Result<Exit> {
    context.output.print_bytes_alone();
    let mut command = Cli::command();
    command.set_bin_name("ghostsync");
    command.build();
    let generated = clap_complete::Generator::try_generate(&args.shell, &command, &mut context.output);
    generated.map_err(|error| Error::new(ErrorKind::LocalIo, error))?;
    Ok(Exit::Done)
}
