//! The group-committing writer: everything that waits goes into one transaction.
//!
//! A sync to disk costs a thousand times what a message costs, so it is shared. Each job runs in a
//! savepoint of its own: a refused one costs only itself. Nothing is answered before the commit.
//!
//! This is the core, without threads or loop:
//!
//! ```text
//! queue.push_back(job);                             // as callers come
//! let report = writer.commit_batch(&mut queue);     // on a database thread
//! // then, on the loop, in this order:
//! //   report.invalidations, report.after_commit, report.advanced with report.wakes, report.outcomes
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::transaction::{Aftermath, Txn, WriteTxn, WriterMemory};
use super::{StorageError, params};
use crate::streams::{Stream, Wake};

/// How much goes into one transaction.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Jobs at most. More would only lengthen the wait of the first one.
    pub jobs_max: usize,
    /// No further job is begun once the batch has run this long: the first job's caller is waiting.
    pub time_max: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { jobs_max: 1000, time_max: Duration::from_millis(50) }
    }
}

/// Whether what a job wrote stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Keep it.
    Keep,
    /// Take it back; the job has told its caller why.
    TakeBack,
}

/// One write that waits for the next transaction.
pub struct WriteJob {
    label: &'static str,
    body: Box<dyn FnOnce(&mut WriteTxn<'_>) -> Verdict + Send>,
}

impl WriteJob {
    /// Makes a job; `label` names it in logs and errors.
    pub fn new(
        label: &'static str,
        body: impl FnOnce(&mut WriteTxn<'_>) -> Verdict + Send + 'static,
    ) -> Self {
        Self { label, body: Box::new(body) }
    }
}

/// How one job ended; the outcomes of a batch are in the order of its jobs.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What became of its writes.
    pub fate: Fate,
    /// How long the job itself ran.
    pub elapsed: Duration,
}

/// What became of a job's writes.
#[derive(Clone, Debug)]
pub enum Fate {
    /// They are on disk.
    Committed,
    /// The database failed; nothing of it was kept.
    Failed(StorageError),
    /// The job wanted them taken back; nothing of it was kept.
    TakenBack,
}

/// A cache entry that is out of date.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invalidation {
    /// Which cache.
    pub cache: &'static str,
    /// Which entry of it.
    pub key: String,
}

/// What a batch leads to, to be acted on in the order of the fields.
#[derive(Default)]
pub struct BatchReport {
    /// First: what caches must forget.
    pub invalidations: Vec<Invalidation>,
    /// Second: what jobs asked to be run.
    pub after_commit: Vec<Box<dyn FnOnce() + Send>>,
    /// Third: how far each stream that moved has come.
    pub advanced: Vec<(Stream, i64)>,
    /// Third: whom that concerns.
    pub wakes: Vec<Wake>,
    /// Fourth: what the callers get; one for each job that was taken from the queue, in order.
    pub outcomes: Vec<Outcome>,
}

/// Counts since the writer was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WriterStatistics {
    /// Transactions committed; with [`Durability::Sync`](super::Durability) each is one sync.
    pub commits: u64,
    /// Jobs whose writes were committed.
    pub jobs_committed: u64,
    /// Jobs that were taken back or failed.
    pub jobs_not_kept: u64,
}

/// A monotonic clock that may be read on a database thread.
pub type Stopwatch = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The one connection that writes, and what it remembers.
pub struct Writer {
    connection: Connection,
    limits: BatchLimits,
    memory: WriterMemory,
    statistics: WriterStatistics,
    stopwatch: Stopwatch,
    /// Positions as they stand in the file.
    stored_positions: BTreeMap<Stream, i64>,
}

impl Writer {
    /// Takes over a migrated connection and reads where the streams stand.
    ///
    /// # Errors
    ///
    /// [`StorageError::Statement`] if the positions cannot be read.
    pub fn new(
        connection: Connection,
        limits: BatchLimits,
        stopwatch: Stopwatch,
    ) -> Result<Self, StorageError> {
        let stored_positions = stored_positions(&Txn::new(&connection))?;
        let memory = WriterMemory { positions: stored_positions.clone(), ..Default::default() };
        let statistics = WriterStatistics::default();
        Ok(Self { connection, limits, memory, statistics, stopwatch, stored_positions })
    }

    /// Runs jobs from the front of `queue` in one transaction, as many as the limits allow, and
    /// commits. Jobs that did not fit stay in the queue.
    pub fn commit_batch(&mut self, queue: &mut VecDeque<WriteJob>) -> BatchReport {
        let mut report = BatchReport::default();
        if queue.is_empty() {
            return report;
        }
        if let Err(error) = self.execute("BEGIN IMMEDIATE") {
            let job_count = queue.len().min(self.limits.jobs_max);
            queue.drain(..job_count);
            report.outcomes = vec![failed(&error, Duration::ZERO); job_count];
            self.statistics.jobs_not_kept += job_count as u64;
            return report;
        }
        let mut aftermath = Aftermath::default();
        let committed = self
            .run_jobs(queue, &mut aftermath, &mut report.outcomes)
            .and_then(|()| self.store_positions())
            .and_then(|advanced| self.execute("COMMIT").map(|()| advanced));
        match committed {
            Ok(advanced) => {
                self.statistics.commits += 1;
                self.stored_positions.extend(advanced.iter().copied());
                report.advanced = advanced;
                report.invalidations = aftermath.invalidations;
                report.after_commit = aftermath.after_commit;
                report.wakes = aftermath.wakes;
                report.wakes.sort_unstable();
                report.wakes.dedup();
            }
            Err(error) => {
                let error = StorageError::Commit(Arc::new(error));
                self.lose_transaction(&error, &mut report.outcomes);
            }
        }
        for outcome in &report.outcomes {
            match outcome.fate {
                Fate::Committed => self.statistics.jobs_committed += 1,
                Fate::Failed(_) | Fate::TakenBack => self.statistics.jobs_not_kept += 1,
            }
        }
        report
    }

