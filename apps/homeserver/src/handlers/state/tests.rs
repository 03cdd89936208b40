//! Reading and setting state: who sees what, and what must not be set.

use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};

use super::{EntryName, Look, ReadCaches, Shape, all, checks, entry};
use crate::handlers::Refusal;
use crate::handlers::membership::Change;
use crate::handlers::test_rooms::{TestRooms, errcode, object, user};
use crate::model::EventDraft;

fn set(
    rooms: &mut TestRooms,
    room_id: &RoomId,
    who: &str,
    event_type: &str,
    content: Value,
) -> Result<(), Refusal> {
    let draft = EventDraft::state(user(who), event_type, "", object(content));
    let room_id = room_id.to_owned();
    rooms.write(move |txn, tools| {
        checks::check(txn, tools.server_name(), &room_id, &draft)?;
        tools.writer.send(txn, &room_id, draft, None, tools.now)?;
        Ok(())
    })
}

fn look<'a>(who: &'a ruma::UserId, caches: &'a ReadCaches) -> Look<'a> {
    Look { who, caches, now_ms: 9_999_999 }
}

fn get(
    rooms: &TestRooms,
    room_id: &OwnedRoomId,
    who: &str,
    event_type: &str,
    shape: Shape,
) -> Result<Value, Refusal> {
    let name = EntryName {
        room_id: room_id.clone(),
        event_type: event_type.to_owned(),
        state_key: String::new(),
    };
    let caches = ReadCaches::default();
    let json = rooms.read(|txn| entry(txn, look(&user(who), &caches), &name, shape))?;
    Ok(serde_json::from_slice(&json).expect("JSON"))
}

fn get_all(rooms: &TestRooms, room_id: &RoomId, who: &str) -> Result<Vec<Value>, Refusal> {
    let caches = ReadCaches::default();
    let json = rooms.read(|txn| all(txn, look(&user(who), &caches), room_id))?;
    Ok(serde_json::from_slice(&json).expect("JSON"))
}

#[test]
fn members_see_the_state_and_strangers_do_not() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b"], json!({"name": "Hall"}));
    let state = get_all(&rooms, &room_id, "b").unwrap();
    let mut keys: Vec<(String, String)> = state
        .iter()
        .map(|event| {
            let text = |field: &str| event[field].as_str().expect("text").to_owned();
            (text("type"), text("state_key"))
        })
        .collect();
    let sorted = {
        let mut copy = keys.clone();
        copy.sort();
        copy
    };
    assert_eq!(keys, sorted, "in order");
    keys.dedup();
    assert_eq!(keys.len(), state.len());
    for event in &state {
        assert_eq!(event["room_id"], room_id.as_str());
        assert!(event["event_id"].is_string() && event["unsigned"]["age"].is_u64());
        assert_eq!(event["auth_events"], Value::Null);
    }
    assert_eq!(
        get(&rooms, &room_id, "b", "m.room.name", Shape::Content).unwrap(),
        json!({"name": "Hall"})
    );
    let event = get(&rooms, &room_id, "b", "m.room.name", Shape::Event).unwrap();
    assert_eq!((&event["type"], &event["sender"]), (&json!("m.room.name"), &json!("@a:hs")));
    assert_eq!(errcode(get(&rooms, &room_id, "b", "m.room.topic", Shape::Content)), "NOT_FOUND");

    assert_eq!(errcode(get_all(&rooms, &room_id, "c")), "FORBIDDEN");
    assert_eq!(errcode(get(&rooms, &room_id, "c", "m.room.name", Shape::Content)), "FORBIDDEN");
    assert_eq!(errcode(get(&rooms, &room_id, "c", "m.room.topic", Shape::Content)), "FORBIDDEN");
    let nowhere = RoomId::parse("!nowhere:hs").unwrap();
    assert_eq!(errcode(get_all(&rooms, &nowhere, "a")), "FORBIDDEN");
    rooms.step(&room_id, "a", "c", Change::Invite).unwrap();
    assert_eq!(errcode(get_all(&rooms, &room_id, "c")), "FORBIDDEN", "invited is not joined");
}

