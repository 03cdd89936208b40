//! The server's codec: tables, and properties over every split of the input.

use proptest::prelude::*;
use ropewalk_http::{
    BodyLength, CHUNK_LINE_BYTES_MAX, Limits, MessageError, RequestEvent, ServerCodec,
};

/// What a stream of requests says, with nothing left out that could differ.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Seen {
    requests: Vec<SeenRequest>,
    error: Option<MessageError>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct SeenRequest {
    line: String,
    headers: Vec<(String, Vec<u8>)>,
    length: Option<BodyLength>,
    keep_alive: bool,
    expects_continue: bool,
    body: Vec<u8>,
    ended: bool,
}

fn read_pieces<'a>(limits: &Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let mut codec = ServerCodec::new(limits);
    let mut seen = Seen::default();
    for mut input in pieces {
        loop {
            match codec.next_event(&mut input) {
                Ok(None) => break,
                Ok(Some(RequestEvent::Head(head))) => seen.requests.push(SeenRequest {
                    line: format!("{} {} {}", head.method(), head.target(), head.minor_version()),
                    headers: head.headers().map(|(n, v)| (n.to_owned(), v.to_vec())).collect(),
                    length: Some(head.body_length()),
                    keep_alive: head.keeps_alive(),
                    expects_continue: head.expects_continue(),
                    ..SeenRequest::default()
                }),
                Ok(Some(RequestEvent::Body(data))) => {
                    assert!(!data.is_empty());
                    seen.requests.last_mut().unwrap().body.extend_from_slice(data);
                }
                Ok(Some(RequestEvent::End)) => seen.requests.last_mut().unwrap().ended = true,
                Err(error) => {
                    assert_eq!(codec.next_event(&mut &b"x"[..]).unwrap_err(), error);
                    seen.error = Some(error);
                    return seen;
                }
            }
        }
        assert!(input.is_empty(), "the codec asked for more and left {input:?}");
    }
    seen
}

fn read(text: impl AsRef<[u8]>) -> Seen {
    read_pieces(&Limits::default(), [text.as_ref()])
}

/// The status of the refusal, or the bodies of all complete requests.
type Outcome = Result<Vec<String>, u16>;

fn outcome(seen: &Seen) -> Outcome {
    match seen.error {
        Some(error) => Err(error.status().as_u16()),
        None => Ok(seen
            .requests
            .iter()
            .filter(|request| request.ended)
            .map(|request| String::from_utf8_lossy(&request.body).into_owned())
            .collect()),
    }
}

