//! Why an event did not get into a room.

use ruma::{OwnedEventId, OwnedRoomId};

use crate::model::{BuildError, EventError, Forbidden};
use crate::storage::StorageError;
use crate::storage::controllers::resolution::ResolutionError;

/// Why an event was not written. Nothing of the job's work is kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The event could not be made, most often because it is too large.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The event is not one of its room version.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The room's rules do not allow it.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// Events that this one refers to are not there; fetch them and try again.
    #[error("{} events that it refers to are not known here, the first is {}", .event_ids.len(),
        .event_ids.first().map_or("?", |id| id.as_str()))]
    MissingEvents {
        /// Their ids, in order.
        event_ids: Vec<OwnedEventId>,
    },
    /// States could not be resolved.
    #[error(transparent)]
    Resolution(#[from] ResolutionError),
    /// There is a room of that id already.
    #[error("room {room_id} exists already")]
    RoomExists {
        /// The id.
        room_id: OwnedRoomId,
    },
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is to be redacted is not known, or not in this room.
    #[error("event {event_id} is not in this room, so it cannot be redacted")]
    UnknownEvent {
        /// What was to be redacted.
        event_id: OwnedEventId,
    },
    /// This server is not in the room, or there is no such room.
    #[error("room {room_id} is not known here")]
    UnknownRoom {
        /// The id.
        room_id: OwnedRoomId,
    },
}
