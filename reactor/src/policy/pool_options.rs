//! What a connection pool is told, and what it tells.

use std::time::Duration;

/// How many connections a [`ConnectionPool`](super::ConnectionPool) keeps, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolOptions {
    /// Begins the names of the log contexts in which connections are made.
    pub name: String,
    /// Connections with one key, those in use and those being made included.
    pub per_key_max: usize,
    /// Connections in all.
    pub total_max: usize,
    /// How many may wait for a connection; the next one is refused.
    pub waiting_max: usize,
    /// How long one may wait, the making of the connection included.
    pub waiting_limit: Duration,
    /// How long a connection is kept that nobody uses.
    pub idle_limit: Duration,
}

impl Default for PoolOptions {
    /// Eight connections with one key, 256 in all; a thousand may wait, for 30 seconds; unused
    /// connections are kept for a minute.
    fn default() -> PoolOptions {
        PoolOptions {
            name: "pool".to_owned(),
            per_key_max: 8,
            total_max: 256,
            waiting_max: 1000,
            waiting_limit: Duration::from_secs(30),
            idle_limit: Duration::from_secs(60),
        }
    }
}

/// Why there was no connection to be had.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The pool was closed.
    #[error("connection pool {pool:?} has been closed")]
    Closed {
        /// The pool's name.
        pool: String,
    },
    /// As many wait as may wait.
    #[error("{waiting_max} wait for connections of pool {pool:?} already; try again later")]
    LineFull {
        /// The pool's name.
        pool: String,
        /// How many may wait.
        waiting_max: usize,
    },
}

/// What a pool has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct PoolStatistics {
    /// Connections that somebody uses.
    pub in_use: usize,
    /// Connections that nobody uses.
    pub idle: usize,
    /// Connections that are being made.
    pub connecting: usize,
    /// Those who wait.
    pub waiting: usize,
    /// Connections that have been made.
    pub made: u64,
    /// How often one was used again.
    pub reused: u64,
}
