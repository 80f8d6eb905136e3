//! Pages and blocks that no writer would make: paths that lead out, lengths that would allocate the world, bombs,
//! and pages that refer to each other as they must not. Everything that reads them says `Corrupt`, and a check names
//! them; nothing panics, hangs, or takes memory that was only claimed.
//!
//! Pages cannot refer to each other in a circle. The id of a page above the leaves is the hash of lines that hold the
//! ids of the pages below it, and the placement of a page holds the hash of its frame: whoever made a circle would
//! have found two hashes that contain each other. Even then levels sink by one at every step, and there are 33 of
//! them. What comes nearest is tried here: a page that names its own place, levels that do not sink, and pages that
//! are named again and again, so that a walk would never end.

use std::fs;
use std::sync::Arc;

use ghostsync_core::ErrorKind;
use ghostsync_core::entry::{ChunkList, EntryKind, FileContent};
use ghostsync_core::format::commit::Snapshot;
use ghostsync_core::format::frame;
use ghostsync_core::format::page::{Child, ListChild, PageBuilder, PageRef, Placed, Placement, entry_line};
use ghostsync_core::id::{ChunkId, ContentHash, PageId};
use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::maintain::{CheckOptions, ReadData, check};
use ghostsync_core::observer::Progress;
use ghostsync_core::repository::Repository;
use ghostsync_core::tree_path::TreePath;

use crate::hostile_snapshots::{
    assert_named, assert_sound, checked, directory, pack_name, repository_of, repository_with, small, try_restore,
};
use crate::small_writer::{PackWriter, bare, entry, file};

const HEADER: &str =
    r#"{"kind":"tree","level":0,"packs":["00000000000000000001-09090909090909090909090909090909/000000"]}"#;
const NO_PLACES: &str = r#"{"chunks":{},"pages":{}}"#;
const ROOT: &str = r#"{"path":"","kind":"dir","mode":493,"uid":0,"gid":0,"mtime":[0,0]}"#;

/// Nothing but `Corrupt` comes out of it: neither by a restore, nor by reading it; and a check names it.
async fn assert_refused(repository: &Repository, what: &str) {
    assert_named(repository, ReadData::No, what).await;
    assert_named(repository, ReadData::All, what).await;
    let folder = tempfile::tempdir().expect("a folder");
    let destination = folder.path().join("a/destination");
    let error = try_restore(repository, &destination, false).await.expect_err(what);
    assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{what}: {error}");
    assert!(!error.to_string().contains('\u{1b}'), "{what}: {error}");
    assert!(!folder.path().join("a/escaped").exists() && !folder.path().join("escaped").exists(), "{what}");
    let state = repository.state().await.expect("a state");
    let mut entries = repository.entries(state.commit.head("main").expect("a head"), &TreePath::root());
    let read = loop {
        match entries.next_page().await {
            Ok(None) => break Ok(()),
            Ok(Some(_)) => {}
            Err(error) => break Err(error),
        }
    };
    // A list of chunks is looked at when the file is, and directories when something is made in them.
    assert!(read.is_err() || what.starts_with("a list") || what.starts_with("an entry"), "{what}");
}

async fn assert_lines_are_refused(what: &str, header: &str, lines: &str, placements: &str) {
    let repository = repository_with(|_, meta, snapshot| {
        snapshot.entries = 1;
        meta.push_text(0, header, lines, placements)
    })
    .await;
    assert_refused(&repository, what).await;
}

