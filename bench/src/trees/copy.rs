//! A copy of a real tree, with times; at a scale below 1 only that part of the files, spread evenly.

use std::fs;
use std::path::Path;

use crate::failure::{Outcome, Tried};
use crate::walk::{Kind, walk};

/// Copies `from` to `to`, which does not exist yet.
pub fn copy(from: &Path, to: &Path, scale: f64) -> Outcome<()> {
    let mut quota = 0.0;
    for found in walk(from)? {
        let (source, target) = (from.join(&found.path), to.join(&found.path));
        quota += scale;
        match found.kind {
            Kind::Folder => {}
            _ if quota < 1.0 => {}
            Kind::Link => {
                make_parent(&target)?;
                let leads = fs::read_link(&source).on("read the link", &source)?;
                std::os::unix::fs::symlink(leads, &target).on("create the link", &target)?;
            }
            Kind::File => {
                make_parent(&target)?;
                fs::copy(&source, &target).on("copy to", &target)?;
                set_time(&target, found.modified())?;
            }
        }
        if found.kind != Kind::Folder && quota >= 1.0 {
            quota -= 1.0;
        }
    }
    Ok(())
}

/// Sets the time of a file's last change.
pub fn set_time(path: &Path, time: std::time::SystemTime) -> Outcome<()> {
    fs::File::options().write(true).open(path).and_then(|file| file.set_modified(time)).on("set the time of", path)
}

fn make_parent(path: &Path) -> Outcome<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).on("create the folder", parent)
}
