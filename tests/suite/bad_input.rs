//! What bad requests get: the status and error code of each, and a server that goes on as before.
//!
//! One module a kind of badness. Expectations follow the specification; where it leaves a choice,
//! they are what Synapse 1.163 answers, unless that is a 500 or the catch-all `M_UNKNOWN`.

mod bodies;
mod connections;
mod identity;
mod requests;
mod rooms;

use serde_json::json;
use system_tests::matrix::{Person, escape};
use system_tests::server::{Homeserver, Site};

use crate::HOMESERVER;

/// A server with a private room of Alice and Bob, and Mallory outside it.
struct Stage {
    server: Homeserver,
    alice: Person,
    bob: Person,
    mallory: Person,
    /// The room's id, and the start of a path into it.
    room: String,
    path: String,
    /// A message of Alice's in the room.
    event: String,
    // Dropped last: the server runs in it.
    _site: Site,
}

impl Stage {
    fn set() -> Self {
        let site = Site::new(HOMESERVER);
        let server = site.start();
        let [alice, bob, mallory] = ["alice", "bob", "mallory"].map(|name| server.register(name));
        let room = server.create_room_of_two(&alice, &bob);
        let sent = server.send_text(&room, &alice, "first", "hello");
        let event = system_tests::matrix::text(&sent.json(), "event_id");
        let path = format!("rooms/{}", escape(&room));
        Self { server, alice, bob, mallory, room, path, event, _site: site }
    }

    /// Makes every request of the table and compares its outcome; reports all that differ.
    fn check(&self, rows: &[Row<'_>]) {
        let mut differing = Vec::new();
        for row in rows {
            let target = match row.path.strip_prefix('/') {
                Some(_) => row.path.clone(),
                None => format!("/_matrix/client/v3/{}", row.path),
            };
            let token = row.person.map(|person| person.token.as_str());
            let answer = self.server.request(row.method, &target, token, row.body.as_bytes());
            let outcome = answer.outcome();
            if !row.expected.split(" or ").any(|expected| expected == outcome) {
                let Row { why, method, expected, .. } = row;
                differing.push(format!("{why}: {method} {target}: {answer}, not {expected}"));
            }
        }
        assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
        self.assert_well();
    }

    /// The server has not panicked, and two people can still talk.
    fn assert_well(&self) {
        let said = self.server.terminal().transcript();
        assert!(!said.contains("panicked"), "the server panicked:\n{said}");
        let sent = self.server.send_text(&self.room, &self.alice, "well", "still here");
        assert_eq!(sent.outcome(), "200", "{sent}");
        let event = escape(&system_tests::matrix::text(&sent.json(), "event_id"));
        let seen = self.server.get(&format!("{}/event/{event}", self.path), Some(&self.bob));
        assert_eq!(seen.json()["content"]["body"], "still here", "{seen}");
    }
}

/// A request and what it gets.
struct Row<'a> {
    why: &'a str,
    method: &'a str,
    /// Below `/_matrix/client/v3/`, or absolute.
    path: String,
    person: Option<&'a Person>,
    body: String,
    /// As in `403 M_FORBIDDEN`; several joined by ` or ` where the specification leaves a choice.
    expected: &'a str,
}

fn row<'a>(
    why: &'a str,
    method: &'a str,
    path: impl Into<String>,
    person: impl Into<Option<&'a Person>>,
    body: impl ToString,
    expected: &'a str,
) -> Row<'a> {
    let (path, person, body) = (path.into(), person.into(), body.to_string());
    Row { why, method, path, person, body, expected }
}

#[test]
fn the_stage_itself_is_sound() {
    // Guards against tables that pass because everything is refused.
    let stage = Stage::set();
    let Stage { alice, bob, path, .. } = &stage;
    let event = escape(&stage.event);
    stage.check(&[
        row("whoami", "GET", "account/whoami", alice, "", "200"),
        row(
            "send",
            "PUT",
            format!("{path}/send/m.room.message/ok"),
            bob,
            json!({"body": "x", "msgtype": "m.text"}),
            "200",
        ),
        row("state", "GET", format!("{path}/state"), bob, "", "200"),
        row("members", "GET", format!("{path}/members"), bob, "", "200"),
        row("messages", "GET", format!("{path}/messages?dir=b"), bob, "", "200"),
        row("event", "GET", format!("{path}/event/{event}"), bob, "", "200"),
        row("context", "GET", format!("{path}/context/{event}"), bob, "", "200"),
        row(
            "topic",
            "PUT",
            format!("{path}/state/m.room.topic"),
            alice,
            json!({"topic": "x"}),
            "200",
        ),
        row(
            "typing",
            "PUT",
            format!("{path}/typing/{}", escape(&bob.id)),
            bob,
            json!({"typing": true}),
            "200",
        ),
        row("receipt", "POST", format!("{path}/receipt/m.read/{event}"), bob, json!({}), "200"),
        row("redact", "PUT", format!("{path}/redact/{event}/r"), alice, json!({}), "200"),
        row("sync", "GET", "sync?timeout=0", bob, "", "200"),
        row("versions", "GET", "/_matrix/client/versions", None, "", "200"),
    ]);
}
