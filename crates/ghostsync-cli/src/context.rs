//! What every command works with: the settings, the output, the wish to stop, and the repository that it opens.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository, Selector, State};
use ghostsync_core::store::open_url;
use ghostsync_core::{ErrorKind, Result};
use serde_json::{Map, Value, json};

use crate::config::{Origin, Settings, Verbosity};
use crate::exit::Exit;
use crate::hint::{self, Action};
use crate::render::{self, Output, failure};
use crate::settings;

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    pub(crate) interrupt: Interrupt,
    /// The command line, as it was given.
    pub(crate) words: Vec<OsString>,
    /// What is being done, for messages about a refusal.
    pub(crate) action: Action,
    /// The fields that this command's document has even when it fails.
    pub(crate) blank: Map<String, Value>,
    opened: bool,
}

impl Context {
    pub(crate) fn new(settings: Settings, interrupt: Interrupt, words: Vec<OsString>) -> Self {
        let output = Output::new(settings.json, settings.log.value);
        Self { settings, output, interrupt, words, action: Action::Other, blank: Map::new(), opened: false }
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// As [`Repository::open`]; `Invalid` if none is given.
    pub(crate) async fn open(&mut self) -> Result<Repository> {
        let store = open_url(self.settings.repo()?, &self.settings.store(), false)?;
        let repository = self.interrupt.unless_set(Repository::open(store, self.open_options())).await?;
        self.opened(&repository);
        Ok(repository)
    }

    /// Creates the repository.
    ///
    /// # Errors
    /// As [`Repository::create`]; `Invalid` if none is given.
    pub(crate) async fn create(&mut self, create: CreateOptions) -> Result<Repository> {
        let store = open_url(self.settings.repo()?, &self.settings.store(), true)?;
        let create = Repository::create(store, create, self.open_options());
        let repository = self.interrupt.unless_set(create).await?;
        self.opened(&repository);
        Ok(repository)
    }

    /// Opens the repository, and creates it if there is none.
    ///
    /// # Errors
    /// As [`Context::open`] and [`Context::create`].
    pub(crate) async fn open_or_create(&mut self) -> Result<Repository> {
        match self.open().await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let mut in_detect = self.command("init");
                in_detect.extend(["--commit-mode".into(), "detect".into()]);
                let action = std::mem::replace(&mut self.action, Action::Init { is_there: false, in_detect });
                let create = CreateOptions { if_missing: true, ..CreateOptions::default() };
                let repository = self.create(create).await?;
                self.action = action;
                self.output.note(&format!("created repository {} at {}", repository.id(), location(&repository)));
                Ok(repository)
            }
            other => other,
        }
    }

    /// Opens the repository and reads its newest state.
    ///
    /// # Errors
    /// As [`Context::open`] and [`Repository::state`].
    pub(crate) async fn open_state(&mut self) -> Result<(Repository, State)> {
        let repository = self.open().await?;
        let state = self.interrupt.unless_set(repository.state()).await?;
        Ok((repository, state))
    }

    /// Opens the repository and finds a snapshot.
    ///
    /// # Errors
    /// As [`Context::open_state`] and [`State::select`].
    pub(crate) async fn open_snapshot(&mut self, branch: &str, selector: &Selector) -> Result<(Repository, Snapshot)> {
        let (repository, state) = self.open_state().await?;
        let snapshot = state.select(branch, selector)?.clone();
        Ok((repository, snapshot))
    }

    /// The beginning of another command for the same repository.
    pub(crate) fn command(&self, name: &str) -> Vec<OsString> {
        let mut words: Vec<OsString> = self.words.first().cloned().into_iter().collect();
        words.push(name.into());
        if let (Some(repo), Origin::Flag(flag)) = (&self.settings.repo.value, &self.settings.repo.origin) {
            words.extend([OsString::from(*flag), repo.into()]);
        }
        if let Some(file) = self.settings.file.as_ref().filter(|_| self.settings.file_was_named) {
            words.extend(["--config".into(), file.into()]);
        }
        words
    }

    pub(crate) fn open_options(&self) -> OpenOptions {
        OpenOptions { cache_dir: self.settings.cache_dir.value.clone() }
    }

    fn opened(&mut self, repository: &Repository) {
        self.opened = true;
        if let Some(folder) = self.settings.cache_dir.value.as_ref().filter(|_| !repository.has_cache()) {
            let folder = folder.display();
            self.output.note(&format!("the cache folder {folder} cannot be written: going on without, only slower"));
        }
        let text = format!("repository {} at {}", repository.id(), location(repository));
        self.output.note_at(Verbosity::Verbose, &text);
    }

    /// What is never content of a directory: the receipt, the cache, and a repository in the local file system.
    ///
    /// # Errors
    /// `Invalid` for an empty path.
    pub(crate) fn never(&self, receipt: Option<&Path>) -> Result<Vec<PathBuf>> {
        let repository = self.settings.local_repository();
        let paths = [receipt, self.settings.cache_dir.value.as_deref(), repository.as_deref()];
        let mut never = Vec::new();
        for path in paths.into_iter().flatten() {
            never.extend(settings::with_and_without_links(path)?);
        }
        Ok(never)
    }

    /// Tells an error, in the form that was asked for, and how the program ends because of it.
    pub(crate) fn fail(&mut self, error: &ghostsync_core::Error) -> Exit {
        let exit = Exit::of(error.kind());
        if self.output.is_broken() && error.kind() == ErrorKind::LocalIo {
            // What failed was printing, because nobody reads it any more.
            return Exit::Done;
        }
        let refusal = error.refusal();
        let command = refusal.and_then(|refusal| hint::going_on(refusal, &self.action, &self.words));
        let lines = match refusal {
            Some(refusal) => failure::refusal_lines(refusal, &self.action.not_done(), command.as_deref()),
            None if error.kind() == ErrorKind::Interrupted => hint::interrupted(&self.action, &self.words),
            None => failure::error_lines(error, self.opened),
        };
        lines.iter().for_each(|line| render::message(line));
        if self.output.is_json() {
            let mut document = std::mem::take(&mut self.blank);
            document.insert("outcome".into(), json!(failure::outcome(error.kind())));
            document.insert("error".into(), json!(failure::error_fields(error, self.opened)));
            if let Some(refusal) = refusal {
                document.extend(failure::refusal_fields(refusal, command.as_deref()));
            }
            // There is no third place to tell a failure to tell.
            let _ = self.output.json(&document);
        }
        exit
    }
}

/// Where a repository lies, without a password.
fn location(repository: &Repository) -> String {
    render::human::without_password(repository.store().location())
}

/// Who writes, for people: the name of this machine.
pub(crate) fn writer() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
