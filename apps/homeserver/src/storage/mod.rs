//! What is kept, and how it gets there and back.
//!
//! Three layers, named after what may use them: [`controllers`] work over several databases,
//! [`databases`] hold one file for each family of tables, [`engine`] hides the SQL driver. Storage
//! has never heard of HTTP, replication or federation: those watch positions and pull rows.

pub mod controllers;
pub mod databases;
pub mod engine;
pub mod keys;
pub(crate) mod schema;

pub use engine::StorageError;
pub use keys::{EventKey, RoomKey, StateGroup};
