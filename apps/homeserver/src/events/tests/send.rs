//! Rooms made and events sent by our own users.

use serde_json::json;

use super::rooms::{Server, at, message, object, transaction, user};
use crate::events::WriteError;
use crate::model::{EventDraft, RoomVersion};
use crate::storage::databases::main::{
    current_state, extremities, memberships, redactions, relations, rooms,
};
use crate::storage::databases::state::groups;
use crate::storage::engine::params;
use crate::streams::Stream;

#[test]
fn people_talk_in_rooms_of_every_version() {
    for version in RoomVersion::ALL {
        let mut server = Server::new();
        let room = server.room(version);
        assert_eq!(room.server_name().is_none(), version == RoomVersion::V12, "{room}");
        server.member(&room, "bob", "bob", "join").expect("the room is public");
        let sent = server.say(&room, "bob", "hello").expect("bob is in");
        let row = server.row(&sent.event_id);
        assert_eq!(row.depth, 7);
        assert_eq!(row.state_before, row.state_after);
        assert_eq!(server.tips(&room), [sent.event_id]);
        assert_eq!(server.timeline(&room).len(), 7);
        let found = server.find_room(&room);
        assert_eq!(found.version, version);
        assert_eq!(server.read(|txn| rooms::min_depth(txn, found.key)), Some(1));
        assert!(server.read(|txn| rooms::is_public(txn, found.key)));
    }
}

#[test]
fn a_room_is_made_as_a_whole_or_not_at_all() {
    let mut server = Server::new();
    let mut new = server.new_room(RoomVersion::V12);
    new.events.push(message("mallory", "I am not in here"));
    let writer = server.writer.clone();
    let refused = server.database.write(move |txn| writer.create_room(txn, new, at(1)));
    assert!(matches!(refused, Err(WriteError::Forbidden(_))), "{refused:?}");
    let count: i64 = server
        .read(|txn| txn.query_one("SELECT count(*) FROM events", params![], |row| row.get(0)));
    assert_eq!(count, 0);
    server.room(RoomVersion::V12);
}

#[test]
fn the_same_transaction_sends_once() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V11);
    let send = |server: &mut Server, device, txn_id, body| {
        server.send_as(&room, message("alice", body), transaction(device, txn_id)).unwrap()
    };
    let first = send(&mut server, "D1", "1", "hello");
    let again = send(&mut server, "D1", "1", "hello");
    assert_eq!(again.event_id, first.event_id);
    assert!(!first.is_repeated && again.is_repeated);
    assert_ne!(send(&mut server, "D2", "1", "hello").event_id, first.event_id, "another device");
    assert_ne!(send(&mut server, "D1", "2", "hello").event_id, first.event_id, "another id");
    let redaction = EventDraft::redaction(user("alice"), first.event_id.clone(), None);
    let redaction = server.send_as(&room, redaction, transaction("D1", "1")).unwrap();
    assert_ne!(redaction.event_id, first.event_id, "another endpoint");
    server.restart();
    assert_eq!(send(&mut server, "D1", "1", "hello").event_id, first.event_id, "remembered");
    let row = server.row(&first.event_id);
    assert_eq!(row.txn_id.as_deref(), Some("1"));

    // Racing in one batch: the second sees what the first wrote.
    let [one, two] = [0, 1].map(|_| {
        let (writer, room) = (server.writer.clone(), room.clone());
        server.database.enqueue("send", move |txn| {
            writer.send(txn, &room, message("alice", "x"), transaction("D1", "3").as_ref(), at(9))
        })
    });
    server.database.commit();
    let [one, two] = [one, two].map(|slot| slot.lock().unwrap().take().unwrap().unwrap());
    assert_eq!(one.event_id, two.event_id);
}

#[test]
fn a_transaction_answers_as_before_even_if_it_would_be_refused_now() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V11);
    server.member(&room, "bob", "bob", "join").unwrap();
    let sent = server.send_as(&room, message("bob", "hi"), transaction("D", "1")).unwrap();
    server.member(&room, "alice", "bob", "ban").unwrap();
    let again = server.send_as(&room, message("bob", "hi"), transaction("D", "1")).unwrap();
    assert_eq!(again.event_id, sent.event_id);
    let refused = server.send_as(&room, message("bob", "hi"), transaction("D", "2"));
    assert!(matches!(refused, Err(WriteError::Forbidden(_))), "{refused:?}");
}

