//! What an app has promised: a line for each write that it has acknowledged, in a file outside of the volume, so that
//! it is there whatever becomes of the pod.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A write that an app has acknowledged: it was durable on the volume before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    /// When, since 1970.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file.
    File {
        /// Below the volume.
        name: String,
        /// Which version of it.
        version: u64,
    },
    /// A row of the app's database.
    Row(u64),
}

/// The time since 1970.
#[must_use]
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A journal that is written.
#[derive(Debug)]
pub struct Journal(File);

impl Journal {
    /// Opens it, to go on.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self(File::options().create(true).append(true).open(path)?))
    }

    /// Notes that something is durable, in one write: a line is there as a whole, or not at all.
    ///
    /// # Errors
    /// The system's.
    pub fn acknowledge(&mut self, what: &What) -> std::io::Result<()> {
        let at = now().as_nanos();
        let line = match what {
            What::File { name, version } => format!("file {at} {version} {name}\n"),
            What::Row(number) => format!("row {at} {number}\n"),
        };
        self.0.write_all(line.as_bytes())
    }
}

/// Reads a journal; one that is not there has nothing.
///
/// # Errors
/// The system's, and a line that is none.
pub fn load(path: &Path) -> std::io::Result<Vec<Ack>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let wrong = |line: &str| std::io::Error::other(format!("not a line of a journal: {line:?}"));
    text.lines().map(|line| parse(line).ok_or_else(|| wrong(line))).collect()
}

fn parse(line: &str) -> Option<Ack> {
    let (kind, rest) = line.split_once(' ')?;
    let (at, rest) = rest.split_once(' ')?;
    let at = Duration::from_nanos(at.parse().ok()?);
    let what = match kind {
        "file" => {
            let (version, name) = rest.split_once(' ')?;
            What::File { name: name.to_owned(), version: version.parse().ok()? }
        }
        "row" => What::Row(rest.parse().ok()?),
        _ => return None,
    };
    Some(Ack { at, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_is_read_as_it_was_written_over_several_lives() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        assert_eq!(load(&path).expect("nothing"), []);
        let written = [What::File { name: "a/b c".into(), version: 3 }, What::Row(9)];
        for what in &written {
            Journal::open(&path).expect("opens").acknowledge(what).expect("written");
        }
        let read = load(&path).expect("reads");
        assert_eq!(read.iter().map(|ack| ack.what.clone()).collect::<Vec<_>>(), written);
        assert!(read[0].at <= read[1].at && read[1].at <= now());
        std::fs::write(&path, "half a li").expect("written");
        assert!(load(&path).is_err());
    }
}
