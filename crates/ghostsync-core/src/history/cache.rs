//! The newest commit that this machine saw, on its disk: saves requests, and is never believed unasked.
//!
//! A file that was damaged here would look like a store that was rolled back, so it proves itself: it begins with
//! a hash of the rest and of the configuration that it goes with. One that does not match is none.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::id::CommitHash;

/// Keeps the stored bytes of one commit in a file.
#[derive(Debug, Clone)]
pub(crate) struct HeadCache {
    file: PathBuf,
    config: CommitHash,
}

impl HeadCache {
    /// Keeps it in a folder, for the repository with this configuration.
    pub(crate) fn in_folder(folder: &Path, config: CommitHash) -> Self {
        Self { file: folder.join("head"), config }
    }

    /// The commit's number and its stored bytes, if they are there as they were kept.
    pub(crate) fn load(&self) -> Option<(u64, Bytes)> {
        let bytes = fs::read(&self.file).ok()?;
        let (proof, rest) = bytes.split_first_chunk::<32>()?;
        let (seq, stored) = rest.split_first_chunk::<8>()?;
        let seq = u64::from_be_bytes(*seq);
        (*proof == self.proof(seq, stored)).then(|| (seq, Bytes::copy_from_slice(stored)))
    }

    /// Remembers a commit; failing to is no failure.
    pub(crate) fn keep(&self, seq: u64, stored: &[u8]) {
        let write = || -> std::io::Result<()> {
            let folder = self.file.parent().unwrap_or(Path::new("."));
            let file = tempfile::NamedTempFile::new_in(folder)?;
            fs::write(file.path(), [&self.proof(seq, stored)[..], &seq.to_be_bytes(), stored].concat())?;
            file.persist(&self.file)?;
            Ok(())
        };
        drop(write());
    }

    fn proof(&self, seq: u64, stored: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.config.as_bytes()).update(&seq.to_be_bytes()).update(stored);
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = HeadCache::in_folder(folder.path(), CommitHash::of(b"config"));
        assert_eq!(cache.load(), None);
        cache.keep(7, b"stored");
        assert_eq!(cache.load(), Some((7, Bytes::from_static(b"stored"))));
        assert_eq!(HeadCache::in_folder(folder.path(), CommitHash::of(b"another")).load(), None);
        let whole = fs::read(folder.path().join("head")).expect("a file");
        for at in 0..whole.len() {
            fs::write(folder.path().join("head"), &whole[..at]).expect("cut");
            assert_eq!(cache.load(), None, "cut to {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(folder.path().join("head"), flipped).expect("flipped");
            assert_eq!(cache.load(), None, "flipped at {at}");
        }
    }
}
