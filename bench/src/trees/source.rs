//! `source`: the sources of every crate that the product's `Cargo.lock` names, as `cargo vendor` lays them out.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::copy::copy;
use crate::failure::{Failure, Outcome, Tried};

pub(super) fn make(folder: &Path, scale: f64, project: &Path, scratch: &Path) -> Outcome<()> {
    let vendored = scratch.join("vendored");
    if vendored.exists() {
        fs::remove_dir_all(&vendored).on("remove", &vendored)?;
    }
    let output = Command::new("cargo")
        .args(["vendor", "--quiet", "--locked", "--manifest-path"])
        .arg(project.join("Cargo.toml"))
        .arg(&vendored)
        .output()
        .tried(|| "run cargo vendor".into())?;
    if !output.status.success() {
        return Err(Failure::new(format!("cargo vendor failed: {}", String::from_utf8_lossy(&output.stderr))));
    }
    copy(&vendored, folder, scale)?;
    fs::remove_dir_all(&vendored).on("remove", &vendored)
}
