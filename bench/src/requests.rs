//! Counts the HTTP requests in what a client sends, by their framing: heads, and bodies by length or in chunks.

/// How far one connection has come.
#[derive(Default)]
pub struct Requests {
    state: State,
    /// The line that is being read.
    line: Vec<u8>,
    body_bytes: u64,
    chunked: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    /// Before or in the first line of a request
    #[default]
    First,
    Head,
    Body,
    ChunkSize,
    Chunk,
    /// After the last chunk
    Trailer,
}

impl Requests {
    /// Reads on, and tells how many requests began (with a complete first line).
    pub fn pass(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        while !bytes.is_empty() {
            if matches!(self.state, State::Body | State::Chunk) {
                let skipped = self.body_bytes.min(bytes.len() as u64);
                self.body_bytes -= skipped;
                bytes = &bytes[skipped as usize..];
                if self.body_bytes == 0 {
                    self.state = if self.state == State::Body { State::First } else { State::ChunkSize };
                }
                continue;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            self.line.extend_from_slice(part);
            bytes = rest;
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                begun += self.line(String::from_utf8_lossy(&line).trim());
            }
        }
        begun
    }

    fn line(&mut self, line: &str) -> u64 {
        match self.state {
            State::First if line.is_empty() => {}
            State::First => {
                (self.state, self.body_bytes, self.chunked) = (State::Head, 0, false);
                return 1;
            }
            State::Head if line.is_empty() => {
                self.state = match (self.chunked, self.body_bytes) {
                    (true, _) => State::ChunkSize,
                    (false, 0) => State::First,
                    (false, _) => State::Body,
                }
            }
            State::Head => {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.trim().to_ascii_lowercase();
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => self.body_bytes = value.parse().unwrap_or(0),
                    "transfer-encoding" => self.chunked = value.contains("chunked"),
                    _ => {}
                }
            }
            State::ChunkSize => {
                let size = line.split(';').next().unwrap_or_default().trim();
                match u64::from_str_radix(size, 16) {
                    Ok(0) => self.state = State::Trailer,
                    Ok(size) => (self.state, self.body_bytes) = (State::Chunk, size + 2),
                    Err(_) => {}
                }
            }
            State::Trailer if line.is_empty() => self.state = State::First,
            State::Trailer | State::Body | State::Chunk => {}
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
        PUT /b HTTP/1.1\r\nContent-Length: 18\r\n\r\nGET /c HTTP/1.1\r\n\n\
        PUT /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET \n\r\n0\r\n\r\n\
        HEAD /e HTTP/1.1\r\n\r\n";

    #[test]
    fn bodies_are_not_taken_for_requests() {
        assert_eq!(Requests::default().pass(CONVERSATION), 4);
    }

    #[test]
    fn it_does_not_matter_where_the_pieces_end() {
        let mut requests = Requests::default();
        let begun: u64 = CONVERSATION.chunks(1).map(|byte| requests.pass(byte)).sum();
        assert_eq!(begun, 4);
    }
}