#[test]
fn who_has_left_sees_the_state_of_then() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b", "c"], json!({"name": "then"}));
    rooms.step(&room_id, "b", "b", Change::Leave).unwrap();
    rooms.step(&room_id, "a", "c", Change::Ban).unwrap();
    rooms.step(&room_id, "a", "d", Change::Ban).unwrap();
    set(&mut rooms, &room_id, "a", "m.room.name", json!({"name": "now"})).unwrap();
    for who in ["b", "c"] {
        let name = get(&rooms, &room_id, who, "m.room.name", Shape::Content).unwrap();
        assert_eq!(name, json!({"name": "then"}), "{who}");
        let state = get_all(&rooms, &room_id, who).unwrap();
        let member = state.iter().find(|event| event["state_key"] == user(who).as_str()).unwrap();
        assert_ne!(member["content"]["membership"], "join");
    }
    assert_eq!(errcode(get_all(&rooms, &room_id, "d")), "FORBIDDEN", "banned in advance");
    rooms.step(&room_id, "a", "e", Change::Invite).unwrap();
    rooms.step(&room_id, "e", "e", Change::Leave).unwrap();
    assert_eq!(errcode(get_all(&rooms, &room_id, "e")), "FORBIDDEN", "declined");

    let visible = json!({"history_visibility": "world_readable"});
    set(&mut rooms, &room_id, "a", "m.room.history_visibility", visible).unwrap();
    for who in ["b", "d", "stranger"] {
        let name = get(&rooms, &room_id, who, "m.room.name", Shape::Content).unwrap();
        assert_eq!(name, json!({"name": "now"}), "{who}");
    }
}

#[test]
fn replaced_state_says_what_it_was() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &[], json!({"name": "one"}));
    let before = get(&rooms, &room_id, "a", "m.room.name", Shape::Event).unwrap();
    set(&mut rooms, &room_id, "a", "m.room.name", json!({"name": "two"})).unwrap();
    let after = get(&rooms, &room_id, "a", "m.room.name", Shape::Event).unwrap();
    assert_eq!(after["unsigned"]["prev_content"], json!({"name": "one"}));
    assert_eq!(after["unsigned"]["replaces_state"], before["event_id"]);
}

#[test]
fn redacted_state_shows_its_bones() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &[], json!({"name": "secret"}));
    let name = get(&rooms, &room_id, "a", "m.room.name", Shape::Event).unwrap();
    let target = ruma::EventId::parse(name["event_id"].as_str().unwrap()).unwrap();
    let room = room_id.clone();
    rooms
        .write(move |txn, tools| {
            let draft = EventDraft::redaction(user("a"), target, Some("oops".to_owned()));
            tools.writer.send(txn, &room, draft, None, tools.now)?;
            Ok(())
        })
        .unwrap();
    let content = get(&rooms, &room_id, "a", "m.room.name", Shape::Content).unwrap();
    assert_eq!(content, json!({}));
    let event = get(&rooms, &room_id, "a", "m.room.name", Shape::Event).unwrap();
    let because = &event["unsigned"]["redacted_because"];
    assert_eq!(because["type"], "m.room.redaction");
    assert_eq!(because["content"]["reason"], "oops");
    assert_eq!(because["redacts"], name["event_id"]);
}

