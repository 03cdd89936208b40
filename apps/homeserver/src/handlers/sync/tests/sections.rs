//! What stands in which section.

use ruma::user_id;
use serde_json::{Value, json};

use super::world::{Device, bodies, entries, joined, members, room_of_two, set};
use crate::events::tests::forks;
use crate::events::tests::rooms::{Server, message, transaction};
use crate::handlers::sync::StateBlock;
use crate::model::{EventDraft, RoomVersion};
use crate::storage::databases::main::{account_data, memberships, push_rules, receipts};
use crate::storage::engine::StorageError;

#[test]
fn a_first_sync_tells_all_and_the_next_one_nothing() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    server.say(&room, "bob", "hello").unwrap();
    let mut bob = Device::new("bob");
    let (body, answer) = bob.ask(&server);
    assert!(!answer.is_empty);
    assert_eq!(answer.joined, std::slice::from_ref(&room));
    let section = joined(&body, &room);
    assert_eq!(bodies(&section["timeline"]["events"]), ["hello"]);
    assert_eq!(section["timeline"]["limited"], false, "all seven events fit");
    assert_eq!(section["summary"]["m.joined_member_count"], 2);
    assert_eq!(section["summary"]["m.heroes"], json!(["@alice:domain"]));
    assert_eq!(body["device_one_time_keys_count"], json!({"signed_curve25519": 0}));
    assert_eq!(body["device_unused_fallback_key_types"], json!([]));
    assert_eq!(body["presence"], json!({"events": []}));
    let rules = &body["account_data"]["events"][0];
    assert_eq!(rules["type"], "m.push_rules");
    assert!(rules["content"]["global"]["override"].is_array());

    bob.sync(&server);
    let (body, answer) = bob.ask(&server);
    assert!(answer.is_empty, "{body}");
    assert_eq!(body["rooms"], Value::Null);
}

#[test]
fn an_event_looks_as_clients_expect_it() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let mut alice = Device::new("alice");
    let mut bob = Device::new("bob");
    alice.sync(&server);
    bob.sync(&server);
    server.send_as(&room, message("alice", "hello"), transaction("DEVICE", "t1")).unwrap();
    let event = |body: &Value| joined(body, &room)["timeline"]["events"][0].clone();
    let sent = event(&alice.sync(&server));
    assert_eq!(sent["unsigned"]["transaction_id"], "t1");
    assert!(sent["unsigned"]["age"].as_i64().unwrap() > 0);
    let received = event(&bob.sync(&server));
    assert_eq!(received["unsigned"]["transaction_id"], Value::Null, "not his");
    let keys: Vec<&String> = received.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["content", "event_id", "origin_server_ts", "sender", "type", "unsigned"]);

    let mut other = Device::new("alice");
    other.question.device_id = Some("OTHER".into());
    other.question.since = alice.since().map(|_| crate::streams::StreamToken::new());
    let (body, _) = other.ask(&server);
    let events = joined(&body, &room)["timeline"]["events"].as_array().unwrap().clone();
    let last = events.last().unwrap();
    assert_eq!(last["unsigned"]["transaction_id"], Value::Null, "another device");
}

#[test]
fn a_state_event_says_what_it_replaced() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    set(&mut server, &room, "m.room.name", json!({"name": "old"}));
    let mut bob = Device::new("bob");
    bob.sync(&server);
    set(&mut server, &room, "m.room.name", json!({"name": "new"}));
    let body = bob.sync(&server);
    let section = joined(&body, &room);
    let event = &section["timeline"]["events"][0];
    assert_eq!(event["unsigned"]["prev_content"], json!({"name": "old"}));
    assert_eq!(event["unsigned"]["prev_sender"], "@alice:domain");
    assert!(event["unsigned"]["replaces_state"].as_str().unwrap().starts_with('$'));
    assert_eq!(section["state"]["events"], json!([]), "the timeline tells it");
    assert_eq!(section["summary"], Value::Null, "nobody came or went");
}

