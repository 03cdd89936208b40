//! Tables of the main database.

pub mod current_state;
pub mod events;
pub mod extremities;
pub mod graph;
pub mod memberships;
pub mod redactions;
pub mod relations;
pub mod rooms;
