//! The current state of rooms, and the stream of its changes.

use ruma::{OwnedUserId, UserId};

use crate::model::StateMap;
use crate::storage::engine::{StorageError, Txn, WriteTxn, params};
use crate::storage::keys::{EventKey, RoomKey};

/// Returns the whole current state of a room.
///
/// # Errors
///
/// If the database fails.
pub fn entries(txn: &Txn<'_>, room: RoomKey) -> Result<StateMap<EventKey>, StorageError> {
    let mut found = StateMap::new();
    txn.query_each(
        "SELECT type, state_key, event FROM current_state WHERE room = ?1",
        params![room],
        |row| {
            found.insert(row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(())
        },
    )?;
    Ok(found)
}

/// Returns the current state event of that type and state key.
///
/// # Errors
///
/// If the database fails.
pub fn entry(
    txn: &Txn<'_>,
    room: RoomKey,
    event_type: &str,
    state_key: &str,
) -> Result<Option<EventKey>, StorageError> {
    txn.query_opt(
        "SELECT event FROM current_state WHERE room = ?1 AND type = ?2 AND state_key = ?3",
        params![room, event_type, state_key],
        |row| row.get(0),
    )
}

/// Returns the current membership of a user in a room, of whichever server; `None` if there never was
/// one, or if we are not in the room.
///
/// # Errors
///
/// If the database fails.
pub fn membership(
    txn: &Txn<'_>,
    room: RoomKey,
    user_id: &UserId,
) -> Result<Option<String>, StorageError> {
    let found: Option<Option<String>> = txn.query_opt(
        "SELECT membership FROM current_state
         WHERE room = ?1 AND type = 'm.room.member' AND state_key = ?2",
        params![room, user_id],
        |row| row.get(0),
    )?;
    Ok(found.flatten())
}

/// Returns the members of a room that have `membership` now, in order of their ids, with their member
/// events.
///
/// # Errors
///
/// If the database fails.
pub fn members(
    txn: &Txn<'_>,
    room: RoomKey,
    membership: &str,
) -> Result<Vec<(OwnedUserId, EventKey)>, StorageError> {
    txn.query(
        "SELECT state_key, event FROM current_state
         WHERE room = ?1 AND type = 'm.room.member' AND membership = ?2 ORDER BY state_key",
        params![room, membership],
        |row| Ok((row.parse(0)?, row.get(1)?)),
    )
}

/// Returns how many members of a room have `membership` now.
///
/// # Errors
///
/// If the database fails.
pub fn member_count(txn: &Txn<'_>, room: RoomKey, membership: &str) -> Result<i64, StorageError> {
    txn.query_one(
        "SELECT count(*) FROM current_state
         WHERE room = ?1 AND type = 'm.room.member' AND membership = ?2",
        params![room, membership],
        |row| row.get(0),
    )
}

/// Returns the rooms in which a user of whichever server has `membership` now.
///
/// # Errors
///
/// If the database fails.
pub fn rooms_of(
    txn: &Txn<'_>,
    user_id: &UserId,
    membership: &str,
) -> Result<Vec<RoomKey>, StorageError> {
    txn.query(
        "SELECT room FROM current_state
         WHERE type = 'm.room.member' AND state_key = ?1 AND membership = ?2 ORDER BY room",
        params![user_id, membership],
        |row| row.get(0),
    )
}

/// Puts an event into the current state.
///
/// # Errors
///
/// If the database fails.
pub fn put(
    txn: &WriteTxn<'_>,
    room: RoomKey,
    event_type: &str,
    state_key: &str,
    event: EventKey,
    membership: Option<&str>,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO current_state (room, type, state_key, event, membership)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (room, type, state_key)
             DO UPDATE SET event = excluded.event, membership = excluded.membership",
        params![room, event_type, state_key, event, membership],
    )
    .map(|_| ())
}

/// Takes everything out of the current state of a room that we have left.
///
/// # Errors
///
/// If the database fails.
pub fn remove_all(txn: &WriteTxn<'_>, room: RoomKey) -> Result<(), StorageError> {
    txn.execute("DELETE FROM current_state WHERE room = ?1", params![room]).map(|_| ())
}

/// Takes an entry out of the current state.
///
/// # Errors
///
/// If the database fails.
pub fn remove(
    txn: &WriteTxn<'_>,
    room: RoomKey,
    event_type: &str,
    state_key: &str,
) -> Result<(), StorageError> {
    txn.execute(
        "DELETE FROM current_state WHERE room = ?1 AND type = ?2 AND state_key = ?3",
        params![room, event_type, state_key],
    )
    .map(|_| ())
}

/// A change of a room's current state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateDelta {
    /// Position of the events stream at which it happened.
    pub stream_id: i64,
    /// The room.
    pub room: RoomKey,
    /// The entry's type.
    pub event_type: String,
    /// The entry's state key.
    pub state_key: String,
    /// What it is now; none: taken out.
    pub event: Option<EventKey>,
    /// What it was before, if it was there.
    pub previous: Option<EventKey>,
}

/// Notes a change of a room's current state.
///
/// # Errors
///
/// If the database fails.
pub fn insert_delta(txn: &WriteTxn<'_>, delta: &StateDelta) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO current_state_deltas (stream_id, room, type, state_key, event, previous)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (room, stream_id, type, state_key) DO UPDATE SET event = excluded.event",
        params![
            delta.stream_id,
            delta.room,
            &delta.event_type,
            &delta.state_key,
            delta.event,
            delta.previous
        ],
    )
    .map(|_| ())
}

/// Returns how a room's current state changed after `after` and not after `upto`, in order.
///
/// # Errors
///
/// If the database fails.
pub fn deltas(
    txn: &Txn<'_>,
    room: RoomKey,
    after: i64,
    upto: i64,
) -> Result<Vec<StateDelta>, StorageError> {
    txn.query(
        "SELECT stream_id, room, type, state_key, event, previous FROM current_state_deltas
         WHERE room = ?1 AND stream_id > ?2 AND stream_id <= ?3
         ORDER BY stream_id, type, state_key",
        params![room, after, upto],
        |row| {
            Ok(StateDelta {
                stream_id: row.get(0)?,
                room: row.get(1)?,
                event_type: row.get(2)?,
                state_key: row.get(3)?,
                event: row.get(4)?,
                previous: row.get(5)?,
            })
        },
    )
}
