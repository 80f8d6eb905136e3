//! Owner, mode, attributes, ACLs and times of what is restored, in the order that keeps each of them.
//!
//! A change of owner clears setuid bits and capabilities, and a change of mode rewrites an ACL's mask, so the
//! order is: owner, attributes, mode, ACLs, time. Only what differs is set, so that nothing is touched in vain.
//! What this user may not set is counted, and told once for the whole restore.

mod target;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::destination::{Directory, There};
use crate::entry::{Entry, EntryKind, Xattr};
use crate::problem::Problem;
use crate::tree_path::TreePath;
use crate::xattr::{ACCESS_ACL, DEFAULT_ACL};

pub(super) use self::target::{Target, has_no_xattrs, open_named, xattrs_of_file, xattrs_within};

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const OWNER_RIGHTS: u32 = 0o700;

/// Who restores, and what that user may therefore give away.
#[derive(Debug, Clone)]
pub(super) struct User {
    uid: u32,
    groups: Vec<u32>,
}

impl User {
    pub(super) fn current() -> Self {
        let mut groups: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().into_iter().map(|gid| gid.as_raw()).collect();
        groups.push(rustix::process::getegid().as_raw());
        Self { uid: rustix::process::geteuid().as_raw(), groups }
    }

    fn may_set_owner(&self) -> bool {
        self.uid == 0
    }

    /// Whether a directory of this user keeps even him from changing what is in it.
    fn lacks_rights(&self, there: &There) -> bool {
        self.uid != 0 && self.uid == there.uid && there.mode & OWNER_RIGHTS != OWNER_RIGHTS
    }

    fn may_set_group(&self, gid: u32) -> bool {
        self.uid == 0 || self.groups.contains(&gid)
    }
}

/// What this user was not allowed to set: the first path and how many there are.
#[derive(Debug, Default)]
pub(super) struct Unsettable {
    owners: Option<(TreePath, u64)>,
    attributes: Option<(TreePath, u64, String)>,
}

impl Unsettable {
    fn owner(&mut self, path: &TreePath) {
        self.owners.get_or_insert_with(|| (path.clone(), 0)).1 += 1;
    }

    fn attribute(&mut self, path: &TreePath, name: &[u8], error: Errno) {
        let why = || format!("{}: {}", name.escape_ascii(), io::Error::from(error));
        self.attributes.get_or_insert_with(|| (path.clone(), 0, why())).1 += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        if let Some((path, count)) = other.owners {
            self.owners.get_or_insert((path, 0)).1 += count;
        }
        if let Some((path, count, why)) = other.attributes {
            self.attributes.get_or_insert((path, 0, why)).1 += count;
        }
    }

    /// At most one problem of each kind; the restore is complete all the same.
    pub(super) fn into_problems(self) -> impl Iterator<Item = Problem> {
        let owners = self.owners.map(|(path, count)| Problem {
            path,
            message: format!("this user may not set the owner; so for {count} entries, this is the first"),
            incomplete: false,
        });
        let attributes = self.attributes.map(|(path, count, why)| Problem {
            path,
            message: format!("cannot set an extended attribute ({why}); so for {count} attributes, this is the first"),
            incomplete: false,
        });
        owners.into_iter().chain(attributes)
    }
}

/// Opens a directory to change what is in it.
pub(super) fn open_to_change(
    parent: &Arc<Directory>,
    name: &[u8],
    there: &There,
    user: &User,
) -> io::Result<Arc<Directory>> {
    if user.lacks_rights(there) {
        let named = open_named(&*parent.handle()?, name)?;
        let target = Target::Named(named.as_fd());
        if target.look()?.kind == FileType::Directory {
            let_change(target, there, user)?;
        }
    }
    parent.open(name)
}

/// Gives a plain user the right to change what is in his own directory; its final mode is set later.
pub(super) fn let_change(target: Target<'_>, there: &There, user: &User) -> io::Result<()> {
    if user.lacks_rights(there) {
        target.set_mode(there.mode | OWNER_RIGHTS)?;
    }
    Ok(())
}

fn is_acl(name: &[u8]) -> bool {
    matches!(name, ACCESS_ACL | DEFAULT_ACL)
}

/// The mode that an entry gets under an owner who may not be its own: a program never runs as somebody else than
/// its snapshot says.
fn mode_for(entry: &Entry, uid: u32, gid: u32) -> u32 {
    let mut mode = entry.mode;
    if uid != entry.uid {
        mode &= !SET_UID;
    }
    if gid != entry.gid {
        mode &= !SET_GID;
    }
    mode
}

