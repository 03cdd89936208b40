//! The database as the loop sees it: questions and writes go to threads, answers come as deferreds.
//!
//! ```text
//! loop                          writer thread                       loop
//! write(job) ─ queue ─ end of turn ─► commit_batch (one sync) ─► caches, positions, callers
//! read(job)  ─────────────────────► a reader's snapshot       ─► caller
//! ```
//!
//! One batch is under way at a time; what comes meanwhile waits and goes together with the next.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use ropewalk::{Deferred, Failure, LogContext, Reactor, Resolver, ThreadPool, ThreadPoolOptions};

use super::local::Slot;
use super::{
    BatchLimits, BatchReport, Connection, Durability, Fate, Migration, Outcome, Pragmas, Role,
    StorageError, Txn, Verdict, WriteJob, WriteTxn, Writer, WriterStatistics, migrate,
};
use crate::streams::Notifier;

/// Writes that may wait. At a thousand a commit this is several seconds of work; whoever comes then is
/// told that the server is overloaded.
const WAITING_WRITES_MAX: usize = 10_000;

/// Reads that may wait for a reader, for the same reason.
const WAITING_READS_MAX: usize = 10_000;

/// Takes writes and reads. A cheap handle; clones are the same database.
#[derive(Clone)]
pub struct Database {
    inner: Rc<Inner>,
}

struct Inner {
    reactor: Reactor,
    notifier: Notifier,
    readers: ThreadPool,
    /// As many as the pool has threads, so that a job always finds one.
    connections: Arc<Mutex<Vec<Connection>>>,
    writers: ThreadPool,
    writer: Arc<Mutex<Writer>>,
    jobs: RefCell<VecDeque<WriteJob>>,
    /// Who waits for the jobs, in their order; those of the batch under way stand in front.
    callers: RefCell<VecDeque<Caller>>,
    is_committing: Cell<bool>,
    invalidators: RefCell<BTreeMap<&'static str, Vec<Forget>>>,
}

/// Makes a cache forget the entry of a key.
type Forget = Rc<dyn Fn(&str)>;

struct Caller {
    context: LogContext,
    answer: Box<dyn FnOnce(Fate)>,
}

impl Database {
    /// Opens the file at `path`, making it or bringing it to the newest of `steps`, with one writer and
    /// `reader_count` readers. Runs in a thread of the reactor's pool.
    ///
    /// # Errors
    ///
    /// [`StorageError`]: the file cannot be opened, is another program's, or a newer release's.
    pub fn open(
        reactor: &Reactor,
        path: &Path,
        durability: Durability,
        reader_count: usize,
        steps: &'static [Migration],
    ) -> Deferred<Database> {
        let path = path.to_owned();
        let stopwatch = reactor.stopwatch();
        let opened = reactor.defer_to_thread(move || {
            let connection = Connection::open(&path, Role::Writer, durability)?;
            migrate(&connection, steps)?;
            let writer = Writer::new(connection, BatchLimits::default(), stopwatch)?;
            let readers = (0..reader_count)
                .map(|_| Connection::open(&path, Role::Reader, durability))
                .collect::<Result<Vec<_>, StorageError>>()?;
            Ok::<_, StorageError>((writer, readers))
        });
        let reactor = reactor.clone();
        opened.add_callback(move |(writer, connections)| {
            let readers = ThreadPoolOptions::new("database-reader")
                .threads(reader_count)
                .queue_max(WAITING_READS_MAX);
            // One batch at a time is ever given to it: the next one is collected on the loop.
            let writers = ThreadPoolOptions::new("database-writer").threads(1).queue_max(1);
            Ok(Database {
                inner: Rc::new(Inner {
                    notifier: Notifier::new(writer.positions()),
                    readers: reactor.thread_pool(readers),
                    connections: Arc::new(Mutex::new(connections)),
                    writers: reactor.thread_pool(writers),
                    writer: Arc::new(Mutex::new(writer)),
                    jobs: RefCell::default(),
                    callers: RefCell::default(),
                    is_committing: Cell::new(false),
                    invalidators: RefCell::default(),
                    reactor,
                }),
            })
        })
    }

