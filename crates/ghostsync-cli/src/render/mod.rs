//! What is printed: results on stdout, as text or JSON, and messages on stderr.

pub(crate) mod failure;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod usage;

use std::io::{self, BufWriter, Stdout, Write};

use ghostsync_core::problem::Problem;
use ghostsync_core::store::RequestCounts;
use ghostsync_core::{Error, ErrorKind, Result};
use serde::Serialize;

use crate::config::Verbosity;

/// Prints a message for people on stderr. That nobody reads it is no failure.
pub(crate) fn message(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Standard output, for results alone.
///
/// A reader that went away (`ghostsync ls … | head`) is no failure: what is printed after that is dropped, and
/// whoever prints much asks [`Output::is_broken`] now and then.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: BufWriter<Stdout>,
    json: bool,
    verbosity: Verbosity,
    broken: bool,
}

impl Output {
    pub(crate) fn new(json: bool, verbosity: Verbosity) -> Self {
        Self { stdout: BufWriter::with_capacity(64 << 10, io::stdout()), json, verbosity, broken: false }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Stdout is for raw bytes: an error is told on stderr alone, even with `--json`.
    pub(crate) fn print_bytes_alone(&mut self) {
        self.json = false;
    }

    /// Whether the reader of stdout went away.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Prints a line of text.
    ///
    /// # Errors
    /// `LocalIo` if stdout cannot be written, such as on a full disk.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> Result<()> {
        let written = writeln!(self, "{text}");
        self.keep_going(written)
    }

    /// Prints one JSON document on a line of its own.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn json(&mut self, document: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(document).map_err(|error| Error::new(ErrorKind::Internal, error))?;
        self.line(text)
    }

    /// Prints what a command says about its work: JSON, or text unless quiet.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn result(&mut self, document: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            self.json(document)
        } else if self.verbosity > Verbosity::Quiet {
            self.line(text())
        } else {
            Ok(())
        }
    }

    /// Prints a message on stderr, unless quiet.
    pub(crate) fn note(&self, text: &str) {
        self.note_at(Verbosity::Normal, text);
    }

    /// Prints a message on stderr if so much is wanted.
    pub(crate) fn note_at(&self, verbosity: Verbosity, text: &str) {
        if self.verbosity >= verbosity {
            message(text);
        }
    }

    /// How many of a list are shown to people.
    pub(crate) fn most_shown(&self) -> usize {
        if self.verbosity >= Verbosity::Verbose { usize::MAX } else { 20 }
    }

    /// Tells on stderr what is worth knowing beside the result of a backup or a restore.
    pub(crate) fn note_beside(&self, problems: &[Problem], sockets: u64, requests: RequestCounts) {
        for line in human::problems(problems, self.most_shown()) {
            self.note(&line);
        }
        if sockets > 0 {
            let sockets = human::count(sockets, "socket", "sockets");
            self.note_at(Verbosity::Verbose, &format!("skipped {sockets}"));
        }
        self.note_at(Verbosity::Verbose, &format!("requests: {}", human::requests(requests)));
    }

    /// Writes what is still in memory.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub(crate) fn finish(&mut self) -> Result<()> {
        let flushed = self.flush();
        self.keep_going(flushed)
    }

    fn keep_going(&self, written: io::Result<()>) -> Result<()> {
        match written {
            Err(_) if self.broken => Ok(()),
            other => other.map_err(|error| Error::new(ErrorKind::LocalIo, StdoutError(error))),
        }
    }

    fn notice<T>(&mut self, written: io::Result<T>) -> io::Result<T> {
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            self.broken = true;
        }
        written
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.broken { Err(io::ErrorKind::BrokenPipe.into()) } else { self.stdout.write(bytes) };
        self.notice(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = if self.broken { Ok(()) } else { self.stdout.flush() };
        self.notice(flushed)
    }
}

#[derive(Debug)]
struct StdoutError(io::Error);

impl std::fmt::Display for StdoutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot write to stdout")
    }
}

impl std::error::Error for StdoutError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}
