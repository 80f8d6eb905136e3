//! The cabinet of horrors: one directory with every odd file that a backup must bring back.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags, makedev};

use super::tree::set_mtime;
use crate::entry::FileTime;

/// The size in bytes of the sparse file `holes/10g`.
pub const SPARSE_BYTES: u64 = 10 << 30;

/// The length in bytes of the longest path, counted from the cabinet.
pub const DEEP_BYTES: usize = 4000;

/// What the cabinet holds.
#[derive(Debug, Default)]
#[must_use]
pub struct CabinetReport {
    /// What could not be made here, and why: devices need the superuser, attributes a file system that has them.
    pub skipped: Vec<(String, io::Error)>,
}

impl CabinetReport {
    fn attempt(&mut self, what: &str, outcome: io::Result<()>) {
        self.skipped.extend(outcome.err().map(|error| (what.to_owned(), error)));
    }
}

/// Fills an empty directory. One of its directories, `many`, gets so many small files.
///
/// # Errors
/// The system's, for what works everywhere; what needs rights or support is reported as skipped.
pub fn cabinet(directory: &Path, many: usize) -> io::Result<CabinetReport> {
    let mut report = CabinetReport::default();
    let room = |name: &str| -> io::Result<PathBuf> {
        let path = directory.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    };
    odd_names(&room("names")?)?;
    let empty = room("empty")?;
    fs::create_dir_all(empty.join("a/b/c"))?;
    File::create(empty.join("file"))?;
    links(&room("links")?)?;
    sparse(&room("holes")?, &mut report)?;
    special(&room("special")?, &mut report)?;
    times(&room("times")?)?;
    attributes(&room("attributes")?, &mut report)?;
    owners(&room("owners")?, &mut report)?;
    let crowd = room("many")?;
    for number in 0..many {
        fs::write(crowd.join(format!("{number:06}")), number.to_string())?;
    }
    deep(&room("deep")?)?;
    // Last, because nothing can be made in read-only directories by a normal user.
    modes(&room("modes")?)?;
    Ok(report)
}

/// Gives the owner back the right to look into and change every directory, so that the cabinet can be removed.
///
/// # Errors
/// The system's.
pub fn make_removable(directory: &Path) -> io::Result<()> {
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // What is too deep for a path was never made read-only.
        if entry.file_type()?.is_dir() && entry.path().as_os_str().len() < 1000 {
            make_removable(&entry.path())?;
        }
    }
    Ok(())
}

fn odd_names(room: &Path) -> io::Result<()> {
    let long = [b'n'; 255];
    let names: [&[u8]; 17] = [
        b"-rf",
        b" ",
        b" lead and trail ",
        b"new\nline",
        b"tab\t",
        b"\xff\xfe",
        b"half \xc3",
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        b"back\\slash",
        b"*",
        b"...",
        b"\x01\x1b[31m",
        b"quote'\"",
        b"$(x)`y`",
        b"a:b",
        &long,
    ];
    for name in names {
        let name = std::ffi::OsStr::from_bytes(name);
        fs::write(room.join(name), name.as_bytes())?;
        fs::create_dir(room.join("below")).or_else(ignore_existing)?;
        fs::create_dir(room.join("below").join(name))?;
        symlink(name, room.join("below").join(name).join(name))?;
    }
    // Tree order differs from the order of whole paths: "order" comes before "order/x", and that before "order!".
    fs::create_dir(room.join("order"))?;
    for name in ["order/x", "order!", "order-", "order0"] {
        fs::write(room.join(name), name)?;
    }
    Ok(())
}

fn ignore_existing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