#[test]
fn redacted_events_are_pruned_and_say_why() {
    for version in [RoomVersion::V10, RoomVersion::V12] {
        let mut server = Server::new();
        let room = server.room(version);
        let said = server.say(&room, "alice", "secret").unwrap();
        let mut alice = Device::new("alice");
        alice.sync(&server);
        let redaction = EventDraft::redaction(
            user_id!("@alice:domain").to_owned(),
            said.event_id.clone(),
            Some("oops".to_owned()),
        );
        server.send(&room, redaction).unwrap();
        let (body, _) = Device::new("alice").ask(&server);
        let events = joined(&body, &room)["timeline"]["events"].as_array().unwrap().clone();
        let pruned = events.iter().find(|event| event["event_id"] == *said.event_id.as_str());
        let pruned = pruned.expect("still there");
        assert_eq!(pruned["content"], json!({}));
        let because = &pruned["unsigned"]["redacted_because"];
        assert_eq!(because["content"]["reason"], "oops");
        assert_eq!(because["redacts"], said.event_id.as_str(), "both places, {version}");
        assert_eq!(because["content"]["redacts"], said.event_id.as_str(), "both places");

        let news = alice.sync(&server);
        let event = &joined(&news, &room)["timeline"]["events"][0];
        assert_eq!(event["type"], "m.room.redaction");
        assert_eq!(event["redacts"], said.event_id.as_str());
        assert_eq!(event["content"]["redacts"], said.event_id.as_str());
    }
}

#[test]
fn a_room_newly_joined_comes_whole() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::DEFAULT);
    server.say(&room, "alice", "before").unwrap();
    let mut bob = Device::new("bob");
    let body = bob.sync(&server);
    assert_eq!(body["rooms"], Value::Null);
    server.member(&room, "bob", "bob", "join").unwrap();
    let body = bob.sync(&server);
    let section = joined(&body, &room);
    assert_eq!(bodies(&section["timeline"]["events"]), ["before"], "shared history");
    assert_eq!(section["timeline"]["limited"], true, "there may be more than he knows");
    assert_eq!(section["summary"]["m.joined_member_count"], 2);
    // All of the state is either in the timeline or beside it.
    let timeline = entries(&section["timeline"]["events"]);
    assert!(timeline.contains(&("m.room.create".to_owned(), String::new())));

    // A new display name is no join.
    let content = json!({"membership": "join", "displayname": "Bob"});
    let content = crate::events::tests::rooms::object(content);
    let bob_id = user_id!("@bob:domain");
    server
        .send(&room, EventDraft::state(bob_id.to_owned(), "m.room.member", bob_id, content))
        .unwrap();
    let body = bob.sync(&server);
    let section = joined(&body, &room);
    assert_eq!(section["timeline"]["limited"], false);
    assert_eq!(section["timeline"]["events"].as_array().unwrap().len(), 1);
    assert_eq!(section["state"]["events"], json!([]));
}

#[test]
fn who_left_and_came_back_is_told_everything() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let mut bob = Device::new("bob").with_filter(json!({"room": {"timeline": {"limit": 1}}}));
    bob.sync(&server);
    server.member(&room, "bob", "bob", "leave").unwrap();
    set(&mut server, &room, "m.room.topic", json!({"topic": "bob"}));
    server.member(&room, "bob", "bob", "join").unwrap();
    let body = bob.sync(&server);
    assert_eq!(body["rooms"]["leave"], Value::Null, "he is in");
    let section = joined(&body, &room);
    let state = entries(&section["state"]["events"]);
    assert!(state.contains(&("m.room.topic".to_owned(), String::new())));
    assert!(state.contains(&("m.room.create".to_owned(), String::new())));
}

#[test]
fn an_invitation_shows_the_room_stripped() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::DEFAULT);
    set(&mut server, &room, "m.room.name", json!({"name": "Den"}));
    let mut bob = Device::new("bob");
    bob.sync(&server);
    server.member(&room, "alice", "bob", "invite").unwrap();
    let body = bob.sync(&server);
    assert_eq!(body["rooms"]["join"], Value::Null);
    let events = &body["rooms"]["invite"][room.as_str()]["invite_state"]["events"];
    let found = entries(events);
    for event_type in ["m.room.create", "m.room.join_rules", "m.room.name"] {
        assert!(found.contains(&(event_type.to_owned(), String::new())), "{event_type}");
    }
    assert_eq!(members(events), ["@alice:domain", "@bob:domain"], "who invites, and whom");
    let own = events.as_array().unwrap().last().unwrap();
    let keys: Vec<&String> = own.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["content", "sender", "state_key", "type"]);
    assert!(bob.ask(&server).1.is_empty, "told once");
    let (again, _) = Device::new("bob").ask(&server);
    assert!(again["rooms"]["invite"][room.as_str()].is_object(), "and in each first sync");

    // Declined: the room goes to the section of those left.
    server.member(&room, "bob", "bob", "leave").unwrap();
    let body = bob.sync(&server);
    let left = &body["rooms"]["leave"][room.as_str()];
    assert_eq!(members(&left["timeline"]["events"]), ["@bob:domain"]);
    assert_eq!(left["state"]["events"], json!([]), "he never was in");
}

