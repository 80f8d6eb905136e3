//! Two directories compared naively: the judge of every backup and restore, and so free of the code it judges.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

use crate::tree_path::TreePath;

/// Everything that a directory holds, itself under the empty path. Sockets are left out: no backup keeps them.
pub type Description = BTreeMap<TreePath, Described>;

/// One entry as it is on disk, in a form that two directories can share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// `file`, `dir`, `symlink`, `fifo`, `char` or `block`.
    pub kind: &'static str,
    /// The lowest 12 bits of the mode; 0 for links, whose mode nobody can set.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u64),
    /// Bytes of a file.
    pub size: u64,
    /// Of a file: a hash that depends on the bytes alone, not on what of them are holes.
    pub content: Option<blake3::Hash>,
    /// Of a link.
    pub target: Option<Vec<u8>>,
    /// Of a device: its number.
    pub device: u64,
    /// Every extended attribute that can be read.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name, in tree order, of several that lead to the same file.
    pub linked_to: Option<TreePath>,
}

/// Tells what is different between two directories, one line for each difference; none if they hold the same.
///
/// Compared are names, kinds, content, link targets, modes, owners, mtimes in nanoseconds of everything, extended
/// attributes, device numbers, and which names are hard links of one another.
#[must_use]
pub fn differences(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = match (read_back(a), read_back(b)) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => {
            let failed = [a.err(), b.err()].into_iter().flatten();
            return failed.map(|error| format!("cannot read a directory: {error}")).collect();
        }
    };
    let mut lines = Vec::new();
    for (path, in_a) in &a {
        match b.get(path) {
            None => lines.push(format!("{path:?}: only in the first")),
            Some(in_b) => lines.extend(in_a.differences(in_b).into_iter().map(|line| format!("{path:?}: {line}"))),
        }
    }
    lines.extend(b.keys().filter(|path| !a.contains_key(path)).map(|path| format!("{path:?}: only in the second")));
    lines
}

impl Described {
    fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut compare = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
            let (a, b) = (format!("{a:?}"), format!("{b:?}"));
            if a != b {
                lines.push(format!("{what}: {a:.200} and {b:.200}"));
            }
        };
        compare("kind", &self.kind, &other.kind);
        compare("mode", &format_args!("{:o}", self.mode), &format_args!("{:o}", other.mode));
        compare("owner", &(self.uid, self.gid), &(other.uid, other.gid));
        compare("mtime", &self.mtime, &other.mtime);
        compare("size", &self.size, &other.size);
        compare("content", &self.content, &other.content);
        compare("target", &self.target, &other.target);
        compare("device", &self.device, &other.device);
        compare("attributes", &self.xattrs, &other.xattrs);
        compare("hard link", &self.linked_to, &other.linked_to);
        lines
    }
}

/// Reads everything that a directory holds.
///
/// # Errors
/// The system's, with the path: whatever cannot be read makes all of it fail.
pub fn read_back(directory: &Path) -> io::Result<Description> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty())?;
    let mut description = Description::new();
    let mut inodes: BTreeMap<(u64, u64), Vec<TreePath>> = BTreeMap::new();
    let mut waiting = vec![TreePath::root()];
    while let Some(path) = waiting.pop() {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        let handle = open_deep(&root, &path).map_err(failed)?;
        if path.is_root() {
            let stat = rustix::fs::fstat(&handle)?;
            description.insert(TreePath::root(), look(&handle, b".", &stat)?);
        }
        for name in list(&handle).map_err(failed)? {
            let path = path.join(&name).map_err(io::Error::other)?;
            let failed = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
            let stat = rustix::fs::statat(&handle, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Socket => continue,
                FileType::Directory => waiting.push(path.clone()),
                _ => inodes.entry((stat.st_dev, stat.st_ino)).or_default().push(path.clone()),
            }
            description.insert(path.clone(), look(&handle, &name, &stat).map_err(failed)?);
        }
    }
    for mut names in inodes.into_values().filter(|names| names.len() > 1) {
        names.sort();
        for name in &names {
            if let Some(described) = description.get_mut(name) {
                described.linked_to = names.first().cloned();
            }
        }
    }
    Ok(description)
}

/// Opens a directory however long its path is, some names at a time.
fn open_deep(root: &OwnedFd, path: &TreePath) -> io::Result<OwnedFd> {
    let names: Vec<&[u8]> = path.components().collect();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut handle = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    for names in names.chunks(12) {
        handle = rustix::fs::openat(&handle, names.join(&b'/'), flags, Mode::empty())?;
    }
    Ok(handle)
}

fn list(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

#[allow(clippy::unnecessary_cast)] // the widths differ between processors
fn look(directory: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<Described> {
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let kind = match file_type {
        FileType::RegularFile => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::CharacterDevice => "char",
        FileType::BlockDevice => "block",
        other => return Err(io::Error::other(format!("{other:?}"))),
    };
    let is_device = matches!(kind, "char" | "block");
    Ok(Described {
        kind,
        mode: if kind == "symlink" { 0 } else { stat.st_mode & 0o7777 },
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        size: if kind == "file" { stat.st_size as u64 } else { 0 },
        content: if kind == "file" { Some(hash_content(directory, name)?) } else { None },
        target: match kind {
            "symlink" => Some(rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes()),
            _ => None,
        },
        device: if is_device { stat.st_rdev as u64 } else { 0 },
        xattrs: xattrs(directory, name)?,
        linked_to: None,
    })
}

/// Hashes the blocks that are not all zeros, each with its offset, and the size.
fn hash_content(directory: &OwnedFd, name: &[u8]) -> io::Result<blake3::Hash> {
    const BLOCK_BYTES: u64 = 64 * 1024;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
    let size = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    let mut offset = 0;
    while offset < size {
        match rustix::fs::seek(&file, SeekFrom::Data(offset)) {
            Ok(data) => offset = offset.max(data / BLOCK_BYTES * BLOCK_BYTES),
            Err(Errno::NXIO) => break,
            // The file system does not know its holes: everything is read.
            Err(_) => {}
        }
        let mut block = vec![0; usize::try_from(BLOCK_BYTES.min(size - offset)).unwrap_or(0)];
        file.read_exact_at(&mut block, offset)?;
        if block.iter().any(|byte| *byte != 0) {
            hasher.update(&offset.to_le_bytes()).update(&block);
        }
        offset += BLOCK_BYTES;
    }
    Ok(hasher.finalize())
}

fn xattrs(directory: &OwnedFd, name: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let mut buffer = vec![0_u8; 128 * 1024];
    let bytes = match rustix::fs::llistxattr(path.as_slice(), buffer.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let list = buffer.get(..bytes).unwrap_or_default().to_vec();
    let mut xattrs = BTreeMap::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty() && *name != b"security.selinux") {
        let bytes = rustix::fs::lgetxattr(path.as_slice(), name, buffer.as_mut_slice())?;
        xattrs.insert(name.to_vec(), buffer.get(..bytes).unwrap_or_default().to_vec());
    }
    Ok(xattrs)
}
