//! Tests of the rules as a whole: vectors, authorisation, redaction, resolution.

mod auth;
mod events;
pub(super) mod rooms;
