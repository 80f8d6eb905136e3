//! `wide`: tiny files, up to 300 bytes of text, 1,000 to a folder.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::SEED;
use crate::failure::{Outcome, Tried};
use crate::random::{Random, Words};

/// Makes `files` files in `folder`.
pub fn make(folder: &Path, files: u64) -> Outcome<()> {
    let mut random = Random::new(SEED, 3);
    let words = Words::new(&mut random);
    let mut text = Vec::new();
    for number in 0..files {
        let within = folder.join(format!("{:04}", number / 1000));
        if number % 1000 == 0 {
            fs::create_dir_all(&within).on("create the folder", &within)?;
        }
        text.clear();
        writeln!(text, "{number}").tried(|| "write text".into())?;
        let size = random.between(0, 290) as usize;
        words.write(&mut random, size, &mut text);
        let path = within.join(format!("{number:07}.txt"));
        let mut file = fs::File::create(&path).on("create", &path)?;
        file.write_all(&text).and_then(|()| file.set_modified(year_2024(number))).on("write", &path)?;
    }
    Ok(())
}

/// A time in 2024, another one for each number.
pub fn year_2024(number: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_704_067_200 + number % 30_000_000, (number % 1_000_000_000) as u32)
}
