//! The threads' side of a pool.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::options::{ThreadPoolError, ThreadPoolOptions};
use super::parcel::Parcel;
use super::patience::Patience;
use super::queue::Queue;
use crate::backend::Stopwatch;
use crate::clock::Instant;
use crate::context::{self, AccountingClock, CpuClock, LogContext};
use crate::remote::ReactorRemote;

/// What the loop and the threads of a pool share.
pub(super) struct Shared {
    pub(super) options: ThreadPoolOptions,
    pub(super) name: Arc<str>,
    remote: ReactorRemote,
    stopwatch: Stopwatch,
    /// Finds the pool on the loop.
    pool: u64,
    queue: Mutex<Queue>,
    /// How many jobs wait, for those who look without the lock.
    queued: AtomicUsize,
    job_came: Condvar,
    /// How many threads have not gone to sleep.
    awake: AtomicUsize,
}

impl Shared {
    pub(super) fn new(
        options: ThreadPoolOptions,
        remote: ReactorRemote,
        stopwatch: Stopwatch,
        pool: u64,
    ) -> Shared {
        Shared {
            name: options.name.as_str().into(),
            options,
            remote,
            stopwatch,
            pool,
            queue: Mutex::default(),
            queued: AtomicUsize::new(0),
            job_came: Condvar::new(),
            awake: AtomicUsize::new(0),
        }
    }

    /// No code of others runs under the lock, so that a poisoned one is as good as any.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many jobs wait, or just waited.
    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether a thread will find what is added without having to be woken.
    pub(super) fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Relaxed) > 0
    }

    /// Says what has changed the number of jobs that wait.
    pub(super) fn publish(&self, queue: &Queue) {
        self.queued.store(queue.len(), Ordering::Relaxed);
    }

    pub(super) fn stopped_error(&self) -> ThreadPoolError {
        ThreadPoolError::Stopped { pool: self.options.name.clone() }
    }

    /// Queues jobs and sees to it that there are threads for them.
    ///
    /// # Errors
    ///
    /// If there is no thread and none can be started. The jobs are in the queue all the same.
    pub(super) fn add(
        self: &Arc<Self>,
        jobs: impl Iterator<Item = Box<Parcel>>,
        starts_threads: bool,
    ) -> io::Result<()> {
        let now = Instant::START + (self.stopwatch)();
        let mut queue = self.queue();
        for mut job in jobs {
            job.queued_at = now;
            queue.push(job);
        }
        self.publish(&queue);
        if !starts_threads {
            return Ok(());
        }
        let mut unattended = queue.len().saturating_sub(queue.watching);
        let to_wake = unattended.min(queue.sleeping);
        unattended -= to_wake;
        let mut result = Ok(());
        while unattended > 0 && queue.threads() < self.options.threads {
            if let Err(error) = self.start_thread(&mut queue) {
                result = Err(error);
                break;
            }
            unattended -= 1;
        }
        let has_threads = queue.threads() > 0;
        drop(queue);
        for _ in 0..to_wake {
            self.job_came.notify_one();
        }
        match result {
            Err(error) if has_threads => {
                // The others will get to it.
                log::warn!("cannot start another thread of pool {:?}: {error}", self.name);
                Ok(())
            }
            result => result,
        }
    }

    /// Has the threads end once nothing is left for them to do.
    pub(super) fn stop(&self) {
        self.queue().is_stopping = true;
        self.job_came.notify_all();
    }

    fn start_thread(self: &Arc<Self>, queue: &mut Queue) -> io::Result<()> {
        let shared = Arc::clone(self);
        let number = queue.add_thread();
        // The system's names end at a zero byte, and the standard library panics over one.
        let name = format!("{}-{number}", self.name.replace('\0', "?"));
        let started = thread::Builder::new().name(name).spawn(move || shared.work(number));
        started.map(drop).inspect_err(|_| queue.forget_thread(number))
    }

    /// What a thread does all its life.
    fn work(&self, number: usize) {
        let stopwatch = Arc::clone(&self.stopwatch);
        context::install_clock(Some(AccountingClock::Thread(stopwatch, CpuClock::Thread)));
        let mut context = LogContext::sentinel();
        let mut patience = Patience::new();
        let mut has_waited = false;
        let mut queue = self.queue();
        self.awake.fetch_add(1, Ordering::Relaxed);
        loop {
            if let Some(mut job) = queue.start() {
                self.publish(&queue);
                let gives_place = std::mem::take(&mut queue.wants_places);
                drop(queue);
                if gives_place {
                    self.call_loop();
                }
                if std::mem::take(&mut has_waited) {
                    context::restart_cpu_meter();
                }
                job.run(&mut context, &self.name);
                queue = self.queue();
                if queue.finish(job) {
                    drop(queue);
                    self.call_loop();
                    queue = self.queue();
                }
            } else if queue.is_stopping {
                break;
            } else {
                let is_wanted;
                (queue, is_wanted) = self.wait_for_job(queue, &mut patience);
                has_waited = true;
                let is_spare = queue.threads() > self.options.threads_min;
                if !is_wanted && is_spare && queue.len() == 0 {
                    break;
                }
            }
        }
        queue.remove_thread(number);
        self.awake.fetch_sub(1, Ordering::Relaxed);
        drop(queue);
        context::install_clock(None);
    }

    /// Waits until there may be a job; says whether there was reason to believe so before the idle time
    /// was over.
    fn wait_for_job<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        patience: &mut Patience,
    ) -> (MutexGuard<'a, Queue>, bool) {
        let looks = patience.looks();
        if looks > 0 {
            queue.watching += 1;
            drop(queue);
            patience.look_out(looks, || self.queued() > 0);
            queue = self.queue();
            queue.watching -= 1;
            if queue.len() > 0 || queue.is_stopping {
                return (queue, true);
            }
        }
        queue.sleeping += 1;
        self.awake.fetch_sub(1, Ordering::Relaxed);
        let idle_time = self.options.idle_time;
        let (mut queue, wait) =
            self.job_came.wait_timeout(queue, idle_time).unwrap_or_else(PoisonError::into_inner);
        queue.sleeping -= 1;
        self.awake.fetch_add(1, Ordering::Relaxed);
        (queue, !wait.timed_out())
    }

    fn call_loop(&self) {
        let pool = self.pool;
        self.remote.call_from_thread(move |reactor| reactor.core().thread_pools.collect(pool));
    }
}
