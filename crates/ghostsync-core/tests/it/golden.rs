//! The written contract, kept by frozen bytes: `tests/golden/` holds a small repository as it is stored, what its
//! frames hold, and the ids and hashes that follow. The same values are encoded again and compared byte for byte.
//!
//! zstd may compress to other bytes in another version, which is no change of the format: so what a frame *holds*
//! is compared, the stored frame is decoded too, and hashes of frames are those of the stored ones.
//! After a meant change of the format, `WRITE_GOLDEN=1 cargo test golden` writes the files anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ghostsync_core::entry::{DeviceNumber, EntryKind, FileTime, Xattr};
use ghostsync_core::format::commit::{
    Branch, Changes, Commit, EmptiedCommit, Holder, LogEntry, Snapshot, TreeRef, Writer, decode_log_entry,
};
use ghostsync_core::format::config::{CommitMode, Config};
use ghostsync_core::format::frame;
use ghostsync_core::format::pack::TableOfContents;
use ghostsync_core::format::page::{Page, PageRef, Placed, Placement, decode, ends_list_page, ends_tree_page};
use ghostsync_core::id::{ChunkId, CommitHash, FrameHash, PackName, RepositoryId, SessionId, SnapshotId};
use ghostsync_core::tree_path::TreePath;
use serde_json::{Map, Value, json};

use crate::small_writer::{PackWriter, bare, entry, file};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn writes() -> bool {
    std::env::var_os("WRITE_GOLDEN").is_some()
}

/// Compares bytes with a frozen file, or freezes them.
fn check_file(name: &str, now: &[u8]) {
    let path = golden().join(name);
    if writes() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, now).expect("written");
    }
    let then = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(String::from_utf8_lossy(now), String::from_utf8_lossy(&then), "{name}");
    assert_eq!(now, then, "{name}");
}

