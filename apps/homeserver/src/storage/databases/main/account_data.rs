//! Account data, global and of rooms: what clients keep on the server for themselves.

use ruma::{OwnedRoomId, RoomId, UserId};

use crate::storage::engine::{Row, StorageError, Txn, WriteTxn, params};
use crate::streams::Stream;

/// One entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AccountDataEntry {
    /// The room it belongs to; `None`: to the user as a whole.
    pub room_id: Option<OwnedRoomId>,
    /// Its type, such as `m.direct`.
    pub event_type: String,
    /// Position of its last change in the stream.
    pub stream_id: i64,
    /// The content, as JSON text.
    pub content: String,
}

/// Sets an entry, and announces it to the user's devices.
///
/// `content` is the text of a JSON object. Returns the position of the change.
pub fn set(
    txn: &mut WriteTxn<'_>,
    user_id: &UserId,
    room_id: Option<&RoomId>,
    event_type: &str,
    content: &str,
) -> Result<i64, StorageError> {
    let stream_id = txn.next_stream_id(Stream::AccountData);
    txn.execute(
        "INSERT INTO account_data (user_id, room_id, type, stream_id, content)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (user_id, room_id, type)
         DO UPDATE SET stream_id = excluded.stream_id, content = excluded.content",
        params![user_id, room_column(room_id), event_type, stream_id, content],
    )?;
    txn.wake_user(Stream::AccountData, user_id);
    Ok(stream_id)
}

/// Returns the content of one entry, as JSON text.
pub fn find(
    txn: &Txn<'_>,
    user_id: &UserId,
    room_id: Option<&RoomId>,
    event_type: &str,
) -> Result<Option<String>, StorageError> {
    txn.query_opt(
        "SELECT content FROM account_data WHERE user_id = ?1 AND room_id = ?2 AND type = ?3",
        params![user_id, room_column(room_id), event_type],
        |row| row.get(0),
    )
}

/// Returns all entries of a user, global ones first.
pub fn of_user(txn: &Txn<'_>, user_id: &UserId) -> Result<Vec<AccountDataEntry>, StorageError> {
    txn.query(
        "SELECT room_id, type, stream_id, content FROM account_data
         WHERE user_id = ?1 ORDER BY room_id, type",
        params![user_id],
        read_entry,
    )
}

/// Returns a user's entries for one room.
pub fn of_room(
    txn: &Txn<'_>,
    user_id: &UserId,
    room_id: &RoomId,
) -> Result<Vec<AccountDataEntry>, StorageError> {
    txn.query(
        "SELECT room_id, type, stream_id, content FROM account_data
         WHERE user_id = ?1 AND room_id = ?2 ORDER BY type",
        params![user_id, room_id],
        read_entry,
    )
}

/// Returns the entries of a user that changed after `since`, up to and including `until`, in the
/// order of their changes.
pub fn changed(
    txn: &Txn<'_>,
    user_id: &UserId,
    since: i64,
    until: i64,
) -> Result<Vec<AccountDataEntry>, StorageError> {
    txn.query(
        "SELECT room_id, type, stream_id, content FROM account_data
         WHERE user_id = ?1 AND stream_id > ?2 AND stream_id <= ?3 ORDER BY stream_id",
        params![user_id, since, until],
        read_entry,
    )
}

/// Forgets everything that a user kept, for accounts that are closed.
pub fn delete_all(txn: &WriteTxn<'_>, user_id: &UserId) -> Result<(), StorageError> {
    txn.execute("DELETE FROM account_data WHERE user_id = ?1", params![user_id])?;
    Ok(())
}

fn room_column(room_id: Option<&RoomId>) -> &str {
    room_id.map_or("", RoomId::as_str)
}

fn read_entry(row: &Row<'_>) -> Result<AccountDataEntry, StorageError> {
    let room_id = match row.get::<&str>(0)? {
        "" => None,
        text => Some(parse_room_id(text)?),
    };
    Ok(AccountDataEntry {
        room_id,
        event_type: row.get(1)?,
        stream_id: row.get(2)?,
        content: row.get(3)?,
    })
}

/// Reads a stored room id.
pub(super) fn parse_room_id(text: &str) -> Result<OwnedRoomId, StorageError> {
    RoomId::parse(text).map_err(|_| StorageError::damaged(format!("{text:?} is no room id")))
}
