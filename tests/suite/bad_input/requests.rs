//! Requests that lead nowhere, browsers asking first, and bytes that are no HTTP.

use serde_json::json;
use system_tests::http::{Connection, NoAnswer};
use system_tests::matrix::escape;

use super::{Stage, row};

#[test]
fn unknown_endpoints_and_wrong_methods_are_told_apart() {
    let stage = Stage::set();
    let Stage { alice, path, .. } = &stage;
    stage.check(&[
        row("unknown", "GET", "nope", alice, "", "404 M_UNRECOGNIZED"),
        row("unknown, nobody asks", "GET", "nope", None, "", "404 M_UNRECOGNIZED"),
        row("unknown version", "GET", "/_matrix/client/v9/sync", alice, "", "404 M_UNRECOGNIZED"),
        row("unknown API", "GET", "/_matrix/nope", None, "", "404 M_UNRECOGNIZED"),
        row("elsewhere", "GET", "/index.php", None, "", "404 M_UNRECOGNIZED"),
        row("too much", "GET", "account/whoami/really", alice, "", "404 M_UNRECOGNIZED"),
        row("two slashes", "GET", "account//whoami", alice, "", "404 M_UNRECOGNIZED"),
        row("dots", "GET", "account/../account/whoami", alice, "", "404 M_UNRECOGNIZED"),
        row("DELETE sync", "DELETE", "sync", alice, "", "405 M_UNRECOGNIZED"),
        row("GET createRoom", "GET", "createRoom", alice, "", "405 M_UNRECOGNIZED"),
        row("POST whoami", "POST", "account/whoami", alice, json!({}), "405 M_UNRECOGNIZED"),
        row("PATCH login", "PATCH", "login", None, json!({}), "405 M_UNRECOGNIZED"),
        row(
            "PUT messages",
            "PUT",
            format!("{path}/messages"),
            alice,
            json!({}),
            "405 M_UNRECOGNIZED",
        ),
        row("an invented method", "BREW", "sync", alice, "", "405 M_UNRECOGNIZED"),
        row("a bad escape", "GET", "rooms/%zz/state", alice, "", "400 M_INVALID_PARAM"),
        row(
            "bytes that are no text",
            "GET",
            "rooms/%ff%fe/state",
            alice,
            "",
            "400 M_INVALID_PARAM",
        ),
        row("a zero byte", "GET", "rooms/%00/state", alice, "", "400 M_INVALID_PARAM"),
    ]);
}

#[test]
fn parameters_are_checked() {
    let stage = Stage::set();
    let Stage { alice, bob, path, .. } = &stage;
    let event = escape(&stage.event);
    stage.check(&[
        row("a timeout of letters", "GET", "sync?timeout=abc", alice, "", "400 M_INVALID_PARAM"),
        row("a negative timeout", "GET", "sync?timeout=-1", alice, "", "400 M_INVALID_PARAM"),
        row(
            "an invented token",
            "GET",
            "sync?timeout=0&since=junk",
            alice,
            "",
            "400 M_INVALID_PARAM",
        ),
        row("a filter cut off", "GET", "sync?timeout=0&filter=%7B", alice, "", "400 M_NOT_JSON"),
        row(
            "a filter of nobody",
            "GET",
            "sync?timeout=0&filter=99999",
            alice,
            "",
            "400 M_INVALID_PARAM",
        ),
        row(
            "a direction sideways",
            "GET",
            format!("{path}/messages?dir=x"),
            alice,
            "",
            "400 M_INVALID_PARAM",
        ),
        row(
            "a limit of letters",
            "GET",
            format!("{path}/messages?dir=b&limit=abc"),
            alice,
            "",
            "400 M_INVALID_PARAM",
        ),
        row(
            "a negative limit",
            "GET",
            format!("{path}/messages?dir=b&limit=-1"),
            alice,
            "",
            "400 M_INVALID_PARAM",
        ),
        row(
            "an invented page",
            "GET",
            format!("{path}/messages?dir=b&from=junk"),
            alice,
            "",
            "400 M_INVALID_PARAM",
        ),
        row(
            "an enormous limit",
            "GET",
            format!("{path}/messages?dir=b&limit=1000000000"),
            alice,
            "",
            "200",
        ),
        row(
            "an invented receipt",
            "POST",
            format!("{path}/receipt/m.sideways/{event}"),
            bob,
            json!({}),
            "400 M_INVALID_PARAM",
        ),
        row(
            "nobody is invited",
            "POST",
            format!("{path}/invite"),
            alice,
            json!({}),
            "400 M_BAD_JSON",
        ),
        row(
            "nobody is kicked",
            "POST",
            format!("{path}/kick"),
            alice,
            json!({}),
            "400 M_MISSING_PARAM",
        ),
        row("available: who?", "GET", "register/available", None, "", "400 M_MISSING_PARAM"),
        row(
            "login of an invented kind",
            "POST",
            "login",
            None,
            json!({"type": "m.login.magic"}),
            "400 M_UNKNOWN or 400 M_INVALID_PARAM",
        ),
        row("login of no kind", "POST", "login", None, json!({}), "400 M_MISSING_PARAM"),
        row(
            "an invented preset",
            "POST",
            "createRoom",
            alice,
            json!({"preset": "throne_room"}),
            "400 M_INVALID_PARAM",
        ),
    ]);
}

