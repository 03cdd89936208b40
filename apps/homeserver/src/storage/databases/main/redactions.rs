//! Redactions: which event wants which event redacted, and whether it may.
//!
//! Nothing is redacted on disk here: a redaction applies when the event is read. Finding it is one step
//! from target to redaction and never further, so that redactions of redactions cannot run in circles.

use ruma::{EventId, OwnedEventId, OwnedUserId};

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};
use crate::storage::keys::{EventKey, RoomKey};

use super::events::EventRow;

/// Notes a redaction that names its target.
///
/// `has_power` says that its sender's power sufficed when it was checked; otherwise it applies only to
/// events from the same server.
///
/// # Errors
///
/// If the database fails.
pub fn insert(
    txn: &WriteTxn<'_>,
    event: EventKey,
    room: RoomKey,
    target: &EventId,
    has_power: bool,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO redactions (event, room, target_event_id, has_power)
         VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![event, room, target, has_power],
    )
    .map(|_| ())
}

/// Returns the first redaction that applies to `target`, if any.
///
/// # Errors
///
/// If the database fails.
pub fn applied_to(txn: &Txn<'_>, target: &EventRow) -> Result<Option<EventKey>, StorageError> {
    if target.event_type == "m.room.create" || target.rejected.is_some() {
        return Ok(None);
    }
    let candidates: Vec<(EventKey, bool, OwnedUserId)> = txn.query(
        "SELECT redactions.event, redactions.has_power, events.sender FROM redactions
         JOIN events ON events.stream_ordering = redactions.event
         WHERE redactions.target_event_id = ?1 AND redactions.room = ?2
             AND outlier = 0 AND rejected IS NULL AND soft_failed = 0
         ORDER BY redactions.event",
        params![&target.event_id, target.room],
        |row| Ok((row.get(0)?, row.get(1)?, row.parse(2)?)),
    )?;
    Ok(candidates
        .into_iter()
        .find(|(_, has_power, sender)| {
            *has_power || sender.server_name() == target.sender.server_name()
        })
        .map(|(event, ..)| event))
}

/// Returns what a redaction wants redacted; `None` if it names nothing.
///
/// # Errors
///
/// If the database fails.
pub fn target(txn: &Txn<'_>, redaction: EventKey) -> Result<Option<OwnedEventId>, StorageError> {
    txn.query_opt(
        "SELECT target_event_id FROM redactions WHERE event = ?1",
        params![redaction],
        |row| row.parse(0),
    )
}

/// Returns whether clients may see a redaction: it names a target that we know, in the same room, that
/// may be redacted, and it applies to it.
///
/// # Errors
///
/// If the database fails.
pub fn may_be_shown(txn: &Txn<'_>, redaction: &EventRow) -> Result<bool, StorageError> {
    let found: Option<(bool, OwnedUserId, String, bool)> = txn.query_opt(
        "SELECT redactions.has_power, events.sender, events.type, events.rejected IS NOT NULL
         FROM redactions JOIN events ON events.event_id = redactions.target_event_id
         WHERE redactions.event = ?1 AND events.room = redactions.room",
        params![redaction.key],
        |row| Ok((row.get(0)?, row.parse(1)?, row.get(2)?, row.get(3)?)),
    )?;
    Ok(found.is_some_and(|(has_power, sender, event_type, is_rejected)| {
        event_type != "m.room.create"
            && !is_rejected
            && (has_power || sender.server_name() == redaction.sender.server_name())
    }))
}

/// Returns redactions up to and including the event `upto` whose targets still have their content, oldest
/// first.
///
/// # Errors
///
/// If the database fails.
pub fn unsettled(txn: &Txn<'_>, upto: EventKey, limit: i64) -> Result<Vec<EventKey>, StorageError> {
    txn.query(
        "SELECT event FROM redactions WHERE settled = 0 AND event <= ?1 ORDER BY event LIMIT ?2",
        params![upto, limit],
        |row| row.get(0),
    )
}

/// Notes that there is nothing left to do for a redaction.
///
/// # Errors
///
/// If the database fails.
pub fn settle(txn: &WriteTxn<'_>, redaction: EventKey) -> Result<(), StorageError> {
    txn.execute("UPDATE redactions SET settled = 1 WHERE event = ?1", params![redaction])
        .map(|_| ())
}
