//! One entry of the snapshot and what stands in its place in, what is to be done with it out. Pure.

use rustix::fs::FileType;

use super::Overwrite;
use super::destination::There;
use crate::entry::{Entry, EntryKind};

/// What is to be done with an entry of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is right already.
    Keep,
    /// Its content is right, its metadata are not.
    Correct,
    /// It is missing or differs: it is written, in the place of what is there.
    Write,
    /// It differs, and what is there stays.
    Stay,
}

/// How what is there compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Nothing is there.
    Absent,
    /// Another kind, or another content.
    Different,
    /// The same content under other metadata.
    SameContent,
    /// All the same.
    Same,
}

/// Decides by the likeness and the user's wish.
pub(super) fn step(likeness: Likeness, overwrite: Overwrite) -> Step {
    match (likeness, overwrite) {
        (Likeness::Absent, _) | (_, Overwrite::Always) | (Likeness::Different, Overwrite::Changed) => Step::Write,
        (Likeness::Same, _) => Step::Keep,
        (Likeness::SameContent, Overwrite::Changed) => Step::Correct,
        (Likeness::Different | Likeness::SameContent, Overwrite::Never) => Step::Stay,
    }
}

/// Tells whether what is there has, by its metadata, the entry's kind and content. `target` is where a link leads.
pub(super) fn has_same_content(entry: &Entry, there: &There, target: Option<&[u8]>) -> bool {
    there.kind == file_type(&entry.kind)
        && match &entry.kind {
            EntryKind::File(content) => there.size == content.size && there.mtime == entry.mtime,
            EntryKind::Symlink { target: wanted } => target == Some(wanted),
            EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => there.device == *device,
            EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => true,
        }
}

/// The kind as the system names it.
pub(super) fn file_type(kind: &EntryKind) -> FileType {
    match kind {
        EntryKind::File(_) => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink { .. } => FileType::Symlink,
        EntryKind::Fifo => FileType::Fifo,
        EntryKind::CharDevice(_) => FileType::CharacterDevice,
        EntryKind::BlockDevice(_) => FileType::BlockDevice,
        EntryKind::Socket => FileType::Socket,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{DeviceNumber, FileTime};
    use crate::receipt::DirectoryId;
    use crate::restore::tests::{entry, file};

    #[test]
    fn what_is_done_follows_from_likeness_and_wish() {
        use Likeness::{Absent, Different, Same, SameContent};
        use Overwrite::{Always, Changed, Never};
        let table = [
            (Absent, Changed, Step::Write),
            (Absent, Always, Step::Write),
            (Absent, Never, Step::Write),
            (Different, Changed, Step::Write),
            (Different, Always, Step::Write),
            (Different, Never, Step::Stay),
            (SameContent, Changed, Step::Correct),
            (SameContent, Always, Step::Write),
            (SameContent, Never, Step::Stay),
            (Same, Changed, Step::Keep),
            (Same, Always, Step::Write),
            (Same, Never, Step::Keep),
        ];
        for (likeness, overwrite, expected) in table {
            assert_eq!(step(likeness, overwrite), expected, "{likeness:?} {overwrite:?}");
        }
    }

    #[test]
    fn content_is_judged_by_kind_size_time_target_and_device() {
        let mtime = FileTime { seconds: 1, nanoseconds: 2 };
        let there = There {
            kind: FileType::RegularFile,
            size: 3,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime,
            device: DeviceNumber { major: 0, minor: 0 },
            id: DirectoryId { device: 1, inode: 1 },
            links: 1,
        };
        let wanted = Entry { mtime, ..file("a", b"abc") };
        assert!(has_same_content(&wanted, &there, None));
        assert!(has_same_content(&wanted, &There { mode: 0, uid: 5, ..there }, None), "metadata alone");
        assert!(!has_same_content(&wanted, &There { size: 4, ..there }, None));
        assert!(!has_same_content(&wanted, &There { mtime: FileTime { seconds: 1, nanoseconds: 0 }, ..there }, None));
        assert!(!has_same_content(&wanted, &There { kind: FileType::Symlink, ..there }, Some(b"x")));

        let link = entry("a", EntryKind::Symlink { target: b"x".to_vec() });
        let there_link = There { kind: FileType::Symlink, ..there };
        assert!(has_same_content(&link, &there_link, Some(b"x")));
        assert!(!has_same_content(&link, &there_link, Some(b"y")));
        assert!(!has_same_content(&link, &there_link, None));

        let number = DeviceNumber { major: 1, minor: 3 };
        let device = entry("a", EntryKind::CharDevice(number));
        let there_device = There { kind: FileType::CharacterDevice, device: number, ..there };
        assert!(has_same_content(&device, &there_device, None));
        assert!(!has_same_content(
            &device,
            &There { device: DeviceNumber { major: 1, minor: 5 }, ..there_device },
            None
        ));
        assert!(!has_same_content(&device, &There { kind: FileType::BlockDevice, ..there_device }, None));
        assert!(has_same_content(
            &entry("a", EntryKind::Directory),
            &There { kind: FileType::Directory, ..there },
            None
        ));
    }
}
