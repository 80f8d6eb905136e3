//! `init`: creates a repository.

use ghostsync_core::repository::CreateOptions;
use ghostsync_core::{ErrorKind, Result};
use serde_json::json;

use crate::args::InitArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::hint::Action;

pub(super) async fn run(context: &mut Context, args: InitArgs) -> Result<Exit> {
    let in_detect = crate::shell::with_flag(&context.words, "--commit-mode", Some("detect"));
    context.action = Action::Init { is_there: false, in_detect };
    let commit_mode = args.commit_mode.into();
    let create = CreateOptions { commit_mode, skip_probe: args.skip_probe, if_missing: args.if_missing };
    let repository = match context.create(create).await {
        Err(error) if error.kind() == ErrorKind::Refused => {
            let opened = context.open().await.is_ok();
            if let Action::Init { is_there, .. } = &mut context.action {
                *is_there = opened;
            }
            return Err(error);
        }
        created => created?,
    };
    let location = crate::render::human::without_password(repository.store().location());
    let created = if args.if_missing { "repository" } else { "created a repository" };
    context.output.note(&format!("{created} at {location}"));
    let document = json!({
        "repository": repository.id(),
        "location": location,
        "format": repository.config().format,
        "commit_mode": repository.config().commit_mode,
        "outcome": "done",
    });
    // The id alone on stdout, whatever else is said: it is what scripts keep for `--genesis`.
    if context.output.is_json() {
        context.output.json(&document)?;
    } else {
        context.output.line(repository.id())?;
    }
    Ok(Exit::Done)
}
