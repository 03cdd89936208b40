//! The event value and its making: the specification's vectors, sizes, formats.

use ruma::signatures::{hash_and_sign_event, reference_hash, sign_json};
use ruma::{EventId, RoomId};
use serde_json::{Value, json};

use super::rooms::{Room, at, object, signer, user};
use crate::model::event::EVENT_BYTES_MAX;
use crate::model::{
    BuildError, CanonicalError, EventDraft, EventError, EventFlags, Pdu, Place, RoomVersion,
};

/// A whole event that passes every check of versions 6 to 11.
fn valid() -> Value {
    json!({
        "auth_events": [], "content": {"body": "hi"}, "depth": 3, "hashes": {"sha256": "x"},
        "origin_server_ts": 1_000_000, "prev_events": ["$a"], "room_id": "!x:domain",
        "sender": "@a:domain", "signatures": {}, "type": "X", "unknown": {"kept": true},
    })
}

fn foreign(version: RoomVersion, value: &Value) -> Result<Pdu, EventError> {
    Pdu::from_foreign(version, &value.to_string())
}

#[test]
fn the_specifications_vectors_hold_in_every_version() {
    let signer = signer("domain");
    assert_eq!(signer.key_id(), "ed25519:1");
    for version in RoomVersion::ALL {
        let rules = version.rules();
        let mut event = object(json!({
            "room_id": "!x:domain", "sender": "@a:domain", "origin": "domain",
            "origin_server_ts": 1_000_000, "type": "X", "content": {}, "prev_events": [],
            "auth_events": [], "depth": 3,
        }));
        hash_and_sign_event("domain", signer.key_pair(), &mut event, &rules.redaction).unwrap();
        let text = Value::from(ruma::CanonicalJsonValue::Object(event.clone()));
        assert_eq!(text["hashes"]["sha256"], "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos");
        let hash = reference_hash(&event, rules).unwrap();
        if version < RoomVersion::V11 {
            assert_eq!(hash, "8yif6p8EqgoSten2BLje9ntKm720NyFLWQv9tn8memc", "{version}");
            assert_eq!(
                text["signatures"]["domain"]["ed25519:1"],
                "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg"
            );
        } else {
            assert_eq!(hash, "70O_oKlXzFbkfu0KE88USi98DjSWrOELrPj-8tisl8I", "{version}");
        }
        if version < RoomVersion::V12 {
            let pdu = Pdu::from_object(version, &event).unwrap();
            assert_eq!(pdu.event_id().as_str(), format!("${hash}"));
        }
    }
}

#[test]
fn the_empty_object_is_signed_as_in_the_specification() {
    let mut empty = object(json!({}));
    let signer = signer("domain");
    sign_json("domain", signer.key_pair(), &mut empty).unwrap();
    assert_eq!(
        serde_json::to_value(empty).unwrap()["signatures"]["domain"]["ed25519:1"],
        "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"
    );
}

