use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{CWD, RenameFlags, XattrFlags, renameat_with};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::source::FoundKind;
use crate::testing::tree::{NodeKind, Piece, tree};

fn start(directory: &Path, excludes: &Excludes) -> Walk {
    let root = SourceRoot::open(directory).expect("opened");
    Walk::new(&root, Matcher::new(excludes).expect("good patterns"), excludes)
}

/// Everything that a walk finds, by itself and with another thread ahead of it.
fn walk(directory: &Path, excludes: &Excludes) -> Vec<Walked> {
    let all = |walk: Walk| walk.map(|walked| walked.expect("the root can be read")).collect::<Vec<_>>();
    let (alone, ahead) = (all(start(directory, excludes)), all(start(directory, excludes).ahead()));
    assert_eq!(format!("{alone:?}"), format!("{ahead:?}"));
    ahead
}

/// Each item as a line: the path for what was found, and a mark before it for anything else.
fn lines(walked: &[Walked]) -> Vec<String> {
    let line = |walked: &Walked| match walked {
        Walked::Found(found) => found.path.to_string(),
        Walked::Unreadable { path, below: true, .. } => format!("unreadable below {path}"),
        Walked::Unreadable { path, below: false, .. } => format!("unreadable {path}"),
        Walked::Excluded { path } => format!("excluded {path}"),
    };
    walked.iter().map(line).collect()
}

fn excluding(patterns: &[&str]) -> Excludes {
    Excludes { patterns: patterns.iter().map(|line| (*line).to_owned()).collect(), ..Excludes::default() }
}

fn make(files: &[&str]) -> TempDir {
    let directory = tempdir().expect("a temporary directory");
    for file in files {
        let path = directory.path().join(file);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("created");
        if !file.ends_with('/') {
            fs::write(path, file).expect("written");
        } else {
            fs::create_dir_all(path).expect("created");
        }
    }
    directory
}

/// A chain of directories, each with a file that comes after the next one, and names of so many bytes.
fn make_chain(levels: usize, name_bytes: usize) -> (TempDir, String) {
    let directory = tempdir().expect("a temporary directory");
    let name = "d".repeat(name_bytes);
    let mut handle = OwnedFd::from(fs::File::open(directory.path()).expect("opened"));
    for _ in 0..levels {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        rustix::fs::openat(&handle, "z", flags, Mode::from(0o644)).expect("created");
        rustix::fs::mkdirat(&handle, &name, Mode::from(0o755)).expect("created");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        handle = rustix::fs::openat(&handle, &name, flags, Mode::empty()).expect("opened");
    }
    (directory, name)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_is_found_once_and_in_tree_order(model in tree(0..60)) {
        let directory = tempdir().expect("a temporary directory");
        model.write(directory.path()).expect("written");
        let walked = walk(directory.path(), &Excludes::default());
        prop_assert!(walked.is_sorted_by(|a, b| a.path() < b.path()));
        prop_assert!(walked[0].path().is_root());
        prop_assert_eq!(walked.len(), model.len() + 1);
        for (walked, (path, node)) in walked[1..].iter().zip(model.iter()) {
            let Walked::Found(found) = walked else { panic!("{walked:?}") };
            prop_assert_eq!(&found.path, path);
            prop_assert_eq!(found.links, if node.kind == NodeKind::Directory { found.links } else { model.links(path).len() as u64 });
            match &node.kind {
                NodeKind::File(pieces) => {
                    let size = pieces.iter().map(Piece::bytes).sum();
                    prop_assert_eq!(&found.kind, &FoundKind::File { size });
                }
                NodeKind::Directory => prop_assert_eq!(&found.kind, &FoundKind::Directory),
                NodeKind::Symlink(target) => {
                    prop_assert_eq!(&found.kind, &FoundKind::Symlink { target: target.clone() });
                }
                NodeKind::Fifo => prop_assert_eq!(&found.kind, &FoundKind::Fifo),
            }
            if !matches!(node.kind, NodeKind::Symlink(_)) {
                prop_assert_eq!(found.mode, node.mode);
            }
            prop_assert_eq!(Some(found.mtime), node.mtime);
        }
    }

    #[test]
    fn excludes_hide_exactly_what_the_patterns_say(model in tree(0..60), patterns in proptest::sample::subsequence(vec!["a", "/b", "c/", "*a*", "!ab", "d?", "/c/**"], 0..5)) {
        let directory = tempdir().expect("a temporary directory");
        model.write(directory.path()).expect("written");
        let excludes = excluding(&patterns);
        let matcher = Matcher::new(&excludes).expect("good patterns");
        let mut found = vec![TreePath::root()];
        let mut excluded = Vec::new();
        for walked in walk(directory.path(), &excludes) {
            match walked {
                Walked::Excluded { path } => excluded.push(path),
                Walked::Found(entry) if !entry.path.is_root() => found.push(entry.path),
                Walked::Found(_) => {}
                Walked::Unreadable { .. } => panic!("{walked:?}"),
            }
        }
        for (path, node) in model.iter() {
            let hidden = matcher.excludes_below(path, node.kind == NodeKind::Directory);
            prop_assert_eq!(!hidden, found.contains(path), "{:?}", path);
            prop_assert_eq!(hidden, excluded.iter().any(|top| path.starts_with(top)), "{:?}", path);
        }
    }
}

