//! What redaction keeps, by version; and power levels.

use serde_json::{Value, json};

use super::rooms::{Room, user};
use crate::model::redact::redacted_json;
use crate::model::{Pdu, PowerLevels, RoomVersion};

#[test]
fn content_keeps_what_the_version_says() {
    // Type, content, and by version (first, last) what is kept of the content.
    type Row = (&'static str, Value, &'static [(u8, u8, &'static [&'static str])]);
    let all = json!({
        "membership": "join", "displayname": "x", "join_authorised_via_users_server": "@a:b",
        "creator": "@a:b", "room_version": "11", "join_rule": "public", "allow": [],
        "ban": 1, "events": {}, "events_default": 1, "kick": 1, "redact": 1, "state_default": 1,
        "users": {}, "users_default": 1, "invite": 1, "notifications": {}, "aliases": [],
        "history_visibility": "shared", "redacts": "$x", "body": "secret",
    });
    let rows: &[Row] = &[
        (
            "m.room.member",
            all.clone(),
            &[
                (6, 8, &["membership"]),
                (9, 12, &["membership", "join_authorised_via_users_server"]),
            ],
        ),
        (
            "m.room.create",
            json!({"creator": "@a:b", "room_version": "x", "other": 1}),
            &[(6, 10, &["creator"]), (11, 12, &["creator", "room_version", "other"])],
        ),
        (
            "m.room.join_rules",
            all.clone(),
            &[(6, 7, &["join_rule"]), (8, 12, &["join_rule", "allow"])],
        ),
        (
            "m.room.power_levels",
            all.clone(),
            &[
                (
                    6,
                    10,
                    &[
                        "ban",
                        "events",
                        "events_default",
                        "kick",
                        "redact",
                        "state_default",
                        "users",
                        "users_default",
                    ],
                ),
                (
                    11,
                    12,
                    &[
                        "ban",
                        "events",
                        "events_default",
                        "kick",
                        "redact",
                        "state_default",
                        "users",
                        "users_default",
                        "invite",
                    ],
                ),
            ],
        ),
        ("m.room.aliases", all.clone(), &[(6, 12, &[])]),
        ("m.room.history_visibility", all.clone(), &[(6, 12, &["history_visibility"])]),
        ("m.room.redaction", all.clone(), &[(6, 10, &[]), (11, 12, &["redacts"])]),
        ("m.room.message", all.clone(), &[(6, 12, &[])]),
        ("m.room.name", json!({"name": "x"}), &[(6, 12, &[])]),
    ];
    for (event_type, content, kept_by_version) in rows {
        let event = json!({"type": event_type, "content": content});
        for version in RoomVersion::ALL {
            let number: u8 = version.as_str().parse().unwrap();
            let (_, _, kept) = kept_by_version
                .iter()
                .find(|(first, last, _)| (*first..=*last).contains(&number))
                .unwrap();
            let redacted = redacted_json(version, &event.to_string()).unwrap();
            let redacted: Value = serde_json::from_str(&redacted).unwrap();
            let mut expected = json!({});
            for field in *kept {
                expected[*field] = content[*field].clone();
            }
            assert_eq!(redacted["content"], expected, "{event_type} in version {version}");
        }
    }
}

#[test]
fn a_third_party_invite_keeps_its_signed_part_from_version_11() {
    let event = json!({
        "type": "m.room.member",
        "content": {"third_party_invite": {"display_name": "x", "signed": {"token": "t"}}},
    });
    for version in RoomVersion::ALL {
        let redacted: Value =
            serde_json::from_str(&redacted_json(version, &event.to_string()).unwrap()).unwrap();
        let expected = if version >= RoomVersion::V11 {
            json!({"third_party_invite": {"signed": {"token": "t"}}})
        } else {
            json!({})
        };
        assert_eq!(redacted["content"], expected, "{version}");
    }
}

#[test]
fn top_level_fields_are_kept_by_list() {
    let event = json!({
        "type": "x", "content": {"a": 1}, "room_id": "!r", "sender": "@a:b", "state_key": "",
        "hashes": {}, "signatures": {}, "depth": 1, "prev_events": [], "auth_events": [],
        "origin_server_ts": 1, "origin": "b", "membership": "join", "prev_state": [],
        "redacts": "$x", "unsigned": {"age": 1}, "vendor.field": true,
    });
    for version in RoomVersion::ALL {
        let redacted: Value =
            serde_json::from_str(&redacted_json(version, &event.to_string()).unwrap()).unwrap();
        let mut fields: Vec<&str> =
            redacted.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        let mut expected = vec![
            "auth_events",
            "content",
            "depth",
            "hashes",
            "origin_server_ts",
            "prev_events",
            "room_id",
            "sender",
            "signatures",
            "state_key",
            "type",
        ];
        if version < RoomVersion::V11 {
            expected.extend(["membership", "origin", "prev_state"]);
            expected.sort_unstable();
        }
        assert_eq!(fields, expected, "{version}");
    }
}

#[test]
fn redaction_does_not_change_the_event_id() {
    for version in RoomVersion::ALL {
        let mut room = Room::new(version, "a");
        let sent = room.send("a", "m.room.message", None, json!({"body": "secret"})).unwrap();
        let redacted = redacted_json(version, sent.json()).unwrap();
        assert!(!redacted.contains("secret"));
        let again = Pdu::from_foreign(version, &redacted).unwrap();
        assert_eq!(again.event_id(), sent.event_id(), "{version}");
    }
}

#[test]
fn power_levels_know_creators_and_defaults() {
    use crate::model::Action;
    use ruma::Int;
    for version in RoomVersion::ALL {
        let mut room = Room::new(version, "a");
        let bare = PowerLevels::new(version, &room.create, None).unwrap();
        assert_eq!(bare.of_user(&user("b")).unwrap(), Int::from(0));
        assert_eq!(
            bare.of_user(&user("a")).unwrap() > Int::from(100),
            version.creators_are_privileged()
        );
        assert!(bare.of_user(&user("a")).unwrap() >= Int::from(100));
        assert_eq!(bare.for_event("x", Some("")).unwrap(), Int::from(50));
        assert_eq!(bare.for_event("x", None).unwrap(), Int::from(0));
        assert_eq!(bare.for_action(Action::Invite).unwrap(), Int::from(0));
        assert_eq!(bare.for_action(Action::Ban).unwrap(), Int::from(50));

        let mut content = json!({
            "users": {"@b:domain": 30}, "users_default": 5, "events": {"m.room.name": 20},
            "invite": 10, "kick": 40,
        });
        if !version.creators_are_privileged() {
            content["users"]["@a:domain"] = 100.into();
        }
        let event = room.send("a", "m.room.power_levels", Some(""), content).unwrap();
        let set = PowerLevels::new(version, &room.create, Some(event)).unwrap();
        assert_eq!(set.of_user(&user("c")).unwrap(), Int::from(5));
        assert!(set.allow_event(&user("b"), "m.room.name", Some("")).unwrap());
        assert!(!set.allow_event(&user("b"), "m.room.topic", Some("")).unwrap());
        assert!(set.allow(&user("b"), Action::Invite).unwrap());
        assert!(!set.allow(&user("b"), Action::Kick).unwrap());
        assert!(set.allow(&user("a"), Action::Redact).unwrap());
        assert_eq!(set.creators().len(), 1);
    }
}
