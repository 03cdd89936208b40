//! Relations: which event says something about which other one.

use ruma::EventId;

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};
use crate::storage::keys::{EventKey, RoomKey};

/// Notes that `event` relates to another one, which need not be known.
///
/// # Errors
///
/// If the database fails.
pub fn insert(
    txn: &WriteTxn<'_>,
    event: EventKey,
    room: RoomKey,
    relates_to: &str,
    relation_type: &str,
    aggregation_key: Option<&str>,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO event_relations (event, room, relates_to_id, relation_type, aggregation_key)
         VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING",
        params![event, room, relates_to, relation_type, aggregation_key],
    )
    .map(|_| ())
}

/// Returns the shown events that relate to `target`, oldest first.
///
/// # Errors
///
/// If the database fails.
pub fn to_event(
    txn: &Txn<'_>,
    room: RoomKey,
    target: &EventId,
    relation_type: &str,
) -> Result<Vec<EventKey>, StorageError> {
    txn.query(
        "SELECT event_relations.event FROM event_relations
         JOIN events ON events.stream_ordering = event_relations.event
         WHERE relates_to_id = ?1 AND relation_type = ?2 AND event_relations.room = ?3
             AND outlier = 0 AND rejected IS NULL AND soft_failed = 0
         ORDER BY event_relations.event",
        params![target, relation_type, room],
        |row| row.get(0),
    )
}

/// Returns what an event relates to, and how, if to anything.
///
/// # Errors
///
/// If the database fails.
pub fn of_event(
    txn: &Txn<'_>,
    room: RoomKey,
    event: EventKey,
) -> Result<Option<(String, String)>, StorageError> {
    txn.query_opt(
        "SELECT relates_to_id, relation_type FROM event_relations WHERE event = ?1 AND room = ?2",
        params![event, room],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}
