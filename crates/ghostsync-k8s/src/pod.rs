//! The pod that both commands work in: where its directory, its branch and its store are.

use std::path::{Path, PathBuf};

use ghostsync_cli::settings::{cloud_variables, invalid, local_repository, with_and_without_links};
use ghostsync_core::backup::{BackupOptions, Excludes};
use ghostsync_core::repository::{OpenOptions, Repository};
use ghostsync_core::store::{Store, StoreSettings, open_url};
use ghostsync_core::{Error, ErrorKind, Result};

use crate::args::PodArgs;

/// Where the store comes from.
#[derive(Debug, Clone)]
pub enum StoreSource {
    /// From the URL and the credentials in force, looked at again before each use.
    Settings {
        /// The environment's variables of the store.
        variables: Vec<(String, String)>,
    },
    /// This one, for tests.
    Given(Store),
}

impl StoreSource {
    /// The store of the URL, with the variables of this process.
    ///
    /// # Errors
    /// `Invalid` for a variable that is not UTF-8.
    pub fn of_process() -> Result<Self> {
        let variables: Vec<_> = std::env::vars_os().collect();
        Ok(Self::Settings { variables: cloud_variables(&variables)? })
    }
}

/// The pod.
#[derive(Debug)]
pub struct Pod {
    args: PodArgs,
    owner: String,
    source: StoreSource,
    /// The repository that is open, and the variables that it was opened with.
    opened: Option<(Vec<(String, String)>, Repository)>,
}

impl Pod {
    /// The pod of these settings.
    ///
    /// # Errors
    /// `Invalid` for paths that are none.
    pub fn new(args: PodArgs, source: StoreSource) -> Result<Self> {
        let args = PodArgs { path: absolute(&args.path)?, ..args };
        let owner = args.owner.clone().unwrap_or_else(host_name);
        Ok(Self { args, owner, source, opened: None })
    }

    /// Its settings.
    #[must_use]
    pub fn args(&self) -> &PodArgs {
        &self.args
    }

    /// On whose behalf it writes.
    #[must_use]
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.args.path
    }

    /// The receipt of the directory.
    #[must_use]
    pub fn receipt(&self) -> PathBuf {
        self.args.place.receipt()
    }

    /// Who writes, for people.
    #[must_use]
    pub fn writer(&self) -> String {
        host_name()
    }

    /// Opens the repository; the one that is open already, unless the credentials have changed.
    ///
    /// # Errors
    /// Those of the store; `Invalid` for credentials that cannot be read.
    pub async fn repository(&mut self) -> Result<Repository> {
        let variables = self.variables()?;
        if let Some((with, repository)) = &self.opened
            && *with == variables
        {
            return Ok(repository.clone());
        }
        let store = match &self.source {
            StoreSource::Given(store) => store.clone(),
            StoreSource::Settings { .. } => {
                let settings = StoreSettings {
                    variables: variables.clone(),
                    connections: self.args.connections.into(),
                    retry_time: self.args.retry_time.0,
                    limit_upload: self.args.limit_upload.map(|size| size.0),
                    limit_download: self.args.limit_download.map(|size| size.0),
                };
                open_url(&self.args.repo, &settings, false)?
            }
        };
        let repository = Repository::open(store, OpenOptions { cache_dir: Some(self.cache_dir()) }).await?;
        self.opened = Some((variables, repository.clone()));
        Ok(repository)
    }

    /// The repository that is open.
    #[must_use]
    pub fn opened(&self) -> Option<&Repository> {
        self.opened.as_ref().map(|(_, repository)| repository)
    }

    /// Forgets the repository that is open, so that the next use begins with what the store says.
    pub fn close(&mut self) {
        self.opened = None;
    }

    fn variables(&self) -> Result<Vec<(String, String)>> {
        let StoreSource::Settings { variables } = &self.source else { return Ok(Vec::new()) };
        let Some(folder) = &self.args.credentials_dir else { return Ok(variables.clone()) };
        let from_files = credential_files(folder)?;
        let others = variables.iter().filter(|(name, _)| from_files.iter().all(|(file, _)| file != name));
        Ok(others.chain(&from_files).cloned().collect())
    }

    fn cache_dir(&self) -> PathBuf {
        self.args.cache_dir.clone().unwrap_or_else(|| self.args.place.state_dir.join("cache"))
    }

    /// How every backup of this pod is made: only while the branch is its own, and from a directory with a receipt.
    ///
    /// # Errors
    /// `Invalid` for paths that are none.
    pub fn backup_options(&self) -> Result<BackupOptions> {
        Ok(BackupOptions {
            branch: self.args.branch.clone(),
            excludes: Excludes {
                patterns: self.args.exclude.clone(),
                // Every disk that a volume is made of has one, and an app's user may not read it.
                never: self.never()?,
                ..Excludes::default()
            },
            receipt: Some(self.receipt()),
            writer: self.writer(),
            owner: Some(self.owner.clone()),
            exclusive: true,
            ..BackupOptions::default()
        })
    }

    /// What is never content of the directory: what is ours, a repository that lies inside, `lost+found`.
    ///
    /// # Errors
    /// `Invalid` for paths that are none.
    pub fn never(&self) -> Result<Vec<PathBuf>> {
        let repository = local_repository(&self.args.repo);
        let own = [Some(self.args.place.state_dir.clone()), Some(self.cache_dir()), repository];
        let lost_and_found = self.args.path.join("lost+found");
        let mut never = Vec::new();
        for path in own.into_iter().flatten().chain([lost_and_found]) {
            never.extend(with_and_without_links(&path)?);
        }
        Ok(never)
    }
}

/// Reads a folder of files that are called like variables. Kubernetes mounts a Secret as links to a folder whose name
/// begins with two dots.
fn credential_files(folder: &Path) -> Result<Vec<(String, String)>> {
    // Until the kubelet has written them it is the store that cannot be used, not the settings that are wrong.
    let failed = |path: &Path, error: std::io::Error| {
        Error::new(ErrorKind::Denied, format!("cannot read the credentials in {}: {error}", path.display()))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, error))? {
        let path = entry.map_err(|error| failed(folder, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') || !path.is_file() {
            continue;
        }
        let value = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        found.push((name.to_owned(), value.trim_end_matches(['\r', '\n']).to_owned()));
    }
    found.sort();
    Ok(found)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| invalid(format!("{} is no path: {error}", path.display())))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_files_as_a_mounted_secret_has_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("..2026_01_01");
        std::fs::create_dir(&data).expect("a folder");
        std::fs::write(data.join("AWS_SECRET_ACCESS_KEY"), "secret\n").expect("writes");
        std::os::unix::fs::symlink("..2026_01_01", folder.path().join("..data")).expect("links");
        std::os::unix::fs::symlink("..data/AWS_SECRET_ACCESS_KEY", folder.path().join("AWS_SECRET_ACCESS_KEY"))
            .expect("links");
        let found = credential_files(folder.path()).expect("reads");
        assert_eq!(found, [("AWS_SECRET_ACCESS_KEY".to_owned(), "secret".to_owned())]);
        let error = credential_files(&folder.path().join("not yet")).expect_err("is not there");
        assert_eq!(error.kind(), ErrorKind::Denied, "it is tried again");
    }
}
