//! A database driven on the caller's own thread, for tests, benches and offline tools.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::StorageError;
use super::connection::{Connection, Durability, Role};
use super::migrations::{Migration, migrate};
use super::transaction::{Txn, WriteTxn};
use super::writer::{BatchLimits, BatchReport, Fate, Stopwatch, Verdict, WriteJob, Writer};

/// A writer and a reader without threads or loop: a write is a batch of its own, unless several are
/// queued first.
pub struct LocalDatabase {
    writer: Writer,
    reader: Connection,
    path: PathBuf,
    queue: VecDeque<WriteJob>,
}

/// Where a queued job leaves what its caller gets.
pub type Slot<T, E> = Arc<Mutex<Option<Result<T, E>>>>;

impl LocalDatabase {
    /// Opens the file at `path`, making it or bringing it to this release's schema.
    ///
    /// # Errors
    ///
    /// As for [`Connection::open`] and [`migrate`].
    pub fn open(path: &Path, durability: Durability) -> Result<Self, StorageError> {
        Self::open_with(path, durability, crate::storage::schema::STEPS)
    }

    /// Opens a file with a schema of one's own.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_with(
        path: &Path,
        durability: Durability,
        steps: &[Migration],
    ) -> Result<Self, StorageError> {
        let connection = Connection::open(path, Role::Writer, durability)?;
        migrate(&connection, steps)?;
        // No time passes here: batches are bounded by count alone.
        let stopwatch: Stopwatch = Arc::new(|| Duration::ZERO);
        let writer = Writer::new(connection, BatchLimits::default(), stopwatch)?;
        let reader = Connection::open(path, Role::Reader, durability)?;
        Ok(Self { writer, reader, path: path.to_owned(), queue: VecDeque::new() })
    }

    /// Runs `f` in a snapshot.
    ///
    /// # Errors
    ///
    /// What `f` returns.
    pub fn read<T, E: From<StorageError>>(
        &self,
        f: impl FnOnce(&Txn<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        Txn::snapshot(&self.reader, f)
    }

    /// Runs `f` in a write transaction together with what is queued, and commits.
    ///
    /// # Errors
    ///
    /// What `f` returns, in which case nothing that it wrote is kept, or why the database failed.
    pub fn write<T, E>(
        &mut self,
        f: impl FnOnce(&mut WriteTxn<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StorageError> + Send + 'static,
    {
        let slot = self.enqueue("write", f);
        let report = self.commit();
        if let Some(Fate::Failed(error)) = report.outcomes.last().map(|outcome| &outcome.fate) {
            return Err(error.clone().into());
        }
        let result = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.unwrap_or_else(|| Err(StorageError::Closed.into()))
    }

    /// Queues `f` for the next [`commit`](Self::commit); its result is left in the slot.
    pub fn enqueue<T, E>(
        &mut self,
        label: &'static str,
        f: impl FnOnce(&mut WriteTxn<'_>) -> Result<T, E> + Send + 'static,
    ) -> Slot<T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let slot = Slot::default();
        let filled = Arc::clone(&slot);
        self.queue.push_back(WriteJob::new(label, move |txn| {
            let result = f(txn);
            let verdict = if result.is_ok() { Verdict::Keep } else { Verdict::TakeBack };
            *filled.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            verdict
        }));
        slot
    }

    /// Runs what is queued, at most one batch of it.
    pub fn commit(&mut self) -> BatchReport {
        self.writer.commit_batch(&mut self.queue)
    }

    /// Returns the writer, for its counts and settings.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Returns where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
