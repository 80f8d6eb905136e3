//! Changes and damages a tree: always the same ones for a seed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::failure::{Outcome, Tried};
use crate::random::Random;
use crate::trees::SEED;
use crate::walk::{Found, Kind, walk};

/// As long as the part of a file that a change overwrites, where the file is that long.
const EDIT_BYTES: u64 = 64;
/// A tree of fewer files is damaged in 1 % of its windows of this size instead.
const WINDOW_BYTES: u64 = 64 * 1024;
const FEW_FILES: usize = 100;

/// Overwrites some bytes in the middle of 1 % of the files, whose sizes stay; another `generation`, other files.
pub fn change(root: &Path, generation: u64) -> Outcome<()> {
    let mut random = Random::new(SEED + generation, 11);
    let files = files(root)?;
    for chosen in random.choose(files.len().div_ceil(100), files.len()) {
        overwrite(root, &files[chosen], files[chosen].size_bytes / 2, &mut random)?;
    }
    Ok(())
}

/// Damages 1 % of what lies under `root`: files removed, cut short and overwritten in turn; of few files, their windows.
pub fn damage(root: &Path, generation: u64) -> Outcome<()> {
    let mut random = Random::new(SEED + generation, 13);
    let files = files(root)?;
    if files.len() < FEW_FILES {
        for file in &files {
            let windows = file.size_bytes.div_ceil(WINDOW_BYTES) as usize;
            for window in random.choose(windows.div_ceil(100), windows) {
                overwrite(root, file, window as u64 * WINDOW_BYTES, &mut random)?;
            }
        }
        return Ok(());
    }
    for (turn, chosen) in random.choose(files.len().div_ceil(100), files.len()).into_iter().enumerate() {
        let path = root.join(&files[chosen].path);
        match turn % 3 {
            0 => fs::remove_file(&path).on("remove", &path)?,
            1 => File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(files[chosen].size_bytes / 2))
                .on("cut short", &path)?,
            _ => overwrite(root, &files[chosen], files[chosen].size_bytes / 2, &mut random)?,
        }
    }
    Ok(())
}

fn files(root: &Path) -> Outcome<Vec<Found>> {
    Ok(walk(root)?.into_iter().filter(|found| found.kind == Kind::File && found.size_bytes > 0).collect())
}

fn overwrite(root: &Path, file: &Found, from: u64, random: &mut Random) -> Outcome<()> {
    let mut bytes = vec![0; EDIT_BYTES.min(file.size_bytes - from.min(file.size_bytes)) as usize];
    for byte in &mut bytes {
        *byte = b'a' + random.between(0, 25) as u8;
    }
    let path = root.join(&file.path);
    File::options().write(true).open(&path).and_then(|file| file.write_all_at(&bytes, from)).on("overwrite", &path)
}
