use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;
use tempfile::tempdir;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::entry::Hole;
use crate::error::ErrorKind;
use crate::id::ContentHash;
use crate::source::holes::MAX_HOLES;
use crate::source::{Excludes, FoundKind, Matcher, Walk, Walked};
use crate::testing::tree::{Piece, noise};
use crate::tree_path::TreePath;

fn small() -> Chunker {
    Chunker { whole_bytes: 4096, min_bytes: 1024, average_bytes: 4096, max_bytes: 16384, ..Chunker::default() }
}

/// The only file that the walk finds in a directory.
fn only_file(root: &SourceRoot) -> Found {
    let excludes = Excludes::default();
    Walk::new(root, Matcher::new(&excludes).expect("no patterns"), &excludes)
        .find_map(|walked| match walked.expect("readable") {
            Walked::Found(found) if matches!(found.kind, FoundKind::File { .. }) => Some(found),
            _ => None,
        })
        .expect("there is a file")
}

/// What reading hands over: how often it began, and the chunks since it began last.
#[derive(Default)]
struct Seen {
    begun: usize,
    chunks: Vec<(ChunkId, Bytes)>,
}

impl Seen {
    fn take(&mut self, event: ReadEvent) {
        match event {
            ReadEvent::Begin => {
                self.begun += 1;
                self.chunks.clear();
            }
            ReadEvent::Chunk { id, bytes } => self.chunks.push((id, bytes)),
        }
    }
}

/// Reads, and does something at every event.
fn read_while(root: &SourceRoot, found: &Found, mut meanwhile: impl FnMut(&Seen)) -> (ReadOutcome, Seen) {
    let mut seen = Seen::default();
    let outcome = read_file(root, &mut Desk::default(), found, &small(), &Interrupt::default(), &mut |event| {
        seen.take(event);
        meanwhile(&seen);
        Ok(())
    });
    (outcome.expect("no error"), seen)
}

/// Puts content together from chunks and holes, checking everything that is said about it.
fn whole(content: &Content, seen: &Seen) -> Vec<u8> {
    assert_eq!(content.chunks.len(), seen.chunks.len());
    for ((id, length), (handed_id, bytes)) in content.chunks.iter().zip(&seen.chunks) {
        assert_eq!((id, *length as usize), (handed_id, bytes.len()));
        assert_eq!(*id, ChunkId::of(bytes));
        assert!(!bytes.is_empty());
    }
    let mut data = seen.chunks.iter().flat_map(|(_, bytes)| bytes.iter().copied());
    let mut whole = Vec::new();
    for hole in &content.holes {
        assert!(hole.length > 0 && (hole.offset > whole.len() as u64 || whole.is_empty()), "sorted, apart");
        whole.extend(data.by_ref().take(usize::try_from(hole.offset).expect("small") - whole.len()));
        whole.resize(usize::try_from(hole.offset + hole.length).expect("small"), 0);
    }
    whole.extend(data);
    assert_eq!(content.size, whole.len() as u64);
    assert_eq!(content.hash, ContentHash::of(&whole));
    whole
}

