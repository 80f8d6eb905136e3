//! Threads that read and chunk files, several at a time, for one consumer that takes them in the order asked for.
//!
//! Small files travel together, there and back: a message for each of them costs as much as reading it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use jiff::Timestamp;

use super::Context;
use super::survey::size_of;
use crate::error::{Error, Result};
use crate::recycled::Recycled;
use crate::source::{Desk, Found, ReadEvent, ReadOutcome, read_file};

/// Threads that read.
const THREADS: usize = 2;
/// Small chunks of a large file travel together up to so many bytes: to wake the consumer for each costs more than the
/// chunk.
const PARCEL_BYTES: usize = 512 << 10;
/// Parcels of one file that wait for the consumer.
const PARCELS_AHEAD: usize = 3;
/// Files up to this size travel together.
const SMALL_BYTES: u64 = 128 << 10;
/// So many of them.
const BATCH_FILES: usize = 64;
/// And so many bytes, unless a single one has more.
const BATCH_BYTES: u64 = 512 << 10;
/// A small file that has grown beyond this since it was looked at is told of piece by piece.
const GROWN_BYTES: usize = 2 << 20;

/// What a reading thread tells.
pub(super) enum News {
    /// A piece of the file, or that it begins anew.
    Event(ReadEvent),
    /// The end, and when the reading began.
    Done(Result<ReadOutcome>, Timestamp),
}

enum Job {
    /// A file whose pieces are told as they come.
    Alone(Found, SyncSender<Vec<News>>),
    /// Small files, told of when all of them are read.
    Together(Vec<Found>, SyncSender<Vec<Small>>),
}

/// The reading threads.
pub(super) struct Readers {
    jobs: crossbeam_channel::Sender<Job>,
    open: RefCell<Option<Open>>,
}

/// A batch that may still grow.
struct Open {
    files: Vec<Found>,
    bytes: u64,
    sender: SyncSender<Vec<Small>>,
    batch: Rc<Batch>,
}

/// What is told of small files, one after the other: each ends with [`News::Done`], or has turned out to be a large one
/// that is still being read.
#[expect(clippy::large_enum_variant, reason = "nearly all are news, side by side in one list")]
enum Small {
    News(News),
    Grown(Receiver<Vec<News>>),
}

/// Small files that are read together; the consumer takes them in order.
pub(super) struct Batch {
    receiver: Receiver<Vec<Small>>,
    read: RefCell<std::vec::IntoIter<Small>>,
}

/// One file that is being read.
pub(super) enum Reading {
    Alone(Parcels),
    Together(Rc<Batch>),
}

/// The news of a file as they arrive.
pub(super) struct Parcels {
    receiver: Receiver<Vec<News>>,
    open: std::vec::IntoIter<News>,
}

impl Parcels {
    fn new(receiver: Receiver<Vec<News>>) -> Self {
        Self { receiver, open: Vec::new().into_iter() }
    }

    /// `None` if the reading thread ended.
    fn next(&mut self) -> Option<News> {
        loop {
            match self.open.next() {
                Some(news) => return Some(news),
                None => self.open = self.receiver.recv().ok()?.into_iter(),
            }
        }
    }
}

/// The other end: fills parcels.
struct Parceling {
    sender: SyncSender<Vec<News>>,
    parcel: Vec<News>,
    bytes: usize,
}

/// Nobody takes what is read: the consumer has failed, and says why.
struct NobodyTakes;

impl From<NobodyTakes> for Error {
    fn from(NobodyTakes: NobodyTakes) -> Self {
        Self::internal("nobody takes what is read")
    }
}

impl Parceling {
    fn new(sender: SyncSender<Vec<News>>) -> Self {
        Self { sender, parcel: Vec::new(), bytes: 0 }
    }

    fn push(&mut self, news: News) -> std::result::Result<(), NobodyTakes> {
        if let News::Event(ReadEvent::Chunk { bytes, .. }) = &news {
            self.bytes += bytes.len();
        }
        let is_full = self.bytes >= PARCEL_BYTES || matches!(news, News::Done(..));
        self.parcel.push(news);
        if is_full {
            self.bytes = 0;
            self.sender.send(std::mem::take(&mut self.parcel)).map_err(|_| NobodyTakes)?;
        }
        Ok(())
    }
}

