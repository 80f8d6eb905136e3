//! A store in which every request is a message: it waits until somebody decides what becomes of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::{Notify, oneshot};

use super::actors::{Ended, Writer};
use super::ledger::{Ledger, is_log};

/// How a store keeps the condition of a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Creates {
    /// As it must.
    Atomic,
    /// Not at all.
    Ignored,
    /// It looks first, and writes later.
    Racing,
}

#[derive(Debug, Clone)]
pub(super) enum Request {
    Get { key: Key, range: Option<Range<u64>>, is_head: bool },
    List(Option<Key>),
    Write(Write),
}

#[derive(Debug, Clone)]
pub(super) enum Write {
    Put(Key, Bytes),
    Create(Key, Bytes),
    Delete(Key),
}

impl Write {
    pub(super) fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Create(key, _) | Self::Delete(key) => key,
        }
    }
}

pub(super) enum Answer {
    Got(GetResult),
    Listed(Vec<ObjectMeta>),
    Done,
    Failed(Error),
    /// Nobody is there any more to hear it.
    Killed,
}

/// A request that waits.
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) process: usize,
    pub(super) request: Request,
    /// A racing create has looked, and found nothing.
    pub(super) has_looked: bool,
    answer: oneshot::Sender<Answer>,
}

impl Waiting {
    pub(super) fn answer(self, answer: Answer) {
        drop(self.answer.send(answer));
    }
}

/// What lies in the store.
#[derive(Default)]
pub(super) struct Objects(BTreeMap<Key, (Bytes, Timestamp)>);

impl Objects {
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn bytes(&self, key: &Key) -> Option<&Bytes> {
        self.0.get(key).map(|(bytes, _)| bytes)
    }

    pub(super) fn packs(&self) -> impl Iterator<Item = &Key> {
        self.0.keys().filter(|key| key.as_ref().starts_with("packs/"))
    }
}

/// One run of a program: from a start to an end or a crash.
pub(super) struct Process {
    pub(super) name: String,
    pub(super) writer: Writer,
    pub(super) is_alive: bool,
    pub(super) ended: Option<Ended>,
    /// Gets no turn before this step.
    pub(super) stalled_until: u64,
    /// It has asked for a commit and has no clear answer.
    pub(super) is_unsure: bool,
    /// Requests that it is about to make.
    pub(super) coming: usize,
    /// The number of the newest commit that it was sent.
    pub(super) newest_read: u64,
    pub(super) prunes: bool,
    /// A look at how many packs were deleted when it started.
    pub(super) deletions_before: u64,
}

pub(super) struct Hub {
    pub(super) objects: Objects,
    pub(super) ledger: Ledger,
    pub(super) waiting: Vec<Waiting>,
    /// Writes that their clients have given up, or copies of others: they arrive whenever they like.
    pub(super) late: Vec<Write>,
    pub(super) processes: Vec<Process>,
    pub(super) creates: Creates,
    pub(super) now: Timestamp,
    /// Requests are answered at once.
    pub(super) is_direct: bool,
    pub(super) trace: Vec<String>,
    pub(super) violation: Option<String>,
    requests: u64,
    sessions: HashMap<String, usize>,
}

#[derive(Clone)]
pub(super) struct Shared(Arc<(Mutex<Hub>, Notify)>);

impl Shared {
    pub(super) fn new(creates: Creates, now: Timestamp) -> Self {
        let hub = Hub {
            objects: Objects::default(),
            ledger: Ledger::default(),
            waiting: Vec::new(),
            late: Vec::new(),
            processes: Vec::new(),
            creates,
            now,
            is_direct: true,
            trace: Vec::new(),
            violation: None,
            requests: 0,
            sessions: HashMap::new(),
        };
        Self(Arc::new((Mutex::new(hub), Notify::new())))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Hub> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a process has asked for something or has ended.
    pub(super) async fn news(&self) {
        self.0.1.notified().await;
    }

    pub(super) fn end(&self, process: usize, ended: Ended) {
        self.lock().processes[process].ended = Some(ended);
        self.0.1.notify_one();
    }

    pub(super) fn store(&self, process: usize) -> SimulatedStore {
        SimulatedStore { shared: self.clone(), process }
    }
}

impl Hub {
    pub(super) fn say(&mut self, line: String) {
        self.trace.push(line);
    }

    /// Does what a request asks for, and looks whether everything still holds.
    pub(super) fn apply(&mut self, request: &Request) -> Answer {
        match request {
            Request::Get { key, range, is_head } => self.get(key, range.clone(), *is_head),
            Request::List(prefix) => Answer::Listed(self.list(prefix.as_ref())),
            Request::Write(write) => self.write(write),
        }
    }

