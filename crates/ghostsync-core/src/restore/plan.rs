//! The lock-step of the snapshot's entries with the destination: decides what is to be done with each, and in
//! which order.
//!
//! The same walk surveys and acts. A survey changes nothing and counts; its figures are what a cap is held
//! against and what a dry run reports. Acting, the walk itself makes directories, links and special files,
//! corrects metadata and removes what the snapshot lacks; whatever needs content, or must wait for it, goes out
//! as a task. Both stream: only the directories on the way down are remembered, and hard-link groups.
//!
//! The entries come from a repository and are not trusted: they must be in order, and each must lie in a
//! directory that came before it. So nothing is ever written but below a directory that this walk has opened,
//! through handles, without following a link.

mod leaf;

use std::iter::Peekable;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::FileType;
use tokio::sync::mpsc;

use super::Overwrite;
use super::compare::{Likeness, Step, step};
use super::destination::{Directory, There};
use super::fetch::Task;
use super::flow::{Flow, Outcome};
use super::links::Links;
use super::metadata::{Target, User, is_right, let_change, open_to_change};
use super::remove::{Losses, Removal};
use super::selection::{Selected, Selection};
use super::tally::Tally;
use super::write::Afterwards;
use crate::entry::{Entry, EntryKind, FileTime};
use crate::error::{Error, Result};
use crate::format::page::{Placed, Placement};
use crate::interrupt::Interrupt;
use crate::observer::{Observer, Progress};
use crate::temporary;
use crate::tree_path::TreePath;

/// What the walk is to do.
pub(super) struct Rules {
    pub(super) selection: Selection,
    pub(super) overwrite: Overwrite,
    /// Removes what the snapshot lacks.
    pub(super) delete: bool,
    /// Reads again what seems to be unchanged.
    pub(super) verify: bool,
    /// Changes the destination, and does not only look at it.
    pub(super) act: bool,
    pub(super) user: User,
    pub(super) interrupt: Interrupt,
    pub(super) observer: Arc<dyn Observer>,
}

/// What comes from the tree.
#[derive(Debug)]
pub(super) enum FromTree {
    /// Entries, in order.
    Entries(Vec<Selected>),
    /// A page is lost, and with it an unknown number of entries.
    Lost(String),
}

/// What a survey found out.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// What would be removed.
    pub(super) losses: Losses,
    /// The first entry that differs and would stay.
    pub(super) stays: Option<TreePath>,
    /// The first entry of the snapshot that the excludes keep from being restored.
    pub(super) excluded: Option<TreePath>,
    /// Entries that would be restored or are right already.
    pub(super) entries: u64,
    /// Their bytes of content.
    pub(super) bytes: u64,
}

/// The walk.
pub(super) struct Planner {
    rules: Rules,
    /// `None`: it is not there, and this is a survey.
    destination: Option<Arc<Directory>>,
    /// The directories down to where the walk is.
    levels: Vec<Level>,
    /// Whatever lies here is passed over.
    skip: Option<TreePath>,
    previous: Option<TreePath>,
    something_is_lost: bool,
    links: Links,
    tasks: Vec<Task>,
    survey: Survey,
    tally: Tally,
    listed: u64,
    advanced: (u64, u64),
}

/// A directory that the walk is in.
struct Level {
    path: TreePath,
    /// `None`: it is not there, and this is a survey.
    directory: Option<Arc<Directory>>,
    /// The names that were there and that the walk has not passed yet.
    names: Peekable<std::vec::IntoIter<Box<[u8]>>>,
    /// The metadata that it gets in the end.
    entry: Option<Box<Entry>>,
    /// What the snapshot lacks is removed here.
    deletes: bool,
}

impl Planner {
    pub(super) fn new(rules: Rules, destination: Option<Arc<Directory>>) -> Self {
        let all_are_met = rules.selection.is_everything();
        Self {
            rules,
            destination,
            levels: Vec::new(),
            skip: None,
            previous: None,
            something_is_lost: false,
            links: Links::new(all_are_met),
            tasks: Vec::new(),
            survey: Survey::default(),
            tally: Tally::default(),
            listed: 0,
            advanced: (0, 0),
        }
    }

