//! Operations over several families of tables: loading events, persisting them, resolving states.

pub mod auth_chain;
pub mod housekeeping;
pub mod load;
pub mod persist;
pub mod resolution;
