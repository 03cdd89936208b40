//! The write path against a real database, one thread, no loop.

pub(crate) mod forks;
mod housekeeping;
pub(crate) mod rooms;
mod send;
