//! What is done with bytes from outside: by the fuzz targets for as long as they are let, by the ordinary
//! tests with the corpus and a bounded number of mutations.
//!
//! The first byte of an input chooses the sizes of the pieces in which the rest is fed. Each entry panics if
//! the outcome depends on the pieces, if a codec leaves input without asking for more, or forgets an error.

use http::Method;
use ropewalk_http::{ClientCodec, Limits, MessageError, RequestEvent, ResponseEvent, ServerCodec};

type Entry = fn(&[u8]);

/// The name of each target and what it does with an input.
pub(crate) const ENTRIES: &[(&str, Entry)] =
    &[("chunked", chunked), ("request", request), ("response", response)];

/// Does with an input what the target of this name does.
pub(crate) fn run(target: &str, input: &[u8]) {
    for (name, entry) in ENTRIES {
        if *name == target {
            entry(input);
        }
    }
}

/// A body in chunks, behind a head that is fine.
fn chunked(input: &[u8]) {
    let Some((&size, body)) = input.split_first() else { return };
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(size, &[head, body].concat(), requests);
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(size, &[head, body].concat(), |stream, size| responses(&Method::GET, stream, size));
}

/// What a server is sent.
fn request(input: &[u8]) {
    let Some((&size, stream)) = input.split_first() else { return };
    check(size, stream, requests);
}

/// What a client is answered.
fn response(input: &[u8]) {
    let Some((&size, stream)) = input.split_first() else { return };
    for method in [Method::GET, Method::HEAD] {
        check(size, stream, |stream, size| responses(&method, stream, size));
    }
}

/// Everything that a stream says, bodies put together, and with which status it was refused if it was.
type Seen = (Vec<(String, Vec<u8>, bool)>, Option<u16>);

fn check(size: u8, stream: &[u8], read: impl Fn(&[u8], usize) -> Seen) {
    // A head that makes no sense may be refused before it is complete, but need not: so it is completed.
    let stream = [stream, b"\r\n\r\n"].concat();
    let whole = read(&stream, stream.len());
    assert_eq!(read(&stream, usize::from(size) % 30 + 1), whole, "in pieces and at once");
}

fn status(error: MessageError) -> Option<u16> {
    Some(error.status().as_u16())
}

fn limits() -> Limits {
    // Small ones are reached by small inputs.
    Limits {
        head_bytes_max: 400,
        header_count_max: 8,
        target_bytes_max: 100,
        body_bytes_max: 300,
        ..Limits::default()
    }
}

fn requests(stream: &[u8], size: usize) -> Seen {
    let mut codec = ServerCodec::new(&limits());
    let mut seen = Vec::new();
    for mut piece in stream.chunks(size) {
        loop {
            match codec.next_event(&mut piece) {
                Ok(None) => break,
                Ok(Some(RequestEvent::Head(head))) => {
                    let headers: Vec<_> = head.headers().collect();
                    let line = format!("{} {} {headers:?}", head.method(), head.target());
                    let facts = (head.body_length(), head.keeps_alive(), head.expects_continue());
                    seen.push((format!("{line} {} {facts:?}", head.path()), Vec::new(), false));
                }
                Ok(Some(RequestEvent::Body(data))) => add(&mut seen, data),
                Ok(Some(RequestEvent::End)) => end(&mut seen),
                Err(error) => {
                    assert_eq!(codec.next_event(&mut &b"x"[..]).unwrap_err(), error);
                    return (seen, status(error));
                }
            }
        }
        assert!(piece.is_empty(), "the codec asked for more and left {piece:?}");
    }
    (seen, None)
}

fn responses(method: &Method, stream: &[u8], size: usize) -> Seen {
    let mut codec = ClientCodec::new(&limits());
    let mut seen = Vec::new();
    codec.expect_response(method);
    for mut piece in stream.chunks(size) {
        loop {
            match codec.next_event(&mut piece) {
                Ok(None) => break,
                Ok(Some(ResponseEvent::Head(head))) => {
                    let facts = (head.status(), head.body_length(), head.keeps_alive());
                    seen.push((format!("{facts:?}"), Vec::new(), false));
                }
                Ok(Some(ResponseEvent::Body(data))) => add(&mut seen, data),
                Ok(Some(ResponseEvent::End)) => {
                    end(&mut seen);
                    codec.expect_response(method);
                }
                Err(error) => return (seen, status(error)),
            }
        }
        assert!(piece.is_empty(), "the codec asked for more and left {piece:?}");
    }
    let error = match codec.end_of_input() {
        Ok(_) => None,
        Err(error) => status(error),
    };
    (seen, error)
}

fn add(seen: &mut [(String, Vec<u8>, bool)], data: &[u8]) {
    assert!(!data.is_empty());
    let (_, body, _) = seen.last_mut().expect("a head comes before a body");
    body.extend_from_slice(data);
    assert!(body.len() as u64 <= limits().body_bytes_max, "a body within the limit");
}

fn end(seen: &mut [(String, Vec<u8>, bool)]) {
    let (_, _, is_ended) = seen.last_mut().expect("a head comes before the end");
    assert!(!std::mem::replace(is_ended, true), "a message ends once");
}
