//! Making rooms: what they begin with, and what cannot be asked for.

use serde_json::{Value, json};

use crate::handlers::test_rooms::{TestRooms, errcode, user};
use crate::model::RoomVersion;

#[test]
fn a_private_room_begins_in_the_order_of_the_specification() {
    let mut rooms = TestRooms::new();
    rooms.set_profile("a", "Ann");
    rooms.set_profile("b", "Bob");
    let room_id = rooms.create(
        "a",
        json!({
            "room_alias_name": "hall", "name": "Hall", "topic": "talk", "invite": ["@b:hs"],
            "is_direct": true,
            "initial_state": [{"type": "x.y", "state_key": "k", "content": {"v": 1}}],
        }),
    );
    let types: Vec<String> =
        rooms.history(&room_id).into_iter().map(|(event_type, _)| event_type).collect();
    assert_eq!(
        types,
        [
            "m.room.create",
            "m.room.member",
            "m.room.power_levels",
            "m.room.canonical_alias",
            "m.room.join_rules",
            "m.room.history_visibility",
            "m.room.guest_access",
            "x.y",
            "m.room.name",
            "m.room.topic",
            "m.room.member",
        ]
    );
    let content = |event_type: &str, key: &str| rooms.content(&room_id, event_type, key);
    assert_eq!(content("m.room.create", ""), json!({"room_version": "12"}));
    assert_eq!(
        content("m.room.member", "@a:hs"),
        json!({"membership": "join", "displayname": "Ann"})
    );
    assert_eq!(
        content("m.room.member", "@b:hs"),
        json!({"membership": "invite", "displayname": "Bob", "is_direct": true})
    );
    assert_eq!(content("m.room.canonical_alias", ""), json!({"alias": "#hall:hs"}));
    assert_eq!(content("m.room.join_rules", ""), json!({"join_rule": "invite"}));
    assert_eq!(content("m.room.history_visibility", ""), json!({"history_visibility": "shared"}));
    assert_eq!(content("m.room.guest_access", ""), json!({"guest_access": "can_join"}));
    assert_eq!(content("m.room.name", ""), json!({"name": "Hall"}));
    assert_eq!(content("m.room.topic", "")["topic"], "talk");
    assert_eq!(content("x.y", "k"), json!({"v": 1}));
}

#[test]
fn creators_hold_power_as_their_version_has_it() {
    for version in RoomVersion::ALL {
        let mut rooms = TestRooms::new();
        let body = json!({
            "room_version": version.as_str(), "preset": "trusted_private_chat",
            "invite": ["@b:hs", "@b:hs", "@a:hs"],
            "creation_content": {"m.federate": false, "room_version": "1", "creator": "@x:y"},
        });
        let room_id = rooms.create("a", body);
        let create = rooms.content(&room_id, "m.room.create", "");
        let levels = rooms.content(&room_id, "m.room.power_levels", "");
        assert_eq!(create["room_version"], version.as_str());
        assert_eq!(create["m.federate"], false);
        if version.creators_are_privileged() {
            assert_eq!(create["additional_creators"], json!(["@b:hs"]));
            assert_eq!(levels["users"], json!({}));
            assert_eq!(levels["events"]["m.room.tombstone"], 150);
            assert_eq!(room_id.as_str().len(), 44, "named after the create event");
        } else {
            assert_eq!(levels["users"], json!({"@a:hs": 100, "@b:hs": 100}));
            assert!(room_id.as_str().ends_with(":hs"));
        }
        let creator = if version < RoomVersion::V11 { json!("@a:hs") } else { Value::Null };
        assert_eq!(create["creator"], creator, "{version}");
        assert_eq!(rooms.membership(&room_id, "b"), "invite");
        // Whoever is invited in a trusted chat can do what its creator can.
        rooms.step(&room_id, "b", "b", crate::handlers::membership::Change::Join).unwrap();
        rooms.set_state(&room_id, "b", "m.room.name", "", json!({"name": "ours"})).unwrap();
    }
}

