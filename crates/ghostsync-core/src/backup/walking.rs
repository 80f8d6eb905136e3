//! The walk of the source on a thread of its own: with attributes where they may have changed, and hard-link groups.
//!
//! Where there is a cache of inodes and ctimes, the walk begins before the store has said what the branch's head is: the
//! snapshot that the cache was made with is most likely the parent. If it is not, that walk is for nothing, and another
//! begins. If it is, nobody has published anything between the begin of the walk and the answer that it could undo.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use jiff::Timestamp;

use super::known::{Known, KnownReader};
use super::seen::{Seen, SeenEntry};
use super::{Context, Parent};
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use crate::interrupt::Interrupt;
use crate::observer::{Observer, Progress};
use crate::source::{Found, FoundKind, Walk, Walked, racy};
use crate::tree_path::TreePath;

/// Entries that travel together.
const BATCH: usize = 256;
/// Batches that may wait for whoever compares them.
const BATCHES: usize = 32;
/// And while the store has not answered: as many entries as are kept in memory later on.
const BATCHES_AHEAD: usize = 256;

struct Batch {
    items: Vec<Result<Seen>>,
    /// It is the last; and whether every entry of the cache was met.
    end: Option<bool>,
}

/// A walk that goes on. It takes batches apart, tells how far it is, and notices the wish to stop.
pub(super) struct Walking {
    /// The snapshot whose cache it looks entries up in.
    snapshot: Option<SnapshotId>,
    /// Until the last one has come.
    batches: Option<Receiver<Batch>>,
    batch: std::vec::IntoIter<Result<Seen>>,
    has_met_all_known: bool,
    entries: u64,
    thread: Option<JoinHandle<()>>,
    interrupt: Interrupt,
    observer: Arc<dyn Observer>,
}

impl Walking {
    /// Begins a walk with the cache of whichever snapshot there is one of, if any, before the parent is known.
    ///
    /// # Errors
    /// `LocalIo` if no thread can be started.
    pub(super) fn ahead(context: &Context) -> Result<Option<Self>> {
        let Some((snapshot, known)) = open_known(context) else { return Ok(None) };
        // With a cache for it, times that are old enough are not asked for.
        let walk = Looking::new(context, known, None, false);
        Self::start(context, Some(snapshot), walk, BATCHES_AHEAD).map(Some)
    }

    /// Goes on with the walk that was begun ahead if it was for this parent, or begins one.
    ///
    /// # Errors
    /// `LocalIo` if no thread can be started.
    pub(super) fn against(context: &Context, parent: &Parent, ahead: Option<Self>) -> Result<Self> {
        if let Some(walking) = ahead.filter(|walking| walking.snapshot == parent.id()) {
            return Ok(walking);
        }
        let known = open_known(context).filter(|(snapshot, _)| Some(*snapshot) == parent.id());
        let known = known.map_or_else(KnownReader::empty, |(_, known)| known);
        let oldest_untrusted = parent.snapshot().map(|snapshot| snapshot.time.as_second() - 2);
        let walk = Looking::new(context, known, oldest_untrusted, parent.tree().is_none());
        Self::start(context, parent.id(), walk, BATCHES)
    }

    fn start(context: &Context, snapshot: Option<SnapshotId>, walk: Looking, batches: usize) -> Result<Self> {
        let (sender, receiver) = sync_channel(batches);
        let thread = std::thread::Builder::new()
            .name("walk".into())
            .spawn(move || walk.send_all(&sender))
            .map_err(|error| Error::local("walk", context.source.display(), error))?;
        Ok(Self {
            snapshot,
            batches: Some(receiver),
            batch: Vec::new().into_iter(),
            has_met_all_known: false,
            entries: 0,
            thread: Some(thread),
            interrupt: context.options.interrupt.clone(),
            observer: Arc::clone(&context.observer),
        })
    }

    /// Tells whether it is at its end, and every entry of the cache was met on the way.
    pub(super) fn has_met_all_known(&self) -> bool {
        self.has_met_all_known
    }
}

impl Iterator for Walking {
    type Item = Result<Seen>;

    fn next(&mut self) -> Option<Result<Seen>> {
        loop {
            if let Some(item) = self.batch.next() {
                return Some(item);
            }
            let batches = self.batches.as_ref()?;
            if let Err(error) = self.interrupt.check() {
                return Some(Err(error));
            }
            let Ok(batch) = batches.recv() else {
                // What was not told of is not gone.
                self.batches = None;
                return Some(Err(Error::internal("the walk of the source ended before its end")));
            };
            self.entries += batch.items.len() as u64;
            self.observer.progress(Progress::Listed { entries: self.entries });
            if let Some(has_met_all_known) = batch.end {
                self.has_met_all_known = has_met_all_known;
                self.batches = None;
            }
            self.batch = batch.items.into_iter();
        }
    }
}

