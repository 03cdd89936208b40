//! Events as they are shown: lists of them in one query each, read column by column.
//!
//! Where [`events`](super::events) returns whole rows, this hands out borrowed ones, because whoever
//! shows an event has mostly rendered it before and then needs its key only: the JSON of an event is
//! not touched unless it is asked for.

use crate::storage::engine::{Row, StorageError, Txn, params};
use crate::storage::keys::{EventKey, RoomKey, StateGroup};

use super::events::GraphPlace;

/// An event in a list, borrowed from the database until the next one.
pub struct ShownRow<'a, 'r> {
    row: &'a Row<'r>,
}

/// Columns in the order of the methods of [`ShownRow`], as a SELECT's beginning.
///
/// The fourth and fifth are the first event that asks to redact this one, and the one it replaced.
/// Whether they may is not decided here; that there is none is by far the most frequent answer.
macro_rules! select_shown {
    ($rest:literal) => {
        concat!(
            "SELECT e.stream_ordering, e.event_id, e.type,
                 (SELECT min(r.event) FROM redactions AS r WHERE r.target_event_id = e.event_id),
                 CASE WHEN e.replaces IS NULL THEN NULL ELSE (
                     SELECT min(r.event) FROM redactions AS r JOIN events AS p
                         ON p.event_id = r.target_event_id WHERE p.stream_ordering = e.replaces
                 ) END,
                 e.sender, e.depth, e.state_before, e.state_after, e.state_key, e.room,
                 e.origin_server_ts, e.replaces, e.device_id, e.txn_id, e.json
             FROM ",
            $rest
        )
    };
}

impl<'r> ShownRow<'_, 'r> {
    /// Returns the event's key.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`], here and below, if the column holds something else.
    pub fn key(&self) -> Result<EventKey, StorageError> {
        self.row.get(0)
    }

    /// Returns the event's id.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn event_id(&self) -> Result<&'r str, StorageError> {
        self.row.get(1)
    }

    /// Returns the event's type.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn event_type(&self) -> Result<&'r str, StorageError> {
        self.row.get(2)
    }

    /// Returns the first event that wants this one redacted, whether or not it may.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn redaction_wanted_by(&self) -> Result<Option<EventKey>, StorageError> {
        self.row.get(3)
    }

    /// Returns the first event that wants the event which this one replaced redacted.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn redaction_of_replaced_wanted_by(&self) -> Result<Option<EventKey>, StorageError> {
        self.row.get(4)
    }

    /// Returns who sent it.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn sender(&self) -> Result<&'r str, StorageError> {
        self.row.get(5)
    }

    /// Returns its depth.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn depth(&self) -> Result<i64, StorageError> {
        self.row.get(6)
    }

    /// Returns the state before it.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn state_before(&self) -> Result<Option<StateGroup>, StorageError> {
        self.row.get(7)
    }

    /// Returns the state after it.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn state_after(&self) -> Result<Option<StateGroup>, StorageError> {
        self.row.get(8)
    }

    /// Returns its state key, if it is a state event.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn state_key(&self) -> Result<Option<&'r str>, StorageError> {
        self.row.get(9)
    }

    /// Returns the room it is in.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn room(&self) -> Result<RoomKey, StorageError> {
        self.row.get(10)
    }

    /// Returns when it was sent, in ms since 1970, as its sender says.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn origin_server_ts(&self) -> Result<i64, StorageError> {
        self.row.get(11)
    }

    /// Returns the event that it replaced in the state before it.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn replaces(&self) -> Result<Option<EventKey>, StorageError> {
        self.row.get(12)
    }

    /// Returns the device and the transaction that sent it, while we remember them.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn transaction(&self) -> Result<Option<(&'r str, &'r str)>, StorageError> {
        let device_id: Option<&str> = self.row.get(13)?;
        let txn_id: Option<&str> = self.row.get(14)?;
        Ok(device_id.zip(txn_id))
    }

    /// Returns the canonical JSON of its federation format.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn json(&self) -> Result<&'r str, StorageError> {
        self.row.get(15)
    }
}

/// Which part of a room's current state to list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatePart<'a> {
    /// All of it.
    All,
    /// The member event of one user.
    MemberOf(&'a str),
    /// Member events only.
    Members,
    /// All but member events.
    NotMembers,
}

