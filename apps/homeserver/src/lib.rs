//! A Matrix homeserver on the Ropewalk reactor.

pub mod storage;
pub mod streams;
