//! A way to the store that can be cut: connections are refused, or everything stands still as on a line without an
//! answer, until it is mended.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How the way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// Open.
    Open = 0,
    /// What was connected is cut off, and nobody is let in.
    Refused = 1,
    /// Nothing gets through; what waits goes on afterwards.
    Still = 2,
    /// The program has ended.
    Closed = 3,
}

/// How often it is looked whether the way is open.
const LOOK: Duration = Duration::from_millis(20);

/// The way; closed when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it begins.
    pub address: SocketAddr,
    way: Arc<AtomicU8>,
}

impl Proxy {
    /// Makes a way to a server.
    ///
    /// # Errors
    /// The system's.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let way = Arc::new(AtomicU8::new(Way::Open as u8));
        let seen = Arc::clone(&way);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let seen = Arc::clone(&seen);
                match seen.load(Ordering::SeqCst) {
                    way if way == Way::Closed as u8 => return,
                    way if way == Way::Refused as u8 => drop(stream),
                    // One that cannot be led on is dropped.
                    _ => _ = lead(&stream, server, &seen),
                }
            }
        });
        Ok(Self { address, way })
    }

    /// Opens or cuts the way.
    pub fn set(&self, way: Way) {
        self.way.store(way as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Way::Closed);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
    }
}

/// Leads a connection on, in two threads.
fn lead(client: &TcpStream, server: SocketAddr, way: &Arc<AtomicU8>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client.try_clone()?)] {
        from.set_read_timeout(Some(LOOK))?;
        from.set_nodelay(true)?;
        let way = Arc::clone(way);
        std::thread::spawn(move || {
            let _ = pass(&from, &to, &way);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, way: &AtomicU8) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => 0,
            Err(error) => return Err(error),
        };
        loop {
            match way.load(Ordering::SeqCst) {
                way if way == Way::Still as u8 => std::thread::sleep(LOOK),
                way if way == Way::Open as u8 => break,
                _ => return Ok(()),
            }
        }
        to.write_all(&bytes[..read])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says everything twice.
    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        stream.write_all(&[byte[0], byte[0]]).expect("answers");
                    }
                });
            }
        });
        address
    }

    fn ask(stream: &mut TcpStream, limit: Duration) -> io::Result<[u8; 2]> {
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"x")?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn a_way_that_is_still_goes_on_afterwards_and_one_that_is_refused_is_cut_off() {
        let proxy = Proxy::start(server()).expect("starts");
        let mut stream = TcpStream::connect(proxy.address).expect("connects");
        let long = Duration::from_secs(20);
        assert_eq!(&ask(&mut stream, long).expect("answers"), b"xx");
        proxy.set(Way::Still);
        assert!(ask(&mut stream, Duration::from_millis(300)).is_err());
        proxy.set(Way::Open);
        let mut answer = [0; 2];
        stream.set_read_timeout(Some(long)).expect("set");
        stream.read_exact(&mut answer).expect("it goes on");
        proxy.set(Way::Refused);
        assert!(stream.read_exact(&mut answer).is_err(), "cut off");
        let refused = TcpStream::connect(proxy.address).and_then(|mut stream| ask(&mut stream, long));
        assert!(refused.is_err());
        proxy.set(Way::Open);
        let mut stream = TcpStream::connect(proxy.address).expect("connects");
        assert_eq!(&ask(&mut stream, long).expect("answers"), b"xx");
    }
}
