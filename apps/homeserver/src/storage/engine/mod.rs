//! The SQL engine: connections, transactions, migrations and the group-committing writer.
//!
//! Everything in here is plain synchronous Rust that runs on database threads
//! and can be driven by a test on one thread. SQL outside this folder sees [`Txn`] and [`WriteTxn`],
//! [`Param`] and [`Row`] only, so that a second driver can stand behind the same names; statements
//! are written in the dialect that both SQLite and PostgreSQL read (parameters as `?1`, which a
//! driver may rewrite).

mod connection;
mod database;
#[cfg(test)]
mod database_tests;
mod error;
mod local;
mod migrations;
mod transaction;
mod value;
mod writer;

pub use connection::{Connection, Durability, Pragmas, Role};
pub use database::Database;
pub use error::StorageError;
pub use local::{LocalDatabase, Slot};
pub use migrations::{Migration, migrate};
pub use transaction::{Txn, WriteTxn, WriterCache};
pub use value::{FromColumn, Param, Row};
pub use writer::{
    BatchLimits, BatchReport, Fate, Invalidation, Outcome, Stopwatch, Verdict, WriteJob, Writer,
    WriterStatistics,
};

pub(crate) use value::params;

#[cfg(test)]
mod tests;
