//! What the names of one directory are found to be.
//!
//! They are looked at in slices, in order: by the thread ahead, so far as a few slices wait, and by the walk itself when
//! it comes to one that nobody has begun. So both are busy in a large directory, and nobody waits for anything that is
//! not under way.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::Stat;

use crate::source::handle::stat;
use crate::source::names::Names;

/// Names that are looked at without a word to the other.
pub(super) const SLICE: usize = 256;
/// Slices that wait for the walk to come to them.
const WAITING: usize = 8;

/// Names in their order, and what each was found to be.
pub(super) type Slice = Vec<rustix::io::Result<Stat>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Looks {
    directory: Arc<OwnedFd>,
    names: Arc<Names>,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The first name that nobody has begun to look at.
    next: usize,
    waiting: VecDeque<Slice>,
    /// The thread is looking at the slice after those that wait.
    is_under_way: bool,
    /// The thread is at it, or will be.
    is_planned: bool,
}

impl Looks {
    /// Nothing is looked at yet; the thread is about to.
    pub(super) fn planned(directory: &Arc<OwnedFd>, names: &Arc<Names>) -> Arc<Self> {
        let state = Mutex::new(State { is_planned: true, ..State::default() });
        let (directory, names) = (Arc::clone(directory), Arc::clone(names));
        Arc::new(Self { directory, names, state, news: Condvar::new() })
    }

    /// Looks at slices until enough wait, or there are no more: for the thread.
    pub(super) fn work(&self, most_waiting: usize) {
        let mut state = self.lock();
        while state.waiting.len() < most_waiting.min(WAITING)
            && let Some(names) = self.claim(&mut state)
        {
            state.is_under_way = true;
            drop(state);
            let slice = self.look(names);
            state = self.lock();
            state.is_under_way = false;
            state.waiting.push_back(slice);
            self.news.notify_all();
        }
        state.is_planned = false;
    }

    /// The next slice, for the walk, and whether the thread is wanted again.
    pub(super) fn take(&self) -> (Slice, bool) {
        let mut state = self.lock();
        while state.is_under_way && state.waiting.is_empty() {
            state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let slice = state.waiting.pop_front();
        let claimed = if slice.is_none() { self.claim(&mut state) } else { None };
        let is_wanted = !state.is_planned && state.waiting.len() <= WAITING / 2 && state.next < self.names.len();
        state.is_planned |= is_wanted;
        drop(state);
        (slice.or_else(|| claimed.map(|names| self.look(names))).unwrap_or_default(), is_wanted)
    }

    /// The next slice is the caller's.
    fn claim(&self, state: &mut State) -> Option<Range<usize>> {
        let begin = state.next;
        state.next = self.names.len().min(begin + SLICE);
        (begin < state.next).then_some(begin..state.next)
    }

    fn look(&self, names: Range<usize>) -> Slice {
        self.names.range(names).map(|name| stat(self.directory.as_fd(), name.to_bytes())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_looked_at_once_whoever_does_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for number in 0..10 * SLICE + 7 {
            std::fs::write(directory.path().join(format!("{number:04}")), "x".repeat(number)).expect("written");
        }
        let handle = Arc::new(OwnedFd::from(std::fs::File::open(directory.path()).expect("opened")));
        let names = Arc::new(Names::list(handle.as_fd(), 255).expect("listed"));
        for most_waiting in [0, 1, usize::MAX].repeat(20) {
            let looks = Looks::planned(&handle, &names);
            std::thread::scope(|scope| {
                scope.spawn(|| looks.work(most_waiting));
                for number in (0..names.len()).step_by(SLICE) {
                    let (slice, is_wanted) = looks.take();
                    if is_wanted {
                        scope.spawn(|| looks.work(most_waiting));
                    }
                    let sizes = slice.iter().map(|look| look.expect("there").st_size);
                    assert!(sizes.eq((number..names.len().min(number + SLICE)).map(|bytes| bytes as i64)));
                }
            });
            assert_eq!(looks.take().0.len(), 0);
        }
    }

    #[test]
    fn no_more_slices_wait_than_that() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for number in 0..2 * WAITING * SLICE {
            std::fs::File::create(directory.path().join(number.to_string())).expect("created");
        }
        let handle = Arc::new(OwnedFd::from(std::fs::File::open(directory.path()).expect("opened")));
        let looks = Looks::planned(&handle, &Arc::new(Names::list(handle.as_fd(), 255).expect("listed")));
        looks.work(usize::MAX);
        assert_eq!(looks.lock().waiting.len(), WAITING);
        let wanted: Vec<bool> = (0..WAITING).map(|_| looks.take().1).collect();
        assert_eq!(wanted.iter().position(|is_wanted| *is_wanted), Some(WAITING / 2 - 1), "told once");
        assert_eq!(wanted.iter().filter(|is_wanted| **is_wanted).count(), 1);
    }
}
