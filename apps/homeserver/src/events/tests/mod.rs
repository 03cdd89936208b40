//! The write path against a real database, one thread, no loop.

mod forks;
mod housekeeping;
pub(crate) mod rooms;
mod send;
