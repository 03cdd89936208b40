//! Rooms one is not in, memberships one does not have, powers one may not take.

use serde_json::{Value, json};
use system_tests::matrix::{Person, escape, text};

use super::{Stage, row};

#[test]
fn a_room_is_closed_to_who_is_not_in_it() {
    let stage = Stage::set();
    let Stage { mallory, bob, path, .. } = &stage;
    let (event, me) = (escape(&stage.event), escape(&mallory.id));
    let text = json!({"msgtype": "m.text", "body": "x"});
    let bob_id = json!({"user_id": bob.id});
    let room_id = json!({"room_id": stage.room});
    stage.check(&[
        row(
            "send",
            "PUT",
            format!("{path}/send/m.room.message/m"),
            mallory,
            &text,
            "403 M_FORBIDDEN",
        ),
        row(
            "set state",
            "PUT",
            format!("{path}/state/m.room.name"),
            mallory,
            json!({"name": "x"}),
            "403 M_FORBIDDEN",
        ),
        row("state", "GET", format!("{path}/state"), mallory, "", "403 M_FORBIDDEN"),
        row(
            "one state",
            "GET",
            format!("{path}/state/m.room.create"),
            mallory,
            "",
            "403 M_FORBIDDEN",
        ),
        row(
            "no such state",
            "GET",
            format!("{path}/state/org.none"),
            mallory,
            "",
            "403 M_FORBIDDEN",
        ),
        row("members", "GET", format!("{path}/members"), mallory, "", "403 M_FORBIDDEN"),
        row(
            "joined members",
            "GET",
            format!("{path}/joined_members"),
            mallory,
            "",
            "403 M_FORBIDDEN",
        ),
        row("messages", "GET", format!("{path}/messages?dir=b"), mallory, "", "403 M_FORBIDDEN"),
        row("event", "GET", format!("{path}/event/{event}"), mallory, "", "404 M_NOT_FOUND"),
        row("aliases", "GET", format!("{path}/aliases"), mallory, "", "403 M_FORBIDDEN"),
        row(
            "redact",
            "PUT",
            format!("{path}/redact/{event}/m"),
            mallory,
            json!({}),
            "403 M_FORBIDDEN",
        ),
        row(
            "invite",
            "POST",
            format!("{path}/invite"),
            mallory,
            json!({"user_id": mallory.id}),
            "403 M_FORBIDDEN",
        ),
        row("kick", "POST", format!("{path}/kick"), mallory, &bob_id, "403 M_FORBIDDEN"),
        row("ban", "POST", format!("{path}/ban"), mallory, &bob_id, "403 M_FORBIDDEN"),
        row("unban", "POST", format!("{path}/unban"), mallory, &bob_id, "403 M_BAD_STATE"),
        row("join", "POST", format!("{path}/join"), mallory, json!({}), "403 M_FORBIDDEN"),
        row("leave", "POST", format!("{path}/leave"), mallory, json!({}), "403 M_FORBIDDEN"),
        row(
            "type",
            "PUT",
            format!("{path}/typing/{me}"),
            mallory,
            json!({"typing": true}),
            "403 M_FORBIDDEN",
        ),
        row(
            "receipt",
            "POST",
            format!("{path}/receipt/m.read/{event}"),
            mallory,
            json!({}),
            "403 M_FORBIDDEN",
        ),
        row(
            "read marker",
            "POST",
            format!("{path}/read_markers"),
            mallory,
            json!({"m.fully_read": stage.event}),
            "403 M_FORBIDDEN",
        ),
        row(
            "alias",
            "PUT",
            "directory/room/%23m%3Aropewalk.test",
            mallory,
            &room_id,
            "403 M_FORBIDDEN",
        ),
        row(
            "publish",
            "PUT",
            format!("directory/list/room/{}", escape(&stage.room)),
            mallory,
            json!({"visibility": "public"}),
            "403 M_FORBIDDEN",
        ),
    ]);
    let context = stage.server.get(&format!("{path}/context/{event}"), Some(mallory)).outcome();
    assert!(["403 M_FORBIDDEN", "404 M_NOT_FOUND"].contains(&context.as_str()), "{context}");
    let page = stage.server.get(&format!("{path}/members"), Some(bob)).json();
    assert!(!page.to_string().contains(&mallory.id), "{page}");
}

