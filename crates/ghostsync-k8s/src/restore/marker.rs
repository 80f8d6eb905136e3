//! The mark of a restore that is under way: a directory that has one, and no receipt, holds nothing but what a restore
//! that was cut has left there. It may be finished, and written over.
//!
//! It is written before the first byte, and removed after the receipt; so whoever finds both has a whole directory.

use std::path::{Path, PathBuf};

use ghostsync_core::receipt::DirectoryMark;
use ghostsync_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// The directory that is being restored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Marker {
    directory: DirectoryMark,
}

impl Marker {
    pub(super) fn of(directory: &Path) -> Result<Self> {
        Ok(Self { directory: DirectoryMark::of(directory).map_err(|error| failed(directory, &error))? })
    }

    /// The one that is there; what cannot be read is none.
    pub(super) fn load(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file(state_dir)).ok()?).ok()
    }

    /// Whether it is of this very directory.
    pub(super) fn is_for(&self, directory: DirectoryMark) -> bool {
        self.directory.is(&directory)
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// `LocalIo`.
    pub(super) fn write(&self, state_dir: &Path) -> Result<()> {
        let (file, temporary) = (file(state_dir), state_dir.join("restoring.json.new"));
        let bytes = serde_json::to_vec(self).map_err(|error| Error::new(ErrorKind::Internal, error))?;
        let write = || {
            std::fs::write(&temporary, &bytes)?;
            std::fs::File::open(&temporary)?.sync_all()?;
            std::fs::rename(&temporary, &file)?;
            std::fs::File::open(state_dir)?.sync_all()
        };
        write().map_err(|error| failed(&file, &error))
    }

    /// Removes it.
    ///
    /// # Errors
    /// `LocalIo`.
    pub(super) fn remove(state_dir: &Path) -> Result<()> {
        match std::fs::remove_file(file(state_dir)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(&file(state_dir), &error)),
            _ => Ok(()),
        }
    }
}

fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("restoring.json")
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::LocalIo, format!("cannot keep the mark of a restore at {}: {error}", path.display()))
}
