//! The blocks of `docs/operations.md` that show a command and what it prints.

use std::fs;
use std::path::Path;

/// A command line, and what it prints.
pub(crate) struct Block {
    pub(crate) line: String,
    pub(crate) expected: String,
}

/// The blocks that begin with "```console", or those that need a store, with "```console on STORE".
pub(crate) fn documented(store: Option<&str>) -> Vec<Block> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let page = fs::read_to_string(page).expect("the page");
    let begin = store.map_or("```console\n$ ".to_owned(), |store| format!("```console on {store}\n$ "));
    let blocks = page.split(&begin).skip(1);
    blocks
        .map(|block| {
            let block = block.split("```").next().expect("an end");
            let (line, expected) = block.split_once('\n').expect("a command and its output");
            Block { line: line.to_owned(), expected: expected.to_owned() }
        })
        .collect()
}
