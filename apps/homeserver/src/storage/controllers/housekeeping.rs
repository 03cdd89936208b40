//! What has to be forgotten in time, in portions that do not hold up the writer.

use crate::model::redact::redacted_json;
use crate::storage::databases::main::{events, extremities, redactions, rooms};
use crate::storage::engine::{StorageError, WriteTxn};
use crate::storage::keys::RoomKey;

/// How long a client may repeat a request and get the same answer: a day, after which Synapse forgets
/// them, too.
pub const TRANSACTION_KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// How long the past ends of rooms' graphs are known: a month, the longest that a client stays away and
/// still gets told of changed devices one by one.
pub const EXTREMITIES_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// Items of one portion: a few milliseconds of work.
const PORTION: i64 = 200;

/// Forgets one portion of client transactions; returns whether there may be more.
///
/// # Errors
///
/// If the database fails.
pub fn forget_transactions(txn: &WriteTxn<'_>, now_ms: i64) -> Result<bool, StorageError> {
    let forgotten = events::forget_transactions(txn, now_ms - TRANSACTION_KEPT_MS, PORTION)?;
    Ok(forgotten > 0)
}

/// Forgets one portion of past ends of graphs, of the rooms after `after`; returns where to go on, if
/// anywhere.
///
/// # Errors
///
/// If the database fails.
pub fn forget_extremities(
    txn: &WriteTxn<'_>,
    after: RoomKey,
    now_ms: i64,
) -> Result<Option<RoomKey>, StorageError> {
    let Some(event) = events::last_received_before(txn, now_ms - EXTREMITIES_KEPT_MS)? else {
        return Ok(None);
    };
    let mut left = PORTION;
    let mut done = after;
    for room in rooms::keys_after(txn, after, PORTION)? {
        let forgotten = extremities::forget_before(txn, room, event.0, left)?;
        left -= i64::try_from(forgotten).unwrap_or(left);
        if left <= 0 {
            // Perhaps not all of this room: it comes again.
            return Ok(Some(done));
        }
        done = room;
    }
    Ok((done != after).then_some(done))
}

/// Takes the content of one portion of events that were redacted more than `kept_ms` ago out of the
/// database; returns whether there may be more.
///
/// Until then they are only served without it, so that moderators can look at what was said.
///
/// # Errors
///
/// If the database fails.
pub fn erase_redacted(txn: &WriteTxn<'_>, kept_ms: i64, now_ms: i64) -> Result<bool, StorageError> {
    let Some(upto) = events::last_received_before(txn, now_ms - kept_ms)? else {
        return Ok(false);
    };
    let due = redactions::unsettled(txn, upto, PORTION)?;
    for &redaction in &due {
        let target = match redactions::target(txn, redaction)? {
            Some(target) => events::find(txn, &target)?,
            None => None,
        };
        if let Some(target) = target
            && redactions::applied_to(txn, &target)?.is_some()
        {
            let version = rooms::by_key(txn, target.room)?.version;
            let json = redacted_json(version, &target.json).map_err(|error| {
                StorageError::damaged(format!("the JSON of event {} ({error})", target.event_id))
            })?;
            events::replace_json(txn, target.key, &json)?;
        }
        redactions::settle(txn, redaction)?;
    }
    Ok(!due.is_empty())
}
