//! Where the content is kept: a repository of its own for each run, in a folder or on an S3 server behind a way that can
//! be cut.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ghostsync_core::id::RepositoryId;
use ghostsync_core::repository::{CreateOptions, OpenOptions, Repository};
use ghostsync_core::store::{StoreSettings, open_url};

use crate::Wrong;
use crate::proxy::Proxy;

/// The store of a run.
#[derive(Debug)]
pub struct Store {
    /// For ghostsync.
    pub url: String,
    /// For rclone.
    pub remote: String,
    /// What is in the environment of whoever uses it.
    pub variables: Vec<(String, String)>,
    /// The repository in it.
    pub repository: RepositoryId,
    /// The way to it, if it can be cut.
    pub proxy: Option<Proxy>,
}

impl Store {
    /// Makes a repository in a folder.
    ///
    /// # Errors
    /// Those of the core.
    pub async fn in_folder(folder: &Path) -> Result<Self, Wrong> {
        let url = folder.join("repository").display().to_string();
        let remote = folder.join("remote");
        std::fs::create_dir_all(&remote)?;
        let repository = create(&url, &[]).await?;
        let remote = remote.display().to_string();
        Ok(Self { url, remote, variables: Vec::new(), repository, proxy: None })
    }

    /// Makes a repository on an S3 server, below a name that nobody else has.
    ///
    /// # Errors
    /// Those of the core.
    pub async fn on_server(server: &Server, name: &str) -> Result<Self, Wrong> {
        let proxy = Proxy::start(server.address)?;
        let mut variables = server.variables.clone();
        variables.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
        variables.push(("AWS_ENDPOINT_URL".to_owned(), format!("http://{}", proxy.address)));
        let url = format!("s3://{}/{name}", server.bucket);
        let repository = create(&url, &variables).await?;
        let remote = format!("store:{}/{name}-remote", server.bucket);
        Ok(Self { url, remote, variables, repository, proxy: Some(proxy) })
    }

    /// Opens the repository.
    ///
    /// # Errors
    /// Those of the core.
    pub async fn open(&self) -> Result<Repository, Wrong> {
        let settings = StoreSettings { variables: self.variables.clone(), ..StoreSettings::default() };
        let store = open_url(&self.url, &settings, false)?;
        Ok(Repository::open(store, OpenOptions::default()).await?)
    }

    /// The variables that make rclone's remote `store:`.
    #[must_use]
    pub fn rclone_variables(&self) -> Vec<(String, String)> {
        let known = |name: &str| {
            let found = self.variables.iter().find(|(variable, _)| variable == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let variables = [
            ("RCLONE_CONFIG", "/dev/null".to_owned()),
            ("RCLONE_CONFIG_STORE_TYPE", "s3".to_owned()),
            ("RCLONE_CONFIG_STORE_PROVIDER", "Other".to_owned()),
            ("RCLONE_CONFIG_STORE_ENDPOINT", known("AWS_ENDPOINT_URL")),
            ("RCLONE_CONFIG_STORE_REGION", known("AWS_REGION")),
            ("RCLONE_CONFIG_STORE_ACCESS_KEY_ID", known("AWS_ACCESS_KEY_ID")),
            ("RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY", known("AWS_SECRET_ACCESS_KEY")),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

async fn create(url: &str, variables: &[(String, String)]) -> Result<RepositoryId, Wrong> {
    let settings = StoreSettings { variables: variables.to_vec(), ..StoreSettings::default() };
    let store = open_url(url, &settings, true)?;
    let create = CreateOptions { skip_probe: true, ..CreateOptions::default() };
    Ok(Repository::create(store, create, OpenOptions::default()).await?.id())
}

/// What a script of `scripts/stores` ends with where its server is not installed.
const NOT_INSTALLED: i32 = 77;

/// An S3 server of this machine; ended when it is dropped.
#[derive(Debug)]
pub struct Server {
    script: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    bucket: String,
    variables: Vec<(String, String)>,
}

impl Server {
    /// Starts `scripts/stores/garage.sh`; `None`, with a word about it, where that is not installed.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(folder: &Path) -> Result<Option<Self>, Wrong> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/stores/garage.sh");
        let output =
            Command::new(&script).arg("start").arg(folder).arg("0").env("GHOSTSYNC_STORE_SECONDS", "14400").output()?;
        if output.status.code() == Some(NOT_INSTALLED) {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            return Ok(None);
        }
        if !output.status.success() {
            return Err(format!("no S3 server: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let text = String::from_utf8(output.stdout)?;
        let settings: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let setting = |name: &str| {
            let found = settings.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| *value).ok_or(format!("garage.sh tells no {name}"))
        };
        let variables = settings.iter().filter(|(name, _)| name.starts_with("AWS_"));
        Ok(Some(Self {
            address: setting("AWS_ENDPOINT_URL")?.trim_start_matches("http://").parse()?,
            bucket: setting("BUCKET")?.to_owned(),
            variables: variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            folder: folder.to_owned(),
            script,
        }))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new(&self.script).arg("stop").arg(&self.folder).output();
    }
}