    pub(super) fn write(&mut self, write: &Write) -> Answer {
        let checked = match write {
            Write::Create(key, _) if self.objects.contains(key) && self.creates != Creates::Ignored => {
                return Answer::Failed(exists(key));
            }
            Write::Put(key, bytes) | Write::Create(key, bytes) => self.put(key, bytes),
            Write::Delete(key) => {
                self.objects.0.remove(key);
                self.ledger.delete(key)
            }
        };
        if let Err(violation) = checked {
            self.violation.get_or_insert(violation);
        }
        Answer::Done
    }

    /// Writes without a condition.
    pub(super) fn put(&mut self, key: &Key, bytes: &Bytes) -> Result<(), String> {
        let is_new = self.objects.0.insert(key.clone(), (bytes.clone(), self.now)).is_none();
        self.ledger.put(&self.objects, key, bytes, is_new)
    }

    fn get(&self, key: &Key, range: Option<Range<u64>>, is_head: bool) -> Answer {
        let Some((bytes, modified)) = self.objects.0.get(key) else { return Answer::Failed(absent(key)) };
        let size = bytes.len() as u64;
        let range = range.unwrap_or(0..size);
        if range.start >= size && size > 0 {
            return Answer::Failed(generic("416 Range Not Satisfiable"));
        }
        let range = range.start..range.end.min(size);
        let body = if is_head { Bytes::new() } else { bytes.slice(range.start as usize..range.end as usize) };
        Answer::Got(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(body)]).boxed()),
            meta: self.meta(key, size, *modified),
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn meta(&self, key: &Key, size: u64, modified: Timestamp) -> ObjectMeta {
        let last_modified = std::time::SystemTime::from(modified).into();
        ObjectMeta { location: key.clone(), last_modified, size, e_tag: None, version: None }
    }

    fn list(&mut self, prefix: Option<&Key>) -> Vec<ObjectMeta> {
        let mut keys: Vec<Key> = self
            .objects
            .0
            .keys()
            .filter(|key| prefix.is_none_or(|prefix| key.prefix_matches(prefix)))
            .cloned()
            .collect();
        // No order is promised; this one is the same with other random names.
        keys.sort_by_cached_key(|key| self.plain(key));
        let meta = |key: Key| {
            let (bytes, modified) = &self.objects.0[&key];
            self.meta(&key, bytes.len() as u64, *modified)
        };
        keys.into_iter().map(meta).collect()
    }

    /// A key with a number in place of the session's random name: in the order in which they were seen first.
    pub(super) fn plain(&mut self, key: &Key) -> String {
        let key = key.as_ref();
        let of = |part: &str| part.rsplit('-').next().filter(|name| name.len() == 32).map(str::to_owned);
        let Some(session) = key.split('/').find_map(of) else { return key.trim_start_matches('0').to_owned() };
        let next = self.sessions.len() + 1;
        let number = *self.sessions.entry(session.clone()).or_insert(next);
        key.replace(&session, &format!("s{number:02}"))
    }

    pub(super) fn describe(&mut self, request: &Request) -> String {
        let short = |key: String| key.replace("000000000000000", "").replace(".json.zst", "");
        let (verb, key) = match request {
            Request::Get { key, is_head: true, .. } => ("HEAD", key.clone()),
            Request::Get { key, .. } => ("GET", key.clone()),
            Request::List(prefix) => ("LIST", prefix.clone().unwrap_or_default()),
            Request::Write(Write::Put(key, _)) => ("PUT", key.clone()),
            Request::Write(Write::Create(key, _)) => ("CREATE", key.clone()),
            Request::Write(Write::Delete(key)) => ("DELETE", key.clone()),
        };
        format!("{verb} {}", short(self.plain(&key)))
    }

    /// Takes what a process waits for; its writes are left to be late, or never to come.
    pub(super) fn take_waiting(&mut self, process: usize) -> Vec<Waiting> {
        let (taken, left) = self.waiting.drain(..).partition(|waiting| waiting.process == process);
        self.waiting = left;
        taken
    }
}

pub(super) fn generic(text: &str) -> Error {
    Error::Generic { store: "simulated", source: text.to_owned().into() }
}

pub(super) fn exists(key: &Key) -> Error {
    Error::AlreadyExists { path: key.to_string(), source: "exists".into() }
}

fn absent(key: &Key) -> Error {
    Error::NotFound { path: key.to_string(), source: "not found".into() }
}

/// The store as one process sees it.
#[derive(Clone)]
pub(super) struct SimulatedStore {
    shared: Shared,
    process: usize,
}

/// A request that comes as soon as all have been announced that go out with it.
struct Coming<'a> {
    store: &'a SimulatedStore,
    number: u64,
}

