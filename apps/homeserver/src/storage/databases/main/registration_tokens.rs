//! Tokens that let somebody make an account, a number of times and up to a date.

use crate::storage::engine::{Row, StorageError, Txn, WriteTxn, params};

/// A token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistrationToken {
    /// What people type in.
    pub token: String,
    /// How many accounts can be made with it; `None`: any number.
    pub uses_allowed: Option<u32>,
    /// How many were.
    pub used: u32,
    /// From when on it is good for nothing, in ms since 1970; `None`: never.
    pub expiry_ts: Option<i64>,
}

impl RegistrationToken {
    /// Returns whether somebody could register with it now.
    pub fn is_usable(&self, now_ts: i64) -> bool {
        self.uses_allowed.is_none_or(|allowed| self.used < allowed)
            && self.expiry_ts.is_none_or(|expiry_ts| expiry_ts > now_ts)
    }
}

/// Returns all tokens, in the order of the alphabet.
pub fn all(txn: &Txn<'_>) -> Result<Vec<RegistrationToken>, StorageError> {
    txn.query(
        "SELECT token, uses_allowed, used, expiry_ts FROM registration_tokens ORDER BY token",
        params![],
        read_token,
    )
}

/// Returns one token.
pub fn find(txn: &Txn<'_>, token: &str) -> Result<Option<RegistrationToken>, StorageError> {
    txn.query_opt(
        "SELECT token, uses_allowed, used, expiry_ts FROM registration_tokens WHERE token = ?1",
        params![token],
        read_token,
    )
}

/// Removes a token; returns whether it was there.
pub fn delete(txn: &WriteTxn<'_>, token: &str) -> Result<bool, StorageError> {
    Ok(txn.execute("DELETE FROM registration_tokens WHERE token = ?1", params![token])? == 1)
}

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
    Ok(find(txn, token)?.is_some_and(|token| token.is_usable(now_ts)))
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

fn read_token(row: &Row<'_>) -> Result<RegistrationToken, StorageError> {
    Ok(RegistrationToken {
        token: row.get(0)?,
        uses_allowed: row.get(1)?,
        used: row.get(2)?,
        expiry_ts: row.get(3)?,
    })
}
