use std::convert::Infallible;
use std::fs;

use super::*;
use crate::format::pack::BlockRecord;
use crate::id::SessionId;

fn pack(number: u32) -> PackName {
    PackName { begin: 7, session: SessionId::from_bytes([1; 16]), number }
}

/// Two blocks of two chunks.
fn table(number: u32) -> TableOfContents {
    let chunk = |n: u32| (ChunkId::of(&[number.to_le_bytes(), n.to_le_bytes()].concat()), 10 + n);
    let blocks = (0..2).map(|block| BlockRecord {
        offset: u64::from(block) * 100,
        length: 100,
        chunks: (0..2).map(|n| chunk(block * 2 + n)).collect(),
    });
    TableOfContents { blocks: blocks.collect(), ..TableOfContents::default() }
}

fn open(path: &Path) -> Journal {
    Journal::open(path.to_owned(), &[b"repository", b"main"])
}

fn chunks(journal: &Journal) -> Vec<(ChunkId, ChunkPlacement)> {
    let mut found = Vec::new();
    let Ok(()) = journal.each_chunk(|chunk, placement| {
        found.push((chunk, *placement));
        Ok::<(), Infallible>(())
    });
    found
}

/// A journal of two packs and two commits, as a process that was killed leaves it.
fn cut_short(path: &Path) {
    let journal = open(path);
    journal.start(7);
    journal.acknowledged(pack(0), &table(0));
    journal.note_create(8, CommitHash::of(b"8"));
    journal.acknowledged(pack(3), &table(3));
    journal.note_create(9, CommitHash::of(b"9"));
    journal.end(false);
}

#[test]
fn what_was_noted_is_found_again_and_gone_when_the_work_is_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("journal/file");
    assert_eq!(open(&path).left(), None);
    assert!(!path.exists(), "nothing was noted");
    cut_short(&path);
    let journal = open(&path);
    let left = Left { begin: 7, create: Some((9, vec![CommitHash::of(b"9")])) };
    assert_eq!(journal.left(), Some(left));
    let found = chunks(&journal);
    let last = ChunkPlacement { pack: pack(3), frame_offset: 100, frame_bytes: 100, offset: 12, bytes: 13 };
    assert_eq!((found.len(), found.last()), (8, Some(&(table(3).blocks[1].chunks[1].0, last))));
    // Another session goes on in it, and asks for the same number.
    journal.start(7);
    journal.acknowledged(pack(4), &table(4));
    journal.note_create(9, CommitHash::of(b"other"));
    journal.end(false);
    let journal = open(&path);
    assert_eq!(chunks(&journal).len(), 12);
    assert_eq!(journal.left().and_then(|left| left.create).expect("noted").1.len(), 2);
    journal.end(true);
    assert!(!path.exists());
}

#[test]
fn a_pack_of_many_chunks_is_noted_in_records_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let many = 3 * PACK_RECORD_BYTES / RECORD_BYTES;
    let chunks_of_block = (0..many as u32).map(|n| (ChunkId::of(&n.to_le_bytes()), 1)).collect();
    let block = BlockRecord { offset: 0, length: 100, chunks: chunks_of_block };
    let large = TableOfContents { blocks: vec![block], ..TableOfContents::default() };
    let journal = open(&path);
    journal.start(7);
    journal.acknowledged(pack(0), &large);
    journal.end(false);
    let found = chunks(&open(&path));
    assert_eq!(found.len(), many);
    let is_in_place = |(n, (chunk, placement)): (usize, &(ChunkId, ChunkPlacement))| {
        *chunk == ChunkId::of(&(n as u32).to_le_bytes()) && placement.offset == n as u32
    };
    assert!(found.iter().enumerate().all(is_in_place));
    // What was written before a cut is still of use.
    let bytes = fs::read(&path).expect("reads");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
    let left = chunks(&open(&path));
    assert!(!left.is_empty() && left.len() < many && found.starts_with(&left), "{}", left.len());
}

#[test]
fn a_commit_of_which_nobody_knows_keeps_the_journal() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let journal = open(&path);
    journal.start(7);
    journal.note_create(8, CommitHash::of(b"8"));
    assert!(journal.is_open());
    journal.end(true);
    assert!(path.exists());
    let journal = open(&path);
    journal.settled();
    journal.end(true);
    assert!(!path.exists());
}

#[test]
fn what_is_damaged_or_of_another_repository_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    cut_short(&path);
    let other = Journal::open(path.clone(), &[b"rep", b"ositorymain"]);
    assert_eq!((other.left(), chunks(&other).len()), (None, 0));
    other.end(false);
    cut_short(&path);
    let whole = fs::read(&path).expect("a journal");
    let all = chunks(&open(&path));
    let check = |what: &str| {
        let journal = open(&path);
        let found = chunks(&journal);
        assert!(
            found.len() < all.len()
                || journal.left().is_some_and(|left| left.create.is_none_or(|create| create.0 == 8)),
            "{what}"
        );
        assert_eq!(found, all[..found.len()], "{what}");
        // Whoever goes on behind it is found again.
        journal.start(7);
        journal.acknowledged(pack(5), &table(5));
        journal.end(false);
        assert_eq!(chunks(&open(&path)).len(), found.len() + 4, "{what}");
    };
    for at in 0..whole.len() {
        fs::write(&path, &whole[..at]).expect("cut");
        check(&format!("cut to {at}"));
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&path, flipped).expect("flipped");
        check(&format!("flipped at {at}"));
    }
}

#[test]
fn one_journal_has_one_begin() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    cut_short(&path);
    let journal = open(&path);
    journal.start(8);
    journal.end(false);
    let journal = open(&path);
    assert_eq!((journal.left(), chunks(&journal).len()), (Some(Left { begin: 8, create: None }), 0));
    // A pack of another begin would not be protected by it.
    journal.acknowledged(pack(0), &table(0));
    assert_eq!(chunks(&journal).len(), 0);
}

#[test]
fn only_one_has_it_at_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file");
    let first = open(&path);
    let second = open(&path);
    first.start(7);
    second.start(7);
    second.acknowledged(pack(9), &table(9));
    first.acknowledged(pack(0), &table(0));
    let third = open(&path);
    assert_eq!(third.left(), None);
    third.start(7);
    second.end(true);
    third.end(true);
    first.end(false);
    let again = open(&path);
    assert_eq!(chunks(&again).iter().map(|(_, placement)| placement.pack.number).max(), Some(0));
}
