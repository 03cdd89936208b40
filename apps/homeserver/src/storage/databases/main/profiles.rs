//! Profiles: one JSON value a field, `displayname` and `avatar_url` among them.

use std::collections::BTreeMap;

use ruma::UserId;
use serde_json::Value;

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};

/// Returns all fields of a user's profile; empty if there are none.
pub fn all(txn: &Txn<'_>, user_id: &UserId) -> Result<BTreeMap<String, Value>, StorageError> {
    let rows = txn.query(
        "SELECT name, value FROM profile_fields WHERE user_id = ?1",
        params![user_id],
        |row| Ok((row.get(0)?, parse(row.get(1)?)?)),
    )?;
    Ok(rows.into_iter().collect())
}

/// Returns one field.
pub fn field(txn: &Txn<'_>, user_id: &UserId, name: &str) -> Result<Option<Value>, StorageError> {
    txn.query_opt(
        "SELECT value FROM profile_fields WHERE user_id = ?1 AND name = ?2",
        params![user_id, name],
        |row| parse(row.get(0)?),
    )
}

/// Returns what membership events carry: `displayname` and `avatar_url`, where they are strings.
pub fn of_member(
    txn: &Txn<'_>,
    user_id: &UserId,
) -> Result<(Option<String>, Option<String>), StorageError> {
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let name = text(field(txn, user_id, "displayname")?);
    Ok((name, text(field(txn, user_id, "avatar_url")?)))
}

/// Sets one field.
pub fn set(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    name: &str,
    value: &Value,
) -> Result<(), StorageError> {
    txn.execute(
        "INSERT INTO profile_fields (user_id, name, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (user_id, name) DO UPDATE SET value = excluded.value",
        params![user_id, name, &value.to_string()],
    )?;
    Ok(())
}

/// Removes one field.
pub fn delete(txn: &WriteTxn<'_>, user_id: &UserId, name: &str) -> Result<(), StorageError> {
    txn.execute(
        "DELETE FROM profile_fields WHERE user_id = ?1 AND name = ?2",
        params![user_id, name],
    )?;
    Ok(())
}

/// Removes a user's whole profile.
pub fn delete_all(txn: &WriteTxn<'_>, user_id: &UserId) -> Result<(), StorageError> {
    txn.execute("DELETE FROM profile_fields WHERE user_id = ?1", params![user_id])?;
    Ok(())
}

fn parse(text: &str) -> Result<Value, StorageError> {
    serde_json::from_str(text).map_err(|_| StorageError::damaged("a profile field is not JSON"))
}
