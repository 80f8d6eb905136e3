//! Lists a tree: every entry below its root, in the order of the paths.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::failure::{Outcome, Tried};

/// What an entry is; there is nothing else in the trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file
    File,
    /// A folder
    Folder,
    /// A symbolic link
    Link,
}

/// One entry.
pub struct Found {
    /// Its path below the root.
    pub path: PathBuf,
    pub kind: Kind,
    pub size_bytes: u64,
    /// Permissions alone.
    pub mode: u32,
    /// Seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
}

impl Found {
    /// When it was last changed.
    pub fn modified(&self) -> SystemTime {
        let (seconds, nanoseconds) = (self.modified.0.max(0) as u64, self.modified.1.max(0) as u32);
        SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
    }
}

/// Everything below `root`.
pub fn walk(root: &Path) -> Outcome<Vec<Found>> {
    let mut all = Vec::new();
    descend(root, Path::new(""), &mut all)?;
    Ok(all)
}

fn descend(root: &Path, below: &Path, all: &mut Vec<Found>) -> Outcome<()> {
    let folder = root.join(below);
    let mut names = fs::read_dir(&folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<Vec<_>, _>>())
        .on("list", &folder)?;
    names.sort_unstable();
    for name in names {
        let path = below.join(&name);
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).on("look at", &full)?;
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => Kind::Folder,
            kind if kind.is_symlink() => Kind::Link,
            _ => Kind::File,
        };
        all.push(Found {
            path: path.clone(),
            kind,
            size_bytes: metadata.len(),
            mode: metadata.mode() & 0o7777,
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        });
        if kind == Kind::Folder {
            descend(root, &path, all)?;
        }
    }
    Ok(())
}

/// The bytes of all regular files below `root`, or of the file `root`; 0 if it does not exist.
pub fn stored_bytes(root: &Path) -> Outcome<u64> {
    match fs::symlink_metadata(root) {
        Err(_) => Ok(0),
        Ok(metadata) if !metadata.is_dir() => Ok(metadata.len()),
        Ok(_) => Ok(walk(root)?.iter().filter(|found| found.kind == Kind::File).map(|found| found.size_bytes).sum()),
    }
}
