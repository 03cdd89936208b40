//! Tags of rooms, such as `m.favourite`. They are one entry `m.tag` of the room's account data, so
//! that changes reach clients on the way that account data takes.

use ruma::{RoomId, UserId};
use serde_json::{Map, Value};

use super::account_data;
use crate::storage::engine::{StorageError, Txn, WriteTxn};

const EVENT_TYPE: &str = "m.tag";

/// Returns the tags of a room, each with what the client attached to it.
pub fn of_room(
    txn: &Txn<'_>,
    user_id: &UserId,
    room_id: &RoomId,
) -> Result<Map<String, Value>, StorageError> {
    let Some(content) = account_data::find(txn, user_id, Some(room_id), EVENT_TYPE)? else {
        return Ok(Map::new());
    };
    let mut content: Value = serde_json::from_str(&content)
        .map_err(|_| StorageError::damaged("the tags of a room are not JSON"))?;
    match content.get_mut("tags").map(Value::take) {
        Some(Value::Object(tags)) => Ok(tags),
        // A client may have written m.tag as plain account data, in any shape.
        _ => Ok(Map::new()),
    }
}

/// Puts a tag on a room, or replaces what is attached to it.
pub fn set(
    txn: &mut WriteTxn<'_>,
    user_id: &UserId,
    room_id: &RoomId,
    tag: &str,
    info: Value,
) -> Result<(), StorageError> {
    let mut tags = of_room(txn, user_id, room_id)?;
    tags.insert(tag.to_owned(), info);
    store(txn, user_id, room_id, tags)
}

/// Takes a tag off a room. Nothing is announced if it was not there.
pub fn delete(
    txn: &mut WriteTxn<'_>,
    user_id: &UserId,
    room_id: &RoomId,
    tag: &str,
) -> Result<(), StorageError> {
    let mut tags = of_room(txn, user_id, room_id)?;
    if tags.remove(tag).is_none() {
        return Ok(());
    }
    store(txn, user_id, room_id, tags)
}

fn store(
    txn: &mut WriteTxn<'_>,
    user_id: &UserId,
    room_id: &RoomId,
    tags: Map<String, Value>,
) -> Result<(), StorageError> {
    let content = serde_json::json!({ "tags": tags }).to_string();
    account_data::set(txn, user_id, Some(room_id), EVENT_TYPE, &content).map(|_| ())
}
