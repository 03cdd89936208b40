//! Events as rows: what was said, by whom, and where it stands.

use ruma::{EventId, OwnedEventId, OwnedUserId, UserId};

use crate::storage::engine::{Param, Row, StorageError, Txn, WriteTxn, params};
use crate::storage::keys::{EventKey, RoomKey, StateGroup};

/// An event with everything that we know about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventRow {
    /// Its stream ordering.
    pub key: EventKey,
    /// Its id.
    pub event_id: OwnedEventId,
    /// The room it is in.
    pub room: RoomKey,
    /// One more than the greatest depth of its prev events, as its sender says.
    pub depth: i64,
    /// Its type.
    pub event_type: String,
    /// Its state key, if it is a state event.
    pub state_key: Option<String>,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// When it was sent, in ms since 1970, as its sender says.
    pub origin_server_ts: i64,
    /// When we first had it, in ms since 1970.
    pub received_ts: i64,
    /// Known, but the state at it is not; not part of the timeline.
    pub outlier: bool,
    /// Why it failed authorisation, if it did.
    pub rejected: Option<String>,
    /// Whether it failed authorisation against the current state only.
    pub soft_failed: bool,
    /// The state before it; none for outliers and create events.
    pub state_before: Option<StateGroup>,
    /// The state after it; none for outliers.
    pub state_after: Option<StateGroup>,
    /// For a state event, the event that it replaced.
    pub replaces: Option<EventKey>,
    /// Where it stands in the auth graph, for a state event.
    pub auth_height: Option<i64>,
    /// The device that sent it, for a day.
    pub device_id: Option<String>,
    /// The client's transaction that sent it, for a day.
    pub txn_id: Option<String>,
    /// Canonical JSON in federation format.
    pub json: String,
}

impl EventRow {
    /// Returns whether rooms show it: not an outlier, not rejected, not soft-failed.
    pub fn is_shown(&self) -> bool {
        !self.outlier && self.rejected.is_none() && !self.soft_failed
    }
}

/// Columns in the order in which [`from_row`] reads them, as a SELECT's beginning.
macro_rules! select_events {
    ($rest:literal) => {
        concat!(
            "SELECT stream_ordering, event_id, room, depth, type, state_key, sender,
                 origin_server_ts, received_ts, outlier, rejected, soft_failed, state_before,
                 state_after, replaces, auth_height, device_id, txn_id, json
             FROM events ",
            $rest
        )
    };
}

fn from_row(row: &Row<'_>) -> Result<EventRow, StorageError> {
    Ok(EventRow {
        key: row.get(0)?,
        event_id: row.parse(1)?,
        room: row.get(2)?,
        depth: row.get(3)?,
        event_type: row.get(4)?,
        state_key: row.get(5)?,
        sender: row.parse(6)?,
        origin_server_ts: row.get(7)?,
        received_ts: row.get(8)?,
        outlier: row.get(9)?,
        rejected: row.get(10)?,
        soft_failed: row.get(11)?,
        state_before: row.get(12)?,
        state_after: row.get(13)?,
        replaces: row.get(14)?,
        auth_height: row.get(15)?,
        device_id: row.get(16)?,
        txn_id: row.get(17)?,
        json: row.get(18)?,
    })
}

/// Returns the event of that key.
///
/// # Errors
///
/// [`StorageError::Damaged`] if there is none: keys come from other tables.
pub fn by_key(txn: &Txn<'_>, event: EventKey) -> Result<EventRow, StorageError> {
    txn.query_one(select_events!("WHERE stream_ordering = ?1"), params![event], from_row)
}

/// Returns the event of that id, if we have it.
///
/// # Errors
///
/// If the database fails.
pub fn find(txn: &Txn<'_>, event_id: &EventId) -> Result<Option<EventRow>, StorageError> {
    txn.query_opt(select_events!("WHERE event_id = ?1"), params![event_id], from_row)
}

/// Returns the id of an event.
///
/// # Errors
///
/// [`StorageError::Damaged`] if there is no such event.
pub fn event_id(txn: &Txn<'_>, event: EventKey) -> Result<OwnedEventId, StorageError> {
    txn.query_one("SELECT event_id FROM events WHERE stream_ordering = ?1", params![event], |row| {
        row.parse(0)
    })
}

/// Returns the key of an event, if we have it.
///
/// # Errors
///
/// If the database fails.
pub fn find_key(txn: &Txn<'_>, event_id: &EventId) -> Result<Option<EventKey>, StorageError> {
    txn.query_opt(
        "SELECT stream_ordering FROM events WHERE event_id = ?1",
        params![event_id],
        |row| row.get(0),
    )
}

/// Returns the event that a client's transaction has already sent. A transaction id names a request to
/// one endpoint, so another type of event is another transaction.
///
/// # Errors
///
/// If the database fails.
pub fn find_by_transaction(
    txn: &Txn<'_>,
    room: RoomKey,
    sender: &UserId,
    device_id: &str,
    txn_id: &str,
    event_type: &str,
) -> Result<Option<(EventKey, OwnedEventId)>, StorageError> {
    txn.query_opt(
        "SELECT stream_ordering, event_id FROM events
         WHERE room = ?1 AND sender = ?2 AND device_id = ?3 AND txn_id = ?4
             AND type = ?5 AND txn_id IS NOT NULL",
        params![room, sender, device_id, txn_id, event_type],
        |row| Ok((row.get(0)?, row.parse(1)?)),
    )
}

/// An end of a page in graph order: everything strictly before, or strictly after, this place.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct GraphPlace {
    /// The depth; compared first.
    pub depth: i64,
    /// The stream ordering among events of that depth.
    pub stream: i64,
}

