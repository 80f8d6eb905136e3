//! A folder of this machine as a store.
//!
//! Every object and every folder that is made on the way is synced to disk before a write returns, and an object is
//! created by a hard link, which only one writer can make.

use std::fs;
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use object_store::local::LocalFileSystem;

use crate::error::{Error, ErrorKind, Result};

/// Opens a folder, which is made if `create` is set. Returns its absolute path too.
pub(super) fn folder(path: &Path, create: bool) -> Result<(LocalFileSystem, PathBuf)> {
    if create {
        create_folder(path)?;
    }
    let absolute = match fs::canonicalize(path) {
        Ok(absolute) => absolute,
        Err(error) if error.kind() == IoErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no folder {}", path.display())));
        }
        Err(error) => return Err(Error::local("open", path.display(), error)),
    };
    if !absolute.is_dir() {
        return Err(Error::invalid(format!("{} is not a folder", absolute.display())));
    }
    let store = LocalFileSystem::new_with_prefix(&absolute)
        .map_err(|error| Error::new(ErrorKind::Invalid, Box::new(error) as Box<_>))?;
    Ok((store.with_fsync(true).with_automatic_cleanup(true), absolute))
}

/// Makes a folder and those above it, readable for their owner alone, and syncs each into the one above.
fn create_folder(path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|folder| !is_there(folder)).collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::local("create the folder", path.display(), error))?;
    for folder in missing.iter().filter_map(|folder| folder.parent()) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| Error::local("sync", folder.display(), error))?;
    }
    Ok(())
}

fn is_there(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.exists()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_made_only_when_asked() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a/b c/#1");
        let error = folder(&path, false).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("b c"), "{error}");
        assert!(!top.path().join("a").exists());

        let (_, absolute) = folder(&path, true).unwrap();
        assert_eq!(absolute, fs::canonicalize(&path).unwrap());
        assert_eq!(fs::metadata(top.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
        folder(&path, true).unwrap();
        folder(&path, false).unwrap();
    }

    #[test]
    fn a_file_is_no_store() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(folder(file.path(), false).err().unwrap().kind(), ErrorKind::Invalid);
        assert_eq!(folder(file.path(), true).err().unwrap().kind(), ErrorKind::LocalIo);
    }
}
