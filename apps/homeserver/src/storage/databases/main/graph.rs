//! The event graph: prev edges, the prev events we lack, and auth edges of state events.

use ruma::{EventId, OwnedEventId};

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};
use crate::storage::keys::{EventKey, RoomKey};

/// Notes that `event` follows `prev`, which we have in full.
///
/// # Errors
///
/// If the database fails.
pub fn insert_edge(
    txn: &WriteTxn<'_>,
    prev: EventKey,
    event: EventKey,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO event_edges (prev, event) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![prev, event],
    )
    .map(|_| ())
}

/// Notes that `event` follows an event that we lack, or have as an outlier only.
///
/// # Errors
///
/// If the database fails.
pub fn insert_missing_edge(
    txn: &WriteTxn<'_>,
    room: RoomKey,
    prev: &EventId,
    event: EventKey,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO event_edges_missing (prev_event_id, event, room) VALUES (?1, ?2, ?3)
         ON CONFLICT DO NOTHING",
        params![prev, event, room],
    )
    .map(|_| ())
}

/// Notes that an event has come which others named before: their edges lead to it from now on.
///
/// # Errors
///
/// If the database fails.
pub fn prev_event_arrived(
    txn: &WriteTxn<'_>,
    event_id: &EventId,
    key: EventKey,
) -> Result<(), StorageError> {
    let followers: Vec<EventKey> = txn.query(
        "SELECT event FROM event_edges_missing WHERE prev_event_id = ?1",
        params![event_id],
        |row| row.get(0),
    )?;
    if followers.is_empty() {
        return Ok(());
    }
    for follower in followers {
        insert_edge(txn, key, follower)?;
    }
    txn.execute("DELETE FROM event_edges_missing WHERE prev_event_id = ?1", params![event_id])
        .map(|_| ())
}

/// Returns whether an accepted event (not rejected, not soft-failed) follows `event`.
///
/// # Errors
///
/// If the database fails.
pub fn has_accepted_follower(txn: &Txn<'_>, event: EventKey) -> Result<bool, StorageError> {
    txn.exists(
        "SELECT 1 FROM event_edges JOIN events ON events.stream_ordering = event_edges.event
         WHERE event_edges.prev = ?1
             AND outlier = 0 AND rejected IS NULL AND soft_failed = 0
         LIMIT 1",
        params![event],
    )
}

/// Returns the events that follow `event`, in order of their keys.
///
/// # Errors
///
/// If the database fails.
pub fn followers(txn: &Txn<'_>, event: EventKey) -> Result<Vec<EventKey>, StorageError> {
    txn.query(
        "SELECT event FROM event_edges WHERE prev = ?1 ORDER BY event",
        params![event],
        |row| row.get(0),
    )
}

/// Returns the ids of the room's backward extremities: events that accepted ones follow and that we
/// do not have in full.
///
/// # Errors
///
/// If the database fails.
pub fn backward_extremities(
    txn: &Txn<'_>,
    room: RoomKey,
) -> Result<Vec<OwnedEventId>, StorageError> {
    txn.query(
        "SELECT DISTINCT prev_event_id FROM event_edges_missing AS missing
         JOIN events ON events.stream_ordering = missing.event
         WHERE missing.room = ?1 AND outlier = 0 AND rejected IS NULL
         ORDER BY prev_event_id",
        params![room],
        |row| row.parse(0),
    )
}

/// Notes an auth event of a state event.
///
/// # Errors
///
/// If the database fails.
pub fn insert_auth_edge(
    txn: &WriteTxn<'_>,
    event: EventKey,
    auth: EventKey,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO event_auth (event, auth) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![event, auth],
    )
    .map(|_| ())
}

/// Returns the auth events of a state event with their heights, in order of their keys.
///
/// # Errors
///
/// If the database fails.
pub fn auth_events(txn: &Txn<'_>, event: EventKey) -> Result<Vec<(EventKey, i64)>, StorageError> {
    txn.query(
        "SELECT event_auth.auth, coalesce(events.auth_height, 0)
         FROM event_auth JOIN events ON events.stream_ordering = event_auth.auth
         WHERE event_auth.event = ?1 ORDER BY event_auth.auth",
        params![event],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// Returns where a state event stands in the auth graph.
///
/// # Errors
///
/// [`StorageError::Damaged`] if there is no such event.
pub fn auth_height(txn: &Txn<'_>, event: EventKey) -> Result<i64, StorageError> {
    txn.query_one(
        "SELECT coalesce(auth_height, 0) FROM events WHERE stream_ordering = ?1",
        params![event],
        |row| row.get(0),
    )
}
