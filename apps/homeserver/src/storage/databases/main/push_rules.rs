//! Push rules: the whole set of each user who changed something. All others have the default set.

use ruma::UserId;

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};
use crate::streams::Stream;

/// Returns a user's rules as JSON text, if he ever changed them.
pub fn find(txn: &Txn<'_>, user_id: &UserId) -> Result<Option<String>, StorageError> {
    txn.query_opt("SELECT rules FROM push_rules WHERE user_id = ?1", params![user_id], |row| {
        row.get(0)
    })
}

/// Returns a user's rules as JSON text if they changed after `since`, up to and including `until`.
pub fn changed(
    txn: &Txn<'_>,
    user_id: &UserId,
    since: i64,
    until: i64,
) -> Result<Option<String>, StorageError> {
    txn.query_opt(
        "SELECT rules FROM push_rules WHERE user_id = ?1 AND stream_id > ?2 AND stream_id <= ?3",
        params![user_id, since, until],
        |row| row.get(0),
    )
}

/// Stores a user's rules, and announces them to his devices.
pub fn set(txn: &mut WriteTxn<'_>, user_id: &UserId, rules: &str) -> Result<(), StorageError> {
    let stream_id = txn.next_stream_id(Stream::PushRules);
    txn.execute(
        "INSERT INTO push_rules (user_id, stream_id, rules) VALUES (?1, ?2, ?3)
         ON CONFLICT (user_id)
         DO UPDATE SET stream_id = excluded.stream_id, rules = excluded.rules",
        params![user_id, stream_id, rules],
    )?;
    txn.wake_user(Stream::PushRules, user_id);
    Ok(())
}

/// Forgets a user's rules, for accounts that are closed.
pub fn delete(txn: &WriteTxn<'_>, user_id: &UserId) -> Result<(), StorageError> {
    txn.execute("DELETE FROM push_rules WHERE user_id = ?1", params![user_id])?;
    Ok(())
}
