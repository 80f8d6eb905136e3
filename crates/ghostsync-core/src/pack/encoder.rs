//! Encodes pages in the order in which they come: where it is asked to, or on a thread of its own, so that the next
//! page is filled meanwhile.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::format::page::{EncodedPage, PageBuilder};

/// Pages that wait for the thread, and that wait for whoever takes them.
const WAITING: usize = 8;

/// Encodes pages.
#[derive(Debug, Default)]
pub(crate) struct PageEncoder {
    thread: Option<Thread>,
    encoded: VecDeque<EncodedPage>,
}

#[derive(Debug)]
struct Thread {
    jobs: SyncSender<PageBuilder>,
    done: Receiver<std::result::Result<EncodedPage, FormatError>>,
}

impl PageEncoder {
    /// Starts a thread for it.
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>) -> Self {
        let (jobs, queue) = sync_channel::<PageBuilder>(WAITING);
        let (sender, done) = sync_channel(WAITING);
        scope.spawn(move || {
            while let Ok(page) = queue.recv() {
                if sender.send(page.encode()).is_err() {
                    return;
                }
            }
        });
        Self { thread: Some(Thread { jobs, done }), encoded: VecDeque::new() }
    }

    /// Begins to encode a page. No more than eight may be begun and not taken.
    pub(super) fn begin(&mut self, page: PageBuilder) -> Result<()> {
        match &self.thread {
            Some(thread) => thread.jobs.send(page).map_err(|_| ended()),
            None => {
                self.encoded.push_back(page.encode()?);
                Ok(())
            }
        }
    }

    /// Waits for the next page.
    pub(super) fn next(&mut self) -> Result<EncodedPage> {
        match &self.thread {
            Some(thread) => Ok(thread.done.recv().map_err(|_| ended())??),
            None => self.encoded.pop_front().ok_or_else(|| Error::internal("a page that was not begun")),
        }
    }
}

fn ended() -> Error {
    Error::internal("the thread that encodes pages ended")
}
