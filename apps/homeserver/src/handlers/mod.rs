//! What a request means: one type a subject (sessions, registration, rooms, sync), each taking in
//! its constructor only what it uses. Nothing here knows paths or HTTP status.

pub mod passwords;
pub mod rate_limits;
pub mod refusal;
pub mod ui_auth;

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
