//! HTTP paths and bodies of the Matrix APIs: parse, call a handler, reply. Decides nothing itself.

pub(crate) mod admin;
pub(crate) mod admin_tokens;
pub(crate) mod auth;
pub(crate) mod client;
pub(crate) mod errors;
pub(crate) mod router;

pub(crate) use admin::REGISTER_PATH as ADMIN_REGISTER_PATH;
