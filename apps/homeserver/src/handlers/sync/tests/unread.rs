//! Counts of what has not been read.

use ruma::{OwnedEventId, OwnedRoomId, user_id};
use serde_json::{Value, json};

use super::world::{Device, joined, room_of_two, say_many};
use crate::events::tests::rooms::{Server, object, user};
use crate::model::EventDraft;
use crate::storage::databases::main::{push_rules, receipts};

fn counts(body: &Value, room: &OwnedRoomId) -> (u64, u64) {
    let unread = &joined(body, room)["unread_notifications"];
    let count = |name: &str| unread[name].as_u64().expect(name);
    (count("notification_count"), count("highlight_count"))
}

fn send(server: &mut Server, room: &OwnedRoomId, content: Value) -> OwnedEventId {
    let draft = EventDraft::message(user("alice"), "m.room.message", object(content));
    server.send(room, draft).unwrap().event_id
}

fn read(server: &mut Server, room: &OwnedRoomId, receipt_type: &'static str, event: &OwnedEventId) {
    let (room, event) = (room.clone(), event.clone());
    server
        .database
        .write(move |txn| {
            receipts::set(txn, &room, receipt_type, user_id!("@bob:domain"), "", &event, 1)
        })
        .unwrap();
}

#[test]
fn messages_count_until_they_are_read_or_answered() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let mut bob = Device::new("bob");
    assert_eq!(counts(&bob.sync(&server), &room), (0, 0), "what came before he joined");
    say_many(&mut server, &room, "alice", 3);
    assert_eq!(counts(&bob.sync(&server), &room), (3, 0));
    let fourth = server.say(&room, "alice", "four").unwrap().event_id;
    assert_eq!(counts(&bob.sync(&server), &room), (4, 0), "counted on");
    server.say(&room, "alice", "five").unwrap();
    read(&mut server, &room, "m.read", &fourth);
    assert_eq!(counts(&bob.sync(&server), &room), (1, 0), "read up to the fourth");
    server.say(&room, "bob", "answer").unwrap();
    assert_eq!(counts(&bob.sync(&server), &room), (0, 0), "answered");
    let last = server.say(&room, "alice", "last").unwrap().event_id;
    assert_eq!(counts(&bob.sync(&server), &room), (1, 0));
    read(&mut server, &room, "m.read.private", &last);
    assert_eq!(counts(&bob.sync(&server), &room), (0, 0), "read in private");
    // A device that knows nothing is told the same.
    server.say(&room, "alice", "more").unwrap();
    assert_eq!(counts(&Device::new("bob").sync(&server), &room), (1, 0));
    assert_eq!(counts(&Device::new("alice").sync(&server), &room), (0, 0), "her own words");
}

#[test]
fn push_rules_decide_what_counts() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let mut bob = Device::new("bob");
    bob.sync(&server);
    send(&mut server, &room, json!({"msgtype": "m.notice", "body": "beep"}));
    assert_eq!(counts(&bob.sync(&server), &room), (0, 0), "notices do not");
    let mention = json!({
        "msgtype": "m.text", "body": "bob!", "m.mentions": {"user_ids": ["@bob:domain"]},
    });
    send(&mut server, &room, mention);
    assert_eq!(counts(&bob.sync(&server), &room), (1, 1), "a mention stands out");
    let everybody = json!({"msgtype": "m.text", "body": "@room", "m.mentions": {"room": true}});
    send(&mut server, &room, everybody);
    assert_eq!(counts(&bob.sync(&server), &room), (2, 2), "the creator may call everybody");
    let muted = json!({"override": [{
        "rule_id": room, "default": false, "enabled": true, "actions": [],
        "conditions": [{"kind": "event_match", "key": "room_id", "pattern": room}],
    }]});
    server
        .database
        .write(move |txn| push_rules::set(txn, user_id!("@bob:domain"), &muted.to_string()))
        .unwrap();
    server.say(&room, "alice", "quiet").unwrap();
    assert_eq!(counts(&bob.sync(&server), &room).1, 0, "a muted room");
}

#[test]
fn very_many_unread_messages_are_counted_up_to_a_bound() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    Device::new("bob").sync(&server);
    say_many(&mut server, &room, "alice", 250);
    assert_eq!(counts(&Device::new("bob").sync(&server), &room), (200, 0));
}
