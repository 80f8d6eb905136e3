//! Directories that are opened, listed and looked at before the walk comes to them, on a thread of its own.
//!
//! The walk says which directories come next. What the thread has not begun when the walk arrives, the walk does itself,
//! so that nobody waits for anything that is not under way. The thread decides nothing and tells nobody anything: what it
//! has found is taken in its turn, as if it had been found then.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::Stat;

use crate::source::handle::{open_directory, stat};
use crate::source::names::Names;

/// Directories that are open and that the walk has not come to.
const MAX_OPEN: usize = 16;
/// A directory of more entries is listed alone: what is known of one takes memory.
const MAX_LOOKS: usize = 1024;

/// A directory that was opened, and what of it was found at the same time.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) handle: OwnedFd,
    pub(super) stat: Stat,
    pub(super) names: Option<rustix::io::Result<Names>>,
    /// What each name was found to be, in their order, or nothing.
    pub(super) looks: Vec<rustix::io::Result<Stat>>,
}

impl Opened {
    /// Opens a directory, and looks at it.
    pub(super) fn open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Self> {
        let handle = open_directory(parent, name)?;
        Ok(Self { stat: rustix::fs::fstat(&handle)?, handle, names: None, looks: Vec::new() })
    }

    /// Lists it and looks at what is in it, too.
    fn look(mut self, most_bytes: usize) -> Self {
        let names = Names::list(self.handle.as_fd(), most_bytes);
        if let Ok(names) = &names
            && names.len() <= MAX_LOOKS
        {
            self.looks = names.all().map(|name| stat(self.handle.as_fd(), name.to_bytes())).collect();
        }
        Self { names: Some(names), ..self }
    }
}

/// The thread, as long as the walk goes on.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    plans: Arc<Plans>,
    /// Started when there is something to do.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Plans(Mutex<Planned>, Condvar);

#[derive(Debug, Default)]
struct Planned {
    /// What is to be opened, the nearest last.
    jobs: Vec<Job>,
    /// How many are open, or are being opened.
    open: usize,
    is_over: bool,
}

#[derive(Debug)]
struct Job {
    parent: Arc<OwnedFd>,
    name: CString,
    most_bytes: usize,
    is_begun: Arc<AtomicBool>,
    opened: SyncSender<rustix::io::Result<Opened>>,
}

/// A directory that the walk will come to.
#[derive(Debug)]
pub(super) struct Coming {
    plans: Arc<Plans>,
    is_begun: Arc<AtomicBool>,
    opened: Receiver<rustix::io::Result<Opened>>,
    /// The walk does it itself.
    is_ours: bool,
}

impl Plans {
    fn lock(&self) -> MutexGuard<'_, Planned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ahead {
    /// Says which directories of one come next, before all that was said earlier; each with the longest name that may be
    /// in it.
    pub(super) fn plan(&mut self, parent: &Arc<OwnedFd>, names: &[(CString, usize)]) -> Vec<Coming> {
        let plan = |(name, most_bytes): &(CString, usize)| {
            let (sender, opened) = sync_channel(1);
            let is_begun = Arc::new(AtomicBool::new(false));
            let coming =
                Coming { plans: Arc::clone(&self.plans), is_begun: Arc::clone(&is_begun), opened, is_ours: false };
            let (parent, name, most_bytes) = (Arc::clone(parent), name.clone(), *most_bytes);
            (Job { parent, name, most_bytes, is_begun, opened: sender }, coming)
        };
        let (jobs, coming): (Vec<_>, Vec<_>) = names.iter().map(plan).unzip();
        self.plans.lock().jobs.extend(jobs.into_iter().rev());
        self.plans.1.notify_all();
        if self.thread.is_none() && !coming.is_empty() {
            let plans = Arc::clone(&self.plans);
            // Where no thread can be had, the walk does everything.
            self.thread = std::thread::Builder::new().name("walk-ahead".into()).spawn(move || plans.work()).ok();
        }
        coming
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.plans.lock().is_over = true;
        self.plans.1.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Plans {
    fn work(&self) {
        let mut planned = self.lock();
        while !planned.is_over {
            let job = if planned.open < MAX_OPEN { planned.jobs.pop() } else { None };
            let Some(job) = job else {
                planned = self.1.wait(planned).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if job.is_begun.swap(true, Ordering::SeqCst) {
                continue;
            }
            planned.open += 1;
            drop(planned);
            let opened = Opened::open(job.parent.as_fd(), &job.name).map(|opened| opened.look(job.most_bytes));
            // Who does not want it any more has dropped it.
            let _ = job.opened.send(opened);
            planned = self.lock();
        }
    }
}

impl Coming {
    /// What was found, once that is done; `None` if it was not begun, and will not be.
    pub(super) fn take(mut self) -> Option<rustix::io::Result<Opened>> {
        self.is_ours = !self.is_begun.swap(true, Ordering::SeqCst);
        if self.is_ours { None } else { self.opened.recv().ok() }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        // One that the thread has not begun is not to be begun any more.
        if !self.is_ours && self.is_begun.swap(true, Ordering::SeqCst) {
            let mut planned = self.plans.lock();
            planned.open = planned.open.saturating_sub(1);
            drop(planned);
            self.plans.1.notify_all();
        }
    }
}
