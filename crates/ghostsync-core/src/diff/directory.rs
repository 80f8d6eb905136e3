//! A snapshot compared with a directory as it is now: only files that look different are read.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::io;
use std::path::Path;

use super::{Change, Difference, compare};
use crate::entry::{ChunkList, Entry, EntryKind, FileContent, Xattr};
use crate::error::Result;
use crate::format::config::Chunker;
use crate::format::page::Placed;
use crate::interrupt::Interrupt;
use crate::source::{Desk, Excludes, Found, FoundKind, Matcher, ReadOutcome, SourceRoot, Walk, Walked, read_file};
use crate::tree::{AtPath, Merge, Pair};
use crate::tree_path::TreePath;

/// Tells every difference, in tree order.
///
/// # Errors
/// Those of the first side, of `tell`, of the directory at its root, and of excludes that cannot be understood.
pub(super) fn compare_all(
    before: impl Iterator<Item = Result<Placed>>,
    path: &Path,
    excludes: &Excludes,
    chunker: &Chunker,
    interrupt: &Interrupt,
    tell: &mut impl FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let root = SourceRoot::open(path)?;
    let walk = Walk::new(&root, Matcher::new(excludes)?, excludes).ahead();
    let listing = Listing { walk, first_links: HashMap::new() };
    // The last place below which nothing is known, and why.
    let mut unknown: Option<Unknown> = None;
    for pair in Merge::new(before, listing) {
        interrupt.check()?;
        let (before, listed) = match pair? {
            Pair::Left(before) => match unknown.as_ref().filter(|unknown| before.entry.path.starts_with(&unknown.path))
            {
                Some(unknown) => {
                    unknown.about(Some(before.entry)).map_or(Ok(()), &mut *tell)?;
                    continue;
                }
                None => (Some(before.entry), None),
            },
            Pair::Right(listed) => (None, Some(listed)),
            Pair::Both(before, listed) => (Some(before.entry), Some(listed)),
        };
        let after = match listed {
            None => None,
            Some(Listed::Found { found, xattrs, link }) => {
                match entry(&root, found, xattrs, link, before.as_ref(), chunker, interrupt)? {
                    Now::There(entry) => Some(*entry),
                    Now::Gone => None,
                    Now::Unreadable(unreadable) => {
                        unreadable.told(before).map_or(Ok(()), &mut *tell)?;
                        continue;
                    }
                }
            }
            Some(Listed::Unknown(now)) => {
                now.told(before).map_or(Ok(()), &mut *tell)?;
                unknown = Some(now);
                continue;
            }
        };
        compare(before, after).map_or(Ok(()), &mut *tell)?;
    }
    Ok(())
}

/// A place that the walk did not look at, or could not.
#[derive(Debug)]
struct Unknown {
    path: TreePath,
    /// Why, unless an exclude hides it.
    reason: Option<String>,
}

impl Unknown {
    /// What is told about the place itself: that it cannot be read always, that it is hidden only if it was there.
    fn told(&self, before: Option<Entry>) -> Option<Difference> {
        let path = self.path.clone();
        match &self.reason {
            None => self.about(before),
            reason => {
                Some(Difference { path, change: Change::Unreadable, before, after: None, reason: reason.clone() })
            }
        }
    }

    /// What is told about an entry of the snapshot at or below the place: only what an exclude hides is told one by
    /// one, for a directory that cannot be read has told itself.
    fn about(&self, before: Option<Entry>) -> Option<Difference> {
        let before = before.filter(|_| self.reason.is_none())?;
        let path = before.path.clone();
        Some(Difference { path, change: Change::Excluded, before: Some(before), after: None, reason: None })
    }
}

/// The walk together with what must be asked at once, before it goes on.
struct Listing {
    walk: Walk,
    /// The first path of each file that has several links.
    first_links: HashMap<(u64, u64), TreePath>,
}

#[derive(Debug)]
enum Listed {
    Found { found: Found, xattrs: io::Result<Vec<Xattr>>, link: Option<TreePath> },
    Unknown(Unknown),
}

impl AtPath for Listed {
    fn path(&self) -> &TreePath {
        match self {
            Self::Found { found, .. } => &found.path,
            Self::Unknown(unknown) => &unknown.path,
        }
    }
}

impl Iterator for Listing {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Self::Item> {
        let listed = match self.walk.next()? {
            Ok(Walked::Found(found)) => {
                let link = self.first_link(&found);
                Listed::Found { xattrs: self.walk.xattrs(&found), link, found }
            }
            Ok(Walked::Unreadable { path, error, .. }) => {
                Listed::Unknown(Unknown { path, reason: Some(error.to_string()) })
            }
            Ok(Walked::Excluded { path }) => Listed::Unknown(Unknown { path, reason: None }),
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(listed))
    }
}

impl Listing {
    fn first_link(&mut self, found: &Found) -> Option<TreePath> {
        if found.links < 2 || found.kind == FoundKind::Directory {
            return None;
        }
        Some(match self.first_links.entry((found.device, found.inode)) {
            Slot::Occupied(first) => first.get().clone(),
            Slot::Vacant(slot) => slot.insert(found.path.clone()).clone(),
        })
    }
}

/// What became of an entry that the walk had found.
enum Now {
    There(Box<Entry>),
    Gone,
    Unreadable(Unknown),
}

fn entry(
    root: &SourceRoot,
    found: Found,
    xattrs: io::Result<Vec<Xattr>>,
    link: Option<TreePath>,
    before: Option<&Entry>,
    chunker: &Chunker,
    interrupt: &Interrupt,
) -> Result<Now> {
    let unreadable = |reason: String| Now::Unreadable(Unknown { path: found.path.clone(), reason: Some(reason) });
    let xattrs = match xattrs {
        Ok(xattrs) => xattrs,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Now::Gone),
        Err(error) => return Ok(unreadable(error.to_string())),
    };
    let kind = match &found.kind {
        FoundKind::File { size } => match before
            .and_then(|before| before.content().filter(|content| content.size == *size && before.mtime == found.mtime))
        {
            Some(content) => EntryKind::File(content.clone()),
            None => match read_file(root, &mut Desk::default(), &found, chunker, interrupt, &mut |_| Ok(()))? {
                ReadOutcome::Read { content, .. } => EntryKind::File(FileContent {
                    size: content.size,
                    hash: content.hash,
                    chunks: ChunkList::None,
                    holes: content.holes,
                }),
                ReadOutcome::Vanished => return Ok(Now::Gone),
                ReadOutcome::Replaced => return Ok(unreadable("it became something else while it was read".into())),
                ReadOutcome::Unreadable(error) => return Ok(unreadable(error.to_string())),
            },
        },
        FoundKind::Directory => EntryKind::Directory,
        FoundKind::Symlink { target } => EntryKind::Symlink { target: target.clone() },
        FoundKind::Fifo => EntryKind::Fifo,
        FoundKind::CharDevice(device) => EntryKind::CharDevice(*device),
        FoundKind::BlockDevice(device) => EntryKind::BlockDevice(*device),
        FoundKind::Socket => EntryKind::Socket,
    };
    Ok(Now::There(Box::new(Entry {
        path: found.path,
        kind,
        mode: found.mode,
        uid: found.uid,
        gid: found.gid,
        mtime: found.mtime,
        xattrs,
        link,
        unread: false,
        unstable: false,
    })))
}
