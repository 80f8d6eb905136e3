//! Links, pipes and devices: made under a temporary name, then put in place.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, makedev};

use super::destination::Directory;
use super::metadata::{Target, Unsettable, User, apply, open_named};
use crate::entry::{Entry, EntryKind};
use crate::temporary;

/// Makes an entry that has no content of its own, in the place of whatever stands there but a directory.
///
/// # Errors
/// The system's; a device that this user may not make is `PermissionDenied`.
pub(super) fn make(
    directory: &Arc<Directory>,
    name: &[u8],
    entry: &Entry,
    user: &User,
    unsettable: &mut Unsettable,
) -> io::Result<()> {
    let temporary = temporary::name();
    let handle = directory.handle()?;
    let private = Mode::RUSR | Mode::WUSR;
    match &entry.kind {
        EntryKind::Symlink { target } => rustix::fs::symlinkat(&target[..], &*handle, &temporary)?,
        EntryKind::Fifo => rustix::fs::mknodat(&*handle, &temporary, FileType::Fifo, private, 0)?,
        EntryKind::CharDevice(number) => {
            let device = makedev(number.major, number.minor);
            rustix::fs::mknodat(&*handle, &temporary, FileType::CharacterDevice, private, device)?;
        }
        EntryKind::BlockDevice(number) => {
            let device = makedev(number.major, number.minor);
            rustix::fs::mknodat(&*handle, &temporary, FileType::BlockDevice, private, device)?;
        }
        EntryKind::File(_) | EntryKind::Directory | EntryKind::Socket => return Err(io::ErrorKind::InvalidInput.into()),
    }
    let made = open_named(&handle, temporary.as_bytes())
        .and_then(|named| apply(Target::Named(named.as_fd()), entry, user, unsettable))
        .and_then(|()| directory.rename(temporary.as_bytes(), name));
    if made.is_err() {
        // What cannot be removed is swept by the next run.
        let _ = directory.unlink(temporary.as_bytes());
    }
    made
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;
    use crate::entry::{DeviceNumber, FileTime};
    use crate::restore::tests::{entry, temporary_root};

    #[test]
    fn links_pipes_and_devices_replace_what_is_there() {
        let (folder, root) = temporary_root();
        let at = folder.path().join("a");
        std::fs::write(&at, b"old").expect("writes");
        let user = User::current();
        let mtime = FileTime { seconds: 77, nanoseconds: 5 };
        let make_it = |kind| {
            let wanted = Entry { mode: 0o641, mtime, ..entry("a", kind) };
            make(&root, b"a", &wanted, &user, &mut Unsettable::default())
        };
        make_it(EntryKind::Symlink { target: b"/no/such/place".to_vec() }).expect("makes a link");
        assert_eq!(std::fs::read_link(&at).expect("a link").as_os_str(), "/no/such/place");
        assert_eq!(std::fs::symlink_metadata(&at).expect("is there").mtime(), 77);
        make_it(EntryKind::Fifo).expect("makes a pipe");
        let metadata = std::fs::symlink_metadata(&at).expect("is there");
        assert!(metadata.file_type().is_fifo());
        assert_eq!((metadata.mode() & 0o7777, metadata.mtime(), metadata.mtime_nsec()), (0o641, 77, 5));
        match make_it(EntryKind::CharDevice(DeviceNumber { major: 1, minor: 3 })) {
            Ok(()) => assert!(std::fs::symlink_metadata(&at).expect("is there").file_type().is_char_device()),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "no temporary name is left");
    }

    #[test]
    fn nothing_is_left_of_what_cannot_be_put_in_place() {
        let (folder, root) = temporary_root();
        std::fs::create_dir(folder.path().join("a")).expect("makes");
        let made = make(&root, b"a", &entry("a", EntryKind::Fifo), &User::current(), &mut Unsettable::default());
        assert!(made.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
