//! The rules of Matrix rooms as plain values and functions: events, room versions, authorisation,
//! state resolution, redaction, and what clients are shown of an event.
//!
//! Everything here is pure: no database, no clock, no randomness; rows and times are handed in. The
//! rules themselves (canonical JSON, hashes, signatures, authorisation, resolution) are ruma's. All
//! values are `Send`, because most of this work happens on database threads.

pub mod auth;
pub mod build;
pub mod canonical;
pub mod event;
pub mod room_version;
pub mod state_map;

pub use auth::Forbidden;
pub use build::{BuildError, EventDraft, EventSigner, Place};
pub use canonical::CanonicalError;
pub use event::{EventError, EventFlags, Pdu};
pub use room_version::RoomVersion;
pub use state_map::StateMap;

#[cfg(test)]
mod tests;
