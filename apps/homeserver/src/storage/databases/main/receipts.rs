//! Read receipts: how far each user has read each room, publicly, privately, and in each thread.

use ruma::{EventId, OwnedEventId, OwnedUserId, RoomId, UserId};

use crate::storage::engine::{Row, StorageError, Txn, WriteTxn, params};
use crate::storage::keys::EventKey;
use crate::streams::Stream;

/// A receipt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// `m.read` or `m.read.private`.
    pub receipt_type: String,
    /// Who has read.
    pub user_id: OwnedUserId,
    /// Empty: in the room as a whole; else `main` or the event that the thread hangs on.
    pub thread_id: String,
    /// Up to which event.
    pub event_id: OwnedEventId,
    /// When, in ms since 1970.
    pub ts: i64,
    /// Position in the stream.
    pub stream_id: i64,
}

/// Sets a receipt, and announces it to the room. Whether it points forward is for the caller to say.
pub fn set(
    txn: &mut WriteTxn<'_>,
    room_id: &RoomId,
    receipt_type: &str,
    user_id: &UserId,
    thread_id: &str,
    event_id: &EventId,
    ts: i64,
) -> Result<(), StorageError> {
    let stream_id = txn.next_stream_id(Stream::Receipts);
    txn.execute(
        "INSERT INTO receipts (room_id, receipt_type, user_id, thread_id, event_id, ts, stream_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (room_id, receipt_type, user_id, thread_id)
         DO UPDATE SET event_id = excluded.event_id, ts = excluded.ts,
                       stream_id = excluded.stream_id",
        params![room_id, receipt_type, user_id, thread_id, event_id, ts, stream_id],
    )?;
    txn.wake_room(Stream::Receipts, room_id);
    Ok(())
}

/// Returns the event that a user's receipt points to.
pub fn find(
    txn: &Txn<'_>,
    room_id: &RoomId,
    receipt_type: &str,
    user_id: &UserId,
    thread_id: &str,
) -> Result<Option<OwnedEventId>, StorageError> {
    txn.query_opt(
        "SELECT event_id FROM receipts
         WHERE room_id = ?1 AND receipt_type = ?2 AND user_id = ?3 AND thread_id = ?4",
        params![room_id, receipt_type, user_id, thread_id],
        |row| parse_event_id(row.get(0)?),
    )
}

/// Returns the receipts of a room that `reader` may see and that changed after `since`, up to and
/// including `until`: everybody's public ones and his own private ones.
pub fn of_room(
    txn: &Txn<'_>,
    room_id: &RoomId,
    reader: &UserId,
    since: i64,
    until: i64,
) -> Result<Vec<Receipt>, StorageError> {
    txn.query(
        "SELECT receipt_type, user_id, thread_id, event_id, ts, stream_id FROM receipts
         WHERE room_id = ?1 AND stream_id > ?2 AND stream_id <= ?3
           AND (receipt_type <> 'm.read.private' OR user_id = ?4)
         ORDER BY stream_id",
        params![room_id, since, until, reader],
        read_receipt,
    )
}

/// Returns everybody's receipts of a room in `(since, until]`, private ones among them: for whoever
/// sorts them out for each reader.
///
/// # Errors
///
/// If the database fails.
pub fn of_room_for_all(
    txn: &Txn<'_>,
    room_id: &RoomId,
    since: i64,
    until: i64,
) -> Result<Vec<Receipt>, StorageError> {
    txn.query(
        "SELECT receipt_type, user_id, thread_id, event_id, ts, stream_id FROM receipts
         WHERE room_id = ?1 AND stream_id > ?2 AND stream_id <= ?3 ORDER BY stream_id",
        params![room_id, since, until],
        read_receipt,
    )
}

/// Returns the last event that a user has read in a room outside threads, or in its main thread.
///
/// # Errors
///
/// If the database fails.
pub fn read_upto(
    txn: &Txn<'_>,
    room_id: &RoomId,
    user_id: &UserId,
) -> Result<Option<EventKey>, StorageError> {
    txn.query_one(
        "SELECT max(e.stream_ordering) FROM receipts AS r JOIN events AS e ON e.event_id = r.event_id
         WHERE r.room_id = ?1 AND r.receipt_type IN ('m.read', 'm.read.private')
             AND r.user_id = ?2 AND r.thread_id IN ('', 'main')",
        params![room_id, user_id],
        |row| row.get(0),
    )
}

fn read_receipt(row: &Row<'_>) -> Result<Receipt, StorageError> {
    Ok(Receipt {
        receipt_type: row.get(0)?,
        user_id: super::users::parse_user_id(row.get(1)?)?,
        thread_id: row.get(2)?,
        event_id: parse_event_id(row.get(3)?)?,
        ts: row.get(4)?,
        stream_id: row.get(5)?,
    })
}

fn parse_event_id(text: &str) -> Result<OwnedEventId, StorageError> {
    EventId::parse(text).map_err(|_| StorageError::damaged(format!("{text:?} is no event id")))
}