impl Readers {
    /// Starts the threads.
    pub(super) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        context: &'env Context,
        rooms: &Recycled,
    ) -> Self {
        let (jobs, queue) = crossbeam_channel::unbounded();
        for _ in 0..THREADS {
            let (queue, desk) = (queue.clone(), Desk::new(rooms.beside()));
            scope.spawn(move || work(&queue, context, desk));
        }
        Self { jobs, open: RefCell::default() }
    }

    /// Asks for a file. Jobs are begun in this order, so the file that the consumer waits for is always being read.
    pub(super) fn read(&self, found: &Found) -> Result<Reading> {
        let bytes = size_of(found);
        if bytes > SMALL_BYTES {
            self.send_open()?;
            let (news, receiver) = sync_channel(PARCELS_AHEAD);
            self.send(Job::Alone(found.clone(), news))?;
            return Ok(Reading::Alone(Parcels::new(receiver)));
        }
        let mut open = self.open.borrow_mut();
        let filling = open.get_or_insert_with(|| {
            let (sender, receiver) = sync_channel(1);
            let batch = Rc::new(Batch { receiver, read: RefCell::new(Vec::new().into_iter()) });
            Open { files: Vec::with_capacity(BATCH_FILES), bytes: 0, sender, batch }
        });
        filling.files.push(found.clone());
        filling.bytes += bytes;
        let reading = Reading::Together(Rc::clone(&filling.batch));
        let is_full = filling.files.len() == BATCH_FILES || filling.bytes >= BATCH_BYTES;
        drop(open);
        if is_full {
            self.send_open()?;
        }
        Ok(reading)
    }

    /// The next news of a file; files must be asked about in the order in which they were asked for.
    pub(super) fn next(&self, reading: &mut Reading) -> Result<News> {
        let ended = || Error::internal("a reading thread ended");
        loop {
            match reading {
                Reading::Alone(news) => return news.next().ok_or_else(ended),
                Reading::Together(batch) => {
                    let next = batch.read.borrow_mut().next();
                    match next {
                        Some(Small::News(news)) => return Ok(news),
                        Some(Small::Grown(news)) => {
                            *reading = Reading::Alone(Parcels::new(news));
                            continue;
                        }
                        None => {}
                    }
                    if self.open.borrow().as_ref().is_some_and(|open| Rc::ptr_eq(&open.batch, batch)) {
                        self.send_open()?;
                    }
                    let read = batch.receiver.recv().map_err(|_| ended())?;
                    *batch.read.borrow_mut() = read.into_iter();
                }
            }
        }
    }

    fn send_open(&self) -> Result<()> {
        match self.open.take() {
            Some(open) => self.send(Job::Together(open.files, open.sender)),
            None => Ok(()),
        }
    }

    fn send(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| Error::internal("the reading threads ended"))
    }
}

fn work(queue: &crossbeam_channel::Receiver<Job>, context: &Context, mut desk: Desk) {
    for job in queue {
        match job {
            Job::Alone(found, news) => {
                let mut news = Parceling::new(news);
                let done = read(context, &mut desk, &found, &mut |event| Ok(news.push(News::Event(event))?));
                let _ = news.push(done);
            }
            Job::Together(files, sender) => read_together(context, &mut desk, &files, &sender),
        }
    }
}

/// Reads small files, and tells of all of them at once; of those before one that has grown, as soon as that shows.
fn read_together(context: &Context, desk: &mut Desk, files: &[Found], sender: &SyncSender<Vec<Small>>) {
    // Of most files: it begins, its content, it ends.
    let mut together = Vec::with_capacity(3 * files.len());
    for found in files {
        let (begin, mut bytes) = (together.len(), 0);
        let mut grown: Option<Parceling> = None;
        let done = read(context, desk, found, &mut |event| {
            if let Some(grown) = &mut grown {
                return Ok(grown.push(News::Event(event))?);
            }
            match &event {
                ReadEvent::Begin => {
                    together.truncate(begin);
                    bytes = 0;
                }
                ReadEvent::Chunk { bytes: chunk, .. } => bytes += chunk.len(),
            }
            together.push(Small::News(News::Event(event)));
            if bytes <= GROWN_BYTES {
                return Ok(());
            }
            let (parcels, receiver) = sync_channel(PARCELS_AHEAD);
            let so_far = together.split_off(begin);
            together.push(Small::Grown(receiver));
            sender.send(std::mem::take(&mut together)).map_err(|_| NobodyTakes)?;
            let grown = grown.insert(Parceling::new(parcels));
            let news = so_far.into_iter().filter_map(|small| match small {
                Small::News(news) => Some(news),
                Small::Grown(_) => None,
            });
            Ok(news.into_iter().try_for_each(|news| grown.push(news))?)
        });
        match grown {
            Some(mut parcels) => drop(parcels.push(done)),
            None => together.push(Small::News(done)),
        }
    }
    drop(sender.send(together));
}

fn read(context: &Context, desk: &mut Desk, found: &Found, sink: &mut dyn FnMut(ReadEvent) -> Result<()>) -> News {
    let options = &context.options;
    let began = options.clock.now();
    let chunker = &context.repository.config().chunker;
    News::Done(read_file(&context.root, desk, found, chunker, &options.interrupt, sink), began)
}
