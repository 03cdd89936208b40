//! `/sync` answered from a real database: every section of the response.

mod gaps;
mod members;
mod sections;
mod unread;
mod waiting;
pub(crate) mod world;