fn read_stable(directory: &Path) -> (Content, Seen) {
    let root = SourceRoot::open(directory).expect("opened");
    let walked = only_file(&root);
    let (outcome, seen) = read_while(&root, &walked, |_| {});
    let ReadOutcome::Read { found, content, unstable: false, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((found, seen.begun), (walked, 1));
    (content, seen)
}

fn make_sparse(path: &Path, pieces: &[Piece]) {
    let file = File::create(path).expect("created");
    let mut offset = 0;
    for piece in pieces {
        if let Piece::Data { seed, bytes } = piece {
            file.write_all_at(&noise(*seed, *bytes), offset).expect("written");
        }
        offset += piece.bytes();
        file.set_len(offset).expect("grown");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_and_holes_make_the_content(
        pieces in proptest::collection::vec(
            prop_oneof![
                (0_u64..4, 0_usize..40_000).prop_map(|(seed, bytes)| Piece::Data { seed, bytes }),
                (1_u64..40).prop_map(|blocks| Piece::Hole { bytes: blocks * 4096 }),
                (1_u64..9000).prop_map(|bytes| Piece::Hole { bytes }),
            ],
            0..6,
        )
    ) {
        let directory = tempdir().expect("a temporary directory");
        let path = directory.path().join("file");
        make_sparse(&path, &pieces);
        let (content, seen) = read_stable(directory.path());
        prop_assert!(whole(&content, &seen) == fs::read(&path).expect("read"));
        let data: u64 = content.chunks.iter().map(|(_, length)| u64::from(*length)).sum();
        prop_assert!(data > 4096 || content.chunks.len() <= 1);
    }
}

#[test]
fn a_small_file_is_one_chunk_that_is_named_like_the_content() {
    let directory = tempdir().expect("a temporary directory");
    fs::write(directory.path().join("file"), noise(1, 4096)).expect("written");
    let (content, _) = read_stable(directory.path());
    assert_eq!(content.chunks, [(ChunkId::of_whole(content.hash), 4096)]);
    fs::write(directory.path().join("file"), b"").expect("written");
    let (content, seen) = read_stable(directory.path());
    assert_eq!((content.size, content.chunks.len(), seen.chunks.len()), (0, 0, 0));
    assert_eq!(content.hash, ContentHash::of(b""));
}

#[test]
fn holes_are_found_where_the_file_system_has_them_and_zeros_are_data() {
    let directory = tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    let file = File::create(&path).expect("created");
    file.set_len(8 << 20).expect("grown");
    file.write_all_at(b"middle", 4 << 20).expect("written");
    if rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)) != Ok(4 << 20) {
        return eprintln!("skipped: the temporary directory has no holes");
    }
    let (content, seen) = read_stable(directory.path());
    assert_eq!(content.holes.len(), 2);
    assert_eq!(content.holes[0], Hole { offset: 0, length: 4 << 20 });
    assert_eq!(content.holes[1].offset + content.holes[1].length, 8 << 20, "up to the end");
    assert!(seen.chunks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= 64 * 1024);
    assert_eq!(whole(&content, &seen), fs::read(&path).expect("read"));

    fs::write(&path, vec![0; 1 << 20]).expect("written");
    let (content, seen) = read_stable(directory.path());
    assert!(content.holes.is_empty() && seen.chunks.len() > 1, "written zeros are kept as data");

    // Nothing but a hole.
    let file = File::create(&path).expect("created");
    file.set_len(1 << 20).expect("grown");
    let (content, seen) = read_stable(directory.path());
    assert_eq!((content.holes, seen.chunks.len()), (vec![Hole { offset: 0, length: 1 << 20 }], 0));
}

/// A database by its header, and otherwise noise.
fn database(bytes: usize) -> Vec<u8> {
    let mut content = noise(7, bytes);
    content[..16].copy_from_slice(b"SQLite format 3\0");
    content[16..24].copy_from_slice(&[16, 0, 1, 1, 0, 64, 32, 32]);
    content
}

#[test]
fn a_database_is_known_by_its_header_and_keeps_its_windows_when_pages_become_a_hole() {
    const WINDOW: usize = 64 << 10;
    let directory = tempdir().expect("a temporary directory");
    let path = directory.path().join("no-name-for-a-database.txt");
    let mut bytes = database(20 * WINDOW + 4096);
    fs::write(&path, &bytes).expect("written");
    let (before, seen) = read_stable(directory.path());
    assert_eq!(whole(&before, &seen), bytes);
    let expected: Vec<_> = bytes.chunks(WINDOW).map(|window| (ChunkId::of(window), window.len() as u32)).collect();
    assert_eq!(before.chunks, expected);

    // Half of a window, all of the next and the begin of the one after it.
    let (begin, end) = (4 * WINDOW + WINDOW / 2, 6 * WINDOW + 4096);
    let file = File::create(&path).expect("created");
    file.write_all_at(&bytes[..begin], 0).expect("written");
    file.write_all_at(&bytes[end..], end as u64).expect("written");
    bytes[begin..end].fill(0);
    let (after, seen) = read_stable(directory.path());
    assert_eq!(whole(&after, &seen), bytes);
    if after.holes.is_empty() {
        return eprintln!("skipped: the temporary directory has no holes");
    }
    assert_eq!((&after.chunks[..4], &after.chunks[6..]), (&expected[..4], &expected[7..]));
    let shortened = [&bytes[4 * WINDOW..begin], &bytes[end..7 * WINDOW]].map(|data| (ChunkId::of(data), data.len()));
    assert_eq!(after.chunks[4..6], shortened.map(|(id, bytes)| (id, bytes as u32)));

    // What is no database any more is cut by content again.
    bytes[0] = b's';
    fs::write(&path, &bytes).expect("written");
    let (other, _) = read_stable(directory.path());
    assert!(!other.chunks.iter().any(|chunk| expected.contains(chunk)));
}

