//! The machine on which a campaign ran.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome, Tried};
use crate::results::Medium;

/// What a reader needs to judge the figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Of the trees and the local repositories.
    pub file_system: String,
}

impl Machine {
    /// This one; fails if `folder` does not lie on the medium that is asked for.
    pub fn look(medium: Medium, folder: &Path) -> Outcome<Self> {
        let file_system = file_system_of(folder)?;
        if (file_system == "tmpfs") != (medium == Medium::Tmpfs) {
            return Err(Failure::new(format!(
                "{} is on {file_system}, which is not what was asked for (--tmpfs DIR, --disk DIR)",
                folder.display()
            )));
        }
        Ok(Self {
            processor: line_of("/proc/cpuinfo", "model name")?,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: kibibytes("MemTotal")?.div_ceil(1024 * 1024),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            file_system,
        })
    }
}

/// The memory that programs could still have.
pub fn available_bytes() -> Outcome<u64> {
    Ok(kibibytes("MemAvailable")? * 1024)
}

/// Runnable processes on average of the last minute.
pub fn load() -> Outcome<f64> {
    let text = read("/proc/loadavg")?;
    text.split(' ').next().unwrap_or_default().parse().tried(|| "parse /proc/loadavg".into())
}

fn kibibytes(name: &str) -> Outcome<u64> {
    let value = line_of("/proc/meminfo", name)?;
    value.trim_end_matches(" kB").parse().tried(|| format!("parse {name} of /proc/meminfo"))
}

fn line_of(file: &str, name: &str) -> Outcome<String> {
    let text = read(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    Ok(line.unwrap_or("unknown").trim().to_owned())
}

fn read(file: &str) -> Outcome<String> {
    fs::read_to_string(file).on("read", Path::new(file))
}

/// Of the mount that is the longest prefix of the path; of two at one place the later one counts.
fn file_system_of(folder: &Path) -> Outcome<String> {
    let folder = folder.canonicalize().on("find", folder)?;
    let mounts = read("/proc/self/mounts")?;
    let mut best = (0, "unknown");
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(at), Some(kind)) = (fields.next(), fields.next())
            && folder.starts_with(at)
            && at.len() >= best.0
        {
            best = (at.len(), kind);
        }
    }
    Ok(best.1.to_owned())
}
