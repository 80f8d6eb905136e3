//! `ghostsync-k8s lint`: reads the files, prints what was found, and says by the exit code whether a person must act.

use std::io::{Read, Write};
use std::path::PathBuf;

use clap::Args;
use ghostsync_cli::exit::Exit;
use ghostsync_cli::settings::invalid;
use ghostsync_core::{Error, ErrorKind, Result};

use super::{Input, Report, Severity, human, lint};

/// What `lint` is told.
#[derive(Debug, Clone, Args)]
pub struct LintArgs {
    /// Manifests: plain YAML, or what kustomize and Helm print; - is stdin
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Print exactly one JSON document on stdout
    #[arg(long)]
    pub json: bool,
    /// Let warnings fail like problems
    #[arg(long)]
    pub strict: bool,
    /// Leave the patches out
    #[arg(long, conflicts_with = "json")]
    pub no_patches: bool,
}

/// Lints the files and prints the report.
///
/// # Errors
/// Invalid input: a file that cannot be read, is no YAML, holds something that is no Kubernetes object; or files without
/// any workload that ghostsync has a part in, since then nothing was checked.
pub fn run(args: &LintArgs) -> Result<Exit> {
    let inputs = args.files.iter().map(read).collect::<Result<Vec<Input>>>()?;
    let report = lint(&inputs).map_err(|error| Error::new(ErrorKind::Invalid, error))?;
    if report.workloads == 0 {
        let names: Vec<_> = inputs.iter().map(|input| input.file.as_str()).collect();
        return Err(invalid(format!(
            "no workload in {} has a container of ghostsync: nothing was checked",
            names.join(", ")
        )));
    }
    let text = if args.json { json(&report)? } else { human(&report, !args.no_patches) };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    written.map_err(|error| Error::new(ErrorKind::LocalIo, error))?;
    let bad = if args.strict { Severity::Warning } else { Severity::Problem };
    let refused = report.findings.iter().any(|finding| finding.severity >= bad);
    Ok(if refused { Exit::Refused } else { Exit::Done })
}

fn json(report: &Report) -> Result<String> {
    let text = serde_json::to_string(report).map_err(|error| Error::new(ErrorKind::Internal, error))?;
    Ok(text + "\n")
}

fn read(path: &PathBuf) -> Result<Input> {
    let is_stdin = path.as_os_str() == "-";
    let file = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
    let text = if is_stdin {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| invalid(format!("cannot read {file}: {error}")))?;
    Ok(Input { file, text })
}
