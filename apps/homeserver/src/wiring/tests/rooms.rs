//! What clients do to rooms, from the HTTP request to the database and back.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

use super::TestServer;

fn server() -> TestServer {
    let server = TestServer::new();
    for name in ["ann", "bob", "eve"] {
        server.add_user(name);
    }
    server
}

fn create(server: &TestServer, who: &str, body: Value) -> String {
    let answer = server.ok("POST", "createRoom", who, body);
    answer["room_id"].as_str().expect("a room id").to_owned()
}

#[test]
fn two_people_talk() {
    let server = server();
    let room = create(&server, "ann", json!({"name": "Hall", "invite": ["@bob:localhost"]}));
    assert_eq!(
        server.refused("POST", &format!("rooms/{room}/join"), "eve", json!({})),
        (403, "M_FORBIDDEN".to_owned())
    );
    // Without a body, as some clients send it.
    let joined = server.ok("POST", &format!("join/{room}"), "bob", Value::Null);
    assert_eq!(joined, json!({"room_id": room}));
    let rooms = server.ok("GET", "joined_rooms", "bob", Value::Null);
    assert_eq!(rooms, json!({"joined_rooms": [room]}));

    let path = format!("rooms/{room}/send/m.room.message/t1");
    let first = server.ok("PUT", &path, "bob", json!({"msgtype": "m.text", "body": "hi"}));
    let again = server.ok("PUT", &path, "bob", json!({"msgtype": "m.text", "body": "hi"}));
    assert_eq!(first, again, "one transaction");
    let other = server.ok("PUT", &path, "ann", json!({"msgtype": "m.text", "body": "hi"}));
    assert_ne!(first, other);

    let event_id = first["event_id"].as_str().expect("an event id");
    let redaction = server.ok(
        "PUT",
        &format!("rooms/{room}/redact/{event_id}/t2"),
        "bob",
        json!({"reason": "typo"}),
    );
    assert!(redaction["event_id"].is_string());
    let redaction_of_another =
        format!("rooms/{room}/redact/{}/t3", other["event_id"].as_str().expect("an event id"));
    assert_eq!(
        server.refused("PUT", &redaction_of_another, "bob", json!({})),
        (403, "M_FORBIDDEN".to_owned())
    );

    for (change, who, body) in [
        ("leave", "bob", json!({"reason": "tired"})),
        ("invite", "ann", json!({"user_id": "@bob:localhost", "reason": "come back"})),
        ("join", "bob", json!({})),
        ("kick", "ann", json!({"user_id": "@bob:localhost"})),
        ("ban", "ann", json!({"user_id": "@bob:localhost", "reason": "spam"})),
        ("unban", "ann", json!({"user_id": "@bob:localhost"})),
        ("forget", "bob", json!({})),
    ] {
        let answer = server.ok("POST", &format!("rooms/{room}/{change}"), who, body);
        if change != "join" {
            assert_eq!(answer, json!({}), "{change}");
        }
    }
    let rooms = server.ok("GET", "joined_rooms", "bob", Value::Null);
    assert_eq!(rooms, json!({"joined_rooms": []}));
}

#[test]
fn state_is_set_and_read_with_and_without_a_key() {
    let server = server();
    let room = create(&server, "ann", json!({}));
    for (path, content) in [
        ("m.room.name", json!({"name": "one"})),
        ("m.room.topic/", json!({"topic": "two"})),
        ("x.y/key", json!({"v": 3})),
        // A key with a slash and a type that ruma takes for another's alias.
        ("org.matrix.call.sdp_stream_metadata_changed/a%2Fb", json!({"v": 4})),
    ] {
        let path = format!("rooms/{room}/state/{path}");
        let set = server.ok("PUT", &path, "ann", content.clone());
        assert_eq!(server.ok("GET", &path, "ann", Value::Null), content, "{path}");
        let event = server.ok("GET", &format!("{path}?format=event"), "ann", Value::Null);
        assert_eq!(event["content"], content);
        assert_eq!(event["event_id"], set["event_id"]);
    }
    let all = server.ok("GET", &format!("rooms/{room}/state"), "ann", Value::Null);
    let all = all.as_array().expect("a list");
    let found = all.iter().find(|event| event["state_key"] == "a/b").expect("the entry");
    assert_eq!(found["type"], "org.matrix.call.sdp_stream_metadata_changed");
    for (path, expected) in
        [("m.room.avatar", (404, "M_NOT_FOUND")), ("x.y/other", (404, "M_NOT_FOUND"))]
    {
        let path = format!("rooms/{room}/state/{path}");
        let refused = server.refused("GET", &path, "ann", Value::Null);
        assert_eq!((refused.0, &*refused.1), expected);
        let refused = server.refused("GET", &path, "bob", Value::Null);
        assert_eq!((refused.0, &*refused.1), (403, "M_FORBIDDEN"));
    }
}