    /// Returns the counts since the writer was opened.
    pub fn statistics(&self) -> WriterStatistics {
        self.statistics
    }

    /// Returns how far each stream has come.
    pub fn positions(&self) -> &BTreeMap<Stream, i64> {
        &self.stored_positions
    }

    /// Returns the connection, for questions between transactions.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// An error means that the whole transaction is gone.
    fn run_jobs(
        &mut self,
        queue: &mut VecDeque<WriteJob>,
        aftermath: &mut Aftermath,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StorageError> {
        let began = (self.stopwatch)();
        let mut now = began;
        while outcomes.len() < self.limits.jobs_max && now - began < self.limits.time_max {
            let Some(job) = queue.pop_front() else { break };
            let fate = self.run_job(job, aftermath);
            let ended = (self.stopwatch)();
            let elapsed = ended.saturating_sub(now);
            now = ended.max(began);
            match fate {
                Ok(fate) => outcomes.push(Outcome { fate, elapsed }),
                Err(error) => {
                    outcomes.push(failed(&error, elapsed));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn run_job(&mut self, job: WriteJob, aftermath: &mut Aftermath) -> Result<Fate, StorageError> {
        self.execute("SAVEPOINT job")?;
        let mark = Mark::of(aftermath);
        let verdict = {
            let mut txn = WriteTxn::new(&self.connection, &mut self.memory, aftermath);
            // A job owns what it works on; the writer's memory is repaired below.
            catch_unwind(AssertUnwindSafe(|| (job.body)(&mut txn)))
        };
        if self.connection.inner.is_autocommit() {
            // Disk full and input/output errors make SQLite roll back by itself.
            return Err(StorageError::damaged(format!(
                "the job {:?} made the database roll back the whole transaction",
                job.label
            )));
        }
        if let Ok(Verdict::Keep) = verdict {
            self.execute("RELEASE job")?;
            for cache in self.memory.caches.values_mut() {
                cache.job_kept();
            }
            return Ok(Fate::Committed);
        }
        mark.rewind(aftermath);
        self.execute("ROLLBACK TO job")?;
        self.execute("RELEASE job")?;
        for cache in self.memory.caches.values_mut() {
            if verdict.is_err() { cache.transaction_lost() } else { cache.job_taken_back() }
        }
        Ok(match verdict {
            Ok(_) => Fate::TakenBack,
            Err(_) => Fate::Failed(StorageError::Panicked { label: job.label }),
        })
    }

    /// Notes in the file how far the streams have come that moved in this batch.
    fn store_positions(&mut self) -> Result<Vec<(Stream, i64)>, StorageError> {
        let txn = Txn::new(&self.connection);
        let mut advanced = Vec::new();
        for (&stream, &position) in &self.memory.positions {
            if self.stored_positions.get(&stream) == Some(&position) {
                continue;
            }
            txn.execute(
                "INSERT INTO stream_positions (stream, position) VALUES (?1, ?2)
                 ON CONFLICT (stream) DO UPDATE SET position = excluded.position",
                params![stream.name(), position],
            )?;
            advanced.push((stream, position));
        }
        Ok(advanced)
    }

    fn lose_transaction(&mut self, error: &StorageError, outcomes: &mut [Outcome]) {
        if !self.connection.inner.is_autocommit() {
            // If even this fails, the next BEGIN says so.
            let _ = self.execute("ROLLBACK");
        }
        for cache in self.memory.caches.values_mut() {
            cache.transaction_lost();
        }
        for outcome in outcomes {
            if matches!(outcome.fate, Fate::Committed) {
                outcome.fate = Fate::Failed(error.clone());
            }
        }
    }

    fn execute(&self, sql: &str) -> Result<(), StorageError> {
        Txn::new(&self.connection).execute(sql, params![]).map(|_| ())
    }
}

fn failed(error: &StorageError, elapsed: Duration) -> Outcome {
    Outcome { fate: Fate::Failed(error.clone()), elapsed }
}

/// Reads how far each stream has come. Streams that this release does not know are left alone.
pub(super) fn stored_positions(txn: &Txn<'_>) -> Result<BTreeMap<Stream, i64>, StorageError> {
    let rows = txn.query("SELECT stream, position FROM stream_positions", params![], |row| {
        Ok((Stream::from_name(row.get(0)?), row.get(1)?))
    })?;
    Ok(rows
        .into_iter()
        .filter_map(|(stream, position)| stream.map(|stream| (stream, position)))
        .collect())
}

/// How long the lists of an [`Aftermath`] were when a job began.
struct Mark {
    invalidation_count: usize,
    after_commit_count: usize,
    wake_count: usize,
}

impl Mark {
    fn of(aftermath: &Aftermath) -> Self {
        Self {
            invalidation_count: aftermath.invalidations.len(),
            after_commit_count: aftermath.after_commit.len(),
            wake_count: aftermath.wakes.len(),
        }
    }

    fn rewind(self, aftermath: &mut Aftermath) {
        aftermath.invalidations.truncate(self.invalidation_count);
        aftermath.after_commit.truncate(self.after_commit_count);
        aftermath.wakes.truncate(self.wake_count);
    }
}
