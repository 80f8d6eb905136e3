//! A server on loopback that answers as it is told, for stubs of stores and of those who hand out credentials.
//!
//! The tests of the command use this file too.
#![allow(dead_code, reason = "each of two test programs uses a part")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// The path, decoded.
    pub(crate) path: String,
    pub(crate) query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// How fast the body is sent; `None`: at once.
    pub(crate) bytes_per_second: Option<usize>,
    /// How much of the body is sent before the connection breaks; `None`: all of it.
    pub(crate) breaks_after: Option<usize>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), bytes_per_second: None, breaks_after: None }
    }

    /// An error as stores send it.
    pub(crate) fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!("<?xml version='1.0'?><Error><Code>{code}</Code></Error>"))
    }

    fn write(self, writer: &mut impl Write, head: bool) -> std::io::Result<()> {
        let mut text = format!("HTTP/1.1 {} Stubbed\r\ncontent-length: {}\r\n", self.status, self.body.len());
        for (name, value) in self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if let Some(length) = self.breaks_after.filter(|length| *length < self.body.len()) {
            bytes.extend(&self.body[..length]);
            writer.write_all(&bytes)?;
            writer.flush()?;
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        match self.bytes_per_second {
            _ if head => writer.write_all(&bytes)?,
            None => {
                bytes.extend(self.body);
                writer.write_all(&bytes)?;
            }
            Some(speed) => {
                writer.write_all(&bytes)?;
                // The line is slow, and the test is about nothing else.
                for piece in self.body.chunks((speed / 10).max(1)) {
                    std::thread::sleep(Duration::from_millis(100));
                    writer.write_all(piece)?;
                    writer.flush()?;
                }
            }
        }
        writer.flush()
    }
}

/// Answers a request; with `None` the connection stays open and nothing comes.
type Script = dyn Fn(&Asked) -> Option<Answer> + Send + Sync;
/// Makes of a connection what is spoken on it.
type Wrap = dyn Fn(TcpStream) -> Box<dyn Speak> + Send + Sync;

pub(crate) trait Speak: Read + Write {}
impl<T: Read + Write> Speak for T {}

struct Shared {
    script: Box<Script>,
    asked: Mutex<Vec<Asked>>,
    over: AtomicBool,
}

/// A running server, which ends when it is dropped.
pub(crate) struct HttpStub {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl HttpStub {
    pub(crate) fn start(script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Self {
        Self::start_with(Box::new(|connection| Box::new(connection)), script)
    }

    /// A server that speaks something else below HTTP.
    pub(crate) fn start_with(
        wrap: Box<Wrap>,
        script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { script: Box::new(script), asked: Mutex::default(), over: AtomicBool::new(false) });
        let (for_listener, wrap) = (Arc::clone(&shared), Arc::new(wrap));
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if for_listener.over.load(Ordering::SeqCst) {
                    break;
                }
                let (shared, wrap) = (Arc::clone(&for_listener), Arc::clone(&wrap));
                std::thread::spawn(move || {
                    connection.set_nodelay(true).unwrap();
                    serve(&shared, wrap(connection));
                });
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

impl Drop for HttpStub {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes the listener, so that it sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(shared: &Shared, connection: Box<dyn Speak>) {
    let mut connection = BufReader::new(connection);
    while let Some(asked) = read_request(&mut connection) {
        shared.asked.lock().unwrap().push(asked.clone());
        let Some(answer) = (shared.script)(&asked) else {
            // Ends when the other side hangs up.
            let _ = connection.read(&mut [0]);
            return;
        };
        if answer.write(connection.get_mut(), asked.method == "HEAD").is_err() {
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
    let query = url.query_pairs().into_owned().collect();
    Some(Asked { method, path: decoded(url.path()), query, headers, body })
}

fn decoded(path: &str) -> String {
    url::form_urlencoded::parse(format!("p={}", path.replace('+', "%2B")).as_bytes()).next().unwrap().1.into_owned()
}