#[test]
fn events_of_one_batch_build_on_each_other() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V12);
    let slots: Vec<_> = (0..50)
        .map(|index| {
            let (writer, room) = (server.writer.clone(), room.clone());
            // Every tenth is from somebody who may not.
            let sender = if index % 10 == 9 { "mallory" } else { "alice" };
            server.database.enqueue("send", move |txn| {
                writer.send(txn, &room, message(sender, &format!("{index}")), None, at(5))
            })
        })
        .collect();
    let report = server.database.commit();
    assert_eq!(server.database.writer().statistics().commits, 2, "the room and the batch");
    let sent: Vec<_> = slots
        .into_iter()
        .filter_map(|slot| slot.lock().unwrap().take().unwrap().ok())
        .map(|sent| sent.event_id)
        .collect();
    assert_eq!(sent.len(), 45);
    assert_eq!(server.timeline(&room)[5..], sent, "in order, none lost");
    for pair in sent.windows(2) {
        let row = server.row(&pair[1]);
        assert!(row.json.contains(pair[0].as_str()), "each follows the one before");
    }
    assert_eq!(report.wakes.len(), 1, "the room is woken once");
    assert_eq!(report.advanced.len(), 1);
    assert_eq!(report.advanced[0].0, Stream::Events);
}

#[test]
fn a_refused_event_leaves_the_head_as_it_was() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V11);
    // The job writes an event and then fails: what it did is forgotten.
    let (writer, room_id) = (server.writer.clone(), room.clone());
    let refused: Result<(), WriteError> = server.database.write(move |txn| {
        writer.send(txn, &room_id, message("alice", "lost"), None, at(5))?;
        writer.send(txn, &room_id, message("mallory", "refused"), None, at(5))?;
        Ok(())
    });
    assert!(matches!(refused, Err(WriteError::Forbidden(_))));
    let sent = server.say(&room, "alice", "kept").unwrap();
    assert_eq!(server.row(&sent.event_id).depth, 6);
    assert_eq!(server.timeline(&room).len(), 6);
}

#[test]
fn setting_state_to_what_it_is_makes_no_event() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V12);
    let first = server.state(&room, "alice", "m.room.topic", json!({"topic": "x"})).unwrap();
    let again = server.state(&room, "alice", "m.room.topic", json!({"topic": "x"})).unwrap();
    assert!(again.is_repeated);
    assert_eq!(again.event_id, first.event_id);
    let other = server.state(&room, "alice", "m.room.topic", json!({"topic": "y"})).unwrap();
    assert_ne!(other.event_id, first.event_id);
    assert_eq!(server.row(&other.event_id).replaces, Some(first.key));
    assert_eq!(server.current(&room, "m.room.topic", ""), Some(other.event_id));
}

#[test]
fn unknown_rooms_and_oversize_events_have_errors_of_their_own() {
    let mut server = Server::new();
    let refused = server.say(ruma::room_id!("!nowhere:domain"), "alice", "x");
    assert!(matches!(refused, Err(WriteError::UnknownRoom { .. })), "{refused:?}");
    let room = server.room(RoomVersion::V12);
    let refused = server.say(&room, "alice", &"x".repeat(65_536));
    assert!(matches!(refused, Err(WriteError::Build(_))), "{refused:?}");
    let refused = server
        .send(&room, EventDraft::state(user("alice"), "m.x", "k".repeat(256), object(json!({}))));
    assert!(matches!(refused, Err(WriteError::Build(_))), "{refused:?}");
}

#[test]
fn the_state_at_each_event_can_be_read_back() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V12);
    let mut topics = Vec::new();
    // More than one chain of differences.
    for index in 0..250 {
        let content = json!({"topic": format!("{index}")});
        topics.push(server.state(&room, "alice", "m.room.topic", content).unwrap());
    }
    for pair in topics.windows(2) {
        let row = server.row(&pair[1].event_id);
        let (before, after) = (row.state_before.unwrap(), row.state_after.unwrap());
        let topic = |group| server.read(|txn| groups::entry(txn, group, "m.room.topic", ""));
        assert_eq!(topic(before), Some(pair[0].key));
        assert_eq!(topic(after), Some(pair[1].key));
        assert_eq!(row.replaces, Some(pair[0].key));
        let whole = server.read(|txn| groups::entries(txn, after));
        assert_eq!(whole.len(), 6);
        assert_eq!(whole.get("m.room.topic", ""), Some(&pair[1].key));
    }
    let longest: i64 = server.read(|txn| {
        txn.query_one("SELECT max(chain_length) FROM state_groups", params![], |row| row.get(0))
    });
    assert_eq!(longest, groups::CHAIN_LENGTH_MAX);
    let group = server.row(&topics[249].event_id).state_after.unwrap();
    let members = server.read(|txn| groups::entries_of_type(txn, group, "m.room.member"));
    assert_eq!(members.len(), 1);
}