    /// Walks, and hands out tasks, until the entries end.
    ///
    /// # Errors
    /// `Corrupt` for a tree that is none, `LocalIo` if the destination cannot be read or changed.
    pub(super) fn act(
        mut self,
        mut tree: mpsc::Receiver<Flow<FromTree>>,
        tasks: &mpsc::Sender<Flow<Vec<Task>>>,
    ) -> Result<Outcome> {
        loop {
            let end = match tree.blocking_recv() {
                Some(Flow::Next(news)) => {
                    self.take(news)?;
                    false
                }
                Some(Flow::End) => {
                    self.leave_all()?;
                    true
                }
                None => return Ok(Outcome::CutOff),
            };
            let ready = std::mem::take(&mut self.tasks);
            if tasks.blocking_send(Flow::Next(ready)).is_err() {
                return Ok(Outcome::CutOff);
            }
            if end {
                return Ok(match tasks.blocking_send(Flow::End) {
                    Ok(()) => Outcome::Done(self.tally),
                    Err(_) => Outcome::CutOff,
                });
            }
        }
    }

    /// Walks and counts; `None` if the entries were cut off.
    ///
    /// # Errors
    /// As [`Planner::act`].
    pub(super) fn survey(mut self, mut tree: mpsc::Receiver<Flow<FromTree>>) -> Result<Option<(Survey, Tally)>> {
        loop {
            match tree.blocking_recv() {
                Some(Flow::Next(news)) => self.take(news)?,
                Some(Flow::End) => {
                    self.leave_all()?;
                    return Ok(Some((self.survey, self.tally)));
                }
                None => return Ok(None),
            }
        }
    }

    fn take(&mut self, news: FromTree) -> Result<()> {
        match news {
            FromTree::Entries(entries) => {
                self.listed += entries.len() as u64;
                entries.into_iter().try_for_each(|selected| self.entry(selected))?;
                self.rules.observer.progress(Progress::Listed { entries: self.listed });
            }
            FromTree::Lost(reason) => {
                self.something_is_lost = true;
                self.links.expect_losses();
                self.tally.damaged = true;
                let path = self.previous.clone().unwrap_or_default();
                self.tally.incomplete(&path, format!("an unknown number of entries after this one is lost: {reason}"));
            }
        }
        let (files, bytes) = std::mem::take(&mut self.advanced);
        if self.rules.act && files > 0 {
            self.rules.observer.progress(Progress::Advanced { files, bytes });
        }
        Ok(())
    }

    fn entry(&mut self, mut selected: Selected) -> Result<()> {
        self.rules.interrupt.check()?;
        let path = selected.placed.entry.path.clone();
        if self.previous.as_ref().is_some_and(|previous| *previous >= path) {
            return Err(Error::corrupt(format!("the tree is out of order at {path}")));
        }
        self.previous = Some(path.clone());
        while self.levels.last().is_some_and(|level| !path.starts_with(&level.path)) {
            self.leave()?;
        }
        if self.skip.as_ref().is_some_and(|skip| path.starts_with(skip)) {
            self.links.pass(&selected.placed.entry);
            return Ok(());
        }
        self.skip = None;
        let Some(parent) = path.parent() else { return self.root(selected) };
        if self.levels.last().is_none_or(|level| level.path != parent) {
            self.lost_directories(&parent)?;
            if self.skip.is_some() {
                return Ok(());
            }
        }
        let name: Box<[u8]> = path.name().unwrap_or_default().into();
        let is_there = self.pass_names(Some(&name))?;
        let is_directory = selected.placed.entry.is_directory();
        if self.rules.selection.hides(&path, is_directory) {
            if self.rules.selection.excludes(&path, is_directory) {
                self.survey.excluded.get_or_insert_with(|| path.clone());
            }
            self.links.pass(&selected.placed.entry);
            self.skip = Some(path);
            return Ok(());
        }
        if matches!(selected.placed.entry.kind, EntryKind::Socket) {
            self.links.pass(&selected.placed.entry);
            self.tally.sockets += 1;
            return Ok(());
        }
        if selected.placed.entry.unstable {
            self.tally.unstable.push(&path);
        }
        self.survey.entries += 1;
        self.survey.bytes = self.survey.bytes.saturating_add(selected.placed.entry.size());
        let parent = self.levels.last().and_then(|level| level.directory.clone());
        let seen = selected.seen.take().filter(|seen| parent.as_ref().is_some_and(|parent| parent.id() == seen.within));
        let look = |parent: &Arc<Directory>| match &seen {
            Some(seen) => Ok(Some(seen.there)),
            None => parent.look(&name),
        };
        let there = match parent.as_ref().filter(|_| is_there).map(look) {
            Some(Ok(there)) => there,
            Some(Err(error)) => {
                self.links.pass(&selected.placed.entry);
                return self.pass_over("look at", path, error);
            }
            None => None,
        };
        if let Some(there) = &there {
            let is_directory = there.kind == FileType::Directory;
            if self.rules.selection.hides(&path, is_directory) {
                self.links.pass(&selected.placed.entry);
                self.skip = Some(path);
                return Ok(());
            }
            if !is_directory && !selected.on_the_way {
                self.survey.losses.see();
            }
        }
        if selected.placed.entry.is_directory() {
            self.directory(parent, &name, selected, there)
        } else {
            self.leaf(parent, &name, selected.placed, there, seen.and_then(|seen| seen.xattrs))
        }
    }

