//! Forward extremities: the ends of the graph, which the next event will follow.

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};
use crate::storage::keys::{EventKey, RoomKey};

/// The `until` of an event that is still an end of the graph.
const STILL: i64 = i64::MAX;

/// Returns the ends of the room's graph now, in order of their keys.
///
/// # Errors
///
/// If the database fails.
pub fn forward(txn: &Txn<'_>, room: RoomKey) -> Result<Vec<EventKey>, StorageError> {
    txn.query(
        "SELECT event FROM forward_extremities WHERE room = ?1 AND until = ?2 ORDER BY event",
        params![room, STILL],
        |row| row.get(0),
    )
}

/// Returns what the ends of the room's graph were at a position of the events stream; empty if we
/// were not in the room then, or if that is too long ago to be known.
///
/// # Errors
///
/// If the database fails.
pub fn forward_at(
    txn: &Txn<'_>,
    room: RoomKey,
    position: i64,
) -> Result<Vec<EventKey>, StorageError> {
    txn.query(
        "SELECT event FROM forward_extremities
         WHERE room = ?1 AND until > ?2 AND since <= ?2 ORDER BY event",
        params![room, position],
        |row| row.get(0),
    )
}

/// Makes `event` an end of the graph, as of `position` of the events stream.
///
/// # Errors
///
/// If the database fails.
pub fn add(
    txn: &WriteTxn<'_>,
    room: RoomKey,
    event: EventKey,
    position: i64,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO forward_extremities (room, until, event, since) VALUES (?1, ?2, ?3, ?4)",
        params![room, STILL, event, position],
    )
    .map(|_| ())
}

/// Makes `event` an inner event of the graph, as of `position` of the events stream.
///
/// # Errors
///
/// If the database fails.
pub fn remove(
    txn: &WriteTxn<'_>,
    room: RoomKey,
    event: EventKey,
    position: i64,
) -> Result<(), StorageError> {
    txn.execute(
        "UPDATE forward_extremities SET until = ?4
         WHERE room = ?1 AND until = ?2 AND event = ?3",
        params![room, STILL, event, position],
    )
    .map(|_| ())
}

/// Forgets at most `limit` ends of the room's graph that have been inner events since before `position`;
/// returns how many.
///
/// # Errors
///
/// If the database fails.
pub fn forget_before(
    txn: &WriteTxn<'_>,
    room: RoomKey,
    position: i64,
    limit: i64,
) -> Result<usize, StorageError> {
    txn.execute(
        "DELETE FROM forward_extremities
         WHERE room = ?1 AND until < ?2 AND until <= (
             SELECT max(until) FROM (
                 SELECT until FROM forward_extremities
                 WHERE room = ?1 AND until < ?2 ORDER BY until LIMIT ?3
             )
         )",
        params![room, position, limit],
    )
}
