//! Random directory trees: a model in memory, written to disk, changed alike in both places, and compared naively.
//!
//! ```text
//! tree()    -> TreeModel -> write to a directory
//! changes() -> Change    -> apply to the model and to the directory
//! differences(a, b): what tells two directories apart, found without any code of this crate
//! ```
//! The model lets tests ask what should be there; [`differences`] lets them ask whether it is there again.

mod change;
mod compare;
mod strategy;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

pub use change::{Change, apply};
pub use compare::{Described, Description, differences, read_back};
pub use strategy::{changes, names, nodes, tree};

use crate::entry::FileTime;
use crate::tree_path::TreePath;

/// A directory tree without its root: names that lead to nodes; several names of one file are hard links.
#[derive(Debug, Clone, Default)]
pub struct TreeModel {
    names: BTreeMap<TreePath, usize>,
    nodes: BTreeMap<usize, Node>,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// The lowest 12 bits of its mode; of no meaning for links. The owner can always read and write.
    pub mode: u32,
    /// Its mtime; `None` for whatever the clock said when it was changed.
    pub mtime: Option<FileTime>,
    /// The value of `user.test`, on files and directories, where the file system has attributes.
    pub attribute: Option<Vec<u8>>,
}

/// The kinds of nodes that anybody may make; [`super::cabinet`] has the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file, piece by piece.
    File(Vec<Piece>),
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Noise: equal seeds and lengths are equal bytes.
    Data {
        /// Which noise.
        seed: u64,
        /// How much.
        bytes: usize,
    },
    /// Nothing written; a hole where the file system has holes.
    Hole {
        /// How much.
        bytes: u64,
    },
}

impl Piece {
    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Data { bytes, .. } => *bytes as u64,
            Self::Hole { bytes } => *bytes,
        }
    }
}

impl Node {
    /// The content, if it is a file.
    #[must_use]
    pub fn content(&self) -> Option<Vec<u8>> {
        let NodeKind::File(pieces) = &self.kind else { return None };
        let mut content = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Data { seed, bytes } => content.extend(noise(*seed, *bytes)),
                Piece::Hole { bytes } => content.resize(content.len() + usize::try_from(*bytes).ok()?, 0),
            }
        }
        Some(content)
    }
}

/// Bytes that do not compress and are the same every time.
#[must_use]
pub fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

impl TreeModel {
    /// What a path leads to.
    #[must_use]
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(self.names.get(path)?)
    }

    /// Every path and what it leads to, in tree order.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.names.iter().filter_map(|(path, id)| Some((path, self.nodes.get(id)?)))
    }

    /// All names of the file that a path leads to, in tree order, itself among them.
    #[must_use]
    pub fn links(&self, path: &TreePath) -> Vec<&TreePath> {
        let id = self.names.get(path);
        self.names.iter().filter(|(_, other)| Some(*other) == id).map(|(path, _)| path).collect()
    }

    /// The number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Tells whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Adds a node under a name; `false`, and nothing is changed, if the name is taken or its directory is not there.
    pub fn insert(&mut self, path: TreePath, node: Node) -> bool {
        let free = self.is_free(&path);
        if free {
            let id = self.nodes.last_key_value().map_or(0, |(id, _)| id + 1);
            self.nodes.insert(id, node);
            self.names.insert(path, id);
        }
        free
    }

    /// Gives a file another name; `false`, and nothing is changed, if it is no file or the name is not free.
    pub fn link(&mut self, path: &TreePath, name: TreePath) -> bool {
        let is_file = self.get(path).is_some_and(|node| matches!(node.kind, NodeKind::File(_)));
        let free = is_file && self.is_free(&name);
        if let (true, Some(id)) = (free, self.names.get(path).copied()) {
            self.names.insert(name, id);
        }
        free
    }

    fn is_free(&self, path: &TreePath) -> bool {
        !path.is_root()
            && !self.names.contains_key(path)
            && path.parent().is_some_and(|parent| self.is_directory(&parent))
    }

    fn is_directory(&self, path: &TreePath) -> bool {
        path.is_root() || self.get(path).is_some_and(|node| node.kind == NodeKind::Directory)
    }

    /// Every directory, the root first.
    fn directories(&self) -> Vec<TreePath> {
        let below = self.iter().filter(|(_, node)| node.kind == NodeKind::Directory).map(|(path, _)| path.clone());
        std::iter::once(TreePath::root()).chain(below).collect()
    }

    fn remove(&mut self, path: &TreePath) {
        self.names.retain(|name, _| !name.starts_with(path));
        let named: std::collections::BTreeSet<_> = self.names.values().collect();
        self.nodes.retain(|id, _| named.contains(id));
    }

    /// Writes the tree into an empty directory.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let mut first_names: BTreeMap<usize, &TreePath> = BTreeMap::new();
        for (path, id) in &self.names {
            match (first_names.get(id), self.nodes.get(id)) {
                (Some(first), _) => fs::hard_link(on_disk(directory, first), on_disk(directory, path))?,
                (None, Some(node)) => create(node, &on_disk(directory, path))?,
                (None, None) => {}
            }
            first_names.entry(*id).or_insert(path);
        }
        // From the innermost out: what is made in a directory changes its mtime.
        for (path, node) in self.iter().collect::<Vec<_>>().into_iter().rev() {
            describe(node, &on_disk(directory, path))?;
        }
        Ok(())
    }
}

/// The path of the file system that a path of the tree stands for.
#[must_use]
pub fn on_disk(directory: &Path, path: &TreePath) -> PathBuf {
    directory.join(OsStr::from_bytes(path.as_bytes()))
}

/// Makes a node, without its metadata.
fn create(node: &Node, path: &Path) -> io::Result<()> {
    match &node.kind {
        NodeKind::File(pieces) => write_pieces(&mut File::create_new(path)?, pieces),
        NodeKind::Directory => fs::create_dir(path),
        NodeKind::Symlink(target) => std::os::unix::fs::symlink(OsStr::from_bytes(target), path),
        NodeKind::Fifo => Ok(rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from(0o600), 0)?),
    }
}

/// Writes pieces at the end of a file.
fn write_pieces(file: &mut File, pieces: &[Piece]) -> io::Result<()> {
    use std::io::Seek;
    for piece in pieces {
        let end = file.seek(io::SeekFrom::End(0))?;
        match piece {
            Piece::Data { seed, bytes } => file.write_all(&noise(*seed, *bytes))?,
            Piece::Hole { bytes } => file.set_len(end + bytes)?,
        }
    }
    Ok(())
}

/// Opens a file for changing it, whatever its mode is.
fn open_to_change(path: &Path) -> io::Result<File> {
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    OpenOptions::new().write(true).open(path)
}

/// Sets the metadata that a node is to have.
fn describe(node: &Node, path: &Path) -> io::Result<()> {
    if let (Some(value), NodeKind::File(_) | NodeKind::Directory) = (&node.attribute, &node.kind) {
        match rustix::fs::lsetxattr(path, c"user.test", value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    if !matches!(node.kind, NodeKind::Symlink(_)) {
        fs::set_permissions(path, Permissions::from_mode(node.mode))?;
    }
    node.mtime.map_or(Ok(()), |mtime| set_mtime(path, mtime))
}

/// Sets an mtime, of a link itself too, and leaves the atime alone.
///
/// # Errors
/// The system's. What the file system cannot store is cut without an error.
pub fn set_mtime(path: &Path, mtime: FileTime) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests;