#[test]
fn presets_and_what_overrides_them() {
    let mut rooms = TestRooms::new();
    for (why, body, rule, guests) in [
        ("nothing said", json!({}), "invite", "can_join"),
        ("listed", json!({"visibility": "public"}), "public", "forbidden"),
        ("public", json!({"preset": "public_chat"}), "public", "forbidden"),
        (
            "listed but private",
            json!({"visibility": "public", "preset": "private_chat"}),
            "invite",
            "can_join",
        ),
        (
            "initial state wins",
            json!({"initial_state": [
                {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
            ]}),
            "knock",
            "can_join",
        ),
    ] {
        let room_id = rooms.create("a", body);
        let rules = rooms.content(&room_id, "m.room.join_rules", "");
        assert_eq!(rules["join_rule"], rule, "{why}");
        let access = rooms.content(&room_id, "m.room.guest_access", "");
        assert_eq!(access["guest_access"], guests, "{why}");
        let types = rooms.history(&room_id);
        let count = types.iter().filter(|(kind, _)| kind == "m.room.join_rules").count();
        assert_eq!(count, 1, "{why}");
    }
    let body = json!({"power_level_content_override": {"invite": 20, "events": {"x": 1}}});
    let room_id = rooms.create("a", body);
    let levels = rooms.content(&room_id, "m.room.power_levels", "");
    assert_eq!((&levels["invite"], &levels["events"]), (&json!(20), &json!({"x": 1})));
    assert_eq!(levels["ban"], 50);
}

#[test]
fn two_rooms_of_one_moment_are_two_rooms() {
    let mut rooms = TestRooms::new();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let room = rooms
            .write(|txn, tools| {
                // The same person, the same wish, the same millisecond.
                let body = br#"{"name":"x"}"#;
                let mut made = Vec::new();
                for _ in 0..2 {
                    let request = http::Request::post("/").body(&body[..]).unwrap();
                    let order = super::Order {
                        who: user("a"),
                        request: ruma::api::IncomingRequestExt::try_from_http_request(request, &[])
                            .unwrap(),
                        default_version: RoomVersion::V12,
                        publication: super::Publication::Allowed,
                        random: [1; 18],
                    };
                    made.push(super::create(txn, tools, &order)?);
                }
                Ok(made)
            })
            .unwrap();
        ids.extend(room);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn what_cannot_be_made_says_why_and_leaves_nothing_behind() {
    let mut rooms = TestRooms::new();
    rooms.create("b", json!({"room_alias_name": "taken"}));
    let levels = |content: Value| json!({"power_level_content_override": content});
    let state = |event: Value| json!({"initial_state": [event]});
    for (why, body, expected) in [
        ("an unknown version", json!({"room_version": "99"}), "UNSUPPORTED_ROOM_VERSION"),
        ("a version of before", json!({"room_version": "5"}), "UNSUPPORTED_ROOM_VERSION"),
        ("a taken alias", json!({"room_alias_name": "taken"}), "ROOM_IN_USE"),
        ("a whole alias", json!({"room_alias_name": "#a:hs"}), "INVALID_PARAM"),
        ("a blank in an alias", json!({"room_alias_name": "a b"}), "INVALID_PARAM"),
        ("an empty alias", json!({"room_alias_name": ""}), "INVALID_PARAM"),
        ("an alias too long", json!({"room_alias_name": "a".repeat(300)}), "INVALID_PARAM"),
        ("an unknown preset", json!({"preset": "secret"}), "INVALID_PARAM"),
        ("somebody elsewhere", json!({"invite": ["@b:elsewhere"]}), "FORBIDDEN"),
        ("state without a type", state(json!({"content": {}})), "BAD_JSON"),
        ("state without content", state(json!({"type": "x"})), "BAD_JSON"),
        ("a float in state", state(json!({"type": "x", "content": {"a": 1.5}})), "BAD_JSON"),
        (
            "a second create event",
            state(json!({"type": "m.room.create", "content": {}})),
            "INVALID_ROOM_STATE",
        ),
        (
            "state with another's key",
            state(json!({"type": "x", "state_key": "@b:hs", "content": {}})),
            "INVALID_ROOM_STATE",
        ),
        (
            "somebody is made to join",
            state(json!({
                "type": "m.room.member", "state_key": "@b:hs", "content": {"membership": "join"},
            })),
            "INVALID_ROOM_STATE",
        ),
        (
            "state too large",
            state(json!({"type": "x", "content": {"a": "x".repeat(70_000)}})),
            "TOO_LARGE",
        ),
        ("a float in levels", levels(json!({"ban": 1.5})), "BAD_JSON"),
        ("a level that is text", levels(json!({"ban": "50"})), "INVALID_ROOM_STATE"),
        ("a creator among users", levels(json!({"users": {"@a:hs": 100}})), "INVALID_ROOM_STATE"),
        (
            "creators that are none",
            json!({"creation_content": {"additional_creators": ["b"]}}),
            "BAD_JSON",
        ),
        (
            "a room only for us, badly said",
            json!({"creation_content": {"m.federate": "no"}}),
            "INVALID_ROOM_STATE",
        ),
        (
            "too much at once",
            json!({"invite": (0..501).map(|n| format!("@u{n}:hs")).collect::<Vec<_>>()}),
            "INVALID_PARAM",
        ),
        (
            "an invitation by mail",
            json!({"invite_3pid": [{
                "id_server": "i", "id_access_token": "t", "medium": "email", "address": "a@b",
            }]}),
            "THREEPID_DENIED",
        ),
    ] {
        // Some of these fail typed reading in ruma already, which is as good.
        assert_eq!(errcode(rooms.try_create("a", body)), expected, "{why}");
    }
    let count = rooms
        .read(|txn| {
            Ok(txn.query_one(
                "SELECT count(*) FROM rooms",
                crate::storage::engine::params![],
                |row| row.get::<i64>(0),
            )?)
        })
        .unwrap();
    assert_eq!(count, 1);
    // And the writer goes on.
    rooms.create("a", json!({}));
}

#[test]
fn losing_ones_own_power_at_birth_is_an_invalid_state() {
    let mut rooms = TestRooms::new();
    let body = json!({
        "room_version": "11",
        "power_level_content_override": {"users": {"@b:hs": 100}},
        "name": "x",
    });
    assert_eq!(errcode(rooms.try_create("a", body)), "INVALID_ROOM_STATE");
}