#[test]
fn a_directory_of_any_size_is_found_whole() {
    for files in [SLICE - 1, SLICE, SLICE + 1, 20 * SLICE + 3] {
        let names: Vec<String> =
            (0..files).map(|number| format!("d/{number:05}")).chain(["d/00300-/x".into()]).collect();
        let directory = make(&names.iter().map(String::as_str).collect::<Vec<_>>());
        // As what is looked into, and as the root.
        for (root, most) in [(directory.path().to_owned(), files + 4), (directory.path().join("d"), files + 3)] {
            let found = walk(&root, &Excludes::default());
            assert_eq!(found.len(), most, "{files} files");
            let sizes = found.iter().filter(
                |walked| matches!(walked, Walked::Found(Found { kind: FoundKind::File { size }, .. }) if *size > 0),
            );
            assert_eq!(sizes.count(), files + 1, "{files} files");
        }
    }
}

#[test]
fn an_excluded_directory_stands_for_what_lies_below() {
    let directory = make(&["build/x/y", "keep/a.tmp", "keep/b", "top"]);
    let walked = walk(directory.path(), &excluding(&["build/", "*.tmp"]));
    assert_eq!(lines(&walked), ["", "excluded build", "keep", "excluded keep/a.tmp", "keep/b", "top"]);
}

#[test]
fn a_handful_of_handles_is_enough_for_any_depth() {
    const LEVELS: usize = 600;
    let (directory, _) = make_chain(LEVELS, 10);
    let mut walk = start(directory.path(), &Excludes::default());
    let mut found = 0;
    while let Some(walked) = walk.next() {
        let Walked::Found(_) = walked.expect("the root can be read") else { panic!("something could not be read") };
        let open = walk.levels.iter().filter(|level| matches!(level.handle, Handle::Open(_))).count();
        assert!(open <= MAX_OPEN + 1, "{open} handles");
        found += 1;
    }
    assert_eq!(found, 1 + 2 * LEVELS);
}

