//! Aliases and the list of public rooms.

use ruma::{RoomAliasId, RoomId, UInt};
use serde_json::json;

use super::public_rooms::{Page, Query, public_rooms};
use super::{ReadCaches, add, may_change_aliases, remove};
use crate::handlers::Refusal;
use crate::handlers::membership::Change;
use crate::handlers::test_rooms::{TestRooms, errcode, user};
use crate::storage::databases::main::{room_aliases, rooms as room_rows};

fn try_add(rooms: &mut TestRooms, who: &str, alias: &str, room_id: &RoomId) -> Result<(), Refusal> {
    let (who, alias) = (user(who), RoomAliasId::parse(alias).unwrap());
    let room_id = room_id.to_owned();
    rooms.write(move |txn, tools| add(txn, tools, &who, &alias, &room_id))
}

fn try_remove(rooms: &mut TestRooms, who: &str, alias: &str) -> Result<(), Refusal> {
    let (who, alias) = (user(who), RoomAliasId::parse(alias).unwrap());
    rooms.write(move |txn, tools| remove(txn, tools, &who, &alias))
}

fn aliases(rooms: &TestRooms, room_id: &RoomId) -> Vec<String> {
    let found = rooms.read(|txn| Ok(room_aliases::of_room(txn, room_id)?)).unwrap();
    found.into_iter().map(String::from).collect()
}

#[test]
fn members_make_aliases_and_makers_or_the_powerful_remove_them() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b", "c"], json!({}));
    try_add(&mut rooms, "b", "#z:hs", &room_id).unwrap();
    try_add(&mut rooms, "b", "#y:hs", &room_id).unwrap();
    assert_eq!(aliases(&rooms, &room_id), ["#y:hs", "#z:hs"]);
    assert!(matches!(try_add(&mut rooms, "a", "#z:hs", &room_id), Err(Refusal::Taken { .. })));
    assert_eq!(errcode(try_add(&mut rooms, "a", "#x:elsewhere", &room_id)), "INVALID_PARAM");
    assert_eq!(errcode(try_add(&mut rooms, "d", "#x:hs", &room_id)), "FORBIDDEN");
    let nowhere = RoomId::parse("!nowhere:hs").unwrap();
    assert_eq!(errcode(try_add(&mut rooms, "a", "#x:hs", &nowhere)), "FORBIDDEN");

    assert_eq!(errcode(try_remove(&mut rooms, "c", "#z:hs")), "FORBIDDEN");
    assert_eq!(errcode(try_remove(&mut rooms, "d", "#z:hs")), "FORBIDDEN");
    assert_eq!(errcode(try_remove(&mut rooms, "a", "#x:hs")), "NOT_FOUND");
    try_remove(&mut rooms, "b", "#z:hs").expect("made it");
    try_remove(&mut rooms, "a", "#y:hs").expect("has the power");
    assert!(aliases(&rooms, &room_id).is_empty());
}

#[test]
fn a_removed_alias_leaves_the_rooms_own_list_too() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b"], json!({"room_alias_name": "main"}));
    try_add(&mut rooms, "b", "#other:hs", &room_id).unwrap();
    let content = json!({"alias": "#main:hs", "alt_aliases": ["#other:hs", "#main:hs"]});
    rooms.set_state(&room_id, "a", "m.room.canonical_alias", "", content).unwrap();
    try_remove(&mut rooms, "b", "#other:hs").expect("made it");
    let state = |rooms: &TestRooms| rooms.content(&room_id, "m.room.canonical_alias", "");
    assert_eq!(state(&rooms)["alt_aliases"], json!(["#other:hs", "#main:hs"]), "has no power");
    try_remove(&mut rooms, "a", "#main:hs").unwrap();
    assert_eq!(state(&rooms), json!({"alt_aliases": ["#other:hs"]}));
}

#[test]
fn listing_needs_the_power_over_the_main_alias() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b"], json!({}));
    for (who, expected) in [("a", true), ("b", false), ("c", false)] {
        let may = rooms.read(|txn| {
            let room = room_rows::find(txn, &room_id)?.expect("a room");
            Ok(may_change_aliases(txn, &room, &user(who))?)
        });
        assert_eq!(may.unwrap(), expected, "{who}");
    }
}

fn page(rooms: &TestRooms, query: Query) -> Page {
    rooms.read(|txn| Ok(public_rooms(txn, &ReadCaches::default(), &query)?)).unwrap()
}

fn names(page: &Page) -> Vec<&str> {
    page.chunk.iter().map(|room| room.name.as_deref().unwrap_or("")).collect()
}

/// Five listed rooms, `r0` with one member up to `r4` with five.
fn listed() -> TestRooms {
    let mut rooms = TestRooms::new();
    for size in 0..5_usize {
        let body = json!({
            "visibility": "public", "name": format!("r{size}"),
            "topic": if size % 2 == 0 { "Even" } else { "odd" },
        });
        rooms.create_with("a", &["b", "c", "d", "e"][..size], body);
    }
    rooms
}

