//! Work off the loop: thread pools and the way back.
//!
//! A job runs to its end in a thread of its pool and never waits for the loop. What it has found travels
//! back in batches: the first job to finish since the loop last looked calls the loop, the others add
//! themselves to the list. On a simulated reactor there are no threads; jobs run on the loop when it is
//! pumped, with the same accounting.
//!
//! The [`Resolver`]s of jobs stay on the loop's thread, found again by the job's number.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::backend::Stopwatch;
use crate::context::{self, AccountingClock, LogContext, Usage};
use crate::core::Core;
use crate::deferred::{Deferred, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::reactor::Reactor;
use crate::ready::Job;
use crate::remote::ReactorRemote;

/// How a [`ThreadPool`] is made.
#[derive(Clone, Debug)]
pub struct ThreadPoolOptions {
    /// Names the threads, the log contexts of their jobs and the pool's errors.
    pub name: String,
    /// How many threads there are at most. They are started when first needed, and stay.
    pub threads: usize,
    /// How many jobs may wait; the next one is refused.
    pub queue_max: usize,
}

impl ThreadPoolOptions {
    /// Names the pool; four threads, and ten thousand jobs may wait.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), threads: 4, queue_max: 10_000 }
    }

    /// Sets the number of threads, one at least.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets how many jobs may wait.
    #[must_use]
    pub fn queue_max(mut self, queue_max: usize) -> Self {
        self.queue_max = queue_max;
        self
    }
}

/// Why a pool did not take a job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThreadPoolError {
    /// The first thread could not be started.
    #[error("cannot start a thread of pool {pool:?}; check the limits on processes and memory")]
    NoThread {
        /// The pool's name.
        pool: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// As many jobs wait as may wait.
    #[error("{queue_max} jobs wait for a thread of pool {pool:?} already; try again later")]
    QueueFull {
        /// The pool's name.
        pool: String,
        /// How many may wait.
        queue_max: usize,
    },
    /// The pool has been stopped.
    #[error("thread pool {pool:?} has been stopped")]
    Stopped {
        /// The pool's name.
        pool: String,
    },
}

/// What a pool is doing and has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ThreadPoolStatistics {
    /// Threads that have been started and not ended.
    pub threads: usize,
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that run now.
    pub running: usize,
    /// Jobs that have run to their end.
    pub completed: u64,
    /// Those of them that panicked.
    pub panicked: u64,
}

/// Threads for work that would hold up the loop.
///
/// A job runs in a child of the log context in which it was given: what it costs is thread time of that
/// context and its parents, and so are the database transactions that it records. A job's panic is its
/// failure. Dropping the last handle lets the jobs that wait run to their end.
///
/// A handle is a cheap clone.
///
/// ```
/// use ropewalk::{Reactor, ThreadPoolOptions};
///
/// # fn main() -> Result<(), ropewalk::Failure> {
/// let reactor = Reactor::new()?;
/// let pool = reactor.thread_pool(ThreadPoolOptions::new("digests").threads(2));
/// let sum = pool.defer(|| Ok::<u64, ropewalk::Failure>((1..=1000).sum()));
/// assert_eq!(reactor.run_until(sum)?, 500_500);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ThreadPool {
    state: Rc<PoolState>,
}

/// The loop's side of a pool.
struct PoolState {
    id: u64,
    core: Weak<Core>,
    runs_inline: bool,
    shared: Arc<Shared>,
    waiting: RefCell<BTreeMap<u64, Box<dyn Deliver>>>,
    next_job: Cell<u64>,
    stopped: RefCell<Vec<Resolver<()>>>,
}

/// The threads' side of a pool.
struct Shared {
    options: ThreadPoolOptions,
    remote: ReactorRemote,
    stopwatch: Stopwatch,
    pool: u64,
    queue: Mutex<Queue>,
    job_came: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: BTreeMap<u64, ThreadJob>,
    finished: Vec<Finished>,
    threads: usize,
    idle: usize,
    running: usize,
    is_stopping: bool,
    completed: u64,
    panicked: u64,
}

struct ThreadJob {
    context_name: Box<str>,
    run: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
}

struct Finished {
    job: u64,
    /// A boxed `Result<T, Failure>`, or the payload of a panic.
    outcome: thread::Result<Box<dyn Any + Send>>,
    usage: Usage,
}