/// Lists up to `limit` shown events of a room that arrived after `after` and not after `upto`, newest
/// first.
///
/// # Errors
///
/// [`StorageError::Statement`], or the first error that `f` returns; here and below.
pub fn newest_by_arrival(
    txn: &Txn<'_>,
    room: RoomKey,
    after: i64,
    upto: i64,
    limit: usize,
    f: impl FnMut(ShownRow<'_, '_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    each(
        txn,
        select_shown!(
            "events AS e WHERE e.room = ?1 AND e.stream_ordering > ?2 AND e.stream_ordering <= ?3
                 AND e.outlier = 0 AND e.rejected IS NULL AND e.soft_failed = 0
             ORDER BY e.stream_ordering DESC LIMIT ?4"
        ),
        params![room, after, upto, sql_limit(limit)],
        f,
    )
}

/// As [`newest_by_arrival`], but the oldest ones, oldest first.
///
/// # Errors
///
/// As for [`newest_by_arrival`].
pub fn oldest_by_arrival(
    txn: &Txn<'_>,
    room: RoomKey,
    after: i64,
    upto: i64,
    limit: usize,
    f: impl FnMut(ShownRow<'_, '_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    each(
        txn,
        select_shown!(
            "events AS e WHERE e.room = ?1 AND e.stream_ordering > ?2 AND e.stream_ordering <= ?3
                 AND e.outlier = 0 AND e.rejected IS NULL AND e.soft_failed = 0
             ORDER BY e.stream_ordering LIMIT ?4"
        ),
        params![room, after, upto, sql_limit(limit)],
        f,
    )
}

/// Lists up to `limit` shown events of a room in graph order, newest first: those at `before` or
/// earlier which arrived not after `upto`.
///
/// # Errors
///
/// As for [`newest_by_arrival`].
pub fn page_backwards(
    txn: &Txn<'_>,
    room: RoomKey,
    before: GraphPlace,
    upto: i64,
    limit: usize,
    f: impl FnMut(ShownRow<'_, '_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    each(
        txn,
        select_shown!(
            "events AS e WHERE e.room = ?1 AND (e.depth, e.stream_ordering) <= (?2, ?3)
                 AND e.stream_ordering <= ?4
                 AND e.outlier = 0 AND e.rejected IS NULL AND e.soft_failed = 0
             ORDER BY e.depth DESC, e.stream_ordering DESC LIMIT ?5"
        ),
        params![room, before.depth, before.stream, upto, sql_limit(limit)],
        f,
    )
}

/// Lists up to `limit` shown events of a room in graph order, oldest first: those after `after` that
/// arrived after `arrived_after` and not after `upto`.
///
/// # Errors
///
/// As for [`newest_by_arrival`].
pub fn page_forwards(
    txn: &Txn<'_>,
    room: RoomKey,
    after: GraphPlace,
    (arrived_after, upto): (i64, i64),
    limit: usize,
    f: impl FnMut(ShownRow<'_, '_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    each(
        txn,
        select_shown!(
            "events AS e WHERE e.room = ?1 AND (e.depth, e.stream_ordering) > (?2, ?3)
                 AND e.stream_ordering > ?4 AND e.stream_ordering <= ?5
                 AND e.outlier = 0 AND e.rejected IS NULL AND e.soft_failed = 0
             ORDER BY e.depth, e.stream_ordering LIMIT ?6"
        ),
        params![room, after.depth, after.stream, arrived_after, upto, sql_limit(limit)],
        f,
    )
}

/// Lists a part of a room's current state.
///
/// # Errors
///
/// As for [`newest_by_arrival`].
pub fn current_state(
    txn: &Txn<'_>,
    room: RoomKey,
    part: StatePart<'_>,
    mut f: impl FnMut(ShownRow<'_, '_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    match part {
        StatePart::All => each(
            txn,
            select_shown!(
                "current_state AS s JOIN events AS e ON e.stream_ordering = s.event
                 WHERE s.room = ?1 ORDER BY s.type, s.state_key"
            ),
            params![room],
            f,
        ),
        StatePart::MemberOf(user_id) => each(
            txn,
            select_shown!(
                "current_state AS s JOIN events AS e ON e.stream_ordering = s.event
                 WHERE s.room = ?1 AND s.type = 'm.room.member' AND s.state_key = ?2"
            ),
            params![room, user_id],
            f,
        ),
        StatePart::Members => each(
            txn,
            select_shown!(
                "current_state AS s JOIN events AS e ON e.stream_ordering = s.event
                 WHERE s.room = ?1 AND s.type = 'm.room.member' ORDER BY s.state_key"
            ),
            params![room],
            f,
        ),
        // Two ranges of the key: members, of whom there may be many, are not even looked at.
        StatePart::NotMembers => {
            each(
                txn,
                select_shown!(
                    "current_state AS s JOIN events AS e ON e.stream_ordering = s.event
                     WHERE s.room = ?1 AND s.type < 'm.room.member' ORDER BY s.type, s.state_key"
                ),
                params![room],
                &mut f,
            )?;
            each(
                txn,
                select_shown!(
                    "current_state AS s JOIN events AS e ON e.stream_ordering = s.event
                     WHERE s.room = ?1 AND s.type > 'm.room.member' ORDER BY s.type, s.state_key"
                ),
                params![room],
                f,
            )
        }
    }
}

/// Finds one event by its key, shown or not.
///
/// # Errors
///
/// As for [`newest_by_arrival`]; [`StorageError::Damaged`] if there is none: keys come from other
/// tables.
pub fn by_key<T>(
    txn: &Txn<'_>,
    key: EventKey,
    f: impl FnOnce(ShownRow<'_, '_>) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    txn.query_one(select_shown!("events AS e WHERE e.stream_ordering = ?1"), params![key], |row| {
        f(ShownRow { row })
    })
}

fn each(
    txn: &Txn<'_>,
    sql: &str,
    params: &[crate::storage::engine::Param<'_>],
    mut f: impl FnMut(ShownRow<'_, '_>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    txn.query_each(sql, params, |row| f(ShownRow { row }))
}

/// A limit as SQL counts it.
fn sql_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
