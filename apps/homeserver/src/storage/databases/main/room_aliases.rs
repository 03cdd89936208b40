//! Aliases of rooms on this server, and whether the directory lists a room.

use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId};

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};

/// What an alias stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Alias {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who made the alias.
    pub creator: OwnedUserId,
}

/// Makes an alias; returns `false` if it stands for a room already.
pub fn insert(
    txn: &WriteTxn<'_>,
    alias: &RoomAliasId,
    room_id: &RoomId,
    creator: &UserId,
    now_ts: i64,
) -> Result<bool, StorageError> {
    let made = txn.execute(
        "INSERT INTO room_aliases (alias, room_id, creator, created_ts) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (alias) DO NOTHING",
        params![alias, room_id, creator, now_ts],
    )?;
    Ok(made == 1)
}

/// Returns what an alias stands for.
pub fn find(txn: &Txn<'_>, alias: &RoomAliasId) -> Result<Option<Alias>, StorageError> {
    txn.query_opt(
        "SELECT room_id, creator FROM room_aliases WHERE alias = ?1",
        params![alias],
        |row| {
            Ok(Alias {
                room_id: super::account_data::parse_room_id(row.get(0)?)?,
                creator: super::users::parse_user_id(row.get(1)?)?,
            })
        },
    )
}

/// Returns a room's aliases on this server, in the order of the alphabet.
pub fn of_room(txn: &Txn<'_>, room_id: &RoomId) -> Result<Vec<OwnedRoomAliasId>, StorageError> {
    txn.query(
        "SELECT alias FROM room_aliases WHERE room_id = ?1 ORDER BY alias",
        params![room_id],
        |row| {
            let text: &str = row.get(0)?;
            RoomAliasId::parse(text)
                .map_err(|_| StorageError::damaged(format!("{text:?} is no room alias")))
        },
    )
}

/// Removes an alias; returns whether it was there.
pub fn delete(txn: &WriteTxn<'_>, alias: &RoomAliasId) -> Result<bool, StorageError> {
    Ok(txn.execute("DELETE FROM room_aliases WHERE alias = ?1", params![alias])? == 1)
}

/// Returns whether the directory lists a room; `None` if there is no such room.
pub fn is_public(txn: &Txn<'_>, room_id: &RoomId) -> Result<Option<bool>, StorageError> {
    txn.query_opt("SELECT is_public FROM rooms WHERE room_id = ?1", params![room_id], |row| {
        row.get(0)
    })
}

/// Puts a room on the directory's list or takes it off.
pub fn set_public(txn: &WriteTxn<'_>, room_id: &RoomId, public: bool) -> Result<(), StorageError> {
    txn.execute("UPDATE rooms SET is_public = ?2 WHERE room_id = ?1", params![room_id, public])?;
    Ok(())
}
