//! Snapshots that no backup would make: whatever they claim, nothing is written outside the destination, and no
//! wrong byte under a final name.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ghostsync_core::ErrorKind;
use ghostsync_core::entry::{ChunkList, Entry, EntryKind};
use ghostsync_core::format::commit::{Branch, Snapshot, TreeRef};
use ghostsync_core::format::page::{PageRef, Placed, Placement};
use ghostsync_core::id::{ContentHash, PackName, SessionId};
use ghostsync_core::maintain::{CheckOptions, CheckReport, ReadData, check};
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::Repository;
use ghostsync_core::restore::{Overwrite, RestoreOptions, RestoreReport, restore};
use ghostsync_core::store::keys;
use ghostsync_core::tree_path::TreePath;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Map;

use crate::restoring::{back_up, create};
use crate::small_writer::{PackWriter, bare, entry, file};

pub(crate) fn pack_name(number: u32) -> PackName {
    PackName { begin: 1, session: SessionId::from_bytes([9; 16]), number }
}

/// A repository whose newest snapshot holds exactly these entries.
pub(crate) async fn repository_of(make: impl FnOnce(&mut PackWriter) -> Vec<Placed>) -> Repository {
    repository_with(|data, meta, snapshot| {
        let entries = make(data);
        snapshot.entries = entries.iter().filter(|placed| placed.entry.counts()).count() as u64;
        snapshot.bytes = entries.iter().map(|placed| placed.entry.size()).sum();
        meta.push_tree(&entries)
    })
    .await
}

/// A repository whose newest snapshot has this tree; the packs, for content and for pages, are closed afterwards.
pub(crate) async fn repository_with(
    make: impl FnOnce(&mut PackWriter, &mut PackWriter, &mut Snapshot) -> PageRef,
) -> Repository {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let repository = create(Arc::clone(&objects)).await;
    let source = tempfile::tempdir().expect("a folder");
    fs::write(source.path().join("a"), b"honest").expect("written");
    back_up(&repository, source.path()).await;

    let (mut data, mut meta) = (PackWriter::new(pack_name(0)), PackWriter::new(pack_name(1)));
    let state = repository.state().await.expect("a state");
    let mut snapshot = state.commit.head("main").expect("a head").clone();
    snapshot.session = SessionId::from_bytes([9; 16]);
    (snapshot.entries, snapshot.bytes) = (0, 0);
    let root = make(&mut data, &mut meta, &mut snapshot);
    let meta = meta.finish();
    let put = async |key, bytes: Vec<u8>| objects.put(&key, bytes.into()).await.expect("written");
    put(keys::data_pack(pack_name(0)), data.finish()).await;
    put(keys::meta_pack(pack_name(1)), meta.clone()).await;
    snapshot.tree = TreeRef {
        page: root.page,
        level: root.level,
        pack: root.placement.pack,
        offset: root.placement.offset,
        length: root.placement.bytes,
        frame: root.placement.frame,
        pack_length: meta.len() as u64,
        extra: Map::new(),
    };
    snapshot.id = snapshot.derive_id().expect("derives");
    let mut commit = state.commit.clone();
    commit.seq += 1;
    commit.prev = state.hash;
    let branch = Branch { head: Some(snapshot.id), epoch: 0, holder: None, extra: Map::new() };
    commit.branches.insert("main".into(), branch);
    commit.snapshots.push(snapshot);
    put(keys::commit(commit.seq), commit.encode().expect("encodes")).await;
    repository
}

pub(crate) async fn checked(repository: &Repository, read_data: ReadData) -> CheckReport {
    let options = CheckOptions { read_data, ..CheckOptions::default() };
    check(repository, options, &NoObserver).await.expect("a report")
}

/// Asserts that a check names damage of the newest snapshot and of no other.
pub(crate) async fn assert_named(repository: &Repository, read_data: ReadData, what: &str) {
    let newest = repository.state().await.expect("a state").commit.head("main").expect("a head").id;
    let report = checked(repository, read_data).await;
    assert!(!report.damage.is_empty(), "{what} is not named");
    for damage in &report.damage {
        assert!(damage.affected > 0 && damage.snapshots == [newest], "{what}: {damage:?}");
    }
}

pub(crate) async fn assert_sound(repository: &Repository, what: &str) {
    for read_data in [ReadData::No, ReadData::All] {
        assert_eq!(checked(repository, read_data).await.damage, [], "{what}");
    }
}

