//! A reader's rooms: which he is in, was in or is asked to be in, and what he was before.

use ruma::{OwnedRoomId, UserId};

use crate::model::Membership;
use crate::storage::engine::{Row, StorageError, Txn, params};
use crate::storage::keys::{EventKey, RoomKey};

/// How one of our users stands to a room.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReaderRoom {
    /// The room.
    pub room: RoomKey,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// His membership.
    pub membership: Membership,
    /// The event that made it so.
    pub event: EventKey,
    /// The position of the events stream at which it became so.
    pub position: i64,
    /// Whether he has left and does not want to see the room again.
    pub forgotten: bool,
}

fn from_row(row: &Row<'_>) -> Result<ReaderRoom, StorageError> {
    let membership: &str = row.get(2)?;
    Ok(ReaderRoom {
        room: row.get(0)?,
        room_id: row.parse(1)?,
        membership: membership
            .parse()
            .map_err(|_| StorageError::damaged(format!("{membership:?} is no membership")))?,
        event: row.get(3)?,
        position: row.get(4)?,
        forgotten: row.get(5)?,
    })
}

/// Returns every room that the user stands to in some way, in order of room ids.
///
/// # Errors
///
/// If the database fails.
pub fn all(txn: &Txn<'_>, user_id: &UserId) -> Result<Vec<ReaderRoom>, StorageError> {
    txn.query(
        "SELECT m.room, r.room_id, m.membership, m.event, m.stream_id, m.forgotten
         FROM local_current_membership AS m JOIN rooms AS r ON r.room = m.room
         WHERE m.user_id = ?1 ORDER BY r.room_id",
        params![user_id],
        from_row,
    )
}

/// Returns how the user stands to one room, if in any way.
///
/// # Errors
///
/// If the database fails.
pub fn one(
    txn: &Txn<'_>,
    user_id: &UserId,
    room: RoomKey,
) -> Result<Option<ReaderRoom>, StorageError> {
    txn.query_opt(
        "SELECT m.room, r.room_id, m.membership, m.event, m.stream_id, m.forgotten
         FROM local_current_membership AS m JOIN rooms AS r ON r.room = m.room
         WHERE m.user_id = ?1 AND m.room = ?2",
        params![user_id, room],
        from_row,
    )
}

/// Returns whether the user was in the room at a position of the events stream.
///
/// # Errors
///
/// If the database fails.
pub fn was_joined_at(
    txn: &Txn<'_>,
    user_id: &UserId,
    room: RoomKey,
    position: i64,
) -> Result<bool, StorageError> {
    let membership: Option<bool> = txn.query_opt(
        "SELECT membership = 'join' FROM room_memberships
         WHERE user_id = ?1 AND room = ?2 AND event <= ?3 ORDER BY event DESC LIMIT 1",
        params![user_id, room, position],
        |row| row.get(0),
    )?;
    Ok(membership == Some(true))
}

/// Returns whether the user was in the room, and whether he was out of it, at any time in
/// `(after, upto]`.
///
/// # Errors
///
/// If the database fails.
pub fn was_in_and_out(
    txn: &Txn<'_>,
    user_id: &UserId,
    room: RoomKey,
    after: i64,
    upto: i64,
) -> Result<(bool, bool), StorageError> {
    txn.query_one(
        "SELECT coalesce(max(membership = 'join'), 0), coalesce(max(membership <> 'join'), 0)
         FROM room_memberships
         WHERE user_id = ?1 AND room = ?2 AND event > ?3 AND event <= ?4",
        params![user_id, room, after, upto],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

/// Returns the last time that the user became or stayed a member, if ever.
///
/// # Errors
///
/// If the database fails.
pub fn last_join(
    txn: &Txn<'_>,
    user_id: &UserId,
    room: RoomKey,
) -> Result<Option<EventKey>, StorageError> {
    txn.query_one(
        "SELECT max(event) FROM room_memberships
         WHERE user_id = ?1 AND room = ?2 AND membership = 'join'",
        params![user_id, room],
        |row| row.get(0),
    )
}

/// Returns how far every stream had come when the transaction's snapshot was taken.
///
/// # Errors
///
/// If the database fails.
pub fn positions(
    txn: &Txn<'_>,
) -> Result<std::collections::BTreeMap<crate::streams::Stream, i64>, StorageError> {
    let rows = txn.query("SELECT stream, position FROM stream_positions", params![], |row| {
        Ok((crate::streams::Stream::from_name(row.get(0)?), row.get(1)?))
    })?;
    Ok(rows.into_iter().filter_map(|(stream, position)| Some((stream?, position))).collect())
}
