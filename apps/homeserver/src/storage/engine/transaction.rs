//! What a database job works with: statements in a transaction, and for writers a little more.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::ops::Deref;

use rusqlite::CachedStatement;

use super::connection::Connection;
use super::value::{Param, Row};
use super::writer::Invalidation;
use super::{StorageError, params};
use crate::streams::{Stream, Wake};

/// Statements inside a transaction that somebody else began and will end.
///
/// A reader's transaction is one snapshot: all its queries see the same moment.
pub struct Txn<'c> {
    connection: &'c Connection,
}

impl<'c> Txn<'c> {
    pub(super) fn new(connection: &'c Connection) -> Self {
        Self { connection }
    }

    /// Runs `f` in a read transaction: one snapshot for all its queries.
    ///
    /// # Errors
    ///
    /// What `f` returns, or [`StorageError::Statement`] if no transaction can be begun.
    pub fn snapshot<T, E: From<StorageError>>(
        connection: &'c Connection,
        f: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let txn = Self::new(connection);
        txn.execute("BEGIN", params![])?;
        let _end = EndOfSnapshot(&txn);
        f(&txn)
    }

    /// Runs a statement that returns no rows; returns how many rows it changed.
    ///
    /// # Errors
    ///
    /// [`StorageError::Statement`] with the beginning of the statement.
    pub fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<usize, StorageError> {
        let mut statement = self.prepare(sql, params)?;
        statement.raw_execute().map_err(|error| StorageError::statement(sql, error))
    }

