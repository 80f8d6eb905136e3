//! Is there room for a snapshot? Looked at before the first byte: a disk that is full half way costs the whole start.

use std::path::{Path, PathBuf};

use ghostsync_core::{Error, ErrorKind, Result};

/// What a disk has left; `None` for inodes where the file system does not count them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    bytes: u64,
    inodes: Option<u64>,
}

/// Checks that the disk of a directory has room for so much, together with what lies in the directory already.
///
/// # Errors
/// `LocalIo` if it has not, or cannot be asked.
pub(super) fn check(directory: &Path, bytes: u64, entries: u64) -> Result<()> {
    let disk =
        rustix::fs::statvfs(directory).map_err(|error| Error::new(ErrorKind::LocalIo, std::io::Error::from(error)))?;
    let held = held(directory);
    let room = Room {
        bytes: disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(held.bytes),
        inodes: (disk.f_files > 0).then_some(disk.f_favail.saturating_add(held.entries)),
    };
    match lacking(room, bytes, entries) {
        None => Ok(()),
        Some(lacking) => {
            let what = format!("no room in {}: {lacking}", directory.display());
            Err(Error::new(ErrorKind::LocalIo, std::io::Error::new(std::io::ErrorKind::StorageFull, what)))
        }
    }
}

/// What lies in a directory.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    bytes: u64,
    entries: u64,
}

/// Looks through a directory. What may not be looked at, such as a `lost+found`, is not ours to replace.
fn held(directory: &Path) -> Held {
    let mut held = Held::default();
    let mut folders: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            held.entries += 1;
            if found.is_dir() {
                folders.push(entry.path());
            } else {
                held.bytes = held.bytes.saturating_add(found.len());
            }
        }
    }
    held
}

fn lacking(room: Room, bytes: u64, entries: u64) -> Option<String> {
    if bytes > room.bytes {
        return Some(format!("the snapshot has {bytes} bytes, the disk has {} left", room.bytes));
    }
    let inodes = room.inodes.filter(|inodes| entries > *inodes)?;
    Some(format!("the snapshot has {entries} entries, the disk has {inodes} inodes left"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_inodes_are_both_needed() {
        let room = |bytes, inodes| Room { bytes, inodes };
        assert_eq!(lacking(room(100, Some(10)), 100, 10), None);
        assert!(lacking(room(99, Some(10)), 100, 10).expect("lacks").contains("99 left"));
        assert!(lacking(room(100, Some(9)), 100, 10).expect("lacks").contains("9 inodes left"));
        assert_eq!(lacking(room(100, None), 100, 10), None, "such as btrfs");
        let error = check(&std::env::temp_dir(), u64::MAX, 1).expect_err("nobody has so much");
        assert_eq!(error.io_error().expect("of the disk").kind(), std::io::ErrorKind::StorageFull);
    }

    #[test]
    fn what_lies_there_already_counts_links_are_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("created");
        std::fs::write(folder.path().join("a/b/file"), [0; 1000]).expect("written");
        std::fs::write(folder.path().join("file"), [0; 24]).expect("written");
        std::os::unix::fs::symlink("/", folder.path().join("s")).expect("linked");
        assert_eq!(held(folder.path()), Held { bytes: 1025, entries: 5 });
        assert_eq!(held(&folder.path().join("gone")), Held::default());
    }
}
