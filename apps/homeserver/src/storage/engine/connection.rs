//! Opening a SQLite file the way the server needs it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;

use super::StorageError;

/// Marks our files in SQLite's header ("Rope"), so that a wrong path is noticed and not migrated.
const APPLICATION_ID: i64 = 0x526f_7065;

/// Prepared statements kept for each connection; the server has some two hundred different ones.
const STATEMENT_CACHE_COUNT: usize = 512;

/// How long a statement waits for a lock. The one writer never meets another writer, so only a
/// checkpoint or an operator's `sqlite3` shell can hold it up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Page cache of the writer in KiB: holds the inner pages of all indexes of a big server.
const WRITER_CACHE_KIB: i64 = 64 * 1024;

/// Page cache of each reader in KiB; readers share the memory map below as well.
const READER_CACHE_KIB: i64 = 16 * 1024;

/// How much of the file is read through a memory map: saves a copy for each page that is not in
/// the page cache. The map is address space, not memory.
const MMAP_BYTES: i64 = 256 * 1024 * 1024;

/// WAL pages between checkpoints. A checkpoint syncs the main file, which costs about as much as
/// ten commits; every 16 MiB it disappears in the noise, and recovery reads 16 MiB in no time.
const CHECKPOINT_PAGES: i64 = 4096;

/// A WAL that grew while a long reader held it back is cut to this size afterwards.
const WAL_KEPT_BYTES: i64 = 64 * 1024 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Reads snapshots; every write is refused.
    Reader,
    /// The only connection that writes.
    Writer,
}

/// What an answered commit survives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// A crash of the process. For simulations and tests, which count commits and not platters.
    Process,
    /// A power failure: the log is on disk before the commit returns.
    Sync,
}

/// One open connection. It lives on whatever thread works with it, one at a time.
pub struct Connection {
    pub(super) inner: rusqlite::Connection,
}

impl Connection {
    /// Opens the file at `path`, which a [`Role::Writer`] makes if it is missing.
    ///
    /// # Errors
    ///
    /// [`StorageError::Open`] if there is no such file or it cannot be used,
    /// [`StorageError::ForeignFile`] if it is another program's.
    pub fn open(path: &Path, role: Role, durability: Durability) -> Result<Self, StorageError> {
        let open_error = |source| StorageError::Open {
            path: path.display().to_string(),
            source: Arc::new(source),
        };
        let inner = rusqlite::Connection::open(path).map_err(open_error)?;
        inner.set_prepared_statement_cache_capacity(STATEMENT_CACHE_COUNT);
        // Without this SQLite looks at bound values for its plans, a bound LIMIT above all, and makes
        // a new plan each time one is bound: half of the time of a list of events.
        inner.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(open_error)?;
        inner.busy_timeout(BUSY_TIMEOUT).map_err(open_error)?;
        let connection = Self { inner };
        connection.claim(role)?;
        connection.set_pragmas(role, durability)?;
        Ok(connection)
    }

    /// Refuses files of other programs; puts our mark on an empty one.
    fn claim(&self, role: Role) -> Result<(), StorageError> {
        let found = self.pragma("application_id")?;
        if found == APPLICATION_ID {
            return Ok(());
        }
        let is_empty = self.pragma("page_count")? == 0;
        if found != 0 || !is_empty {
            return Err(StorageError::ForeignFile { found });
        }
        match role {
            Role::Reader => Ok(()),
            Role::Writer => self.batch(&format!("PRAGMA application_id = {APPLICATION_ID}")),
        }
    }

    fn set_pragmas(&self, role: Role, durability: Durability) -> Result<(), StorageError> {
        let cache_kib = match role {
            Role::Reader => READER_CACHE_KIB,
            Role::Writer => WRITER_CACHE_KIB,
        };
        let synchronous = match durability {
            Durability::Process => "OFF",
            Durability::Sync => "FULL",
        };
        if role == Role::Writer {
            self.batch("PRAGMA journal_mode = WAL")?;
        }
        self.batch(&format!(
            "PRAGMA synchronous = {synchronous};
             PRAGMA foreign_keys = ON;
             PRAGMA trusted_schema = OFF;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -{cache_kib};
             PRAGMA mmap_size = {MMAP_BYTES};
             PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
             PRAGMA journal_size_limit = {WAL_KEPT_BYTES};
             PRAGMA query_only = {}",
            if role == Role::Reader { "ON" } else { "OFF" }
        ))
    }

    /// Reads back what is in force, so that a test need not trust what was asked for.
    ///
    /// # Errors
    ///
    /// [`StorageError::Statement`] if the connection is beyond use.
    pub fn pragmas(&self) -> Result<Pragmas, StorageError> {
        let sql = "PRAGMA journal_mode";
        let journal_mode = self
            .inner
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| StorageError::statement(sql, error))?;
        Ok(Pragmas {
            journal_mode,
            synchronous: self.pragma("synchronous")?,
            foreign_keys: self.pragma("foreign_keys")? != 0,
            query_only: self.pragma("query_only")? != 0,
            busy_timeout: Duration::from_millis(
                self.pragma("busy_timeout")?.try_into().unwrap_or_default(),
            ),
        })
    }

    fn pragma(&self, name: &str) -> Result<i64, StorageError> {
        let sql = format!("PRAGMA {name}");
        self.inner
            .query_row(&sql, [], |row| row.get(0))
            .map_err(|error| StorageError::statement(&sql, error))
    }

    pub(super) fn batch(&self, sql: &str) -> Result<(), StorageError> {
        self.inner.execute_batch(sql).map_err(|error| StorageError::statement(sql, error))
    }
}

/// The settings that durability and integrity hang on, as the driver reports them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pragmas {
    /// `wal` on a writer.
    pub journal_mode: String,
    /// 2 is FULL: the log is synced at every commit.
    pub synchronous: i64,
    /// Whether references between tables are enforced.
    pub foreign_keys: bool,
    /// Whether writes are refused.
    pub query_only: bool,
    /// How long a statement waits for a lock.
    pub busy_timeout: Duration,
}
