//! The Client-Server API: one file an endpoint family.

pub(crate) mod discovery;
pub(crate) mod sessions;
