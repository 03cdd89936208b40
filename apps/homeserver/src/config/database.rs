//! `[database]`: where rooms, accounts and messages are kept.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use super::section::section;
use super::values::{Secret, words};

words! {
    /// The database engine.
    Engine {
        /// A PostgreSQL server.
        Postgres = "postgres",
        /// One file, no server.
        Sqlite = "sqlite",
    }
}

/// Four readers keep two cores busy while one waits for the disk; the writer is a thread of its
/// own.
const THREADS: NonZeroUsize = match NonZeroUsize::new(4) {
    Some(four) => four,
    None => NonZeroUsize::MIN,
};

section! {
    /// Where rooms, accounts and messages are kept.
    Database {
        /// "sqlite", or "postgres".
        engine: Engine = Engine::Sqlite;
        /// For sqlite: the file, relative to data_dir.
        path: PathBuf = PathBuf::from("homeserver.db");
        /// For postgres: where its server is.
        url: Option<Secret> = None, example "\"postgres://user@host/name\"";
        /// How many queries run side by side.
        threads: NonZeroUsize = THREADS;
    }
}
