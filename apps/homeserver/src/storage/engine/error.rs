//! What can go wrong between a transaction and the file below it.

use std::sync::Arc;

/// How much of a statement an error quotes; SQL text holds no values, so no secrets.
const SQL_QUOTED_CHARS: usize = 100;

/// Why the database did not do what it was asked.
///
/// Cheap to clone: the failure of one COMMIT is told to every job of its batch.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The transaction that held the job could not be committed; nothing of it was kept.
    #[error("the database could not commit, so nothing of this write was kept")]
    Commit(#[source] Arc<StorageError>),
    /// A stored value is not what the program that wrote it promises.
    #[error("stored data is damaged: {what}; restore the database from a backup")]
    Damaged {
        /// Which value, and what is wrong with it.
        what: String,
    },
    /// The file belongs to another program.
    #[error(
        "the database file was made by another program (application id {found:#010x}); \
         point database.path at a file of its own"
    )]
    ForeignFile {
        /// The application id in the file's header.
        found: i64,
    },
    /// The schema has another history than this program's.
    #[error(
        "migration {version} of the database is called {found:?} but this release knows it as \
         {expected:?}; the file comes from an unreleased build, make a new one"
    )]
    ForeignMigration {
        /// The migration's number.
        version: i64,
        /// The name stored in the file.
        found: String,
        /// The name compiled into the program.
        expected: String,
    },
    /// The file was written by a later release.
    #[error(
        "the database has schema {found} but this release knows schemas up to {known}; \
         run the release that wrote it, or a newer one"
    )]
    NewerSchema {
        /// The schema number in the file.
        found: i64,
        /// The newest schema number that this program knows.
        known: i64,
    },
    /// The database could not be opened.
    #[error("cannot open the database {path}; check that the folder exists and may be written")]
    Open {
        /// The path that was tried.
        path: String,
        /// What the driver says.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// Writes come in faster than the disk takes them.
    #[error("the database is overloaded: {waiting} writes wait; try again later")]
    Overloaded {
        /// How many writes wait.
        waiting: usize,
    },
    /// A job panicked; its writes were taken back.
    #[error("the database job {label:?} panicked; its writes were taken back")]
    Panicked {
        /// The job's label.
        label: &'static str,
    },
    /// The database is closed or closing.
    #[error("the database is closed, the server is stopping")]
    Closed,
    /// The driver refused a statement.
    #[error("the database refused `{sql}`")]
    Statement {
        /// The beginning of the statement.
        sql: Arc<str>,
        /// What the driver says.
        #[source]
        source: Arc<rusqlite::Error>,
    },
}

impl StorageError {
    pub(super) fn statement(sql: &str, source: rusqlite::Error) -> Self {
        let one_line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let sql = one_line.chars().take(SQL_QUOTED_CHARS).collect::<String>().into();
        Self::Statement { sql, source: Arc::new(source) }
    }

    /// Returns an error that says that stored data is damaged.
    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }

    /// Returns whether a UNIQUE or PRIMARY KEY constraint refused the statement.
    pub fn is_unique_violation(&self) -> bool {
        let Self::Statement { source, .. } = self else { return false };
        source.sqlite_error().is_some_and(|error| {
            error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE
                || error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        })
    }
}