#[test]
fn browsers_may_ask_first_and_read_every_answer() {
    let stage = Stage::set();
    for target in ["/_matrix/client/v3/sync", "/_matrix/client/v3/login", "/_matrix/client/v3/nope"]
    {
        let answer = stage.server.request("OPTIONS", target, None, b"");
        assert!(matches!(answer.status, 200 | 204), "{target}: {answer}");
        assert_cors(target, &answer);
    }
    for (method, target, status) in [
        ("GET", "/_matrix/client/versions", 200),
        ("GET", "/_matrix/client/v3/account/whoami", 401),
        ("GET", "/_matrix/client/v3/nope", 404),
        ("DELETE", "/_matrix/client/v3/sync", 405),
    ] {
        let answer = stage.server.request(method, target, None, b"");
        assert_eq!(answer.status, status, "{target}: {answer}");
        assert_cors(target, &answer);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{target}");
    }
    let get = stage.server.request("GET", "/_matrix/client/versions", None, b"");
    let head = stage.server.request("HEAD", "/_matrix/client/versions", None, b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
}

fn assert_cors(target: &str, answer: &system_tests::http::Answer) {
    let list = |name: &str| {
        let text = answer.header(name).unwrap_or_else(|| panic!("{target}: no {name}"));
        let mut list: Vec<String> =
            text.split(',').map(|part| part.trim().to_lowercase()).collect();
        list.sort();
        list
    };
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{target}");
    for method in ["get", "post", "put", "delete", "options"] {
        assert!(list("access-control-allow-methods").contains(&method.to_owned()), "{method}");
    }
    for field in ["x-requested-with", "content-type", "authorization"] {
        assert!(list("access-control-allow-headers").contains(&field.to_owned()), "{field}");
    }
}

/// Sends bytes and returns the statuses of all answers until the server closes.
fn statuses(mut connection: Connection, bytes: &[u8]) -> Vec<u16> {
    connection.send(bytes);
    let mut statuses = Vec::new();
    loop {
        match connection.try_answer("GET") {
            Ok(answer) => statuses.push(answer.status),
            Err(NoAnswer::Closed) => return statuses,
            Err(NoAnswer::Silence) => panic!("neither answered nor closed after {statuses:?}"),
        }
    }
}

#[test]
fn a_request_cannot_be_smuggled_behind_another() {
    let stage = Stage::set();
    let post = "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\n";
    let hidden = "GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n\r\n";
    for (why, request, expected) in [
        (
            "both lengths",
            format!(
                "{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            400,
        ),
        (
            "two lengths",
            format!("{post}Content-Length: 2\r\nContent-Length: 10\r\n\r\n{{}}{hidden}"),
            400,
        ),
        ("a list of lengths", format!("{post}Content-Length: 2, 10\r\n\r\n{{}}{hidden}"), 400),
        ("a signed length", format!("{post}Content-Length: +2\r\n\r\n{{}}{hidden}"), 400),
        ("a negative length", format!("{post}Content-Length: -2\r\n\r\n{{}}{hidden}"), 400),
        ("a hexadecimal length", format!("{post}Content-Length: 0x2\r\n\r\n{{}}{hidden}"), 400),
        (
            "a length beyond counting",
            format!("{post}Content-Length: 99999999999999999999\r\n\r\n{hidden}"),
            400,
        ),
        ("no chunks at all", format!("{post}Transfer-Encoding: cow\r\n\r\n{hidden}"), 400),
        (
            "an unknown coding",
            format!("{post}Transfer-Encoding: cow, chunked\r\n\r\n0\r\n\r\n{hidden}"),
            400,
        ),
        (
            "chunked is not last",
            format!("{post}Transfer-Encoding: chunked, gzip\r\n\r\n{hidden}"),
            400,
        ),
        (
            "chunked twice",
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
            400,
        ),
        (
            "a disguised coding",
            format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
            400,
        ),
        (
            "a folded coding",
            format!("{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{hidden}"),
            400,
        ),
        (
            "a chunk of no size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\n{hidden}"),
            400,
        ),
        (
            "a chunk of negative size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n{hidden}"),
            400,
        ),
        (
            "a chunk beyond counting",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{hidden}"),
            400,
        ),
        (
            "a chunk longer than its size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n{hidden}"),
            400,
        ),
        (
            "bare line feeds",
            "GET /_matrix/client/versions HTTP/1.1\nHost: x\n\n".to_owned() + hidden,
            400,
        ),
        (
            "a bare line feed in the head",
            format!("{post}A: b\nContent-Length: 0\r\n\r\n{hidden}"),
            400,
        ),
        ("a bare carriage return", format!("{post}A: b\rContent-Length: 0\r\n\r\n{hidden}"), 400),
        ("a zero byte in a value", format!("{post}A: b\0c\r\n\r\n{hidden}"), 400),
        (
            "a space before the first field",
            format!("GET /_matrix/client/versions HTTP/1.1\r\n Host: x\r\n\r\n{hidden}"),
            400,
        ),
        ("no host", format!("GET /_matrix/client/versions HTTP/1.1\r\n\r\n{hidden}"), 400),
        (
            "two hosts",
            format!("GET /_matrix/client/versions HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{hidden}"),
            400,
        ),
        ("no version", format!("GET /_matrix/client/versions\r\n\r\n{hidden}"), 400),
        (
            "a version to come",
            format!("GET /_matrix/client/versions HTTP/3.0\r\nHost: x\r\n\r\n{hidden}"),
            505,
        ),
        ("no HTTP at all", format!("\u{16}\u{3}\u{1}\r\n\r\n{hidden}"), 400),
    ] {
        let statuses = statuses(stage.server.connect(), request.as_bytes());
        assert_eq!(statuses, [expected], "{why}: one answer, then closed");
    }
    // The same bytes in their proper form are two requests.
    let proper = format!("{post}Content-Length: 2\r\n\r\n{{}}{hidden}");
    let mut connection = stage.server.connect();
    connection.send(proper.as_bytes());
    assert_eq!([connection.answer().status, connection.answer().status], [400, 200]);
    stage.assert_well();
}