/// Knows the type of a job's result.
trait Deliver {
    fn deliver(self: Box<Self>, finished: Finished);
    fn refuse(self: Box<Self>, failure: Failure);
}

struct Delivery<T: 'static> {
    resolver: Resolver<T>,
    context: LogContext,
    /// Jobs that wait keep their pool.
    _pool: Rc<PoolState>,
}

impl<T: 'static> Deliver for Delivery<T> {
    fn deliver(self: Box<Self>, finished: Finished) {
        self.context.charge(&finished.usage);
        let outcome = match finished.outcome.map(|outcome| outcome.downcast::<Result<T, Failure>>())
        {
            Ok(Ok(outcome)) => *outcome,
            Ok(Err(_)) => unreachable!("a job's number is given once"),
            Err(payload) => Err(Failure::from_panic(payload)),
        };
        self.resolver.fire(outcome);
    }

    fn refuse(self: Box<Self>, failure: Failure) {
        self.resolver.fire(Err(failure));
    }
}

impl ThreadPool {
    /// Runs `f` in a thread of the pool.
    ///
    /// Cancelling takes a job that still waits out of the queue; one that runs goes on, and its result is
    /// dropped.
    ///
    /// # Errors
    ///
    /// What `f` returns; [`Panicked`](crate::Panicked); [`ThreadPoolError`] if the job was not taken.
    #[track_caller]
    pub fn defer<T, E, F>(&self, f: F) -> Deferred<T>
    where
        T: Send + 'static,
        E: Into<Failure>,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        let state = &self.state;
        let (deferred, resolver) = Deferred::new();
        let context = LogContext::current();
        let job = ThreadJob {
            context_name: job_context_name(&context, &state.shared.options.name),
            run: Box::new(move || Box::new(f().map_err(Into::into))),
        };
        let id = state.next_job.get();
        state.next_job.set(id + 1);
        if let Err(error) = state.shared.take(id, job, state.runs_inline) {
            resolver.fire(Err(error.into()));
            return deferred;
        }
        let weak = Rc::downgrade(state);
        resolver.set_canceller(move || {
            if let Some(state) = weak.upgrade() {
                state.cancel(id);
            }
        });
        let delivery = Delivery { resolver, context, _pool: Rc::clone(state) };
        state.waiting.borrow_mut().insert(id, Box::new(delivery));
        if state.runs_inline
            && let Some(core) = state.core.upgrade()
        {
            let weak = Rc::downgrade(state);
            core.ready.push(Job::new(move || {
                if let Some(state) = weak.upgrade() {
                    state.run_inline(id);
                }
            }));
        }
        deferred
    }

    /// Takes no more jobs, and waits until those that were taken have run.
    ///
    /// After `limit`, jobs that wait fail with [`ThreadPoolError::Stopped`], and threads whose job has not
    /// come to its end are abandoned: they end with the process. Gives the number of those.
    #[track_caller]
    pub fn stop(&self, limit: Duration) -> Deferred<usize> {
        let state = &self.state;
        state.shared.queue().is_stopping = true;
        state.shared.job_came.notify_all();
        let (deferred, resolver) = Deferred::new();
        state.stopped.borrow_mut().push(resolver);
        state.tell_if_stopped();
        let Some(core) = state.core.upgrade() else { return deferred.add_both(|_| Ok(0)) };
        let state = Rc::clone(state);
        deferred.with_timeout(&Reactor::from_core(core), limit).add_both(move |outcome| {
            Ok(match outcome {
                Ok(()) => 0,
                Err(_) => state.abandon(),
            })
        })
    }

    /// Returns what the pool is doing and has done.
    pub fn statistics(&self) -> ThreadPoolStatistics {
        let queue = self.state.shared.queue();
        ThreadPoolStatistics {
            threads: queue.threads,
            queued: queue.jobs.len(),
            running: queue.running,
            completed: queue.completed,
            panicked: queue.panicked,
        }
    }

    /// Returns the pool's name.
    pub fn name(&self) -> &str {
        &self.state.shared.options.name
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("name", &self.name())
            .field("statistics", &self.statistics())
            .finish()
    }
}

impl Reactor {
    /// Makes a thread pool whose results come back to this reactor.
    pub fn thread_pool(&self, options: ThreadPoolOptions) -> ThreadPool {
        self.core().thread_pools.make(self, options)
    }

