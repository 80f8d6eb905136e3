//! The pieces of one file, which threads take in order, and decode at the same time: each is written when it is its turn.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::unfinished::{Proof, Unfinished};
use super::{Directory, Entry, Stop};
use crate::entry::FileContent;
use crate::pack::Assembly;

/// A regular file that is to be written.
#[derive(Debug)]
pub(in crate::restore) struct FileJob {
    pub(super) entry: Entry,
    pub(super) directory: Arc<Directory>,
    progress: Mutex<Progress>,
    next: Condvar,
}

#[derive(Debug)]
struct Progress {
    state: State,
    /// The number of the piece whose turn it is.
    turn: u32,
}

#[derive(Debug)]
enum State {
    NotBegun,
    Writing(Box<Unfinished>),
    /// All is written, and to be checked.
    Finishing,
    Written,
    Failed,
}

impl FileJob {
    pub(in crate::restore) fn new(entry: Entry, directory: Arc<Directory>) -> Self {
        let progress = Mutex::new(Progress { state: State::NotBegun, turn: 0 });
        Self { entry, directory, progress, next: Condvar::new() }
    }

    pub(super) fn is_written(&self) -> bool {
        matches!(self.lock().state, State::Written)
    }

    pub(super) fn name(&self) -> &[u8] {
        self.entry.path.name().unwrap_or_default()
    }

    /// The turn of a piece, which is waited for when the file is first needed.
    pub(super) fn turn(&self, number: u32) -> Turn<'_> {
        Turn { job: self, number, progress: None }
    }

    /// The file cannot be whole: nobody waits for it any more.
    pub(super) fn fail(&self) {
        self.lock().state = State::Failed;
        self.next.notify_all();
    }

    /// Has something done with the file, begun if it was not, whoever's turn it is.
    pub(super) fn with_file<T>(
        &self,
        proof: impl FnOnce(&FileContent) -> Result<Proof, Stop>,
        act: impl FnOnce(&mut Unfinished) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let mut progress = self.lock();
        if matches!(progress.state, State::NotBegun) {
            progress.state = State::Writing(Box::new(Unfinished::create(&self.directory, &self.entry, proof)?));
        }
        match &mut progress.state {
            State::Writing(file) => act(file),
            _ => Err(Stop::FailedBefore),
        }
    }

    /// Takes the whole file, to finish it; see [`FileJob::written`].
    pub(super) fn take(&self) -> Result<Box<Unfinished>, Stop> {
        let mut progress = self.lock();
        match std::mem::replace(&mut progress.state, State::Finishing) {
            State::Writing(file) => Ok(file),
            before => {
                progress.state = before;
                Err(Stop::FailedBefore)
            }
        }
    }

    /// The file cannot be whole; what is to be said of it, once.
    pub(super) fn give_up(&self, failed: Stop) -> Stop {
        let before = std::mem::replace(&mut self.lock().state, State::Failed);
        let is_said = matches!(before, State::Failed) && !matches!(failed, Stop::Ended(_));
        if is_said { Stop::FailedBefore } else { failed }
    }

    /// The file stands under its name.
    pub(super) fn written(&self) {
        self.lock().state = State::Written;
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece of a file on its way. Dropped, it is the next one's turn; dropped before it was this one's, the file fails.
pub(super) struct Turn<'a> {
    job: &'a FileJob,
    number: u32,
    progress: Option<MutexGuard<'a, Progress>>,
}

impl Turn<'_> {
    fn take(&mut self) -> &mut Progress {
        self.progress.get_or_insert_with(|| {
            let mut progress = self.job.lock();
            while progress.turn != self.number && !matches!(progress.state, State::Failed) {
                progress = self.job.next.wait(progress).unwrap_or_else(PoisonError::into_inner);
            }
            progress
        })
    }

    /// The file, begun if it was not; waits until the pieces before are written.
    pub(super) fn file(&mut self) -> Result<&mut Unfinished, Stop> {
        let job = self.job;
        let progress = self.take();
        if matches!(progress.state, State::NotBegun) {
            let proof = |content: &FileContent| Ok(Proof::InOrder(Assembly::new(content)));
            progress.state = State::Writing(Box::new(Unfinished::create(&job.directory, &job.entry, proof)?));
        }
        match &mut progress.state {
            State::Writing(file) => Ok(file),
            _ => Err(Stop::FailedBefore),
        }
    }

    /// Takes the whole file, to finish it; see [`Turn::written`].
    pub(super) fn last(&mut self) -> Result<Box<Unfinished>, Stop> {
        self.file()?;
        match std::mem::replace(&mut self.take().state, State::Failed) {
            State::Writing(file) => Ok(file),
            _ => Err(Stop::FailedBefore),
        }
    }

    /// The file stands under its name.
    pub(super) fn written(&mut self) {
        self.take().state = State::Written;
    }

    /// The file cannot be whole.
    pub(super) fn fail(&mut self) {
        self.progress.get_or_insert_with(|| self.job.lock()).state = State::Failed;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        match &mut self.progress {
            Some(progress) => progress.turn = self.number + 1,
            None => self.fail(),
        }
        self.job.next.notify_all();
    }
}
