//! The Client-Server API: one file an endpoint family.

pub(crate) mod account;
pub(crate) mod account_data;
mod address;
pub(crate) mod capabilities;
pub(crate) mod create_room;
pub(crate) mod devices;
pub(crate) mod directory;
pub(crate) mod discovery;
pub(crate) mod history;
pub(crate) mod login;
pub(crate) mod members;
pub(crate) mod membership;
mod mended;
pub(crate) mod profile;
pub(crate) mod public_rooms;
pub(crate) mod push_rules;
pub(crate) mod receipts;
pub(crate) mod register;
pub(crate) mod send;
pub(crate) mod state;
pub(crate) mod sync;
pub(crate) mod typing;
