//! Heads on their way out: start line, our own framing fields, and the fields that the caller set.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::framing::BodyLength;

/// Header lines of a message to be sent, as they will stand on the wire.
///
/// Names and values come as types of the `http` crate, so no line can break out of its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderLines {
    text: Vec<u8>,
}

impl HeaderLines {
    /// Adds a line. Fields that frame the message or the connection are ours to say and are left out.
    pub(crate) fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        if *name == header::CONTENT_LENGTH
            || *name == header::TRANSFER_ENCODING
            || *name == header::CONNECTION
            || *name == header::DATE
        {
            debug_assert!(false, "{name} is set by the connection");
            return;
        }
        self.push_line(name.as_str().as_bytes(), value.as_bytes());
    }

    pub(crate) fn push_line(&mut self, name: &[u8], value: &[u8]) {
        if self.text.capacity() == 0 {
            self.text.reserve(128);
        }
        push_line(&mut self.text, name, value);
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Returns the value of the first line of that name.
    pub(crate) fn first(&self, name: &str) -> Option<&[u8]> {
        self.text.split(|&byte| byte == b'\n').find_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            line[..colon]
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| line[colon + 1..].trim_ascii())
        })
    }
}

fn push_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// What a response's head says about the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Persistence {
    /// It will be closed.
    Close,
    /// It stays open, as goes without saying in HTTP/1.1.
    KeepAlive,
    /// It stays open, which an HTTP/1.0 client has to be told.
    KeepAliveTold,
}

/// Appends the head of a response.
///
/// `length` is that of the body that a `GET` would get, whether it is sent or not. Where the status
/// forbids a body nothing is said about one.
pub(crate) fn push_response_head(
    out: &mut Vec<u8>,
    status: StatusCode,
    date: &[u8],
    length: BodyLength,
    persistence: Persistence,
    lines: &HeaderLines,
) {
    match status {
        StatusCode::OK => out.extend_from_slice(b"HTTP/1.1 200 OK\r\ndate: "),
        status => {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(status.as_str().as_bytes());
            out.push(b' ');
            out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
            out.extend_from_slice(b"\r\ndate: ");
        }
    }
    out.extend_from_slice(date);
    out.extend_from_slice(b"\r\n");
    let says_length = match (status, length) {
        (StatusCode::NO_CONTENT, _) => false,
        // Of a document that has not changed we need not know the size; zero would be a lie.
        (StatusCode::NOT_MODIFIED, BodyLength::Exact(0)) => false,
        (status, _) => !status.is_informational(),
    };
    if says_length {
        push_length(out, length);
    }
    match persistence {
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
        Persistence::KeepAlive => {}
        Persistence::KeepAliveTold => out.extend_from_slice(b"connection: keep-alive\r\n"),
    }
    out.extend_from_slice(lines.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Whether a response with this status has a body at all; `HEAD` is for the caller to consider.
pub(crate) fn status_allows_body(status: StatusCode) -> bool {
    !(status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED)
}

/// Appends the head of a request. A body of no bytes is mentioned only where one is expected.
pub(crate) fn push_request_head(
    out: &mut Vec<u8>,
    method: &Method,
    target: &str,
    host: &str,
    length: BodyLength,
    lines: &HeaderLines,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    push_line(out, b"host", host.as_bytes());
    let expected = *method == Method::POST || *method == Method::PUT || *method == Method::PATCH;
    if expected || length != BodyLength::Exact(0) {
        push_length(out, length);
    }
    out.extend_from_slice(lines.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn push_length(out: &mut Vec<u8>, length: BodyLength) {
    match length {
        BodyLength::Exact(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(Decimal::new(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        BodyLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodyLength::UntilClose => {}
    }
}

/// A number in decimal digits, made without going through the formatting machinery.
pub(crate) struct Decimal {
    text: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(number: u64) -> Self {
        let mut text = [0; 20];
        let mut start = text.len();
        let mut rest = number;
        loop {
            start -= 1;
            text[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return Decimal { text, start };
            }
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.text[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: StatusCode, length: BodyLength, persistence: Persistence) -> String {
        let mut lines = HeaderLines::default();
        lines.push(&header::CONTENT_TYPE, &HeaderValue::from_static("text/plain"));
        let mut out = Vec::new();
        push_response_head(&mut out, status, b"(now)", length, persistence, &lines);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn response_heads_say_how_the_body_is_framed() {
        for (why, status, length, persistence, expected) in [
            (
                "a length",
                200,
                BodyLength::Exact(13),
                Persistence::KeepAlive,
                "200 OK\r\ndate: (now)\r\ncontent-length: 13\r\n",
            ),
            (
                "a length of zero",
                404,
                BodyLength::Exact(0),
                Persistence::Close,
                "404 Not Found\r\ndate: (now)\r\ncontent-length: 0\r\nconnection: close\r\n",
            ),
            (
                "chunks",
                200,
                BodyLength::Chunked,
                Persistence::KeepAliveTold,
                "200 OK\r\ndate: (now)\r\ntransfer-encoding: chunked\r\nconnection: keep-alive\r\n",
            ),
            (
                "until the end",
                200,
                BodyLength::UntilClose,
                Persistence::Close,
                "200 OK\r\ndate: (now)\r\nconnection: close\r\n",
            ),
            (
                "no content has no length",
                204,
                BodyLength::Exact(0),
                Persistence::KeepAlive,
                "204 No Content\r\ndate: (now)\r\n",
            ),
            (
                "what has not changed has none either",
                304,
                BodyLength::Exact(0),
                Persistence::KeepAlive,
                "304 Not Modified\r\ndate: (now)\r\n",
            ),
            (
                "a status without a name",
                599,
                BodyLength::Exact(0),
                Persistence::KeepAlive,
                "599 \r\ndate: (now)\r\ncontent-length: 0\r\n",
            ),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let expected = format!("HTTP/1.1 {expected}content-type: text/plain\r\n\r\n");
            assert_eq!(response(status, length, persistence), expected, "{why}");
        }
    }

    #[test]
    fn numbers_are_written_as_everybody_writes_them() {
        for number in [0, 7, 10, 99, 100, 12_345, u64::MAX] {
            assert_eq!(Decimal::new(number).as_bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn requests_mention_an_empty_body_only_where_one_is_expected() {
        for (method, length, expected) in [
            (Method::GET, BodyLength::Exact(0), "GET /a?b HTTP/1.1\r\nhost: h:1\r\n\r\n"),
            (
                Method::POST,
                BodyLength::Exact(0),
                "POST /a?b HTTP/1.1\r\nhost: h:1\r\ncontent-length: 0\r\n\r\n",
            ),
            (
                Method::DELETE,
                BodyLength::Exact(3),
                "DELETE /a?b HTTP/1.1\r\nhost: h:1\r\ncontent-length: 3\r\n\r\n",
            ),
            (
                Method::PUT,
                BodyLength::Chunked,
                "PUT /a?b HTTP/1.1\r\nhost: h:1\r\ntransfer-encoding: chunked\r\n\r\n",
            ),
        ] {
            let mut out = Vec::new();
            push_request_head(&mut out, &method, "/a?b", "h:1", length, &HeaderLines::default());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
