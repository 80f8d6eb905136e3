//! A line to the store like one across a country: 30 ms for each round trip, 200 Mbit/s in each direction.
//!
//! A TCP proxy. Each direction is one queue for all connections: a piece leaves when the pieces before it have left, at
//! the bandwidth, and arrives half a round trip later. A new connection is held for one round trip, as its handshake
//! would. At most a mebibyte of a connection is on its way, as much as a usual window. The proxy counts the
//! requests that pass, by their HTTP framing; there is no TLS on it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::failure::{Outcome, Tried};
use crate::requests::Requests;

pub const ROUND_TRIP: Duration = Duration::from_millis(30);
/// 200 Mbit/s.
pub const BYTES_PER_SECOND: f64 = 25_000_000.0;
const PIECE_BYTES: usize = 16 * 1024;
const PIECES_ON_THE_WAY: usize = 64;

/// What went over the line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub requests: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

/// The proxy; it ends with this value.
pub struct Line {
    /// Where it listens, on loopback.
    pub address: SocketAddr,
    traffic: Arc<Mutex<Traffic>>,
    _runtime: tokio::runtime::Runtime,
}

impl Line {
    /// Begins to pass connections on to `store`.
    pub fn start(store: SocketAddr) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .tried(|| "start the proxy".into())?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).tried(|| "listen on 127.0.0.1".into())?;
        let address = listener.local_addr().tried(|| "ask for the port".into())?;
        let traffic = Arc::new(Mutex::new(Traffic::default()));
        runtime.spawn(accept(listener, store, Arc::clone(&traffic)));
        Ok(Self { address, traffic, _runtime: runtime })
    }

    /// What passed since the last call.
    pub fn take_traffic(&self) -> Traffic {
        self.traffic.lock().map(|mut traffic| std::mem::take(&mut *traffic)).unwrap_or_default()
    }
}

/// One direction: when the last piece will have left.
#[derive(Clone)]
struct Queue(Arc<Mutex<Instant>>);

impl Queue {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Takes the next place in the queue for `bytes` that come `now`, and tells when they arrive.
    fn arrival(&self, now: Instant, bytes: usize) -> Instant {
        let mut free = match self.0.lock() {
            Ok(free) => free,
            Err(poisoned) => poisoned.into_inner(),
        };
        *free = (*free).max(now) + Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        *free + ROUND_TRIP / 2
    }
}

async fn accept(listener: TcpListener, store: SocketAddr, traffic: Arc<Mutex<Traffic>>) {
    let (up, down) = (Queue::new(), Queue::new());
    while let Ok((client, _)) = listener.accept().await {
        let (up, down, traffic) = (up.clone(), down.clone(), Arc::clone(&traffic));
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(store).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (client_reads, client_writes) = client.into_split();
            let (server_reads, server_writes) = server.into_split();
            let counted = Arc::clone(&traffic);
            let mut requests = Requests::default();
            tokio::join!(
                pass(client_reads, server_writes, up, Instant::now() + ROUND_TRIP, move |bytes| {
                    let passed = requests.pass(bytes);
                    if let Ok(mut traffic) = counted.lock() {
                        traffic.requests += passed;
                        traffic.sent_bytes += bytes.len() as u64;
                    }
                }),
                pass(server_reads, client_writes, down, Instant::now(), move |bytes| {
                    if let Ok(mut traffic) = traffic.lock() {
                        traffic.received_bytes += bytes.len() as u64;
                    }
                }),
            );
        });
    }
}

/// Passes one direction of a connection on until it ends, and then ends the other side too.
async fn pass(mut from: OwnedReadHalf, to: OwnedWriteHalf, queue: Queue, open: Instant, mut saw: impl FnMut(&[u8])) {
    let (sender, receiver) = mpsc::channel(PIECES_ON_THE_WAY);
    let writer = tokio::spawn(deliver(receiver, to));
    sleep_until(open).await;
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        saw(&piece[..count]);
        if sender.send((queue.arrival(Instant::now(), count), piece[..count].to_vec())).await.is_err() {
            break;
        }
    }
    drop(sender);
    let _ = writer.await;
}

async fn deliver(mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: OwnedWriteHalf) {
    while let Some((arrives, piece)) = pieces.recv().await {
        sleep_until(arrives).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Answers every connection: reads until its end, then sends the same bytes back.
    fn echo() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut bytes = Vec::new();
                    stream.read_to_end(&mut bytes).unwrap();
                    stream.write_all(&bytes).unwrap();
                });
            }
        });
        address
    }

    fn send(line: &Line, bytes: usize) -> Duration {
        let began = std::time::Instant::now();
        let mut stream = std::net::TcpStream::connect(line.address).unwrap();
        let sent = vec![7; bytes];
        let mut got = Vec::new();
        std::thread::scope(|scope| {
            let mut writes = stream.try_clone().unwrap();
            let sent = &sent;
            scope.spawn(move || {
                writes.write_all(sent).unwrap();
                writes.shutdown(std::net::Shutdown::Write).unwrap();
            });
            stream.read_to_end(&mut got).unwrap();
        });
        assert_eq!(sent, got);
        began.elapsed()
    }

    #[test]
    fn a_small_answer_takes_the_handshake_and_a_round_trip() {
        let line = Line::start(echo()).unwrap();
        assert!(send(&line, 10) >= 2 * ROUND_TRIP);
        assert_eq!(line.take_traffic(), Traffic { requests: 0, sent_bytes: 10, received_bytes: 10 });
        assert_eq!(line.take_traffic(), Traffic::default());
    }

    #[test]
    fn pieces_leave_one_after_the_other_and_an_idle_line_gathers_no_credit() {
        let queue = Queue::new();
        let millis = |count| Duration::from_millis(count);
        let begin = Instant::now() + millis(1000);
        let piece = 250_000; // 10 ms
        assert_eq!(queue.arrival(begin, piece), begin + millis(10) + ROUND_TRIP / 2);
        assert_eq!(queue.arrival(begin, piece), begin + millis(20) + ROUND_TRIP / 2);
        assert_eq!(queue.arrival(begin + millis(500), piece), begin + millis(510) + ROUND_TRIP / 2);
    }
}