/// Tells whether nothing that this user can set differs from the entry.
///
/// # Errors
/// The system's, for its attributes.
pub(super) fn is_right(
    there: &There,
    entry: &Entry,
    user: &User,
    xattrs: impl FnOnce() -> io::Result<Vec<Xattr>>,
) -> io::Result<bool> {
    let owner = there.uid == entry.uid || !user.may_set_owner();
    let group = there.gid == entry.gid || !user.may_set_group(entry.gid);
    let mode = has_no_mode(entry) || there.mode == mode_for(entry, there.uid, there.gid);
    Ok(owner && group && mode && there.mtime == entry.mtime && xattrs()? == entry.xattrs)
}

/// The mode of a link means nothing and cannot be set.
fn has_no_mode(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::Symlink { .. })
}

/// Gives a file, directory or link the metadata of its entry.
///
/// # Errors
/// The system's, but for what this user may not set: that is counted.
pub(super) fn apply(target: Target<'_>, entry: &Entry, user: &User, unsettable: &mut Unsettable) -> io::Result<()> {
    set(target, entry, user, unsettable, || match target.xattrs() {
        // A file that its owner made unreadable to himself.
        Err(Errno::ACCESS | Errno::PERM) => Ok(Vec::new()),
        other => Ok(other?),
    })
}

/// The same for a file that was just made in a directory that hands no ACL down: it has no attributes yet.
pub(super) fn apply_new(target: Target<'_>, entry: &Entry, user: &User, unsettable: &mut Unsettable) -> io::Result<()> {
    set(target, entry, user, unsettable, || Ok(Vec::new()))
}

/// Permissions that a new file can have from its begin, so that nearly none needs to be given them afterwards: its
/// group has no rights that others lack, whichever group that is until the file gets its own.
pub(super) fn first_mode(entry: &Entry) -> u32 {
    let (group, others) = (entry.mode >> 3 & 7, entry.mode & 7);
    let is_private = group & !others != 0 || (group | others) & 2 != 0;
    if is_private { 0o600 } else { entry.mode & 0o777 }
}

fn set(
    target: Target<'_>,
    entry: &Entry,
    user: &User,
    unsettable: &mut Unsettable,
    attributes: impl FnOnce() -> io::Result<Vec<Xattr>>,
) -> io::Result<()> {
    let mut there = target.look()?;
    if there.uid != entry.uid || there.gid != entry.gid {
        set_owner(target, &there, entry, user, unsettable)?;
        there = target.look()?;
    }
    let old = attributes()?;
    set_xattrs(target, entry, &old, |name| !is_acl(name), unsettable)?;
    if there.kind != FileType::Symlink && !has_no_mode(entry) {
        let mode = mode_for(entry, there.uid, there.gid);
        let mut changed = there.mode != mode;
        if changed {
            target.set_mode(mode)?;
        }
        changed |= old.iter().any(|xattr| is_acl(&xattr.name)) || entry.xattrs.iter().any(|xattr| is_acl(&xattr.name));
        if changed {
            let old = target.xattrs().unwrap_or_default();
            set_xattrs(target, entry, &old, is_acl, unsettable)?;
        }
    }
    if there.mtime != entry.mtime {
        target.set_mtime(entry.mtime)?;
    }
    Ok(())
}

fn set_owner(
    target: Target<'_>,
    there: &There,
    entry: &Entry,
    user: &User,
    unsettable: &mut Unsettable,
) -> io::Result<()> {
    let gid = (there.gid != entry.gid).then_some(entry.gid);
    let uid = (there.uid != entry.uid).then_some(entry.uid);
    let attempts: &[(Option<u32>, Option<u32>)] =
        if uid.is_some() && user.may_set_owner() { &[(uid, gid), (None, gid)] } else { &[(None, gid)] };
    let mut refused = uid.is_some() && !user.may_set_owner();
    for (uid, gid) in attempts.iter().filter(|attempt| **attempt != (None, None)) {
        match target.set_owner(*uid, *gid) {
            Ok(()) => break,
            // Not allowed, or an id that means nothing in this user namespace or file system.
            Err(Errno::PERM | Errno::INVAL | Errno::OPNOTSUPP) => refused = true,
            Err(error) => return Err(error.into()),
        }
    }
    if refused {
        unsettable.owner(&entry.path);
    }
    Ok(())
}