    /// Runs an INSERT into a table with an integer key; returns the new row's key.
    ///
    /// # Errors
    ///
    /// As for [`execute`](Self::execute).
    pub fn insert(&self, sql: &str, params: &[Param<'_>]) -> Result<i64, StorageError> {
        self.execute(sql, params)?;
        Ok(self.connection.inner.last_insert_rowid())
    }

    /// Runs a query and returns what `f` makes of each row, in order.
    ///
    /// # Errors
    ///
    /// [`StorageError::Statement`], or the first error that `f` returns.
    pub fn query<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        mut f: impl FnMut(&Row<'_>) -> Result<T, StorageError>,
    ) -> Result<Vec<T>, StorageError> {
        let mut found = Vec::new();
        self.query_each(sql, params, |row| {
            found.push(f(row)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Runs a query and hands each row to `f`, in order.
    ///
    /// # Errors
    ///
    /// [`StorageError::Statement`], or the first error that `f` returns; no more rows are read then.
    pub fn query_each(
        &self,
        sql: &str,
        params: &[Param<'_>],
        mut f: impl FnMut(&Row<'_>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut statement = self.prepare(sql, params)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|error| StorageError::statement(sql, error))? {
            f(&Row::new(row))?;
        }
        Ok(())
    }

    /// Runs a query for at most one row; further rows are not read.
    ///
    /// # Errors
    ///
    /// [`StorageError::Statement`], or the error that `f` returns.
    pub fn query_opt<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        f: impl FnOnce(&Row<'_>) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let mut statement = self.prepare(sql, params)?;
        let mut rows = statement.raw_query();
        match rows.next().map_err(|error| StorageError::statement(sql, error))? {
            Some(row) => f(&Row::new(row)).map(Some),
            None => Ok(None),
        }
    }

    /// Runs a query that has exactly one row, such as a count.
    ///
    /// # Errors
    ///
    /// As for [`query_opt`](Self::query_opt); [`StorageError::Damaged`] if there is no row.
    pub fn query_one<T>(
        &self,
        sql: &str,
        params: &[Param<'_>],
        f: impl FnOnce(&Row<'_>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.query_opt(sql, params, f)?
            .ok_or_else(|| StorageError::damaged(format!("no row where one must be: {sql}")))
    }

    /// Returns whether a query has any row.
    ///
    /// # Errors
    ///
    /// [`StorageError::Statement`].
    pub fn exists(&self, sql: &str, params: &[Param<'_>]) -> Result<bool, StorageError> {
        Ok(self.query_opt(sql, params, |_| Ok(()))?.is_some())
    }

    fn prepare(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<CachedStatement<'c>, StorageError> {
        let refused = |error| StorageError::statement(sql, error);
        let mut statement = self.connection.inner.prepare_cached(sql).map_err(refused)?;
        for (index, param) in params.iter().enumerate() {
            statement.raw_bind_parameter(index + 1, param).map_err(refused)?;
        }
        Ok(statement)
    }
}

/// Ends a read transaction even if the job in it panics: the connection serves others after it.
struct EndOfSnapshot<'t, 'c>(&'t Txn<'c>);

impl Drop for EndOfSnapshot<'_, '_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.execute("ROLLBACK", params![]) {
            log::error!("a snapshot cannot be ended: {error}");
        }
    }
}

/// Something that the writer remembers between transactions, such as the heads of rooms.
///
/// What a cache learnt from a job that is taken back must be forgotten; what it holds must equal what
/// the transaction would read.
pub trait WriterCache: Any + Default + Send {
    /// The running job was kept (until the commit).
    fn job_kept(&mut self);
    /// The running job was taken back: forget whatever it touched.
    fn job_taken_back(&mut self);
    /// The whole transaction was lost: forget everything.
    fn transaction_lost(&mut self);
}

/// [`WriterCache`] without its constructor, so that different ones fit into one map.
pub(super) trait AnyWriterCache: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    fn job_kept(&mut self);
    fn job_taken_back(&mut self);
    fn transaction_lost(&mut self);
}

impl<C: WriterCache> AnyWriterCache for C {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
    fn job_kept(&mut self) {
        WriterCache::job_kept(self);
    }
    fn job_taken_back(&mut self) {
        WriterCache::job_taken_back(self);
    }
    fn transaction_lost(&mut self) {
        WriterCache::transaction_lost(self);
    }
}

/// What the writer keeps from one transaction to the next.
#[derive(Default)]
pub(super) struct WriterMemory {
    pub(super) caches: BTreeMap<TypeId, Box<dyn AnyWriterCache>>,
    /// Last position given out in each stream.
    pub(super) positions: BTreeMap<Stream, i64>,
}

/// What happens when the transaction is safe on disk; collected while jobs run.
#[derive(Default)]
pub(super) struct Aftermath {
    pub(super) invalidations: Vec<Invalidation>,
    pub(super) after_commit: Vec<Box<dyn FnOnce() + Send>>,
    pub(super) wakes: Vec<Wake>,
}

/// A transaction of the one writer: [`Txn`], stream positions, and what follows the commit.
pub struct WriteTxn<'c> {
    txn: Txn<'c>,
    memory: &'c mut WriterMemory,
    aftermath: &'c mut Aftermath,
}

impl<'c> WriteTxn<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        memory: &'c mut WriterMemory,
        aftermath: &'c mut Aftermath,
    ) -> Self {
        Self { txn: Txn::new(connection), memory, aftermath }
    }

    /// Returns the next position of `stream`: greater than any given out before.
    ///
    /// Positions of jobs that are taken back leave gaps. Readers may pass a position only once the
    /// commit has been announced.
    pub fn next_stream_id(&mut self, stream: Stream) -> i64 {
        let position = self.memory.positions.entry(stream).or_insert(0);
        *position += 1;
        *position
    }

    /// Announces, after the commit, that `stream` has news for everybody in the room.
    pub fn wake_room(&mut self, stream: Stream, room_id: &ruma::RoomId) {
        self.aftermath.wakes.push(Wake::Room(stream, room_id.to_owned()));
    }

    /// Announces, after the commit, that the rooms of a user have changed: it has joined or left one,
    /// or was invited. Wakes the user.
    pub fn rooms_changed(&mut self, user_id: &ruma::UserId) {
        self.aftermath.wakes.push(Wake::Rooms(user_id.to_owned()));
    }

    /// Announces, after the commit, that `stream` has news for one user.
    pub fn wake_user(&mut self, stream: Stream, user_id: &ruma::UserId) {
        self.aftermath.wakes.push(Wake::User(stream, user_id.to_owned()));
    }

    /// Announces, after the commit, that the rooms of this user have changed.
    pub fn wake_rooms_of(&mut self, user_id: &ruma::UserId) {
        self.aftermath.wakes.push(Wake::Rooms(user_id.to_owned()));
    }

    /// Makes the caches of this name forget `key`, after the commit and before positions advance.
    pub fn invalidate(&mut self, cache: &'static str, key: impl Into<String>) {
        self.aftermath.invalidations.push(Invalidation { cache, key: key.into() });
    }

    /// Runs `f` on the loop after the commit, behind the invalidations and before positions advance.
    /// It is dropped if the job or the commit fails.
    pub fn after_commit(&mut self, f: impl FnOnce() + Send + 'static) {
        self.aftermath.after_commit.push(Box::new(f));
    }

    /// Returns the writer's memory of type `C`, empty if there is none yet.
    pub fn cache<C: WriterCache>(&mut self) -> &mut C {
        let cache =
            self.memory.caches.entry(TypeId::of::<C>()).or_insert_with(|| Box::<C>::default());
        cache.as_any().downcast_mut().expect("the map is keyed by the type")
    }
}

impl<'c> Deref for WriteTxn<'c> {
    type Target = Txn<'c>;

    fn deref(&self) -> &Txn<'c> {
        &self.txn
    }
}