#[test]
fn state_is_set_by_those_who_may() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b"], json!({}));
    set(&mut rooms, &room_id, "a", "m.room.name", json!({"name": "x"})).unwrap();
    let events = rooms.history(&room_id).len();
    set(&mut rooms, &room_id, "a", "m.room.name", json!({"name": "x"})).expect("the same again");
    assert_eq!(rooms.history(&room_id).len(), events, "makes no event");
    for (why, who, event_type, content, expected) in [
        ("no power", "b", "m.room.name", json!({"name": "y"}), "FORBIDDEN"),
        ("not in the room", "c", "m.room.name", json!({"name": "y"}), "FORBIDDEN"),
        ("a second create event", "a", "m.room.create", json!({}), "FORBIDDEN"),
        (
            "power for oneself",
            "b",
            "m.room.power_levels",
            json!({"users": {"@b:hs": 100}}),
            "FORBIDDEN",
        ),
        (
            "a creator listed",
            "a",
            "m.room.power_levels",
            json!({"users": {"@a:hs": 1}}),
            "FORBIDDEN",
        ),
        ("too large", "a", "x", json!({"x": "x".repeat(66_000)}), "TOO_LARGE"),
    ] {
        assert_eq!(errcode(set(&mut rooms, &room_id, who, event_type, content)), expected, "{why}");
    }
    assert_eq!(rooms.history(&room_id).len(), events);
}

#[test]
fn invitations_set_as_state_are_invitations_all_the_same() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &[], json!({}));
    for (state_key, membership, expected) in [
        ("@b:hs", "invite", None),
        ("@b:elsewhere", "invite", Some("FORBIDDEN")),
        ("@c:hs", "join", Some("FORBIDDEN")),
        ("b", "invite", Some("BAD_JSON")),
        ("@c:hs", "lurk", Some("FORBIDDEN")),
    ] {
        let content = object(json!({"membership": membership}));
        let draft = EventDraft::state(user("a"), "m.room.member", state_key, content);
        let room_id = room_id.clone();
        let result = rooms.write(move |txn, tools| {
            checks::check(txn, tools.server_name(), &room_id, &draft)?;
            tools.writer.send(txn, &room_id, draft, None, tools.now)?;
            Ok(())
        });
        match expected {
            None => result.expect(state_key),
            Some(code) => assert_eq!(errcode(result), code, "{state_key} {membership}"),
        }
    }
}

#[test]
fn main_aliases_must_stand_for_the_room() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &[], json!({"room_alias_name": "hall"}));
    rooms.create("a", json!({"room_alias_name": "other"}));
    for (content, expected) in [
        (json!({"alias": "#other:hs"}), "BAD_ALIAS"),
        (json!({"alias": "#nowhere:hs"}), "BAD_ALIAS"),
        (json!({"alias": "#hall:elsewhere"}), "BAD_ALIAS"),
        (json!({"alias": "#hall:hs", "alt_aliases": ["#other:hs"]}), "BAD_ALIAS"),
        (json!({"alias": "hall"}), "INVALID_PARAM"),
        (json!({"alias": 1}), "BAD_JSON"),
        (json!({"alt_aliases": "#hall:hs"}), "BAD_JSON"),
        (json!({"alt_aliases": [1]}), "BAD_JSON"),
    ] {
        let result = set(&mut rooms, &room_id, "a", "m.room.canonical_alias", content.clone());
        assert_eq!(errcode(result), expected, "{content}");
    }
    for content in [json!({"alt_aliases": ["#hall:hs"]}), json!({"alias": ""}), json!({})] {
        set(&mut rooms, &room_id, "a", "m.room.canonical_alias", content).unwrap();
    }
}

#[test]
fn nobody_locks_his_own_server_out() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &[], json!({}));
    let acl = |content| ("m.room.server_acl", content);
    for ((event_type, content), expected) in [
        (acl(json!({"allow": ["elsewhere"]})), "BAD_STATE"),
        (acl(json!({"allow": ["*"], "deny": ["h?"]})), "BAD_STATE"),
        (acl(json!({})), "BAD_STATE"),
        (acl(json!({"allow": 1})), "BAD_JSON"),
    ] {
        let result = set(&mut rooms, &room_id, "a", event_type, content.clone());
        assert_eq!(errcode(result), expected, "{content}");
    }
    let good = json!({"allow": ["*"], "deny": ["evil"], "allow_ip_literals": false});
    set(&mut rooms, &room_id, "a", "m.room.server_acl", good).unwrap();
}
