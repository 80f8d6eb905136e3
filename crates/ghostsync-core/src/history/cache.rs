//! The newest commit that this machine saw, on its disk: saves requests, and is never believed unasked.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Keeps the stored bytes of one commit in a file.
#[derive(Debug, Clone)]
pub(crate) struct HeadCache {
    file: PathBuf,
}

impl HeadCache {
    /// Keeps it in a folder.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { file: folder.join("head") }
    }

    /// The commit's number and its stored bytes, if they are there.
    pub(crate) fn load(&self) -> Option<(u64, Bytes)> {
        let bytes = fs::read(&self.file).ok()?;
        let (seq, stored) = bytes.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*seq), Bytes::copy_from_slice(stored)))
    }

    /// Remembers a commit; failing to is no failure.
    pub(crate) fn keep(&self, seq: u64, stored: &[u8]) {
        let write = || -> std::io::Result<()> {
            let folder = self.file.parent().unwrap_or(Path::new("."));
            let file = tempfile::NamedTempFile::new_in(folder)?;
            fs::write(file.path(), [&seq.to_be_bytes(), stored].concat())?;
            file.persist(&self.file)?;
            Ok(())
        };
        drop(write());
    }
}