#[test]
fn requests_are_accepted_or_refused_with_the_right_status() {
    let ok = |bodies: &[&str]| Ok(bodies.iter().map(|&body| body.to_owned()).collect());
    let table: Vec<(&str, &str, Outcome)> = vec![
        ("the smallest", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", ok(&[""])),
        ("empty lines in front", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", ok(&[""])),
        ("an empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", ok(&[""])),
        ("an address as host", "GET / HTTP/1.1\r\nHost: [::1]:8008\r\n\r\n", ok(&[""])),
        ("1.0 without host", "GET / HTTP/1.0\r\n\r\n", ok(&[""])),
        ("an unknown method", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", ok(&[""])),
        ("a fixed body", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", ok(&["hi"])),
        (
            "a chunked body and a next request",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
             1\r\nh\r\n1;x\r\ni\r\n0\r\nt: u\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            ok(&["hi", ""]),
        ),
        ("an incomplete head", "GET / HTTP/1.1\r\nHost: a\r\n", ok(&[])),
        ("an incomplete body", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nhi", ok(&[])),
        (
            "an upgrade is not our business",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            ok(&[""]),
        ),
        ("absolute form", "GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", ok(&[""])),
        ("asterisk form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ok(&[""])),
        // Framing that two readers could understand differently.
        (
            "both lengths",
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            Err(400),
        ),
        (
            "both lengths, the other order",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
            Err(400),
        ),
        (
            "differing lengths",
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
            Err(400),
        ),
        (
            "equal lengths twice",
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
            Err(400),
        ),
        (
            "a list of lengths",
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\n",
            Err(400),
        ),
        ("a signed length", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\n", Err(400)),
        ("a negative length", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\n", Err(400)),
        (
            "a length with a space",
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n",
            Err(400),
        ),
        (
            "a length over 64 bits",
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            Err(400),
        ),
        ("no length at all", "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Err(400)),
        (
            "a length over the limit",
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n",
            Err(413),
        ),
        (
            "two transfer encodings",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Err(400),
        ),
        (
            "an unknown transfer encoding",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            Err(400),
        ),
        ("identity", "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Err(400)),
        (
            "an empty transfer encoding",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
            Err(400),
        ),
        (
            "chunked is not last",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            Err(400),
        ),
        (
            "compressed and chunked",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            Err(501),
        ),
        ("chunked on 1.0", "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(400)),
        (
            "a malformed chunk size",
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n0\r\n\r\n",
            Err(400),
        ),
        // Lines.
        ("a bare line feed after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", Err(400)),
        ("a bare line feed after a field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", Err(400)),
        ("a bare line feed after the last field", "GET / HTTP/1.1\r\nHost: a\n\r\n", Err(400)),
        ("a bare line feed at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", Err(400)),
        ("bare line feeds alone", "GET / HTTP/1.1\nHost: a\n\n", Err(400)),
        ("a bare line feed in front", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        (
            "a bare carriage return in a value",
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: z\r\n\r\n",
            Err(400),
        ),
        (
            "a bare carriage return in the request line",
            "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
            Err(400),
        ),
        ("a bare carriage return in front", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("a folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", Err(400)),
        ("a field folded with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n", Err(400)),
        ("a space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(400)),
        ("a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(400)),
        (
            "a tab before the colon",
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 2\r\n\r\n",
            Err(400),
        ),
        ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Err(400)),
        ("an empty name", "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", Err(400)),
        ("a null byte in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", Err(400)),
        ("a null byte in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", Err(400)),
        // The request line.
        ("a method that is no token", "GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("no method", " / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        (
            "an endless method",
            "GETGETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Err(400),
        ),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("a trailing space", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Err(400)),
        ("a control character in the target", "GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("letters beyond ASCII in the target", "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("a relative target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("no authority", "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("a proxy's method", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Err(501)),
        ("version 2", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", Err(505)),
        ("the preface of version 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(505)),
        ("version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", Err(505)),
        ("version 0.9", "GET /\r\n\r\n", Err(400)),
        ("another protocol", "GET / HTPP/1.1\r\nHost: a\r\n\r\n", Err(400)),
        ("a TLS greeting", "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03\r\n\r\n", Err(400)),
        // Host and Expect.
        ("no host on 1.1", "GET / HTTP/1.1\r\n\r\n", Err(400)),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Err(400)),
        ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Err(400)),
        ("a host with a user", "GET / HTTP/1.1\r\nHost: me@a\r\n\r\n", Err(400)),
        ("two hosts in one", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Err(400)),
        (
            "an unknown expectation",
            "GET / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\n\r\n",
            Err(417),
        ),
    ];
    for (why, text, expected) in table {
        assert_eq!(outcome(&read(text)), expected, "{why}: {text:?}");
        let bytewise = read_pieces(&Limits::default(), text.as_bytes().chunks(1));
        assert_eq!(outcome(&bytewise), expected, "byte by byte, {why}: {text:?}");
    }
}

#[test]
fn what_is_too_long_gets_the_status_that_says_so() {
    let limits = Limits {
        head_bytes_max: 2000,
        header_count_max: 10,
        target_bytes_max: 500,
        body_bytes_max: 100,
        ..Limits::default()
    };
    let put = "PUT / HTTP/1.1\r\nHost: a\r\n";
    for (why, text, status) in [
        ("target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(500)), 414),
        ("endless target", format!("GET /{}", "a".repeat(5000)), 414),
        ("endless method", "A".repeat(5000), 400),
        ("one field", format!("{put}X: {}\r\n\r\n", "a".repeat(3000)), 431),
        ("endless field", format!("{put}X: {}", "a".repeat(5000)), 431),
        ("fields", format!("{put}{}\r\n", "X: y\r\n".repeat(11)), 431),
        ("endless fields", format!("{put}{}", "X: y\r\n".repeat(5000)), 431),
        ("fixed body", format!("{put}Content-Length: 101\r\n\r\n"), 413),
        (
            "chunked body",
            format!("{put}Transfer-Encoding: chunked\r\n\r\n65\r\n{}", "a".repeat(101)),
            413,
        ),
        (
            "chunk line",
            format!(
                "{put}Transfer-Encoding: chunked\r\n\r\n1;{}",
                "a".repeat(CHUNK_LINE_BYTES_MAX)
            ),
            400,
        ),
        (
            "trailers",
            format!("{put}Transfer-Encoding: chunked\r\n\r\n0\r\n{}", "X: y\r\n".repeat(5000)),
            431,
        ),
    ] {
        for piece in [1, 7, 1000, text.len()] {
            let seen = read_pieces(&limits, text.as_bytes().chunks(piece));
            assert_eq!(outcome(&seen), Err(status), "{why}, {piece} bytes at a time");
        }
    }
    let exactly = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(499));
    assert_eq!(outcome(&read_pieces(&limits, [exactly.as_bytes()])), Ok(vec![String::new()]));
}

#[test]
fn connections_persist_as_version_and_fields_say() {
    for (version, field, keep_alive) in [
        ("1.1", "X: y", true),
        ("1.1", "Connection: close", false),
        ("1.1", "connection: x, Close", false),
        ("1.1", "Connection: keep-alive, close", false),
        ("1.1", "Connection: closed", true),
        ("1.0", "X: y", false),
        ("1.0", "Connection: Keep-Alive", true),
        ("1.0", "Connection: keep-alive, close", false),
    ] {
        let seen = read(format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n\r\n"));
        assert_eq!(seen.requests[0].keep_alive, keep_alive, "{version} {field}");
    }
}

#[test]
fn targets_are_split_into_path_and_query() {
    for (target, path, query) in [
        ("/", "/", None),
        ("/a/b?c=d&e", "/a/b", Some("c=d&e")),
        ("/a?", "/a", Some("")),
        ("/a?b?c", "/a", Some("b?c")),
        ("/%2F", "/%2F", None),
        ("/?{\"a\":[1]}", "/", Some("{\"a\":[1]}")),
        ("*", "*", None),
        ("http://h:1/a?b", "/a", Some("b")),
        ("HTTPS://h", "", None),
        ("http://h?b", "", Some("b")),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        let mut codec = ServerCodec::new(&Limits::default());
        let event = codec.next_event(&mut text.as_bytes()).unwrap();
        let Some(RequestEvent::Head(head)) = event else { panic!("{target}: {event:?}") };
        assert_eq!((head.target(), head.path(), head.query()), (target, path, query));
    }
}

#[test]
fn fields_are_found_in_any_case_and_the_first_one_wins() {
    let text =
        "GET / HTTP/1.1\r\nHost: h\r\nX-One:  a b \t\r\nx-one: c\r\nEmpty:\r\nUtf8: \u{e4}\r\n\r\n";
    let mut codec = ServerCodec::new(&Limits::default());
    let Some(RequestEvent::Head(head)) = codec.next_event(&mut text.as_bytes()).unwrap() else {
        panic!("no head")
    };
    assert_eq!(head.header("x-ONE"), Some(&b"a b"[..]));
    assert_eq!(head.header_text("EMPTY"), Some(""));
    assert_eq!(head.header_text("utf8"), Some("\u{e4}"));
    assert_eq!(head.header("x-on"), None);
    assert_eq!(head.headers().count(), 5);
    let debug = format!("{head:?}");
    assert!(debug.contains("X-One") && !debug.contains("a b"), "values stay out of logs: {debug}");
}

/// A well-formed request and what has to be read from it.
fn request() -> impl Strategy<Value = (Vec<u8>, SeenRequest)> {
    let headers = prop::collection::vec(("[a-z][a-zA-Z0-9-]{0,8}", "[!-~]{0,12}"), 0..20);
    let body = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..30), 0..5);
    ("[A-Z]{3,7}", "/[a-z0-9/?=&%]{0,30}", headers, body, any::<bool>()).prop_filter_map(
        "fields that mean something to the codec are for the tables",
        |(method, target, headers, body, chunked)| {
            let special = ["host", "expect", "connection", "content-length", "transfer-encoding"];
            let is_special =
                |name: &str| special.iter().any(|word| word.eq_ignore_ascii_case(name));
            if method == "CONNECT" || headers.iter().any(|(name, _)| is_special(name)) {
                return None;
            }
            let mut wire = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
            let mut seen = vec![("Host".to_owned(), b"a".to_vec())];
            for (name, value) in headers {
                wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                seen.push((name, value.into_bytes()));
            }
            let flat = body.concat();
            let length = if chunked {
                wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                seen.push(("Transfer-Encoding".to_owned(), b"chunked".to_vec()));
                for piece in body {
                    wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    wire.extend_from_slice(&piece);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(b"0\r\n\r\n");
                BodyLength::Chunked
            } else {
                wire.extend_from_slice(
                    format!("Content-Length: {}\r\n\r\n", flat.len()).as_bytes(),
                );
                seen.push(("Content-Length".to_owned(), flat.len().to_string().into_bytes()));
                wire.extend_from_slice(&flat);
                BodyLength::Exact(flat.len() as u64)
            };
            let request = SeenRequest {
                line: format!("{method} {target} 1"),
                headers: seen,
                length: Some(length),
                keep_alive: true,
                expects_continue: false,
                body: flat,
                ended: true,
            };
            Some((wire, request))
        },
    )
}

proptest! {
    #![proptest_config(crate::deterministic(64))]

    #[test]
    fn requests_survive_every_split_of_the_stream(
        requests in prop::collection::vec(request(), 1..4),
        pieces in prop::collection::vec(1usize..40, 1..10),
    ) {
        let (wires, expected): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let wire = wires.concat();
        let expected = Seen { requests: expected, error: None };
        let limits = Limits::default();
        prop_assert_eq!(&read_pieces(&limits, [&wire[..]]), &expected);
        prop_assert_eq!(&read_pieces(&limits, wire.chunks(1)), &expected);
        for cut in 1..wire.len() {
            let (front, back) = wire.split_at(cut);
            prop_assert_eq!(&read_pieces(&limits, [front, back]), &expected, "cut at {}", cut);
        }
        let mut rest = &wire[..];
        let uneven = pieces.iter().cycle().map_while(|&bytes| {
            let piece;
            (piece, rest) = rest.split_at(bytes.min(rest.len()));
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(&read_pieces(&limits, uneven), &expected);
    }

    #[test]
    fn a_truncated_request_is_never_taken_for_a_whole_one((wire, _) in request()) {
        for cut in 0..wire.len() {
            let seen = read(&wire[..cut]);
            prop_assert_eq!(seen.error, None);
            prop_assert!(seen.requests.iter().all(|request| !request.ended), "cut at {}", cut);
        }
    }

    /// Bytes changed at random: no panic, and the same verdict however the bytes arrive.
    #[test]
    fn mutations_get_the_same_verdict_whatever_the_split(
        (mut wire, _) in request(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), mutation()), 1..5),
        piece in 1usize..30,
    ) {
        for (index, change) in changes {
            let at = index.index(wire.len());
            match change {
                Mutation::Insert(byte) => wire.insert(at, byte),
                Mutation::Remove => { wire.remove(at); }
                Mutation::Replace(byte) => wire[at] = byte,
            }
        }
        // A refusal may come as soon as the offence is seen, or with the end of the head.
        wire.extend_from_slice(b"\r\n\r\n");
        let whole = read(&wire);
        let split = read_pieces(&Limits::default(), wire.chunks(piece));
        prop_assert_eq!(outcome(&split), outcome(&whole));
        prop_assert_eq!(split.requests, whole.requests);
    }
}

#[derive(Clone, Debug)]
enum Mutation {
    Insert(u8),
    Remove,
    Replace(u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n :,;+-0a\t\0/"[..])];
    prop_oneof![
        byte.clone().prop_map(Mutation::Insert),
        Just(Mutation::Remove),
        byte.prop_map(Mutation::Replace),
    ]
}
