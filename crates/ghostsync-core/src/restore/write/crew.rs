//! What the threads that write have in common: windows in the order in which they came, and their files in batches.
//!
//! A thread that has nothing left to do in one window begins with the next, so that none waits for a slow neighbour.
//! What comes after the files of a window waits for them, and for all windows before it. As many windows are in work as
//! keep every thread busy, and no more: this bounds the memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Afterwards, Blocks, Piece, Window, batches};
use crate::error::Result;

/// Windows in work: one that ends, and one that begins.
const WINDOWS: usize = 2;

/// A window some of whose files may not be written yet.
pub(super) struct InWork {
    pub(super) blocks: Blocks,
    batches_left: AtomicUsize,
    afterwards: Mutex<Vec<Afterwards>>,
}

#[derive(Default)]
struct Shared {
    windows: VecDeque<Arc<InWork>>,
    batches: VecDeque<(Arc<InWork>, Vec<Piece>)>,
    /// Somebody does what comes after a window; windows that are ready meanwhile are his too.
    is_finishing: bool,
    /// No more windows come.
    has_ended: bool,
    /// Somebody has failed: nothing more is begun.
    has_stopped: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Crew {
    shared: Mutex<Shared>,
    news: Condvar,
}

impl Crew {
    /// Waits until another window may come; `false` if none is wanted any more.
    pub(super) fn has_room(&self) -> bool {
        let mut shared = self.lock();
        while shared.windows.len() >= WINDOWS && !shared.has_stopped {
            shared = self.wait(shared);
        }
        !shared.has_stopped
    }

    /// Adds a window; one without files is ready at once: see [`Crew::finish`].
    pub(super) fn add(&self, window: Window) {
        let Window { pieces, blocks, afterwards } = window;
        let batches = batches(pieces);
        let batches_left = AtomicUsize::new(batches.len());
        let window = Arc::new(InWork { blocks, batches_left, afterwards: Mutex::new(afterwards) });
        let mut shared = self.lock();
        shared.batches.extend(batches.into_iter().map(|batch| (Arc::clone(&window), batch)));
        shared.windows.push_back(window);
        self.news.notify_all();
    }

    /// No more windows come.
    pub(super) fn end(&self) {
        self.lock().has_ended = true;
        self.news.notify_all();
    }

    /// Nothing more is begun.
    pub(super) fn stop(&self) {
        let mut shared = self.lock();
        shared.has_stopped = true;
        shared.batches.clear();
        self.news.notify_all();
    }

    /// The next files, in order; `None` if there is nothing more to do.
    pub(super) fn next(&self) -> Option<(Arc<InWork>, Vec<Piece>)> {
        let mut shared = self.lock();
        loop {
            if shared.has_stopped {
                return None;
            }
            let next = shared.batches.pop_front();
            if next.is_some() || shared.has_ended {
                return next;
            }
            shared = self.wait(shared);
        }
    }

    /// A batch of this window is written.
    pub(super) fn written(&self, window: &InWork) {
        window.batches_left.fetch_sub(1, Ordering::AcqRel);
    }

    /// Does what comes after the windows whose files, and those of all windows before, are written.
    ///
    /// # Errors
    /// Those of `afterwards`.
    pub(super) fn finish(&self, mut afterwards: impl FnMut(Vec<Afterwards>) -> Result<()>) -> Result<()> {
        let mut shared = self.lock();
        while !shared.is_finishing
            && !shared.has_stopped
            && let Some(window) = shared.windows.pop_front_if(|front| front.batches_left.load(Ordering::Acquire) == 0)
        {
            shared.is_finishing = true;
            drop(shared);
            let todo = std::mem::take(&mut *window.afterwards.lock().unwrap_or_else(PoisonError::into_inner));
            let done = afterwards(todo);
            drop(window);
            shared = self.lock();
            shared.is_finishing = false;
            self.news.notify_all();
            done?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        self.news.wait(shared).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops the others when its thread panics, instead of letting them wait.
pub(super) struct StopOnPanic<'a>(pub(super) &'a Crew);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
