//! A folder of this machine as a store.
//!
//! Every object and every folder that is made on the way is synced to disk before a write returns, and an object is
//! created by a hard link, which only one writer can make. A write begins in a file `name#1`, which stays behind when
//! its process is killed; no listing shows it.

use std::fs;
use std::io::ErrorKind as IoErrorKind;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use object_store::local::LocalFileSystem;
use rustix::fs::{Advice, fadvise};

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

/// Why a file was not read.
pub(super) enum ReadFailure {
    /// It ended after so many bytes.
    CutShort(u64),
    Failed(object_store::Error),
}

/// Linux reads no more ahead at once, unless a device says otherwise.
const READ_AHEAD_BYTES: u64 = 128 << 10;

/// Has the system begin to read a part of a file that will soon be asked for.
pub(super) fn read_ahead(file: &fs::File, range: Range<u64>) {
    let mut begin = range.start;
    while let Some(bytes) = NonZeroU64::new(range.end.saturating_sub(begin).min(READ_AHEAD_BYTES)) {
        // Where that is not known, as in memory, it is not needed either.
        if fadvise(file, begin, Some(bytes), Advice::WillNeed).is_err() {
            return;
        }
        begin += bytes.get();
    }
}

/// Fills `space` with what lies in a file from `begin` on.
pub(super) fn read(file: &fs::File, begin: u64, space: &mut [u8]) -> std::result::Result<(), ReadFailure> {
    let mut received = 0;
    while let Some(rest) = space.get_mut(received..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, begin + received as u64) {
            Ok(0) => return Err(ReadFailure::CutShort(received as u64)),
            Ok(read) => received += read,
            Err(error) if error.kind() == IoErrorKind::Interrupted => {}
            Err(error) => {
                let (store, source) = ("LocalFileSystem", error.into());
                return Err(ReadFailure::Failed(object_store::Error::Generic { store, source }));
            }
        }
    }
    Ok(())
}

/// Files that interrupted writes left behind, last changed before a time in milliseconds since 1970.
pub(super) fn unfinished(folder: &Path, before: i64) -> Result<Vec<PathBuf>> {
    let failed = |path: &Path, error| Error::local("look for unfinished files in", path.display(), error);
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            // Somebody else has just tidied up here.
            Err(error) if error.kind() == IoErrorKind::NotFound => continue,
            entries => entries.map_err(|error| failed(&folder, error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| failed(&folder, error))?;
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == IoErrorKind::NotFound => continue,
                metadata => metadata.map_err(|error| failed(&entry.path(), error))?,
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() && is_unfinished(&entry.file_name()) && milliseconds(&metadata) < before {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Deletes files, and the folders that are empty without them.
pub(super) fn delete_unfinished(files: &[PathBuf]) -> Result<()> {
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != IoErrorKind::NotFound => {
                return Err(Error::local("delete", file.display(), error));
            }
            // A folder that is not empty stays.
            _ => drop(file.parent().map(fs::remove_dir)),
        }
    }
    Ok(())
}

/// No key has a `#`, so no object is ever taken for one of these.
fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn milliseconds(metadata: &fs::Metadata) -> i64 {
    metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000)
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
    fn only_old_unfinished_files_are_swept() {
        let top = tempfile::tempdir().unwrap();
        let session = top.path().join("packs/session");
        fs::create_dir_all(&session).unwrap();
        let names = ["000000.data", "000000.data#1", "000001.data#x", "000002.data#", "young#1"];
        for name in names {
            let file = fs::File::create(session.join(name)).unwrap();
            let seconds = if name.starts_with("young") { 1000 } else { 999 };
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }
        let found = unfinished(top.path(), 1_000_000).unwrap();
        assert_eq!(found, [session.join("000000.data#1")]);
        delete_unfinished(&found).unwrap();
        delete_unfinished(&found).unwrap();
        assert_eq!(fs::read_dir(&session).unwrap().count(), 4);
        let alone = top.path().join("packs/other/000000.data#12");
        fs::create_dir(alone.parent().unwrap()).unwrap();
        fs::write(&alone, "").unwrap();
        delete_unfinished(std::slice::from_ref(&alone)).unwrap();
        assert!(!alone.parent().unwrap().exists() && session.exists());
    }

    #[test]
    fn a_file_is_no_store() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(folder(file.path(), false).err().unwrap().kind(), ErrorKind::Invalid);
        assert_eq!(folder(file.path(), true).err().unwrap().kind(), ErrorKind::LocalIo);
    }
}