impl Drop for Walking {
    fn drop(&mut self) {
        // Nobody listens any more, which ends the thread.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open_known(context: &Context) -> Option<(SnapshotId, KnownReader)> {
    KnownReader::open(&context.known_file()?, context.root.directory_id())
}

/// What the thread does.
struct Looking {
    walk: Walk,
    known: KnownReader,
    /// The first member of each group of several links.
    groups: HashMap<(u64, u64), TreePath>,
    /// Without a cache, a file that is as young as the parent snapshot may have changed after it was read.
    oldest_untrusted: Option<i64>,
    /// There is nothing to compare with, and every file is read: its attributes are read with it.
    is_first: bool,
    now: Timestamp,
}

impl Looking {
    fn new(context: &Context, known: KnownReader, oldest_untrusted: Option<i64>, is_first: bool) -> Self {
        Self {
            walk: Walk::new(&context.root, context.matcher.clone(), &context.options.excludes).ahead(),
            known,
            groups: HashMap::new(),
            oldest_untrusted,
            is_first,
            now: context.options.clock.now(),
        }
    }

    /// Sends everything, or as much as somebody listens to.
    fn send_all(mut self, sender: &SyncSender<Batch>) {
        let mut items = Vec::with_capacity(BATCH);
        for item in self.by_ref() {
            let failed = item.is_err();
            items.push(item);
            if failed {
                break;
            }
            if items.len() == BATCH {
                let items = std::mem::replace(&mut items, Vec::with_capacity(BATCH));
                if sender.send(Batch { items, end: None }).is_err() {
                    return;
                }
            }
        }
        drop(sender.send(Batch { items, end: Some(self.known.is_used_up()) }));
    }

    fn seen(&mut self, found: Found) -> Seen {
        let known = self.known.look(&found);
        let trusted = match known {
            Known::Same => true,
            Known::Different => false,
            Known::Nothing => self.oldest_untrusted.is_none_or(|oldest| found.mtime.seconds < oldest),
        };
        let is_read_anyway = self.is_first && found.links == 1 && matches!(found.kind, FoundKind::File { .. });
        let xattrs = if known == Known::Same || is_read_anyway {
            None
        } else {
            match self.walk.xattrs(&found) {
                Ok(xattrs) => Some(xattrs),
                Err(error) => {
                    let message = format!("its attributes could not be read: {error}");
                    return Seen::Unreadable { path: found.path, below: false, message };
                }
            }
        };
        let link = (found.links > 1 && !matches!(found.kind, FoundKind::Directory))
            .then(|| self.groups.entry((found.device, found.inode)).or_insert_with(|| found.path.clone()).clone());
        let racy = racy(&found, self.now);
        Seen::Entry(Arc::new(SeenEntry { found, xattrs, link, is_known: known == Known::Same, trusted, racy }))
    }
}

impl Iterator for Looking {
    type Item = Result<Seen>;

    fn next(&mut self) -> Option<Result<Seen>> {
        Some(self.walk.next()?.map(|walked| match walked {
            Walked::Found(found) => self.seen(found),
            Walked::Excluded { path } => Seen::Excluded { path },
            Walked::Unreadable { path, below, error } => {
                let what = if below { "the directory could not be listed" } else { "it could not be read" };
                Seen::Unreadable { path, below, message: format!("{what}: {error}") }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::NoObserver;

    #[test]
    fn a_walk_that_ends_without_saying_so_is_an_error_and_not_the_end_of_the_tree() {
        for end in [None, Some(true)] {
            let (sender, receiver) = sync_channel(1);
            let seen = Seen::Excluded { path: TreePath::parse("a").expect("a path") };
            sender.send(Batch { items: vec![Ok(seen)], end }).expect("is sent");
            drop(sender);
            let mut walking = Walking {
                snapshot: None,
                batches: Some(receiver),
                batch: Vec::new().into_iter(),
                has_met_all_known: false,
                entries: 0,
                thread: None,
                interrupt: Interrupt::default(),
                observer: Arc::new(NoObserver),
            };
            let found: Vec<bool> = walking.by_ref().map(|item| item.is_ok()).collect();
            let expected = if end.is_some() { vec![true] } else { vec![true, false] };
            assert_eq!((found, walking.has_met_all_known()), (expected, end.is_some()));
        }
    }
}
