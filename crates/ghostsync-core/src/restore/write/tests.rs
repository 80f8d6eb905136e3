use std::os::unix::fs::MetadataExt;

use bytes::Bytes;

use super::*;
use crate::entry::{ChunkList, EntryKind, Hole};
use crate::format::frame;
use crate::id::{PackName, SessionId};
use crate::observer::NoObserver;
use crate::restore::tests::{file, temporary_root};
use crate::store::{StoreSettings, keys, open_url};
use crate::testing::tree::noise;

pub(super) fn writer(keep_going: bool) -> Writer {
    Writer::new(User::current(), keep_going, Interrupt::default(), Arc::new(NoObserver))
}

/// Writes windows, one after the other, as a restore does.
pub(super) fn write(writer: &Writer, windows: Vec<Window>) -> Result<Tally> {
    let (sender, receiver) = mpsc::channel(windows.len() + 1);
    for window in windows {
        sender.try_send(Flow::Next(window)).expect("there is room");
    }
    sender.try_send(Flow::End).expect("there is room");
    match writer.run(receiver)? {
        Outcome::Done(tally) => Ok(tally),
        Outcome::CutOff => panic!("nobody cuts it off"),
    }
}

/// Puts chunks into one block of a window.
pub(super) fn put(blocks: &mut Blocks, number: u32, chunks: &[&[u8]]) -> Vec<(ChunkId, ChunkPlacement)> {
    let stored = frame::compress("block", &chunks.concat()).expect("compresses");
    let pack = PackName { begin: 0, session: SessionId::from_bytes([0; 16]), number };
    let frame_bytes = u32::try_from(stored.len()).expect("small");
    blocks.insert(BlockRef { pack, offset: 0, bytes: frame_bytes }, Ok(StoredRange::Received(stored.into())));
    let mut offset = 0;
    let place = |chunk: &&[u8]| {
        let bytes = u32::try_from(chunk.len()).expect("small");
        let placement = ChunkPlacement { pack, frame_offset: 0, frame_bytes, offset, bytes };
        offset += bytes;
        (ChunkId::of(chunk), placement)
    };
    chunks.iter().map(place).collect()
}

fn piece(job: &Arc<FileJob>, chunks: &[(ChunkId, ChunkPlacement)], last: bool) -> Piece {
    numbered(job, 0, chunks, last)
}

fn numbered(job: &Arc<FileJob>, number: u32, chunks: &[(ChunkId, ChunkPlacement)], last: bool) -> Piece {
    Piece { job: Arc::clone(job), number, chunks: chunks.to_vec(), offset: None, last, damage: None }
}

pub(super) fn file_job(root: &Arc<Directory>, entry: Entry) -> Arc<FileJob> {
    Arc::new(FileJob::new(entry, Arc::clone(root)))
}

#[track_caller]
pub(super) fn assert_names(folder: &tempfile::TempDir, expected: &[&str]) {
    let names = std::fs::read_dir(folder.path()).expect("a folder");
    let mut names: Vec<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, expected);
}

#[test]
fn files_of_one_block_and_files_over_two_windows_are_written() {
    let (folder, root) = temporary_root();
    let writer = writer(false);
    let mut blocks = Blocks::new();
    let small = put(&mut blocks, 0, &[b"one", b"two"]);
    let mut first_window = Window { blocks, ..Window::default() };
    for (name, chunk) in [("1", &small[..1]), ("2", &small[1..]), ("0", &[])] {
        let content: &[u8] = if name == "1" {
            b"one"
        } else if name == "2" {
            b"two"
        } else {
            b""
        };
        first_window.pieces.push(piece(&file_job(&root, file(name, content)), chunk, true));
    }
    let (head, tail) = (vec![7; 100_000], vec![9; 50_000]);
    let large = file_job(&root, file("large", &[&head[..], &tail].concat()));
    let chunks = put(&mut first_window.blocks, 1, &[&head]);
    first_window.pieces.push(piece(&large, &chunks, false));
    let tally = write(&writer, vec![first_window]).expect("writes");
    assert_eq!((tally.written, large.is_written()), (3, false));
    assert_eq!(std::fs::read(folder.path().join("2")).expect("is there"), b"two");
    assert!(!folder.path().join("large").exists());

    let mut second_window = Window::default();
    let chunks = put(&mut second_window.blocks, 2, &[&tail]);
    second_window.pieces.push(numbered(&large, 1, &chunks, true));
    let further = TreePath::parse("further").expect("a path");
    let link = Afterwards::Link { original: Original::Job(Arc::clone(&large)), path: further, directory: root };
    second_window.afterwards.push(link);
    assert_eq!(write(&writer, vec![second_window]).expect("writes").written, 2);
    assert_names(&folder, &["0", "1", "2", "further", "large"]);
    let there = std::fs::metadata(folder.path().join("further")).expect("is there");
    assert_eq!((there.len(), there.nlink(), there.mtime()), (150_000, 2, 1_600_000_000));
}

