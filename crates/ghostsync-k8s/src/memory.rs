//! Keeps a process that lives for weeks as small as what it needs while nothing happens.
//!
//! glibc gives each thread a heap of its own, and keeps what was freed for the next time: after a pass over many files
//! that is more than everything that is in use. Its two settings for that are variables, read before `main` begins; the
//! only other way to them is a call that is not safe. So the program starts itself again with them, in the same process.
//! Another C library takes no notice.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// One heap, and what is freed at its end goes back to the system.
const SETTINGS: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

/// Starts the program again with what it needs to stay small, unless that is set, by this or by somebody else. To be
/// called before there is a thread or a file that matters.
///
/// # Errors
/// The system's, if it could not be started: it goes on as it is, which is only larger. `Ok(())`: it is set.
pub fn stay_small(words: &[OsString]) -> io::Result<()> {
    if std::env::var_os(SETTINGS[0].0).is_some() {
        return Ok(());
    }
    let Some((name, rest)) = words.split_first() else { return Ok(()) };
    let mut again = Command::new(std::env::current_exe()?);
    Err(again.arg0(name).args(rest).envs(SETTINGS).exec())
}