fn links(room: &Path) -> io::Result<()> {
    for (target, name) in [
        ("nowhere", "dangling"),
        ("/nowhere/at/all", "dangling-absolute"),
        ("/etc", "absolute-directory"),
        ("..", "up"),
        ("../../../../../../etc/passwd", "out"),
        ("self", "self"),
        ("hard", "to-directory"),
    ] {
        symlink(target, room.join(name))?;
    }
    symlink("t".repeat(4000), room.join("long"))?;
    symlink(std::ffi::OsStr::from_bytes(b"\xff\n"), room.join("odd-target"))?;
    let time = FileTime { seconds: 1_000_000_000, nanoseconds: 987_654_321 };
    set_mtime(&room.join("dangling"), time)?;
    // Hard links in one directory and across, the first of them in tree order not the first that is made.
    fs::create_dir(room.join("hard"))?;
    fs::create_dir(room.join("also"))?;
    fs::write(room.join("hard/made-first"), b"one file, three names")?;
    for name in ["hard/second", "also/third"] {
        fs::hard_link(room.join("hard/made-first"), room.join(name))?;
    }
    fs::write(room.join("hard/equal-content"), b"one file, three names")?;
    fs::hard_link(room.join("dangling"), room.join("also/link-to-a-link")).or(Ok(()))
}

fn sparse(room: &Path, report: &mut CabinetReport) -> io::Result<()> {
    let large = || {
        let file = File::create(room.join("10g"))?;
        file.set_len(SPARSE_BYTES)?;
        file.write_all_at(b"in the middle", SPARSE_BYTES / 2 + 123)?;
        file.write_all_at(b"at the end", SPARSE_BYTES - 10)
    };
    report.attempt("a sparse file of 10 GiB", large());
    File::create(room.join("nothing-but-a-hole"))?.set_len(1 << 20)?;
    let file = File::create(room.join("hole-at-the-end"))?;
    file.write_all_at(&[b'x'; 5000], 0)?;
    file.set_len(1 << 20)?;
    let file = File::create(room.join("many-holes"))?;
    for block in 0..2000 {
        file.write_all_at(b"data", block * 16384)?;
    }
    fs::write(room.join("written-zeros"), vec![0; 1 << 20])
}

fn special(room: &Path, report: &mut CabinetReport) -> io::Result<()> {
    let node = |name: &str, kind: FileType, device: u64| {
        Ok(rustix::fs::mknodat(CWD, room.join(name), kind, Mode::from(0o640), device)?)
    };
    node("fifo", FileType::Fifo, 0)?;
    report.attempt("a socket", node("socket", FileType::Socket, 0));
    report.attempt("a character device", node("null", FileType::CharacterDevice, makedev(1, 3)));
    report.attempt("a block device", node("block", FileType::BlockDevice, makedev(7, 200)));
    report.attempt("a device with large numbers", node("large", FileType::CharacterDevice, makedev(4000, 1_000_000)));
    Ok(())
}

