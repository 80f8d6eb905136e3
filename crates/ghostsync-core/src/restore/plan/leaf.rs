//! What is no directory: kept, corrected, linked, or written.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags};

use super::Planner;
use crate::entry::{Entry, FileContent, Xattr};
use crate::error::Result;
use crate::format::page::Placed;
use crate::id::ContentHash;
use crate::restore::Overwrite;
use crate::restore::compare::{Likeness, Step, has_same_content, step};
use crate::restore::destination::{Directory, There};
use crate::restore::fetch::Task;
use crate::restore::links::{Original, Role};
use crate::restore::metadata::{Target, apply, is_right, open_named, xattrs_within};
use crate::restore::special;
use crate::restore::write::{Afterwards, FileJob};
use crate::tree_path::TreePath;

impl Planner {
    pub(super) fn leaf(
        &mut self,
        parent: Option<Arc<Directory>>,
        name: &[u8],
        placed: Placed,
        there: Option<There>,
        xattrs: Option<Vec<Xattr>>,
    ) -> Result<()> {
        let entry = &placed.entry;
        let role = self.links.role(entry)?;
        if let (Role::Member(Original::There { id, .. }), Some(there)) = (&role, &there)
            && *id == there.id
        {
            self.keep(entry.size());
            return Ok(());
        }
        let likeness = match self.likeness(parent.as_ref(), name, entry, there.as_ref(), xattrs) {
            Ok(likeness) => likeness,
            Err(error) => {
                self.links.pass(entry);
                return self.tally.failed("read", &entry.path, error);
            }
        };
        let mut step = step(likeness, self.rules.overwrite);
        let is_shared = there.as_ref().is_some_and(|there| there.links > 1);
        let would_change = matches!(step, Step::Keep | Step::Correct);
        match &role {
            // It is right, but not one file with the others of its group.
            Role::Member(_) if would_change && self.rules.overwrite != Overwrite::Never => step = Step::Write,
            // Somebody else's name for the same file must not see its metadata change.
            Role::Original if step == Step::Correct && is_shared && entry.link.is_none() => step = Step::Write,
            _ => {}
        }
        if step == Step::Write && there.as_ref().is_some_and(|there| there.kind == FileType::Directory) {
            let is_clear = match &parent {
                Some(parent) => self.clear_way(parent, name, &entry.path)?,
                None => true,
            };
            if !is_clear {
                if matches!(role, Role::Original) {
                    self.links.pass(entry);
                }
                return Ok(());
            }
        }
        match (step, role) {
            (Step::Write, Role::Member(original)) => {
                self.link(parent, original, entry);
                Ok(())
            }
            (Step::Write, Role::Original) => self.write(parent, name, placed),
            (Step::Keep | Step::Correct, role) => {
                let mut kept = Ok(());
                if step == Step::Keep {
                    self.keep(entry.size());
                } else {
                    kept = self.correct(parent.as_ref(), name, entry);
                }
                if let (Role::Original, Some(directory), Some(there)) = (role, parent, there) {
                    self.links.note(entry, Original::There { directory, name: name.into(), id: there.id });
                }
                kept
            }
            (Step::Stay, role) => {
                self.stay(&entry.path);
                if matches!(role, Role::Original) {
                    self.links.pass(entry);
                }
                Ok(())
            }
        }
    }

    fn likeness(
        &mut self,
        parent: Option<&Arc<Directory>>,
        name: &[u8],
        entry: &Entry,
        there: Option<&There>,
        xattrs: Option<Vec<Xattr>>,
    ) -> std::io::Result<Likeness> {
        let (Some(parent), Some(there)) = (parent, there) else { return Ok(Likeness::Absent) };
        let handle = parent.handle()?;
        let leads_to = match there.kind {
            FileType::Symlink => Some(rustix::fs::readlinkat(&*handle, name, Vec::new())?.into_bytes()),
            _ => None,
        };
        if !has_same_content(entry, there, leads_to.as_deref()) {
            return Ok(Likeness::Different);
        }
        if let Some(content) = entry.content()
            && self.rules.verify
            && !self.holds(parent, name, content)?
        {
            return Ok(Likeness::Different);
        }
        let right = is_right(there, entry, &self.rules.user, || match xattrs {
            Some(xattrs) => Ok(xattrs),
            None => Ok(xattrs_within(handle.as_fd(), name)?),
        })?;
        Ok(if right { Likeness::Same } else { Likeness::SameContent })
    }

