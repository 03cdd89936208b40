//! The accounts of this server: who exists, and what opens the account.

use ruma::{OwnedUserId, UserId};

use crate::config::Secret;
use crate::storage::engine::{Row, StorageError, Txn, WriteTxn, params};

/// An account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// Its name.
    pub user_id: OwnedUserId,
    /// argon2id in PHC format; `None` if no password opens the account.
    pub password_hash: Option<Secret>,
    /// When it was made, in ms since 1970.
    pub created_ts: i64,
    /// Whether its owner administers the server.
    pub is_admin: bool,
    /// Whether it was closed for good.
    pub is_deactivated: bool,
    /// Whether its owner asked for oblivion.
    pub is_erased: bool,
}

/// A new account.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Its name.
    pub user_id: OwnedUserId,
    /// argon2id in PHC format; `None` if no password opens the account.
    pub password_hash: Option<Secret>,
    /// Now, in ms since 1970.
    pub created_ts: i64,
    /// Whether its owner administers the server.
    pub is_admin: bool,
}

/// Makes an account; returns `false` if the name is taken, closed accounts included.
pub fn insert(txn: &WriteTxn<'_>, user: &NewUser) -> Result<bool, StorageError> {
    let made = txn.execute(
        "INSERT INTO users (user_id, password_hash, created_ts, is_admin)
         VALUES (?1, ?2, ?3, ?4) ON CONFLICT (user_id) DO NOTHING",
        params![
            &user.user_id,
            user.password_hash.as_ref().map(Secret::expose),
            user.created_ts,
            user.is_admin,
        ],
    )?;
    Ok(made == 1)
}

/// Returns the account of that name.
pub fn find(txn: &Txn<'_>, user_id: &UserId) -> Result<Option<User>, StorageError> {
    txn.query_opt(
        "SELECT user_id, password_hash, created_ts, is_admin, deactivated, erased
         FROM users WHERE user_id = ?1",
        params![user_id],
        read_user,
    )
}

/// Returns whether the name is taken, closed accounts included.
pub fn exists(txn: &Txn<'_>, user_id: &UserId) -> Result<bool, StorageError> {
    txn.exists("SELECT 1 FROM users WHERE user_id = ?1", params![user_id])
}

/// Replaces what opens the account.
pub fn set_password_hash(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    hash: &Secret,
) -> Result<(), StorageError> {
    txn.execute(
        "UPDATE users SET password_hash = ?2 WHERE user_id = ?1 AND deactivated = 0",
        params![user_id, hash.expose()],
    )?;
    Ok(())
}

/// Closes the account for good. An erasure that was asked for once stays asked for.
pub fn deactivate(txn: &WriteTxn<'_>, user_id: &UserId, erase: bool) -> Result<(), StorageError> {
    txn.execute(
        "UPDATE users SET deactivated = 1, password_hash = NULL, erased = max(erased, ?2)
         WHERE user_id = ?1",
        params![user_id, erase],
    )?;
    Ok(())
}

fn read_user(row: &Row<'_>) -> Result<User, StorageError> {
    Ok(User {
        user_id: parse_user_id(row.get(0)?)?,
        password_hash: row.get::<Option<String>>(1)?.map(Secret::new),
        created_ts: row.get(2)?,
        is_admin: row.get(3)?,
        is_deactivated: row.get(4)?,
        is_erased: row.get(5)?,
    })
}

/// Reads a stored user id.
pub(super) fn parse_user_id(text: &str) -> Result<OwnedUserId, StorageError> {
    UserId::parse(text).map_err(|_| StorageError::damaged(format!("{text:?} is no user id")))
}
