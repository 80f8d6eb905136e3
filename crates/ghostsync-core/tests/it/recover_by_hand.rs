//! The commands of `docs/recover-by-hand.md` get files back: they are taken out of the page and run.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use ghostsync_core::backup::{BackupOptions, backup};
use ghostsync_core::format::config::{Chunker, CommitMode, Config};
use ghostsync_core::format::page::Placement;
use ghostsync_core::id::RepositoryId;
use ghostsync_core::observer::NoObserver;
use ghostsync_core::repository::{OpenOptions, Repository};
use ghostsync_core::store::{StoreSettings, open_url};
use ghostsync_core::tree_path::TreePath;

/// One file of the source: pieces of content, and where they begin; the rest is holes.
struct Source {
    path: Vec<u8>,
    pieces: Vec<(usize, Vec<u8>)>,
    size: usize,
}

impl Source {
    fn new(path: impl Into<Vec<u8>>, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        Self { path: path.into(), size: content.len(), pieces: vec![(0, content)] }
    }

    fn content(&self) -> Vec<u8> {
        let mut content = vec![0; self.size];
        for (begin, piece) in &self.pieces {
            content[*begin..begin + piece.len()].copy_from_slice(piece);
        }
        content
    }
}

/// Bytes that do not compress and in which no chunk is found twice.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
    noise
}

/// More than one leaf, files of one, of some and of many chunks, holes, and names of all sorts.
fn sources() -> Vec<Source> {
    let mut sources: Vec<_> =
        (0..2500).map(|number| Source::new(format!("folder/{number:04}"), format!("file {number}\n"))).collect();
    sources.push(Source::new("empty", ""));
    sources.push(Source::new("a 'quoted' \"näme\" \\", "quoted\n"));
    sources.push(Source::new(&b"folder-\xff/\xfe"[..], "no UTF-8\n"));
    sources.push(Source::new("some", noise(0, 20_000)));
    sources.extend((1..6).map(|seed| Source::new(format!("many-{seed}"), noise(seed, 110_000))));
    let pieces = vec![(1 << 16, noise(6, 70_000)), (1 << 20, b"the end".to_vec())];
    sources.push(Source { path: b"sparse".to_vec(), pieces, size: 2 << 20 });
    sources.push(Source { path: b"hole".to_vec(), pieces: Vec::new(), size: 100_000 });
    sources
}

/// Makes a directory with these files.
fn make_directory(folder: &Path, sources: &[Source]) {
    for source in sources {
        let path = folder.join(OsStr::from_bytes(&source.path));
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let mut file = File::create(path).expect("made");
        for (begin, piece) in &source.pieces {
            file.seek(SeekFrom::Start(*begin as u64)).expect("sought");
            file.write_all(piece).expect("written");
        }
        file.set_len(source.size as u64).expect("set");
    }
}

/// Backs a directory up into a new repository on a local disk, in whose files chunks are small.
async fn make_repository(folder: &Path, source: &Path) -> Repository {
    let time = "2026-01-02T03:04:05Z".parse().expect("a time");
    let chunker =
        Chunker { whole_bytes: 1024, min_bytes: 64, average_bytes: 256, max_bytes: 1024, ..Chunker::default() };
    let config = Config { chunker, ..Config::new(RepositoryId::from_bytes([1; 16]), time, CommitMode::Atomic) };
    fs::create_dir_all(folder).expect("made");
    fs::write(folder.join("config.json"), config.encode().expect("encodes")).expect("written");
    let store = open_url(folder.to_str().expect("UTF-8"), &StoreSettings::default(), false).expect("a store");
    let repository = Repository::open(store, OpenOptions::default()).await.expect("a repository");
    let report = backup(&repository, source, BackupOptions::default(), Arc::new(NoObserver)).await.expect("a backup");
    assert!(report.is_complete(), "{report:?}");
    repository
}