fn path_line(path: &str) -> String {
    format!(r#"{{{path},"kind":"fifo","mode":420,"uid":0,"gid":0,"mtime":[0,0]}}"#)
}

#[tokio::test]
async fn paths_that_lead_out_are_refused_before_anything_is_done_with_them() {
    let long_name = format!(r#""path":"{}""#, "n".repeat(1025));
    let long_path = format!(r#""path":"{}x""#, "n/".repeat(33_000));
    for path in [
        r#""path":"..""#,
        r#""path":"../escaped""#,
        r#""path":"a/../../escaped""#,
        r#""path":".""#,
        r#""path":"./a""#,
        r#""path":"a//b""#,
        r#""path":"a/""#,
        r#""path":"/escaped""#,
        r#""path":"a\u0000b""#,
        r#""path":"""#,
        r#""path_b64":"Li4vZXNjYXBlZA==""#,
        r#""path_b64":"/y8uLi8uLi9lc2NhcGVk""#,
        r#""path_b64":"*""#,
        r#""path":"a","path_b64":"/w==""#,
        r#""path":"b","link":"../a""#,
        r#""path":"b","link":"""#,
        r#""path":"b","link":"c""#,
        &long_name,
        &long_path,
    ] {
        assert_lines_are_refused(path, HEADER, &format!("{ROOT}\n{}\n", path_line(path)), NO_PLACES).await;
    }
}

#[tokio::test]
async fn lengths_that_would_allocate_the_world_are_refused() {
    let hash = ContentHash::of(b"x");
    let line = |fields: &str| {
        let common = format!(r#""path":"a","kind":"file","mode":420,"uid":0,"gid":0,"mtime":[0,0],"hash":"{hash}""#);
        format!("{ROOT}\n{{{common},{fields}}}\n")
    };
    let max = u64::MAX;
    for fields in [
        format!(r#""size":{max},"holes":[[0,{max}]]"#),
        format!(r#""size":{},"holes":[[0,{}]]"#, (1_u64 << 53) + 1, (1_u64 << 53) + 1),
        r#""size":18446744073709551616"#.to_owned(),
        r#""size":-1"#.to_owned(),
        r#""size":1e300"#.to_owned(),
        format!(r#""size":1,"holes":[[{max},1]]"#),
        format!(r#""size":1,"holes":[[1,{max}]]"#),
        format!(r#""size":{max}"#),
        format!(r#""size":1,"chunk_list":{{"page":"{hash}","level":255,"count":{max}}}"#),
        format!(r#""size":1,"chunk_list":{{"page":"{hash}","level":32,"count":{max}}}"#),
        r#""size":1,"chunks":[]"#.to_owned(),
    ] {
        assert_lines_are_refused(&fields, HEADER, &line(&fields), NO_PLACES).await;
    }
    let one = line(r#""size":1"#);
    for row in [
        "[0,0,4294967295,0,1]",
        "[0,18446744073709551615,10,0,1]",
        "[0,0,10,4294967295,1]",
        "[0,0,10,0,4294967295]",
        "[0,0,10,0,0]",
        "[4294967295,0,10,0,1]",
        "[0,0,10,0,18446744073709551615]",
    ] {
        let places = format!(r#"{{"chunks":{{"{hash}":{row}}},"pages":{{}}}}"#);
        assert_lines_are_refused(row, HEADER, &one, &places).await;
    }
    let listed = line(&format!(r#""size":1,"chunk_list":{{"page":"{hash}","level":0,"count":1}}"#));
    for row in ["[0,0,4294967295,", "[0,18446744073709551615,1,", "[7,0,1,"] {
        let places = format!(r#"{{"chunks":{{}},"pages":{{"{hash}":{row}"{hash}"]}}}}"#);
        assert_lines_are_refused(row, HEADER, &listed, &places).await;
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, header, lines, places) in [
        ("a level", HEADER.replace(r#""level":0"#, r#""level":33"#), ROOT, NO_PLACES),
        ("a kind", HEADER.replace(r#""tree""#, r#""\u001b[2J""#), ROOT, NO_PLACES),
        ("an unknown entry", HEADER.to_owned(), &ROOT.replace(r#""dir""#, r#""\u001b[2J""#), NO_PLACES),
        ("nested JSON", HEADER.to_owned(), &nested, NO_PLACES),
        ("nested placements", HEADER.to_owned(), ROOT, &nested),
    ] {
        assert_lines_are_refused(what, &header, &format!("{lines}\n"), places).await;
    }
    let lines = format!("{ROOT}\n{}", format!("{}\n", path_line(r#""path":"a""#)).repeat(4097));
    assert_lines_are_refused("too many lines", HEADER, &lines, NO_PLACES).await;
}

/// A frame without the size of its content, as a stream makes it.
fn streamed(content: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(content, 3).expect("compresses")
}

/// A frame that claims another size of its content.
fn claiming(content: &[u8], size: u32) -> Vec<u8> {
    let mut bomb = frame::compress("bomb", content).expect("compresses");
    let descriptor = bomb[4];
    assert_eq!(descriptor >> 6, 2, "it has four bytes of size");
    // They follow the window, which is not there in a frame of a single segment.
    let at = if descriptor & 0x20 == 0 { 6 } else { 5 };
    bomb[at..at + 4].copy_from_slice(&size.to_le_bytes());
    bomb
}

#[tokio::test]
async fn bombs_cost_their_limit_and_no_more() {
    let zeros = vec![0; 100 << 20];
    let bombs = [
        ("whole", frame::compress("bomb", &zeros).expect("compresses")),
        ("streamed", streamed(&zeros)),
        ("claims little", claiming(&zeros, 100)),
        ("claims much", claiming(&zeros[..1 << 20], u32::MAX)),
    ];
    for (what, bomb) in bombs {
        assert!(bomb.len() < 20_000);
        let id = PageId::of(b"");
        let page = bomb.clone();
        assert_refused(&repository_with(|_, meta, _| meta.push_stored(0, page, id)).await, what).await;

        let repository = repository_of(|data| {
            let placement = data.push_stored_block(bomb, 1);
            vec![directory(b""), file(b"bomb", &[(b"\0", placement)], &[], no_list), small(data, b"good", b"x")]
        })
        .await;
        assert_named(&repository, ReadData::All, what).await;
        let folder = tempfile::tempdir().expect("a folder");
        let destination = folder.path().join("destination");
        let report = try_restore(&repository, &destination, true).await.expect("the rest");
        assert!(report.damaged && !destination.join("bomb").exists() && destination.join("good").exists(), "{what}");
    }
}

#[tokio::test]
async fn a_frame_need_not_say_how_much_it_holds() {
    let repository = repository_with(|data, meta, snapshot| {
        let placement = data.push_stored_block(streamed(b"x"), 1);
        let placed = file(b"a", &[(b"x", placement)], &[], no_list);
        (snapshot.entries, snapshot.bytes) = (1, 1);
        let mut builder = PageBuilder::tree(0);
        for placed in [directory(b""), placed] {
            builder.push_entry(&entry_line(&placed.entry).expect("encodes"), &placed);
        }
        let whole = builder.encode().expect("encodes");
        let content = frame::decompress("page", &whole.frame, 1 << 20).expect("a page");
        meta.push_stored(0, streamed(&content), whole.page)
    })
    .await;
    assert_sound(&repository, "streamed frames").await;
    let folder = tempfile::tempdir().expect("a folder");
    let destination = folder.path().join("destination");
    assert!(!try_restore(&repository, &destination, false).await.expect("a restore").damaged);
    assert_eq!(fs::read(destination.join("a")).expect("there"), b"x");
}

fn no_list(_: &[(ChunkId, ghostsync_core::format::page::ChunkPlacement)]) -> PageRef {
    panic!("no list")
}

fn leaf(meta: &mut PackWriter, entries: &[Placed]) -> Child {
    let mut builder = PageBuilder::tree(0);
    for placed in entries {
        builder.push_entry(&entry_line(&placed.entry).expect("encodes"), placed);
    }
    let counted = entries.iter().filter(|placed| placed.entry.counts()).count() as u64;
    let last = entries.last().expect("one").entry.path.clone();
    Child { last, page: meta.push_built(0, builder), entries: counted, bytes: 0 }
}

fn above(meta: &mut PackWriter, level: u8, children: &[Child]) -> PageRef {
    let mut builder = PageBuilder::tree(level);
    children.iter().for_each(|child| builder.push_child(child).expect("encodes"));
    meta.push_built(level, builder)
}

fn fifo(path: &[u8]) -> Placed {
    bare(entry(path, EntryKind::Fifo))
}

type Make = fn(&mut PackWriter, &mut Snapshot) -> PageRef;

#[tokio::test]
async fn pages_that_do_not_fit_together_are_refused() {
    let cases: [(&str, Make); 9] = [
        ("an entry of the second page has no directory", |meta, _| {
            let children = [leaf(meta, &[directory(b""), fifo(b"a")]), leaf(meta, &[fifo(b"b/c")])];
            above(meta, 1, &children)
        }),
        ("pages overlap", |meta, _| {
            let mut first = leaf(meta, &[directory(b""), fifo(b"c")]);
            first.last = TreePath::parse("a").expect("a path");
            let second = leaf(meta, &[fifo(b"b"), fifo(b"d")]);
            above(meta, 1, &[first, second])
        }),
        ("a page is named twice", |meta, _| {
            let first = leaf(meta, &[directory(b""), fifo(b"a")]);
            let again = Child { last: TreePath::parse("b").expect("a path"), ..first.clone() };
            above(meta, 1, &[first, again])
        }),
        ("a child is of another level", |meta, _| {
            let child = leaf(meta, &[directory(b""), fifo(b"a")]);
            above(meta, 2, &[child])
        }),
        ("a root of another level", |meta, _| {
            let child = leaf(meta, &[directory(b""), fifo(b"a")]);
            PageRef { level: 1, ..child.page }
        }),
        ("a page that names its own place", |meta, _| {
            let mut child = leaf(meta, &[directory(b""), fifo(b"a")]);
            child.page.placement.offset = meta.bytes.len() as u64;
            above(meta, 1, &[child])
        }),
        ("levels that do not sink", |meta, _| {
            let child = leaf(meta, &[directory(b""), fifo(b"a")]);
            let page = above(meta, 1, std::slice::from_ref(&child));
            above(meta, 1, &[Child { page, ..child }])
        }),
        ("a list of chunks as a tree", |meta, _| {
            let chunk = (ChunkId::of(b"x"), placement());
            meta.push_list(&[chunk])
        }),
        ("a page that is not in its pack", |meta, _| {
            let mut child = leaf(meta, &[directory(b""), fifo(b"a")]);
            child.page.placement.offset = 1 << 29;
            child.page
        }),
    ];
    for (what, make) in cases {
        let repository = repository_with(|_, meta, snapshot| {
            snapshot.entries = 2;
            make(meta, snapshot)
        })
        .await;
        assert_refused(&repository, what).await;
    }
}

fn placement() -> ghostsync_core::format::page::ChunkPlacement {
    ghostsync_core::format::page::ChunkPlacement {
        pack: pack_name(0),
        frame_offset: 0,
        frame_bytes: 10,
        offset: 0,
        bytes: 1,
    }
}

#[tokio::test]
async fn wrong_figures_are_named_and_restored_all_the_same() {
    for wrong_record in [false, true] {
        let repository = repository_with(|_, meta, snapshot| {
            let mut children = [leaf(meta, &[directory(b""), fifo(b"a")]), leaf(meta, &[fifo(b"b")])];
            children[1].entries += u64::from(!wrong_record);
            snapshot.entries = if wrong_record { u64::MAX } else { 2 };
            snapshot.bytes = if wrong_record { u64::MAX } else { 0 };
            above(meta, 1, &children)
        })
        .await;
        let report = checked(&repository, ReadData::No).await;
        assert!(report.damage.len() == 1 && report.damage[0].affected == 0, "{:?}", report.damage);
        assert!(report.damage[0].message.contains("counts other entries"), "{:?}", report.damage);
        let folder = tempfile::tempdir().expect("a folder");
        let restored = try_restore(&repository, &folder.path().join("destination"), false).await.expect("a restore");
        assert!(!restored.damaged && restored.written >= 2);
    }
}

#[tokio::test]
async fn levels_may_be_as_many_as_there_are() {
    for (levels, is_sound) in [(32, true), (33, false)] {
        let repository = repository_with(|_, meta, snapshot| {
            snapshot.entries = 1;
            let mut child = leaf(meta, &[directory(b""), fifo(b"a")]);
            for level in 1..=levels {
                // The encoder does not look at the level, so one too many can be written.
                child.page = above(meta, level.min(32), std::slice::from_ref(&child));
            }
            child.page
        })
        .await;
        if is_sound {
            assert_sound(&repository, "32 levels").await;
        } else {
            assert_refused(&repository, "33 levels").await;
        }
    }
}

/// A file of so many bytes, each the same chunk, by a list in which every page names one page again and again.
fn endless(data: &mut PackWriter, meta: &mut PackWriter, count: impl FnOnce(u64) -> u64) -> Placed {
    let chunk = ChunkId::of(b"x");
    let placement = data.push_block(&[b"x"])[0];
    let mut builder = PageBuilder::list(0);
    for _ in 0..4096 {
        builder.push_chunk(chunk, placement).expect("encodes");
    }
    let mut page = meta.push_built(0, builder);
    let mut chunks = 4096;
    for level in 1..=3 {
        let mut builder = PageBuilder::list(level);
        for _ in 0..4096 {
            builder.push_list_child(&ListChild { last: chunk, page, chunks, bytes: chunks }).expect("encodes");
        }
        page = meta.push_built(level, builder);
        chunks *= 4096;
    }
    let chunks = ChunkList::Pages { root: page.page, level: page.level, count: count(chunks) };
    let content = FileContent { size: 1 << 48, hash: ContentHash::of(b"none knows"), chunks, holes: Vec::new() };
    Placed { entry: entry(b"endless", EntryKind::File(content)), content: Placement::List(Box::new(page)) }
}

#[tokio::test]
async fn a_list_that_would_take_years_to_follow_is_checked_at_once_and_read_only_until_somebody_stops_it() {
    let repository = repository_with(|data, meta, snapshot| {
        let entries = [directory(b""), endless(data, meta, |count| count)];
        (snapshot.entries, snapshot.bytes) = (1, 1 << 48);
        meta.push_tree(&entries)
    })
    .await;
    let report = checked(&repository, ReadData::No).await;
    assert_eq!((report.damage, report.pages), (Vec::new(), 6));
    let interrupt = Interrupt::default();
    let options = CheckOptions { read_data: ReadData::All, interrupt: interrupt.clone() };
    let stop = |progress| {
        if matches!(progress, Progress::Advanced { .. }) {
            interrupt.set();
        }
    };
    let error = check(&repository, options, &stop).await.expect_err("interrupted");
    assert_eq!(error.kind(), ErrorKind::Interrupted);

    let repository = repository_with(|data, meta, snapshot| {
        let entries = [directory(b""), endless(data, meta, |count| count - 1)];
        (snapshot.entries, snapshot.bytes) = (1, 1 << 48);
        meta.push_tree(&entries)
    })
    .await;
    assert_named(&repository, ReadData::No, "a list that is too long").await;
}

#[tokio::test]
async fn lists_that_do_not_match_their_files_are_refused() {
    type MakeList = fn(&mut PackWriter, &[(ChunkId, ghostsync_core::format::page::ChunkPlacement)]) -> PageRef;
    let cases: [(&str, MakeList); 3] = [
        ("a list that is too short", |meta, chunks| meta.push_list(&chunks[1..])),
        ("a list of other chunks", |meta, chunks| meta.push_list(&chunks.iter().rev().copied().collect::<Vec<_>>())),
        ("a list that is a tree", |meta, _| leaf(meta, &[directory(b""), fifo(b"a")]).page),
    ];
    for (what, make) in cases {
        let repository = repository_with(|data, meta, snapshot| {
            let contents: Vec<[u8; 2]> = (0..300_u16).map(u16::to_be_bytes).collect();
            let contents: Vec<&[u8]> = contents.iter().map(|content| &content[..]).collect();
            let placements = data.push_block(&contents);
            let chunks: Vec<_> = contents.into_iter().zip(placements).collect();
            let placed = file(b"large", &chunks, &[], |named| make(meta, named));
            (snapshot.entries, snapshot.bytes) = (1, 600);
            meta.push_tree(&[directory(b""), placed])
        })
        .await;
        if what != "a list of other chunks" {
            assert_refused(&repository, what).await;
            continue;
        }
        // Every chunk is right and so is their number: only the content of the whole shows it.
        assert_eq!(checked(&repository, ReadData::No).await.damage, [], "{what}");
        assert_eq!(checked(&repository, ReadData::Part { n: 1, m: 1 }).await.damage, [], "{what}");
        assert_named(&repository, ReadData::All, what).await;
    }
}

#[tokio::test]
async fn parts_of_a_check_read_every_block_once() {
    let repository = Arc::new(
        repository_of(|data| {
            let files = (0..40_u8).map(|number| small(data, &[b'a' + number / 8, b'0' + number % 8], &[number; 100]));
            std::iter::once(directory(b"")).chain(files).collect()
        })
        .await,
    );
    let whole = checked(&repository, ReadData::Part { n: 1, m: 1 }).await.read_bytes;
    assert_eq!(whole, 40 * 100 + b"honest".len() as u64);
    let mut parts = Vec::new();
    for n in 1..=3 {
        parts.push(checked(&repository, ReadData::Part { n, m: 3 }).await.read_bytes);
    }
    assert!(parts.iter().all(|part| (500..2500).contains(part)) && parts.iter().sum::<u64>() == whole, "{parts:?}");
}
