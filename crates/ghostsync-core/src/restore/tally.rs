//! What a stage of a restore did; each stage returns its own, and the story adds them up.

use std::io;

use rustix::io::Errno;

use super::metadata::Unsettable;
use super::options::Unstable;
use crate::error::{Error, Result};
use crate::problem::Problem;
use crate::tree_path::TreePath;

/// Counts and problems of one stage.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) written: u64,
    pub(super) unchanged: u64,
    pub(super) deleted: u64,
    pub(super) sockets: u64,
    pub(super) problems: Vec<Problem>,
    /// What the walk alone knows.
    pub(super) unstable: Unstable,
    pub(super) damaged: bool,
    /// A pack was not there at all.
    pub(super) missing: bool,
    pub(super) unsettable: Unsettable,
    /// Bytes of blocks received.
    pub(super) block_bytes: u64,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.written += other.written;
        self.unchanged += other.unchanged;
        self.deleted += other.deleted;
        self.sockets += other.sockets;
        self.problems.extend(other.problems);
        self.unstable.count += other.unstable.count;
        self.unstable.paths.extend(other.unstable.paths);
        self.damaged |= other.damaged;
        self.missing |= other.missing;
        self.unsettable.add(other.unsettable);
        self.block_bytes += other.block_bytes;
    }

    /// Something of the snapshot is lacking, or something stays that should not.
    pub(super) fn incomplete(&mut self, path: &TreePath, message: impl Into<String>) {
        self.problems.push(Problem { path: path.clone(), message: message.into(), incomplete: true });
    }

    /// A call failed: if that says something about this one entry, it is a problem, otherwise it ends the restore.
    ///
    /// # Errors
    /// `LocalIo` for a full or failing disk, and for whatever would fail for the next entry too.
    pub(super) fn failed(&mut self, action: &'static str, path: &TreePath, error: io::Error) -> Result<()> {
        if concerns_one_entry(&error) {
            self.incomplete(path, format!("cannot {action}: {error}"));
            Ok(())
        } else {
            Err(Error::local(action, path, error))
        }
    }
}

/// The failures that name, owner or kind of a single entry cause.
fn concerns_one_entry(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::ACCESS
                | Errno::PERM
                | Errno::NAMETOOLONG
                | Errno::INVAL
                | Errno::ILSEQ
                | Errno::FBIG
                | Errno::OVERFLOW
                | Errno::MLINK
                | Errno::XDEV
                | Errno::OPNOTSUPP
                | Errno::BUSY
                | Errno::NOTEMPTY
                | Errno::EXIST
                | Errno::ISDIR
                | Errno::NOTDIR
                | Errno::TXTBSY
                | Errno::NODEV
                | Errno::NXIO
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_or_failing_disk_ends_the_restore_and_a_bad_name_does_not() {
        let path = TreePath::parse("a").expect("a path");
        for (errno, ends) in [
            (Errno::NOSPC, true),
            (Errno::DQUOT, true),
            (Errno::IO, true),
            (Errno::ROFS, true),
            (Errno::MFILE, true),
            (Errno::NAMETOOLONG, false),
            (Errno::PERM, false),
            (Errno::ILSEQ, false),
        ] {
            let mut tally = Tally::default();
            let result = tally.failed("write", &path, errno.into());
            assert_eq!(result.is_err(), ends, "{errno}");
            assert_eq!(tally.problems.iter().filter(|problem| problem.incomplete).count(), usize::from(!ends));
            if let Err(error) = result {
                assert_eq!(error.kind(), crate::ErrorKind::LocalIo);
                assert_eq!(error.io_error().and_then(io::Error::raw_os_error), Some(errno.raw_os_error()));
            }
        }
    }
}