#[test]
fn pages_go_from_large_to_small_and_back() {
    let rooms = listed();
    let two = UInt::from(2_u32);
    let ask = |since: Option<String>| Query { limit: Some(two), since, ..Query::default() };
    let first = page(&rooms, ask(None));
    assert_eq!((names(&first), first.total), (vec!["r4", "r3"], UInt::from(5_u32)));
    assert_eq!(first.prev_batch, None);
    assert_eq!(first.chunk[0].num_joined_members, UInt::from(5_u32));
    let second = page(&rooms, ask(first.next_batch));
    assert_eq!(names(&second), ["r2", "r1"]);
    let third = page(&rooms, ask(second.next_batch.clone()));
    assert_eq!((names(&third), &third.next_batch), (vec!["r0"], &None));
    let back = page(&rooms, ask(third.prev_batch));
    assert_eq!(names(&back), ["r2", "r1"]);
    let front = page(&rooms, ask(back.prev_batch));
    assert_eq!((names(&front), &front.prev_batch), (vec!["r4", "r3"], &None));
    let again = page(&rooms, ask(front.next_batch));
    assert_eq!(names(&again), ["r2", "r1"]);
    for wrong in ["", "x", "f", "f1", "fx_!a:b", "f1_nothing", "é"] {
        let query = ask(Some(wrong.to_owned()));
        let result = rooms.read(|txn| Ok(public_rooms(txn, &ReadCaches::default(), &query)?));
        assert_eq!(errcode(result), "INVALID_PARAM", "{wrong:?}");
    }
}

#[test]
fn searching_looks_at_names_topics_and_aliases() {
    let mut rooms = listed();
    let body = json!({"visibility": "public", "room_alias_name": "Garden"});
    rooms.create_with("a", &[], body);
    for (search, expected) in [
        ("EVEN", vec!["r4", "r2", "r0"]),
        ("r3", vec!["r3"]),
        ("garden", vec![""]),
        ("nothing", vec![]),
        ("  ", vec!["r4", "r3", "r2", "r1", "r0", ""]),
    ] {
        let query = Query { search: Some(search.to_owned()), ..Query::default() };
        let found = page(&rooms, query);
        let mut found = names(&found);
        let mut expected = expected;
        // Rooms of one size are in the order of their ids.
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{search:?}");
    }
    let query = Query { search: Some("x".repeat(600)), ..Query::default() };
    assert_eq!(
        errcode(rooms.read(|txn| Ok(public_rooms(txn, &ReadCaches::default(), &query)?))),
        "INVALID_PARAM"
    );
}

#[test]
fn rooms_that_nobody_can_use_are_not_shown() {
    let mut rooms = TestRooms::new();
    let closed = json!({"visibility": "public", "preset": "private_chat", "name": "closed"});
    let room_id = rooms.create("a", closed);
    let empty = rooms.create("a", json!({"visibility": "public", "name": "empty"}));
    rooms.create("a", json!({"name": "unlisted", "preset": "public_chat"}));
    rooms.step(&empty, "a", "a", Change::Leave).unwrap();
    assert!(page(&rooms, Query::default()).chunk.is_empty());
    let readable = json!({"history_visibility": "world_readable"});
    rooms.set_state(&room_id, "a", "m.room.history_visibility", "", readable).unwrap();
    assert_eq!(names(&page(&rooms, Query::default())), ["closed"]);
}

#[test]
fn entries_tell_what_the_state_says_and_survive_nonsense() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with(
        "a",
        &[],
        json!({
            "visibility": "public", "room_alias_name": "hall",
            "creation_content": {"type": "m.space"},
            "initial_state": [
                {"type": "m.room.avatar", "content": {"url": "mxc://hs/a"}},
                {"type": "m.room.name", "content": {"name": ["no", "text"]}},
                {"type": "m.room.topic", "content": {"topic": 7}},
            ],
        }),
    );
    let found = page(&rooms, Query::default());
    assert_eq!(
        serde_json::to_value(&found.chunk).unwrap(),
        json!([{
            "avatar_url": "mxc://hs/a", "canonical_alias": "#hall:hs", "guest_can_join": false,
            "num_joined_members": 1, "room_id": room_id.as_str(), "room_type": "m.space",
            "world_readable": false,
        }])
    );
    let spaces: Query = Query {
        room_types: serde_json::from_value::<Vec<Option<String>>>(json!(["m.space"]))
            .unwrap()
            .into_iter()
            .map(ruma::directory::RoomTypeFilter::from)
            .collect(),
        ..Query::default()
    };
    assert_eq!(page(&rooms, spaces).chunk.len(), 1);
    let plain = Query {
        room_types: vec![ruma::directory::RoomTypeFilter::from(None::<String>)],
        ..Query::default()
    };
    assert_eq!(page(&rooms, plain).chunk.len(), 0);
}