#[test]
fn of_too_many_holes_the_largest_are_kept() {
    let directory = tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    let file = File::create(&path).expect("created");
    // Data in every fourth block of 4 KiB, and one large hole at the end.
    for number in 0..MAX_HOLES as u64 + 200 {
        file.write_all_at(b"data", number * 16384).expect("written");
    }
    file.set_len((MAX_HOLES as u64 + 264) * 16384).expect("grown");
    let (content, seen) = read_stable(directory.path());
    assert_eq!(whole(&content, &seen), fs::read(&path).expect("read"));
    if !content.holes.is_empty() {
        assert_eq!(content.holes.len(), MAX_HOLES);
        assert!(content.holes.last().expect("some").length > 64 * 16384, "the largest among them");
    }
}

#[test]
fn a_file_that_changes_once_is_read_again() {
    let directory = tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    fs::write(&path, noise(1, 100_000)).expect("written");
    let root = SourceRoot::open(directory.path()).expect("opened");
    let found = only_file(&root);
    let (outcome, seen) = read_while(&root, &found, |seen| {
        if seen.begun == 1 && seen.chunks.is_empty() {
            let file = File::options().write(true).open(&path).expect("opened");
            file.write_all_at(b"changed", 99_000).expect("written");
        }
    });
    let ReadOutcome::Read { found: now, content, unstable: false, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(seen.begun, 2);
    assert_ne!(now.ctime, found.ctime);
    assert_eq!(whole(&content, &seen), fs::read(&path).expect("read"));
}

#[test]
fn a_file_that_keeps_growing_is_kept_as_it_was_when_the_last_attempt_began() {
    let directory = tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    fs::write(&path, noise(1, 50_000)).expect("written");
    let root = SourceRoot::open(directory.path()).expect("opened");
    let mut log = File::options().append(true).open(&path).expect("opened");
    let (outcome, seen) = read_while(&root, &only_file(&root), |_| log.write_all(b"another line\n").expect("written"));
    let ReadOutcome::Read { found, content, unstable: true, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(seen.begun, MAX_ATTEMPTS);
    let now = fs::read(&path).expect("read");
    let read = whole(&content, &seen);
    assert!(now.starts_with(&read) && now.len() > read.len());
    assert_eq!(found.kind, FoundKind::File { size: now.len() as u64 });
}

#[test]
fn a_file_that_is_cut_while_it_is_read_ends_where_it_ends() {
    let directory = tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    let file = File::create(&path).expect("created");
    let root = SourceRoot::open(directory.path()).expect("opened");
    file.write_all_at(&noise(1, 300_000), 0).expect("written");
    let found = only_file(&root);
    let (outcome, seen) = read_while(&root, &found, |seen| {
        // Once in the midst of the first attempt, and once before anything was read in each of the others.
        if (seen.begun == 1) == (seen.chunks.len() == 1) && seen.chunks.len() < 2 {
            file.set_len(200_000 - 10_000 * seen.begun as u64).expect("cut");
        }
    });
    let ReadOutcome::Read { content, unstable: true, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(content.size, 170_000);
    assert_eq!(whole(&content, &seen), noise(1, 170_000));
}

/// Sets a flag when it goes, also by a failed assertion: the other thread must not go on for ever.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_file_that_never_stands_still_is_consistent_and_will_be_read_again() {
    let directory = tempdir().expect("a temporary directory");
    let path = directory.path().join("file");
    fs::write(&path, noise(0, 60_000)).expect("written");
    let root = SourceRoot::open(directory.path()).expect("opened");
    let walked = only_file(&root);
    let done = AtomicBool::new(false);
    let (begun, completed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _end = SetAtEnd(&done);
        scope.spawn(|| {
            let file = File::options().write(true).open(&path).expect("opened");
            for round in 0_u64.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                begun.fetch_add(1, Ordering::SeqCst);
                file.write_all_at(&noise(round, 60_000), 0).expect("written");
                file.set_len(30_000 + round % 7 * 5_000).expect("cut");
                completed.fetch_add(1, Ordering::SeqCst);
            }
        });
        let mut changed = 0;
        while changed < 100 {
            let (read_at, begun) = (SystemClock.now(), begun.load(Ordering::SeqCst));
            let mut ended = 0;
            let (outcome, seen) = read_while(&root, &walked, |_| ended = completed.load(Ordering::SeqCst));
            let ReadOutcome::Read { found, content, unstable, .. } = outcome else { panic!("{outcome:?}") };
            whole(&content, &seen);
            assert!(seen.begun <= MAX_ATTEMPTS);
            // A round of the writer began and ended meanwhile; without one the file may really have stood still.
            if ended > begun {
                changed += 1;
                // Half of a write can look as if it stood still, when the clock of the files does.
                assert!(unstable || racy(&found, read_at), "what may be a mixture is read again next time");
            }
        }
    });
}