#[test]
fn what_does_not_exist_is_said_not_to() {
    let stage = Stage::set();
    let Stage { alice, path, .. } = &stage;
    let nowhere = "rooms/%21nowhere%3Aropewalk.test";
    let text = json!({"msgtype": "m.text", "body": "x"});
    stage.check(&[
        row(
            "send",
            "PUT",
            format!("{nowhere}/send/m.room.message/a"),
            alice,
            &text,
            "403 M_FORBIDDEN",
        ),
        row("state", "GET", format!("{nowhere}/state"), alice, "", "403 M_FORBIDDEN"),
        row("messages", "GET", format!("{nowhere}/messages?dir=b"), alice, "", "403 M_FORBIDDEN"),
        row("members", "GET", format!("{nowhere}/members"), alice, "", "403 M_FORBIDDEN"),
        row(
            "invite",
            "POST",
            format!("{nowhere}/invite"),
            alice,
            json!({"user_id": stage.bob.id}),
            "403 M_FORBIDDEN",
        ),
        row("event", "GET", format!("{path}/event/%24nothing"), alice, "", "404 M_NOT_FOUND"),
        row("context", "GET", format!("{path}/context/%24nothing"), alice, "", "404 M_NOT_FOUND"),
        row(
            "state of a type",
            "GET",
            format!("{path}/state/org.none"),
            alice,
            "",
            "404 M_NOT_FOUND",
        ),
        row(
            "alias",
            "GET",
            "directory/room/%23nothing%3Aropewalk.test",
            alice,
            "",
            "404 M_NOT_FOUND",
        ),
        row(
            "join by alias",
            "POST",
            "join/%23nothing%3Aropewalk.test",
            alice,
            json!({}),
            "404 M_NOT_FOUND",
        ),
        row("join, no id", "POST", "join/nothing", alice, json!({}), "400 M_INVALID_PARAM"),
        row("an id of no grammar", "GET", "rooms/nothing/state", alice, "", "400 M_INVALID_PARAM"),
        row(
            "a room version",
            "POST",
            "createRoom",
            alice,
            json!({"room_version": "9000"}),
            "400 M_UNSUPPORTED_ROOM_VERSION",
        ),
        row(
            "an alias with a colon",
            "POST",
            "createRoom",
            alice,
            json!({"room_alias_name": "a:b"}),
            "400 M_INVALID_PARAM",
        ),
        row(
            "somebody else's alias",
            "PUT",
            "directory/room/%23a%3Aelsewhere.test",
            alice,
            json!({"room_id": stage.room}),
            "400 M_INVALID_PARAM",
        ),
    ]);
    let join = stage.server.post(&format!("{nowhere}/join"), Some(alice), &json!({}));
    assert!(matches!(join.status, 403 | 404), "{join}");
}

#[test]
fn nobody_forges_a_membership() {
    let stage = Stage::set();
    let Stage { alice, bob, mallory, path, .. } = &stage;
    let carol = stage.server.register("carol");
    let put = |of: &str| format!("{path}/state/m.room.member/{}", escape(of));
    let to = |membership: &str| json!({"membership": membership});
    stage.check(&[
        row("walking in", "PUT", put(&mallory.id), mallory, to("join"), "403 M_FORBIDDEN"),
        row("inviting oneself", "PUT", put(&mallory.id), mallory, to("invite"), "403 M_FORBIDDEN"),
        row("dragging another in", "PUT", put(&carol.id), bob, to("join"), "403 M_FORBIDDEN"),
        row("even with all power", "PUT", put(&carol.id), alice, to("join"), "403 M_FORBIDDEN"),
        row("kicking without power", "PUT", put(&alice.id), bob, to("leave"), "403 M_FORBIDDEN"),
        row("banning without power", "PUT", put(&alice.id), bob, to("ban"), "403 M_FORBIDDEN"),
        row("knocking for another", "PUT", put(&carol.id), bob, to("knock"), "403 M_FORBIDDEN"),
        row("inviting who is there", "PUT", put(&alice.id), bob, to("invite"), "403 M_FORBIDDEN"),
        row("an invented membership", "PUT", put(&bob.id), bob, to("emperor"), "403 M_FORBIDDEN"),
        row(
            "a membership that is no text",
            "PUT",
            put(&bob.id),
            bob,
            json!({"membership": 5}),
            "403 M_FORBIDDEN",
        ),
        row("no membership", "PUT", put(&bob.id), bob, json!({}), "403 M_FORBIDDEN"),
        row("the member is no user", "PUT", put("nobody"), alice, to("invite"), "400 M_BAD_JSON"),
        row(
            "inviting no user",
            "POST",
            format!("{path}/invite"),
            alice,
            json!({"user_id": "nobody"}),
            "400 M_BAD_JSON",
        ),
        row(
            "unbanning who is not banned",
            "POST",
            format!("{path}/unban"),
            alice,
            json!({"user_id": bob.id}),
            "403 M_BAD_STATE",
        ),
    ]);
    // A ban holds against every way in, and only the powerful lift it.
    let server = &stage.server;
    let ban = server.post(&format!("{path}/ban"), Some(alice), &json!({"user_id": mallory.id}));
    assert_eq!(ban.outcome(), "200");
    let knock = server.post(&format!("knock/{}", escape(&stage.room)), Some(mallory), &json!({}));
    assert!(knock.status >= 400, "{knock}");
    stage.check(&[
        row(
            "inviting the banned",
            "POST",
            format!("{path}/invite"),
            alice,
            json!({"user_id": mallory.id}),
            "403 M_FORBIDDEN",
        ),
        row("the banned leave", "PUT", put(&mallory.id), mallory, to("leave"), "403 M_FORBIDDEN"),
        row("the banned join", "PUT", put(&mallory.id), mallory, to("join"), "403 M_FORBIDDEN"),
        row(
            "lifting without power",
            "POST",
            format!("{path}/unban"),
            bob,
            json!({"user_id": mallory.id}),
            "403 M_FORBIDDEN",
        ),
    ]);
    let members = server.get(&format!("{path}/joined_members"), Some(alice)).json();
    let joined: Vec<&String> = members["joined"].as_object().unwrap().keys().collect();
    assert_eq!(joined, [&alice.id, &bob.id]);
}

