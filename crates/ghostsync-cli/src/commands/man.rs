//! `man`: prints the manual page of the program, or of one command, as roff.

use clap::CommandFactory;
use ghostsync_core::{Error, ErrorKind, Result};

use crate::args::{Cli, ManArgs};
use crate::context::Context;
use crate::exit::Exit;

pub(super) fn run(context: &mut Context, args: ManArgs) -> Result<Exit> {
    context.output.print_bytes_alone();
    let mut program = Cli::command();
    program.build();
    let page = match &args.command {
        None => program,
        Some(name) => {
            let command = program.find_subcommand(name).cloned();
            command.ok_or_else(|| Error::new(ErrorKind::Invalid, format!("there is no command {name:?}")))?
        }
    };
    let rendered = clap_mangen::Man::new(page).render(&mut context.output);
    rendered.map_err(|error| Error::new(ErrorKind::LocalIo, error))?;
    Ok(Exit::Done)
}