#[test]
fn aliases_and_the_directory() {
    let server = server();
    let room = create(
        &server,
        "ann",
        json!({"preset": "public_chat", "visibility": "public", "name": "Hall"}),
    );
    let alias = "directory/room/%23hall%3Alocalhost";
    server.ok("PUT", alias, "ann", json!({"room_id": room}));
    let refused = server.refused("PUT", alias, "ann", json!({"room_id": room}));
    assert_eq!(refused, (409, "M_UNKNOWN".to_owned()));
    // Looking an alias up needs no account.
    let found = server.ok("GET", alias, "", Value::Null);
    assert_eq!(found, json!({"room_id": room, "servers": ["localhost"]}));
    let joined = server.ok("POST", "join/%23hall%3Alocalhost", "bob", json!({}));
    assert_eq!(joined["room_id"], room);
    let aliases = server.ok("GET", &format!("rooms/{room}/aliases"), "bob", Value::Null);
    assert_eq!(aliases, json!({"aliases": ["#hall:localhost"]}));

    for (method, body) in
        [("GET", Value::Null), ("POST", json!({"filter": {"generic_search_term": "hall"}}))]
    {
        let list = server.ok(method, "publicRooms", "bob", body);
        assert_eq!(list["chunk"][0]["room_id"], room, "{method}");
        assert_eq!(list["chunk"][0]["num_joined_members"], 2);
        assert_eq!(list["total_room_count_estimate"], 1);
    }
    assert_eq!(server.refused("GET", "publicRooms", "", Value::Null).0, 401);
    let listed = format!("directory/list/room/{room}");
    assert_eq!(server.ok("GET", &listed, "", Value::Null), json!({"visibility": "public"}));
    let private = json!({"visibility": "private"});
    assert_eq!(server.refused("PUT", &listed, "bob", private.clone()).0, 403);
    server.ok("PUT", &listed, "ann", private);
    assert_eq!(server.ok("GET", &listed, "", Value::Null), json!({"visibility": "private"}));
    let list = server.ok("GET", "publicRooms", "bob", Value::Null);
    assert_eq!(list["chunk"], json!([]));

    server.ok("DELETE", alias, "ann", Value::Null);
    assert_eq!(server.refused("GET", alias, "", Value::Null), (404, "M_NOT_FOUND".to_owned()));
}