/// The room's power levels with some keys replaced.
fn levels(stage: &Stage, changes: Value) -> Value {
    let path = format!("{}/state/m.room.power_levels", stage.path);
    let mut levels = stage.server.get(&path, Some(&stage.alice)).json();
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    levels.as_object_mut().expect("levels are an object").extend(changes);
    levels
}

fn users<const N: usize>(levels: [(&Person, Value); N]) -> Value {
    Value::Object(levels.into_iter().map(|(person, level)| (person.id.clone(), level)).collect())
}

#[test]
fn nobody_takes_power() {
    let stage = Stage::set();
    let Stage { server, alice, bob, path, .. } = &stage;
    let carol = server.register("carol");
    for (person, step) in [(alice, "invite"), (&carol, "join")] {
        let body = json!({"user_id": carol.id});
        assert_eq!(server.post(&format!("{path}/{step}"), Some(person), &body).outcome(), "200");
    }
    let put = format!("{path}/state/m.room.power_levels");
    let set = |changes: Value| levels(&stage, changes);
    stage.check(&[
        row(
            "making oneself powerful",
            "PUT",
            &put,
            bob,
            set(json!({"users": users([(bob, json!(100))])})),
            "403 M_FORBIDDEN",
        ),
        row(
            "making all things easy",
            "PUT",
            &put,
            bob,
            set(json!({"state_default": 0, "ban": 0})),
            "403 M_FORBIDDEN",
        ),
        row(
            "a level as text",
            "PUT",
            &put,
            alice,
            set(json!({"users": users([(bob, json!("50"))])})),
            "403 M_FORBIDDEN",
        ),
        row(
            "a level with a fraction",
            "PUT",
            &put,
            alice,
            set(json!({"ban": 1.5})),
            "400 M_BAD_JSON",
        ),
        row("users as a list", "PUT", &put, alice, set(json!({"users": []})), "403 M_FORBIDDEN"),
        row(
            "a user of no grammar",
            "PUT",
            &put,
            alice,
            set(json!({"users": {"nobody": 50}})),
            "403 M_FORBIDDEN",
        ),
        row(
            "the creator among the users",
            "PUT",
            &put,
            alice,
            set(json!({"users": users([(alice, json!(100))])})),
            "403 M_FORBIDDEN",
        ),
        row(
            "another's state key",
            "PUT",
            format!("{path}/state/org.x/{}", escape(&alice.id)),
            bob,
            json!({}),
            "403 M_FORBIDDEN",
        ),
    ]);

    // With some power, and with the right to set levels, one still cannot go above oneself.
    let some = users([(bob, json!(50)), (&carol, json!(50))]);
    let events = |own: u64| json!({"users": some, "events": {"m.room.power_levels": own}});
    assert_eq!(server.put(&put, alice, &set(events(50))).outcome(), "200");
    let kick = |who: &Person| json!({"user_id": who.id});
    stage.check(&[
        row(
            "raising oneself",
            "PUT",
            &put,
            bob,
            set(json!({"users": users([(bob, json!(51)), (&carol, json!(50))])})),
            "403 M_FORBIDDEN",
        ),
        row(
            "raising another above oneself",
            "PUT",
            &put,
            bob,
            set(json!({"users": users([(bob, json!(50)), (&carol, json!(51))])})),
            "403 M_FORBIDDEN",
        ),
        row(
            "demoting an equal",
            "PUT",
            &put,
            bob,
            set(json!({"users": users([(bob, json!(50)), (&carol, json!(0))])})),
            "403 M_FORBIDDEN",
        ),
        row(
            "dropping an equal",
            "PUT",
            &put,
            bob,
            set(json!({"users": users([(bob, json!(50))])})),
            "403 M_FORBIDDEN",
        ),
        row(
            "raising a level above oneself",
            "PUT",
            &put,
            bob,
            set(json!({"ban": 51})),
            "403 M_FORBIDDEN",
        ),
        row(
            "an event's level above oneself",
            "PUT",
            &put,
            bob,
            set(json!({"events": {"m.room.power_levels": 50, "org.x": 51}})),
            "403 M_FORBIDDEN",
        ),
        row(
            "kicking an equal",
            "POST",
            format!("{path}/kick"),
            bob,
            kick(&carol),
            "403 M_FORBIDDEN",
        ),
        row(
            "banning an equal",
            "POST",
            format!("{path}/ban"),
            bob,
            kick(&carol),
            "403 M_FORBIDDEN",
        ),
        row(
            "kicking the creator",
            "POST",
            format!("{path}/kick"),
            bob,
            kick(alice),
            "403 M_FORBIDDEN",
        ),
        row(
            "banning the creator",
            "POST",
            format!("{path}/ban"),
            bob,
            kick(alice),
            "403 M_FORBIDDEN",
        ),
        row(
            "lowering a level within one's power",
            "PUT",
            &put,
            bob,
            set(json!({"redact": 25})),
            "200",
        ),
    ]);
    let now = server.get(&put, Some(alice)).json();
    assert_eq!(now["users"], some, "{now}");

    // Power can be laid down, and is gone then.
    let less = set(json!({"users": users([(bob, json!(49)), (&carol, json!(50))])}));
    assert_eq!(server.put(&put, bob, &less).outcome(), "200");
    let back = set(json!({"users": some}));
    assert_eq!(server.put(&put, bob, &back).outcome(), "403 M_FORBIDDEN");
    stage.assert_well();
}