#[test]
fn heads_have_limits() {
    let stage = Stage::set();
    let get = "GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n";
    let long = "x".repeat(1 << 20);
    let many: String = (0..5_000).map(|number| format!("A{number}: b\r\n")).collect();
    for (why, request, expected) in [
        ("a long field", format!("{get}A: {long}\r\n\r\n"), 431),
        ("many fields", format!("{get}{many}\r\n"), 431),
        ("a head without end", format!("{get}{many}"), 431),
        ("a long target", format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414),
    ] {
        let mut connection = stage.server.connect();
        connection.send(request.as_bytes());
        match connection.try_answer("GET") {
            Ok(answer) if expected == 414 => {
                assert!([414, 431].contains(&answer.status), "{why}: {answer}")
            }
            Ok(answer) => assert_eq!(answer.status, expected, "{why}: {answer}"),
            // Closing with bytes unread resets, and a reset may overtake the answer.
            Err(ended) => assert_eq!(ended, NoAnswer::Closed, "{why}"),
        }
    }
    stage.assert_well();
}

#[test]
fn a_request_may_come_one_byte_at_a_time() {
    let stage = Stage::set();
    let mut connection = stage.server.connect();
    let body = json!({"msgtype": "m.text", "body": "slowly"}).to_string();
    let request = format!(
        "PUT /_matrix/client/v3/{}/send/m.room.message/slow HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        stage.path,
        stage.alice.token,
        body.len(),
    );
    for byte in request.as_bytes() {
        connection.send(&[*byte]);
    }
    assert_eq!(connection.answer().outcome(), "200");
    stage.assert_well();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let stage = Stage::set();
    let mut connection = stage.server.connect();
    let token = Some(stage.alice.token.as_str());
    for number in 0..50 {
        let target = format!("/_matrix/client/v3/{}/send/m.room.message/p{number}", stage.path);
        let body = json!({"msgtype": "m.text", "body": format!("piped {number}")}).to_string();
        connection.request("PUT", &target, token, body.as_bytes());
        connection.request("GET", "/_matrix/client/v3/nope", None, b"");
    }
    for _ in 0..50 {
        assert_eq!(connection.answer().outcome(), "200");
        assert_eq!(connection.answer().outcome(), "404 M_UNRECOGNIZED");
    }
    let page =
        stage.server.get(&format!("{}/messages?dir=b&limit=50", stage.path), Some(&stage.bob));
    let page = page.json();
    let said: Vec<&str> = page["chunk"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["content"]["body"].as_str())
        .collect();
    let expected: Vec<String> = (0..50).rev().map(|number| format!("piped {number}")).collect();
    assert_eq!(said, expected);
}
