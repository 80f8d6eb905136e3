//! May this container do its work? Looked at before anything else, and told with the line to put into the pod.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ghostsync_core::tree_path::TreePath;
use ghostsync_core::{Error, ErrorKind, Result};

/// Checks that both folders can be written; they are made if they are not there.
///
/// # Errors
/// `LocalIo`, with what to put into the pod.
pub(super) fn check(directory: &Path, state_dir: &Path) -> Result<()> {
    for folder in [directory, state_dir] {
        let written = DirBuilder::new().recursive(true).create(folder).and_then(|()| try_to_write(folder));
        written.map_err(|error| cannot(folder, &error))?;
    }
    Ok(())
}

fn try_to_write(folder: &Path) -> io::Result<()> {
    // A file without a name: nothing is left behind, whenever it ends, and no watcher sees it.
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::WRONLY;
    match rustix::fs::open(folder, flags, rustix::fs::Mode::RUSR) {
        Ok(_) => Ok(()),
        // Some file systems of volumes have no such files.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(Into::into)
        }
        // Whoever is told that the disk is full may write: whether there is room is looked at later.
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn cannot(folder: &Path, error: &io::Error) -> Error {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let owner = nearest(folder);
    let advice = match (error.kind(), owner) {
        (io::ErrorKind::PermissionDenied, Some(owner)) => advice(&owner),
        (io::ErrorKind::ReadOnlyFilesystem, _) => {
            "; in volumeMounts of this container, without 'readOnly: true'".to_owned()
        }
        _ => String::new(),
    };
    let what = format!("uid {uid}, gid {gid} cannot write to {}: {error}{advice}", folder.display());
    Error::new(ErrorKind::LocalIo, what)
}

/// What to put into the pod, so that everybody in it is who the directory belongs to.
fn advice(owner: &Metadata) -> String {
    let (uid, gid, mode) = (owner.uid(), owner.gid(), owner.mode() & 0o7777);
    let name = |id: u32, unknown: &str| if id == 0 { unknown.to_owned() } else { id.to_string() };
    let (user, group) = (name(uid, "UID-OF-THE-APP"), name(gid, "GID-OF-THE-APP"));
    format!(
        " (it belongs to {uid}:{gid}, mode {mode:04o}); in the pod's spec: 'securityContext: {{runAsUser: {user}, \
         runAsGroup: {group}, fsGroup: {group}, fsGroupChangePolicy: OnRootMismatch}}'"
    )
}

/// The folder, or the nearest one above that is there.
fn nearest(folder: &Path) -> Option<Metadata> {
    folder.ancestors().find_map(|folder| folder.metadata().ok())
}

/// The first names in a directory that somebody put there: not what is never content.
///
/// # Errors
/// `LocalIo` if it cannot be listed.
pub(super) fn first_names(directory: &Path, never: &[PathBuf]) -> Result<Vec<std::ffi::OsString>> {
    let failed =
        |error: io::Error| Error::new(ErrorKind::LocalIo, format!("cannot list {}: {error}", directory.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !never.contains(&entry.path()) {
            names.push(entry.file_name());
        }
        if names.len() == ghostsync_core::guard::MAX_REFUSAL_PATHS {
            break;
        }
    }
    names.sort();
    Ok(names)
}

/// The same as paths of a tree.
pub(super) fn tree_paths(names: &[std::ffi::OsString]) -> Vec<TreePath> {
    names.iter().filter_map(|name| TreePath::parse(name.as_bytes().to_vec()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_disk_counts_as_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let never = [folder.path().join("lost+found")];
        std::fs::create_dir(&never[0]).expect("a folder");
        assert!(first_names(folder.path(), &never).expect("lists").is_empty());
        std::fs::write(folder.path().join("theirs"), "").expect("writes");
        assert_eq!(first_names(folder.path(), &never).expect("lists"), ["theirs"]);
    }

    #[test]
    fn the_advice_is_a_line_for_the_pod() {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = folder.path().metadata().expect("is there");
        let text = advice(&owner);
        assert!(text.contains("'securityContext: {runAsUser: "), "{text}");
        assert!(text.contains("fsGroupChangePolicy: OnRootMismatch}'"), "{text}");
        check(&folder.path().join("a/b"), folder.path()).expect("may be written, and made");
    }
}
