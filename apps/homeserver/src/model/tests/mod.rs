//! Tests of the rules as a whole: vectors, authorisation, redaction, resolution.

mod auth;
mod events;
mod redaction;
mod resolution;
pub(crate) mod rooms;
