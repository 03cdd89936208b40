//! A job on its way to a thread and back.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::context::{self, LogContext, SentName, Usage};
use crate::failure::Failure;
use crate::slots::Key;

/// A job, with all that goes along: one piece of memory, made on the loop, filled with the result in the
/// thread, and given back on the loop.
pub(super) struct Parcel<W: ?Sized = dyn Work> {
    /// Finds who waits for it.
    pub(super) key: Key,
    /// Counts the jobs of a pool.
    pub(super) number: u64,
    /// The context that gave the job.
    pub(super) sender: Option<SentName>,
    pub(super) queued_at: Instant,
    pub(super) started_at: Instant,
    pub(super) ended_at: Instant,
    cpu_time: Duration,
    pub(super) end: End,
    /// What the job has cost beside its time; most cost nothing.
    usage: Option<Box<Usage>>,
    /// Last, so that it can be `dyn`.
    work: W,
}

/// How a job has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    /// It has not.
    None,
    Failed,
    Panicked,
    Succeeded,
}

/// What a job does, and the place for its result.
pub(super) trait Work: Send {
    /// Does it; returns whether it has succeeded.
    fn run(&mut self) -> bool;

    /// Puts a failure in place of a result.
    fn fail(&mut self, failure: Failure);

    /// Returns an `Option<Result<T, Failure>>`.
    fn outcome(&mut self) -> &mut dyn Any;
}

struct Closure<F, T> {
    f: Option<F>,
    outcome: Option<Result<T, Failure>>,
}

impl<T, E, F> Work for Closure<F, T>
where
    T: Send + 'static,
    E: Into<Failure>,
    F: FnOnce() -> Result<T, E> + Send,
{
    fn run(&mut self) -> bool {
        let outcome = self.f.take().map(|f| f().map_err(Into::into));
        let has_succeeded = matches!(outcome, Some(Ok(_)));
        self.outcome = outcome;
        has_succeeded
    }

    fn fail(&mut self, failure: Failure) {
        self.outcome = Some(Err(failure));
    }

    fn outcome(&mut self) -> &mut dyn Any {
        &mut self.outcome
    }
}

impl Parcel {
    pub(super) fn new<T, E, F>(key: Key, number: u64, sender: &LogContext, f: F) -> Box<Parcel>
    where
        T: Send + 'static,
        E: Into<Failure>,
        F: FnOnce() -> Result<T, E> + Send + 'static,
    {
        Box::new(Parcel {
            key,
            number,
            sender: sender.sent_name(),
            queued_at: Instant::START,
            started_at: Instant::START,
            ended_at: Instant::START,
            cpu_time: Duration::ZERO,
            end: End::None,
            usage: None,
            work: Closure { f: Some(f), outcome: None },
        })
    }

    /// Does the job in a context of its own, which is made in the memory of the last one.
    pub(super) fn run(&mut self, context: &mut LogContext, pool: &Arc<str>) {
        *context = mem::take(context).renew_for_job(self.sender.take(), pool);
        let result = context.run(|| {
            // The slice that has just begun.
            self.started_at = context::last_reading();
            catch_unwind(AssertUnwindSafe(|| self.work.run()))
        });
        self.end = match result {
            Ok(true) => End::Succeeded,
            Ok(false) => End::Failed,
            Err(payload) => {
                self.work.fail(Failure::from_panic(payload));
                End::Panicked
            }
        };
        let usage = context.usage();
        self.ended_at = context::last_reading();
        // A thread is no loop: what its slices have cost is the thread's processor time.
        self.cpu_time = usage.loop_time;
        let usage = Usage { loop_time: Duration::ZERO, ..usage };
        self.usage = (usage != Usage::default()).then(|| Box::new(usage));
    }

    /// Returns how long it waited for a thread.
    pub(super) fn wait_time(&self) -> Duration {
        self.started_at.since(self.queued_at)
    }

    /// Returns for how long it ran.
    pub(super) fn run_time(&self) -> Duration {
        self.ended_at.since(self.started_at)
    }

    /// Returns what it has cost.
    pub(super) fn usage(&self) -> Usage {
        let usage = self.usage.as_deref().copied().unwrap_or_default();
        Usage {
            thread_time: usage.thread_time.saturating_add(self.run_time()),
            thread_cpu_time: usage.thread_cpu_time.saturating_add(self.cpu_time),
            thread_wait: usage.thread_wait.saturating_add(self.wait_time()),
            ..usage
        }
    }

    pub(super) fn outcome(&mut self) -> &mut dyn Any {
        self.work.outcome()
    }
}
