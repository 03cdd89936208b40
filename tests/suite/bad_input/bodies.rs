//! Bodies that are no JSON, the wrong JSON, or too much of it.

use serde_json::{Value, json};
use system_tests::http::NoAnswer;
use system_tests::matrix::escape;

use super::{Stage, row};

/// An event's limit in bytes, in federation format; the specification's 65,536 less the one that
/// ruma's checks leave out.
const EVENT_BYTES_MAX: usize = 65_535;

#[test]
fn what_is_not_json_is_said_to_be_not_json() {
    let stage = Stage::set();
    let alice = &stage.alice;
    let send = |transaction: &str| format!("{}/send/m.room.message/{transaction}", stage.path);
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"msgtype": "m.text", "body": "x", "nest": {open}{close}}}"#)
    };
    stage.check(&[
        row("cut off", "POST", "login", None, r#"{"type":"#, "400 M_NOT_JSON"),
        row("nothing", "POST", "login", None, "", "400 M_MISSING_PARAM"),
        row("no JSON at all", "POST", "login", None, "type=m.login.password", "400 M_NOT_JSON"),
        row(
            "something behind it",
            "PUT",
            send("a"),
            alice,
            r#"{"msgtype": "m.text", "body": "x"} x"#,
            "400 M_NOT_JSON",
        ),
        row(
            "no number",
            "PUT",
            send("b"),
            alice,
            r#"{"msgtype": "m.text", "body": NaN}"#,
            "400 M_NOT_JSON",
        ),
        row(
            "half a surrogate",
            "PUT",
            send("c"),
            alice,
            r#"{"msgtype": "m.text", "body": "\ud800"}"#,
            "400 M_NOT_JSON",
        ),
        row(
            "a raw control character",
            "PUT",
            send("d"),
            alice,
            "{\"body\": \"\u{1}\"}",
            "400 M_NOT_JSON",
        ),
        row("deep", "PUT", send("e"), alice, nested(1_000), "400 M_BAD_JSON"),
        row("deeper than any stack", "PUT", send("f"), alice, nested(25_000), "400 M_BAD_JSON"),
        row("deep, but fine", "PUT", send("g"), alice, nested(50), "200"),
    ]);
    let bad_utf8 = b"{\"msgtype\": \"m.text\", \"body\": \"\xff\xfe\"}";
    let target = format!("/_matrix/client/v3/{}", send("h"));
    let answer = stage.server.request("PUT", &target, Some(&alice.token), bad_utf8);
    assert_eq!(answer.outcome(), "400 M_NOT_JSON");
}

#[test]
fn json_of_the_wrong_shape_is_bad_json() {
    let stage = Stage::set();
    let Stage { alice, bob, path, .. } = &stage;
    let send = |transaction: &str| format!("{path}/send/m.room.message/{transaction}");
    let login = |password: Value| {
        json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": password,
        })
    };
    let register = |name: Value, password: Value| json!({"username": name, "password": password, "auth": {"type": "m.login.dummy"}});
    let create = |body: Value| ("POST", "createRoom", alice, body, "400 M_BAD_JSON");
    let mut rows = vec![
        row("an array", "POST", "createRoom", alice, "[]", "400 M_BAD_JSON"),
        row("a string", "POST", "createRoom", alice, "\"x\"", "400 M_BAD_JSON"),
        row("an array as content", "PUT", send("a"), alice, "[]", "400 M_BAD_JSON"),
        row(
            "a fraction",
            "PUT",
            send("b"),
            alice,
            r#"{"msgtype": "m.text", "body": "x", "n": 1.5}"#,
            "400 M_BAD_JSON",
        ),
        row(
            "an exponent",
            "PUT",
            send("c"),
            alice,
            r#"{"msgtype": "m.text", "body": "x", "n": 1e400}"#,
            "400 M_NOT_JSON",
        ),
        row(
            "2^53",
            "PUT",
            send("d"),
            alice,
            r#"{"msgtype": "m.text", "body": "x", "n": 9007199254740992}"#,
            "400 M_BAD_JSON",
        ),
        row(
            "-(2^53)",
            "PUT",
            send("e"),
            alice,
            r#"{"msgtype": "m.text", "body": "x", "n": -9007199254740992}"#,
            "400 M_BAD_JSON",
        ),
        row(
            "a fraction in state",
            "PUT",
            format!("{path}/state/org.x"),
            alice,
            r#"{"n": 0.5}"#,
            "400 M_BAD_JSON",
        ),
        row(
            "the largest integer",
            "PUT",
            send("f"),
            alice,
            r#"{"msgtype": "m.text", "body": "x", "n": 9007199254740991}"#,
            "200",
        ),
        row("login: password", "POST", "login", None, login(json!(5)), "400 M_BAD_JSON"),
        row(
            "register: name",
            "POST",
            "register",
            None,
            register(json!(5), json!("long enough")),
            "400 M_BAD_JSON",
        ),
        row(
            "register: password",
            "POST",
            "register",
            None,
            register(json!("eve"), json!(5)),
            "400 M_BAD_JSON",
        ),
        row(
            "register: auth",
            "POST",
            "register",
            None,
            json!({"username": "eve", "password": "long enough", "auth": "x"}),
            "400 M_BAD_JSON",
        ),
        row(
            "invite: id",
            "POST",
            format!("{path}/invite"),
            alice,
            json!({"user_id": 5}),
            "400 M_BAD_JSON",
        ),
        row(
            "typing: flag",
            "PUT",
            format!("{path}/typing/{}", escape(&bob.id)),
            bob,
            json!({"typing": "yes"}),
            "400 M_BAD_JSON",
        ),
        row(
            "display name",
            "PUT",
            format!("profile/{}/displayname", escape(&alice.id)),
            alice,
            json!({"displayname": 5}),
            "400 M_BAD_JSON",
        ),
        row(
            "filter",
            "POST",
            format!("user/{}/filter", escape(&alice.id)),
            alice,
            json!({"room": {"timeline": {"limit": "x"}}}),
            "400 M_BAD_JSON",
        ),
    ];
    for (why, body) in [
        ("create: name", json!({"name": 5})),
        ("create: invite", json!({"invite": "@bob:ropewalk.test"})),
        ("create: initial state", json!({"initial_state": "x"})),
        ("create: preset", json!({"preset": 5})),
        ("create: version", json!({"room_version": 12})),
    ] {
        let (method, path, person, body, expected) = create(body);
        rows.push(row(why, method, path, person, body, expected));
    }
    stage.check(&rows);
}

