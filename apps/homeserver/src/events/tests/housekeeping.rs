//! What is forgotten in time, and what is not.

use crate::model::{EventDraft, RoomVersion};
use crate::storage::controllers::housekeeping;
use crate::storage::databases::main::{events, extremities};
use crate::storage::{EventKey, RoomKey, StorageError};

use super::rooms::{Server, message, transaction, user};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[test]
fn transactions_are_forgotten_after_a_day() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V12);
    let sent = server.send_as(&room, message("alice", "x"), transaction("D", "1")).unwrap();
    let mut forget = |now_ms| -> Result<bool, StorageError> {
        server.database.write(move |txn| housekeeping::forget_transactions(txn, now_ms))
    };
    assert!(!forget(DAY_MS).unwrap(), "not yet");
    assert!(forget(DAY_MS + 10).unwrap());
    assert!(!forget(DAY_MS + 10).unwrap(), "done");
    assert_eq!(server.row(&sent.event_id).txn_id, None);
    let again = server.send_as(&room, message("alice", "x"), transaction("D", "1")).unwrap();
    assert_ne!(again.event_id, sent.event_id);
}

#[test]
fn redacted_content_is_erased_when_its_time_is_over() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V11);
    let said = server.say(&room, "alice", "secret").unwrap();
    let redaction = EventDraft::redaction(user("alice"), said.event_id.clone(), None);
    server.send(&room, redaction).unwrap();
    let mut erase = |now_ms| -> Result<bool, StorageError> {
        server.database.write(move |txn| housekeeping::erase_redacted(txn, 7 * DAY_MS, now_ms))
    };
    assert!(!erase(7 * DAY_MS).unwrap(), "not yet");
    assert!(erase(8 * DAY_MS).unwrap());
    assert!(!erase(8 * DAY_MS).unwrap(), "done");
    let row = server.row(&said.event_id);
    assert!(!row.json.contains("secret"), "{}", row.json);
    assert!(row.json.contains("m.room.message"));
    server.say(&room, "alice", "goes on").unwrap();
}

#[test]
fn past_ends_are_forgotten_and_present_ones_stay() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V11);
    let key = server.find_room(&room).key;
    let first = server.say(&room, "alice", "1").unwrap();
    let last = server.say(&room, "alice", "2").unwrap();
    let next: Result<Option<RoomKey>, StorageError> =
        server.database.write(|txn| housekeeping::forget_extremities(txn, RoomKey(0), 40 * DAY_MS));
    assert_eq!(next.unwrap(), Some(key));
    assert_eq!(server.read(|txn| extremities::forward(txn, key)), [last.key]);
    assert_eq!(server.read(|txn| extremities::forward_at(txn, key, first.key.0 - 1)), []);
}

#[test]
fn the_last_event_before_a_time_is_found() {
    let mut server = Server::new();
    let room = server.room(RoomVersion::V11);
    // The room's five events came at 1 ms; these at 2, 3, 4 ms.
    for body in ["a", "b", "c"] {
        server.say(&room, "alice", body).unwrap();
    }
    for (before, expected) in
        [(1, None), (2, Some(5)), (3, Some(6)), (4, Some(7)), (5, Some(8)), (100, Some(8))]
    {
        let found = server.read(|txn| events::last_received_before(txn, before));
        assert_eq!(found, expected.map(EventKey), "{before}");
    }
}
