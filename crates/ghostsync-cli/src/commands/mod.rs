//! One room for each command.

mod backup;
mod branches;
mod cat;
mod check;
mod claim;
mod completions;
mod config;
mod diff;
mod doctor;
mod entries;
mod find;
mod forget;
mod hold;
mod init;
mod ls;
mod man;
mod promote;
mod prune;
mod repair;
mod restore;
mod snapshots;
mod stats;
mod tag;
mod version;

use ghostsync_core::Result;

use crate::args::Command;
use crate::context::Context;
use crate::exit::Exit;

/// Runs a command.
///
/// # Errors
/// Whatever made it fail; nothing has been told about it yet.
pub(crate) async fn run(context: &mut Context, command: Command) -> Result<Exit> {
    match command {
        Command::Init(args) => init::run(context, args).await,
        Command::Backup(args) => backup::run(context, *args).await,
        Command::Restore(args) => restore::run(context, *args).await,
        Command::Snapshots(args) => snapshots::run(context, args).await,
        Command::Ls(args) => ls::run(context, args).await,
        Command::Cat(args) => cat::run(context, args).await,
        Command::Find(args) => find::run(context, args).await,
        Command::Diff(args) => diff::run(context, args).await,
        Command::Stats => stats::run(context).await,
        Command::Check(args) => check::run(context, args).await,
        Command::Repair(args) => repair::run(context, args).await,
        Command::Doctor => doctor::run(context).await,
        Command::Prune(args) => prune::run(context, args).await,
        Command::Config => config::run(context),
        Command::Tag(args) => tag::run(context, args).await,
        Command::Hold(args) => hold::hold(context, args).await,
        Command::ReleaseHold(args) => hold::release(context, args).await,
        Command::Branches => branches::run(context).await,
        Command::Promote(args) => promote::run(context, args).await,
        Command::Claim(args) => claim::claim(context, args).await,
        Command::Release(args) => claim::release(context, args).await,
        Command::Forget(args) => forget::run(context, args).await,
        Command::Completions(args) => completions::run(context, args),
        Command::Man(args) => man::run(context, args),
        Command::Version => version::run(context),
    }
}