#[test]
fn stored_text_is_kept_verbatim_and_read_back() {
    for version in RoomVersion::ALL {
        let mut room = Room::new(version, "a");
        let sent = room.send("a", "m.room.message", None, json!({"body": "ü\u{1}"})).unwrap();
        let read = Pdu::from_stored(
            sent.event_id().to_owned(),
            sent.json().clone(),
            EventFlags::default(),
        )
        .unwrap();
        assert_eq!(read.json(), sent.json());
        assert_eq!(read.room_id(), room.create.room_id());
        assert_eq!(read.content().get(), r#"{"body":"ü\u0001"}"#);
        assert_eq!(read.depth(), 3);
        assert_eq!(read.prev_events(), sent.prev_events());
        // What we made passes for foreign too, and has the same id there.
        let foreign = Pdu::from_foreign(version, sent.json()).unwrap();
        assert_eq!(foreign.event_id(), sent.event_id(), "{version}");
    }
}

#[test]
fn others_find_our_signatures_and_hashes_good() {
    use ruma::serde::Base64;
    use ruma::signatures::{PublicKeyMap, Verified, verify_event};
    let signer = signer("domain");
    let key = Base64::new(signer.public_key().to_vec());
    let keys: PublicKeyMap =
        [("domain".to_owned(), [(signer.key_id().to_owned(), key)].into())].into();
    for version in RoomVersion::ALL {
        let mut room = Room::new(version, "a");
        let message = room.send("a", "m.room.message", None, json!({"body": "hi"})).unwrap();
        let name = room.send("a", "m.room.name", Some(""), json!({"name": "x"})).unwrap();
        for event in [&room.create, &message, &name] {
            let event = object(serde_json::from_str(event.json()).unwrap());
            let verified = verify_event(&keys, &event, version.rules()).expect("verifies");
            assert!(matches!(verified, Verified::All), "{version}");
        }
    }
}

#[test]
fn a_version_12_room_is_named_after_its_create_event() {
    let room = Room::new(RoomVersion::V12, "a");
    let create = &room.create;
    assert_eq!(create.room_id().as_str()[1..], create.event_id().as_str()[1..]);
    assert!(!create.json().contains("room_id"));
    assert_eq!(create.event_id().as_str().len(), 44);
    assert_eq!(ruma::state_res::Event::room_id(&**create), None);

    let room = Room::new(RoomVersion::V11, "a");
    assert!(room.create.json().contains("!room:domain"));
    assert!(ruma::state_res::Event::room_id(&*room.create).is_some());
}

#[test]
fn malformed_events_get_an_error_that_names_the_field() {
    foreign(RoomVersion::V11, &valid()).expect("the good one");
    let with = |field: &str, value: Value| {
        let mut event = valid();
        event[field] = value;
        event
    };
    let without = |field: &str| {
        let mut event = valid();
        event.as_object_mut().unwrap().remove(field);
        event
    };
    let ids = |count: usize| json!((0..count).map(|n| format!("${n}")).collect::<Vec<_>>());
    for (why, event) in [
        ("content is no object", with("content", json!([]))),
        ("content missing", without("content")),
        ("time missing", without("origin_server_ts")),
        ("time is text", with("origin_server_ts", json!("1"))),
        ("time before 1970", with("origin_server_ts", json!(-1))),
        ("depth negative", with("depth", json!(-1))),
        ("depth missing", without("depth")),
        ("hashes missing", without("hashes")),
        ("hash is a number", with("hashes", json!({"sha256": 1}))),
        ("signatures missing", without("signatures")),
        ("sender missing", without("sender")),
        ("sender is no user id", with("sender", json!("a"))),
        ("room id missing", without("room_id")),
        ("room id is no room id", with("room_id", json!("x"))),
        ("type missing", without("type")),
        ("type is a number", with("type", json!(1))),
        ("state key is null", with("state_key", Value::Null)),
        ("21 prev events", with("prev_events", ids(21))),
        ("11 auth events", with("auth_events", ids(11))),
        ("a prev event is a number", with("prev_events", json!([1]))),
        ("an auth event is in the old format", with("auth_events", json!([["$a", {}]]))),
    ] {
        let error = foreign(RoomVersion::V11, &event).expect_err(why);
        assert!(matches!(error, EventError::Format { .. }), "{why}: {error:?}");
    }
    foreign(RoomVersion::V11, &with("prev_events", ids(20))).expect("20 prev events");
    foreign(RoomVersion::V11, &with("auth_events", ids(10))).expect("10 auth events");
    let float = foreign(RoomVersion::V11, &with("content", json!({"a": 1.5}))).unwrap_err();
    assert!(matches!(float, EventError::Json(CanonicalError::NotCanonical { .. })), "{float:?}");
}

#[test]
fn limits_are_in_bytes_and_inclusive() {
    for (field, prefix, suffix) in [
        ("type", "", ""),
        ("state_key", "", ""),
        ("sender", "@", ":domain"),
        ("room_id", "!", ":d"),
    ] {
        let mut event = valid();
        // Two bytes a letter.
        let filler = "é".repeat((255 - prefix.len() - suffix.len()) / 2);
        let odd = (255 - prefix.len() - suffix.len()) % 2;
        event[field] = format!("{prefix}{filler}{}{suffix}", "x".repeat(odd)).into();
        foreign(RoomVersion::V11, &event).expect(field);
        event[field] = format!("{prefix}{filler}{}{suffix}", "x".repeat(odd + 1)).into();
        let error = foreign(RoomVersion::V11, &event).expect_err(field);
        let expected = EventError::TooLarge { what: field, bytes: 256, limit: 255 };
        assert_eq!(error, expected);
    }

    let mut event = valid();
    let bytes_before = event.to_string().len();
    event["content"]["body"] = "x".repeat(2 + EVENT_BYTES_MAX - bytes_before).into();
    assert_eq!(event.to_string().len(), EVENT_BYTES_MAX);
    foreign(RoomVersion::V11, &event).expect("exactly at the limit");
    event["content"]["body"] = "x".repeat(3 + EVENT_BYTES_MAX - bytes_before).into();
    let error = foreign(RoomVersion::V11, &event).unwrap_err();
    assert!(matches!(error, EventError::TooLarge { what: "event", .. }), "{error:?}");
}

#[test]
fn an_event_of_ours_that_grows_too_large_is_refused() {
    let signer = signer("domain");
    let place = || Place {
        room_id: RoomId::parse("!x:domain").unwrap(),
        prev_events: vec![],
        auth_events: vec![],
        depth: 2,
        origin_server_ts: at(1),
    };
    for length in [65_000, 66_000, 200_000] {
        let content = object(json!({"body": "x".repeat(length)}));
        let draft = EventDraft::message(user("a"), "m.room.message", content);
        let result = signer.sign(RoomVersion::V11, draft, place());
        match result {
            Ok(_) => assert_eq!(length, 65_000),
            Err(BuildError::Event(EventError::TooLarge { what, .. })) => assert_eq!(what, "event"),
            Err(error) => panic!("{error:?}"),
        }
    }
    let draft = EventDraft::message(user("a"), "t".repeat(256), object(json!({})));
    let error = signer.sign(RoomVersion::V11, draft, place()).unwrap_err();
    assert!(matches!(error, BuildError::Event(EventError::TooLarge { what: "type", .. })));
}

#[test]
fn redacts_is_read_from_where_the_version_keeps_it_and_tolerates_anything() {
    for (why, beside, inside, old, new) in [
        ("old place", json!("$old"), json!(null), Some("$old"), None),
        ("new place", json!(null), json!("$new"), None, Some("$new")),
        ("both", json!("$old"), json!("$new"), Some("$old"), Some("$new")),
        ("a number", json!(7), json!([]), None, None),
        ("no event id", json!("x"), json!(""), None, None),
        ("neither", json!(null), json!(null), None, None),
    ] {
        let mut event = valid();
        event["type"] = "m.room.redaction".into();
        event["content"] = json!({});
        if !beside.is_null() {
            event["redacts"] = beside;
        }
        if !inside.is_null() {
            event["content"]["redacts"] = inside;
        }
        for version in [RoomVersion::V10, RoomVersion::V11] {
            let expected = if version == RoomVersion::V10 { old } else { new };
            let pdu = foreign(version, &event).expect(why);
            assert_eq!(pdu.redacts(version).map(EventId::as_str), expected, "{why} in {version}");
        }
        event["type"] = "m.room.message".into();
        assert_eq!(foreign(RoomVersion::V10, &event).expect(why).redacts(RoomVersion::V10), None);
    }
}

#[test]
fn a_redaction_of_ours_names_its_target_in_the_place_of_the_version() {
    let signer = signer("domain");
    for version in RoomVersion::ALL {
        let target = EventId::parse("$target").unwrap();
        let draft = EventDraft::redaction(user("a"), target.clone(), Some("spam".to_owned()));
        let place = Place {
            room_id: RoomId::parse("!x:domain").unwrap(),
            prev_events: vec![],
            auth_events: vec![],
            depth: 2,
            origin_server_ts: at(1),
        };
        let pdu = signer.sign(version, draft, place).unwrap();
        assert_eq!(pdu.redacts(version), Some(&*target));
        let in_content = pdu.content().get().contains("redacts");
        assert_eq!(in_content, version >= RoomVersion::V11, "{version}");
        assert_eq!(ruma::state_res::Event::redacts(&pdu), Some(&target));
    }
}