    /// Returns the reactor's monotonic clock for use on any thread, as the time since some fixed moment.
    /// On a simulated reactor it shows that one's time.
    pub fn stopwatch(&self) -> Stopwatch {
        self.core().backend.stopwatch()
    }

    /// Runs `f` in a thread of the default pool. See [`ThreadPool::defer`].
    #[track_caller]
    pub fn defer_to_thread<T, E, F>(&self, f: F) -> Deferred<T>
    where
        T: Send + 'static,
        E: Into<Failure>,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        self.core().thread_pools.default_pool(self).defer(f)
    }
}

impl PoolState {
    fn cancel(&self, id: u64) {
        let job = self.shared.queue().jobs.remove(&id);
        if job.is_some() {
            let waiting = self.waiting.borrow_mut().remove(&id);
            drop(job);
            if let Some(waiting) = waiting {
                waiting.refuse(Failure::plain(CancelledError));
            }
            self.tell_if_stopped();
        }
    }

    /// Delivers what has come back.
    fn collect(&self) {
        let finished = std::mem::take(&mut self.shared.queue().finished);
        for finished in finished {
            let waiting = self.waiting.borrow_mut().remove(&finished.job);
            if let Some(waiting) = waiting {
                waiting.deliver(finished);
            }
        }
        self.tell_if_stopped();
    }

    fn run_inline(&self, id: u64) {
        let Some(job) = self.shared.queue().start(Some(id)) else { return };
        let finished = job.1.run(job.0);
        self.shared.queue().finish(finished);
        self.collect();
    }

    fn tell_if_stopped(&self) {
        let queue = self.shared.queue();
        let is_idle = queue.jobs.is_empty() && queue.running == 0 && queue.finished.is_empty();
        if !queue.is_stopping || !is_idle {
            return;
        }
        drop(queue);
        for resolver in self.stopped.take() {
            resolver.callback(());
        }
    }

    /// Fails what waits, and returns how many threads are still at work.
    fn abandon(&self) -> usize {
        let mut queue = self.shared.queue();
        let jobs = std::mem::take(&mut queue.jobs);
        let running = queue.running;
        drop(queue);
        let pool = &self.shared.options.name;
        if running > 0 {
            log::warn!(
                "abandoning {running} threads of pool {pool:?}, whose jobs have not ended in time"
            );
        }
        for id in jobs.into_keys() {
            let waiting = self.waiting.borrow_mut().remove(&id);
            if let Some(waiting) = waiting {
                waiting.refuse(self.shared.stopped_error().into());
            }
        }
        running
    }
}

impl Drop for PoolState {
    fn drop(&mut self) {
        // Threads end when nothing is left for them to do.
        self.shared.queue().is_stopping = true;
        self.shared.job_came.notify_all();
    }
}

impl Shared {
    /// Queues a job, and makes sure that there is a thread for it.
    fn take(
        self: &Arc<Self>,
        id: u64,
        job: ThreadJob,
        runs_inline: bool,
    ) -> Result<(), ThreadPoolError> {
        let mut queue = self.queue();
        let pool = || self.options.name.clone();
        if queue.is_stopping || self.remote.is_stopped() {
            return Err(self.stopped_error());
        }
        let queue_max = self.options.queue_max;
        if queue.jobs.len() >= queue_max {
            return Err(ThreadPoolError::QueueFull { pool: pool(), queue_max });
        }
        if !runs_inline && queue.idle <= queue.jobs.len() && queue.threads < self.options.threads {
            match self.start_thread(queue.threads) {
                Ok(()) => queue.threads += 1,
                // The others will get to it.
                Err(error) if queue.threads > 0 => {
                    log::warn!("cannot start another thread of pool {:?}: {error}", pool());
                }
                Err(source) => return Err(ThreadPoolError::NoThread { pool: pool(), source }),
            }
        }
        queue.jobs.insert(id, job);
        drop(queue);
        self.job_came.notify_one();
        Ok(())
    }

    fn stopped_error(&self) -> ThreadPoolError {
        ThreadPoolError::Stopped { pool: self.options.name.clone() }
    }

    fn start_thread(self: &Arc<Self>, number: usize) -> io::Result<()> {
        let shared = Arc::clone(self);
        let name = format!("{}-{number}", self.options.name);
        thread::Builder::new().name(name).spawn(move || shared.work()).map(drop)
    }