#[test]
fn a_path_longer_than_any_entry_may_have_is_reported_and_not_dropped() {
    let (directory, name) = make_chain(MAX_PATH_BYTES / 251 + 2, 250);
    let walked = walk(directory.path(), &Excludes::default());
    let unreadable: Vec<_> = walked.iter().filter(|walked| matches!(walked, Walked::Unreadable { .. })).collect();
    let [Walked::Unreadable { path, below: true, error }] = unreadable[..] else { panic!("{unreadable:?}") };
    assert_eq!(path.depth(), MAX_PATH_BYTES / 251);
    assert_eq!(path.name(), Some(name.as_bytes()));
    assert_eq!(error.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
    assert!(walked.is_sorted_by(|a, b| a.path() <= b.path()));
}

#[test]
fn a_directory_that_cannot_be_found_again_on_the_way_up_loses_nothing_silently() {
    let (directory, name) = make_chain(MAX_OPEN + 20, 2);
    let at = |levels: usize| (0..levels).fold(directory.path().to_owned(), |path: PathBuf, _| path.join(&name));
    let mut walk = start(directory.path(), &Excludes::default());
    let deepest = walk.by_ref().nth(MAX_OPEN + 20).expect("not the end").expect("found");
    assert_eq!(deepest.path().depth(), MAX_OPEN + 20);
    // The directory on level 6 leaves the one on level 5, which gets another name: neither way leads to it.
    fs::rename(at(6), directory.path().join("elsewhere")).expect("renamed");
    fs::rename(at(5), at(4).join("renamed")).expect("renamed");
    let rest: Vec<_> = walk.map(|walked| walked.expect("the root can be read")).collect();
    let unreadable: Vec<_> = lines(&rest).into_iter().filter(|line| line.starts_with("unreadable")).collect();
    assert_eq!(unreadable, [format!("unreadable {}/z", [name.as_str(); 5].join("/"))]);
    assert_eq!(rest.len(), MAX_OPEN + 20, "every file on the way up is accounted for");
}

#[test]
fn what_is_never_content_is_invisible_wherever_links_lead() {
    let directory = make(&["data/x", "receipt", "real/cache/file", "other/receipt"]);
    let outside = tempdir().expect("a temporary directory");
    let way_in = outside.path().join("way-in");
    symlink(directory.path(), &way_in).expect("linked");
    symlink("real/cache", directory.path().join("cache-link")).expect("linked");
    let never = vec![
        way_in.join("receipt"),
        directory.path().join("cache-link"),
        directory.path().join("not/yet/there"),
        directory.path().join("data/../late"),
    ];
    let excludes = Excludes { never, ..Excludes::default() };
    let mut walk = start(directory.path(), &excludes);
    // What is made after the walk has begun is hidden all the same.
    fs::create_dir_all(directory.path().join("not/yet/there/below")).expect("created");
    let walked: Vec<_> = walk.by_ref().map(|walked| walked.expect("readable")).collect();
    assert_eq!(lines(&walked), ["", "data", "data/x", "not", "not/yet", "other", "other/receipt", "real"]);
    // The receipt is found by its place: another file of that name is still the receipt.
    fs::write(directory.path().join("new"), b"").expect("written");
    fs::rename(directory.path().join("new"), directory.path().join("receipt")).expect("renamed");
    assert!(!lines(&self::walk(directory.path(), &excludes)).contains(&"receipt".to_owned()));
}

#[test]
fn what_a_cut_restore_left_behind_is_no_content() {
    let (ours, like_ours) = (".ghostsync-0123456789abcdef.tmp", ".ghostsync-0123456789abcdef.tmp.txt");
    let directory = make(&["a", ours, like_ours, &format!("below/{ours}"), &format!("folder/{ours}/file")]);
    let found = lines(&walk(directory.path(), &Excludes::default()));
    let folder = format!("folder/{ours}");
    assert_eq!(found, ["", like_ours, "a", "below", "folder", &folder, &format!("{folder}/file")]);
}

#[test]
fn a_tagged_cache_keeps_itself_and_its_tag() {
    let directory = make(&["cache/CACHEDIR.TAG", "cache/a/b", "cache/z", "fake/CACHEDIR.TAG", "fake/x", "linked/x"]);
    let tag = [CACHE_SIGNATURE.as_slice(), b"\n# a cache\n"].concat();
    fs::write(directory.path().join("cache/CACHEDIR.TAG"), tag).expect("written");
    symlink("../cache/CACHEDIR.TAG", directory.path().join("linked/CACHEDIR.TAG")).expect("linked");
    let excludes = Excludes { caches: true, ..Excludes::default() };
    assert_eq!(
        lines(&walk(directory.path(), &excludes)),
        [
            "",
            "cache",
            "cache/CACHEDIR.TAG",
            "excluded cache/a",
            "excluded cache/z",
            "fake",
            "fake/CACHEDIR.TAG",
            "fake/x",
            "linked",
            "linked/CACHEDIR.TAG",
            "linked/x"
        ]
    );
    assert_eq!(walk(directory.path(), &Excludes::default()).len(), 12, "only when asked for");
}

#[test]
fn the_content_of_a_mount_point_is_left_out_when_asked_for() {
    use std::os::unix::fs::MetadataExt;
    // Nobody may mount here, but most systems have something mounted below /dev.
    let dev = Path::new("/dev");
    let device = |path: &Path| fs::symlink_metadata(path).map_or(0, |metadata| metadata.dev());
    let mounted = ["shm", "pts", "mqueue", "hugepages"].into_iter().find(|name| {
        let path = dev.join(name);
        fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) && device(&path) != device(dev)
    });
    let Some(mounted) = mounted else { return eprintln!("skipped: nothing is mounted below /dev") };
    let excludes = Excludes { one_file_system: true, ..Excludes::default() };
    let lines = lines(&walk(dev, &excludes));
    let found = lines.iter().position(|line| line == mounted).expect("the mount point itself is kept");
    assert_eq!(lines.get(found + 1), Some(&format!("excluded {mounted}")));
    assert!(!lines.iter().any(|line| line.starts_with(&format!("{mounted}/"))));
}