    /// Runs `f` in a snapshot on a reader's thread.
    ///
    /// The snapshot is taken when the job begins, so it holds everything that had been announced when
    /// `read` was called. Cancelling takes the job back if it has not begun.
    ///
    /// # Errors
    ///
    /// What `f` returns; [`StorageError`] if the database fails.
    pub fn read<T, E>(
        &self,
        f: impl FnOnce(&Txn<'_>) -> Result<T, E> + Send + 'static,
    ) -> Deferred<T>
    where
        T: Send + 'static,
        E: From<StorageError> + Into<Failure> + Send + 'static,
    {
        let connections = Arc::clone(&self.inner.connections);
        let stopwatch = self.inner.reactor.stopwatch();
        let context = LogContext::current();
        let answer = self.inner.readers.defer(move || {
            let connection = lock(&connections).pop();
            let Some(connection) = connection else { return Err(StorageError::Closed.into()) };
            // Given back even if `f` panics.
            let lease = Lease { connections, connection: Some(connection) };
            let began = stopwatch();
            let result = match &lease.connection {
                Some(connection) => Txn::snapshot(connection, f),
                None => Err(StorageError::Closed.into()),
            };
            Ok::<_, E>((result, stopwatch().saturating_sub(began)))
        });
        answer.add_callback(move |(result, elapsed)| {
            context.record_database_transaction(elapsed);
            result.map_err(Into::into)
        })
    }

    /// Runs `f` on the writer's thread, together with whatever else waits, and answers when the
    /// transaction is safe on disk.
    ///
    /// If `f` refuses, nothing that it wrote is kept. Cancelling gives up the answer, not the write.
    ///
    /// # Errors
    ///
    /// What `f` returns; [`StorageError`] if the database fails or too many writes wait.
    pub fn write<T, E>(
        &self,
        label: &'static str,
        f: impl FnOnce(&mut WriteTxn<'_>) -> Result<T, E> + Send + 'static,
    ) -> Deferred<T>
    where
        T: Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let inner = &self.inner;
        if inner.callers.borrow().len() >= WAITING_WRITES_MAX {
            return Deferred::fail(StorageError::Overloaded { waiting: WAITING_WRITES_MAX });
        }
        let slot: Slot<T, E> = Slot::default();
        let filled = Arc::clone(&slot);
        let job = WriteJob::new(label, move |txn| {
            let result = f(txn);
            let verdict = if result.is_ok() { Verdict::Keep } else { Verdict::TakeBack };
            *lock(&filled) = Some(result);
            verdict
        });
        let (deferred, resolver) = Deferred::new();
        let answer = Box::new(move |fate| answer_caller(fate, &slot, resolver));
        inner.jobs.borrow_mut().push_back(job);
        inner.callers.borrow_mut().push_back(Caller { context: LogContext::current(), answer });
        if !inner.is_committing.get() && inner.jobs.borrow().len() == 1 {
            // At the end of the turn, so that what other connections bring in it goes along.
            let database = self.clone();
            LogContext::sentinel().run(|| inner.reactor.call_soon(move || database.commit()));
        }
        deferred
    }

    /// Calls `forget` with a key whenever a write has made that entry of the caches named `cache`
    /// out of date: after the commit, before its caller is answered.
    pub fn on_invalidation(&self, cache: &'static str, forget: impl Fn(&str) + 'static) {
        self.inner.invalidators.borrow_mut().entry(cache).or_default().push(Rc::new(forget));
    }

    /// Returns who tells of news in this database.
    pub fn notifier(&self) -> &Notifier {
        &self.inner.notifier
    }

    /// Returns the writer's settings as the driver reads them back, and its counts.
    pub fn writer_report(&self) -> Deferred<(Pragmas, WriterStatistics)> {
        let writer = Arc::clone(&self.inner.writer);
        self.inner.reactor.defer_to_thread(move || {
            let writer = lock(&writer);
            Ok::<_, StorageError>((writer.connection().pragmas()?, writer.statistics()))
        })
    }

    fn commit(&self) {
        let inner = &self.inner;
        let mut jobs = inner.jobs.take();
        if inner.is_committing.get() || jobs.is_empty() {
            inner.jobs.replace(jobs);
            return;
        }
        inner.is_committing.set(true);
        let writer = Arc::clone(&inner.writer);
        let batch = inner.writers.defer(move || {
            let report = lock(&writer).commit_batch(&mut jobs);
            Ok::<_, StorageError>((report, jobs))
        });
        let database = self.clone();
        batch
            .add_both(move |outcome| {
                database.finish(outcome);
                Ok(())
            })
            .detach();
    }

    /// Acts on what a batch leads to, in the order that readers rely on.
    fn finish(&self, outcome: Result<(BatchReport, VecDeque<WriteJob>), Failure>) {
        let inner = &self.inner;
        inner.is_committing.set(false);
        match outcome {
            Ok((report, left_over)) => {
                // Those that did not fit go before those that have come since.
                let mut jobs = inner.jobs.borrow_mut();
                for job in left_over.into_iter().rev() {
                    jobs.push_front(job);
                }
                drop(jobs);
                self.announce(report);
            }
            Err(failure) => {
                log::error!("the database writer is gone: {failure}");
                let waiting = inner.jobs.take().len();
                let lost = inner.callers.borrow().len() - waiting;
                let callers: Vec<Caller> = inner.callers.borrow_mut().drain(..).collect();
                log::error!("{lost} writes were under way and {waiting} waited");
                for caller in callers {
                    (caller.answer)(Fate::Failed(StorageError::Closed));
                }
            }
        }
        if !inner.jobs.borrow().is_empty() {
            self.commit();
        }
    }

    fn announce(&self, report: BatchReport) {
        let inner = &self.inner;
        for invalidation in &report.invalidations {
            let forgetters = inner.invalidators.borrow().get(invalidation.cache).cloned();
            for forget in forgetters.into_iter().flatten() {
                forget(&invalidation.key);
            }
        }
        for f in report.after_commit {
            f();
        }
        inner.notifier.advance(&report.advanced, &report.wakes);
        for Outcome { fate, elapsed, .. } in report.outcomes {
            let Some(caller) = inner.callers.borrow_mut().pop_front() else { break };
            caller.context.record_database_transaction(elapsed);
            caller.context.run(|| (caller.answer)(fate));
        }
    }
}

/// Gives a caller what its job left in the slot, if that was kept.
fn answer_caller<T, E: Into<Failure>>(fate: Fate, slot: &Slot<T, E>, resolver: Resolver<T>) {
    let result = match fate {
        Fate::Committed | Fate::TakenBack => {
            lock(slot).take().map(|result| result.map_err(Into::into))
        }
        Fate::Failed(error) => Some(Err(error.into())),
    };
    resolver.fire(result.unwrap_or_else(|| Err(StorageError::Closed.into())));
}

/// A connection on loan to a job.
struct Lease {
    connections: Arc<Mutex<Vec<Connection>>>,
    connection: Option<Connection>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.connections).extend(self.connection.take());
    }
}

/// Locks; a panic in another job has left nothing half-done behind these mutexes.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