#[test]
fn the_beginning_of_a_room_cannot_be_rewritten() {
    let stage = Stage::set();
    let Stage { server, alice, path, .. } = &stage;
    let again = server.put(&format!("{path}/state/m.room.create"), alice, &json!({}));
    assert!(matches!(again.status, 400 | 403), "{again}");
    let state = server.get(&format!("{path}/state"), Some(alice)).json();
    let create = state.as_array().unwrap().iter().find(|event| event["type"] == "m.room.create");
    let create = escape(&text(create.unwrap(), "event_id"));
    stage.check(&[
        row(
            "redacting it",
            "PUT",
            format!("{path}/redact/{create}/a"),
            alice,
            json!({}),
            "403 M_FORBIDDEN",
        ),
        row(
            "a level as text from the start",
            "POST",
            "createRoom",
            alice,
            json!({"power_level_content_override": {"ban": "50"}}),
            "400 M_INVALID_ROOM_STATE",
        ),
        row(
            "a creator among the users from the start",
            "POST",
            "createRoom",
            alice,
            json!({"power_level_content_override": {"users": {alice.id.clone(): 100}}}),
            "400 M_INVALID_ROOM_STATE",
        ),
        row(
            "a creator of no grammar",
            "POST",
            "createRoom",
            alice,
            json!({"creation_content": {"additional_creators": ["nobody"]}}),
            "400 M_BAD_JSON",
        ),
    ]);
    // Sending a state type as a message does not set the state.
    let sent = server.put(&format!("{path}/send/m.room.name/a"), alice, &json!({"name": "x"}));
    assert!(sent.status < 500, "{sent}");
    assert_eq!(
        server.get(&format!("{path}/state/m.room.name"), Some(alice)).outcome(),
        "404 M_NOT_FOUND"
    );
}
