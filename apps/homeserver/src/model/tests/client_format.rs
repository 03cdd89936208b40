//! What clients see of an event, byte for byte.

use serde_json::{Value, json};

use super::rooms::{Room, user};
use crate::model::{ClientView, RoomVersion, write_client_event, write_stripped_event};

const STORED: &str = concat!(
    r#"{"auth_events":["$p","$m"],"content":{"body":"a \"quote\"","msgtype":"m.text"},"depth":9,"#,
    r#""hashes":{"sha256":"h"},"origin":"domain","origin_server_ts":1000,"prev_events":["$x"],"#,
    r#""room_id":"!r:domain","sender":"@a:domain","signatures":{"domain":{"ed25519:1":"s"}},"#,
    r#""type":"m.room.message","unsigned":{"age":5,"forged":true},"vendor.field":[1,{"x":null}]}"#,
);

fn written(json: &str, view: &ClientView<'_>) -> String {
    let mut out = b"[".to_vec();
    write_client_event(&mut out, json, view).expect("an event");
    let text = String::from_utf8(out).unwrap();
    let event = text.strip_prefix('[').unwrap().to_owned();
    serde_json::from_str::<Value>(&event).expect("what is written is JSON");
    event
}

#[test]
fn federation_fields_go_and_client_fields_come() {
    let view = ClientView {
        event_id: "$e",
        room_id: Some("!r:domain"),
        now_ms: 61_000,
        ..ClientView::default()
    };
    let expected = concat!(
        r#"{"origin_server_ts":1000,"sender":"@a:domain","type":"m.room.message","#,
        r#""vendor.field":[1,{"x":null}],"content":{"body":"a \"quote\"","msgtype":"m.text"},"#,
        r#""event_id":"$e","room_id":"!r:domain","unsigned":{"age":60000}}"#,
    );
    assert_eq!(written(STORED, &view), expected);
}

#[test]
fn sync_leaves_out_the_room_and_shows_what_the_reader_may_know() {
    let view = ClientView {
        event_id: "$e",
        room_id: None,
        now_ms: 10,
        transaction_id: Some("txn\"1"),
        prev_content: Some(r#"{"name":"old"}"#),
        replaces_state: Some("$old"),
        redacted_because: Some(r#"{"type":"m.room.redaction"}"#),
        membership: Some("join"),
    };
    let expected = concat!(
        r#"{"origin_server_ts":1000,"sender":"@a:domain","type":"m.room.message","#,
        r#""vendor.field":[1,{"x":null}],"content":{"body":"a \"quote\"","msgtype":"m.text"},"#,
        r#""event_id":"$e","unsigned":{"age":0,"membership":"join","replaces_state":"$old","#,
        r#""transaction_id":"txn\"1","prev_content":{"name":"old"},"#,
        r#""redacted_because":{"type":"m.room.redaction"}}}"#,
    );
    assert_eq!(written(STORED, &view), expected);
}

#[test]
fn redactions_name_their_target_in_both_places() {
    let view = ClientView { event_id: "$e", ..ClientView::default() };
    for (why, content, beside, expected_inside, expected_beside) in [
        ("old format", json!({"reason": "r"}), json!("$t"), json!("$t"), json!("$t")),
        ("old format, empty content", json!({}), json!("$t"), json!("$t"), json!("$t")),
        ("new format", json!({"redacts": "$t"}), json!(null), json!("$t"), json!("$t")),
        ("both", json!({"redacts": "$a"}), json!("$b"), json!("$a"), json!("$b")),
        ("neither", json!({"reason": "r"}), json!(null), json!(null), json!(null)),
        ("a number", json!({}), json!(7), json!(7), json!(7)),
    ] {
        let mut event = json!({"type": "m.room.redaction", "content": content});
        if !beside.is_null() {
            event["redacts"] = beside;
        }
        let shown: Value = serde_json::from_str(&written(&event.to_string(), &view)).unwrap();
        assert_eq!(shown["content"]["redacts"], expected_inside, "{why}");
        assert_eq!(shown["redacts"], expected_beside, "{why}");
        assert_eq!(shown["content"]["reason"], content["reason"], "{why}");
    }
}

#[test]
fn a_redacts_field_of_other_events_is_left_alone() {
    let view = ClientView { event_id: "$e", ..ClientView::default() };
    let event = json!({"type": "m.other", "content": {}, "redacts": "$t"});
    let shown: Value = serde_json::from_str(&written(&event.to_string(), &view)).unwrap();
    assert_eq!(shown["redacts"], "$t");
    assert_eq!(shown["content"], json!({}));
}

#[test]
fn damaged_text_is_an_error_and_writes_nothing() {
    for damaged in ["", "[]", "{", r#"{"content":{"a":}"#, "null", r#"{"content":1 2}"#] {
        let mut out = b"before".to_vec();
        let view = ClientView::default();
        assert!(write_client_event(&mut out, damaged, &view).is_err(), "{damaged}");
        assert_eq!(out, b"before", "{damaged}");
        assert!(write_stripped_event(&mut out, damaged).is_err(), "{damaged}");
        assert_eq!(out, b"before", "{damaged}");
    }
}

#[test]
fn stripped_state_has_four_fields() {
    let mut room = Room::new(RoomVersion::V12, "a");
    let name = room.send("a", "m.room.name", Some(""), json!({"name": "hall"})).unwrap();
    let mut out = Vec::new();
    write_stripped_event(&mut out, name.json()).unwrap();
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"{"content":{"name":"hall"},"sender":"@a:domain","state_key":"","type":"m.room.name"}"#
    );
}

#[test]
fn state_of_every_version_keeps_its_key_and_content() {
    for version in RoomVersion::ALL {
        let room = Room::new(version, "a");
        let id = room.state.get("m.room.member", user("a").as_str()).unwrap();
        let member = &room.events[id];
        let view = ClientView {
            event_id: id.as_str(),
            room_id: Some(member.room_id().as_str()),
            now_ms: 7,
            ..ClientView::default()
        };
        let shown: Value = serde_json::from_str(&written(member.json(), &view)).unwrap();
        assert_eq!(
            shown,
            json!({
                "content": {"membership": "join"}, "event_id": id.as_str(),
                "origin_server_ts": 2, "room_id": room.create.room_id().as_str(),
                "sender": "@a:domain", "state_key": "@a:domain", "type": "m.room.member",
                "unsigned": {"age": 5},
            })
        );
    }
}
