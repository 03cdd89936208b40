//! Authorisation: who may do what, in the versions where it differs.

use serde_json::{Value, json};

use super::rooms::{Room, user};
use crate::model::RoomVersion;

/// A room of `a` with power levels, join rule `rule`, and the moderator `m` (50) and `b` joined.
fn room(version: RoomVersion, rule: Value) -> Room {
    let mut room = Room::new(version, "a");
    let mut users = json!({"@m:domain": 50});
    if !version.creators_are_privileged() {
        users["@a:domain"] = 100.into();
    }
    room.send("a", "m.room.power_levels", Some(""), json!({"users": users})).unwrap();
    room.send("a", "m.room.join_rules", Some(""), json!({"join_rule": "public"})).unwrap();
    room.member("m", "m", "join").unwrap();
    room.member("b", "b", "join").unwrap();
    room.send("a", "m.room.join_rules", Some(""), rule).unwrap();
    room
}

fn invite_only(version: RoomVersion) -> Room {
    room(version, json!({"join_rule": "invite"}))
}

#[test]
fn membership_changes_follow_the_rules_in_every_version() {
    for version in RoomVersion::ALL {
        // Each row starts from a fresh copy: what happened before, then the step, then whether it
        // is allowed.
        type Step = (&'static str, &'static str, &'static str);
        let base = invite_only(version);
        let rows: &[(&str, &[Step], Step, bool)] = &[
            ("a stranger joins an invite-only room", &[], ("c", "c", "join"), false),
            ("the invited join", &[("b", "c", "invite")], ("c", "c", "join"), true),
            ("nobody joins for another", &[("b", "c", "invite")], ("b", "c", "join"), false),
            ("a forged leave of another", &[], ("b", "m", "leave"), false),
            ("a stranger invites", &[], ("c", "d", "invite"), false),
            ("inviting the joined", &[], ("a", "b", "invite"), false),
            ("a moderator kicks", &[], ("m", "b", "leave"), true),
            ("an equal cannot be kicked", &[], ("m", "m", "ban"), false),
            ("the creator cannot be kicked", &[], ("m", "a", "leave"), false),
            ("the creator cannot be banned", &[], ("m", "a", "ban"), false),
            ("a user without power bans", &[], ("b", "c", "ban"), false),
            ("a ban in advance", &[], ("m", "c", "ban"), true),
            ("the banned join", &[("m", "b", "ban")], ("b", "b", "join"), false),
            ("the banned leave", &[("m", "b", "ban")], ("b", "b", "leave"), false),
            ("inviting the banned", &[("m", "b", "ban")], ("a", "b", "invite"), false),
            ("unbanning without power", &[("m", "c", "ban")], ("b", "c", "leave"), false),
            ("unbanning", &[("m", "c", "ban")], ("m", "c", "leave"), true),
            ("leaving a room one is not in", &[], ("c", "c", "leave"), false),
            ("leaving", &[], ("b", "b", "leave"), true),
            ("refusing an invite", &[("b", "c", "invite")], ("c", "c", "leave"), true),
            ("an unknown membership", &[], ("b", "b", "lurk"), false),
        ];
        for (why, before, (sender, target, membership), allowed) in rows {
            let mut room = base.clone();
            for (sender, target, membership) in *before {
                room.member(sender, target, membership).expect(why);
            }
            let result = room.member(sender, target, membership);
            assert_eq!(result.is_ok(), *allowed, "{why} in version {version}: {result:?}");
        }
    }
}

#[test]
fn power_cannot_be_escalated() {
    for version in RoomVersion::ALL {
        let base = invite_only(version);
        let levels = |users: Value| {
            let mut content = json!({"users": users});
            if !version.creators_are_privileged() {
                content["users"]["@a:domain"] = 100.into();
            }
            content
        };
        for (why, sender, content, allowed) in [
            ("a user without power", "b", levels(json!({"@m:domain": 50})), false),
            ("raising oneself", "m", levels(json!({"@m:domain": 100})), false),
            (
                "raising another above oneself",
                "m",
                levels(json!({"@m:domain": 50, "@b:domain": 51})),
                false,
            ),
            (
                "raising another to one's own level",
                "m",
                levels(json!({"@m:domain": 50, "@b:domain": 50})),
                true,
            ),
            ("lowering oneself", "m", levels(json!({"@m:domain": 49})), true),
            (
                "raising a threshold above oneself",
                "m",
                {
                    let mut content = levels(json!({"@m:domain": 50}));
                    content["ban"] = 51.into();
                    content
                },
                false,
            ),
            (
                "an event's level above oneself",
                "m",
                {
                    let mut content = levels(json!({"@m:domain": 50}));
                    content["events"] = json!({"m.room.name": 51});
                    content
                },
                false,
            ),
            (
                "a notification level above oneself",
                "m",
                {
                    let mut content = levels(json!({"@m:domain": 50}));
                    content["notifications"] = json!({"room": 51});
                    content
                },
                false,
            ),
            ("a level that is no number", "a", json!({"users": {"@m:domain": "much"}}), false),
            ("a user id that is none", "a", levels(json!({"m": 50})), false),
        ] {
            let result = base.clone().send(sender, "m.room.power_levels", Some(""), content);
            assert_eq!(result.is_ok(), allowed, "{why} in version {version}: {result:?}");
        }
        let mut demoted = base.clone();
        if version.creators_are_privileged() {
            let named = json!({"users": {"@a:domain": 100, "@m:domain": 50}});
            demoted
                .send("a", "m.room.power_levels", Some(""), named)
                .expect_err("a creator must not be listed");
        } else {
            let equal = json!({"users": {"@a:domain": 100, "@m:domain": 100}});
            demoted.send("a", "m.room.power_levels", Some(""), equal).unwrap();
            let lower = json!({"users": {"@a:domain": 100, "@m:domain": 50}});
            demoted
                .send("a", "m.room.power_levels", Some(""), lower)
                .expect_err("an equal cannot be lowered");
        }
    }
}

#[test]
fn string_levels_are_read_up_to_version_9() {
    for version in RoomVersion::ALL {
        let mut room = Room::new(version, "a");
        let mut users = json!({"@m:domain": " +50 "});
        if !version.creators_are_privileged() {
            users["@a:domain"] = 100.into();
        }
        let result = room.send("a", "m.room.power_levels", Some(""), json!({"users": users}));
        assert_eq!(result.is_ok(), version < RoomVersion::V10, "{version}: {result:?}");
    }
}

#[test]
fn without_power_levels_only_creators_send_state() {
    for version in RoomVersion::ALL {
        let mut room = Room::new(version, "a");
        room.send("a", "m.room.join_rules", Some(""), json!({"join_rule": "public"})).unwrap();
        room.member("b", "b", "join").unwrap();
        room.send("b", "m.room.message", None, json!({})).expect("messages need no level");
        room.send("b", "m.room.name", Some(""), json!({"name": "x"})).expect_err("state does");
        room.send("a", "m.room.name", Some(""), json!({"name": "x"})).expect("the creator has it");
    }
}

#[test]
fn additional_creators_share_the_power_of_version_12() {
    let content = json!({"additional_creators": ["@b:domain"]});
    let mut room = Room::with_content(RoomVersion::V12, "a", content);
    room.send("a", "m.room.join_rules", Some(""), json!({"join_rule": "public"})).unwrap();
    room.member("b", "b", "join").unwrap();
    room.send("b", "m.room.name", Some(""), json!({"name": "x"})).expect("infinite power");
    room.member("a", "b", "leave").expect_err("nobody is above a creator");
    let listed = json!({"users": {"@b:domain": 100}});
    room.send("a", "m.room.power_levels", Some(""), listed).expect_err("nor listed");
}

#[test]
fn state_keys_that_are_user_ids_belong_to_their_user() {
    let mut room = Room::new(RoomVersion::V12, "a");
    room.send("a", "x", Some(user("b").as_str()), json!({})).expect_err("another's");
    room.send("a", "x", Some(user("a").as_str()), json!({})).expect("one's own");
}

#[test]
fn strangers_and_the_banned_cannot_speak() {
    for version in RoomVersion::ALL {
        let mut room = invite_only(version);
        room.send("c", "m.room.message", None, json!({})).expect_err("a stranger");
        room.member("b", "c", "invite").unwrap();
        room.send("c", "m.room.message", None, json!({})).expect_err("only invited");
        room.member("m", "b", "ban").unwrap();
        room.send("b", "m.room.message", None, json!({})).expect_err("banned");
    }
}

#[test]
fn knocking_begins_with_version_7() {
    for version in RoomVersion::ALL {
        let mut room = room(version, json!({"join_rule": "knock"}));
        let result = room.member("c", "c", "knock");
        assert_eq!(result.is_ok(), version >= RoomVersion::V7, "{version}: {result:?}");
        if result.is_ok() {
            room.member("c", "c", "join").expect_err("knocking is not joining");
            room.member("c", "c", "leave").expect("a knock can be taken back");
            room.member("c", "d", "knock").expect_err("nobody knocks for another");
            room.member("b", "b", "knock").expect_err("the joined do not knock");
        }
    }
    for version in RoomVersion::ALL {
        let rule = json!({"join_rule": "knock_restricted", "allow": []});
        let result = room(version, rule).member("c", "c", "knock");
        assert_eq!(result.is_ok(), version >= RoomVersion::V10, "{version}: {result:?}");
    }
}

#[test]
fn restricted_joins_need_a_joined_user_with_invite_power() {
    for version in RoomVersion::ALL {
        let rule = json!({"join_rule": "restricted", "allow": []});
        let base = room(version, rule);
        let join = |authorising: Option<&str>| {
            let mut room = base.clone();
            let mut content = json!({"membership": "join"});
            if let Some(name) = authorising {
                content["join_authorised_via_users_server"] = user(name).as_str().into();
            }
            room.send("c", "m.room.member", Some(user("c").as_str()), content)
        };
        let allowed = version >= RoomVersion::V8;
        assert_eq!(join(Some("b")).is_ok(), allowed, "{version}");
        join(None).expect_err("nobody vouches");
        join(Some("d")).expect_err("the vouching user is not in the room");
    }
}

#[test]
fn rooms_may_keep_other_servers_out() {
    let content = json!({"m.federate": false});
    let mut room = Room::with_content(RoomVersion::V12, "a", content);
    room.send("a", "m.room.join_rules", Some(""), json!({"join_rule": "public"})).unwrap();
    room.member("b:elsewhere", "b:elsewhere", "join").expect_err("not federated");
    room.member("b", "b", "join").expect("local");
}
