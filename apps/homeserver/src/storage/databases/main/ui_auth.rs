//! Sessions of user-interactive authentication that are in progress.

use ruma::OwnedUserId;

use super::registration_tokens;
use crate::storage::engine::{Row, StorageError, Txn, WriteTxn, params};

/// A session. It belongs to the one request that it was begun for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UiAuthSession {
    /// Its random name.
    pub session_id: String,
    /// When it was begun, in ms since 1970.
    pub created_ts: i64,
    /// The method of its request.
    pub method: String,
    /// The path of its request.
    pub path: String,
    /// The body that its request came with first, without `auth`.
    pub body: String,
    /// The stages that were passed, in their order.
    pub completed: Vec<String>,
    /// The registration token that was shown; one use of it is reserved.
    pub registration_token: Option<String>,
    /// Who passed the password stage.
    pub user_id: Option<OwnedUserId>,
}

/// Begins a session, or replaces it.
pub fn put(txn: &WriteTxn<'_>, session: &UiAuthSession) -> Result<(), StorageError> {
    let completed = serde_json::json!(session.completed).to_string();
    txn.execute(
        "INSERT INTO ui_auth_sessions
             (session_id, created_ts, method, path, body, completed, registration_token, user_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (session_id) DO UPDATE SET completed = excluded.completed,
             registration_token = excluded.registration_token, user_id = excluded.user_id",
        params![
            &session.session_id,
            session.created_ts,
            &session.method,
            &session.path,
            &session.body,
            &completed,
            session.registration_token.as_ref(),
            session.user_id.as_ref(),
        ],
    )?;
    Ok(())
}

/// Returns a session.
pub fn find(txn: &Txn<'_>, session_id: &str) -> Result<Option<UiAuthSession>, StorageError> {
    txn.query_opt(
        "SELECT session_id, created_ts, method, path, body, completed, registration_token, user_id
         FROM ui_auth_sessions WHERE session_id = ?1",
        params![session_id],
        read_session,
    )
}

/// Ends a session that has done its work.
pub fn delete(txn: &WriteTxn<'_>, session_id: &str) -> Result<(), StorageError> {
    txn.execute("DELETE FROM ui_auth_sessions WHERE session_id = ?1", params![session_id])?;
    Ok(())
}

/// Ends sessions begun before `before_ts`, at most `count_max` of them, and gives back the
/// registration tokens that they had reserved.
pub fn expire(txn: &WriteTxn<'_>, before_ts: i64, count_max: u32) -> Result<(), StorageError> {
    let expired = txn.query(
        "SELECT session_id, registration_token FROM ui_auth_sessions
         WHERE created_ts < ?1 ORDER BY created_ts LIMIT ?2",
        params![before_ts, count_max],
        |row| Ok((row.get::<String>(0)?, row.get::<Option<String>>(1)?)),
    )?;
    for (session_id, token) in expired {
        if let Some(token) = token {
            registration_tokens::release(txn, &token)?;
        }
        delete(txn, &session_id)?;
    }
    Ok(())
}

/// Returns how many sessions are in progress.
pub fn count(txn: &Txn<'_>) -> Result<i64, StorageError> {
    txn.query_one("SELECT count(*) FROM ui_auth_sessions", params![], |row| row.get(0))
}

fn read_session(row: &Row<'_>) -> Result<UiAuthSession, StorageError> {
    let user_id: Option<&str> = row.get(7)?;
    Ok(UiAuthSession {
        session_id: row.get(0)?,
        created_ts: row.get(1)?,
        method: row.get(2)?,
        path: row.get(3)?,
        body: row.get(4)?,
        completed: serde_json::from_str(row.get(5)?)
            .map_err(|_| StorageError::damaged("the stages of a session are not JSON"))?,
        registration_token: row.get(6)?,
        user_id: user_id.map(super::users::parse_user_id).transpose()?,
    })
}
