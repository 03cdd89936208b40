//! Rooms: their ids, versions and directory flags.

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::model::RoomVersion;
use crate::storage::engine::{Row, StorageError, Txn, WriteTxn, params};
use crate::storage::keys::RoomKey;

/// What never changes about a room.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Room {
    /// Its key inside the database.
    pub key: RoomKey,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version, from the create event.
    pub version: RoomVersion,
    /// Who sent the create event.
    pub creator: OwnedUserId,
}

fn from_row(row: &Row<'_>) -> Result<Room, StorageError> {
    Ok(Room {
        key: row.get(0)?,
        room_id: row.parse(1)?,
        version: row.parse(2)?,
        creator: row.parse(3)?,
    })
}

/// Returns the room of that id, if we know it.
///
/// # Errors
///
/// If the database fails.
pub fn find(txn: &Txn<'_>, room_id: &RoomId) -> Result<Option<Room>, StorageError> {
    txn.query_opt(
        "SELECT room, room_id, room_version, creator FROM rooms WHERE room_id = ?1",
        params![room_id],
        from_row,
    )
}

/// Returns the room of that key.
///
/// # Errors
///
/// [`StorageError::Damaged`] if there is none: keys come from other tables.
pub fn by_key(txn: &Txn<'_>, room: RoomKey) -> Result<Room, StorageError> {
    txn.query_one(
        "SELECT room, room_id, room_version, creator FROM rooms WHERE room = ?1",
        params![room],
        from_row,
    )
}

/// Notes a new room.
///
/// # Errors
///
/// A unique violation if there is one of that id.
pub fn insert(
    txn: &WriteTxn<'_>,
    room_id: &RoomId,
    version: RoomVersion,
    creator: &UserId,
) -> Result<RoomKey, StorageError> {
    txn.insert(
        "INSERT INTO rooms (room_id, room_version, creator) VALUES (?1, ?2, ?3)",
        params![room_id, version.as_str(), creator],
    )
    .map(RoomKey)
}

/// Returns how far back we hold history, if the room has any event in full.
///
/// # Errors
///
/// If the database fails.
pub fn min_depth(txn: &Txn<'_>, room: RoomKey) -> Result<Option<i64>, StorageError> {
    txn.query_one("SELECT min_depth FROM rooms WHERE room = ?1", params![room], |row| row.get(0))
}

/// Notes that we hold an event of that depth; the stored depth can only fall.
///
/// # Errors
///
/// If the database fails.
pub fn lower_min_depth(txn: &WriteTxn<'_>, room: RoomKey, depth: i64) -> Result<(), StorageError> {
    txn.execute(
        "UPDATE rooms SET min_depth = ?2
         WHERE room = ?1 AND (min_depth IS NULL OR min_depth > ?2)",
        params![room, depth],
    )
    .map(|_| ())
}

/// Lists the room in the room directory, or takes it out.
///
/// # Errors
///
/// If the database fails.
pub fn set_public(txn: &WriteTxn<'_>, room: RoomKey, is_public: bool) -> Result<(), StorageError> {
    txn.execute("UPDATE rooms SET is_public = ?2 WHERE room = ?1", params![room, is_public])
        .map(|_| ())
}

/// Returns whether the room directory lists the room.
///
/// # Errors
///
/// If the database fails.
pub fn is_public(txn: &Txn<'_>, room: RoomKey) -> Result<bool, StorageError> {
    txn.query_one("SELECT is_public FROM rooms WHERE room = ?1", params![room], |row| row.get(0))
}

/// Returns the keys of at most `limit` rooms after `after`, in order.
///
/// # Errors
///
/// If the database fails.
pub fn keys_after(txn: &Txn<'_>, after: RoomKey, limit: i64) -> Result<Vec<RoomKey>, StorageError> {
    txn.query(
        "SELECT room FROM rooms WHERE room > ?1 ORDER BY room LIMIT ?2",
        params![after, limit],
        |row| row.get(0),
    )
}

/// A room that the directory lists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicRoom {
    /// The room.
    pub room: Room,
    /// How many are in it.
    pub joined_count: i64,
}

/// Returns the rooms that the directory lists, in order of their keys.
///
/// # Errors
///
/// If the database fails.
pub fn public_rooms(txn: &Txn<'_>) -> Result<Vec<PublicRoom>, StorageError> {
    txn.query(
        "SELECT room, room_id, room_version, creator,
             (SELECT count(*) FROM current_state AS c
              WHERE c.room = rooms.room AND c.type = 'm.room.member' AND c.membership = 'join')
         FROM rooms WHERE is_public = 1 ORDER BY room",
        params![],
        |row| Ok(PublicRoom { room: from_row(row)?, joined_count: row.get(4)? }),
    )
}
