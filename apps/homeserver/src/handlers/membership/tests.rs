//! Memberships from the client's side: what happens, what is refused and how.

use serde_json::{Value, json};

use super::{Change, forget, joined_rooms, resolve};
use crate::handlers::test_rooms::{TestRooms, errcode, user};
use crate::model::RoomVersion;

#[test]
fn invited_people_join_and_leave() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create("a", json!({}));
    rooms.set_profile("b", "Bob");
    assert_eq!(errcode(rooms.step(&room_id, "b", "b", Change::Join)), "FORBIDDEN");
    rooms.step(&room_id, "a", "b", Change::Invite).unwrap();
    assert_eq!(rooms.content(&room_id, "m.room.member", "@b:hs")["displayname"], "Bob");
    rooms.step(&room_id, "b", "b", Change::Join).unwrap();
    assert_eq!(rooms.membership(&room_id, "b"), "join");
    let events = rooms.history(&room_id).len();
    rooms.step(&room_id, "b", "b", Change::Join).expect("joining again");
    assert_eq!(rooms.history(&room_id).len(), events, "makes no event");

    let joined = rooms.read(|txn| Ok(joined_rooms(txn, &user("b"))?)).unwrap();
    assert_eq!(joined, std::slice::from_ref(&room_id));
    rooms.step(&room_id, "b", "b", Change::Leave).unwrap();
    rooms.step(&room_id, "b", "b", Change::Leave).expect("leaving again does nothing");
    assert_eq!(rooms.membership(&room_id, "b"), "leave");
    assert_eq!(rooms.history(&room_id).len(), events + 1);
    assert!(rooms.read(|txn| Ok(joined_rooms(txn, &user("b"))?)).unwrap().is_empty());
    assert_eq!(errcode(rooms.step(&room_id, "b", "b", Change::Join)), "FORBIDDEN", "once only");
}

#[test]
fn refusals_name_the_reason() {
    use Change::{Ban, Invite, Join, Kick, Leave, Unban};
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b", "c"], json!({}));
    rooms.step(&room_id, "a", "d", Ban).unwrap();
    rooms.step(&room_id, "c", "c", Leave).unwrap();
    for (why, sender, target, change, expected) in [
        ("without power", "b", "a", Kick, "FORBIDDEN"),
        ("without power", "b", "a", Ban, "FORBIDDEN"),
        ("without power", "b", "d", Unban, "FORBIDDEN"),
        ("without power", "b", "e", Invite, "FORBIDDEN"),
        ("not in the room", "e", "f", Invite, "FORBIDDEN"),
        ("not in the room", "e", "b", Kick, "FORBIDDEN"),
        ("not in the room", "e", "e", Leave, "FORBIDDEN"),
        ("joined already", "a", "b", Invite, "FORBIDDEN"),
        ("banned", "a", "d", Invite, "FORBIDDEN"),
        ("banned", "d", "d", Join, "FORBIDDEN"),
        ("banned", "d", "d", Leave, "FORBIDDEN"),
        ("a kick is no unban", "a", "d", Kick, "BAD_STATE"),
        ("not banned", "a", "b", Unban, "BAD_STATE"),
        ("never seen", "a", "e", Unban, "BAD_STATE"),
        ("has left", "a", "c", Kick, "FORBIDDEN"),
        ("never seen", "a", "e", Kick, "FORBIDDEN"),
        ("elsewhere", "a", "e:elsewhere", Invite, "FORBIDDEN"),
    ] {
        let events = rooms.history(&room_id).len();
        let code = errcode(rooms.step(&room_id, sender, target, change));
        assert_eq!(code, expected, "{sender} {change:?} {target}: {why}");
        assert_eq!(rooms.history(&room_id).len(), events, "{sender} {change:?} {target}");
    }
    rooms.step(&room_id, "a", "d", Unban).unwrap();
    assert_eq!(rooms.membership(&room_id, "d"), "leave");
    rooms.step(&room_id, "d", "d", Join).expect("let in again");
    rooms.step(&room_id, "a", "d", Kick).unwrap();
    assert_eq!(rooms.membership(&room_id, "d"), "leave");
    let nowhere = ruma::RoomId::parse("!nowhere:hs").unwrap();
    assert_eq!(errcode(rooms.step(&nowhere, "a", "a", Join)), "NOT_FOUND");
    for change in [Leave, Invite, Kick, Ban, Unban] {
        assert_eq!(errcode(rooms.step(&nowhere, "a", "b", change)), "FORBIDDEN");
    }
}

