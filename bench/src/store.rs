//! A real S3 server on loopback, started and ended by the project's store scripts, behind the slow line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome, Tried};
use crate::line::Line;

/// Where the repositories lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A local directory
    Local,
    /// Garage behind the slow line; ghostsync in commit mode detect
    Garage,
    /// Ceph RGW behind the slow line
    Ceph,
}

/// A bucket on the server, as a peer reaches it.
#[derive(Clone)]
pub struct Bucket {
    /// `http://127.0.0.1:PORT`, of the line.
    pub endpoint: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    pub name: String,
    /// Whether the server creates an object at most once.
    pub creates_once: bool,
}

/// A server that runs; it ends with this value.
pub struct Store {
    pub bucket: Bucket,
    pub line: Line,
    script: PathBuf,
    folder: PathBuf,
}

impl Store {
    /// Starts a server of this kind, empty, with everything in `folder`.
    pub fn start(kind: StoreKind, project: &Path, folder: &Path) -> Outcome<Option<Self>> {
        let name = match kind {
            StoreKind::Local => return Ok(None),
            StoreKind::Garage => "garage.sh",
            StoreKind::Ceph => "ceph.sh",
        };
        let script = project.join("scripts/stores").join(name);
        let output = Command::new(&script)
            .arg("start")
            .arg(folder)
            .arg("0")
            .stderr(Stdio::inherit())
            .output()
            .on("run", &script)?;
        if !output.status.success() {
            return Err(Failure::new(format!("{} start: {}", script.display(), output.status)));
        }
        let settings = String::from_utf8_lossy(&output.stdout).into_owned();
        let settings: BTreeMap<&str, &str> = settings.lines().filter_map(|line| line.split_once('=')).collect();
        let setting = |name: &str| {
            let value = settings.get(name).copied().map(str::to_owned);
            value.ok_or_else(|| Failure::new(format!("{} did not print {name}", script.display())))
        };
        let server: SocketAddr = setting("AWS_ENDPOINT_URL")?
            .trim_start_matches("http://")
            .parse()
            .tried(|| "parse the address of the store".into())?;
        let line = Line::start(server)?;
        let bucket = Bucket {
            endpoint: format!("http://{}", line.address),
            region: setting("AWS_REGION")?,
            access_key: setting("AWS_ACCESS_KEY_ID")?,
            secret_key: setting("AWS_SECRET_ACCESS_KEY")?,
            name: setting("BUCKET")?,
            creates_once: kind == StoreKind::Ceph,
        };
        Ok(Some(Self { bucket, line, script, folder: folder.to_owned() }))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = Command::new(&self.script).arg("stop").arg(&self.folder).status();
    }
}