    /// Whatever lies below this path is passed over, because this failed.
    fn pass_over(&mut self, action: &'static str, path: TreePath, error: std::io::Error) -> Result<()> {
        if self.rules.delete && !self.rules.act {
            // What cannot be counted cannot be held against a cap.
            return Err(Error::local(action, path, error));
        }
        self.tally.failed(action, &path, error)?;
        self.skip = Some(path);
        Ok(())
    }

    /// Makes directories whose entries are lost with a damaged page, so that what lies in them is not lost too.
    fn lost_directories(&mut self, parent: &TreePath) -> Result<()> {
        if !self.something_is_lost {
            return Err(Error::corrupt(format!("the tree has entries in {parent}, which is no directory of it")));
        }
        let known = self.levels.last().map(|level| level.path.clone());
        let mut lost = vec![parent.clone()];
        while let Some(above) = lost.last().and_then(TreePath::parent).filter(|above| known.as_ref() != Some(above)) {
            lost.push(above);
        }
        for path in lost.into_iter().rev() {
            self.tally.incomplete(&path, "this directory's entry is lost; it was made without its metadata");
            self.previous = path.parent();
            let entry = directory_of_its_own(path);
            self.entry(Selected {
                placed: Placed { entry, content: Placement::Chunks(Vec::new()) },
                on_the_way: true,
                seen: None,
            })?;
        }
        Ok(())
    }

    fn root(&mut self, selected: Selected) -> Result<()> {
        let mut names = Vec::new();
        let mut entry = None;
        if let Some(root) = self.destination.clone() {
            let right = self.examine_root(&root, &selected.placed.entry);
            let right = right.map_err(|error| Error::local("look at", "the destination", error))?;
            if !selected.on_the_way && (right || self.rules.overwrite != Overwrite::Never) {
                entry = Some(Box::new(selected.placed.entry));
            }
            names = self.list(&root, &TreePath::root())?;
        }
        self.levels.push(Level {
            path: TreePath::root(),
            directory: self.destination.clone(),
            names: names.into_iter().peekable(),
            entry,
            deletes: self.rules.delete && !selected.on_the_way,
        });
        Ok(())
    }

    fn examine_root(&self, root: &Arc<Directory>, entry: &Entry) -> std::io::Result<bool> {
        let handle = root.handle()?;
        let target = Target::Open(handle.as_fd());
        let there = target.look()?;
        if self.rules.act && self.rules.overwrite != Overwrite::Never {
            let_change(target, &there, &self.rules.user)?;
        }
        is_right(&there, entry, &self.rules.user, || Ok(target.xattrs()?))
    }

    /// The names in a directory; what a cut run left behind is swept at once.
    fn list(&mut self, directory: &Arc<Directory>, path: &TreePath) -> Result<Vec<Box<[u8]>>> {
        let failed = |error| Error::local("list", path, error);
        let mut names = directory.names().map_err(failed)?;
        names.retain(|name| {
            // A directory of that name is not one of ours, and fails to be unlinked.
            !temporary::is_temporary(name) || (self.rules.act && directory.unlink(name).is_err())
        });
        Ok(names)
    }

