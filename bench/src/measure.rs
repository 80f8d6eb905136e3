//! Measures one command: seconds, processor time, peak memory, and what it printed.
//!
//! The kernel counts the memory that a process had before it became another program as that program's. So a command is
//! started by a small helper, this program called anew with `measured`, and not by the process that has just compared a
//! million entries. Peak memory is the largest of the processes of a command, not their sum; processor time is the sum.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use wait4::Wait4;

use crate::failure::{Failure, Outcome, Tried};

/// What one run of a command took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    pub seconds: f64,
    /// User and system, with all children.
    pub cpu_seconds: f64,
    /// Of the largest process.
    pub peak_bytes: u64,
}

/// Where the output of commands goes, and how long they may take.
pub struct Stopwatch {
    pub folder: PathBuf,
    pub limit_seconds: u64,
}

impl Stopwatch {
    /// Runs `command` and measures it; its standard output is returned. Fails if it does, or takes longer than the limit.
    pub fn run(&self, command: &Command) -> Outcome<(Taken, String)> {
        let (result, output) = (self.folder.join("taken.json"), self.folder.join("output"));
        let _ = fs::remove_file(&result);
        let this = std::env::current_exe().tried(|| "find this program".into())?;
        // Whoever interrupts the benchmark ends what it measures too: `timeout` passes the signal on.
        let mut helper = Command::new("setpriv");
        helper.args(["--pdeathsig", "TERM", "timeout"]);
        helper
            .arg("--kill-after=10")
            .arg(self.limit_seconds.to_string())
            .arg(this)
            .arg("measured")
            .arg(&result)
            .arg(&output);
        helper.arg("--").arg(command.get_program()).args(command.get_args());
        helper.env_clear().stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                helper.env(name, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            helper.current_dir(folder);
        }
        let status = helper.status().tried(|| "run setpriv".into())?;
        let printed = fs::read_to_string(&output).unwrap_or_default();
        if !status.success() {
            let errors = fs::read_to_string(errors_of(&output)).unwrap_or_default();
            let end: Vec<&str> = errors.lines().chain(printed.lines()).rev().take(20).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            return Err(Failure::new(format!("{status}: {}\n{}", shown(command), end.join("\n"))));
        }
        let text = fs::read_to_string(&result).on("read", &result)?;
        Ok((serde_json::from_str(&text).on("parse", &result)?, printed))
    }
}

/// The helper: runs `command`, writes what it took to `result`, and ends with its exit code.
pub fn measured(result: &Path, output: &Path, command: &[String]) -> Outcome<i32> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failure::new("no command to measure"));
    };
    let mut run = Command::new(program);
    run.args(arguments);
    run.stdout(File::create(output).on("create", output)?);
    let errors = errors_of(output);
    run.stderr(File::create(&errors).on("create", &errors)?);
    let began = Instant::now();
    let ended = run.spawn().and_then(Wait4::wait4).tried(|| format!("run {program}"))?;
    let taken = Taken {
        seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: (ended.rusage.utime + ended.rusage.stime).as_secs_f64(),
        peak_bytes: ended.rusage.maxrss,
    };
    let text = serde_json::to_string(&taken).tried(|| "encode the figures".into())?;
    fs::write(result, text).on("write", result)?;
    Ok(ended.status.code().unwrap_or(128))
}

/// A command as one would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn errors_of(output: &Path) -> PathBuf {
    output.with_extension("errors")
}
