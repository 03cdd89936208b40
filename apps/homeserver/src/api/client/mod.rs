//! The Client-Server API: one file an endpoint family.

pub(crate) mod create_room;
pub(crate) mod directory;
pub(crate) mod discovery;
pub(crate) mod history;
pub(crate) mod members;
pub(crate) mod membership;
pub(crate) mod public_rooms;
pub(crate) mod receipts;
pub(crate) mod send;
pub(crate) mod sessions;
pub(crate) mod state;
pub(crate) mod sync;
pub(crate) mod typing;
