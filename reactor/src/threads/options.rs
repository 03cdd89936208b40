//! What a pool is told at its start, and what it tells: options, errors, statistics.

use std::io;
use std::time::Duration;

/// How a [`ThreadPool`](super::ThreadPool) is made.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::ThreadPoolOptions;
///
/// let options = ThreadPoolOptions::new("images")
///     .threads(4)
///     .threads_min(1)
///     .idle_time(Duration::from_secs(10))
///     .queue_max(100);
/// assert_eq!(options.name, "images");
/// ```
#[derive(Clone, Debug)]
pub struct ThreadPoolOptions {
    /// Names the threads, the log contexts of their jobs and the pool's errors.
    pub name: String,
    /// How many threads there are at most. They are started when first needed.
    pub threads: usize,
    /// How many threads stay, once started, when there is nothing for them to do.
    pub threads_min: usize,
    /// After how long without a job the other threads end.
    pub idle_time: Duration,
    /// How many jobs may wait for a thread; those that run do not count.
    pub queue_max: usize,
}

impl ThreadPoolOptions {
    /// Names the pool. It has four threads at most, which end after a minute without work, and ten
    /// thousand jobs may wait.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            threads: 4,
            threads_min: 0,
            idle_time: IDLE_TIME,
            queue_max: QUEUE_MAX,
        }
    }

    /// Sets how many threads there are at most; one at least.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets how many threads stay when there is nothing to do.
    #[must_use]
    pub fn threads_min(mut self, threads_min: usize) -> Self {
        self.threads_min = threads_min;
        self
    }

    /// Sets after how long without a job the threads beyond the minimum end.
    #[must_use]
    pub fn idle_time(mut self, idle_time: Duration) -> Self {
        self.idle_time = idle_time;
        self
    }

    /// Sets how many jobs may wait; one at least, as each job waits before it runs.
    #[must_use]
    pub fn queue_max(mut self, queue_max: usize) -> Self {
        self.queue_max = queue_max.max(1);
        self
    }
}

/// A thread costs some ten kilobytes of memory that it has touched; to start one takes 50 µs. A minute
/// keeps those of a pool that has work now and then.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// A job that waits takes some hundred bytes and what it has captured.
const QUEUE_MAX: usize = 10_000;

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

/// What a pool is doing and has done since it was made.
///
/// Every job that was taken is, in the end, either completed or cancelled (or was waiting when its pool
/// was stopped and the time was up).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct ThreadPoolStatistics {
    /// Threads that have been started and not ended.
    pub threads: usize,
    /// Threads that have ever been started.
    pub threads_started: u64,
    /// Threads that have ended, for want of work or because the pool was stopped.
    pub threads_ended: u64,
    /// Jobs that wait for a thread.
    pub queued: usize,
    /// Callers that wait for a place in the queue.
    pub waiting_for_place: usize,
    /// Jobs that run now.
    pub running: usize,
    /// Jobs that have run to their end, however they ended and whether or not anybody still wanted to
    /// know.
    pub completed: u64,
    /// Those of them that failed or panicked.
    pub failed: u64,
    /// Those of them that panicked.
    pub panicked: u64,
    /// Jobs that were cancelled before they had begun.
    pub cancelled: u64,
    /// How long the jobs that have begun had waited for a thread, in all.
    pub wait_time: Duration,
    /// How long the completed jobs have run, in all, by the monotonic clock.
    pub run_time: Duration,
}