#[test]
fn invitations_by_ignored_people_are_not_shown_nor_what_they_say() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let other = server.room(RoomVersion::V11);
    let content = r#"{"ignored_users":{"@alice:domain":{},"@bob:domain":{},"nonsense":{}}}"#;
    server
        .database
        .write(move |txn| {
            let bob = user_id!("@bob:domain");
            account_data::set(txn, bob, None, "m.ignored_user_list", content)
        })
        .unwrap();
    let mut bob = Device::new("bob");
    bob.sync(&server);
    server.member(&other, "alice", "bob", "invite").unwrap();
    server.say(&room, "alice", "psst").unwrap();
    server.say(&room, "bob", "I").unwrap();
    set(&mut server, &room, "m.room.topic", json!({"topic": "state is state"}));
    let body = bob.sync(&server);
    assert_eq!(body["rooms"]["invite"], Value::Null);
    let events = &joined(&body, &room)["timeline"]["events"];
    assert_eq!(bodies(events), ["I"]);
    assert_eq!(entries(events).len(), 2);
}

#[test]
fn a_knock_has_its_section() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::DEFAULT);
    set(&mut server, &room, "m.room.join_rules", json!({"join_rule": "knock"}));
    let mut bob = Device::new("bob");
    bob.sync(&server);
    server.member(&room, "bob", "bob", "knock").unwrap();
    let body = bob.sync(&server);
    let events = &body["rooms"]["knock"][room.as_str()]["knock_state"]["events"];
    assert_eq!(members(events), ["@bob:domain"]);
    assert!(entries(events).contains(&("m.room.create".to_owned(), String::new())));
}

#[test]
fn a_room_left_is_told_up_to_the_leaving() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let mut bob = Device::new("bob");
    bob.sync(&server);
    server.say(&room, "alice", "still here").unwrap();
    set(&mut server, &room, "m.room.topic", json!({"topic": "t"}));
    server.member(&room, "alice", "bob", "ban").unwrap();
    server.say(&room, "alice", "among us").unwrap();
    let (body, answer) = bob.ask(&server);
    assert!(answer.joined.is_empty());
    let left = &body["rooms"]["leave"][room.as_str()];
    assert_eq!(bodies(&left["timeline"]["events"]), ["still here"]);
    assert_eq!(members(&left["timeline"]["events"]), ["@bob:domain"]);
    assert_eq!(left["ephemeral"], Value::Null);
    bob.sync(&server);
    assert!(bob.ask(&server).1.is_empty, "told once");

    let (body, _) = Device::new("bob").ask(&server);
    assert_eq!(body["rooms"], Value::Null, "first syncs leave it out");
    let curious = Device::new("bob").with_filter(json!({"room": {"include_leave": true}}));
    let (body, _) = curious.ask(&server);
    let left = &body["rooms"]["leave"][room.as_str()];
    assert_eq!(bodies(&left["timeline"]["events"]), ["still here"], "unless asked for");

    let key = server.find_room(&room).key;
    server
        .database
        .write(move |txn| memberships::forget_local(txn, user_id!("@bob:domain"), key))
        .unwrap();
    assert_eq!(curious.ask(&server).0["rooms"], Value::Null, "forgotten");
}

