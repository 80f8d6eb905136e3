//! A folder of its own for each test, with a home, a source and a repository, and the command run inside it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ghostsync_core::testing::loopback;
use serde_json::Value;

pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
    /// What leads to the repository: the variables of the command.
    repository: Vec<(String, String)>,
}

/// What a run of the command said.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    /// A sandbox with an empty source, and no repository yet.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["home", "source"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let repository = folder.path().join("repository").into_os_string().into_string().expect("UTF-8");
        Self { folder, repository: vec![("GHOSTSYNC_REPO".to_owned(), repository)] }
    }

    /// A sandbox whose repository is on a store of this machine: variables that lead elsewhere are refused.
    pub(crate) fn with_store(url: &str, variables: &[(String, String)]) -> Self {
        let scheme = url.split(':').next().expect("a scheme");
        let mut repository = loopback::checked(scheme, variables).expect("only this machine is asked");
        repository.push(("GHOSTSYNC_REPO".to_owned(), url.to_owned()));
        Self { repository, ..Self::new() }
    }

    /// A sandbox with a repository, and a source of so many files named `file00`, `file01`, …
    pub(crate) fn with_files(number: usize) -> Self {
        let sandbox = Self::new();
        sandbox.ok(&["init", "--skip-probe"]);
        for index in 0..number {
            sandbox.write(&format!("source/file{index:02}"), format!("content {index}"));
        }
        sandbox
    }

    /// A sandbox with one snapshot of so many files.
    pub(crate) fn with_snapshot(number: usize) -> Self {
        let sandbox = Self::with_files(number);
        sandbox.ok(&["backup", "source"]);
        sandbox
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("a folder");
        fs::write(path, content).expect("written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("readable")
    }

    pub(crate) fn remove(&self, name: &str) {
        let path = self.path(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("removed");
    }

    /// The command in an environment of its own.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ghostsync"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("TZ", "UTC")
            .envs(self.repository.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// The command on a store of this machine: variables that lead elsewhere are refused.
    pub(crate) fn on_store(&self, url: &str, variables: &[(String, String)], args: &[&str]) -> Ran {
        let scheme = url.split(':').next().expect("a scheme");
        let variables = loopback::checked(scheme, variables).expect("only this machine is asked");
        let output = self.command(args).env("GHOSTSYNC_REPO", url).envs(variables).output().expect("runs");
        Ran::of(output)
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        Ran::of(self.command(args).output().expect("runs"))
    }

    /// Runs a line of shell on a store of this machine: variables that lead elsewhere are refused.
    pub(crate) fn shell_on_store(&self, scheme: &str, variables: &[(String, String)], line: &str) -> Ran {
        let variables = loopback::checked(scheme, variables).expect("only this machine is asked");
        let mut command = self.command::<&str>(&[]);
        // The command is found by its name, as it is installed.
        let folder = Path::new(env!("CARGO_BIN_EXE_ghostsync")).parent().expect("a folder");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", folder.display())).envs(variables);
        self.shell_of(&command, line)
    }

    /// Runs a line of shell, as a person pastes it.
    pub(crate) fn shell(&self, line: &str) -> Ran {
        self.shell_of(&self.command::<&str>(&[]), line)
    }

    fn shell_of(&self, command: &Command, line: &str) -> Ran {
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(line).current_dir(self.folder.path()).env_clear();
        shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        Ran::of(shell.stdin(Stdio::null()).output().expect("runs"))
    }

    /// Runs it, and it must end with 0.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        ran
    }

    /// Runs it with `--json`; it must end with a code and print one document.
    pub(crate) fn json(&self, code: i32, args: &[&str]) -> Value {
        let ran = self.run(&[args, &["--json"]].concat());
        assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
        ran.document()
    }

    /// Every name below a folder with the content of its file, for comparisons.
    pub(crate) fn tree(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let root = self.path(name);
        let mut found = Vec::new();
        list(&root, &root, &mut found);
        found.sort();
        found
    }
}

fn list(root: &Path, folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("listed") {
        let path = entry.expect("an entry").path();
        let name = path.strip_prefix(root).expect("below").to_owned();
        let metadata = fs::symlink_metadata(&path).expect("there");
        if metadata.is_symlink() {
            found.push((name, fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()));
        } else if metadata.is_dir() {
            found.push((name, Vec::new()));
            list(root, &path, found);
        } else {
            found.push((name, fs::read(&path).expect("readable")));
        }
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("ends by itself"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }

    /// The one JSON document on stdout.
    pub(crate) fn document(&self) -> Value {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "one document: {}", self.stdout);
        lines.remove(0)
    }

    /// The JSON lines on stdout.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}
