//! A file that is written to all the time: a backup that reads it long enough marks it as unstable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Writes into a file until it is dropped.
#[derive(Debug)]
pub struct Restless {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Restless {
    /// Begins to write into the first bytes of a file.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).open(path)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) && file.write_all_at(&number.to_le_bytes(), 0).is_ok() {
                number = number.wrapping_add(1);
            }
        });
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // It has nothing to tell.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
