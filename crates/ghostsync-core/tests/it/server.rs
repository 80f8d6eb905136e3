//! A real server on loopback, started by its script in `scripts/stores` and stopped when it is dropped.
#![allow(dead_code, reason = "each of two test programs uses a part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What a script says when its server is not installed.
const NOT_INSTALLED: i32 = 77;

/// A server that runs until it is dropped.
pub(crate) struct Server {
    script: PathBuf,
    folder: TempDir,
    pub(crate) scheme: &'static str,
    pub(crate) variables: Vec<(String, String)>,
}

impl Server {
    /// Starts a server; `None` if it is not installed.
    pub(crate) fn start(name: &str, scheme: &'static str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../scripts/stores/{name}.sh"));
        if !script.exists() {
            eprintln!("skipped: there is no {}", script.display());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(&script).arg("start").arg(folder.path()).arg("0").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(NOT_INSTALLED) {
            eprintln!("skipped: {}", said.trim());
            return None;
        }
        assert!(output.status.success(), "{name} did not start: {said}");
        let printed = String::from_utf8(output.stdout).unwrap();
        let variables = printed.lines().filter_map(|line| line.split_once('='));
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some(Self { script, folder, scheme, variables })
    }

    /// Where it keeps everything.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn value(&self, name: &str) -> &str {
        &self.variables.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name} is missing")).1
    }

    /// Its variables, in which one has another value.
    pub(crate) fn variables_but(&self, name: &str, value: &str) -> Vec<(String, String)> {
        self.value(name);
        let mut variables = self.variables.clone();
        variables.retain(|(known, _)| known != name);
        variables.push((name.to_owned(), value.to_owned()));
        variables
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = Command::new(&self.script).arg("stop").arg(self.folder.path()).output();
        if !std::thread::panicking() {
            let output = stopped.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
