//! Filters that clients have uploaded, numbered from 0 for each user.

use ruma::UserId;

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};

/// How many filters a user can have. Clients upload one each time they start, mostly the same; a
/// thousand different ones are no accident.
pub const FILTERS_PER_USER_MAX: i64 = 1000;

/// Stores a filter and returns its number; the same text gets the same number again. `None`: the
/// user has [`FILTERS_PER_USER_MAX`] already.
pub fn insert(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    json: &str,
) -> Result<Option<i64>, StorageError> {
    let known = txn.query_opt(
        "SELECT filter_id FROM filters WHERE user_id = ?1 AND json = ?2",
        params![user_id, json],
        |row| row.get(0),
    )?;
    if known.is_some() {
        return Ok(known);
    }
    let next: i64 = txn.query_one(
        "SELECT coalesce(max(filter_id) + 1, 0) FROM filters WHERE user_id = ?1",
        params![user_id],
        |row| row.get(0),
    )?;
    if next >= FILTERS_PER_USER_MAX {
        return Ok(None);
    }
    txn.execute(
        "INSERT INTO filters (user_id, filter_id, json) VALUES (?1, ?2, ?3)",
        params![user_id, next, json],
    )?;
    Ok(Some(next))
}

/// Returns a filter as JSON text.
pub fn find(
    txn: &Txn<'_>,
    user_id: &UserId,
    filter_id: i64,
) -> Result<Option<String>, StorageError> {
    txn.query_opt(
        "SELECT json FROM filters WHERE user_id = ?1 AND filter_id = ?2",
        params![user_id, filter_id],
        |row| row.get(0),
    )
}