#[test]
fn a_file_replaced_by_a_rename_is_read_anew() {
    let directory = tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    fs::write(at("file"), b"old").expect("written");
    let root = SourceRoot::open(directory.path()).expect("opened");
    let found = only_file(&root);
    let (outcome, seen) = read_while(&root, &found, |seen| {
        if seen.begun == 1 && seen.chunks.is_empty() {
            // The old file itself does not change: a link keeps it, and its ctime is set by the link alone.
            fs::write(at("new"), b"new content").expect("written");
            fs::rename(at("new"), at("file")).expect("renamed");
        }
    });
    let ReadOutcome::Read { content, unstable: false, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((whole(&content, &seen), seen.begun), (b"new content".to_vec(), 2));
}

#[test]
fn a_directory_that_was_replaced_since_its_last_file_was_read_is_entered_anew() {
    let directory = tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let root = SourceRoot::open(directory.path()).expect("opened");
    let mut desk = Desk::default();
    let mut read = |content: &[u8]| {
        let found = only_file(&root);
        let mut seen = Seen::default();
        let outcome = read_file(&root, &mut desk, &found, &small(), &Interrupt::default(), &mut |event| {
            seen.take(event);
            Ok(())
        });
        let ReadOutcome::Read { content: read, .. } = outcome.expect("read") else { panic!("not read") };
        assert_eq!(whole(&read, &seen), content);
    };
    fs::create_dir(at("in")).and_then(|()| fs::write(at("in/first"), b"one")).expect("written");
    read(b"one");
    fs::remove_dir_all(at("in")).expect("removed");
    fs::create_dir(at("in")).and_then(|()| fs::write(at("in/second"), b"two")).expect("written");
    read(b"two");
}

#[test]
fn what_is_gone_and_what_became_something_else_are_told_apart() {
    let directory = tempdir().expect("a temporary directory");
    let outside = tempdir().expect("a temporary directory");
    fs::write(outside.path().join("file"), b"secret").expect("written");
    let at = |name: &str| directory.path().join(name);
    let root = SourceRoot::open(directory.path()).expect("opened");
    let found = || {
        fs::create_dir(at("dir")).expect("created");
        fs::write(at("dir/file"), b"x").expect("written");
        only_file(&root)
    };
    let read = |found: &Found| read_while(&root, found, |_| {}).0;

    let file = found();
    fs::remove_file(at("dir/file")).expect("removed");
    assert!(matches!(read(&file), ReadOutcome::Vanished));
    symlink("/etc/hostname", at("dir/file")).expect("linked");
    assert!(matches!(read(&file), ReadOutcome::Replaced));
    fs::remove_file(at("dir/file")).expect("removed");
    fs::create_dir(at("dir/file")).expect("created");
    assert!(matches!(read(&file), ReadOutcome::Replaced));
    fs::remove_dir(at("dir/file")).expect("removed");
    for kind in [rustix::fs::FileType::Fifo, rustix::fs::FileType::Socket] {
        rustix::fs::mknodat(rustix::fs::CWD, at("dir/file"), kind, rustix::fs::Mode::from(0o600), 0).expect("made");
        assert!(matches!(read(&file), ReadOutcome::Replaced), "and nobody waits for a writer");
        fs::remove_file(at("dir/file")).expect("removed");
    }
    fs::remove_dir(at("dir")).expect("removed");
    fs::write(at("dir"), b"a file now").expect("written");
    assert!(matches!(read(&file), ReadOutcome::Vanished));
    fs::remove_file(at("dir")).expect("removed");
    symlink(outside.path(), at("dir")).expect("linked");
    let outcome = read(&file);
    assert!(matches!(outcome, ReadOutcome::Replaced | ReadOutcome::Vanished), "not through a link: {outcome:?}");
}

#[test]
fn a_file_below_a_path_longer_than_one_call_takes() {
    let directory = tempdir().expect("a temporary directory");
    let name = "d".repeat(250);
    let mut handle = std::os::fd::OwnedFd::from(File::open(directory.path()).expect("opened"));
    for _ in 0..40 {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        mkdirat(&handle, &name, Mode::from(0o755)).expect("created");
        handle = openat(&handle, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("opened");
    }
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE;
    let file = rustix::fs::openat(&handle, "file", flags, rustix::fs::Mode::from(0o644)).expect("created");
    File::from(file).write_all(b"at the bottom").expect("written");
    let (content, seen) = read_stable(directory.path());
    assert_eq!(whole(&content, &seen), b"at the bottom");
}

#[test]
fn an_interrupt_and_an_error_of_the_sink_end_everything() {
    let directory = tempdir().expect("a temporary directory");
    File::create(directory.path().join("file")).and_then(|file| file.set_len(1 << 40)).expect("grown");
    let root = SourceRoot::open(directory.path()).expect("opened");
    let found = only_file(&root);
    let interrupt = Interrupt::default();
    let error = read_file(&root, &mut Desk::default(), &found, &small(), &interrupt, &mut |_| {
        interrupt.set();
        Ok(())
    });
    assert_eq!(error.expect_err("interrupted").kind(), ErrorKind::Interrupted, "not after a terabyte of zeros");
    let error = read_file(&root, &mut Desk::default(), &found, &small(), &Interrupt::default(), &mut |_| {
        Err(Error::invalid("enough"))
    });
    assert_eq!(error.expect_err("of the sink").kind(), ErrorKind::Invalid);
}

#[test]
fn files_that_could_change_without_a_trace_are_racy() {
    let time = |seconds: i64, nanoseconds: u32| FileTime { seconds, nanoseconds };
    let found = |mtime, ctime| Found {
        path: TreePath::root(),
        kind: FoundKind::File { size: 0 },
        mode: 0,
        uid: 0,
        gid: 0,
        mtime,
        ctime,
        device: 0,
        inode: 0,
        links: 1,
    };
    let read_at: Timestamp = "1970-01-01T00:16:40.5Z".parse().expect("a time");
    let table = [
        (time(10, 1), time(10, 1), false),
        (time(1000, 480_000_000), time(10, 1), true),
        (time(1000, 440_000_000), time(10, 1), false),
        (time(10, 1), time(1000, 480_000_000), true),
        (time(10, 1), time(1000, 440_000_000), false),
        (time(10, 1), time(2000, 1), true),
        (time(5000, 1), time(10, 1), false),
        (time(999, 0), time(999, 0), true),
        (time(998, 0), time(998, 0), false),
        (time(999, 0), time(999, 1), false),
        (time(-5, 999_999_999), time(-5, 999_999_999), false),
    ];
    for (mtime, ctime, expected) in table {
        assert_eq!(racy(&found(mtime, ctime), read_at), expected, "{mtime:?} {ctime:?}");
    }
}
