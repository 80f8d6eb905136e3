//! Which files are SQLite databases: those that say so themselves, whatever their names; and what SQLite keeps beside one.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use super::handle::{SourceRoot, open_beneath};
use crate::tree_path::TreePath;

/// The header of a database, at the begin of its first page.
const HEADER_BYTES: usize = 100;

/// What SQLite appends to a database's name (<https://www.sqlite.org/tempfiles.html>): the log of its pages and the index
/// of that, or the pages as they were before a transaction.
const TRANSIENTS: [&[u8]; 3] = [b"-wal", b"-shm", b"-journal"];

/// Tells whether a path names a transient of a database that is there now: SQLite removes it, or makes it empty, when a
/// transaction or the last connection ends.
pub(crate) fn is_transient(root: &SourceRoot, path: &TreePath) -> bool {
    let mut names = TRANSIENTS.iter().filter_map(|suffix| path.as_bytes().strip_suffix(*suffix));
    let Some(database) = names.next().and_then(|name| TreePath::parse(name).ok()) else { return false };
    // Whatever took its place is neither followed nor waited for.
    let opened = open_beneath(root.as_fd(), &database, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY);
    opened.map(File::from).is_ok_and(|file| file.metadata().is_ok_and(|found| found.is_file()) && is_database(&file))
}

/// Tells whether a file is a database. One that cannot be read is none.
pub(super) fn is_database(file: &File) -> bool {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).is_ok() && is_header(&header)
}

/// Tells whether these bytes begin a database (<https://www.sqlite.org/fileformat.html>): the magic, a page size that
/// can be, and three fractions that the format fixes, which a mere text is unlikely to have.
fn is_header(header: &[u8; HEADER_BYTES]) -> bool {
    let Some(rest) = header.strip_prefix(b"SQLite format 3\0") else { return false };
    let [high, low, _, _, _, fractions @ ..] = rest else { return false };
    // 1 stands for 65,536, the only size that two bytes cannot hold.
    let page_bytes = u16::from_be_bytes([*high, *low]);
    (page_bytes == 1 || page_bytes >= 512 && page_bytes.is_power_of_two()) && fractions.starts_with(&[64, 32, 32])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(page_bytes: u16) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..16].copy_from_slice(b"SQLite format 3\0");
        header[16..18].copy_from_slice(&page_bytes.to_be_bytes());
        header[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
        header
    }

    fn file(content: &[u8]) -> File {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(content, 0).expect("written");
        file
    }

    #[test]
    fn a_database_has_its_header_and_a_page_size_that_can_be() {
        for page_bytes in [512, 1024, 4096, 32768, 1] {
            assert!(is_database(&file(&header(page_bytes))), "{page_bytes}");
        }
        for page_bytes in [0, 2, 256, 513, 4095, 65535] {
            assert!(!is_database(&file(&header(page_bytes))), "{page_bytes}");
        }
    }

    #[test]
    fn a_transient_lies_beside_a_database_that_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("below/folder.db")).expect("created");
        for name in ["blog.db", "below/blog.db", "wal", "-wal", "blog.db-wal"] {
            std::fs::write(at(name), header(4096)).expect("written");
        }
        std::fs::write(at("text"), "is none").expect("written");
        std::fs::write(at("emptied.db"), "").expect("written");
        std::os::unix::fs::symlink("blog.db", at("link.db")).expect("linked");
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe.db"), rustix::fs::Mode::RUSR).expect("a pipe");
        let root = SourceRoot::open(folder.path()).expect("opened");
        let table = [
            ("blog.db-wal", true),
            ("blog.db-shm", true),
            ("blog.db-journal", true),
            ("below/blog.db-wal", true),
            // Its database is itself called like a transient.
            ("blog.db-wal-shm", true),
            ("blog.db-old", false),
            ("blog.db", false),
            ("blog.db-wal.bak", false),
            ("blog.db-WAL", false),
            // There is no such database, or not here.
            ("gone.db-wal", false),
            ("below/other.db-wal", false),
            ("wal-wal/x-wal", false),
            ("-wal", false),
            ("below/-wal", false),
            // Something else has its name.
            ("text-wal", false),
            ("emptied.db-wal", false),
            ("link.db-wal", false),
            ("pipe.db-wal", false),
            ("below/folder.db-wal", false),
        ];
        for (path, expected) in table {
            assert_eq!(is_transient(&root, &TreePath::parse(path).expect("a path")), expected, "{path}");
        }
    }

    #[test]
    fn what_only_begins_like_one_is_none() {
        let text = format!("SQLite format 3\0{}", "is what such a file begins with. ".repeat(10));
        let mut of_another_time = header(4096);
        of_another_time[21] = 63;
        let mut upper_case = header(4096);
        upper_case[..6].copy_from_slice(b"SQLITE");
        for content in
            [&b""[..], b"SQLite format 3", text.as_bytes(), &of_another_time, &upper_case, &header(4096)[..99]]
        {
            assert!(!is_database(&file(content)), "{content:?}");
        }
    }
}
