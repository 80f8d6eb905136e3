//! `media`: 1,500 files of random bytes, 20 KB to 8 MB, 1 GB in all: like pictures and the odd film.

use std::fs;
use std::path::Path;

use super::SEED;
use super::wide::year_2024;
use crate::failure::{Outcome, Tried};
use crate::random::Random;

const FILES: f64 = 1500.0;

pub(super) fn make(folder: &Path, scale: f64) -> Outcome<()> {
    let mut random = Random::new(SEED, 1);
    let mut bytes = Vec::new();
    for number in 0..(FILES * scale).ceil() as u64 {
        let month = folder.join(format!("{:02}", number % 12));
        fs::create_dir_all(&month).on("create the folder", &month)?;
        // The smaller of three uniform sizes is most often small; the average is some 0.7 MB.
        let size = (0..3).map(|_| random.between(20_000, 2_700_000)).min().unwrap_or(20_000);
        let size = if random.between(0, 99) == 0 { random.between(4_000_000, 8_000_000) } else { size };
        bytes.resize(size as usize, 0);
        random.fill(&mut bytes);
        let path = month.join(format!("{number:04}.jpg"));
        fs::write(&path, &bytes).on("write", &path)?;
        super::copy::set_time(&path, year_2024(number))?;
    }
    Ok(())
}