fn set_xattrs(
    target: Target<'_>,
    entry: &Entry,
    old: &[Xattr],
    which: impl Fn(&[u8]) -> bool,
    unsettable: &mut Unsettable,
) -> io::Result<()> {
    // A disk that is full shows in what is written next; a full attribute block says the same and is no such thing.
    let mut settle = |name: &[u8], result: rustix::io::Result<()>| match result {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error @ (Errno::IO | Errno::ROFS | Errno::NOMEM)) => Err(error),
        Err(error) => {
            unsettable.attribute(&entry.path, name, error);
            Ok(())
        }
    };
    for xattr in entry.xattrs.iter().filter(|xattr| which(&xattr.name) && !old.contains(xattr)) {
        settle(&xattr.name, target.set_xattr(&xattr.name, &xattr.value))?;
    }
    let stays = |name: &[u8]| entry.xattrs.iter().any(|xattr| xattr.name == name);
    for xattr in old.iter().filter(|xattr| which(&xattr.name) && !stays(&xattr.name)) {
        settle(&xattr.name, target.remove_xattr(&xattr.name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::FileTime;
    use crate::restore::tests::{entry, temporary_root};

    fn xattr(name: &str, value: &[u8]) -> Xattr {
        Xattr { name: name.as_bytes().to_vec(), value: value.to_vec() }
    }

    #[test]
    fn a_program_never_runs_as_somebody_else() {
        let program = Entry { mode: 0o6755, uid: 10, gid: 20, ..entry("a", EntryKind::Fifo) };
        for (uid, gid, mode) in [(10, 20, 0o6755), (11, 20, 0o2755), (10, 21, 0o4755), (11, 21, 0o755)] {
            assert_eq!(mode_for(&program, uid, gid), mode);
        }
    }

    #[test]
    fn everything_that_this_user_can_set_is_set_and_seen() {
        let (folder, root) = temporary_root();
        let user = User::current();
        std::fs::write(folder.path().join("a"), b"x").expect("writes");
        std::os::unix::fs::symlink("nowhere", folder.path().join("b")).expect("links");
        let owner = if user.may_set_owner() { (12, 34) } else { (user.uid, user.groups[0]) };
        let mtime = FileTime { seconds: -5, nanoseconds: 123_456_789 };
        let common = |entry: Entry| Entry { uid: owner.0, gid: owner.1, mtime, ..entry };
        let file = Entry {
            mode: 0o6741,
            xattrs: vec![xattr("user.one", b"1"), xattr("user.two", &[7; 3000])],
            ..common(entry("a", EntryKind::Fifo))
        };
        let link = common(entry("b", EntryKind::Symlink { target: b"nowhere".to_vec() }));
        for entry in [&file, &link, &file] {
            let handle = root.handle().expect("a handle");
            let named = open_named(&handle, entry.path.as_bytes()).expect("opens");
            let target = Target::Named(named.as_fd());
            let mut unsettable = Unsettable::default();
            apply(target, entry, &user, &mut unsettable).expect("applies");
            let there = target.look().expect("looks");
            let no_problem = unsettable.into_problems().count() == 0;
            assert!(
                is_right(&there, entry, &user, || Ok(target.xattrs()?)).expect("compares") || !no_problem,
                "{there:?}"
            );
            assert_eq!(there.mtime, mtime);
        }
        for wrong in [
            Entry { mode: 0o740, ..file.clone() },
            Entry { mtime: FileTime { nanoseconds: 0, ..mtime }, ..file.clone() },
            Entry { xattrs: Vec::new(), ..file.clone() },
        ] {
            let named = open_named(&root.handle().expect("a handle"), b"a").expect("opens");
            let target = Target::Named(named.as_fd());
            let there = target.look().expect("looks");
            assert!(!is_right(&there, &wrong, &user, || Ok(target.xattrs()?)).expect("compares"), "{wrong:?}");
        }
        let outside = open_named(&root.handle().expect("a handle"), b"nothing").expect_err("is not there");
        assert_eq!(outside.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn attributes_that_are_not_the_snapshots_go() {
        let (folder, root) = temporary_root();
        std::fs::write(folder.path().join("a"), b"x").expect("writes");
        let named = open_named(&root.handle().expect("a handle"), b"a").expect("opens");
        let target = Target::Named(named.as_fd());
        if target.set_xattr(b"user.old", b"1").is_err() {
            eprintln!("skipped: this file system has no user attributes");
            return;
        }
        let user = User::current();
        let there = target.look().expect("looks");
        let wanted = Entry {
            mode: 0o640,
            uid: there.uid,
            gid: there.gid,
            xattrs: vec![xattr("user.new", b"2")],
            ..entry("a", EntryKind::Fifo)
        };
        apply(target, &wanted, &user, &mut Unsettable::default()).expect("applies");
        assert_eq!(target.xattrs().expect("lists"), wanted.xattrs);
    }

    #[test]
    fn what_may_not_be_set_is_told_once() {
        let mut unsettable = Unsettable::default();
        for name in ["a", "b", "c"] {
            let mut other = Unsettable::default();
            let path = TreePath::parse(name).expect("a path");
            other.owner(&path);
            other.attribute(&path, b"trusted.x", Errno::PERM);
            unsettable.add(other);
        }
        let problems: Vec<_> = unsettable.into_problems().collect();
        assert_eq!(problems.len(), 2);
        for problem in problems {
            assert_eq!(problem.path.as_bytes(), b"a");
            assert!(problem.message.contains('3') && !problem.incomplete, "{problem:?}");
        }
    }
}
