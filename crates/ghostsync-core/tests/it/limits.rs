//! The limits that `docs/format.md` promises are those of the code.

use std::collections::BTreeMap;

use ghostsync_core::format::{commit, config, pack, page};
use ghostsync_core::{entry, tree_path};

#[test]
fn the_limits_in_the_document_are_those_of_the_code() {
    let document = include_str!("../../../../docs/format.md");
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("| `MAX_")?.split_once("` | ")?;
        let (limit, _) = rest.split_once(" |")?;
        Some((name.to_owned(), limit.replace(',', "").parse::<u64>().expect("a number")))
    };
    let written: BTreeMap<_, _> = document.lines().filter_map(row).collect();
    let coded = [
        ("CONFIG_BYTES", config::MAX_CONFIG_BYTES),
        ("COMMIT_BYTES", commit::MAX_COMMIT_BYTES),
        ("PAGE_LINES", page::MAX_PAGE_LINES as u64),
        ("PAGE_BYTES", page::MAX_PAGE_BYTES as u64),
        ("ENTRY_BYTES", page::MAX_ENTRY_BYTES as u64),
        ("PAGE_CONTENT_BYTES", page::MAX_PAGE_CONTENT_BYTES),
        ("PAGE_FRAME_BYTES", page::MAX_PAGE_FRAME_BYTES),
        ("LEVEL", u64::from(page::MAX_LEVEL)),
        ("SEQ", commit::MAX_SEQ),
        ("FILE_BYTES", entry::MAX_FILE_BYTES),
        ("INLINE_CHUNKS", entry::MAX_INLINE_CHUNKS as u64),
        ("BLOCK_BYTES", pack::MAX_BLOCK_BYTES),
        ("BLOCK_FRAME_BYTES", pack::MAX_BLOCK_FRAME_BYTES),
        ("PACK_BYTES", pack::MAX_PACK_BYTES),
        ("TABLE_BYTES", pack::MAX_TABLE_BYTES),
        ("PATH_BYTES", tree_path::MAX_PATH_BYTES as u64),
        ("NAME_BYTES", tree_path::MAX_NAME_BYTES as u64),
    ];
    assert_eq!(written, coded.map(|(name, limit)| (name.to_owned(), limit)).into());
}