    /// What a thread does all its life.
    fn work(self: Arc<Self>) {
        let stopwatch = Arc::clone(&self.stopwatch);
        context::install_clock(Some(AccountingClock::Thread(stopwatch)));
        let mut queue = self.queue();
        loop {
            if let Some((id, job)) = queue.start(None) {
                drop(queue);
                let finished = job.run(id);
                queue = self.queue();
                if queue.finish(finished) {
                    drop(queue);
                    let pool = self.pool;
                    self.remote.call_from_thread(move |reactor| {
                        reactor.core().thread_pools.collect(pool);
                    });
                    queue = self.queue();
                }
            } else if queue.is_stopping {
                queue.threads -= 1;
                return;
            } else {
                queue.idle += 1;
                queue = self.job_came.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            }
        }
    }

    /// No code of others runs under the lock, so that a poisoned one is as good as any.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Takes out the job of this number, or the first.
    fn start(&mut self, id: Option<u64>) -> Option<(u64, ThreadJob)> {
        let started = match id {
            Some(id) => self.jobs.remove_entry(&id),
            None => self.jobs.pop_first(),
        };
        self.running += usize::from(started.is_some());
        started
    }

    /// Notes what a job has brought; returns whether the loop has to be called for it.
    fn finish(&mut self, finished: Finished) -> bool {
        self.running -= 1;
        self.completed += 1;
        self.panicked += u64::from(finished.outcome.is_err());
        self.finished.push(finished);
        self.finished.len() == 1
    }
}

impl ThreadJob {
    fn run(self, id: u64) -> Finished {
        let context = LogContext::new(self.context_name);
        let outcome = context.run(|| catch_unwind(AssertUnwindSafe(self.run)));
        let usage = context.usage();
        let thread_time = usage.loop_time.saturating_add(usage.thread_time);
        Finished {
            job: id,
            outcome,
            usage: Usage { loop_time: Duration::ZERO, thread_time, ..usage },
        }
    }
}

/// The pools of one reactor.
#[derive(Default)]
pub(crate) struct ThreadPools {
    default: RefCell<Option<ThreadPool>>,
    all: RefCell<BTreeMap<u64, Weak<PoolState>>>,
    next_id: Cell<u64>,
}

impl ThreadPools {
    fn make(&self, reactor: &Reactor, options: ThreadPoolOptions) -> ThreadPool {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let core = reactor.core();
        let state = Rc::new(PoolState {
            id,
            core: Rc::downgrade(core),
            runs_inline: core.backend.runs_thread_jobs_inline(),
            shared: Arc::new(Shared {
                options,
                remote: reactor.remote(),
                stopwatch: reactor.stopwatch(),
                pool: id,
                queue: Mutex::default(),
                job_came: Condvar::new(),
            }),
            waiting: RefCell::default(),
            next_job: Cell::new(0),
            stopped: RefCell::default(),
        });
        let mut all = self.all.borrow_mut();
        all.retain(|_, pool| pool.strong_count() > 0);
        all.insert(state.id, Rc::downgrade(&state));
        ThreadPool { state }
    }

    fn default_pool(&self, reactor: &Reactor) -> ThreadPool {
        let present = self.default.borrow().clone();
        present.unwrap_or_else(|| {
            let threads = thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
            let pool = self.make(reactor, ThreadPoolOptions::new("default").threads(threads));
            *self.default.borrow_mut() = Some(pool.clone());
            pool
        })
    }

    fn collect(&self, id: u64) {
        let pool = self.all.borrow().get(&id).and_then(Weak::upgrade);
        if let Some(pool) = pool {
            pool.collect();
        }
    }

    /// Ends all pools with the reactor: no job is started any more, those at work are left to their
    /// threads, and the deferreds of both fail with [`ThreadPoolError::Stopped`].
    pub(crate) fn tear_down(&self) {
        drop(self.default.take());
        let pools: Vec<_> =
            self.all.take().into_values().filter_map(|pool| pool.upgrade()).collect();
        for pool in pools {
            pool.shared.queue().is_stopping = true;
            pool.abandon();
            pool.shared.job_came.notify_all();
            for waiting in pool.waiting.take().into_values() {
                waiting.refuse(pool.shared.stopped_error().into());
            }
            pool.tell_if_stopped();
        }
    }
}

fn job_context_name(context: &LogContext, pool: &str) -> Box<str> {
    if context.is_sentinel() { pool.into() } else { format!("{}-{pool}", context.name()).into() }
}