pub(crate) async fn try_restore(
    repository: &Repository,
    destination: &Path,
    keep_going: bool,
) -> ghostsync_core::Result<RestoreReport> {
    let receipt = Some(destination.with_extension("receipt"));
    let overwrite = Some(Overwrite::Changed);
    let options = RestoreOptions { receipt, overwrite, keep_going, ..RestoreOptions::default() };
    restore(repository, destination, options, Arc::new(NoObserver)).await
}

pub(crate) fn directory(path: &[u8]) -> Placed {
    bare(entry(path, EntryKind::Directory))
}

pub(crate) fn small(pack: &mut PackWriter, path: &[u8], content: &[u8]) -> Placed {
    let placement = pack.push_block(&[content])[0];
    file(path, &[(content, placement)], &[], |_| panic!("no list"))
}

fn linked(placed: Placed, group: &[u8]) -> Placed {
    let link = Some(TreePath::parse(group).expect("a path"));
    Placed { entry: Entry { link, ..placed.entry }, ..placed }
}

pub(crate) fn with_content(mut placed: Placed, change: impl FnOnce(&mut ghostsync_core::entry::FileContent)) -> Placed {
    if let EntryKind::File(content) = &mut placed.entry.kind {
        change(content);
    }
    placed
}

type Make = fn(&mut PackWriter, &[u8]) -> Vec<Placed>;

#[tokio::test]
async fn a_tree_that_is_none_is_corrupt_and_nothing_leaves_the_destination() {
    let cases: [(&str, Make); 13] = [
        ("a file as a directory", |pack, _| {
            vec![directory(b""), small(pack, b"a", b"x"), small(pack, b"a/escaped", b"x")]
        }),
        ("a link as a directory", |pack, outside| {
            let link = bare(entry(b"a", EntryKind::Symlink { target: outside.to_vec() }));
            vec![directory(b""), link, small(pack, b"a/escaped", b"x")]
        }),
        ("a directory that is not there", |pack, _| vec![directory(b""), small(pack, b"a/escaped", b"x")]),
        ("a directory that comes before its own", |pack, _| {
            vec![directory(b""), directory(b"a/b"), small(pack, b"a/b/escaped", b"x")]
        }),
        ("no root", |pack, _| vec![small(pack, b"a", b"x")]),
        ("a hard link of nothing", |pack, _| vec![directory(b""), linked(small(pack, b"b", b"x"), b"a")]),
        ("a hard link of a directory", |pack, _| {
            vec![directory(b""), directory(b"a"), linked(small(pack, b"b", b"x"), b"a")]
        }),
        ("a hard link of other content", |pack, _| {
            let first = linked(small(pack, b"a", b"x"), b"a");
            vec![directory(b""), first, linked(small(pack, b"b", b"y"), b"a")]
        }),
        ("a hard link of another kind", |pack, outside| {
            let link = bare(entry(b"a", EntryKind::Symlink { target: outside.to_vec() }));
            vec![directory(b""), linked(link, b"a"), linked(small(pack, b"b", b"y"), b"a")]
        }),
        ("content of another hash behind a hole", |pack, _| {
            let chunk = (&b"data"[..], pack.push_block(&[b"data"])[0]);
            let honest = file(b"a", &[chunk], &[(4, 1 << 20)], |_| panic!("no list"));
            vec![directory(b""), with_content(honest, |content| content.hash = ContentHash::of(b"data"))]
        }),
        ("content of nothing with the hash of something", |_, _| {
            let honest = file(b"a", &[], &[], |_| panic!("no list"));
            vec![directory(b""), with_content(honest, |content| content.hash = ContentHash::of(b"something"))]
        }),
        ("a directory of a directory that is not there", |pack, _| {
            vec![directory(b""), directory(b"a"), small(pack, b"a/b/escaped", b"x")]
        }),
        ("content of another hash", |pack, _| {
            let placement = pack.push_block(&[b"one", b"two"]);
            let chunks = [(&b"one"[..], placement[0]), (&b"two"[..], placement[1])];
            let honest = file(b"a", &chunks, &[], |_| panic!("no list"));
            vec![directory(b""), with_content(honest, |content| content.hash = ContentHash::of(b"onetwO"))]
        }),
    ];
    for (what, make) in cases {
        let folder = tempfile::tempdir().expect("a folder");
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).expect("made");
        let outside_bytes = outside.to_str().expect("text").as_bytes().to_vec();
        let repository = repository_of(|pack| make(pack, &outside_bytes)).await;
        let content_alone = what.starts_with("content");
        if content_alone {
            assert_eq!(checked(&repository, ReadData::No).await.damage, [], "{what}: only reading shows it");
        } else {
            assert_named(&repository, ReadData::No, what).await;
        }
        assert_named(&repository, ReadData::All, what).await;
        for keep_going in [false, true] {
            let destination = folder.path().join("destination");
            match try_restore(&repository, &destination, keep_going).await {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}"),
                Ok(report) => assert!(keep_going && report.damaged && content_alone, "{what}"),
            }
            assert!(!destination.with_extension("receipt").exists(), "{what}");
            assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0, "{what}");
            assert!(!destination.join("escaped").exists() && !destination.join("a/escaped").exists(), "{what}");
        }
    }
}