/// The files whose chunks are named on more than one list page.
async fn long_lists(repository: &Repository) -> Vec<Vec<u8>> {
    let state = repository.state().await.expect("a state");
    let head = state.commit.head("main").expect("a head");
    assert!(head.tree.level > 0, "the tree has more than one page");
    let mut entries = repository.entries(head, &TreePath::root());
    let mut paths = Vec::new();
    while let Some(page) = entries.next_page().await.expect("a page") {
        let is_long = |content: &Placement| matches!(content, Placement::List(list) if list.level > 0);
        paths.extend(
            page.iter().filter(|placed| is_long(&placed.content)).map(|placed| placed.entry.path.as_bytes().to_vec()),
        );
    }
    paths
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
        .filter(|tool| Command::new(tool).arg("--version").output().is_err())
        .collect();
    if !missing.is_empty() {
        // Not by a macro, whose output a passing test swallows.
        writeln!(std::io::stderr(), "skipped: recovering by hand needs {}", missing.join(", ")).expect("written");
    }
    missing.is_empty()
}

#[tokio::test]
async fn files_come_back_by_the_commands_of_the_page_alone() {
    if !has_tools() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (directory, copy) = (folder.path().join("directory"), folder.path().join("repo with a space"));
    let sources = sources();
    make_directory(&directory, &sources);
    let repository = make_repository(&copy, &directory).await;
    let long = long_lists(&repository).await;
    assert!(!long.is_empty(), "a list has more than one page");
    // Each takes a while: some of the equal ones are enough.
    let some = [&b"folder/0000"[..], b"folder/1234", b"folder/2499", &long[0]];
    let is_one_of_many = |path: &[u8]| path.starts_with(b"folder/") || path.starts_with(b"many");
    for source in sources.iter().filter(|source| !is_one_of_many(&source.path) || some.contains(&&source.path[..])) {
        let (output, out) = recover(&copy, folder.path(), &source.path);
        let shown = String::from_utf8_lossy(&source.path);
        assert!(output.status.success(), "{shown}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).ends_with("is right, byte for byte\n"), "{shown}: {output:?}");
        assert!(output.stderr.is_empty(), "{shown}: {output:?}");
        assert!(fs::read(out).expect("recovered") == source.content(), "{shown}");
    }
}

#[tokio::test]
async fn what_is_damaged_or_absent_does_not_come_back_as_right() {
    if !has_tools() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (directory, copy) = (folder.path().join("directory"), folder.path().join("repository"));
    // Each is one chunk, and one block is not large enough for all.
    let names = (0..1500).map(|number| format!("folder/{number:04}"));
    let sources: Vec<_> = names.zip(0..).map(|(name, seed)| Source::new(name, noise(seed, 1000))).collect();
    make_directory(&directory, &sources);
    make_repository(&copy, &directory).await;
    assert!(recover(&copy, folder.path(), b"folder/1499").0.status.success());
    assert!(!recover(&copy, folder.path(), b"folder/1500").0.status.success(), "no such file");
    assert!(!recover(&copy, folder.path(), b"folder").0.status.success(), "no file");

    let mut damaged = 0;
    for session in fs::read_dir(copy.join("packs")).expect("packs") {
        for pack in fs::read_dir(session.expect("a session").path()).expect("packs") {
            let pack = pack.expect("a pack").path();
            let mut bytes = fs::read(&pack).expect("a pack");
            if pack.extension().is_some_and(|extension| extension == "data")
                && let Some(at) = bytes.windows(1000).position(|window| window == sources[1499].content())
            {
                bytes[at + 500] ^= 1;
                fs::write(&pack, bytes).expect("written");
                damaged += 1;
            }
        }
    }
    assert_eq!(damaged, 1, "noise is stored as it is");
    let (output, _) = recover(&copy, folder.path(), b"folder/1499");
    assert!(!output.status.success() && !output.stderr.is_empty(), "{output:?}");
    assert!(recover(&copy, folder.path(), b"folder/0000").0.status.success(), "the other file is whole");
}
