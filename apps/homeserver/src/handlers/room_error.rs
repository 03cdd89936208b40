//! From what went wrong in a room to what the client is told.

use ropewalk::Failure;
use ruma::api::error::ErrorKind;
use ruma::{ServerName, UserId};

use super::Refusal;
use crate::events::WriteError;
use crate::model::{BuildError, CanonicalError, EventError, Forbidden};
use crate::storage::StorageError;

/// Why a job on rooms did nothing.
///
/// No `Error` on purpose: on its way out of the job it becomes the failure that an endpoint reports.
#[derive(Debug)]
pub(crate) enum RoomError {
    /// The request cannot be granted.
    Refused(Refusal),
    /// The database failed.
    Storage(StorageError),
    /// An event did not get into its room.
    Write(WriteError),
}

impl From<RoomError> for Failure {
    fn from(error: RoomError) -> Self {
        match error.refusal() {
            Some(refusal) => Self::new(refusal),
            None => match error {
                RoomError::Refused(refusal) => Self::new(refusal),
                RoomError::Storage(error) => Self::new(error),
                RoomError::Write(error) => Self::new(error),
            },
        }
    }
}

impl From<Refusal> for RoomError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StorageError> for RoomError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<WriteError> for RoomError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl From<Forbidden> for RoomError {
    fn from(forbidden: Forbidden) -> Self {
        Self::Refused(Refusal::forbidden(forbidden.reason))
    }
}

impl RoomError {
    /// Returns what the client is told; `None` if it is our own fault.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal.clone()),
            Self::Storage(_) => None,
            Self::Write(error) => refusal_of(error),
        }
    }

    /// Returns the error as `M_INVALID_ROOM_STATE` if it is the rules of the new room that it breaks.
    pub(crate) fn in_new_room(self) -> Self {
        match self {
            Self::Write(WriteError::Forbidden(Forbidden { reason })) => {
                let message = format!("the room cannot begin like this: {reason}");
                Self::Refused(Refusal::new(ErrorKind::InvalidRoomState, message))
            }
            other => other,
        }
    }
}

fn refusal_of(error: &WriteError) -> Option<Refusal> {
    match error {
        WriteError::Build(BuildError::Event(error)) | WriteError::Event(error) => {
            Some(refuse_event(error))
        }
        WriteError::Forbidden(forbidden) => Some(Refusal::forbidden(&forbidden.reason)),
        WriteError::UnknownEvent { .. } => Some(Refusal::not_found(error.to_string())),
        WriteError::UnknownRoom { .. } => Some(not_in_room()),
        _ => None,
    }
}

/// Refuses what is not an event.
pub(crate) fn refuse_event(error: &EventError) -> Refusal {
    match error {
        EventError::Json(error) => refuse_json(error),
        EventError::TooLarge { .. } => Refusal::too_large(error.to_string()),
        _ => Refusal::bad_json(error.to_string()),
    }
}

/// Refuses what is not the content of an event.
pub(crate) fn refuse_json(error: &CanonicalError) -> Refusal {
    match error {
        CanonicalError::NotJson { .. } => Refusal::not_json(error.to_string()),
        _ => Refusal::bad_json(error.to_string()),
    }
}

/// The answer to whoever asks for something in a room that he is not in, whether or not it exists.
pub(crate) fn not_in_room() -> Refusal {
    Refusal::forbidden("you are not in this room, or there is no such room")
}

/// The answer to invitations by mail address or telephone number: there is no identity server.
pub(crate) fn no_third_party_invites() -> Refusal {
    Refusal::new(
        ErrorKind::ThreepidDenied,
        "this server invites by user id only; it knows no identity server",
    )
}

/// Refuses users of other servers where an event would need to reach them.
pub(crate) fn check_local(user_id: &UserId, server_name: &ServerName) -> Result<(), Refusal> {
    if user_id.server_name() == server_name {
        Ok(())
    } else {
        Err(Refusal::forbidden(format!(
            "{user_id} is on another server, and this one does not talk to others yet"
        )))
    }
}
