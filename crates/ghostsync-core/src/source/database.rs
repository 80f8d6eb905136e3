//! Which files are SQLite databases: those that say so themselves, whatever their names.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// The header of a database, at the begin of its first page.
const HEADER_BYTES: usize = 100;

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
