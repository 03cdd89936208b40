//! Bringing a file to the schema that this release knows.

use super::connection::Connection;
use super::transaction::Txn;
use super::{StorageError, params};

/// One step of the schema. Steps are never edited once released; a change is a new step.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number: one more than the step before.
    pub version: i64,
    /// What it brings, for people who read the table of steps.
    pub name: &'static str,
    /// The statements, run in one transaction together with the note that they ran.
    pub sql: &'static str,
}

/// Runs the steps that the file has not seen, each in a transaction of its own.
///
/// # Errors
///
/// [`StorageError::NewerSchema`] if a later release wrote the file,
/// [`StorageError::ForeignMigration`] if its history is not ours; nothing is changed then. If a step
/// fails it leaves no trace, and the steps before it stay.
pub fn migrate(connection: &Connection, steps: &[Migration]) -> Result<(), StorageError> {
    connection.batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version INTEGER PRIMARY KEY,
             name TEXT NOT NULL
         )",
    )?;
    let txn = Txn::new(connection);
    let applied = txn.query(
        "SELECT version, name FROM schema_migrations ORDER BY version",
        params![],
        |row| Ok((row.get::<i64>(0)?, row.get::<String>(1)?)),
    )?;
    let known = steps.last().map_or(0, |step| step.version);
    if let Some((found, _)) = applied.last()
        && *found > known
    {
        return Err(StorageError::NewerSchema { found: *found, known });
    }
    for ((version, found), step) in applied.iter().zip(steps) {
        if *version != step.version || found != step.name {
            let expected = step.name.to_owned();
            return Err(StorageError::ForeignMigration {
                version: *version,
                found: found.clone(),
                expected,
            });
        }
    }
    for step in steps.iter().skip(applied.len()) {
        apply(connection, step)?;
    }
    Ok(())
}

fn apply(connection: &Connection, step: &Migration) -> Result<(), StorageError> {
    let txn = Txn::new(connection);
    connection.batch("BEGIN IMMEDIATE")?;
    let applied = connection
        .batch(step.sql)
        .and_then(|()| {
            txn.execute(
                "INSERT INTO schema_migrations (version, name) VALUES (?1, ?2)",
                params![step.version, step.name],
            )
        })
        .and_then(|_| connection.batch("COMMIT"));
    if let Err(error) = applied {
        // The step failed already; the rollback can only fail if SQLite did it by itself.
        let _ = connection.batch("ROLLBACK");
        return Err(error);
    }
    Ok(())
}
