//! Directories that are opened, listed and looked at before the walk comes to them, on a thread of its own.
//!
//! The walk says which directories come next. What the thread has not begun when the walk arrives, the walk does itself,
//! so that nobody waits for anything that is not under way. The thread decides nothing and tells nobody anything: what it
//! has found is taken in its turn, as if it had been found then.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use rustix::fs::Stat;

use super::looks::Looks;
use crate::source::handle::open_directory;
use crate::source::names::Names;

/// Directories that are open and that the walk has not come to.
const MAX_OPEN: usize = 16;
/// Slices of each of them that are looked at before the walk comes to it: what is known of an entry takes memory.
const SLICES: usize = 4;

/// A directory that was opened, and what of it was found at the same time.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) handle: Arc<OwnedFd>,
    pub(super) stat: Stat,
    pub(super) names: Option<rustix::io::Result<Arc<Names>>>,
    pub(super) looks: Option<Arc<Looks>>,
}

impl Opened {
    /// Opens a directory, and looks at it.
    pub(super) fn open(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Self> {
        let handle = open_directory(parent, name)?;
        Ok(Self { stat: rustix::fs::fstat(&handle)?, handle: Arc::new(handle), names: None, looks: None })
    }

    /// Lists it and looks at what is in it, too.
    fn look(mut self, most_bytes: usize) -> Self {
        let names = Names::list(self.handle.as_fd(), most_bytes).map(Arc::new);
        if let Ok(names) = &names {
            let looks = Looks::planned(&self.handle, names);
            looks.work(SLICES);
            self.looks = Some(looks);
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
    /// Directories that the walk is in, the innermost last.
    entered: Vec<Weak<Looks>>,
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
        if !coming.is_empty() {
            self.tell(|planned| planned.jobs.extend(jobs.into_iter().rev()));
        }
        coming
    }

    /// Has more looked at in a directory that the walk is in, before anything else.
    pub(super) fn look(&mut self, looks: &Arc<Looks>) {
        self.tell(|planned| planned.entered.push(Arc::downgrade(looks)));
    }

    fn tell(&mut self, plan: impl FnOnce(&mut Planned)) {
        plan(&mut self.plans.lock());
        self.plans.1.notify_all();
        if self.thread.is_none() {
            let plans = Arc::clone(&self.plans);
            // Where no thread can be had, the walk does everything.
            self.thread = std::thread::Builder::new().name("walk-ahead".into()).spawn(move || plans.work()).ok();
        }
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
            if let Some(entered) = planned.entered.pop() {
                drop(planned);
                // The walk may have left it.
                if let Some(looks) = entered.upgrade() {
                    looks.work(usize::MAX);
                }
                planned = self.lock();
                continue;
            }
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
            let is_time = planned.open == MAX_OPEN / 2;
            drop(planned);
            // Not for each of them: waking the thread takes as long as it needs for one.
            if is_time {
                self.plans.1.notify_all();
            }
        }
    }
}