#[test]
fn history_is_hidden_from_who_was_not_there() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::DEFAULT);
    set(&mut server, &room, "m.room.history_visibility", json!({"history_visibility": "joined"}));
    server.say(&room, "alice", "before").unwrap();
    set(&mut server, &room, "m.room.topic", json!({"topic": "hidden"}));
    server.member(&room, "alice", "bob", "invite").unwrap();
    server.say(&room, "alice", "invited").unwrap();
    server.member(&room, "bob", "bob", "join").unwrap();
    server.say(&room, "alice", "after").unwrap();
    let (body, _) = Device::new("bob").ask(&server);
    let section = joined(&body, &room);
    assert_eq!(bodies(&section["timeline"]["events"]), ["after"]);
    // What the timeline hides of the state stands beside it.
    let state = entries(&section["state"]["events"]);
    assert!(state.contains(&("m.room.topic".to_owned(), String::new())), "{state:?}");

    for (visibility, expected) in [
        ("invited", vec!["invited", "after"]),
        ("shared", vec!["before", "invited", "after"]),
        ("world_readable", vec!["before", "invited", "after"]),
    ] {
        let mut server = Server::new();
        let room = server.room(RoomVersion::DEFAULT);
        let content = json!({"history_visibility": visibility});
        if visibility != "shared" {
            set(&mut server, &room, "m.room.history_visibility", content);
        }
        server.say(&room, "alice", "before").unwrap();
        server.member(&room, "alice", "bob", "invite").unwrap();
        server.say(&room, "alice", "invited").unwrap();
        server.member(&room, "bob", "bob", "join").unwrap();
        server.say(&room, "alice", "after").unwrap();
        let (body, _) = Device::new("bob").ask(&server);
        let events = &joined(&body, &room)["timeline"]["events"];
        assert_eq!(bodies(events), expected, "{visibility}");
    }
}

#[test]
fn account_data_comes_when_it_changes() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let mut bob = Device::new("bob");
    bob.sync(&server);
    let room_id = room.clone();
    server
        .database
        .write(move |txn| -> Result<(), StorageError> {
            let bob = user_id!("@bob:domain");
            account_data::set(txn, bob, None, "m.direct", "{\"a\":1}")?;
            account_data::set(txn, bob, Some(&room_id), "m.tag", "{\"tags\":{}}")?;
            account_data::set(txn, user_id!("@alice:domain"), None, "m.direct", "{}")?;
            push_rules::set(txn, bob, "{\"override\":[]}")
        })
        .unwrap();
    let body = bob.sync(&server);
    let events = &body["account_data"]["events"];
    assert_eq!(events[0], json!({"type": "m.direct", "content": {"a": 1}}));
    assert_eq!(events[1]["type"], "m.push_rules");
    let rules = events[1]["content"]["global"]["override"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["rule_id"] == ".m.rule.master"), "defaults are added");
    let section = joined(&body, &room);
    assert_eq!(
        section["account_data"]["events"],
        json!([{"type": "m.tag", "content": {"tags": {}}}])
    );
    assert_eq!(section["timeline"]["events"], json!([]));
    assert!(bob.ask(&server).1.is_empty);

    let picky = Device::new("bob").with_filter(json!({
        "account_data": {"not_types": ["m.push_rules"]},
        "room": {"account_data": {"types": []}},
    }));
    let (body, _) = picky.ask(&server);
    assert_eq!(entries(&body["account_data"]["events"]), [("m.direct".to_owned(), "-".to_owned())]);
    assert_eq!(joined(&body, &room)["account_data"]["events"], json!([]));
}

#[test]
fn receipts_and_typing_are_ephemeral_and_private_receipts_private() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let said = server.say(&room, "alice", "read me").unwrap().event_id;
    let mut bob = Device::new("bob");
    bob.sync(&server);
    let (room_id, event_id) = (room.clone(), said.clone());
    server
        .database
        .write(move |txn| -> Result<(), StorageError> {
            let (alice, bob) = (user_id!("@alice:domain"), user_id!("@bob:domain"));
            receipts::set(txn, &room_id, "m.read", alice, "", &event_id, 5)?;
            receipts::set(txn, &room_id, "m.read.private", alice, "", &event_id, 6)?;
            receipts::set(txn, &room_id, "m.read.private", bob, "main", &event_id, 7)
        })
        .unwrap();
    bob.typing(&room, &[user_id!("@alice:domain").to_owned()]);
    let silent = Device::new("bob").with_filter(json!({"room": {"ephemeral": {"types": []}}}));
    let mut silent = silent;
    silent.question.since = bob.since();
    assert!(silent.ask(&server).1.is_empty, "not wanted");
    let body = bob.sync(&server);
    let events = joined(&body, &room)["ephemeral"]["events"].clone();
    assert_eq!(
        events,
        json!([
            {"type": "m.typing", "content": {"user_ids": ["@alice:domain"]}},
            {"type": "m.receipt", "content": {said.as_str(): {
                "m.read": {"@alice:domain": {"ts": 5}},
                "m.read.private": {"@bob:domain": {"ts": 7, "thread_id": "main"}},
            }}},
        ])
    );
    assert!(bob.ask(&server).1.is_empty);
}