#[test]
fn files_of_a_block_come_together_wherever_in_the_tree_they_are() {
    let (_folder, root) = temporary_root();
    let mut blocks = Blocks::new();
    let [one, other] = [1, 0].map(|number| put(&mut blocks, number, &[b"a", b"b", b"c"]));
    let job = |name: &str| file_job(&root, file(name, b""));
    let pieces = [("0", &one[..1]), ("1", &other[..1]), ("2", &[]), ("3", &one[1..]), ("4", &other[..2])];
    let pieces = pieces.map(|(name, chunks)| piece(&job(name), chunks, true));
    let names = |batch: &Vec<Piece>| -> String {
        batch.iter().map(|piece| String::from_utf8_lossy(piece.job.name()).into_owned()).collect()
    };
    // By block, and in tree order in each.
    assert_eq!(batches(pieces.into()).iter().map(names).collect::<Vec<_>>(), ["2", "14", "03"]);
}

#[test]
fn a_piece_of_many_blocks_is_written_in_order_and_fails_as_a_whole() {
    const BLOCKS: u32 = 20;
    for damaged in [None, Some(0), Some(7), Some(BLOCKS - 1)] {
        let (folder, root) = temporary_root();
        let mut window = Window::default();
        let mut chunks = Vec::new();
        let mut content = Vec::new();
        for number in 0..BLOCKS {
            let parts = [noise(number.into(), 3000), noise(u64::from(number) + 100, 10)];
            chunks.extend(put(&mut window.blocks, number, &[&parts[0], &parts[1]]));
            content.extend(parts.concat());
        }
        if let Some(damaged) = damaged {
            // Decodes, and holds something else: two chunks change places.
            let at = damaged as usize * 2;
            let (first, second) = (chunks[at].0, chunks[at + 1].0);
            (chunks[at].0, chunks[at + 1].0) = (second, first);
        }
        window.pieces.push(piece(&file_job(&root, file("a", &content)), &chunks, true));
        let result = write(&writer(false), vec![window]);
        if damaged.is_some() {
            assert_eq!(result.expect_err("damaged").kind(), ErrorKind::Corrupt);
            assert_names(&folder, &[]);
        } else {
            assert_eq!(result.expect("writes").written, 1);
            assert!(std::fs::read(folder.path().join("a")).expect("is there") == content);
        }
    }
}

/// A large file in a piece for each window, small ones between, and what comes after; a piece of the large one may be
/// damaged.
#[test]
fn pieces_of_a_file_are_written_in_order_whichever_thread_has_them() {
    const WINDOWS: u32 = 12;
    for damaged in [None, Some(0), Some(5), Some(WINDOWS - 1)] {
        for round in 0..20 {
            let (folder, root) = temporary_root();
            let piece_bytes = |number: u32| noise(u64::from(number * 100 + round), 4000 * (number as usize % 5 + 1));
            let large: Vec<u8> = (0..WINDOWS).flat_map(piece_bytes).collect();
            let large = file_job(&root, file("large", &large));
            let mut windows = Vec::new();
            for number in 0..WINDOWS {
                let mut window = Window::default();
                let mut chunks = Vec::new();
                for (block, part) in piece_bytes(number).chunks(1000).enumerate() {
                    chunks.extend(put(&mut window.blocks, number * 100 + block as u32, &[part]));
                }
                if damaged == Some(number) {
                    chunks[0].0 = ChunkId::of(b"another");
                }
                window.pieces.push(numbered(&large, number, &chunks, number + 1 == WINDOWS));
                for small in 0..3 {
                    let name = format!("{number}-{small}");
                    let chunks = put(&mut window.blocks, number * 100 + 50 + small, &[name.as_bytes()]);
                    let small = file_job(&root, file(&name, name.as_bytes()));
                    window.pieces.push(piece(&small, &chunks, true));
                    let path = TreePath::parse(format!("link-{name}")).expect("a path");
                    let (original, directory) = (Original::Job(small), Arc::clone(&root));
                    window.afterwards.push(Afterwards::Link { original, path, directory });
                }
                windows.push(window);
            }
            // One that has no files, only what comes after those before.
            let path = TreePath::parse("again").expect("a path");
            let link = Afterwards::Link { original: Original::Job(Arc::clone(&large)), path, directory: root };
            windows.push(Window { afterwards: vec![link], ..Window::default() });
            let tally = write(&writer(true), windows).expect("writes");
            let whole = u64::from(damaged.is_none());
            assert_eq!(tally.written, u64::from(WINDOWS) * 6 + whole * 2, "{:?}", tally.problems);
            assert_eq!(tally.problems.len() as u64, 2 - whole * 2, "{:?}", tally.problems);
            assert_eq!(folder.path().join("large").exists(), damaged.is_none());
            assert_eq!(folder.path().join("again").exists(), damaged.is_none());
        }
    }
}

