//! The rules of Matrix rooms as plain values and functions: events, room versions, authorisation,
//! state resolution, redaction, and who may see what.
//!
//! Everything here is pure: no database, no clock, no randomness; rows and times are handed in. The
//! rules themselves (canonical JSON, hashes, signatures, authorisation, resolution) are ruma's. All
//! values are `Send`, because most of this work happens on database threads.

pub mod auth;
pub mod build;
pub mod canonical;
pub mod event;
pub mod key_pair;
pub mod member;
pub mod power;
pub mod redact;
pub mod resolve;
pub mod room_version;
pub mod state_map;
pub mod visibility;

pub use auth::Forbidden;
pub use build::{BuildError, EventDraft, EventSigner, Place};
pub use canonical::CanonicalError;
pub use event::{EventError, EventFlags, Pdu};
pub use key_pair::SigningKeyPair;
pub use member::{MemberContent, Membership};
pub use power::{Action, PowerLevels};
pub use resolve::{Fork, ResolveError};
pub use room_version::RoomVersion;
pub use state_map::StateMap;
pub use visibility::HistoryVisibility;

#[cfg(test)]
pub(crate) mod tests;
