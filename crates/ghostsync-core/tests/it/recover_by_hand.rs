//! The commands of `docs/recover-by-hand.md` get files back: they are taken out of the page and run.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};

use ghostsync_core::entry::{EntryKind, MAX_INLINE_CHUNKS};
use ghostsync_core::format::commit::{Branch, Changes, Commit, Snapshot, TreeRef};
use ghostsync_core::format::config::{CommitMode, Config};
use ghostsync_core::format::page::ends_list_page;
use ghostsync_core::id::{ChunkId, CommitHash, PackName, RepositoryId, SessionId, SnapshotId};
use ghostsync_core::store::keys;
use object_store::path::Path as Key;
use serde_json::Map;

use crate::small_writer::{PackWriter, bare, entry, file};

/// One file of the source: its chunks, and the holes between them.
struct Source {
    path: Vec<u8>,
    chunks: Vec<Vec<u8>>,
    holes: Vec<(u64, u64)>,
}

impl Source {
    fn new(path: impl Into<Vec<u8>>, chunks: Vec<Vec<u8>>) -> Self {
        Self { path: path.into(), chunks, holes: Vec::new() }
    }

    fn content(&self) -> Vec<u8> {
        let (mut content, mut data) = (Vec::new(), self.chunks.concat());
        for (offset, length) in &self.holes {
            let before = *offset as usize - content.len();
            content.extend(data.drain(..before));
            content.resize((offset + length) as usize, 0);
        }
        [content, data].concat()
    }
}

/// Just too many chunks to be named in an entry, one of which ends a page of their list.
fn many_chunks() -> Vec<Vec<u8>> {
    let count = MAX_INLINE_CHUNKS + 1;
    let chunks = |begin: usize| (begin..begin + count).map(|number| format!("chunk {number}\n").into_bytes()).collect();
    let ends_inside =
        |chunks: &Vec<Vec<u8>>| chunks[1..count - 1].iter().any(|chunk| ends_list_page(0, ChunkId::of(chunk)));
    (0..).step_by(count).map(chunks).find(ends_inside).expect("found")
}

/// More than one leaf, a list of chunks on more than one page, holes, and names of all sorts.
fn sources() -> Vec<Source> {
    let mut sources: Vec<_> = (0..2500)
        .map(|number| Source::new(format!("folder/{number:04}"), vec![format!("file {number}\n").into_bytes()]))
        .collect();
    sources.push(Source::new("empty", vec![]));
    sources.push(Source::new("a 'quoted' \"näme\" \\", vec![b"quoted\n".to_vec()]));
    sources.push(Source::new(&b"folder-\xff/\xfe"[..], vec![b"no UTF-8\n".to_vec()]));
    sources.push(Source::new("few", (0..20).map(|number| vec![number; 5000]).collect()));
    sources.push(Source::new("many", many_chunks()));
    let mut sparse = Source::new("sparse", vec![b"first".to_vec(), b"second".to_vec()]);
    sparse.holes = vec![(0, 5000), (5003, 4), (5015, 1 << 20)];
    sources.push(sparse);
    let mut hole = Source::new("hole", vec![]);
    hole.holes = vec![(0, 100_000)];
    sources.push(hole);
    sources
}

fn write(repository: &Path, key: &Key, bytes: &[u8]) {
    let path = repository.join(key.as_ref());
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, bytes).expect("written");
}

/// Makes a repository on a local disk with these files on the branch `main`.
fn make_repository(repository: &Path, sources: &[Source]) {
    let session = SessionId::from_bytes([0x5a; 16]);
    let pack = |number| PackName { begin: 1, session, number };
    let (mut data, mut meta) = (PackWriter::new(pack(0)), PackWriter::new(pack(1)));
    let mut entries = vec![bare(entry(b"", EntryKind::Directory))];
    for folder in [&b"folder"[..], b"folder-\xff"] {
        entries.push(bare(entry(folder, EntryKind::Directory)));
    }
    for source in sources {
        let mut chunks = Vec::new();
        // Several chunks to a block.
        for block in source.chunks.chunks(7) {
            let block: Vec<&[u8]> = block.iter().map(Vec::as_slice).collect();
            chunks.extend(block.iter().copied().zip(data.push_block(&block)));
        }
        entries.push(file(&source.path, &chunks, &source.holes, |chunks| meta.push_list(chunks)));
    }
    entries.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
    let root = meta.push_tree(&entries);
    assert!(root.level > 0 && meta.table.pages.len() > 8, "more than one page of each kind");
    let (data, meta) = (data.finish(), meta.finish());
    write(repository, &keys::data_pack(pack(0)), &data);
    write(repository, &keys::meta_pack(pack(1)), &meta);

    let time = "2026-01-02T03:04:05Z".parse().expect("a time");
    let config = Config::new(RepositoryId::from_bytes([1; 16]), time, CommitMode::Atomic).encode().expect("encodes");
    write(repository, &keys::config(), &config);
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
    let mut snapshot = Snapshot {
        id: SnapshotId::from_bytes([0; 32]),
        session,
        branch: "main".into(),
        onto: None,
        parent: None,
        time,
        source: "/srv/state".into(),
        excludes: Vec::new(),
        tree,
        entries: entries.iter().filter(|placed| placed.entry.counts()).count() as u64,
        bytes: entries.iter().map(|placed| placed.entry.size()).sum(),
        changes: Changes::default(),
        complete: true,
        tags: [].into(),
        hold: None,
        extra: Map::new(),
    };
    snapshot.id = snapshot.derive_id().expect("derives");
    let first = Commit { seq: 1, time, ..Commit::empty(CommitHash::of(&config)) };
    let first_bytes = first.encode().expect("encodes");
    write(repository, &keys::commit(1), &first_bytes);
    let main = Branch { head: Some(snapshot.id), epoch: 0, holder: None, extra: Map::new() };
    let second = Commit {
        seq: 2,
        prev: CommitHash::of(&first_bytes),
        branches: [("main".into(), main)].into(),
        snapshots: vec![snapshot],
        ..first
    };
    write(repository, &keys::commit(2), &second.encode().expect("encodes"));
}

