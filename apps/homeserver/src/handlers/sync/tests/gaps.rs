//! Timelines that do not reach back to where the client was.

use serde_json::json;

use super::world::{Device, bodies, entries, joined, members, room_of_two, say_many, set};
use crate::events::tests::rooms::Server;
use crate::handlers::sync::StateBlock;
use crate::model::RoomVersion;

fn limited_to(limit: usize) -> Device {
    Device::new("bob").with_filter(json!({"room": {"timeline": {"limit": limit}}}))
}

#[test]
fn a_timeline_is_limited_only_if_something_is_left_out() {
    for (said, limit, limited, expected) in [
        (2, 3, false, vec!["1", "2"]),
        (3, 3, false, vec!["1", "2", "3"]),
        (4, 3, true, vec!["2", "3", "4"]),
        (1, 0, true, vec![]),
        (0, 3, false, vec![]),
    ] {
        let mut server = Server::new();
        let room = room_of_two(&mut server);
        let mut bob = limited_to(limit);
        bob.sync(&server);
        say_many(&mut server, &room, "alice", said);
        let (body, answer) = bob.ask(&server);
        assert_eq!(answer.is_empty, said == 0);
        if said == 0 {
            continue;
        }
        let timeline = &joined(&body, &room)["timeline"];
        assert_eq!(timeline["limited"], limited, "{said} said, limit {limit}");
        assert_eq!(bodies(&timeline["events"]), expected);
    }
}

#[test]
fn state_changed_in_the_gap_stands_beside_the_timeline() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    set(&mut server, &room, "m.room.name", json!({"name": "first"}));
    let mut bob = limited_to(2);
    let mut after = Device::new("bob")
        .with_filter(json!({"room": {"timeline": {"limit": 2}}}))
        .with_block(StateBlock::AfterTimeline);
    bob.sync(&server);
    after.sync(&server);
    set(&mut server, &room, "m.room.name", json!({"name": "second"}));
    set(&mut server, &room, "m.room.topic", json!({"topic": "gap"}));
    server.member(&room, "carol", "carol", "join").unwrap();
    server.say(&room, "alice", "1").unwrap();
    set(&mut server, &room, "m.room.name", json!({"name": "third"}));

    let body = bob.sync(&server);
    let section = joined(&body, &room);
    assert_eq!(entries(&section["timeline"]["events"]).len(), 2);
    let state = section["state"]["events"].as_array().unwrap();
    let name = state.iter().find(|event| event["type"] == "m.room.name").expect("changed");
    assert_eq!(name["content"]["name"], "second", "as it was when the timeline began");
    assert!(state.iter().any(|event| event["type"] == "m.room.topic"));
    assert_eq!(members(&section["state"]["events"]), ["@carol:domain"]);
    assert_eq!(section["summary"]["m.joined_member_count"], 3);

    let body = after.sync(&server);
    let state = joined(&body, &room)["state_after"]["events"].as_array().unwrap().clone();
    let name = state.iter().find(|event| event["type"] == "m.room.name").expect("changed");
    assert_eq!(name["content"]["name"], "third", "as it is at the end");
    assert_eq!(state.len(), 3);
}

#[test]
fn a_first_sync_winds_the_state_back_to_the_start_of_the_timeline() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::DEFAULT);
    set(&mut server, &room, "m.room.name", json!({"name": "first"}));
    server.member(&room, "bob", "bob", "join").unwrap();
    set(&mut server, &room, "m.room.name", json!({"name": "second"}));
    set(&mut server, &room, "m.room.name", json!({"name": "third"}));
    set(&mut server, &room, "m.room.topic", json!({"topic": "new"}));
    let (body, _) = limited_to(3).ask(&server);
    let section = joined(&body, &room);
    assert_eq!(section["timeline"]["limited"], true);
    let state = section["state"]["events"].as_array().unwrap();
    let name = state.iter().find(|event| event["type"] == "m.room.name").expect("was set");
    assert_eq!(name["content"]["name"], "first");
    assert!(!state.iter().any(|event| event["type"] == "m.room.topic"), "was not set yet");
    assert_eq!(members(&section["state"]["events"]), ["@alice:domain", "@bob:domain"]);
}

#[test]
fn the_token_of_a_gap_is_a_place_in_the_graph() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let mut bob = limited_to(2);
    bob.sync(&server);
    say_many(&mut server, &room, "alice", 5);
    let body = bob.sync(&server);
    let prev_batch = joined(&body, &room)["timeline"]["prev_batch"].as_str().unwrap();
    assert!(
        matches!(prev_batch.parse(), Ok(crate::streams::RoomPlace::Graph { depth: 10, .. })),
        "{prev_batch}"
    );
}

#[test]
fn a_picky_filter_is_satisfied_from_farther_back() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    server.say(&room, "bob", "mine").unwrap();
    say_many(&mut server, &room, "alice", 30);
    let filter = json!({"room": {"timeline": {"limit": 5, "senders": ["@bob:domain"]}}});
    let (body, _) = Device::new("bob").with_filter(filter).ask(&server);
    let timeline = &joined(&body, &room)["timeline"];
    assert_eq!(bodies(&timeline["events"]), ["mine"]);
    assert_eq!(timeline["limited"], false, "the whole room was looked at");
}