#[test]
fn the_first_failure_ends_all_threads() {
    let (folder, root) = temporary_root();
    let mut windows = Vec::new();
    let large = file_job(&root, file("large", &[1; 50]));
    for number in 0..50 {
        let mut window = Window::default();
        let chunks = put(&mut window.blocks, number, &[&[1]]);
        let mut piece = numbered(&large, number, &chunks, number == 49);
        if number == 7 {
            piece.damage = Some(Damage { object: "list".into(), reason: "lost".into(), missing: false });
        }
        window.pieces.push(piece);
        windows.push(window);
    }
    assert_eq!(write(&writer(false), windows).expect_err("damaged").kind(), ErrorKind::Corrupt);
    assert_names(&folder, &[]);
}

#[test]
fn what_a_directory_hands_down_is_taken_away_again() {
    // `u::rwx,u:1234:rwx,g::r-x,m::rwx,o::r-x`, under which the mode looks right: a version, then tag, permissions and id of each.
    let nobody = u32::MAX;
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1_u16, 7_u16, nobody), (2, 7, 1234), (4, 5, nobody), (16, 7, nobody), (32, 5, nobody)]
    {
        list.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    let (folder, root) = temporary_root();
    let empty = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(folder.path(), crate::xattr::DEFAULT_ACL, &list, empty).is_err() {
        return eprintln!("skipped: this file system has no ACLs");
    }
    let mut window = Window::default();
    let chunks = put(&mut window.blocks, 0, &[b"data"]);
    let entry = file("a", b"data");
    let mode = entry.mode;
    window.pieces.push(piece(&file_job(&root, entry), &chunks, true));
    assert_eq!(write(&writer(false), vec![window]).expect("writes").written, 1);
    let path = folder.path().join("a");
    let mut value = [0; 256];
    let there = rustix::fs::getxattr(&path, crate::xattr::ACCESS_ACL, &mut value[..]);
    assert_eq!(there.err(), Some(rustix::io::Errno::NODATA));
    assert_eq!(std::fs::metadata(&path).expect("is there").mode() & 0o7777, mode);
}

#[test]
fn holes_stay_holes() {
    let (folder, root) = temporary_root();
    let mut content = vec![0; 5 << 20];
    content[1 << 20..(1 << 20) + 4].copy_from_slice(b"data");
    let mut entry = file("sparse", &content);
    if let EntryKind::File(file) = &mut entry.kind {
        let after = (1 << 20) + 4;
        let rest = Hole { offset: after, length: file.size - after };
        file.holes = vec![Hole { offset: 0, length: 1 << 20 }, rest];
        file.chunks = ChunkList::Inline(vec![ChunkId::of(b"data")]);
    }
    let mut window = Window::default();
    let chunks = put(&mut window.blocks, 0, &[b"data"]);
    window.pieces.push(piece(&file_job(&root, entry), &chunks, true));
    assert_eq!(write(&writer(false), vec![window]).expect("writes").written, 1);
    assert_eq!(std::fs::read(folder.path().join("sparse")).expect("is there"), content);
    assert!(std::fs::metadata(folder.path().join("sparse")).expect("is there").blocks() < 1000);
}