/// The commands of the page, with other values for its variables.
fn script(values: &[(&str, &[u8])]) -> Vec<u8> {
    let page = include_str!("../../../../docs/recover-by-hand.md");
    let mut script = Vec::new();
    let mut set = 0;
    for block in page.split("\n```sh\n").skip(1) {
        let (commands, _) = block.split_once("\n```\n").expect("a closed block");
        for line in commands.lines() {
            match values.iter().find(|(name, _)| line.starts_with(&format!("{name}="))) {
                Some((name, value)) => {
                    let quoted = value.split(|byte| *byte == b'\'').collect::<Vec<_>>().join(&b"'\\''"[..]);
                    script.extend([name.as_bytes(), b"='", &quoted, b"'"].concat());
                    set += 1;
                }
                None => script.extend(line.as_bytes()),
            }
            script.push(b'\n');
        }
    }
    assert_eq!(set, values.len(), "each variable is set once");
    script
}

fn recover(repository: &Path, folder: &Path, file: &[u8]) -> (Output, std::path::PathBuf) {
    let out = folder.join("recovered");
    let commands = folder.join("commands");
    let values = [
        ("REPO", repository.as_os_str().as_bytes()),
        ("BRANCH", b"main"),
        ("FILE", file),
        ("OUT", out.as_os_str().as_bytes()),
    ];
    fs::write(&commands, script(&values)).expect("written");
    let output = Command::new("sh").arg("-eu").arg(&commands).env("TMPDIR", folder).output().expect("a shell");
    (output, out)
}

/// Tells whether the tools of the page are there, and says so if not.
fn has_tools() -> bool {
    let missing: Vec<_> = ["zstd", "jq", "b3sum"]
        .into_iter()
        .filter(|tool| {
            Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success()) == false
        })
        .collect();
    if !missing.is_empty() {
        eprintln!("skipped: recovering by hand needs {}", missing.join(", "));
    }
    missing.is_empty()
}

#[test]
fn files_come_back_by_the_commands_of_the_page_alone() {
    if !has_tools() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let repository = folder.path().join("repo with a space");
    let sources = sources();
    make_repository(&repository, &sources);
    let small = ["folder/0000", "folder/1234", "folder/2499"].map(|path| path.as_bytes().to_vec());
    for source in sources.iter().filter(|source| !source.path.starts_with(b"folder/") || small.contains(&source.path)) {
        let (output, out) = recover(&repository, folder.path(), &source.path);
        let shown = String::from_utf8_lossy(&source.path);
        assert!(output.status.success(), "{shown}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).ends_with("is right, byte for byte\n"), "{shown}: {output:?}");
        assert!(output.stderr.is_empty(), "{shown}: {output:?}");
        assert!(fs::read(out).expect("recovered") == source.content(), "{shown}");
    }
}

#[test]
fn what_is_damaged_or_absent_does_not_come_back_as_right() {
    if !has_tools() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let repository = folder.path().join("repository");
    let sources =
        [Source::new("folder/a", vec![b"good\n".to_vec()]), Source::new("folder/b", vec![b"to be damaged\n".to_vec()])];
    let sources: Vec<_> = sources
        .into_iter()
        .chain((0..2500).map(|number| Source::new(format!("folder/x{number}"), vec![])))
        .chain([Source::new("many", many_chunks())])
        .collect();
    make_repository(&repository, &sources);
    assert!(recover(&repository, folder.path(), b"folder/b").0.status.success());
    assert!(!recover(&repository, folder.path(), b"folder/c").0.status.success(), "no such file");
    assert!(!recover(&repository, folder.path(), b"folder").0.status.success(), "no file");

    let pack = repository
        .join(keys::data_pack(PackName { begin: 1, session: SessionId::from_bytes([0x5a; 16]), number: 0 }).as_ref());
    let mut bytes = fs::read(&pack).expect("a pack");
    let text = bytes.windows(8).position(|window| window == b"to be da").expect("too short to be compressed");
    bytes[text] ^= 1;
    fs::write(&pack, bytes).expect("written");
    let (output, _) = recover(&repository, folder.path(), b"folder/b");
    assert!(!output.status.success() && !output.stderr.is_empty(), "{output:?}");
    assert!(recover(&repository, folder.path(), b"folder/a").0.status.success(), "the other file is whole");
}
