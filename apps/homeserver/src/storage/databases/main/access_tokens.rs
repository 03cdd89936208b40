//! Access tokens, kept as hashes: whoever reads the database cannot log in with what is in it.

use aws_lc_rs::digest::{SHA256, digest};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::storage::engine::{StorageError, Txn, WriteTxn, params};

/// The SHA-256 of an access token. Tokens are 256 random bits, so neither salt nor a slow hash adds
/// anything.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes a token.
    pub fn of(token: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self(hash)
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// Whom a token speaks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenOwner {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device that the token was given to.
    pub device_id: OwnedDeviceId,
}

/// Gives a device a token; those that it had stop working.
pub fn replace(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
    hash: &TokenHash,
    now_ts: i64,
) -> Result<(), StorageError> {
    delete_of_device(txn, user_id, device_id)?;
    txn.execute(
        "INSERT INTO access_tokens (token_hash, user_id, device_id, created_ts)
         VALUES (?1, ?2, ?3, ?4)",
        params![hash.as_bytes(), user_id, device_id, now_ts],
    )?;
    Ok(())
}

/// Returns whom a token speaks for.
pub fn owner(txn: &Txn<'_>, hash: &TokenHash) -> Result<Option<TokenOwner>, StorageError> {
    txn.query_opt(
        "SELECT user_id, device_id FROM access_tokens WHERE token_hash = ?1",
        params![hash.as_bytes()],
        |row| {
            Ok(TokenOwner {
                user_id: super::users::parse_user_id(row.get(0)?)?,
                device_id: row.get::<&str>(1)?.into(),
            })
        },
    )
}

/// Takes a device's tokens away.
pub fn delete_of_device(
    txn: &WriteTxn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<(), StorageError> {
    txn.execute(
        "DELETE FROM access_tokens WHERE user_id = ?1 AND device_id = ?2",
        params![user_id, device_id],
    )?;
    Ok(())
}