/// Returns the oldest `limit` shown events of a room that arrived after `after` and not after `upto`,
/// oldest first.
///
/// # Errors
///
/// If the database fails.
pub fn oldest_by_arrival(
    txn: &Txn<'_>,
    room: RoomKey,
    after: i64,
    upto: i64,
    limit: i64,
) -> Result<Vec<EventRow>, StorageError> {
    txn.query(
        select_events!(
            "WHERE room = ?1 AND stream_ordering > ?2 AND stream_ordering <= ?3
                 AND outlier = 0 AND rejected IS NULL AND soft_failed = 0
             ORDER BY stream_ordering LIMIT ?4"
        ),
        params![room, after, upto, limit],
        from_row,
    )
}

/// An event on its way in.
#[derive(Clone, Copy, Debug)]
pub struct NewEvent<'a> {
    /// Its id.
    pub event_id: &'a EventId,
    /// The room it is in.
    pub room: RoomKey,
    /// Its depth.
    pub depth: i64,
    /// Its type.
    pub event_type: &'a str,
    /// Its state key, if it is a state event.
    pub state_key: Option<&'a str>,
    /// Who sent it.
    pub sender: &'a UserId,
    /// When it was sent, in ms since 1970.
    pub origin_server_ts: i64,
    /// Now, in ms since 1970.
    pub received_ts: i64,
    /// Why it failed authorisation, if it did.
    pub rejected: Option<&'a str>,
    /// Whether it failed authorisation against the current state.
    pub soft_failed: bool,
    /// Known, but the state at it is not.
    pub outlier: bool,
    /// The state before it; none for an outlier and for a create event.
    pub state_before: Option<StateGroup>,
    /// The state after it; none for an outlier.
    pub state_after: Option<StateGroup>,
    /// For a state event, the event that it replaced.
    pub replaces: Option<EventKey>,
    /// Where it stands in the auth graph, for a state event.
    pub auth_height: Option<i64>,
    /// The client's device and transaction.
    pub transaction: Option<(&'a str, &'a str)>,
    /// Canonical JSON in federation format.
    pub json: &'a str,
}

/// Writes an event's row.
///
/// # Errors
///
/// A unique violation if the event, or one of the same transaction, is there already.
pub fn insert(txn: &WriteTxn<'_>, key: EventKey, event: &NewEvent<'_>) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO events (stream_ordering, event_id, room, depth, type, state_key, sender,
             origin_server_ts, received_ts, outlier, rejected, soft_failed, state_before,
             state_after, replaces, auth_height, device_id, txn_id, json)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
             ?19)",
        params![
            key,
            event.event_id,
            event.room,
            event.depth,
            event.event_type,
            event.state_key,
            event.sender,
            event.origin_server_ts,
            event.received_ts,
            event.outlier,
            event.rejected,
            event.soft_failed,
            event.state_before,
            event.state_after,
            event.replaces,
            event.auth_height,
            event.transaction.map(|(device_id, _)| device_id),
            event.transaction.map(|(_, txn_id)| txn_id),
            event.json,
        ],
    )
    .map(|_| ())
}

/// Turns an outlier into a normal event; it keeps its key, so it is not newly sent to clients.
///
/// # Errors
///
/// If the database fails.
pub fn clear_outlier(
    txn: &WriteTxn<'_>,
    key: EventKey,
    state_before: Option<StateGroup>,
    state_after: StateGroup,
    soft_failed: bool,
) -> Result<(), StorageError> {
    txn.execute(
        "UPDATE events SET outlier = 0, state_before = ?2, state_after = ?3, soft_failed = ?4
         WHERE stream_ordering = ?1",
        params![key, state_before, state_after, soft_failed],
    )
    .map(|_| ())
}

/// Forgets the client transactions of at most `limit` events that came before `received_before` (ms
/// since 1970); returns of how many.
///
/// # Errors
///
/// If the database fails.
pub fn forget_transactions(
    txn: &WriteTxn<'_>,
    received_before: i64,
    limit: i64,
) -> Result<usize, StorageError> {
    txn.execute(
        "UPDATE events SET device_id = NULL, txn_id = NULL
         WHERE stream_ordering IN (
             SELECT stream_ordering FROM events
             WHERE txn_id IS NOT NULL AND received_ts < ?1 LIMIT ?2
         )",
        &[Param::from(received_before), Param::from(limit)],
    )
}

/// Puts other JSON in an event's place, for content that has been redacted long enough.
///
/// # Errors
///
/// If the database fails.
pub fn replace_json(txn: &WriteTxn<'_>, key: EventKey, json: &str) -> Result<(), StorageError> {
    txn.execute("UPDATE events SET json = ?2 WHERE stream_ordering = ?1", params![key, json])
        .map(|_| ())
}

/// Returns the last event that we had before `received_before` (ms since 1970), if any.
///
/// # Errors
///
/// If the database fails.
pub fn last_received_before(
    txn: &Txn<'_>,
    received_before: i64,
) -> Result<Option<EventKey>, StorageError> {
    let newest: Option<i64> =
        txn.query_one("SELECT max(stream_ordering) FROM events", params![], |row| row.get(0))?;
    // Positions grow with the time of arrival, so halving finds the place without an index on time.
    let (mut low, mut high) = (0, newest.unwrap_or(0).max(0));
    while low < high {
        let middle = low + (high - low + 1) / 2;
        let received: Option<(i64, i64)> = txn.query_opt(
            "SELECT stream_ordering, received_ts FROM events
             WHERE stream_ordering BETWEEN ?1 AND ?2 ORDER BY stream_ordering LIMIT 1",
            params![middle, high],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        match received {
            Some((key, received_ts)) if received_ts < received_before => low = key,
            _ => high = middle - 1,
        }
    }
    Ok((low > 0).then_some(EventKey(low)))
}
