//! State events as clients see them, redacted where they have been redacted.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::model::redact::redacted_json;
use crate::model::{ClientView, write_client_event};
use crate::storage::StorageError;
use crate::storage::databases::main::rooms::Room;
use crate::storage::databases::main::{current_state, events, redactions};
use crate::storage::engine::Txn;
use crate::storage::keys::EventKey;

/// Writes a state event.
pub(crate) fn write_event(
    txn: &Txn<'_>,
    out: &mut Vec<u8>,
    room: &Room,
    event: EventKey,
    now_ms: u64,
) -> Result<(), StorageError> {
    let (row, json, redaction) = shown_json(txn, room, event)?;
    let replaced = match row.replaces {
        None => None,
        Some(replaced) => {
            let (row, json, _) = shown_json(txn, room, replaced)?;
            Some((row.event_id, content_of(&json)?.to_owned()))
        }
    };
    let redacted_because = match redaction {
        None => None,
        Some(redaction) => {
            let row = events::by_key(txn, redaction)?;
            let view = ClientView {
                event_id: row.event_id.as_str(),
                room_id: Some(room.room_id.as_str()),
                now_ms,
                ..ClientView::default()
            };
            let mut because = Vec::new();
            write_client_event(&mut because, &row.json, &view).map_err(damaged)?;
            String::from_utf8(because).ok()
        }
    };
    let view = ClientView {
        event_id: row.event_id.as_str(),
        room_id: Some(room.room_id.as_str()),
        now_ms,
        prev_content: replaced.as_ref().map(|(_, content)| content.get()),
        replaces_state: replaced.as_ref().map(|(event_id, _)| event_id.as_str()),
        redacted_because: redacted_because.as_deref(),
        ..ClientView::default()
    };
    write_client_event(out, &json, &view).map_err(damaged)
}

/// Returns the content of a state event, as JSON.
pub(crate) fn content(
    txn: &Txn<'_>,
    room: &Room,
    event: EventKey,
) -> Result<Box<RawValue>, StorageError> {
    let (_, json, _) = shown_json(txn, room, event)?;
    Ok(content_of(&json)?.to_owned())
}

/// Returns the content of a room's current state event with an empty state key, if there is one.
pub(crate) fn current_content(
    txn: &Txn<'_>,
    room: &Room,
    event_type: &str,
) -> Result<Option<Box<RawValue>>, StorageError> {
    match current_state::entry(txn, room.key, event_type, "")? {
        Some(event) => content(txn, room, event).map(Some),
        None => Ok(None),
    }
}

/// Returns an event with the JSON that may be shown, and the redaction that made it so.
fn shown_json(
    txn: &Txn<'_>,
    room: &Room,
    event: EventKey,
) -> Result<(events::EventRow, String, Option<EventKey>), StorageError> {
    let mut row = events::by_key(txn, event)?;
    let redaction = redactions::applied_to(txn, &row)?;
    let json = std::mem::take(&mut row.json);
    let json = match redaction {
        None => json,
        Some(_) => redacted_json(room.version, &json)
            .map_err(|error| StorageError::damaged(format!("event {}: {error}", row.event_id)))?,
    };
    Ok((row, json, redaction))
}

fn content_of(json: &str) -> Result<&RawValue, StorageError> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        content: &'a RawValue,
    }
    serde_json::from_str::<Event<'_>>(json).map(|event| event.content).map_err(damaged)
}

fn damaged(error: serde_json::Error) -> StorageError {
    StorageError::damaged(format!("the JSON of an event cannot be read ({error})"))
}