#[test]
fn memberships_are_kept_current_and_remembered_after_leaving() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V11);
    let key = server.find_room(&room).key;
    server.member(&room, "alice", "bob", "invite").unwrap();
    let rooms_of_bob =
        |server: &Server| server.read(|txn| memberships::local_rooms(txn, &user("bob")));
    assert_eq!(rooms_of_bob(&server)[0].membership, "invite");
    let joined = server.member(&room, "bob", "bob", "join").unwrap();
    assert_eq!(rooms_of_bob(&server)[0].event, joined.key);
    assert_eq!(
        server.read(|txn| memberships::local_members(txn, key, "join")),
        [user("alice"), user("bob")]
    );
    assert_eq!(server.read(|txn| current_state::rooms_of(txn, &user("bob"), "join")), [key]);
    let left = server.member(&room, "bob", "bob", "leave").unwrap();
    let kept = rooms_of_bob(&server);
    assert_eq!((kept[0].event, &*kept[0].membership), (left.key, "leave"));
    let forgotten: Result<bool, crate::storage::StorageError> =
        server.database.write(move |txn| memberships::forget_local(txn, &user("bob"), key));
    assert!(forgotten.unwrap());
    assert!(rooms_of_bob(&server)[0].forgotten);
    server.member(&room, "bob", "bob", "join").unwrap();
    assert!(!rooms_of_bob(&server)[0].forgotten, "joining again remembers it");
    assert!(server.read(|txn| memberships::joined_since(txn, key, &user("bob"), left.key)));

    let deltas = server.read(|txn| current_state::deltas(txn, key, joined.key.0, left.key.0));
    assert_eq!(deltas.len(), 1);
    assert_eq!((deltas[0].previous, deltas[0].event), (Some(joined.key), Some(left.key)));
}

#[test]
fn past_ends_of_the_graph_are_known() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V12);
    let key = server.find_room(&room).key;
    let first = server.say(&room, "alice", "1").unwrap();
    let second = server.say(&room, "alice", "2").unwrap();
    let at = |position| server.read(|txn| extremities::forward_at(txn, key, position));
    assert_eq!(at(first.key.0), [first.key]);
    assert_eq!(at(second.key.0), [second.key]);
    assert_eq!(at(second.key.0 + 100), [second.key]);
    assert!(at(0).is_empty());
}

#[test]
fn redactions_apply_when_read() {
    for version in [RoomVersion::V6, RoomVersion::V11, RoomVersion::V12] {
        let mut server = Server::new();
        let room = server.room(version);
        server.member(&room, "bob", "bob", "join").unwrap();
        let said = server.say(&room, "bob", "oops").unwrap();
        let of_alice = server.say(&room, "alice", "mine").unwrap();
        let applied = |server: &Server, id| {
            let row = server.row(id);
            server.read(|txn| redactions::applied_to(txn, &row))
        };
        assert_eq!(applied(&server, &said.event_id), None);

        let redaction = |sender, target: &ruma::EventId| {
            EventDraft::redaction(user(sender), target.to_owned(), Some("because".to_owned()))
        };
        let refused = server.send(&room, redaction("bob", &of_alice.event_id));
        assert!(matches!(refused, Err(WriteError::Forbidden(_))), "{refused:?}");
        let own = server.send(&room, redaction("bob", &said.event_id)).unwrap();
        assert_eq!(applied(&server, &said.event_id), Some(own.key));
        let row = server.row(&own.event_id);
        assert!(server.read(|txn| redactions::may_be_shown(txn, &row)));

        // A redaction of a redaction, and back: one step, no circle.
        let back = server.send(&room, redaction("alice", &own.event_id)).unwrap();
        assert_eq!(applied(&server, &own.event_id), Some(back.key));
        assert_eq!(applied(&server, &said.event_id), Some(own.key));

        let create = server.timeline(&room)[0].clone();
        let refused = server.send(&room, redaction("alice", &create));
        assert!(matches!(refused, Err(WriteError::Forbidden(_))), "{refused:?}");
        let refused = server.send(&room, redaction("alice", ruma::event_id!("$none:domain")));
        assert!(matches!(refused, Err(WriteError::UnknownEvent { .. })), "{refused:?}");
    }
}

#[test]
fn a_redaction_without_a_sensible_target_redacts_nothing() {
    for content in
        [json!({}), json!({"redacts": 7}), json!({"redacts": ["$x"]}), json!({"redacts": "x"})]
    {
        let mut server = Server::new();
        let room = server.room(RoomVersion::V11);
        let draft = EventDraft::message(user("alice"), "m.room.redaction", object(content));
        let sent = server.send(&room, draft).expect("allowed by the rules");
        let row = server.row(&sent.event_id);
        assert_eq!(server.read(|txn| redactions::target(txn, sent.key)), None);
        assert!(!server.read(|txn| redactions::may_be_shown(txn, &row)));
    }
}

#[test]
fn relations_are_indexed() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V12);
    let key = server.find_room(&room).key;
    let said = server.say(&room, "alice", "hello").unwrap();
    let content = json!({"m.relates_to":
        {"rel_type": "m.annotation", "event_id": said.event_id, "key": "+1"}});
    let draft = EventDraft::message(user("alice"), "m.reaction", object(content));
    let reaction = server.send(&room, draft).unwrap();
    let found = server.read(|txn| relations::to_event(txn, key, &said.event_id, "m.annotation"));
    assert_eq!(found, [reaction.key]);
}

#[test]
fn everything_is_there_after_a_restart() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V12);
    let first = server.say(&room, "alice", "1").unwrap();
    server.restart();
    let second = server.say(&room, "alice", "2").unwrap();
    assert!(second.key > first.key);
    assert!(server.row(&second.event_id).json.contains(first.event_id.as_str()));
}
