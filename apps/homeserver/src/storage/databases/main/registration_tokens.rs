//! Tokens that let somebody make an account, a number of times and up to a date.

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};

/// Makes a token; returns `false` if there is one of that name.
pub fn insert(
    txn: &WriteTxn<'_>,
    token: &str,
    uses_allowed: Option<u32>,
    expiry_ts: Option<i64>,
) -> Result<bool, StorageError> {
    let made = txn.execute(
        "INSERT INTO registration_tokens (token, uses_allowed, expiry_ts) VALUES (?1, ?2, ?3)
         ON CONFLICT (token) DO NOTHING",
        params![token, uses_allowed, expiry_ts],
    )?;
    Ok(made == 1)
}

const USABLE: &str = "SELECT 1 FROM registration_tokens
     WHERE token = ?1 AND (expiry_ts IS NULL OR expiry_ts > ?2)
       AND (uses_allowed IS NULL OR pending + completed < uses_allowed)";

/// Returns whether somebody could register with the token now.
pub fn is_usable(txn: &Txn<'_>, token: &str, now_ts: i64) -> Result<bool, StorageError> {
    txn.exists(USABLE, params![token, now_ts])
}

/// Reserves one use for a session that has shown the token; returns `false` if it is not usable.
pub fn reserve(txn: &WriteTxn<'_>, token: &str, now_ts: i64) -> Result<bool, StorageError> {
    if !is_usable(txn, token, now_ts)? {
        return Ok(false);
    }
    txn.execute(
        "UPDATE registration_tokens SET pending = pending + 1 WHERE token = ?1",
        params![token],
    )?;
    Ok(true)
}

/// Turns a reserved use into one that has led to an account.
pub fn complete(txn: &WriteTxn<'_>, token: &str) -> Result<(), StorageError> {
    txn.execute(
        "UPDATE registration_tokens SET pending = max(pending - 1, 0), completed = completed + 1
         WHERE token = ?1",
        params![token],
    )?;
    Ok(())
}

/// Gives a reserved use back, for a session that ran out.
pub fn release(txn: &WriteTxn<'_>, token: &str) -> Result<(), StorageError> {
    txn.execute(
        "UPDATE registration_tokens SET pending = max(pending - 1, 0) WHERE token = ?1",
        params![token],
    )?;
    Ok(())
}
