//! Threads that read and chunk files, several at a time, for one consumer that takes them in the order asked for.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use jiff::Timestamp;

use super::Context;
use crate::error::{Error, Result};
use crate::source::{Found, ReadEvent, ReadOutcome, read_file};

/// Threads that read.
const THREADS: usize = 3;
/// Chunks of one file that wait for the consumer.
const CHUNKS_AHEAD: usize = 4;

/// What a reading thread tells.
pub(super) enum News {
    /// A piece of the file, or that it begins anew.
    Event(ReadEvent),
    /// The end, and when the reading began.
    Done(Result<ReadOutcome>, Timestamp),
}

struct Job {
    found: Found,
    news: SyncSender<News>,
}

/// The reading threads.
pub(super) struct Readers {
    jobs: Sender<Job>,
}

impl Readers {
    /// Starts the threads.
    pub(super) fn start<'scope, 'env>(scope: &'scope Scope<'scope, 'env>, context: &'env Context) -> Self {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let queue = Arc::clone(&queue);
            scope.spawn(move || work(&queue, context));
        }
        Self { jobs }
    }

    /// Asks for a file. Jobs are begun in this order, so the file that the consumer waits for is always being read.
    pub(super) fn read(&self, found: &Found) -> Result<Receiver<News>> {
        let (news, receiver) = sync_channel(CHUNKS_AHEAD);
        let job = Job { found: found.clone(), news };
        self.jobs.send(job).map_err(|_| Error::internal("the reading threads ended"))?;
        Ok(receiver)
    }
}

fn work(queue: &Mutex<Receiver<Job>>, context: &Context) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { found, news }) = job else { return };
        let mut sink = |event| {
            // Nobody listens any more: the consumer has failed, and says why.
            news.send(News::Event(event)).map_err(|_| Error::internal("nobody takes what is read"))
        };
        let options = &context.options;
        let began = options.clock.now();
        let outcome =
            read_file(&context.root, &found, &context.repository.config().chunker, &options.interrupt, &mut sink);
        drop(news.send(News::Done(outcome, began)));
    }
}
