//! Has the app gone? A process in a shared process namespace can be seen to go; a port that is closed says only that no
//! new requests are taken: an app finishes what it has begun.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum WaitApp {
    /// No process has this name.
    Process(String),
    /// Nobody listens on this host and port.
    Tcp(String),
}

impl FromStr for WaitApp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not an app: {text:?}; write process:NAME or tcp:HOST:PORT");
        match text.split_once(':') {
            Some(("process", name)) if !name.is_empty() => Ok(Self::Process(name.to_owned())),
            Some(("tcp", address)) if address.contains(':') => Ok(Self::Tcp(address.to_owned())),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for WaitApp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<WaitApp> for String {
    fn from(app: WaitApp) -> Self {
        app.to_string()
    }
}

impl std::fmt::Display for WaitApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process(name) => write!(f, "process:{name}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl WaitApp {
    /// Whether it is there now.
    pub(crate) async fn is_there(&self) -> bool {
        match self {
            Self::Process(name) => has_process(Path::new("/proc"), name),
            Self::Tcp(address) => {
                let connect = tokio::net::TcpStream::connect(address);
                // One that does not answer is there.
                !matches!(tokio::time::timeout(Duration::from_secs(1), connect).await, Ok(Err(_)))
            }
        }
    }

    /// Whether its being gone means that nothing is written any more.
    pub(crate) fn is_certain(&self) -> bool {
        matches!(self, Self::Process(_))
    }
}

/// Whether some process has this name, or was started by it; a zombie writes nothing any more.
fn has_process(proc: &Path, name: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(proc) else { return false };
    let own = std::process::id().to_string();
    entries.flatten().any(|entry| {
        let id = entry.file_name();
        let is_other = id.as_bytes().iter().all(u8::is_ascii_digit) && id != own.as_str();
        is_other && is_named(&entry.path(), name) && !is_zombie(&entry.path())
    })
}

fn is_named(process: &Path, name: &str) -> bool {
    let comm = std::fs::read(process.join("comm")).unwrap_or_default();
    if comm.strip_suffix(b"\n").unwrap_or(&comm) == name.as_bytes() {
        return true;
    }
    let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    Path::new(OsStr::from_bytes(first)).file_name() == Some(OsStr::new(name))
}

fn is_zombie(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    // The name is in brackets, and may hold any.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_are_written_as_they_are_read() {
        for text in ["process:node", "tcp:127.0.0.1:2368", "tcp:[::1]:80"] {
            assert_eq!(text.parse::<WaitApp>().expect("an app").to_string(), text);
        }
        for text in ["", "node", "process:", "tcp:2368", "http://x"] {
            assert!(text.parse::<WaitApp>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_name_or_its_program_until_it_is_a_zombie() {
        let proc = tempfile::tempdir().expect("a folder");
        let make = |id: &str, comm: &str, cmdline: &str, stat: &str| {
            let folder = proc.path().join(id);
            std::fs::create_dir_all(&folder).expect("a folder");
            for (name, text) in [("comm", comm), ("cmdline", cmdline), ("stat", stat)] {
                std::fs::write(folder.join(name), text).expect("writes");
            }
        };
        // As Node 22 names its main thread.
        make("7", "MainThread\n", "/usr/local/bin/node\0current/index.js\0", "7 (MainThread) S 1");
        make("self", "ghost\n", "ghost\0", "1 (ghost) S 1");
        make("8", "zombie\n", "", "8 (a ) b) Z 1");
        let has = |name: &str| has_process(proc.path(), name);
        assert!(has("node") && has("MainThread"));
        assert!(!has("nod") && !has("ghost") && !has("zombie") && !has("index.js"));
    }
}