#[test]
fn events_over_the_limit_are_too_large() {
    let stage = Stage::set();
    let Stage { alice, path, .. } = &stage;
    let send = |transaction: &str| format!("{path}/send/m.room.message/{transaction}");
    let message = |bytes: usize| json!({"msgtype": "m.text", "body": "x".repeat(bytes)});
    let long = |bytes: usize| "k".repeat(bytes);
    stage.check(&[
        row("a large message", "PUT", send("a"), alice, message(64_000), "200"),
        row(
            "a message over the limit",
            "PUT",
            send("b"),
            alice,
            message(EVENT_BYTES_MAX),
            "413 M_TOO_LARGE",
        ),
        row("the same again", "PUT", send("b"), alice, message(EVENT_BYTES_MAX), "413 M_TOO_LARGE"),
        row(
            "short characters, long escapes",
            "PUT",
            send("c"),
            alice,
            json!({"msgtype": "m.text", "body": "\u{1}".repeat(12_000)}),
            "413 M_TOO_LARGE",
        ),
        row(
            "a topic over the limit",
            "PUT",
            format!("{path}/state/m.room.topic"),
            alice,
            json!({"topic": long(EVENT_BYTES_MAX)}),
            "413 M_TOO_LARGE",
        ),
        row(
            "a long type",
            "PUT",
            format!("{path}/send/{}/d", long(256)),
            alice,
            json!({}),
            "413 M_TOO_LARGE",
        ),
        row(
            "the longest type",
            "PUT",
            format!("{path}/send/{}/e", long(255)),
            alice,
            json!({}),
            "200",
        ),
        row(
            "a long state key",
            "PUT",
            format!("{path}/state/org.x/{}", long(256)),
            alice,
            json!({}),
            "413 M_TOO_LARGE",
        ),
        row(
            "the longest state key",
            "PUT",
            format!("{path}/state/org.x/{}", long(255)),
            alice,
            json!({}),
            "200",
        ),
        row(
            "a room whose topic is over the limit",
            "POST",
            "createRoom",
            alice,
            json!({"topic": long(EVENT_BYTES_MAX)}),
            "413 M_TOO_LARGE",
        ),
    ]);
    // A refused message leaves nothing behind.
    let page = stage.server.get(&format!("{path}/messages?dir=b&limit=100"), Some(alice)).json();
    let sizes = page["chunk"].as_array().unwrap().iter().map(|event| event.to_string().len());
    assert!(sizes.max().unwrap() < EVENT_BYTES_MAX + 1_000);
}

#[test]
fn the_limit_is_exact_and_counts_the_whole_event() {
    let stage = Stage::set();
    let send = |transaction: usize, bytes: usize| {
        let body = "x".repeat(bytes);
        stage.server.send_text(&stage.room, &stage.alice, &format!("size{transaction}"), &body)
    };
    // The frame around the body is not ours to know; find the last size that passes.
    let (mut fits, mut too_large) = (60_000, EVENT_BYTES_MAX);
    while too_large - fits > 1 {
        let middle = usize::midpoint(fits, too_large);
        match send(middle, middle).outcome().as_str() {
            "200" => fits = middle,
            "413 M_TOO_LARGE" => too_large = middle,
            other => panic!("{middle} bytes: {other}"),
        }
    }
    // A message's frame: ids, hashes, a signature, some references.
    let frame = EVENT_BYTES_MAX - fits;
    assert!((500..2_500).contains(&frame), "a frame of {frame} bytes");
    stage.assert_well();
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let stage = Stage::set();
    let target = format!("/_matrix/client/v3/{}/send/m.room.message/a", stage.path);
    let head = format!(
        "PUT {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n",
        stage.alice.token
    );

    let mut connection = stage.server.connect();
    connection.send(format!("{head}Content-Length: 10000000000\r\n\r\n").as_bytes());
    let answer = connection.answer();
    assert_eq!(answer.outcome(), "413 M_TOO_LARGE", "announced");
    assert_eq!(connection.read_to_end().map(|rest| rest.len()), Ok(0), "and closed");

    // Who asks first is told before anything is sent.
    let mut connection = stage.server.connect();
    let ask = format!("{head}Content-Length: 10000000000\r\nExpect: 100-continue\r\n\r\n");
    connection.send(ask.as_bytes());
    assert_eq!(connection.answer().outcome(), "413 M_TOO_LARGE", "asked first");

    // Nothing announced: cut off when the limit is passed.
    let mut connection = stage.server.connect();
    connection.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes());
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..2_000 {
        // Errors are not looked at: the server may have closed by now, which is the point.
        connection.send(chunk.as_bytes());
    }
    match connection.try_answer("PUT") {
        Ok(answer) => assert_eq!(answer.outcome(), "413 M_TOO_LARGE", "chunked"),
        // A reset may overtake the answer when bytes were still under way.
        Err(ended) => assert_eq!(ended, NoAnswer::Closed),
    }
    stage.assert_well();
}
