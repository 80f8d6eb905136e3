//! `docs`: the Rust documentation that rustup installs beside the compiler.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::copy::copy;
use crate::failure::{Failure, Outcome, Tried};

pub(super) fn make(folder: &Path, scale: f64) -> Outcome<()> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().tried(|| "run rustc".into())?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let html = sysroot.join("share/doc/rust/html");
    if !html.is_dir() {
        return Err(Failure::new(format!(
            "the Rust documentation is not at {} (rustup component add rust-docs)",
            html.display()
        )));
    }
    copy(&html, folder, scale)
}
