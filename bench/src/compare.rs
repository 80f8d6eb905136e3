//! Is a restored tree equal to its source? Content, kinds and names must be; modes and times are counted.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome, Tried};
use crate::walk::{Found, Kind, walk};

/// How many entries came back otherwise than they were, in what a peer may not keep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub file_modes: u64,
    pub file_times: u64,
    pub folder_modes: u64,
    pub folder_times: u64,
    /// Folders without a file below them that are missing.
    pub empty_folders: u64,
}

impl Lost {
    /// In words, or nothing if all came back.
    pub fn words(&self) -> Vec<&'static str> {
        let lost = [
            (self.file_modes, "modes of files"),
            (self.file_times, "times of files"),
            (self.folder_modes, "modes of folders"),
            (self.folder_times, "times of folders"),
            (self.empty_folders, "empty folders"),
        ];
        lost.into_iter().filter(|(count, _)| *count > 0).map(|(_, what)| what).collect()
    }
}

/// Compares; fails when a name, a kind, a link or a byte differs, or when anything is there that should not be.
///
/// The root itself is left out: each tool is given one that exists.
pub fn compare(source: &Path, restored: &Path) -> Outcome<Lost> {
    let mut lost = Lost::default();
    let (wanted, got) = (walk(source)?, walk(restored)?);
    let mut got = got.into_iter().peekable();
    let mut buffers = (vec![0; 128 * 1024], vec![0; 128 * 1024]);
    for want in &wanted {
        if got.peek().is_some_and(|have| have.path < want.path) {
            break;
        }
        let Some(have) = got.next_if(|have| have.path == want.path) else {
            if want.kind == Kind::Folder
                && !wanted.iter().any(|other| other.kind != Kind::Folder && other.path.starts_with(&want.path))
            {
                lost.empty_folders += 1;
                continue;
            }
            return Err(wrong("is missing", want, restored));
        };
        if want.kind != have.kind || (want.kind == Kind::File && want.size_bytes != have.size_bytes) {
            return Err(wrong("has another kind or size", want, restored));
        }
        match want.kind {
            Kind::Link => {
                let leads = |root: &Path| fs::read_link(root.join(&want.path)).on("read the link", &want.path);
                if leads(source)? != leads(restored)? {
                    return Err(wrong("leads elsewhere", want, restored));
                }
            }
            Kind::File => {
                if !same_bytes(&source.join(&want.path), &restored.join(&want.path), &mut buffers)? {
                    return Err(wrong("has other bytes", want, restored));
                }
                lost.file_modes += u64::from(want.mode != have.mode);
                lost.file_times += u64::from(want.modified != have.modified);
            }
            Kind::Folder => {
                lost.folder_modes += u64::from(want.mode != have.mode);
                lost.folder_times += u64::from(want.modified != have.modified);
            }
        }
    }
    match got.next() {
        Some(more) => Err(wrong("should not be there", &more, restored)),
        None => Ok(lost),
    }
}

fn wrong(what: &str, found: &Found, restored: &Path) -> Failure {
    Failure::new(format!("the restore is wrong: {} {what}, in {}", found.path.display(), restored.display()))
}

fn same_bytes(one: &Path, other: &Path, buffers: &mut (Vec<u8>, Vec<u8>)) -> Outcome<bool> {
    let mut first = File::open(one).on("open", one)?;
    let mut second = File::open(other).on("open", other)?;
    loop {
        let count = first.read(&mut buffers.0).on("read", one)?;
        if count == 0 {
            return Ok(second.read(&mut buffers.1).on("read", other)? == 0);
        }
        if second.read_exact(&mut buffers.1[..count]).is_err() || buffers.0[..count] != buffers.1[..count] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn trees(name: &str) -> (PathBuf, PathBuf) {
        let base = std::env::temp_dir().join(format!("ghostsync-bench-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        let pair = (base.join("source"), base.join("restored"));
        for root in [&pair.0, &pair.1] {
            fs::create_dir_all(root.join("folder")).unwrap();
            fs::write(root.join("folder/file"), b"content").unwrap();
            fs::File::open(root.join("folder/file")).unwrap().set_modified(crate::trees::wide::year_2024(1)).unwrap();
        }
        pair
    }

    #[test]
    fn an_equal_tree_is_equal_and_a_lost_time_is_counted() {
        let (source, restored) = trees("equal");
        assert_eq!(compare(&source, &restored).unwrap().file_times, 0);
        fs::File::open(restored.join("folder/file")).unwrap().set_modified(crate::trees::wide::year_2024(2)).unwrap();
        assert_eq!(compare(&source, &restored).unwrap().file_times, 1);
        fs::remove_dir_all(source.parent().unwrap()).unwrap();
    }

    #[test]
    fn another_byte_a_missing_file_and_one_too_many_are_wrong() {
        let (source, restored) = trees("wrong");
        fs::write(restored.join("folder/file"), b"CONTENT").unwrap();
        assert!(compare(&source, &restored).unwrap_err().0.contains("has other bytes"));
        fs::write(restored.join("folder/file"), b"content").unwrap();
        fs::write(restored.join("folder/a"), b"").unwrap();
        assert!(compare(&source, &restored).unwrap_err().0.contains("should not be there"));
        fs::remove_file(restored.join("folder/a")).unwrap();
        fs::remove_file(restored.join("folder/file")).unwrap();
        assert!(compare(&source, &restored).unwrap_err().0.contains("is missing"));
        fs::remove_dir_all(source.parent().unwrap()).unwrap();
    }
}