#[test]
fn no_wrong_byte_gets_a_final_name() {
    type Spoil = fn(&mut Window);
    let spoils: [(&str, Spoil); 4] = [
        ("another chunk", |window| window.pieces[0].chunks[0].0 = ChunkId::of(b"else")),
        ("a chunk too few", |window| window.pieces[0].chunks.clear()),
        ("a damaged block", |window| {
            window
                .blocks
                .values_mut()
                .for_each(|block| *block = Ok(StoredRange::Received(Bytes::from_static(b"no frame"))));
        }),
        ("a lost list", |window| {
            let damage = Damage { object: "list".into(), reason: "lost".into(), missing: false };
            window.pieces[0].damage = Some(damage);
        }),
    ];
    for keep_going in [false, true] {
        for (what, spoil) in &spoils {
            let (folder, root) = temporary_root();
            std::fs::write(folder.path().join("a"), b"old").expect("writes");
            let mut window = Window::default();
            let chunks = put(&mut window.blocks, 0, &[b"new"]);
            let bad = file_job(&root, file("a", b"new"));
            window.pieces.push(piece(&bad, &chunks, true));
            spoil(&mut window);
            let sound = put(&mut window.blocks, 1, &[b"sound"]);
            window.pieces.push(piece(&file_job(&root, file("b", b"sound")), &sound, true));
            let path = TreePath::parse("c").expect("a path");
            let link = Afterwards::Link { original: Original::Job(bad), path, directory: Arc::clone(&root) };
            window.afterwards.push(link);
            let result = write(&writer(keep_going), vec![window]);
            assert_eq!(std::fs::read(folder.path().join("a")).expect("is there"), b"old", "{what}");
            if keep_going {
                let tally = result.expect("goes on");
                assert!(tally.damaged);
                assert_eq!((tally.written, tally.problems.len()), (1, 2), "{what}: {:?}", tally.problems);
                assert_names(&folder, &["a", "b"]);
            } else {
                let error = result.expect_err(what);
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
                assert!(error.to_string().starts_with("a cannot be restored: "), "{error}");
                assert!(!folder.path().join("c").exists());
            }
        }
    }
}

#[test]
fn content_that_does_not_match_its_entry_is_damage() {
    let (folder, root) = temporary_root();
    let mut window = Window::default();
    let chunks = put(&mut window.blocks, 0, &[b"abd"]);
    window.pieces.push(piece(&file_job(&root, file("a", b"abc")), &chunks, true));
    let error = write(&writer(false), vec![window]).expect_err("every chunk is right, and the whole is not");
    assert!(error.to_string().contains("does not match its hash"), "{error}");
    assert_names(&folder, &[]);
}

#[test]
fn an_unfinished_file_that_is_given_up_is_gone() {
    let (folder, root) = temporary_root();
    let mut window = Window::default();
    let chunks = put(&mut window.blocks, 0, &[b"half"]);
    let job = file_job(&root, file("a", b"half of it"));
    window.pieces.push(piece(&job, &chunks, false));
    assert_eq!(write(&writer(false), vec![window]).expect("writes").written, 0);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    drop(job);
    assert_names(&folder, &[]);
}

#[test]
fn a_pack_that_becomes_shorter_while_it_is_read_ends_the_restore_and_leaves_nothing() {
    // A writer blocks the thread that it runs on.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let stored = tempfile::tempdir().expect("a folder");
    let url = stored.path().to_str().expect("UTF-8");
    let store = open_url(url, &StoreSettings::default(), true).expect("a store");
    let content = noise(1, 100_000);
    let mut window = Window::default();
    let chunks = put(&mut window.blocks, 0, &[&content]);
    let (at, block) = window.blocks.iter_mut().next().expect("a block");
    let received = block.as_ref().expect("sound").read(&Rooms::single_use()).expect("is here");
    let key = keys::data_pack(at.pack);
    runtime.block_on(store.put(&key, received.into())).expect("puts");
    *block = Ok(runtime.block_on(store.open_range(&key, 0..at.bytes.into())).expect("opens"));

    let (folder, root) = temporary_root();
    let window = |name: &str| Window {
        pieces: vec![piece(&file_job(&root, file(name, &content)), &chunks, true)],
        blocks: window.blocks.clone(),
        afterwards: Vec::new(),
    };
    let [whole, lost] = ["whole", "lost"].map(window);
    // Each with a writer of its own: one would remember the block.
    write(&writer(true), vec![whole]).expect("writes");
    let pack = std::fs::OpenOptions::new().write(true).open(stored.path().join(key.as_ref())).expect("is there");
    pack.set_len(50_000).expect("is cut");
    let error = write(&writer(true), vec![lost]).expect_err("is too short");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains(key.as_ref()), "{error}");
    assert_names(&folder, &["whole"]);
}

#[tokio::test]
#[should_panic(expected = "Cannot block the current thread")]
async fn a_writer_that_cannot_wait_panics_instead_of_waiting_for_its_threads() {
    let _ = write(&writer(true), Vec::new());
}
