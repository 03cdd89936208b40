//! Reading over HTTP: sync, history, members, typing and receipts, and what bad requests get.

use std::time::Duration;

use ropewalk::Deferred;
use ropewalk::testing::{assert_no_result, success_result_of};
use ropewalk_http::{ClientRequest, ClientResponse};
use serde_json::{Value, json};

use super::TestServer;

/// A room of alice's with bob in it; percent-encoded, as paths need it.
fn server() -> (TestServer, String) {
    let server = TestServer::new();
    for name in ["alice", "bob", "carol"] {
        server.add_user(name);
    }
    let made = server.ok("POST", "createRoom", "alice", json!({"preset": "public_chat"}));
    let room = made["room_id"].as_str().unwrap().replace('!', "%21");
    server.ok("POST", &format!("join/{room}"), "bob", json!({}));
    (server, room)
}

fn say(server: &TestServer, room: &str, who: &str, body: &str) -> String {
    let content = json!({"msgtype": "m.text", "body": body});
    let path = format!("rooms/{room}/send/m.room.message/{who}-{body}");
    server.ok("PUT", &path, who, content)["event_id"].as_str().unwrap().replace('$', "%24")
}

fn get(server: &TestServer, path: &str, who: &str) -> Value {
    server.ok("GET", path, who, Value::Null)
}

fn start(server: &TestServer, path: &str, who: &str) -> Deferred<ClientResponse> {
    let host = server.address.to_string();
    let path = format!("/_matrix/client/v3/{path}&access_token={who}");
    let request = ClientRequest::new(http::Method::GET, &host, &path).unwrap();
    let answer = server.client.request(request);
    server.clock.pump();
    answer
}

fn finish(server: &TestServer, answer: Deferred<ClientResponse>) -> Value {
    server.clock.pump();
    let body = success_result_of(answer).body.collect(1 << 24);
    server.clock.pump();
    serde_json::from_slice(&success_result_of(body)).unwrap()
}

#[test]
fn a_long_poll_is_answered_by_a_message_and_by_shutdown() {
    let (server, room) = server();
    let first = get(&server, "sync", "bob");
    let since = first["next_batch"].as_str().unwrap();
    let waiting = start(&server, &format!("sync?since={since}&timeout=30000"), "bob");
    assert_no_result(&waiting);
    server.clock.advance(Duration::from_secs(5));
    assert_no_result(&waiting);
    say(&server, &room, "alice", "hello");
    let news = finish(&server, waiting);
    let id = room.replace("%21", "!");
    let section = &news["rooms"]["join"][&id];
    assert_eq!(section["timeline"]["events"][0]["content"]["body"], "hello");
    assert_eq!(section["unread_notifications"]["notification_count"], 1);

    let since = news["next_batch"].as_str().unwrap();
    let waiting = start(&server, &format!("sync?since={since}&timeout=30000"), "bob");
    assert_no_result(&waiting);
    server.homeserver.sync.stop_waiting();
    let nothing = finish(&server, waiting);
    assert_eq!(nothing["rooms"], Value::Null);
}

#[test]
fn history_is_read_over_http() {
    let (server, room) = server();
    let events: Vec<String> =
        ["1", "2", "3"].iter().map(|body| say(&server, &room, "alice", body)).collect();
    let page = get(&server, &format!("rooms/{room}/messages?dir=b&limit=2"), "bob");
    assert_eq!(page["chunk"][0]["content"]["body"], "3");
    let end = page["end"].as_str().unwrap();
    let next = get(&server, &format!("rooms/{room}/messages?dir=b&limit=1&from={end}"), "bob");
    assert_eq!(next["chunk"][0]["content"]["body"], "1");
    let context = get(&server, &format!("rooms/{room}/context/{}?limit=2", events[1]), "bob");
    assert_eq!(context["event"]["content"]["body"], "2");
    assert_eq!(context["events_before"][0]["content"]["body"], "1");
    assert_eq!(context["events_after"][0]["content"]["body"], "3");
    let event = get(&server, &format!("rooms/{room}/event/{}", events[0]), "bob");
    assert_eq!(event["content"]["body"], "1");
    let members = get(&server, &format!("rooms/{room}/members?not_membership=leave"), "bob");
    assert_eq!(members["chunk"].as_array().unwrap().len(), 2);
    let joined = get(&server, &format!("rooms/{room}/joined_members"), "bob");
    assert!(joined["joined"]["@alice:localhost"].is_object());
}