#[tokio::test]
async fn chunks_of_other_bytes_or_beyond_their_block_are_damage() {
    for spoil in [
        |placed: &mut Placed| {
            // The block's bytes are those of another chunk.
            if let Placement::Chunks(chunks) = &mut placed.content {
                chunks[0].offset = 1;
            }
        },
        |placed: &mut Placed| {
            if let Placement::Chunks(chunks) = &mut placed.content {
                chunks[0].offset = 1 << 20;
            }
        },
        |placed: &mut Placed| {
            if let Placement::Chunks(chunks) = &mut placed.content {
                chunks[0].frame_offset += 1;
            }
        },
        |placed: &mut Placed| {
            if let Placement::Chunks(chunks) = &mut placed.content {
                chunks[0].frame_offset = 1 << 29;
            }
        },
    ] {
        let repository = repository_of(|pack| {
            let mut bad = small(pack, b"bad", b"aaaa");
            let placement = pack.push_block(&[b"good"])[0];
            spoil(&mut bad);
            vec![directory(b""), bad, file(b"good", &[(b"good", placement)], &[], |_| panic!("no list"))]
        })
        .await;
        assert_named(&repository, ReadData::All, "a chunk").await;
        let folder = tempfile::tempdir().expect("a folder");
        let destination = folder.path().join("destination");
        let error = try_restore(&repository, &destination, false).await.expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().starts_with("bad cannot be restored: packs/"), "{error}");
        let report = try_restore(&repository, &destination, true).await.expect("the rest");
        assert!(report.damaged);
        assert!(!destination.join("bad").exists());
        assert_eq!(fs::read(destination.join("good")).expect("there"), b"good");
    }
}

#[tokio::test]
async fn names_that_this_file_system_cannot_hold_are_told_one_by_one() {
    let long = [b'n'; 300];
    let repository = repository_of(|pack| {
        let below = [&long[..], b"/below"].concat();
        let mut entries = vec![directory(b""), small(pack, b"a", b"x"), directory(&long), small(pack, &below, b"x")];
        entries.push(small(pack, &[b'o'; 300], b"x"));
        entries.push(bare(entry(&[b'p'; 300], EntryKind::Symlink { target: b"a".to_vec() })));
        entries
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let destination = folder.path().join("destination");
    let report = try_restore(&repository, &destination, false).await.expect("the rest");
    assert_eq!((report.written, report.problems.iter().filter(|problem| problem.incomplete).count()), (1, 3));
    assert!(!destination.with_extension("receipt").exists());
    assert_eq!(fs::read(destination.join("a")).expect("there"), b"x");
    assert_sound(&repository, "another file system can hold them").await;
}

#[tokio::test]
async fn a_file_without_data_needs_no_pack() {
    let repository = repository_of(|_| {
        let hole = file(b"hole", &[], &[(0, 1 << 30)], |_| panic!("no list"));
        let empty = with_content(file(b"empty", &[], &[], |_| panic!("no list")), |content| {
            assert_eq!(content.chunks, ChunkList::None);
        });
        vec![directory(b""), empty, hole]
    })
    .await;
    assert_sound(&repository, "holes").await;
    let folder = tempfile::tempdir().expect("a folder");
    let destination = folder.path().join("destination");
    let report = try_restore(&repository, &destination, false).await.expect("a restore");
    assert_eq!((report.written, report.block_bytes), (2, 0));
    assert_eq!(fs::metadata(destination.join("hole")).expect("there").len(), 1 << 30);
}
