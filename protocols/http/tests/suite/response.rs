//! The client's codec: tables, and properties over every split of the input.

use http::Method;
use proptest::prelude::*;
use ropewalk_http::{ClientCodec, Limits, MessageError, ResponseEvent};

/// Status, body and whether the connection can be used again, for each complete response.
type Seen = Result<Vec<(u16, String, bool)>, MessageError>;

fn read(methods: &[Method], pieces: &[&[u8]], closes: bool) -> Seen {
    let mut codec = ClientCodec::new(&Limits::default());
    let mut methods = methods.iter();
    let mut seen = Vec::new();
    let mut body = Vec::new();
    let mut head = None;
    let mut ended = |head: &mut Option<ropewalk_http::ResponseHead>, body: &mut Vec<u8>| {
        let head = head.take().expect("a head comes first");
        let text = String::from_utf8(std::mem::take(body)).unwrap();
        seen.push((head.status().as_u16(), text, head.keeps_alive()));
    };
    codec.expect_response(methods.next().unwrap());
    for piece in pieces {
        let mut input = *piece;
        while let Some(event) = codec.next_event(&mut input)? {
            match event {
                ResponseEvent::Head(received) => head = Some(received),
                ResponseEvent::Body(data) => body.extend_from_slice(data),
                ResponseEvent::End => {
                    ended(&mut head, &mut body);
                    if let Some(method) = methods.next() {
                        codec.expect_response(method);
                    }
                }
            }
        }
        assert!(input.is_empty());
    }
    if closes && codec.end_of_input()? {
        ended(&mut head, &mut body);
    }
    Ok(seen)
}

#[test]
fn responses_are_told_from_what_follows() {
    let ok = |list: &[(u16, &str, bool)]| {
        Ok(list.iter().map(|&(status, body, keep)| (status, body.to_owned(), keep)).collect())
    };
    let get = &[Method::GET][..];
    let table: Vec<(&str, &[Method], &str, Seen)> = vec![
        (
            "a length",
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            ok(&[(200, "hi", true)]),
        ),
        ("no reason", get, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", ok(&[(200, "", true)])),
        (
            "chunks",
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            ok(&[(200, "hi", true)]),
        ),
        ("until the end", get, "HTTP/1.1 200 OK\r\n\r\nhi", ok(&[(200, "hi", false)])),
        ("1.0 until the end", get, "HTTP/1.0 200 OK\r\n\r\nhi", ok(&[(200, "hi", false)])),
        (
            "an announced close",
            get,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
            ok(&[(200, "hi", false)]),
        ),
        ("no content", get, "HTTP/1.1 204 No Content\r\n\r\n", ok(&[(204, "", true)])),
        (
            "not modified",
            get,
            "HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n",
            ok(&[(304, "", true)]),
        ),
        (
            "an answer to HEAD",
            &[Method::HEAD],
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            ok(&[(200, "", true)]),
        ),
        (
            "an informational response first",
            get,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 X\r\n\r\n",
            ok(&[(204, "", true)]),
        ),
        (
            "two responses",
            &[Method::GET, Method::GET],
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nb",
            ok(&[(200, "a", true), (404, "b", true)]),
        ),
        ("nothing", get, "", Err(MessageError::Truncated)),
        ("half a head", get, "HTTP/1.1 200 OK\r\nContent-Le", Err(MessageError::Truncated)),
        (
            "half a body",
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            Err(MessageError::Truncated),
        ),
        (
            "chunks without an end",
            get,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
            Err(MessageError::Truncated),
        ),
        (
            "an answer too many",
            get,
            "HTTP/1.1 204 X\r\n\r\nHTTP/1.1 204 X\r\n\r\n",
            Err(MessageError::Unexpected),
        ),
        (
            "another protocol that nobody asked for",
            get,
            "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
            Err(MessageError::Unexpected),
        ),
        ("version 2", get, "HTTP/2.0 200 OK\r\n\r\n", Err(MessageError::StatusLineMalformed)),
        (
            "a status of two digits",
            get,
            "HTTP/1.1 20 OK\r\n\r\n",
            Err(MessageError::StatusLineMalformed),
        ),
        (
            "a status below 100",
            get,
            "HTTP/1.1 099 OK\r\n\r\n",
            Err(MessageError::StatusLineMalformed),
        ),
        ("something else", get, "SSH-2.0-x\r\n\r\n", Err(MessageError::StatusLineMalformed)),
        ("a bare line feed", get, "HTTP/1.1 200 OK\nA: b\r\n\r\n", Err(MessageError::BareLineFeed)),
        (
            "a folded field",
            get,
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            Err(MessageError::HeaderMalformed),
        ),
        (
            "both lengths",
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            Err(MessageError::LengthAndTransferEncoding),
        ),
        (
            "differing lengths",
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
            Err(MessageError::ContentLengthRepeated),
        ),
        (
            "a body over the limit",
            get,
            "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
            Err(MessageError::BodyTooLarge { limit: Limits::default().body_bytes_max }),
        ),
    ];
    for (why, methods, text, expected) in table {
        let bytes = text.as_bytes();
        assert_eq!(read(methods, &[bytes], true), expected, "{why}: {text:?}");
        let bytewise: Vec<_> = bytes.chunks(1).collect();
        assert_eq!(read(methods, &bytewise, true), expected, "byte by byte, {why}: {text:?}");
        for cut in 1..bytes.len() {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(read(methods, &[front, back], true), expected, "cut at {cut}, {why}");
        }
    }
}

#[test]
fn informational_responses_do_not_go_on_for_ever() {
    let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
    assert_eq!(read(&[Method::GET], &[endless.as_bytes()], false), Err(MessageError::Unexpected));
}

proptest! {
    #![proptest_config(crate::deterministic(256))]

    #[test]
    fn noise_gets_the_same_verdict_whatever_the_split(
        start in prop::sample::select(&["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"][..]),
        noise in prop::collection::vec(prop::sample::select(&b"HTP/1.20\r\n :;aA\x00\xff"[..]), 0..60),
        piece in 1usize..20,
    ) {
        let mut bytes = start.as_bytes().to_vec();
        bytes.extend(noise);
        bytes.extend_from_slice(b"\r\n\r\n");
        let read_lossy = |pieces: &[&[u8]]| {
            let mut codec = ClientCodec::new(&Limits::default());
            codec.expect_response(&Method::GET);
            let mut body = Vec::new();
            for piece in pieces {
                let mut input = *piece;
                loop {
                    match codec.next_event(&mut input) {
                        Ok(Some(ResponseEvent::Body(data))) => body.extend_from_slice(data),
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(error) => return (body, Some(error.status())),
                    }
                }
            }
            (body, None)
        };
        let pieces: Vec<_> = bytes.chunks(piece).collect();
        prop_assert_eq!(read_lossy(&pieces), read_lossy(&[&bytes]));
    }
}