#[test]
fn a_link_swapped_in_is_never_followed() {
    let directory = make(&["dir/inside", "z"]);
    let outside = make(&["secret"]);
    let at = |name: &str| directory.path().join(name);
    symlink(outside.path(), at("link")).expect("linked");

    // Between the report of a directory and its listing: the directory that was reported is listed.
    let mut walk = start(directory.path(), &Excludes::default());
    let reported = walk.by_ref().nth(1).expect("not the end").expect("found");
    assert_eq!(lines(&[reported]), ["dir"]);
    renameat_with(CWD, at("dir"), CWD, at("link"), RenameFlags::EXCHANGE).expect("exchanged");
    let rest: Vec<_> = walk.map(|walked| walked.expect("readable")).collect();
    assert_eq!(lines(&rest), ["dir/inside", "link", "link/inside", "z"]);

    // At any moment whatever. The number of swaps is bounded, so that a failure ends the other thread too.
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            for _ in 0..20_000 {
                renameat_with(CWD, at("dir"), CWD, at("link"), RenameFlags::EXCHANGE).expect("exchanged");
            }
        });
        while !swaps.is_finished() {
            for walk in
                [start(directory.path(), &Excludes::default()), start(directory.path(), &Excludes::default()).ahead()]
            {
                let lines = lines(&walk.map(|walked| walked.expect("readable")).collect::<Vec<_>>());
                assert!(!lines.iter().any(|line| line.contains("secret")), "{lines:?}");
            }
        }
    });
}

#[test]
fn what_vanishes_before_it_is_looked_at_is_not_there() {
    let directory = make(&["a", "b", "c/d"]);
    let mut walk = start(directory.path(), &Excludes::default());
    let first: Vec<_> = walk.by_ref().take(2).map(|walked| walked.expect("readable")).collect();
    assert_eq!(lines(&first), ["", "a"]);
    fs::remove_file(directory.path().join("b")).expect("removed");
    fs::remove_dir_all(directory.path().join("c")).expect("removed");
    assert!(walk.next().is_none());
}

#[test]
fn a_root_that_is_gone_is_an_error_and_not_an_empty_directory() {
    let directory = tempdir().expect("a temporary directory");
    let path = directory.path().join("root");
    fs::create_dir(&path).expect("created");
    let mut walk = start(&path, &Excludes::default());
    fs::remove_dir(&path).expect("removed");
    assert!(walk.by_ref().any(|walked| walked.is_err()), "however far it came");
    assert!(walk.next().is_none(), "and that is the end");
}

#[test]
fn a_root_can_be_walked_twice() {
    let directory = make(&["a/b", "c"]);
    let root = SourceRoot::open(directory.path()).expect("opened");
    let matcher = Matcher::new(&Excludes::default()).expect("no patterns");
    let walk = || Walk::new(&root, matcher.clone(), &Excludes::default()).filter_map(Result::ok).collect::<Vec<_>>();
    assert_eq!(lines(&walk()), ["", "a", "a/b", "c"]);
    assert_eq!(lines(&walk()), ["", "a", "a/b", "c"]);
}

