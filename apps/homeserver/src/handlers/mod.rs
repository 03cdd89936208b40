//! What a request means: one type a subject (sessions, registration, rooms, sync), each taking in
//! its constructor only what it uses. Nothing here knows paths or HTTP status.

pub(crate) mod access;
pub mod account_data;
#[cfg(test)]
mod account_tests;
pub mod accounts;
pub mod admin_registration;
pub mod devices;
pub mod directory;
pub(crate) mod generations;
pub mod history;
pub mod housekeeping;
pub mod logins;
pub(crate) mod member_events;
pub mod members;
pub mod membership;
pub mod messages_send;
pub mod passwords;
pub mod profiles;
pub mod push_rules;
pub mod rate_limits;
pub mod receipts;
pub mod refusal;
pub mod registration;
pub mod registration_tokens;
pub(crate) mod rendered;
pub(crate) mod room_error;
pub mod room_work;
pub mod rooms;
pub mod sessions;
pub mod state;
pub(crate) mod state_events;
pub mod sync;
#[cfg(test)]
pub(crate) mod test_rooms;
#[cfg(test)]
pub(crate) mod testing;
pub mod typing;
pub mod ui_auth;
pub(crate) mod unread;
pub(crate) mod visibility;

pub use refusal::Refusal;

/// Returns the time of day in ms since 1970, as events and tables have it.
pub fn wall_clock_ms(reactor: &ropewalk::Reactor) -> i64 {
    reactor
        .wall_clock()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}
