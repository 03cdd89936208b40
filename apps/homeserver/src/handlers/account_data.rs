//! What clients keep on the server for themselves: account data, tags of rooms, filters.

use ropewalk::Failure;
use ruma::api::client::filter::FilterDefinition;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use serde_json::{Map, Value};

use super::Refusal;
use super::sessions::Requester;
use crate::storage::databases::main::{account_data, filters, room_tags};
use crate::storage::engine::Database;

/// The longest entry, in bytes: as large as an event.
const CONTENT_BYTES_MAX: usize = 64 << 10;

/// The longest name of a tag and the longest filter, in bytes. The specification's limit for tags;
/// a filter that names a thousand rooms fits.
const TAG_BYTES_MAX: usize = 255;
const FILTER_BYTES_MAX: usize = 64 << 10;

/// Keeps clients' settings.
#[derive(Clone)]
pub struct AccountData {
    database: Database,
}

impl AccountData {
    /// Keeps them in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Sets an entry of the requester's account data, global or of a room.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for somebody else's, `M_BAD_JSON` if it is not an object or of a type that the
    /// server writes itself, `M_TOO_LARGE`.
    pub async fn set(
        &self,
        requester: &Requester,
        user_id: OwnedUserId,
        room_id: Option<OwnedRoomId>,
        event_type: String,
        content: String,
    ) -> Result<(), Failure> {
        check_own(requester, &user_id)?;
        let by_the_server = match &room_id {
            None => event_type == "m.push_rules",
            Some(_) => event_type == "m.fully_read",
        };
        if by_the_server {
            return Err(Refusal::server_controlled(&event_type).into());
        }
        if event_type.is_empty() || event_type.len() > 255 {
            return Err(Refusal::invalid_param("types have from 1 to 255 bytes").into());
        }
        if content.len() > CONTENT_BYTES_MAX {
            let message = format!("account data is at most {CONTENT_BYTES_MAX} bytes");
            return Err(Refusal::too_large(message).into());
        }
        if serde_json::from_str::<Map<String, Value>>(&content).is_err() {
            return Err(Refusal::bad_json("account data is a JSON object").into());
        }
        self.database
            .write("set account data", move |txn| {
                account_data::set(txn, &user_id, room_id.as_deref(), &event_type, &content)
            })
            .await?;
        Ok(())
    }

    /// Returns an entry as JSON text.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for somebody else's, `M_NOT_FOUND`.
    pub async fn get(
        &self,
        requester: &Requester,
        user_id: OwnedUserId,
        room_id: Option<OwnedRoomId>,
        event_type: String,
    ) -> Result<String, Failure> {
        check_own(requester, &user_id)?;
        let found = self
            .database
            .read(move |txn| account_data::find(txn, &user_id, room_id.as_deref(), &event_type))
            .await?;
        found.ok_or_else(|| Refusal::not_found("there is no such account data").into())
    }

    /// Returns the tags of a room.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for somebody else's.
    pub async fn tags(
        &self,
        requester: &Requester,
        user_id: OwnedUserId,
        room_id: OwnedRoomId,
    ) -> Result<Map<String, Value>, Failure> {
        check_own(requester, &user_id)?;
        self.database.read(move |txn| room_tags::of_room(txn, &user_id, &room_id)).await
    }

    /// Puts a tag on a room.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for somebody else's, `M_INVALID_PARAM` if its name is too long.
    pub async fn set_tag(
        &self,
        requester: &Requester,
        user_id: OwnedUserId,
        room_id: OwnedRoomId,
        tag: String,
        info: Value,
    ) -> Result<(), Failure> {
        check_own(requester, &user_id)?;
        if tag.len() > TAG_BYTES_MAX {
            let message = format!("tags have at most {TAG_BYTES_MAX} bytes");
            return Err(Refusal::invalid_param(message).into());
        }
        self.database
            .write("set tag", move |txn| room_tags::set(txn, &user_id, &room_id, &tag, info))
            .await
    }

    /// Takes a tag off a room.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for somebody else's.
    pub async fn delete_tag(
        &self,
        requester: &Requester,
        user_id: OwnedUserId,
        room_id: OwnedRoomId,
        tag: String,
    ) -> Result<(), Failure> {
        check_own(requester, &user_id)?;
        self.database
            .write("delete tag", move |txn| room_tags::delete(txn, &user_id, &room_id, &tag))
            .await
    }

    /// Keeps a filter for later requests; returns its name.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for somebody else's, `M_TOO_LARGE`, and `M_FORBIDDEN` again if the user has
    /// kept too many.
    pub async fn keep_filter(
        &self,
        requester: &Requester,
        user_id: OwnedUserId,
        filter: &FilterDefinition,
    ) -> Result<String, Failure> {
        check_own(requester, &user_id)?;
        let text = serde_json::to_string(filter)?;
        if text.len() > FILTER_BYTES_MAX {
            let message = format!("filters are at most {FILTER_BYTES_MAX} bytes");
            return Err(Refusal::too_large(message).into());
        }
        let kept = self
            .database
            .write("keep filter", move |txn| filters::insert(txn, &user_id, &text))
            .await?;
        match kept {
            Some(filter_id) => Ok(filter_id.to_string()),
            None => {
                let message =
                    format!("there are {} filters already", filters::FILTERS_PER_USER_MAX);
                Err(Refusal::forbidden(message).into())
            }
        }
    }

    /// Returns a filter that was kept, as JSON text.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for somebody else's, `M_INVALID_PARAM` for what cannot be a filter's name,
    /// `M_NOT_FOUND`.
    pub async fn filter(
        &self,
        requester: &Requester,
        user_id: OwnedUserId,
        filter_id: &str,
    ) -> Result<String, Failure> {
        check_own(requester, &user_id)?;
        let filter_id: i64 = filter_id
            .parse()
            .map_err(|_| Refusal::invalid_param("the ids of filters are numbers"))?;
        let found = self.database.read(move |txn| filters::find(txn, &user_id, filter_id)).await?;
        found.ok_or_else(|| Refusal::not_found("there is no such filter").into())
    }
}

fn check_own(requester: &Requester, user_id: &UserId) -> Result<(), Refusal> {
    if requester.user_id == user_id {
        return Ok(());
    }
    Err(Refusal::forbidden("this belongs to another user"))
}