    /// Passes the names that come before one, or all; returns whether that one is there.
    fn pass_names(&mut self, until: Option<&[u8]>) -> Result<bool> {
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.next_if(|name| until.is_none_or(|until| **name <= *until)) else { break };
            if until == Some(&*name) {
                return Ok(true);
            }
            let Some(directory) = level.directory.clone().filter(|_| level.deletes) else { continue };
            // A path too long for any snapshot can only be left alone.
            let Ok(path) = level.path.join(&name) else { continue };
            self.removal().remove(&directory, &name, path)?;
        }
        Ok(false)
    }

    fn removal(&mut self) -> Removal<'_> {
        Removal {
            selection: &self.rules.selection,
            user: &self.rules.user,
            interrupt: &self.rules.interrupt,
            act: self.rules.act,
            losses: &mut self.survey.losses,
            tally: &mut self.tally,
        }
    }

    fn leave(&mut self) -> Result<()> {
        self.pass_names(None)?;
        if let Some(Level { directory: Some(directory), entry: Some(entry), .. }) = self.levels.pop()
            && self.rules.act
        {
            self.tasks.push(Task::Afterwards(Afterwards::Finish { directory, entry }));
        }
        Ok(())
    }

    fn leave_all(&mut self) -> Result<()> {
        if self.levels.is_empty() && !self.something_is_lost {
            return Err(Error::corrupt("the tree is empty: it lacks even its root"));
        }
        while !self.levels.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        parent: Option<Arc<Directory>>,
        name: &[u8],
        selected: Selected,
        there: Option<There>,
    ) -> Result<()> {
        match there {
            Some(there) if there.kind == FileType::Directory => self.enter(parent, name, selected, &there),
            Some(_) if self.rules.overwrite == Overwrite::Never => {
                self.stay(&selected.placed.entry.path);
                self.skip = Some(selected.placed.entry.path);
                Ok(())
            }
            Some(_) => {
                self.survey.losses.lose(&selected.placed.entry.path);
                if self.rules.act
                    && let Some(Err(error)) = parent.as_ref().map(|parent| parent.unlink(name))
                {
                    return self.pass_over("replace", selected.placed.entry.path, error);
                }
                self.create(parent, name, selected)
            }
            None => self.create(parent, name, selected),
        }
    }

    fn create(&mut self, parent: Option<Arc<Directory>>, name: &[u8], selected: Selected) -> Result<()> {
        let Selected { placed: Placed { entry, .. }, on_the_way, .. } = selected;
        let created = parent.filter(|_| self.rules.act).map(|parent| parent.create(name)).transpose();
        let directory = match created {
            Ok(directory) => directory,
            Err(error) => return self.pass_over("create", entry.path, error),
        };
        self.tally.written += 1;
        self.advanced.0 += 1;
        self.levels.push(Level {
            path: entry.path.clone(),
            directory,
            names: Vec::new().into_iter().peekable(),
            // What stands in for a lost entry has no metadata to give.
            entry: (entry.mode != NO_MODE).then(|| Box::new(entry)),
            deletes: self.rules.delete && !on_the_way,
        });
        Ok(())
    }

    fn enter(&mut self, parent: Option<Arc<Directory>>, name: &[u8], selected: Selected, there: &There) -> Result<()> {
        let Selected { placed: Placed { entry, .. }, on_the_way, .. } = selected;
        let Some(parent) = parent else { return Ok(()) };
        let opened = if self.rules.act && self.rules.overwrite != Overwrite::Never {
            open_to_change(&parent, name, there, &self.rules.user)
        } else {
            parent.open(name)
        };
        let compared = opened.and_then(|directory| {
            let handle = directory.handle()?;
            let target = Target::Open(handle.as_fd());
            let right = is_right(there, &entry, &self.rules.user, || Ok(target.xattrs()?))?;
            Ok((directory, right))
        });
        let (directory, right) = match compared {
            Ok(compared) => compared,
            Err(error) => return self.pass_over("open", entry.path, error),
        };
        let names = self.list(&directory, &entry.path)?;
        let mut keeps_metadata = on_the_way;
        if !on_the_way {
            let likeness = if right { Likeness::Same } else { Likeness::SameContent };
            match step(likeness, self.rules.overwrite) {
                Step::Keep => self.keep(0),
                Step::Correct | Step::Write => {
                    self.tally.written += 1;
                    self.advanced.0 += 1;
                }
                Step::Stay => {
                    self.stay(&entry.path);
                    keeps_metadata = true;
                }
            }
        }
        self.levels.push(Level {
            path: entry.path.clone(),
            directory: Some(directory),
            names: names.into_iter().peekable(),
            entry: (!keeps_metadata).then(|| Box::new(entry)),
            deletes: self.rules.delete && !on_the_way,
        });
        Ok(())
    }

    fn keep(&mut self, bytes: u64) {
        self.tally.unchanged += 1;
        self.advanced.0 += 1;
        self.advanced.1 = self.advanced.1.saturating_add(bytes);
    }

    fn stay(&mut self, path: &TreePath) {
        self.survey.stays.get_or_insert_with(|| path.clone());
    }
}

/// No entry has this mode: it stands for metadata that are lost.
const NO_MODE: u32 = u32::MAX;

fn directory_of_its_own(path: TreePath) -> Entry {
    Entry {
        path,
        kind: EntryKind::Directory,
        mode: NO_MODE,
        uid: 0,
        gid: 0,
        mtime: FileTime { seconds: 0, nanoseconds: 0 },
        xattrs: Vec::new(),
        link: None,
        unread: false,
        unstable: false,
    }
}
