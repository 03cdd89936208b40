//! Lazily loaded members.

use ruma::OwnedRoomId;
use serde_json::{Value, json};

use super::world::{Device, joined, members, room_of_two, set};
use crate::events::tests::rooms::Server;

fn lazy(redundant: bool) -> Device {
    Device::new("bob").with_filter(json!({"room": {
        "state": {"lazy_load_members": true, "include_redundant_members": redundant},
        "timeline": {"limit": 1},
    }}))
}

/// A room with a name, so that it has no heroes, and alice, bob, carol and dave in it.
fn crowd() -> (Server, OwnedRoomId) {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    for name in ["carol", "dave"] {
        server.member(&room, name, name, "join").unwrap();
    }
    set(&mut server, &room, "m.room.name", json!({"name": "crowd"}));
    (server, room)
}

fn sent(body: &Value, room: &OwnedRoomId) -> Vec<String> {
    members(&joined(body, room)["state"]["events"])
}

#[test]
fn only_who_speaks_is_sent_and_only_once() {
    let (mut server, room) = crowd();
    server.say(&room, "carol", "hello").unwrap();
    let mut bob = lazy(false);
    let body = bob.sync(&server);
    assert_eq!(sent(&body, &room), ["@bob:domain", "@carol:domain"], "the speaker, and himself");
    server.say(&room, "dave", "hi").unwrap();
    assert_eq!(sent(&bob.sync(&server), &room), ["@dave:domain"]);
    server.say(&room, "carol", "again").unwrap();
    server.say(&room, "dave", "again").unwrap();
    assert_eq!(sent(&bob.sync(&server), &room), Vec::<String>::new(), "known");
}

#[test]
fn redundant_members_are_sent_each_time() {
    let (mut server, room) = crowd();
    let mut bob = lazy(true);
    server.say(&room, "carol", "hello").unwrap();
    bob.sync(&server);
    server.say(&room, "carol", "again").unwrap();
    assert_eq!(sent(&bob.sync(&server), &room), ["@carol:domain"]);
}

#[test]
fn a_response_that_got_lost_is_repeated_with_its_members() {
    let (mut server, room) = crowd();
    let mut bob = lazy(false);
    bob.sync(&server);
    server.say(&room, "dave", "hi").unwrap();
    let (first, _) = bob.ask(&server);
    let (second, _) = bob.ask(&server);
    assert_eq!(sent(&first, &room), ["@dave:domain"]);
    assert_eq!(sent(&second, &room), ["@dave:domain"]);
}

#[test]
fn a_gap_brings_every_member_that_changed_in_it() {
    let (mut server, room) = crowd();
    let mut bob = lazy(false);
    bob.sync(&server);
    server.member(&room, "erin", "erin", "join").unwrap();
    server.member(&room, "dave", "dave", "leave").unwrap();
    server.say(&room, "alice", "1").unwrap();
    let body = bob.sync(&server);
    assert_eq!(sent(&body, &room), ["@dave:domain", "@erin:domain"]);
    assert_eq!(joined(&body, &room)["summary"]["m.joined_member_count"], 4);
}

#[test]
fn heroes_of_a_room_without_a_name_are_sent() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    server.say(&room, "bob", "alone").unwrap();
    let mut bob = lazy(false);
    let body = bob.sync(&server);
    assert_eq!(joined(&body, &room)["summary"]["m.heroes"], json!(["@alice:domain"]));
    assert_eq!(sent(&body, &room), ["@alice:domain", "@bob:domain"]);
}
