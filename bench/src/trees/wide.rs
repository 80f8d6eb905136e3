//! `wide`: tiny files, up to 300 bytes of text, 1,000 to a folder.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::SEED;
use crate::failure::{Failure, Outcome, Tried};
use crate::random::{Random, Words};
use crate::walk::walk;

const PER_FOLDER: u64 = 1000;

/// Makes `files` files in `folder`.
pub fn make(folder: &Path, files: u64) -> Outcome<()> {
    each(files, |number, within, text| {
        let path = folder.join(within);
        if let Some(parent) = path.parent().filter(|_| number % PER_FOLDER == 0) {
            fs::create_dir_all(parent).on("create the folder", parent)?;
        }
        let mut file = fs::File::create(&path).on("create", &path)?;
        file.write_all(text).and_then(|()| file.set_modified(year_2024(number))).on("write", &path)
    })
}

/// Fails unless `folder` holds what [`make`] makes, and nothing else.
pub fn check(folder: &Path, files: u64) -> Outcome<()> {
    let (found, wanted) = (walk(folder)?.len() as u64, entries(files));
    if found != wanted {
        return Err(Failure::new(format!("{} holds {found} entries instead of {wanted}", folder.display())));
    }
    each(files, |number, within, text| {
        let path = folder.join(within);
        let content = fs::read(&path).on("read", &path)?;
        let time = fs::metadata(&path).and_then(|metadata| metadata.modified()).on("look at", &path)?;
        if content == text && time == year_2024(number) {
            return Ok(());
        }
        Err(Failure::new(format!("the restore is wrong: {} is not as it was made", path.display())))
    })
}

/// How many files and folders there are.
pub fn entries(files: u64) -> u64 {
    files + files.div_ceil(PER_FOLDER)
}

/// Calls with the number, the path and the text of each file.
fn each(files: u64, mut call: impl FnMut(u64, &Path, &[u8]) -> Outcome<()>) -> Outcome<()> {
    let mut random = Random::new(SEED, 3);
    let words = Words::new(&mut random);
    let mut text = Vec::new();
    for number in 0..files {
        text.clear();
        writeln!(text, "{number}").tried(|| "write text".into())?;
        let size = random.between(0, 290) as usize;
        words.write(&mut random, size, &mut text);
        call(number, Path::new(&format!("{:04}/{number:07}.txt", number / PER_FOLDER)), &text)?;
    }
    Ok(())
}

/// A time in 2024, another one for each number.
pub fn year_2024(number: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_704_067_200 + number % 30_000_000, (number % 1_000_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_as_it_was_made_until_something_changes() {
        let base = std::env::temp_dir().join(format!("ghostsync-bench-wide-{}", std::process::id()));
        let root = base.as_path();
        make(root, 1200).expect("is made");
        check(root, 1200).expect("is right");
        check(root, 1199).expect_err("there is one more");
        let some = root.join("0001/0001100.txt");
        let content = fs::read(&some).expect("is there");
        fs::write(&some, &content).expect("is written");
        check(root, 1200).expect_err("the time is another");
        fs::write(&some, b"else").expect("is written");
        let file = fs::File::options().write(true).open(&some).expect("opens");
        file.set_modified(year_2024(1100)).expect("is set");
        check(root, 1200).expect_err("the content is another");
        fs::rename(&some, root.join("0001/other")).expect("moves");
        check(root, 1200).expect_err("the name is another");
        fs::remove_dir_all(root).expect("is removed");
    }
}
