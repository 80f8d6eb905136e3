//! Paths that are never content, found by where they lie and not by what they are called.
//!
//! The receipt is replaced by a rename at every backup and a cache may not exist yet, so neither an inode nor a
//! look at the disk identifies them. What does is the nearest directory that exists (by device and inode, so that
//! neither links nor another mount of the same directory hide it) and the names below it.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::receipt::DirectoryId;
use crate::tree_path::TreePath;

/// The paths that a walk does not see, refined while it goes down.
#[derive(Debug, Default)]
pub(super) struct Never {
    /// An existing directory, and the names below it that lead to what is never content.
    places: Vec<(DirectoryId, Vec<u8>)>,
    /// The same as paths of the walked tree, as far as their directories have been met.
    paths: Vec<TreePath>,
}

impl Never {
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        let mut never = Self::default();
        for path in paths {
            // The name itself, even where it is a link; and what the link leads to.
            let target = std::fs::canonicalize(path).ok();
            for path in std::iter::once(path).chain(target.as_ref()) {
                never.places.extend(place(path).filter(|place| !never.places.contains(place)));
            }
        }
        never
    }

    /// Learns that the walk enters a directory.
    pub(super) fn enter(&mut self, path: &TreePath, id: DirectoryId) {
        for (directory, below) in &self.places {
            if *directory == id {
                let names = below.split(|byte| *byte == b'/');
                let hidden = names.into_iter().try_fold(path.clone(), |path, name| path.join(name));
                self.paths.extend(hidden.ok().filter(|hidden| !self.paths.contains(hidden)));
            }
        }
    }

    /// Tells whether an entry is never content.
    pub(super) fn hides(&self, path: &TreePath) -> bool {
        self.paths.contains(path)
    }
}

/// The nearest existing directory above a path, and the rest; `None` where there is no such thing.
fn place(path: &Path) -> Option<(DirectoryId, Vec<u8>)> {
    let path = std::path::absolute(path).ok()?;
    path.ancestors().skip(1).find_map(|directory| {
        let metadata = std::fs::metadata(directory).ok().filter(std::fs::Metadata::is_dir)?;
        let rest = path.strip_prefix(directory).ok()?;
        let plain = rest.components().all(|component| matches!(component, Component::Normal(_)));
        let id = DirectoryId { device: metadata.dev(), inode: metadata.ino() };
        plain.then(|| (id, rest.as_os_str().as_bytes().to_vec()))
    })
}
