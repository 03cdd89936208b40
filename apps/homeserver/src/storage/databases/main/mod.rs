//! Tables of the main database.

pub mod access_tokens;
pub mod account_data;
#[cfg(test)]
mod account_tests;
pub mod current_state;
pub mod devices;
pub mod events;
pub mod extremities;
pub mod filters;
pub mod graph;
pub mod memberships;
pub mod profiles;
pub mod push_rules;
pub mod reader_rooms;
pub mod receipts;
pub mod redactions;
pub mod registration_tokens;
pub mod relations;
pub mod room_aliases;
pub mod room_tags;
pub mod rooms;
pub mod shown_events;
pub mod users;