#[test]
fn rooms_are_joined_by_alias() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create("a", json!({"room_alias_name": "hall", "preset": "public_chat"}));
    for (name, expected) in [
        ("#hall:hs", Ok(room_id.clone())),
        (room_id.as_str(), Ok(room_id.clone())),
        ("#nowhere:hs", Err("NOT_FOUND")),
        ("#hall:elsewhere", Err("NOT_FOUND")),
    ] {
        let name = ruma::RoomOrAliasId::parse(name).unwrap();
        let found = rooms.write(move |txn, tools| resolve(txn, &name, tools));
        match expected {
            Ok(expected) => assert_eq!(found.unwrap(), expected),
            Err(code) => assert_eq!(errcode(found), code),
        }
    }
}

#[test]
fn only_rooms_that_were_left_can_be_forgotten() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b"], json!({}));
    let forget_as = |rooms: &mut TestRooms, who: &str, room_id: &ruma::RoomId| {
        let (who, room_id) = (user(who), room_id.to_owned());
        rooms.write(move |txn, _| forget(txn, &who, &room_id))
    };
    assert_eq!(errcode(forget_as(&mut rooms, "b", &room_id)), "UNKNOWN");
    forget_as(&mut rooms, "c", &room_id).expect("nothing to forget");
    rooms.step(&room_id, "b", "b", Change::Leave).unwrap();
    forget_as(&mut rooms, "b", &room_id).unwrap();
    forget_as(&mut rooms, "b", &room_id).expect("again");
    let nowhere = ruma::RoomId::parse("!nowhere:hs").unwrap();
    assert_eq!(errcode(forget_as(&mut rooms, "b", &nowhere)), "NOT_FOUND");
    rooms.step(&room_id, "b", "b", Change::Join).expect("and can be joined again");
    assert_eq!(errcode(forget_as(&mut rooms, "b", &room_id)), "UNKNOWN");
}

#[test]
fn a_restricted_room_opens_to_members_of_another() {
    for version in [RoomVersion::V8, RoomVersion::V10, RoomVersion::V12] {
        let mut rooms = TestRooms::new();
        let club = rooms.create_with("a", &["b"], json!({}));
        let inner = rooms.create(
            "a",
            json!({
                "room_version": version.as_str(),
                "initial_state": [{"type": "m.room.join_rules", "content": {
                    "join_rule": "restricted",
                    "allow": [
                        {"type": "x.unknown"}, 7,
                        {"type": "m.room_membership", "room_id": club.as_str()},
                    ],
                }}],
            }),
        );
        assert_eq!(errcode(rooms.step(&inner, "c", "c", Change::Join)), "FORBIDDEN");
        rooms.step(&inner, "b", "b", Change::Join).expect("is in the club");
        let member = rooms.content(&inner, "m.room.member", "@b:hs");
        assert_eq!(member["join_authorised_via_users_server"], "@a:hs", "{version}");
        rooms.step(&inner, "a", "c", Change::Invite).unwrap();
        rooms.step(&inner, "c", "c", Change::Join).expect("invited");
        let member = rooms.content(&inner, "m.room.member", "@c:hs");
        assert_eq!(member["join_authorised_via_users_server"], Value::Null);
    }
}

#[test]
fn a_new_profile_shows_in_the_room_when_joined_again() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b"], json!({}));
    rooms.set_profile("b", "Bob");
    rooms.step(&room_id, "b", "b", Change::Join).unwrap();
    assert_eq!(rooms.content(&room_id, "m.room.member", "@b:hs")["displayname"], "Bob");
    assert_eq!(rooms.membership(&room_id, "b"), "join");
}