#[test]
fn bad_requests_get_their_errcode() {
    let server = server();
    let room = create(&server, "ann", json!({}));
    let send = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message");
    let state = format!("/_matrix/client/v3/rooms/{room}/state");
    let large = format!(r#"{{"body":"{}"}}"#, "x".repeat(66_000));
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let create = "/_matrix/client/v3/createRoom";
    for (why, method, path, who, body, expected) in [
        ("cut off", "PUT", format!("{send}/1"), "ann", r#"{"body":"#, (400, "M_NOT_JSON")),
        ("no body", "PUT", format!("{send}/1"), "ann", "", (400, "M_NOT_JSON")),
        ("a list", "PUT", format!("{send}/1"), "ann", "[]", (400, "M_BAD_JSON")),
        ("a float", "PUT", format!("{send}/1"), "ann", r#"{"a":1.5}"#, (400, "M_BAD_JSON")),
        ("too deep", "PUT", format!("{send}/1"), "ann", &deep, (400, "M_BAD_JSON")),
        ("too large", "PUT", format!("{send}/1"), "ann", &large, (413, "M_TOO_LARGE")),
        ("not a member", "PUT", format!("{send}/1"), "bob", "{}", (403, "M_FORBIDDEN")),
        ("no token", "PUT", format!("{send}/1"), "", "{}", (401, "M_MISSING_TOKEN")),
        ("a bad token", "PUT", format!("{send}/1"), "nobody", "{}", (401, "M_UNKNOWN_TOKEN")),
        (
            "a float in state",
            "PUT",
            format!("{state}/x"),
            "ann",
            r#"{"a":1.5}"#,
            (400, "M_BAD_JSON"),
        ),
        (
            "an alias that is not ours",
            "PUT",
            format!("{state}/m.room.canonical_alias"),
            "ann",
            r##"{"alias":"#x:localhost"}"##,
            (400, "M_BAD_ALIAS"),
        ),
        (
            "an unknown version",
            "POST",
            create.to_owned(),
            "ann",
            r#"{"room_version":"99"}"#,
            (400, "M_UNSUPPORTED_ROOM_VERSION"),
        ),
        (
            "levels of text",
            "POST",
            create.to_owned(),
            "ann",
            r#"{"initial_state":[{"type":"m.room.power_levels","content":{"users":7}}]}"#,
            (400, "M_INVALID_ROOM_STATE"),
        ),
        (
            "an unban of somebody not banned",
            "POST",
            format!("/_matrix/client/v3/rooms/{room}/unban"),
            "ann",
            r#"{"user_id":"@bob:localhost"}"#,
            (403, "M_BAD_STATE"),
        ),
        (
            "an unknown room",
            "POST",
            "/_matrix/client/v3/join/!nowhere:localhost".to_owned(),
            "ann",
            "{}",
            (404, "M_NOT_FOUND"),
        ),
        (
            "an unknown alias",
            "POST",
            "/_matrix/client/v3/join/%23nowhere:localhost".to_owned(),
            "ann",
            "{}",
            (404, "M_NOT_FOUND"),
        ),
        (
            "no room id",
            "PUT",
            "/_matrix/client/v3/rooms/hall/send/x/1".to_owned(),
            "ann",
            "{}",
            (400, "M_INVALID_PARAM"),
        ),
        (
            "no event id",
            "PUT",
            format!("/_matrix/client/v3/rooms/{room}/redact/x/1"),
            "ann",
            "{}",
            (400, "M_INVALID_PARAM"),
        ),
        (
            "no user id",
            "POST",
            format!("/_matrix/client/v3/rooms/{room}/kick"),
            "ann",
            r#"{"user_id":"bob"}"#,
            (400, "M_BAD_JSON"),
        ),
        (
            "nobody to invite",
            "POST",
            format!("/_matrix/client/v3/rooms/{room}/invite"),
            "ann",
            "{}",
            (400, "M_BAD_JSON"),
        ),
        (
            "forgetting a room one is in",
            "POST",
            format!("/_matrix/client/v3/rooms/{room}/forget"),
            "ann",
            "{}",
            (400, "M_UNKNOWN"),
        ),
    ] {
        let (status, answer) = server.send(method, &path, who, body);
        let errcode = answer["errcode"].as_str().unwrap_or_default();
        assert_eq!((status, errcode), expected, "{why}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|text| !text.is_empty()), "{why}");
    }
}

#[test]
fn sending_is_limited_and_the_wait_is_told() {
    let server = TestServer::with(|_| {});
    server.add_user("ann");
    let room = create(&server, "ann", json!({}));
    let path = |n: usize| format!("rooms/{room}/send/m.room.message/t{n}");
    let mut sent = 0;
    let refused = loop {
        let body = json!({"body": "x"}).to_string();
        let path = format!("/_matrix/client/v3/{}", path(sent));
        let (status, answer) = server.send("PUT", &path, "ann", &body);
        if status != 200 {
            assert_eq!(status, 429);
            break answer;
        }
        sent += 1;
        assert!(sent < 1000, "never limited");
    };
    assert_eq!(refused["errcode"], "M_LIMIT_EXCEEDED");
    let wait = refused["retry_after_ms"].as_u64().expect("a number");
    assert!(wait > 0 && wait <= 1000, "{wait}");
    server.clock.advance(Duration::from_millis(wait));
    server.ok("PUT", &path(sent), "ann", json!({"body": "x"}));
}

#[test]
fn a_new_name_shows_in_all_rooms_of_its_owner() {
    let server = server();
    let public = json!({"preset": "public_chat"});
    let rooms: Vec<String> = (0..3).map(|_| create(&server, "ann", public.clone())).collect();
    for room in &rooms[..2] {
        server.ok("POST", &format!("join/{room}"), "bob", json!({}));
    }
    let name = json!({"displayname": "Bobby"});
    server.ok("PUT", "profile/@bob:localhost/displayname", "bob", name);
    for room in &rooms[..2] {
        let path = format!("rooms/{room}/state/m.room.member/@bob:localhost");
        let member = server.ok("GET", &path, "ann", Value::Null);
        assert_eq!(member, json!({"membership": "join", "displayname": "Bobby"}));
    }
    let path = format!("rooms/{}/state/m.room.member/@bob:localhost", rooms[2]);
    assert_eq!(server.refused("GET", &path, "ann", Value::Null).0, 404, "he is not in that one");
}

#[test]
fn nobody_gives_himself_what_the_rules_keep_from_him() {
    let server = server();
    let room = create(&server, "ann", json!({"preset": "public_chat"}));
    server.ok("POST", &format!("join/{room}"), "bob", json!({}));
    let levels_path = format!("rooms/{room}/state/m.room.power_levels");
    let levels = server.ok("GET", &levels_path, "bob", Value::Null);
    let mut raised = levels.clone();
    raised["users"]["@bob:localhost"] = 100.into();
    let mut lowered = levels.clone();
    lowered["state_default"] = 0.into();
    let mut listed = levels.clone();
    listed["users"]["@ann:localhost"] = 100.into();
    let member = |who: &str| format!("rooms/{room}/state/m.room.member/@{who}:localhost");
    for (why, who, path, body) in [
        ("power for oneself", "bob", levels_path.clone(), raised),
        ("less needed", "bob", levels_path.clone(), lowered),
        ("a creator listed", "ann", levels_path, listed),
        ("eve is made to join", "ann", member("eve"), json!({"membership": "join"})),
        ("ann is made to leave", "bob", member("ann"), json!({"membership": "leave"})),
        ("ann is banned", "bob", member("ann"), json!({"membership": "ban"})),
        ("ann is renamed", "bob", member("ann"), json!({"membership": "join", "displayname": "x"})),
        ("a second beginning", "ann", format!("rooms/{room}/state/m.room.create"), json!({})),
        ("a name", "bob", format!("rooms/{room}/state/m.room.name"), json!({"name": "mine"})),
        ("another's key", "bob", format!("rooms/{room}/state/x/@ann:localhost"), json!({})),
        ("another's room", "eve", format!("rooms/{room}/state/x/@eve:localhost"), json!({})),
    ] {
        let refused = server.refused("PUT", &path, who, body);
        assert_eq!(refused, (403, "M_FORBIDDEN".to_owned()), "{why}");
    }
    let state = server.ok("GET", &format!("rooms/{room}/state"), "ann", Value::Null);
    let members: Vec<&Value> = state
        .as_array()
        .expect("a list")
        .iter()
        .filter(|event| event["type"] == "m.room.member")
        .collect();
    assert_eq!(members.len(), 2);
    assert!(members.iter().all(|event| event["content"]["membership"] == "join"));
}

/// JSON of the sizes and shapes that people and machines get wrong.
fn odd_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0_i64), Just(-1), Just(50), Just(1 << 53), any::<i64>()]
            .prop_map(Value::from),
        Just(json!(1.5)),
        prop_oneof![
            Just("@ann:localhost"),
            Just("@bob:localhost"),
            Just("#x:localhost"),
            Just("join"),
            Just("public"),
            Just("12"),
            Just(""),
            Just("\u{0}"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof![
            Just("users"),
            Just("type"),
            Just("content"),
            Just("state_key"),
            Just("membership"),
            Just("@bob:localhost"),
            Just("allow"),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| {
                map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

/// Whatever comes in gets an answer of the protocol, and what it left behind can be read.
#[test]
fn nonsense_is_refused_and_never_our_fault() {
    let server = server();
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(7),
        ..ProptestConfig::default()
    };
    let fields = prop_oneof![
        Just("creation_content"),
        Just("initial_state"),
        Just("invite"),
        Just("name"),
        Just("power_level_content_override"),
        Just("preset"),
        Just("room_alias_name"),
        Just("room_version"),
        Just("visibility"),
    ];
    let order = prop::collection::btree_map(fields, odd_json(), 0..3);
    let types = prop_oneof![
        Just("m.room.canonical_alias/"),
        Just("m.room.history_visibility"),
        Just("m.room.join_rules/"),
        Just("m.room.member/@bob:localhost"),
        Just("m.room.power_levels"),
        Just("m.room.server_acl/"),
        Just("m.room.topic/"),
    ];
    let changes = prop::collection::vec((types, odd_json()), 0..3);
    let check = |(status, answer): (u16, Value), asked: &str| {
        prop_assert!(matches!(status, 200 | 400 | 403 | 404 | 413), "{}: {}", asked, answer);
        prop_assert_eq!(answer["errcode"].is_string(), status != 200);
        Ok(answer)
    };
    proptest!(config, |(order in order, changes in changes)| {
        let body: Value =
            order.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        let answer = check(
            server.send("POST", "/_matrix/client/v3/createRoom", "ann", &body.to_string()),
            "createRoom",
        )?;
        let Some(room) = answer["room_id"].as_str() else { return Ok(()) };
        let room = format!("/_matrix/client/v3/rooms/{room}");
        for (event_type, content) in changes {
            let path = format!("{room}/state/{event_type}");
            check(server.send("PUT", &path, "ann", &content.to_string()), event_type)?;
        }
        for (method, path) in [
            ("POST", "join"),
            ("GET", "state"),
            ("GET", "aliases"),
            ("PUT", "send/x/1"),
            ("POST", "leave"),
            ("POST", "forget"),
        ] {
            let who = if path == "join" { "bob" } else { "ann" };
            check(server.send(method, &format!("{room}/{path}"), who, "{}"), path)?;
        }
        check(server.send("GET", "/_matrix/client/v3/publicRooms", "ann", ""), "publicRooms")?;
        check(server.send("GET", "/_matrix/client/v3/sync", "ann", ""), "sync")?;
    });
}
