//! Heads on their way out: start line, our own framing fields, and the fields that the caller set.

use std::rc::Rc;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::framing::BodyLength;
use crate::server::{LENGTH_NAME, ResponseStart};

/// Header lines that are made once and sent with many messages, for the cost of a reference count.
///
/// ```
/// use http::{HeaderValue, StatusCode, header};
/// use ropewalk_http::{HeaderBlock, Response};
///
/// let json = HeaderBlock::new([
///     (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
///     (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
/// ]);
/// let response = Response::new(StatusCode::OK).with_headers(&json).with_body("{}");
/// assert_eq!(response.header_value("content-type"), Some(&b"application/json"[..]));
/// ```
#[derive(Clone, Debug)]
pub struct HeaderBlock {
    text: Rc<[u8]>,
}

impl HeaderBlock {
    /// Makes the lines for these fields, in their order.
    ///
    /// # Panics
    ///
    /// In debug builds, if one of them is a field that the connection sets; otherwise that one is left out.
    pub fn new(fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Self {
        let mut lines = HeaderLines::default();
        for (name, value) in fields {
            lines.push(&name, &value);
        }
        HeaderBlock { text: lines.text.into() }
    }
}

/// Header lines of a message to be sent, as they will stand on the wire.
///
/// Names and values come as types of the `http` crate, so no line can break out of its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderLines {
    shared: Option<HeaderBlock>,
    text: Vec<u8>,
}

impl HeaderLines {
    /// Puts a block of lines in front, or in place of the one that is there.
    #[inline]
    pub(crate) fn share(&mut self, block: &HeaderBlock) {
        self.shared = Some(block.clone());
    }

    /// Adds a line. Fields that frame the message or the connection are ours to say and are left out.
    #[inline]
    pub(crate) fn push(&mut self, name: &HeaderName, value: &HeaderValue) {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        if matches!(
            name,
            b"content-length" | b"transfer-encoding" | b"connection" | b"date" | b"host"
        ) {
            debug_assert!(false, "{name:?} is set by the connection");
            return;
        }
        if self.text.capacity() == 0 {
            self.text = Vec::with_capacity(LINES_BYTES);
        }
        push_line(&mut self.text, name, value);
    }

    #[inline]
    fn append_to(&self, out: &mut Vec<u8>) {
        if let Some(shared) = &self.shared {
            out.extend_from_slice(&shared.text);
        }
        if !self.text.is_empty() {
            out.extend_from_slice(&self.text);
        }
    }

    /// Returns the value of the first line of that name.
    pub(crate) fn first(&self, name: &str) -> Option<&[u8]> {
        let shared = self.shared.as_ref().map_or(&[][..], |block| &block.text);
        let mut lines =
            [shared, &self.text].into_iter().flat_map(|text| text.split(|&byte| byte == b'\n'));
        lines.find_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            line[..colon]
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| line[colon + 1..].trim_ascii())
        })
    }
}

/// Room made for the lines of a message: enough for those of most.
const LINES_BYTES: usize = 128;

#[inline]
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
    start: &ResponseStart,
    length: BodyLength,
    persistence: Persistence,
    lines: &HeaderLines,
) {
    match (status, length) {
        // Nearly every one.
        (StatusCode::OK, BodyLength::Exact(length)) => {
            out.extend_from_slice(start.ok_lines_and_length_name());
            push_decimal_and_line_end(out, length);
        }
        _ => push_unusual_start(out, status, start, length),
    }
    match persistence {
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
        Persistence::KeepAlive => {}
        Persistence::KeepAliveTold => out.extend_from_slice(b"connection: keep-alive\r\n"),
    }
    lines.append_to(out);
    out.extend_from_slice(b"\r\n");
}

fn push_unusual_start(
    out: &mut Vec<u8>,
    status: StatusCode,
    start: &ResponseStart,
    length: BodyLength,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(start.date_line());
    let says_length = match (status, length) {
        (StatusCode::NO_CONTENT, _) => false,
        // Of a document that has not changed we need not know the size; zero would be a lie.
        (StatusCode::NOT_MODIFIED, BodyLength::Exact(0)) => false,
        (status, _) => !status.is_informational(),
    };
    if says_length {
        push_length(out, length);
    }
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
    lines.append_to(out);
    out.extend_from_slice(b"\r\n");
}

fn push_length(out: &mut Vec<u8>, length: BodyLength) {
    match length {
        BodyLength::Exact(length) => {
            out.extend_from_slice(LENGTH_NAME.as_bytes());
            push_decimal_and_line_end(out, length);
        }
        BodyLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        BodyLength::UntilClose => {}
    }
}

/// Appends a number, and a line end, without going through the formatting machinery.
#[inline]
fn push_decimal_and_line_end(out: &mut Vec<u8>, number: u64) {
    let rest = number / 100;
    if rest > 0 {
        push_decimal(out, rest);
    }
    let [tens, ones] = last_digits(number);
    if number >= 10 {
        out.extend_from_slice(&[tens, ones, b'\r', b'\n']);
    } else {
        out.extend_from_slice(&[ones, b'\r', b'\n']);
    }
}

fn push_decimal(out: &mut Vec<u8>, number: u64) {
    if number >= 100 {
        // Half as deep as the number has digits.
        push_decimal(out, number / 100);
    }
    let [tens, ones] = last_digits(number);
    if number >= 10 {
        out.push(tens);
    }
    out.push(ones);
}

#[inline]
fn last_digits(number: u64) -> [u8; 2] {
    let last = (number % 100) as u8;
    [b'0' + last / 10, b'0' + last % 10]
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn response(status: StatusCode, length: BodyLength, persistence: Persistence) -> String {
        let mut lines = HeaderLines::default();
        lines.push(&header::CONTENT_TYPE, &HeaderValue::from_static("text/plain"));
        let mut out = Vec::new();
        push_response_head(
            &mut out,
            status,
            &ResponseStart::new("(now)"),
            length,
            persistence,
            &lines,
        );
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
        for number in [0, 7, 10, 99, 100, 101, 999, 1_000, 1_005, 12_345, 100_000, u64::MAX] {
            let mut out = Vec::new();
            push_decimal_and_line_end(&mut out, number);
            assert_eq!(out, format!("{number}\r\n").into_bytes());
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
