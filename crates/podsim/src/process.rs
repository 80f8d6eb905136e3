//! What runs in a container: a process in a group of its own, so that what it has started goes with it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

/// The groups of those that nobody has waited for.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills every process of every pod, and ends this one: what the user stops does not go on without a kubelet.
pub fn kill_all_and_exit(code: i32) -> ! {
    // Held to the end, so that none is started meanwhile.
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    for group in running.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    std::process::exit(code)
}

/// A process; killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    /// Never means another process.
    handle: OwnedFd,
    group: Pid,
}

impl Process {
    /// Starts it; `ended` is called with its exit code when it has gone, `None` if a signal ended it.
    ///
    /// # Errors
    /// The system's.
    pub fn start(command: &mut Command, ended: impl FnOnce(Option<i32>) + Send + 'static) -> io::Result<Self> {
        let (mut child, pid) = {
            let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            let child = command.process_group(0).spawn()?;
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
            running.insert(pid.as_raw_nonzero().get());
            (child, pid)
        };
        // Nobody has waited for it yet: the number is still its own.
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        std::thread::spawn(move || {
            let status = child.wait();
            RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid.as_raw_nonzero().get());
            ended(status.ok().and_then(|status| status.code()));
        });
        Ok(Self { handle, group: pid })
    }

    /// Sends a signal to the process itself, as a container's first process gets it; if it has gone, nothing is sent.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.handle, signal);
    }

    /// Sends a signal to everything in the container.
    pub fn signal_all(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A container's first process takes the others with it.
        self.signal_all(Signal::KILL);
    }
}