impl<'a> Coming<'a> {
    async fn with_others(store: &'a SimulatedStore) -> Self {
        let number = {
            let mut hub = store.shared.lock();
            hub.processes[store.process].coming += 1;
            hub.requests += 1;
            hub.requests
        };
        let coming = Self { store, number };
        tokio::task::yield_now().await;
        coming
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.store.shared.lock().processes[self.store.process].coming -= 1;
        self.store.shared.0.1.notify_one();
    }
}

impl SimulatedStore {
    async fn ask(&self, request: Request) -> Result<Answer> {
        let coming = Coming::with_others(self).await;
        let asked_for = match &request {
            Request::Get { key, is_head: false, .. } => commit_number(key),
            _ => None,
        };
        let answer = {
            let mut hub = self.shared.lock();
            let process = &hub.processes[self.process];
            let (is_alive, writer, read) = (process.is_alive, process.writer.clone(), process.newest_read);
            if let Request::Write(Write::Put(key, bytes) | Write::Create(key, bytes)) = &request {
                hub.ledger.note_request(key, bytes, &writer, read);
            }
            if !is_alive {
                Err(Answer::Killed)
            } else if hub.is_direct {
                Err(hub.apply(&request))
            } else {
                let (sender, receiver) = oneshot::channel();
                let (number, process) = (coming.number, self.process);
                hub.waiting.push(Waiting { number, process, request, has_looked: false, answer: sender });
                hub.waiting.sort_by_key(|waiting| waiting.number);
                Ok(receiver)
            }
        };
        let answer = match answer {
            Ok(receiver) => {
                drop(coming);
                receiver.await.unwrap_or(Answer::Killed)
            }
            Err(at_once) => {
                drop(coming);
                at_once
            }
        };
        match answer {
            Answer::Failed(error) => Err(error),
            Answer::Killed => self.die(),
            answer => {
                if let (Some(seq), Answer::Got(_)) = (asked_for, &answer) {
                    let mut hub = self.shared.lock();
                    let process = &mut hub.processes[self.process];
                    process.newest_read = process.newest_read.max(seq);
                }
                Ok(answer)
            }
        }
    }

    /// The end of a process that was killed: nothing of it runs any more, but what a scope's end does.
    fn die(&self) -> Result<Answer> {
        // A restore has threads that must have come to their end before the directory is used again.
        if self.shared.lock().processes[self.process].writer.ends_by_error {
            return Err(generic("killed"));
        }
        std::panic::resume_unwind(Box::new("killed"))
    }
}

impl fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedStore({})", self.process)
    }
}

fn not_simulated<T>(operation: &'static str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.into(), implementer: "SimulatedStore".into() })
}

#[async_trait]
impl ObjectStore for SimulatedStore {
    async fn put_opts(&self, location: &Key, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let (key, bytes) = (location.clone(), Bytes::from(payload));
        let write = match opts.mode {
            PutMode::Overwrite => Write::Put(key, bytes),
            PutMode::Create => Write::Create(key, bytes),
            PutMode::Update(_) => return not_simulated("update"),
        };
        self.ask(Request::Write(write)).await?;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Key, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        not_simulated("multipart")
    }

    async fn get_opts(&self, location: &Key, options: GetOptions) -> Result<GetResult> {
        let range = match options.range {
            Some(GetRange::Bounded(range)) => Some(range),
            None => None,
            Some(_) => return not_simulated("an open range"),
        };
        match self.ask(Request::Get { key: location.clone(), range, is_head: options.head }).await? {
            Answer::Got(got) => Ok(got),
            _ => not_simulated("another answer"),
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Key>>) -> BoxStream<'static, Result<Key>> {
        let this = self.clone();
        let delete = move |key: Key| {
            let this = this.clone();
            async move { this.ask(Request::Write(Write::Delete(key.clone()))).await.map(|_| key) }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            match this.ask(Request::List(prefix)).await? {
                Answer::Listed(listed) => Ok(stream::iter(listed.into_iter().map(Ok))),
                _ => not_simulated("another answer"),
            }
        };
        listed.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Key>) -> Result<ListResult> {
        not_simulated("a listing with a delimiter")
    }

    async fn copy_opts(&self, _: &Key, _: &Key, _: CopyOptions) -> Result<()> {
        not_simulated("copy")
    }
}

fn commit_number(key: &Key) -> Option<u64> {
    key.as_ref().strip_prefix("log/")?.strip_suffix(".json.zst")?.parse().ok()
}

/// A pack of content is on its way, and the one with its pages comes right after it.
pub(super) fn is_data_pack(request: &Request) -> bool {
    matches!(request, Request::Write(Write::Put(key, _)) if key.as_ref().ends_with(".data"))
}

pub(super) fn is_pack(key: &Key) -> bool {
    key.as_ref().starts_with("packs/")
}

pub(super) fn asks_for_commit(request: &Request) -> bool {
    matches!(request, Request::Get { key, .. } | Request::Write(Write::Create(key, _)) if is_log(key))
}
