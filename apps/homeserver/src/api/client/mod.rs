//! The Client-Server API: one file an endpoint family.

pub(crate) mod discovery;
pub(crate) mod receipts;
pub(crate) mod sessions;
pub(crate) mod sync;
pub(crate) mod typing;
