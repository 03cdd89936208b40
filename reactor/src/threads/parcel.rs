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
    /// When it was queued, and how long it waited and ran.
    pub(super) queued_at: Instant,
    pub(super) waited: Duration,
    pub(super) ran: Duration,
    pub(super) end: End,
    pub(super) usage: Usage,
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
            waited: Duration::ZERO,
            ran: Duration::ZERO,
            end: End::None,
            usage: Usage::default(),
            work: Closure { f: Some(f), outcome: None },
        })
    }

    /// Does the job in a context of its own, which is made in the memory of the last one.
    pub(super) fn run(&mut self, context: &mut LogContext, pool: &Arc<str>) {
        *context = mem::take(context).renew_for_job(self.sender.take(), pool);
        let mut started = Instant::START;
        let result = context.run(|| {
            // The slice that has just begun.
            started = context::last_reading();
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
        self.waited = started.since(self.queued_at);
        self.ran = context::last_reading().since(started);
        // What a thread's clock has measured is no time of the loop.
        let thread_time = usage.loop_time.saturating_add(usage.thread_time);
        self.usage = Usage {
            loop_time: Duration::ZERO,
            thread_time,
            thread_wait: usage.thread_wait.saturating_add(self.waited),
            ..usage
        };
    }

    pub(super) fn outcome(&mut self) -> &mut dyn Any {
        self.work.outcome()
    }
}
