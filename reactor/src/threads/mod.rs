//! Work off the loop: thread pools and the way back.
//!
//! A job runs to its end in a thread of its pool and never waits for the loop. Jobs that are given in one
//! turn are handed over together, and what they have found travels back in batches: the first job to
//! finish since the loop last looked calls the loop, the others add themselves to the list. On a simulated
//! reactor there are no threads; jobs run on the loop when it is pumped, with the same accounting.
//!
//! `worker` is the threads' side, `queue` lies in between, and `pool` is the loop's side, where the
//! resolvers of jobs stay: a `parcel` is what travels.

mod options;
mod parcel;
mod patience;
mod place;
mod pool;
mod queue;
mod simulated;
mod worker;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::thread;
use std::time::Duration;

pub use self::options::{ThreadPoolError, ThreadPoolOptions, ThreadPoolStatistics};
pub use self::place::QueuePlace;
use self::pool::Pool;
use crate::backend::Stopwatch;
use crate::deferred::Deferred;
use crate::failure::Failure;
use crate::reactor::Reactor;

/// Threads for work that would hold up the loop.
///
/// A job runs in a child of the log context in which it was given: what it costs is thread time of that
/// context and its parents, and so are the database transactions that it records. A job's panic is its
/// failure. Dropping the last handle lets the jobs that wait run to their end.
///
/// Jobs are begun in the order in which they were given. Jobs that a callback gives are handed over to the
/// threads after it has returned.
///
/// **A job never waits for the loop**, nor for another job: it would hold its thread, and several such
/// jobs all of them. Do the steps of long work as jobs one after the other, with callbacks in between.
///
/// # Cancelling
///
/// Cancelling the deferred of a job that still waits takes it out of the queue: it never runs, and what
/// its closure owns is dropped. A job that runs is not interrupted, as nothing can do that safely: its
/// deferred fails with [`CancelledError`](crate::CancelledError) at once, the job goes on to its end,
/// and its result is dropped on the loop.
///
/// # Too many jobs
///
/// The queue has a bound. [`defer`](Self::defer) refuses a job when the queue is full, so that
/// a flood of requests is answered instead of hoarded; [`reserve`](Self::reserve) and
/// [`defer_when_free`](Self::defer_when_free) wait for a place, for producers that can be held up.
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
    pool: Rc<Pool>,
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
        match self.pool.check_room() {
            Ok(()) => self.pool.submit(f),
            Err(error) => Deferred::fail(error),
        }
    }

    /// Waits for a place in the queue, if that is full, and then runs `f` in a thread of the pool.
    ///
    /// Cancelling leaves the line of those who wait for a place; after that, as [`defer`](Self::defer).
    ///
    /// # Errors
    ///
    /// As [`defer`](Self::defer), but never that the queue is full.
    #[track_caller]
    pub fn defer_when_free<T, E, F>(&self, f: F) -> Deferred<T>
    where
        T: Send + 'static,
        E: Into<Failure>,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        self.reserve().add_callback(move |place| place.defer(f))
    }

    /// Waits for a place in the queue; at once if there is one. Places are given first come, first served.
    ///
    /// This is how a producer is held up until the threads have caught up: reserve a place, make the
    /// piece of work, hand it over. The place counts as taken until it is used or dropped.
    ///
    /// Cancelling leaves the line.
    ///
    /// # Errors
    ///
    /// [`ThreadPoolError::Stopped`] if the pool is stopped before there is a place.
    ///
    /// ```
    /// use ropewalk::testing::{Clock, success_result_of};
    /// use ropewalk::{Failure, ThreadPoolOptions};
    ///
    /// let clock = Clock::new();
    /// let pool = clock.reactor().thread_pool(ThreadPoolOptions::new("digests").queue_max(1));
    /// let first = success_result_of(pool.reserve()).defer(|| Ok::<u32, Failure>(1));
    /// let place = pool.reserve();
    /// assert!(!place.is_fired(), "the queue is full");
    /// clock.pump();
    /// let second = success_result_of(place).defer(|| Ok::<u32, Failure>(2));
    /// clock.pump();
    /// assert_eq!((success_result_of(first), success_result_of(second)), (1, 2));
    /// ```
    #[track_caller]
    pub fn reserve(&self) -> Deferred<QueuePlace> {
        self.pool.reserve()
    }

    /// Takes no more jobs, and waits until those that were taken have run.
    ///
    /// After `limit`, jobs that wait fail with [`ThreadPoolError::Stopped`], and threads whose job has not
    /// come to its end are abandoned: they end with the process. Gives the number of those.
    #[track_caller]
    pub fn stop(&self, limit: Duration) -> Deferred<usize> {
        self.pool.stop(limit)
    }

    /// Lists the jobs that have not come back: pool, number, context.
    pub(crate) fn pending_jobs(&self) -> Vec<Vec<String>> {
        self.pool.pending_jobs()
    }

    /// Returns what the pool is doing and has done.
    pub fn statistics(&self) -> ThreadPoolStatistics {
        self.pool.statistics()
    }

    /// Returns the pool's name.
    pub fn name(&self) -> &str {
        self.pool.name()
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
        self.default_thread_pool().defer(f)
    }

    /// Returns the pool named `default`, which has as many threads as the machine has processors,
    /// between two and eight. It is made when first asked for.
    pub fn default_thread_pool(&self) -> ThreadPool {
        self.core().thread_pools.default_pool(self)
    }

    /// Returns the thread pools that are in use, in the order in which they were made.
    pub fn thread_pools(&self) -> Vec<ThreadPool> {
        self.core().thread_pools.all()
    }
}

