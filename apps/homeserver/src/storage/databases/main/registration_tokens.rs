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

/// Returns whether somebody could register with the token now.
pub fn is_usable(txn: &Txn<'_>, token: &str, now_ts: i64) -> Result<bool, StorageError> {
    txn.exists(
        "SELECT 1 FROM registration_tokens
         WHERE token = ?1 AND (expiry_ts IS NULL OR expiry_ts > ?2)
           AND (uses_allowed IS NULL OR used < uses_allowed)",
        params![token, now_ts],
    )
}

/// Notes that the token has led to an account; returns `false` if it is not usable (any more).
pub fn consume(txn: &WriteTxn<'_>, token: &str, now_ts: i64) -> Result<bool, StorageError> {
    let usable = is_usable(txn, token, now_ts)?;
    if usable {
        txn.execute(
            "UPDATE registration_tokens SET used = used + 1 WHERE token = ?1",
            params![token],
        )?;
    }
    Ok(usable)
}