/// Gives the stored bytes of an object whose newly made frame holds the same.
fn stored_frame(name: &str, made: Vec<u8>) -> Vec<u8> {
    if writes() {
        check_file(name, &made);
    }
    let stored = fs::read(golden().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let content = |frame| frame::decompress("golden frame", frame, 1 << 20).expect("a frame");
    assert_eq!(String::from_utf8_lossy(&content(&made)), String::from_utf8_lossy(&content(&stored)), "{name}");
    stored
}

fn pack_writer(name: PackName, kind: &str) -> PackWriter {
    if writes() {
        return PackWriter::new(name);
    }
    let stored = fs::read(golden().join(format!("repository/packs/{name}.{kind}"))).expect("a golden pack");
    PackWriter::frozen(name, &stored)
}

fn finish_pack(pack: PackWriter, kind: &str) -> Vec<u8> {
    let (name, table) = (format!("repository/packs/{}.{kind}", pack.name), pack.table.clone());
    let made = pack.finish();
    if writes() {
        check_file(&name, &made);
    }
    let stored = fs::read(golden().join(&name)).expect("a golden pack");
    assert_eq!(TableOfContents::decode(&stored).expect("decodes"), table);
    let frames = table.blocks.iter().map(|block| (block.offset, block.length));
    for (number, (offset, length)) in
        frames.chain(table.pages.iter().map(|page| (page.offset, page.length))).enumerate()
    {
        let content = frame::decompress("frame", &stored[offset as usize..][..length as usize], 1 << 20);
        let suffix = if kind == "meta" { "jsonl" } else { "txt" };
        check_file(&format!("content/{kind}-{number}.{suffix}"), &content.expect("a frame"));
    }
    let length = TableOfContents::length_from_footer(&stored[stored.len() - 8..]).expect("a footer") as usize;
    let payload = &stored[stored.len() - length + 8..stored.len() - 8];
    check_file(&format!("content/{kind}-table.json"), &frame::decompress("table", payload, 1 << 20).expect("a frame"));
    stored
}

fn session(byte: u8) -> SessionId {
    SessionId::from_bytes([byte; 16])
}

/// 300 chunks of 8 bytes of which exactly one, not the last, ends a page of their list.
fn big_chunks() -> Vec<String> {
    let chunks = |begin: u32| (begin..begin + 300).map(|number| format!("{number:07}\n")).collect::<Vec<_>>();
    let ends =
        |chunks: &[String]| chunks.iter().filter(|chunk| ends_list_page(0, ChunkId::of(chunk.as_bytes()))).count();
    (0..).step_by(100).map(chunks).find(|chunks| ends(chunks) == 1 && ends(&chunks[50..250]) == 1).expect("found")
}

/// Ends pages of levels 0 and 1; yet the page of level 1 goes on, since it has but one line here.
pub(crate) const LAST_OF_ITS_PAGE: &str = "v-245425";

/// Every kind of entry, on two leaves.
fn entries(data: &mut PackWriter, meta: &mut PackWriter) -> Vec<Placed> {
    let small: [&[u8]; 4] = [b"hello\n", b"first ", b"second\n", b"linked\n"];
    let places = data.push_block(&small);
    let chunk = |number: usize| (small[number], places[number]);
    let big = big_chunks();
    let big: Vec<&[u8]> = big.iter().map(|chunk| chunk.as_bytes()).collect();
    let big_places = data.push_block(&big);
    let big: Vec<_> = big.into_iter().zip(big_places).collect();
    let no_list = |_: &[_]| -> PageRef { unreachable!("few chunks") };
    let device = DeviceNumber { major: 8, minor: 1 };

    let mut directory = entry(b"a", EntryKind::Directory);
    directory.xattrs = vec![
        Xattr { name: b"user.comment".to_vec(), value: b"a value".to_vec() },
        Xattr { name: b"user.\xff".to_vec(), value: b"\x00\xff".to_vec() },
    ];
    let mut old = file(b"old", &[chunk(0)], &[], no_list);
    old.entry.mode = 0o4755;
    old.entry.mtime = FileTime { seconds: -1, nanoseconds: 999_999_999 };
    let linked = |path: &[u8]| {
        let mut placed = file(path, &[chunk(3)], &[], no_list);
        placed.entry.link = Some(TreePath::parse("link-1").expect("a path"));
        placed
    };
    let mut unread = file(b"unread", &[chunk(0)], &[], no_list);
    unread.entry.unread = true;
    let mut unstable = file(b"unstable", &[chunk(0)], &[], no_list);
    unstable.entry.unstable = true;
    let symlink = |target: &[u8]| EntryKind::Symlink { target: target.to_vec() };
    vec![
        bare(entry(b"", EntryKind::Directory)),
        bare(directory),
        file(b"a/empty", &[], &[], no_list),
        file(b"a/hello.txt", &[chunk(0)], &[], no_list),
        bare(entry(b"a!", EntryKind::Directory)),
        file(b"big", &big, &[], |chunks| meta.push_list(chunks)),
        bare(entry(b"block", EntryKind::BlockDevice(device))),
        bare(entry(b"char", EntryKind::CharDevice(device))),
        bare(entry(b"fifo", EntryKind::Fifo)),
        file(b"hole", &[], &[(0, 4096)], no_list),
        file(b"holes", &[chunk(0)], &[(0, 10), (14, 5)], no_list),
        file(b"inline", &[chunk(1), chunk(2)], &[], no_list),
        linked(b"link-1"),
        linked(b"link-2"),
        file("name \"\\\n\u{1}\u{7f}é\u{2028}".as_bytes(), &[chunk(0)], &[], no_list),
        file(b"not-utf8-\xff", &[chunk(0)], &[], no_list),
        old,
        bare(entry(b"socket", EntryKind::Socket)),
        bare(entry(b"symlink", symlink(b"a/hello.txt"))),
        bare(entry(b"symlink-b64", symlink(b"\xff\xfe"))),
        unread,
        unstable,
        file(LAST_OF_ITS_PAGE.as_bytes(), &[chunk(0)], &[], no_list),
        file(b"z", &[chunk(0)], &[], no_list),
    ]
}

/// Reads a tree or list page by page.
fn read_page(
    meta: &[u8],
    reference: &PageRef,
    entries: &mut Vec<Placed>,
    chunks: &mut Vec<(ChunkId, Vec<u8>)>,
    data: &[u8],
) {
    let (offset, bytes) = (reference.placement.offset as usize, reference.placement.bytes as usize);
    match decode(reference, &meta[offset..offset + bytes]).expect("decodes") {
        Page::Entries(page) => {
            for placed in &page {
                if let Placement::List(list) = &placed.content {
                    read_page(meta, list, &mut Vec::new(), chunks, data);
                }
            }
            entries.extend(page);
        }
        Page::Children(children) => {
            children.iter().for_each(|child| read_page(meta, &child.page, entries, chunks, data));
        }
        Page::Chunks(page) => {
            for (chunk, place) in page {
                let stored = &data[place.frame_offset as usize..][..place.frame_bytes as usize];
                let block = frame::decompress("block", stored, 1 << 20).expect("a frame");
                chunks.push((chunk, block[place.offset as usize..][..place.bytes as usize].to_vec()));
            }
        }
        Page::ListChildren(children) => {
            children.iter().for_each(|child| read_page(meta, &child.page, entries, chunks, data));
        }
    }
}

fn with_id(mut snapshot: Snapshot) -> Snapshot {
    snapshot.id = snapshot.derive_id().expect("derives");
    snapshot
}

fn snapshot(tree: &TreeRef, entries: &[Placed]) -> Snapshot {
    with_id(Snapshot {
        id: SnapshotId::from_bytes([0; 32]),
        session: session(0x22),
        branch: "main".into(),
        onto: None,
        parent: None,
        reuses: Vec::new(),
        promoted: None,
        repaired: None,
        was: None,
        time: "2026-01-02T03:04:05.000000006Z".parse().expect("a time"),
        source: "/srv/state".into(),
        excludes: vec!["*.tmp".into()],
        tree: tree.clone(),
        entries: entries.iter().filter(|placed| placed.entry.counts()).count() as u64,
        bytes: entries.iter().map(|placed| placed.entry.size()).sum(),
        changes: Changes { added: 22, changed: 0, removed: 0, moved: 0 },
        complete: false,
        tags: BTreeMap::new(),
        hold: None,
        extra: Map::new(),
    })
}

#[test]
fn the_golden_repository_is_written_and_read_as_ever() {
    let mut hashes: Vec<(String, String)> = Vec::new();
    let mut note = |name: &str, hash: &dyn std::fmt::Display| hashes.push((name.into(), hash.to_string()));

    let repository: Vec<u8> = (0..16).collect();
    let config = Config::new(
        RepositoryId::from_bytes(repository.try_into().expect("16 bytes")),
        "2026-01-01T00:00:00Z".parse().expect("a time"),
        CommitMode::Atomic,
    );
    let config_bytes = config.encode().expect("encodes");
    check_file("repository/config.json", &config_bytes);
    assert_eq!(Config::decode(&config_bytes).expect("decodes"), config);
    note("config.json", &CommitHash::of(&config_bytes));

    let data_name = PackName { begin: 1, session: session(0x22), number: 0 };
    let meta_name = PackName { begin: 1, session: session(0x22), number: 1 };
    let mut data = pack_writer(data_name, "data");
    let mut meta = pack_writer(meta_name, "meta");
    let entries = entries(&mut data, &mut meta);
    assert!(entries.is_sorted_by(|a, b| a.entry.path < b.entry.path));
    let root = meta.push_tree(&entries);
    let pages = meta.table.pages.clone();
    let data = finish_pack(data, "data");
    let meta = finish_pack(meta, "meta");
    assert_eq!(pages.len(), 6, "two list pages and the page above, two leaves and the page above");
    for (number, page) in pages.iter().enumerate() {
        note(&format!("page id of meta-{number}"), &page.page);
        let stored = &meta[page.offset as usize..][..page.length as usize];
        note(&format!("frame hash of meta-{number}"), &FrameHash::of(stored));
    }
    let (mut read, mut chunks) = (Vec::new(), Vec::new());
    read_page(&meta, &root, &mut read, &mut chunks, &data);
    assert_eq!(read, entries);
    let big: Vec<_> = big_chunks().into_iter().map(|text| (ChunkId::of(text.as_bytes()), text.into_bytes())).collect();
    assert_eq!(chunks, big);
    for placed in &entries {
        if let Some(content) = placed.entry.content() {
            note(&format!("content hash of {}", placed.entry.path), &content.hash);
        }
    }

    let empty = Commit::empty(CommitHash::of(&config_bytes));
    let writer = |owner: Option<&str>| Writer {
        name: "pod-1".into(),
        owner: owner.map(Into::into),
        version: "ghostsync 0.1.0".into(),
        extra: Map::new(),
    };
    let holder = Holder { owner: "pod-1".into(), session: session(0x11), released: false, extra: Map::new() };
    let first = Commit {
        seq: 1,
        session: session(0x11),
        writer: writer(Some("pod-1")),
        time: "2026-01-01T00:00:01Z".parse().expect("a time"),
        op: json!({"kind": "claim", "branch": "main"}),
        branches: [("main".into(), Branch { head: None, epoch: 1, holder: Some(holder), extra: Map::new() })].into(),
        ..empty
    };
    let first_bytes = stored_frame("before-emptied.json.zst", first.encode().expect("encodes"));
    let emptied = EmptiedCommit {
        seq: 1,
        prev: first.prev,
        session: first.session,
        hash: CommitHash::of(&first_bytes),
        emptied: true,
    };
    let log = |seq: u64, made: Vec<u8>| {
        let stored = stored_frame(&format!("repository/log/{seq:020}.json.zst"), made);
        let content = frame::decompress("commit", &stored, 1 << 20).expect("a frame");
        check_file(&format!("content/commit-{seq}.json"), &content);
        stored
    };
    let emptied_bytes = log(1, emptied.encode().expect("encodes"));

    let tree = TreeRef {
        page: root.page,
        level: root.level,
        pack: root.placement.pack,
        offset: root.placement.offset,
        length: root.placement.bytes,
        frame: root.placement.frame,
        pack_length: meta.len() as u64,
        extra: Map::new(),
    };
    let backup = snapshot(&tree, &entries);
    let mut second = Commit {
        seq: 2,
        prev: CommitHash::of(&first_bytes),
        session: session(0x22),
        time: "2026-01-02T03:04:06Z".parse().expect("a time"),
        op: json!({"kind": "backup", "branch": "main", "snapshot": backup.id}),
        snapshots: vec![backup.clone()],
        ..first.clone()
    };
    second.branches.get_mut("main").expect("main").head = Some(backup.id);
    let second_bytes = log(2, second.encode().expect("encodes"));

    let refused = with_id(Snapshot {
        session: session(0x33),
        branch: format!("quarantine/main/{}", session(0x33)),
        onto: Some("main".into()),
        parent: Some(backup.id),
        complete: true,
        extra: Map::from_iter([("later".into(), json!({"z": [1, null], "a": -5}))]),
        ..backup.clone()
    });
    let mut third = Commit {
        seq: 3,
        prev: CommitHash::of(&second_bytes),
        session: session(0x33),
        writer: writer(None),
        op: Value::Null,
        session_floor: 1,
        draining: vec![data_name],
        extra: Map::from_iter([("later".into(), json!("kept"))]),
        ..second.clone()
    };
    third.snapshots[0].tags.insert("release".into(), "1".into());
    third.snapshots[0].hold = Some("audit".into());
    third.snapshots.push(refused.clone());
    let quarantine = Branch { head: Some(refused.id), epoch: 3, holder: None, extra: Map::new() };
    third.branches.insert(refused.branch.clone(), quarantine);
    let third_bytes = log(3, third.encode().expect("encodes"));
    check_file("repository/head.json", b"{\"seq\":3}");

    assert_eq!(decode_log_entry(&emptied_bytes).expect("decodes"), LogEntry::Emptied(emptied));
    assert_eq!(decode_log_entry(&first_bytes).expect("decodes"), LogEntry::Commit(Box::new(first)));
    assert_eq!(decode_log_entry(&second_bytes).expect("decodes"), LogEntry::Commit(Box::new(second)));
    assert_eq!(decode_log_entry(&third_bytes).expect("decodes"), LogEntry::Commit(Box::new(third)));
    note("commit 1 before it was emptied", &CommitHash::of(&first_bytes));
    note("commit 2", &CommitHash::of(&second_bytes));
    note("commit 3", &CommitHash::of(&third_bytes));
    note("snapshot of commit 2", &backup.id);
    note("snapshot in quarantine of commit 3", &refused.id);

    let hashes: Map<String, Value> = hashes.into_iter().map(|(name, hash)| (name, Value::from(hash))).collect();
    check_file("hashes.json", format!("{:#}\n", Value::from(hashes)).as_bytes());
}

/// The rule of `docs/format.md`, written down once more: nine bits of a hash, from a bit that the level chooses.
fn nine_bits_are_zero(level: usize, hash: &blake3::Hash) -> bool {
    let first = level * 9 % 247;
    let number = hash.as_bytes().iter().rev().fold(String::new(), |text, byte| text + &format!("{byte:08b}"));
    // Written from the highest to the lowest bit of a number whose first byte is the lowest.
    number.bytes().rev().skip(first).take(9).all(|bit| bit == b'0')
}

#[test]
fn pages_end_where_they_ever_did() {
    const LEVELS: u8 = 3;
    let keys: Vec<_> = (0..5000).map(|number| format!("folder/{number}")).collect();
    let mut ends = Map::new();
    for level in 0..LEVELS {
        let tree = |key: &&String| ends_tree_page(level, &TreePath::parse(key.as_bytes()).expect("a path"));
        let tree: Vec<_> = keys.iter().filter(tree).collect();
        let list: Vec<_> = keys.iter().filter(|key| ends_list_page(level, ChunkId::of(key.as_bytes()))).collect();
        assert!(tree.len() > 3 && list.len() > 3, "about one in 512");
        for key in &keys {
            let path_hash = blake3::hash(key.replace('/', "\0").as_bytes());
            assert_eq!(tree.contains(&key), nine_bits_are_zero(level.into(), &path_hash), "{key} at {level}");
            let chunk_hash = blake3::hash(key.as_bytes());
            assert_eq!(list.contains(&key), nine_bits_are_zero(level.into(), &chunk_hash), "{key} at {level}");
        }
        ends.insert(format!("paths that end a page of level {level}"), json!(tree));
        ends.insert(format!("texts of chunks that end a list page of level {level}"), json!(list));
    }
    let path = TreePath::parse(LAST_OF_ITS_PAGE).expect("a path");
    assert!(ends_tree_page(0, &path) && ends_tree_page(1, &path));
    ends.insert("paths that end pages of levels 0 and 1".into(), json!([LAST_OF_ITS_PAGE]));
    check_file("boundaries.json", format!("{:#}\n", Value::from(ends)).as_bytes());
    for level in [26, 27, 28, 32] {
        let hashes = || keys.iter().map(|key| blake3::hash(key.as_bytes()));
        let ours = hashes().filter(|hash| nine_bits_are_zero(level, hash)).count();
        let chunk = |hash: &blake3::Hash| {
            ends_list_page(u8::try_from(level).expect("small"), ChunkId::from_bytes(*hash.as_bytes()))
        };
        assert_eq!(hashes().filter(chunk).count(), ours, "the bits begin again at level {level}");
    }
}

/// Finds what [`LAST_OF_ITS_PAGE`] holds, for whoever wants to see where it comes from.
#[test]
fn a_path_that_ends_pages_of_two_levels_can_be_found() {
    let path = |number: u32| TreePath::parse(format!("v-{number}")).expect("a path");
    let found = (0..).map(path).find(|path| ends_tree_page(0, path) && ends_tree_page(1, path));
    assert_eq!(found.map(|path| path.to_string()).as_deref(), Some(LAST_OF_ITS_PAGE));
}