#[test]
fn extended_attributes_of_everything_that_has_them() {
    let (directory, _) = make_chain(MAX_OPEN + 10, 100);
    symlink("nowhere", directory.path().join("link")).expect("linked");
    let set = |path: &Path, name: &str, value: &[u8]| rustix::fs::lsetxattr(path, name, value, XattrFlags::empty());
    let is_root = rustix::process::geteuid().is_root();
    if set(directory.path(), "user.on", b"the root").is_err() {
        return eprintln!("skipped: no attributes in the temporary directory");
    }
    let large = vec![b'x'; 1500];
    set(&directory.path().join("z"), "user.b", b"").expect("set");
    set(&directory.path().join("z"), "user.a\u{e9}", &large).expect("set");
    if is_root {
        set(&directory.path().join("link"), "trusted.on", b"the link itself").expect("set");
    }
    let mut walk = start(directory.path(), &Excludes::default());
    let mut read = Vec::new();
    let mut last = None;
    while let Some(walked) = walk.next() {
        let Walked::Found(found) = walked.expect("readable") else { panic!("unreadable") };
        let xattrs = walk.xattrs(&found).expect("attributes, or none");
        read.extend(xattrs.into_iter().map(|xattr| (found.path.to_string(), xattr)));
        last = Some(found);
    }
    let xattr = |name: &str, value: &[u8]| Xattr { name: name.into(), value: value.to_vec() };
    let mut expected = vec![(String::new(), xattr("user.on", b"the root"))];
    if is_root {
        expected.push(("link".into(), xattr("trusted.on", b"the link itself")));
    }
    expected.push(("z".into(), xattr("user.a\u{e9}", &large)));
    expected.push(("z".into(), xattr("user.b", b"")));
    assert_eq!(read, expected);

    let mut last = last.expect("found something");
    let file = fs::File::open(directory.path().join("z")).expect("opened");
    assert_eq!(xattr::of_file(&file).expect("read").len(), 2);
    last.path = TreePath::parse("elsewhere/z").expect("a valid path");
    assert!(walk.xattrs(&last).is_err(), "only of the entry that was just found");
}

#[test]
fn what_may_not_be_read_is_reported_and_the_rest_is_found() {
    use std::os::unix::fs::PermissionsExt;
    if rustix::process::geteuid().is_root() {
        return as_a_normal_user("source::walk::tests::what_may_not_be_read_is_reported_and_the_rest_is_found");
    }
    let directory = make(&["a", "closed/x", "list-only/x", "list-only/tmp", "pass-only/x", "z"]);
    let set = |mode: u32| {
        for (name, closed) in [("closed", 0o000), ("list-only", 0o400), ("pass-only", 0o100)] {
            let mode = if mode == 0 { closed } else { mode };
            fs::set_permissions(directory.path().join(name), fs::Permissions::from_mode(mode)).expect("set");
        }
    };
    set(0);
    let walked = walk(directory.path(), &excluding(&["tmp"]));
    let root = fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o000))
        .map(|()| SourceRoot::open(directory.path()).expect_err("closed"));
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).expect("set");
    set(0o700);
    assert_eq!(
        lines(&walked),
        [
            "",
            "a",
            "closed",
            "unreadable below closed",
            "list-only",
            "excluded list-only/tmp",
            "unreadable list-only/x",
            "pass-only",
            "unreadable below pass-only",
            "z"
        ]
    );
    let kind = root.expect("set").io_error().map(std::io::Error::kind);
    assert_eq!(kind, Some(std::io::ErrorKind::PermissionDenied));
}

/// Runs one test of this program as nobody: no mode keeps anything from the superuser.
fn as_a_normal_user(test: &str) {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65534;
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = std::process::Command::new(program);
    let outcome = command.args(["--exact", test, "--nocapture"]).current_dir("/").uid(NOBODY).gid(NOBODY).output();
    match outcome {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
        Err(error) => eprintln!("skipped: cannot run as another user: {error}"),
    }
}
