//! Profiles: what users show of themselves.

use std::collections::BTreeMap;
use std::rc::Rc;

use ropewalk::{Deferred, Failure};
use ruma::api::error::ErrorKind;
use ruma::{OwnedServerName, OwnedUserId, UserId};
use serde_json::Value;

use super::Refusal;
use super::sessions::Requester;
use crate::storage::StorageError;
use crate::storage::databases::main::{profiles, users};
use crate::storage::engine::Database;

/// The specification's limits: a field's name in bytes, and a whole profile as JSON in bytes.
const FIELD_NAME_BYTES_MAX: usize = 255;
const PROFILE_BYTES_MAX: usize = 64 << 10;

/// Membership events carry these two everywhere; longer ones are mischief. In characters and bytes,
/// as in Synapse.
const DISPLAY_NAME_CHARS_MAX: usize = 256;
const AVATAR_URL_BYTES_MAX: usize = 1000;

/// Tells rooms that what membership events carry has changed; the rooms' part of the server does
/// it.
pub trait ProfileInRooms {
    /// Updates the membership event of `user_id` in each of his rooms.
    fn profile_changed(&self, user_id: &UserId) -> Deferred<()>;
}

/// Shows and changes profiles.
pub struct Profiles {
    database: Database,
    server_name: OwnedServerName,
    rooms: Rc<dyn ProfileInRooms>,
}

impl Profiles {
    /// Keeps the profiles of users of `server_name` in `database`.
    pub fn new(
        database: Database,
        server_name: OwnedServerName,
        rooms: Rc<dyn ProfileInRooms>,
    ) -> Self {
        Self { database, server_name, rooms }
    }

    /// Returns a whole profile.
    ///
    /// # Errors
    ///
    /// `M_NOT_FOUND` if there is no such user.
    pub async fn all(&self, user_id: OwnedUserId) -> Result<BTreeMap<String, Value>, Failure> {
        self.check_local(&user_id)?;
        self.database
            .read(move |txn| -> Result<_, StorageError> {
                let user = users::find(txn, &user_id)?;
                if user.is_none_or(|user| user.is_deactivated) {
                    return Ok(Err(no_such_user()));
                }
                profiles::all(txn, &user_id).map(Ok)
            })
            .await?
            .map_err(Failure::from)
    }

    /// Returns one field.
    ///
    /// # Errors
    ///
    /// `M_NOT_FOUND` if there is no such user, or no such field in his profile.
    pub async fn field(&self, user_id: OwnedUserId, name: &str) -> Result<Value, Failure> {
        let field = self.all(user_id).await?.remove(name);
        field.ok_or_else(|| Refusal::not_found(format!("the profile has no field {name:?}")).into())
    }

    /// Sets one field of the requester's own profile.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for somebody else's, `M_KEY_TOO_LARGE`, `M_PROFILE_TOO_LARGE`, and
    /// `M_INVALID_PARAM` for a display name or avatar that cannot be one.
    pub async fn set(
        &self,
        requester: &Requester,
        user_id: OwnedUserId,
        name: String,
        value: Value,
    ) -> Result<(), Failure> {
        check_own(requester, &user_id)?;
        check_name(&name)?;
        check_value(&name, &value)?;
        let in_rooms = is_in_membership(&name);
        let user = user_id.clone();
        self.database
            .write("set profile field", move |txn| -> Result<_, StorageError> {
                let mut all = profiles::all(txn, &user)?;
                all.insert(name.clone(), value.clone());
                let size = serde_json::to_string(&all).map_or(usize::MAX, |text| text.len());
                if size > PROFILE_BYTES_MAX {
                    let message = format!("the profile would be over {PROFILE_BYTES_MAX} bytes");
                    return Ok(Err(Refusal::new(ErrorKind::ProfileTooLarge, message)));
                }
                // An empty name or picture is none.
                match is_in_membership(&name) && value.as_str() == Some("") {
                    true => profiles::delete(txn, &user, &name).map(Ok),
                    false => profiles::set(txn, &user, &name, &value).map(Ok),
                }
            })
            .await??;
        if in_rooms { self.rooms.profile_changed(&user_id).await } else { Ok(()) }
    }

    /// Removes one field of the requester's own profile; no error if it is not there.
    ///
    /// # Errors
    ///
    /// `M_FORBIDDEN` for somebody else's.
    pub async fn delete(
        &self,
        requester: &Requester,
        user_id: OwnedUserId,
        name: String,
    ) -> Result<(), Failure> {
        check_own(requester, &user_id)?;
        let in_rooms = is_in_membership(&name);
        let user = user_id.clone();
        self.database
            .write("delete profile field", move |txn| profiles::delete(txn, &user, &name))
            .await?;
        if in_rooms { self.rooms.profile_changed(&user_id).await } else { Ok(()) }
    }

    fn check_local(&self, user_id: &UserId) -> Result<(), Refusal> {
        // Other servers' users are found once there is federation.
        if user_id.server_name() == self.server_name { Ok(()) } else { Err(no_such_user()) }
    }
}

fn is_in_membership(name: &str) -> bool {
    matches!(name, "avatar_url" | "displayname")
}

fn check_own(requester: &Requester, user_id: &UserId) -> Result<(), Refusal> {
    if requester.user_id == user_id {
        return Ok(());
    }
    Err(Refusal::forbidden("a profile can be changed by its owner only"))
}

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::invalid_param("the name of the field is empty"));
    }
    if name.len() > FIELD_NAME_BYTES_MAX {
        let message = format!("the name of the field is over {FIELD_NAME_BYTES_MAX} bytes");
        return Err(Refusal::new(ErrorKind::KeyTooLarge, message));
    }
    Ok(())
}

fn check_value(name: &str, value: &Value) -> Result<(), Refusal> {
    let limit = match name {
        "displayname" => DISPLAY_NAME_CHARS_MAX,
        "avatar_url" => AVATAR_URL_BYTES_MAX,
        _ => return Ok(()),
    };
    let Value::String(text) = value else {
        return Err(Refusal::invalid_param(format!("{name} is not a string")));
    };
    let length = if name == "displayname" { text.chars().count() } else { text.len() };
    if length > limit {
        return Err(Refusal::invalid_param(format!("{name} is longer than {limit}")));
    }
    Ok(())
}

fn no_such_user() -> Refusal {
    Refusal::not_found("there is no such user")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_pictures_are_strings_of_some_length() {
        for (name, value, fine) in [
            ("displayname", json!("Alice"), true),
            ("displayname", json!(""), true),
            ("displayname", json!("ä".repeat(256)), true),
            ("displayname", json!("ä".repeat(257)), false),
            ("displayname", json!(null), false),
            ("displayname", json!({}), false),
            ("avatar_url", json!("mxc://hs.example/a"), true),
            ("avatar_url", json!("x".repeat(1001)), false),
            ("org.example.anything", json!({"a": [1, null]}), true),
        ] {
            assert_eq!(check_value(name, &value).is_ok(), fine, "{name} {value}");
        }
        assert!(check_name("").is_err());
        assert!(check_name(&"x".repeat(255)).is_ok());
        assert!(check_name(&"x".repeat(256)).is_err());
    }
}