    /// Reads a file and tells whether it is the content.
    fn holds(&mut self, parent: &Arc<Directory>, name: &[u8], content: &FileContent) -> std::io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match rustix::fs::openat(&*parent.handle()?, name, flags, Mode::empty()) {
            // A file that its owner made unreadable to himself can still be written anew.
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => return Ok(false),
            opened => opened?,
        };
        let mut file = std::fs::File::from(opened);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 || self.rules.interrupt.is_set() {
                return Ok(ContentHash::from_hasher(&hasher) == content.hash);
            }
            hasher.update(buffer.get(..read).unwrap_or_default());
        }
    }

    /// Makes room where a directory stands in the place of something else.
    fn clear_way(&mut self, parent: &Arc<Directory>, name: &[u8], path: &TreePath) -> Result<bool> {
        if self.rules.delete {
            let is_clear = self.removal().remove(parent, name, path.clone())?;
            if !is_clear {
                self.tally.incomplete(path, "a directory stands in its place, and something in it may not be removed");
            }
            return Ok(is_clear);
        }
        let emptied = if self.rules.act {
            parent.remove(name)
        } else {
            parent.open(name).and_then(|directory| match directory.names()?.is_empty() {
                true => Ok(()),
                false => Err(rustix::io::Errno::NOTEMPTY.into()),
            })
        };
        match emptied {
            Ok(()) => Ok(true),
            Err(error) => self.tally.failed("replace the directory in its place", path, error).map(|()| false),
        }
    }

    fn correct(&mut self, parent: Option<&Arc<Directory>>, name: &[u8], entry: &Entry) -> Result<()> {
        if let Some(parent) = parent.filter(|_| self.rules.act) {
            let corrected = parent.handle().and_then(|handle| {
                let named = open_named(&handle, name)?;
                apply(Target::Named(named.as_fd()), entry, &self.rules.user, &mut self.tally.unsettable)
            });
            if let Err(error) = corrected {
                return self.tally.failed("set the metadata of", &entry.path, error);
            }
        }
        self.tally.written += 1;
        self.advanced.0 += 1;
        self.advanced.1 = self.advanced.1.saturating_add(entry.size());
        Ok(())
    }

    fn link(&mut self, parent: Option<Arc<Directory>>, original: Original, entry: &Entry) {
        match parent.filter(|_| self.rules.act) {
            Some(directory) => {
                let link = Afterwards::Link { original, path: entry.path.clone(), directory };
                self.tasks.push(Task::Afterwards(link));
            }
            None => self.tally.written += 1,
        }
    }

    fn write(&mut self, parent: Option<Arc<Directory>>, name: &[u8], placed: Placed) -> Result<()> {
        let entry = &placed.entry;
        let Some(directory) = parent.filter(|_| self.rules.act) else {
            self.tally.written += 1;
            self.links.note(entry, Original::Planned);
            return Ok(());
        };
        if entry.content().is_some() {
            let job = Arc::new(FileJob::new(entry.clone(), directory));
            self.links.note(entry, Original::Job(Arc::clone(&job)));
            self.tasks.push(Task::File(job, Box::new(placed)));
            return Ok(());
        }
        let made = special::make(&directory, name, entry, &self.rules.user, &mut self.tally.unsettable)
            .and_then(|()| directory.look(name));
        match made {
            Ok(there) => {
                self.tally.written += 1;
                self.advanced.0 += 1;
                if let Some(there) = there {
                    self.links.note(entry, Original::There { directory, name: name.into(), id: there.id });
                }
                Ok(())
            }
            Err(error) => {
                self.links.pass(entry);
                self.tally.failed("create", &entry.path, error)
            }
        }
    }
}
