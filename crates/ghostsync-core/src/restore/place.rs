//! Where a restore goes to: what may be restored to, and what must not be touched.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FileType;

use super::RestoreOptions;
use super::destination::{Directory, open_root};
use super::selection::Selection;
use crate::error::{Error, Result};
use crate::guard::{Guard, MAX_REFUSAL_PATHS, Refusal};
use crate::id::RepositoryId;
use crate::receipt::Receipt;
use crate::temporary;
use crate::tree_path::TreePath;

/// Opens a destination; `None` if it is not there.
///
/// # Errors
/// `Refused` if it is no directory.
pub(super) fn open(destination: &Path) -> Result<Option<Arc<Directory>>> {
    match open_root(destination) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if destination.symlink_metadata().is_ok() {
                return Err(refusal(format!("{} is a link that leads nowhere", destination.display()), Vec::new()));
            }
            Ok(None)
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            Err(refusal(format!("{} is not a directory", destination.display()), Vec::new()))
        }
        Err(error) => Err(Error::local("open", destination.display(), error)),
    }
}

/// Makes a destination that is not there.
///
/// # Errors
/// `LocalIo`.
pub(super) fn create(destination: &Path) -> Result<Arc<Directory>> {
    std::fs::create_dir_all(destination)
        .and_then(|()| open_root(destination))
        .map_err(|error| Error::local("create", destination.display(), error))
}

/// Opens a destination that may be restored to; `None` if it is not there.
///
/// # Errors
/// `Refused` if it is no directory, or if it holds something, nobody said what to do with that, and no receipt
/// shows that it came from this repository.
pub(super) fn examine(
    destination: &Path,
    repository: RepositoryId,
    selection: &Selection,
    options: &RestoreOptions,
) -> Result<Option<Arc<Directory>>> {
    let Some(directory) = open(destination)? else { return Ok(None) };
    let is_ours = || {
        let receipt = options.receipt.as_deref().map(Receipt::load);
        matches!(receipt, Some(Ok(receipt))
            if receipt.repository == repository && directory.mark().is_ok_and(|mark| receipt.directory.is(&mark)))
    };
    if options.delete || options.overwrite.is_some() || is_ours() {
        return Ok(Some(directory));
    }
    let paths =
        first_entries(&directory, selection).map_err(|error| Error::local("list", destination.display(), error))?;
    if paths.is_empty() {
        return Ok(Some(directory));
    }
    Err(refusal(
        format!("{} is not empty, and no receipt shows that it came from this repository", destination.display()),
        paths,
    ))
}

/// The first names that are neither hidden from the restore nor anybody's content.
fn first_entries(directory: &Arc<Directory>, selection: &Selection) -> std::io::Result<Vec<TreePath>> {
    let mut paths = Vec::new();
    for name in directory.names()?.iter().filter(|name| !temporary::is_temporary(name)) {
        let is_directory = directory.look(name)?.is_some_and(|there| there.kind == FileType::Directory);
        let Ok(path) = TreePath::parse(name.to_vec()) else { continue };
        // A volume that was just formatted has this one.
        let is_lost_and_found = is_directory && path.as_bytes() == b"lost+found";
        if !is_lost_and_found && !selection.hides(&path, is_directory) {
            paths.push(path);
        }
        if paths.len() == MAX_REFUSAL_PATHS {
            break;
        }
    }
    Ok(paths)
}

fn refusal(reason: String, paths: Vec<TreePath>) -> Error {
    Refusal { guard: Guard::Destination, reason, limit: None, actual: None, paths, plan: None }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::{DirectoryId, DirectoryMark};
    use crate::restore::Overwrite;

    fn repository() -> RepositoryId {
        RepositoryId::from_bytes([1; 16])
    }

    fn examine_with(destination: &Path, options: &RestoreOptions) -> Result<bool> {
        let never: Vec<_> = options.never.iter().chain(&options.receipt).cloned().collect();
        let selection = Selection::new(Vec::new(), &options.exclude, &never, destination)?;
        examine(destination, repository(), &selection, options).map(|directory| directory.is_some())
    }

    #[track_caller]
    fn assert_refused(result: Result<bool>) {
        let error = result.expect_err("refused");
        assert_eq!(error.refusal().expect("a refusal").guard, Guard::Destination, "{error}");
    }

    #[test]
    fn only_directories_and_what_is_not_there_yet_can_be_restored_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let options = RestoreOptions { overwrite: Some(Overwrite::Always), ..RestoreOptions::default() };
        assert!(!examine_with(&at("new/below"), &options).expect("may be made"));
        assert!(examine_with(folder.path(), &options).expect("is there"));
        std::fs::write(at("file"), b"").expect("writes");
        assert_refused(examine_with(&at("file"), &options));
        assert_refused(examine_with(&at("file/below"), &options));
        std::os::unix::fs::symlink(at("nowhere"), at("link")).expect("links");
        assert_refused(examine_with(&at("link"), &options));
    }

    #[test]
    fn a_directory_that_holds_something_needs_a_word_or_a_receipt() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("directory");
        std::fs::create_dir(&directory).expect("makes");
        let none = RestoreOptions::default();
        assert!(examine_with(&directory, &none).expect("is empty"));
        std::fs::create_dir(directory.join("lost+found")).expect("makes");
        std::fs::write(directory.join(".ghostsync-0123456789abcdef.tmp"), b"").expect("writes");
        assert!(examine_with(&directory, &none).expect("counts as empty"));
        std::fs::write(directory.join("theirs"), b"").expect("writes");
        assert_refused(examine_with(&directory, &none));
        let excluded = RestoreOptions { exclude: vec!["/theirs".into()], ..none.clone() };
        assert!(examine_with(&directory, &excluded).is_ok());
        assert!(examine_with(&directory, &RestoreOptions { delete: true, ..none.clone() }).is_ok());
        for overwrite in [Overwrite::Changed, Overwrite::Always, Overwrite::Never] {
            assert!(examine_with(&directory, &RestoreOptions { overwrite: Some(overwrite), ..none.clone() }).is_ok());
        }
    }

    #[test]
    fn only_a_receipt_of_this_repository_and_directory_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("directory");
        std::fs::create_dir(&directory).expect("makes");
        std::fs::write(directory.join("theirs"), b"").expect("writes");
        let path = directory.join("receipt.json");
        let options = RestoreOptions { receipt: Some(path.clone()), ..RestoreOptions::default() };
        let receipt = Receipt {
            repository: repository(),
            branch: "main".into(),
            epoch: 0,
            snapshot: None,
            tree: None,
            entries: 0,
            bytes: 0,
            directory: DirectoryMark::of(&directory).expect("is there"),
            finished: jiff::Timestamp::UNIX_EPOCH,
            quarantined: None,
            quarantined_under: None,
            pending: None,
            unsettled: Vec::new(),
        };
        assert_refused(examine_with(&directory, &options));
        receipt.write(&path).expect("writes");
        assert!(examine_with(&directory, &options).is_ok());
        let other = RepositoryId::from_bytes([2; 16]);
        Receipt { repository: other, ..receipt.clone() }.write(&path).expect("writes");
        assert_refused(examine_with(&directory, &options));
        let elsewhere = DirectoryMark { id: DirectoryId { device: 0, inode: 0 }, born: None };
        Receipt { directory: elsewhere, ..receipt }.write(&path).expect("writes");
        assert_refused(examine_with(&directory, &options));
        std::fs::write(&path, b"damaged").expect("writes");
        assert_refused(examine_with(&directory, &options));
    }
}