/// The pools of one reactor.
#[derive(Default)]
pub(crate) struct ThreadPools {
    default: RefCell<Option<ThreadPool>>,
    all: RefCell<BTreeMap<u64, Weak<Pool>>>,
    next_id: Cell<u64>,
}

impl ThreadPools {
    fn make(&self, reactor: &Reactor, options: ThreadPoolOptions) -> ThreadPool {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let pool = Pool::new(reactor, options, id);
        let mut all = self.all.borrow_mut();
        all.retain(|_, pool| pool.strong_count() > 0);
        all.insert(id, Rc::downgrade(&pool));
        ThreadPool { pool }
    }

    fn default_pool(&self, reactor: &Reactor) -> ThreadPool {
        let present = self.default.borrow().clone();
        present.unwrap_or_else(|| {
            // A simulation must take the same course on any machine.
            let threads = match reactor.core().backend.runs_thread_jobs_inline() {
                true => THREADS_IN_SIMULATION,
                false => thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
            };
            let pool = self.make(reactor, ThreadPoolOptions::new("default").threads(threads));
            *self.default.borrow_mut() = Some(pool.clone());
            pool
        })
    }

    fn all(&self) -> Vec<ThreadPool> {
        let all = self.all.borrow();
        all.values().filter_map(Weak::upgrade).map(|pool| ThreadPool { pool }).collect()
    }

    /// Delivers what has come back to a pool.
    fn collect(&self, id: u64) {
        let pool = self.all.borrow().get(&id).and_then(Weak::upgrade);
        if let Some(pool) = pool {
            pool.collect();
        }
    }

    /// Drops all jobs and whoever waits for them, without telling anybody.
    pub(crate) fn kill(&self) {
        drop(self.default.take());
        let pools = self.all.take();
        for pool in pools.into_values().filter_map(|pool| pool.upgrade()) {
            pool.kill();
        }
    }

    /// Ends all pools with the reactor: no job is started any more, those at work are left to their
    /// threads, and the deferreds of both fail with [`ThreadPoolError::Stopped`].
    pub(crate) fn tear_down(&self) {
        drop(self.default.take());
        let pools = self.all.take();
        for pool in pools.into_values().filter_map(|pool| pool.upgrade()) {
            pool.tear_down();
        }
    }
}

/// The size of the default pool where threads are simulated.
const THREADS_IN_SIMULATION: usize = 4;
