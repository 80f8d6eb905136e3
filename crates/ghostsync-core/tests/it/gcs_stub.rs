//! A stub of Google Cloud Storage: the few requests of its XML interface that the client makes, on loopback.
//!
//! It is our own reading of the documentation and proves nothing about Google's servers. It shows that a `gs://` URL
//! becomes the right requests, with the condition that a create needs, and that the answers are understood.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ghostsync_core::store::StoreSettings;
use ghostsync_core::testing::loopback;

pub(crate) const BUCKET: &str = "stubbed";

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The object's key; empty for a listing.
    pub(crate) key: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Asked {
    /// Whether it is a write that must find nothing there.
    pub(crate) fn creates(&self) -> bool {
        self.method == "PUT" && self.headers.get("x-goog-if-generation-match").is_some_and(|match_| match_ == "0")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered instead: a status and a body.
type Refuse = dyn Fn(&Asked) -> Option<(u16, &'static str)> + Send + Sync;

struct Shared {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: Mutex<Vec<Asked>>,
    refuse: Box<Refuse>,
    over: AtomicBool,
}

/// A running stub, which ends when it is dropped.
pub(crate) struct GcsStub {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl GcsStub {
    pub(crate) fn start() -> Self {
        Self::refusing(|_| None)
    }

    pub(crate) fn refusing(refuse: impl Fn(&Asked) -> Option<(u16, &'static str)> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            asked: Mutex::default(),
            refuse: Box::new(refuse),
            over: AtomicBool::new(false),
        });
        let for_listener = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if for_listener.over.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&for_listener);
                std::thread::spawn(move || serve(&shared, connection));
            }
        });
        Self { address, shared }
    }

    /// Settings that reach this stub and nothing else.
    pub(crate) fn settings(&self) -> StoreSettings {
        let key = serde_json::json!({
            "gcs_base_url": "", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": "",
        });
        let variables = [
            ("GOOGLE_BASE_URL", format!("http://{}", self.address)),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", key.to_string()),
            ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
        ];
        loopback::settings("gs", &variables.map(|(name, value)| (name.to_owned(), value))).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.shared.objects.lock().unwrap().keys().cloned().collect()
    }
}

impl Drop for GcsStub {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes the listener, so that it sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(shared: &Shared, connection: TcpStream) {
    connection.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut writer = connection;
    while let Some(asked) = read_request(&mut reader) {
        shared.asked.lock().unwrap().push(asked.clone());
        let answer = match (shared.refuse)(&asked) {
            Some((status, body)) => Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec() },
            None => answer(shared, &asked),
        };
        if answer.write(&mut writer, asked.method == "HEAD").is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let url = url::Url::parse("http://stub").unwrap().join(&target).unwrap();
    let path = decoded(url.path());
    let key = path.trim_start_matches('/').strip_prefix(BUCKET)?.trim_start_matches('/').to_owned();
    let query = url.query_pairs().into_owned().collect();
    Some(Asked { method, key, query, headers, body })
}

fn decoded(path: &str) -> String {
    url::form_urlencoded::parse(format!("p={}", path.replace('+', "%2B")).as_bytes()).next().unwrap().1.into_owned()
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    fn error(status: u16, code: &str) -> Self {
        Self { body: format!("<?xml version='1.0'?><Error><Code>{code}</Code></Error>").into(), ..Self::status(status) }
    }

    fn write(self, writer: &mut impl Write, head: bool) -> std::io::Result<()> {
        let mut text = format!("HTTP/1.1 {} Stubbed\r\ncontent-length: {}\r\n", self.status, self.body.len());
        for (name, value) in self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if !head {
            bytes.extend(self.body);
        }
        writer.write_all(&bytes)
    }
}

fn answer(shared: &Shared, asked: &Asked) -> Answer {
    let mut objects = shared.objects.lock().unwrap();
    match (asked.method.as_str(), asked.key.as_str()) {
        ("GET", "") => list(&objects, &asked.query),
        ("GET" | "HEAD", key) => match objects.get(key) {
            Some(content) => read(content, asked.header("range")),
            None => Answer::error(404, "NoSuchKey"),
        },
        ("PUT", key) if asked.creates() && objects.contains_key(key) => Answer::error(412, "PreconditionFailed"),
        ("PUT", key) => {
            let headers = vec![("etag", etag(&asked.body))];
            objects.insert(key.to_owned(), asked.body.clone());
            Answer { headers, ..Answer::status(200) }
        }
        ("DELETE", key) => match objects.remove(key) {
            Some(_) => Answer::status(204),
            None => Answer::error(404, "NoSuchKey"),
        },
        _ => Answer::error(405, "MethodNotAllowed"),
    }
}

fn etag(content: &[u8]) -> String {
    format!("\"{}\"", blake3::hash(content).to_hex())
}

fn read(content: &[u8], range: Option<&str>) -> Answer {
    let mut headers = vec![("etag", etag(content)), ("last-modified", "Tue, 03 Nov 2026 08:00:00 GMT".to_owned())];
    let Some(range) = range else {
        return Answer { status: 200, headers, body: content.to_vec() };
    };
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    if first >= content.len() {
        return Answer::error(416, "InvalidRange");
    }
    let last = last.min(content.len() - 1);
    headers.push(("content-range", format!("bytes {first}-{last}/{}", content.len())));
    Answer { status: 206, headers, body: content[first..=last].to_vec() }
}

/// Pages of 500, so that a listing has several.
fn list(objects: &BTreeMap<String, Vec<u8>>, query: &BTreeMap<String, String>) -> Answer {
    let value = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let after = value("continuation-token").to_owned();
    let begin = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
    let found: Vec<_> = objects
        .range((begin, Bound::Unbounded))
        .filter(|(key, _)| key.starts_with(value("prefix")))
        .take(501)
        .collect();
    let mut body = "<?xml version='1.0'?><ListBucketResult>".to_owned();
    for (key, content) in found.iter().take(500) {
        body.push_str(&format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><LastModified>2026-11-03T08:00:00.000Z</LastModified></Contents>",
            content.len()
        ));
    }
    if found.len() > 500 {
        body.push_str(&format!("<NextContinuationToken>{}</NextContinuationToken>", found[499].0));
    }
    body.push_str("</ListBucketResult>");
    Answer { body: body.into(), ..Answer::status(200) }
}