#[test]
fn filters_choose_rooms_events_and_their_form() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let other = server.room(RoomVersion::V11);
    server.member(&other, "bob", "bob", "join").unwrap();
    server.say(&room, "alice", "a").unwrap();
    server.say(&room, "bob", "b").unwrap();
    let ask = |filter: Value| Device::new("bob").with_filter(filter).ask(&server).0;

    let body = ask(json!({"room": {"rooms": [room]}}));
    assert_eq!(body["rooms"]["join"].as_object().unwrap().len(), 1);
    let body = ask(json!({"room": {"not_rooms": [room, other]}}));
    assert_eq!(body["rooms"], Value::Null);
    let body = ask(
        json!({"room": {"timeline": {"senders": ["@alice:domain"], "types": ["m.room.mess*"]}}}),
    );
    let section = joined(&body, &room);
    assert_eq!(bodies(&section["timeline"]["events"]), ["a"]);
    assert!(!section["state"]["events"].as_array().unwrap().is_empty());
    let body =
        ask(json!({"room": {"state": {"types": ["m.room.create"]}, "timeline": {"limit": 1}}}));
    let state = entries(&joined(&body, &room)["state"]["events"]);
    assert_eq!(state, [("m.room.create".to_owned(), String::new())]);
    let body = ask(json!({"event_fields": ["content.body"], "room": {"timeline": {"limit": 1}}}));
    let events = &joined(&body, &room)["timeline"]["events"];
    assert_eq!(*events, json!([{"content": {"body": "b"}}]));
    let body = ask(json!({"event_format": "federation", "room": {"timeline": {"limit": 1}}}));
    let event = &joined(&body, &room)["timeline"]["events"][0];
    for field in ["auth_events", "prev_events", "hashes", "signatures", "depth", "event_id"] {
        assert!(!event[field].is_null(), "{field}: {event}");
    }
}

#[test]
fn state_after_tells_the_state_at_the_end() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let mut bob = Device::new("bob").with_block(StateBlock::AfterTimeline);
    let body = bob.sync(&server);
    let section = joined(&body, &room);
    assert_eq!(section["state"], Value::Null);
    let state = entries(&section["state_after"]["events"]);
    assert!(state.contains(&("m.room.member".to_owned(), "@bob:domain".to_owned())), "{state:?}");
    assert_eq!(state.len(), 6);

    server.say(&room, "alice", "x").unwrap();
    let body = bob.sync(&server);
    assert_eq!(joined(&body, &room)["state_after"]["events"], json!([]), "always there");
    set(&mut server, &room, "m.room.topic", json!({"topic": "t"}));
    let body = bob.sync(&server);
    let state = entries(&joined(&body, &room)["state_after"]["events"]);
    assert_eq!(state, [("m.room.topic".to_owned(), String::new())]);
}

#[test]
fn full_state_is_told_on_demand() {
    let mut server = Server::new();
    let room = room_of_two(&mut server);
    let mut bob = Device::new("bob");
    bob.sync(&server);
    bob.question.full_state = true;
    let (body, _) = bob.ask(&server);
    let section = joined(&body, &room);
    assert_eq!(section["timeline"]["events"], json!([]));
    assert_eq!(entries(&section["state"]["events"]).len(), 6);
}

#[test]
fn what_branches_resolve_to_is_told_whatever_the_timeline_says() {
    let mut server = Server::new();
    let room = forks::shared_room(&mut server, RoomVersion::V11);
    let mut alice = Device::new("alice").with_block(StateBlock::AfterTimeline);
    alice.sync(&server);
    let fork = server.tip(&room);
    server.accept(&room, forks::topic("bob:other", "his"), &[&fork]);
    server.accept(&room, forks::topic("alice", "hers"), &[&fork]);
    let body = alice.sync(&server);
    let section = joined(&body, &room);
    assert_eq!(section["timeline"]["events"].as_array().unwrap().len(), 2, "both branches");
    let state = section["state_after"]["events"].as_array().unwrap();
    let topic = state.iter().find(|event| event["type"] == "m.room.topic").expect("a topic");
    let current = server.current(&room, "m.room.topic", "").expect("one of them");
    assert_eq!(topic["event_id"], current.as_str());
}
