//! What runs in a container: a process in a group of its own, so that what it has started goes with it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

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
        let mut child = command.process_group(0).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        // Nobody has waited for it yet: the number is still its own.
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        std::thread::spawn(move || ended(child.wait().ok().and_then(|status| status.code())));
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