#[test]
fn typing_and_receipts_reach_the_others() {
    let (server, room) = server();
    let event = say(&server, &room, "alice", "news");
    let since = get(&server, "sync", "alice")["next_batch"].as_str().unwrap().to_owned();
    let typing = json!({"typing": true, "timeout": 30000});
    server.ok("PUT", &format!("rooms/{room}/typing/@bob:localhost"), "bob", typing);
    server.ok("POST", &format!("rooms/{room}/receipt/m.read/{event}"), "bob", json!({}));
    let marks = json!({"m.fully_read": event.replace("%24", "$")});
    server.ok("POST", &format!("rooms/{room}/read_markers"), "bob", marks);
    let news = get(&server, &format!("sync?since={since}"), "alice");
    let id = room.replace("%21", "!");
    let events = &news["rooms"]["join"][&id]["ephemeral"]["events"];
    assert_eq!(events[0]["content"]["user_ids"], json!(["@bob:localhost"]));
    let id = event.replace("%24", "$");
    assert!(events[1]["content"][&id]["m.read"]["@bob:localhost"]["ts"].is_number());
    let own = get(&server, "sync", "bob");
    assert!(own.to_string().contains("m.fully_read"));
}

#[test]
fn bad_requests_get_their_errcode() {
    let (server, room) = server();
    let event = say(&server, &room, "alice", "x");
    let r = |rest: &str| format!("rooms/{room}/{rest}");
    let no_room = "rooms/%21none:localhost";
    for (why, method, path, who, body, expected) in [
        ("no token", "GET", "sync".to_owned(), "", json!(null), (401, "M_MISSING_TOKEN")),
        ("a wrong token", "GET", "sync".to_owned(), "x", json!(null), (401, "M_UNKNOWN_TOKEN")),
        ("no since", "GET", "sync?since=x".into(), "bob", json!(null), (400, "M_INVALID_PARAM")),
        ("no time", "GET", "sync?timeout=x".into(), "bob", json!(null), (400, "M_INVALID_PARAM")),
        ("no filter", "GET", "sync?filter=9".into(), "bob", json!(null), (400, "M_INVALID_PARAM")),
        ("no JSON", "GET", "sync?filter=%7Bx".into(), "bob", json!(null), (400, "M_NOT_JSON")),
        (
            "no filter's JSON",
            "GET",
            "sync?filter=%7B%22room%22:7%7D".into(),
            "bob",
            json!(null),
            (400, "M_BAD_JSON"),
        ),
        ("no way", "GET", r("messages"), "bob", json!(null), (400, "M_MISSING_PARAM")),
        ("a wrong way", "GET", r("messages?dir=x"), "bob", json!(null), (400, "M_INVALID_PARAM")),
        (
            "no place",
            "GET",
            r("messages?dir=b&from=x"),
            "bob",
            json!(null),
            (400, "M_INVALID_PARAM"),
        ),
        ("a stranger", "GET", r("messages?dir=b"), "carol", json!(null), (403, "M_FORBIDDEN")),
        (
            "no such room",
            "GET",
            format!("{no_room}/messages?dir=b"),
            "bob",
            json!(null),
            (403, "M_FORBIDDEN"),
        ),
        ("no such event", "GET", r("context/%24none"), "bob", json!(null), (404, "M_NOT_FOUND")),
        ("no such event", "GET", r("event/%24none"), "bob", json!(null), (404, "M_NOT_FOUND")),
        (
            "a stranger's event",
            "GET",
            r(&format!("event/{event}")),
            "carol",
            json!(null),
            (404, "M_NOT_FOUND"),
        ),
        (
            "a stranger's context",
            "GET",
            r(&format!("context/{event}")),
            "carol",
            json!(null),
            (403, "M_FORBIDDEN"),
        ),
        ("a stranger", "GET", r("members"), "carol", json!(null), (403, "M_FORBIDDEN")),
        ("a stranger", "GET", r("joined_members"), "carol", json!(null), (403, "M_FORBIDDEN")),
        (
            "no membership",
            "GET",
            r("members?membership=x"),
            "bob",
            json!(null),
            (400, "M_INVALID_PARAM"),
        ),
        (
            "typing for another",
            "PUT",
            r("typing/@alice:localhost"),
            "bob",
            json!({"typing": true, "timeout": 1}),
            (403, "M_FORBIDDEN"),
        ),
        (
            "typing elsewhere",
            "PUT",
            r("typing/@carol:localhost"),
            "carol",
            json!({"typing": true, "timeout": 1}),
            (403, "M_FORBIDDEN"),
        ),
        (
            "no word about typing",
            "PUT",
            r("typing/@bob:localhost"),
            "bob",
            json!({}),
            (400, "M_MISSING_PARAM"),
        ),
        (
            "no such receipt",
            "POST",
            r(&format!("receipt/m.seen/{event}")),
            "bob",
            json!({}),
            (400, "M_INVALID_PARAM"),
        ),
        (
            "a stranger's receipt",
            "POST",
            r(&format!("receipt/m.read/{event}")),
            "carol",
            json!({}),
            (403, "M_FORBIDDEN"),
        ),
    ] {
        let (status, errcode) = server.refused(method, &path, who, body);
        assert_eq!((status, errcode.as_str()), expected, "{why}: {method} {path}");
    }
}
