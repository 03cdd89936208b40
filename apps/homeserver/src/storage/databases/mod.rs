//! Families of tables, one file each, grouped by the database they live in.
//!
//! Plain functions over a transaction, named after what they find or note. What needs several families
//! at once is in [`controllers`](super::controllers).

pub mod main;
pub mod state;
