//! Sending: transactions, redactions, and what is refused.

use ruma::{EventId, OwnedEventId};
use serde_json::{Value, json};

use super::take_target;
use crate::events::ClientTransaction;
use crate::handlers::Refusal;
use crate::handlers::membership::Change;
use crate::handlers::test_rooms::{TestRooms, errcode, object, user};
use crate::model::EventDraft;

fn send(
    rooms: &mut TestRooms,
    room_id: &ruma::RoomId,
    who: &str,
    (device, txn_id): (&str, &str),
    draft: EventDraft,
) -> Result<OwnedEventId, Refusal> {
    let transaction = ClientTransaction { device_id: device.to_owned(), txn_id: txn_id.to_owned() };
    let (room_id, draft) = (room_id.to_owned(), EventDraft { sender: user(who), ..draft });
    rooms.write(move |txn, tools| {
        Ok(tools.writer.send(txn, &room_id, draft, Some(&transaction), tools.now)?.event_id)
    })
}

fn text(body: &str) -> EventDraft {
    EventDraft::message(user("x"), "m.room.message", object(json!({"body": body})))
}

#[test]
fn a_transaction_is_done_once_per_device() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b"], json!({}));
    let first = send(&mut rooms, &room_id, "a", ("D1", "t1"), text("hi")).unwrap();
    let again = send(&mut rooms, &room_id, "a", ("D1", "t1"), text("something else")).unwrap();
    assert_eq!(first, again);
    let mut ids = vec![first];
    for (who, device, txn_id) in [("a", "D1", "t2"), ("a", "D2", "t1"), ("b", "D1", "t1")] {
        ids.push(send(&mut rooms, &room_id, who, (device, txn_id), text("hi")).unwrap());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

#[test]
fn what_cannot_be_sent_says_why() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b"], json!({}));
    rooms.step(&room_id, "a", "c", Change::Invite).unwrap();
    rooms.step(&room_id, "a", "b", Change::Ban).unwrap();
    let nowhere = ruma::RoomId::parse("!nowhere:hs").unwrap();
    for (why, room, who, draft, expected) in [
        ("a stranger", &room_id, "d", text("x"), "FORBIDDEN"),
        ("invited only", &room_id, "c", text("x"), "FORBIDDEN"),
        ("banned", &room_id, "b", text("x"), "FORBIDDEN"),
        ("no such room", &nowhere, "a", text("x"), "FORBIDDEN"),
        ("too large", &room_id, "a", text(&"x".repeat(66_000)), "TOO_LARGE"),
        (
            "a type too long",
            &room_id,
            "a",
            EventDraft { event_type: "t".repeat(256), ..text("x") },
            "TOO_LARGE",
        ),
        (
            "a member event without a member",
            &room_id,
            "a",
            EventDraft { event_type: "m.room.member".to_owned(), ..text("x") },
            "FORBIDDEN",
        ),
    ] {
        let result = send(&mut rooms, room, who, ("D", "t"), draft);
        assert_eq!(errcode(result), expected, "{why}");
    }
    send(&mut rooms, &room_id, "a", ("D", "t"), text("x")).expect("the name is free still");
}

#[test]
fn redactions_are_for_authors_and_the_powerful() {
    let mut rooms = TestRooms::new();
    let room_id = rooms.create_with("a", &["b", "c"], json!({}));
    let other = rooms.create_with("a", &["b"], json!({}));
    let message = send(&mut rooms, &room_id, "b", ("D", "t"), text("x")).unwrap();
    let create = EventId::parse(room_id.as_str().replace('!', "$")).unwrap();
    let nothing = EventId::parse("$nothing").unwrap();
    let redact = |target: &EventId| EventDraft::redaction(user("x"), target.to_owned(), None);
    for (why, room, who, target, expected) in [
        ("another's words", &room_id, "c", &message, Err("FORBIDDEN")),
        ("unknown", &room_id, "a", &nothing, Err("NOT_FOUND")),
        ("in another room", &other, "a", &message, Err("NOT_FOUND")),
        ("the create event", &room_id, "a", &create, Err("FORBIDDEN")),
        ("one's own words", &room_id, "b", &message, Ok(())),
        ("with power", &room_id, "a", &message, Ok(())),
    ] {
        let result = send(&mut rooms, room, who, ("D", why), redact(target));
        match expected {
            Ok(()) => drop(result.expect(why)),
            Err(code) => assert_eq!(errcode(result), code, "{why}"),
        }
    }
}

#[test]
fn a_redaction_sent_as_an_event_must_name_its_target() {
    let take = |content: Value| {
        let mut draft = EventDraft::message(user("a"), "m.room.redaction", object(content));
        let target = take_target(&mut draft);
        (target, draft.content)
    };
    let (target, left) = take(json!({"redacts": "$x", "reason": "r"}));
    assert_eq!(target.unwrap().as_str(), "$x");
    assert_eq!(left, object(json!({"reason": "r"})));
    for content in [json!({}), json!({"redacts": 1}), json!({"redacts": "x"})] {
        assert_eq!(errcode(take(content.clone()).0), "BAD_JSON", "{content}");
    }
}
