//! A blocking HTTP/1.1 client that can also be rude: raw bytes, half requests, one byte at a time.
//!
//! Reads answers strictly, since it stands for the strictest of clients. Does no redirects, no
//! pooling and no TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use crate::terminal::PATIENCE;

/// An answer, its body complete.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the first header field of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(candidate, _)| candidate == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON.
    ///
    /// # Panics
    ///
    /// If it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self}"))
    }

    /// Returns status and Matrix error code, as in `403 M_FORBIDDEN`; the code is missing from
    /// answers that are not errors, and is then left out.
    ///
    /// # Panics
    ///
    /// If an error's body is not JSON with `errcode` and `error`.
    #[must_use]
    pub fn outcome(&self) -> String {
        if self.status < 400 {
            return self.status.to_string();
        }
        let body = self.json();
        let code = body["errcode"].as_str().unwrap_or_else(|| panic!("no errcode in {self}"));
        assert!(body["error"].is_string(), "no error text in {self}");
        format!("{} {code}", self.status)
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} {}", self.status, String::from_utf8_lossy(&self.body))
    }
}

/// How reading an answer can end otherwise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoAnswer {
    /// The server closed the connection, orderly or not, before the answer was complete.
    Closed,
    /// Nothing came in time.
    Silence,
}

/// One TCP connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// Connects; reads and writes wait at most [`PATIENCE`].
    ///
    /// # Panics
    ///
    /// If the server does not accept.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a test's client stands outside the reactor")]
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a limit can be set");
        stream.set_nodelay(true).expect("a TCP stream takes TCP_NODELAY");
        Self { stream, received: Vec::new() }
    }

    /// Returns the socket, for tests of what lies below HTTP.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are. A server that has already closed is no error: the answer, or the
    /// lack of one, is what counts.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sends a request with a body and the header fields that belong to it.
    pub fn request(&mut self, method: &str, target: &str, token: Option<&str>, body: &[u8]) {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
        if let Some(token) = token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            head.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            ));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes);
    }

    /// Reads the next answer.
    ///
    /// # Panics
    ///
    /// If there is none, or it is no HTTP.
    pub fn answer(&mut self) -> Answer {
        self.try_answer("GET").unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// Reads the next answer to a request of the given method, if there is one.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] tells a closed connection from a silent one.
    ///
    /// # Panics
    ///
    /// If what comes is not HTTP.
    pub fn try_answer(&mut self, method: &str) -> Result<Answer, NoAnswer> {
        let head = loop {
            let head = self.take_until(b"\r\n\r\n")?;
            // Interim answers, such as `100 Continue`, come before the real one.
            if !head.starts_with(b"HTTP/1.1 1") {
                break String::from_utf8(head).expect("heads of our answers are ASCII");
            }
        };
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let headers: Vec<(String, String)> = lines
            .map(|line| {
                let (name, value) =
                    line.split_once(':').unwrap_or_else(|| panic!("not a header field: {line:?}"));
                (name.to_ascii_lowercase(), value.trim().to_owned())
            })
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if method == "HEAD" || status == 204 || status == 304 {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            answer.body = self.take_chunks()?;
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("Content-Length is a number");
            answer.body = self.take(length)?;
        } else {
            answer.body = self.read_to_end()?;
        }
        Ok(answer)
    }

    /// Reads until the server closes, and returns what came.
    ///
    /// # Errors
    ///
    /// [`NoAnswer::Silence`] if it does not close in time.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>, NoAnswer> {
        loop {
            match self.read_some() {
                Ok(()) => {}
                Err(NoAnswer::Closed) => return Ok(std::mem::take(&mut self.received)),
                Err(NoAnswer::Silence) => return Err(NoAnswer::Silence),
            }
        }
    }

    fn take_chunks(&mut self) -> Result<Vec<u8>, NoAnswer> {
        let mut body = Vec::new();
        loop {
            let line = self.take_until(b"\r\n")?;
            let size = std::str::from_utf8(&line).expect("a chunk's size is ASCII").trim();
            let size = usize::from_str_radix(size, 16).expect("a chunk's size is hexadecimal");
            let chunk = self.take(size + 2)?;
            assert!(chunk.ends_with(b"\r\n"), "a chunk ends with a line feed");
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    fn take_until(&mut self, end: &[u8]) -> Result<Vec<u8>, NoAnswer> {
        loop {
            let found = self.received.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                return self.take(at + end.len());
            }
            self.read_some()?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, NoAnswer> {
        while self.received.len() < length {
            self.read_some()?;
        }
        let rest = self.received.split_off(length);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    fn read_some(&mut self) -> Result<(), NoAnswer> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(NoAnswer::Closed),
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(NoAnswer::Silence)
            }
            Err(_) => Err(NoAnswer::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read when a server says exactly this and closes.
    fn read(said: &'static str, method: &str) -> Result<Answer, NoAnswer> {
        #[expect(clippy::disallowed_methods, reason = "a server that says what the test wants")]
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(said.as_bytes()).unwrap();
        });
        let answer = Connection::open(address).try_answer(method);
        server.join().unwrap();
        answer
    }

    #[test]
    fn answers_are_read_however_their_end_is_marked() {
        for (why, said, method, expected) in [
            ("a length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabX", "GET", Ok((200, "ab"))),
            (
                "chunks",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nA\r\n0123456789\r\n0\r\n\r\n",
                "GET",
                Ok((200, "a0123456789")),
            ),
            ("the close", "HTTP/1.1 400 Bad\r\n\r\nab", "GET", Ok((400, "ab"))),
            (
                "no body for HEAD",
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
                "HEAD",
                Ok((200, "")),
            ),
            ("no body for 204", "HTTP/1.1 204 No\r\n\r\n", "GET", Ok((204, ""))),
            (
                "an interim answer",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n",
                "PUT",
                Ok((413, "")),
            ),
            (
                "cut off",
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
                "GET",
                Err(NoAnswer::Closed),
            ),
            ("nothing", "", "GET", Err(NoAnswer::Closed)),
        ] {
            let found = read(said, method);
            let found =
                found.map(|answer| (answer.status, String::from_utf8(answer.body).unwrap()));
            assert_eq!(found, expected.map(|(status, body)| (status, body.to_owned())), "{why}");
        }
    }
}