fn modes(room: &Path) -> io::Result<()> {
    for mode in [0o4755, 0o2755, 0o6711, 0o1644, 0o444, 0o777, 0o600, 0o7777] {
        let path = room.join(format!("file-{mode:04o}"));
        fs::write(&path, b"x")?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    // A normal user cannot read this one; the superuser can.
    fs::write(room.join("file-0000"), b"x")?;
    let unreadable = if rustix::process::geteuid().is_root() { 0o000 } else { 0o400 };
    fs::set_permissions(room.join("file-0000"), Permissions::from_mode(unreadable))?;
    for mode in [0o555, 0o500, 0o1777, 0o2750, 0o3777, 0o700] {
        let path = room.join(format!("dir-{mode:04o}"));
        fs::create_dir_all(path.join("below"))?;
        fs::write(path.join("below/file"), b"x")?;
        fs::write(path.join("file"), b"x")?;
        fs::set_permissions(path.join("below"), Permissions::from_mode(mode))?;
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn times(room: &Path) -> io::Result<()> {
    let table = [
        ("nanoseconds", 1_700_000_000, 123_456_789),
        ("one-nanosecond", 1_700_000_000, 1),
        ("last-nanosecond", 1_700_000_000, 999_999_999),
        ("whole-second", 1_700_000_000, 0),
        ("before-1970", -1_000_000, 250_000_000),
        ("just-before-1970", -1, 999_999_999),
        ("epoch", 0, 0),
        ("after-2038", (1 << 31) + 5, 5),
        ("year-2400", 13_569_465_600, 7),
    ];
    for (name, seconds, nanoseconds) in table {
        fs::write(room.join(name), name)?;
        let directory = room.join(format!("dir-{name}"));
        fs::create_dir(&directory)?;
        fs::write(directory.join("file"), name)?;
        let time = FileTime { seconds, nanoseconds };
        set_mtime(&room.join(name), time)?;
        set_mtime(&directory, time)?;
    }
    Ok(())
}

fn attributes(room: &Path, report: &mut CabinetReport) -> io::Result<()> {
    fs::write(room.join("file"), b"x")?;
    fs::create_dir(room.join("dir"))?;
    let set = |name: &str, attribute: &str, value: &[u8]| {
        Ok(rustix::fs::lsetxattr(room.join(name), attribute, value, XattrFlags::empty())?)
    };
    for name in ["file", "dir"] {
        report.attempt("a user attribute", set(name, "user.comment", b"text"));
        report.attempt("an attribute of any bytes", set(name, "user.bytes", b"\0\xff\n"));
        report.attempt("an empty attribute", set(name, "user.empty", b""));
        report.attempt("a large attribute", set(name, "user.large", &[b'v'; 2000]));
        report.attempt("a POSIX ACL", set(name, "system.posix_acl_access", &access_control_list()));
    }
    report.attempt("a default POSIX ACL", set("dir", "system.posix_acl_default", &access_control_list()));
    fs::write(room.join("dir/inherits"), b"x")?;
    if rustix::process::geteuid().is_root() {
        symlink("nowhere", room.join("link"))?;
        report.attempt("an attribute of a link", set("link", "trusted.comment", b"on the link itself"));
    }
    Ok(())
}

/// `u::rw-,u:1234:r--,g::r--,m::r--,o::---` as the system stores it: a version, then tag, permissions and id of each.
fn access_control_list() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(0x01_u16, 6_u16, NOBODY), (0x02, 4, 1234), (0x04, 4, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)]
    {
        bytes.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
    }
    bytes
}

fn owners(room: &Path, report: &mut CabinetReport) -> io::Result<()> {
    fs::write(room.join("file"), b"x")?;
    fs::create_dir(room.join("dir"))?;
    symlink("nowhere", room.join("link"))?;
    for (name, uid, gid) in [("file", 12345, 54321), ("dir", 1, 65534), ("link", 4_000_000_000, 7)] {
        report.attempt("another owner", std::os::unix::fs::lchown(room.join(name), Some(uid), Some(gid)));
    }
    Ok(())
}

/// A path of 500 names; every fiftieth directory also holds something that comes after what lies below it.
fn deep(room: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = |directory: &OwnedFd, name: &str, content: &[u8]| -> io::Result<()> {
        let file = rustix::fs::openat(directory, name, OFlags::WRONLY | OFlags::CREATE, Mode::from(0o644))?;
        File::from(file).write_all_at(content, 0)
    };
    let mut handle = rustix::fs::open(room, flags, Mode::empty())?;
    let mut length = "deep".len();
    for level in 0.. {
        let name = format!("d{level:06}");
        if length + 1 + name.len() + "/bottom".len() > DEEP_BYTES {
            break;
        }
        rustix::fs::mkdirat(&handle, &name, Mode::from(0o755))?;
        if level % 50 == 0 {
            file(&handle, "z", name.as_bytes())?;
        }
        handle = rustix::fs::openat(&handle, &name, flags, Mode::empty())?;
        length += 1 + name.len();
    }
    let rest = DEEP_BYTES - length - 1;
    file(&handle, &"b".repeat(rest), b"at the bottom")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::format::config::Chunker;
    use crate::id::ContentHash;
    use crate::interrupt::Interrupt;
    use crate::source::{Desk, Excludes, FoundKind, Matcher, ReadOutcome, SourceRoot, Walk, Walked, read_file};
    use crate::testing::tree::read_back;

    /// Makes the cabinet, walks it, reads every file, and compares all that with a naive look.
    fn walk_and_read(many: usize) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let report = cabinet(directory.path(), many).expect("made");
        for (what, error) in &report.skipped {
            eprintln!("skipped: {what}: {error}");
        }
        let root = SourceRoot::open(directory.path()).expect("opened");
        let excludes = Excludes::default();
        let mut walk = Walk::new(&root, Matcher::new(&excludes).expect("no patterns"), &excludes);
        let mut description = read_back(directory.path()).expect("readable");
        let mut contents = BTreeMap::new();
        while let Some(walked) = walk.next() {
            let Walked::Found(found) = walked.expect("the root can be read") else { panic!("all can be read") };
            if found.kind == FoundKind::Socket {
                continue;
            }
            let described = description.remove(&found.path).expect("found by the naive look too");
            let xattrs: BTreeMap<_, _> =
                walk.xattrs(&found).expect("read").into_iter().map(|xattr| (xattr.name, xattr.value)).collect();
            assert_eq!(xattrs, described.xattrs, "{:?}", found.path);
            assert_eq!((found.uid, found.gid), (described.uid, described.gid), "{:?}", found.path);
            assert_eq!((found.mtime.seconds, found.mtime.nanoseconds.into()), described.mtime, "{:?}", found.path);
            match &found.kind {
                FoundKind::File { size } => {
                    assert_eq!(*size, described.size);
                    let outcome = read_file(
                        &root,
                        &mut Desk::default(),
                        &found,
                        &Chunker::default(),
                        &Interrupt::default(),
                        &mut |_| Ok(()),
                    );
                    let ReadOutcome::Read { content, unstable: false, .. } = outcome.expect("read") else {
                        panic!("nothing changes here: {:?}", found.path)
                    };
                    let known = contents.insert(content.hash, described.content);
                    assert!(known.is_none_or(|known| known == described.content), "equal hashes, equal content");
                    if *size < 1 << 16 {
                        assert!(content.holes.is_empty() || *size > 4096);
                    }
                }
                FoundKind::Symlink { target } => assert_eq!(Some(target), described.target.as_ref()),
                FoundKind::CharDevice(_) | FoundKind::BlockDevice(_) => assert_ne!(described.device, 0),
                FoundKind::Directory | FoundKind::Fifo | FoundKind::Socket => {}
            }
        }
        assert!(description.is_empty(), "not found: {:?}", description.keys());
        let distinct: std::collections::BTreeSet<_> =
            contents.values().map(|hash| hash.map(|hash| *hash.as_bytes())).collect();
        assert_eq!(distinct.len(), contents.len(), "different hashes, different content");
        assert!(contents.contains_key(&ContentHash::of(b"at the bottom")));
        make_removable(directory.path()).expect("made removable");
    }

    #[test]
    fn the_cabinet_is_walked_and_read_in_full() {
        walk_and_read(300);
    }

    #[test]
    #[ignore = "makes 100,000 files"]
    fn the_large_cabinet_is_walked_and_read_in_full() {
        walk_and_read(100_000);
    }

    #[test]
    fn the_cabinet_is_the_same_each_time_and_as_deep_as_it_says() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let report = cabinet(directory.path(), 3).expect("made");
        let description = read_back(directory.path()).expect("readable");
        assert_eq!(description.keys().map(|path| path.as_bytes().len()).max(), Some(DEEP_BYTES));
        let is_root = rustix::process::geteuid().is_root();
        assert!(!is_root || !description.values().all(|described| described.uid == 0), "other owners");
        for word in ["sparse", "device", "ACL"] {
            let skipped = report.skipped.iter().any(|(what, _)| what.contains(word));
            let path = crate::tree_path::TreePath::parse(match word {
                "sparse" => "holes/10g",
                "device" => "special/null",
                _ => "attributes/file",
            });
            let there = description.get(&path.expect("a valid path"));
            let made = match word {
                "ACL" => there.is_some_and(|described| described.xattrs.contains_key(&b"system.posix_acl_access"[..])),
                _ => there.is_some(),
            };
            assert!(made || skipped, "{word}: made or reported");
        }
        make_removable(directory.path()).expect("made removable");
    }
}
