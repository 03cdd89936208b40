//! [`LoopingCall`]: something done again and again.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::clock::Instant;
use crate::context::LogContext;
use crate::core::{Core, Stage};
use crate::deferred::{Deferred, IntoDeferred, ObservableDeferred, Outcome, Resolver};
use crate::failure::{CancelledError, Failure};
use crate::reactor::Reactor;
use crate::ready::Job;
use crate::slots::Key;

/// A function that is called at regular intervals, until it fails, it is told to stop, or the reactor
/// stops.
///
/// Calls are due at whole multiples of the interval after the start, by the reactor's monotonic clock:
/// they do not drift, and a time of day that is set does not move them. They never overlap. A call that
/// returns a deferred is under way until that has its result; calls that have become due meanwhile, or
/// while the loop was busy or the machine asleep, are skipped, not made up for, and
/// [`start_with_count`](Self::start_with_count) tells how many that were. With an interval of zero, a call
/// is made in each turn of the loop.
///
/// Each call runs in a log context of its own, named `<name>-<number>`. A call that fails or panics is the
/// last one, and its failure is what [`ended`](Self::ended) gives; if nobody waits for that, it is logged
/// as an error. A job that should outlive its failures handles them itself, or is a
/// [`TimerService`](crate::TimerService).
///
/// Dropping the handle leaves it going. A handle is a cheap clone.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use std::time::Duration;
/// use ropewalk::LoopingCall;
/// use ropewalk::testing::Clock;
///
/// let clock = Clock::new();
/// let count = Rc::new(Cell::new(0));
/// let counted = Rc::clone(&count);
/// let call = LoopingCall::start(clock.reactor(), "tick", Duration::from_secs(10), move || {
///     counted.set(counted.get() + 1);
///     Ok(())
/// });
/// clock.advance(Duration::from_secs(35));
/// let stopped = call.stop();
/// assert!(stopped.is_fired());
/// clock.advance(Duration::from_secs(35));
/// assert_eq!(count.get(), 3);
/// ```
#[derive(Clone)]
pub struct LoopingCall {
    inner: Rc<Inner>,
}

/// When the first call of a [`LoopingCall`] is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FirstCall {
    /// One interval after the start.
    AfterInterval,
    /// After the current callback has returned.
    Now,
}

struct Inner {
    core: Weak<Core>,
    name: Box<str>,
    interval: Duration,
    /// The instant that calls are whole intervals away from.
    origin: Cell<Instant>,
    /// How many calls should have been made since the origin when the last one was.
    due_count: Cell<u64>,
    call_count: Cell<u64>,
    state: Cell<State>,
    timer: Cell<Key>,
    /// The number of the schedule that counts: an older one has been stopped or replaced.
    schedule: Cell<u64>,
    /// Out of its place while it runs, and at the end.
    f: Cell<Option<Repeated>>,
    resolver: Cell<Option<Resolver<()>>>,
    end: ObservableDeferred<()>,
}

type Repeated = Box<dyn FnMut(u64) -> Deferred<()>>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// A call is under way.
    Calling,
    Ended,
    /// A call is under way, and it is to be the last one.
    Stopping,
    /// The next call is scheduled.
    Waiting,
}

impl LoopingCall {
    /// Has `f` called each `interval`, for the first time after one.
    pub fn start<R: IntoDeferred<()>>(
        reactor: &Reactor,
        name: &str,
        interval: Duration,
        mut f: impl FnMut() -> R + 'static,
    ) -> LoopingCall {
        Self::start_with_count(reactor, name, FirstCall::AfterInterval, interval, move |_| f())
    }

    /// Has `f` called after the current callback has returned, and each `interval` from then on.
    pub fn start_now<R: IntoDeferred<()>>(
        reactor: &Reactor,
        name: &str,
        interval: Duration,
        mut f: impl FnMut() -> R + 'static,
    ) -> LoopingCall {
        Self::start_with_count(reactor, name, FirstCall::Now, interval, move |_| f())
    }

    /// Has `f` called each `interval`, with the number of calls that were due since the last one: one if
    /// all is well, and one more for each that was skipped.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::testing::Clock;
    /// use ropewalk::{Deferred, FirstCall, LoopingCall};
    ///
    /// let clock = Clock::new();
    /// let minute = Duration::from_secs(60);
    /// let reactor = clock.reactor().clone();
    /// LoopingCall::start_with_count(clock.reactor(), "bill", FirstCall::Now, minute, move |minutes| {
    ///     println!("{minutes} more minutes");
    ///     // Writing that down takes a while.
    ///     reactor.defer_later(Duration::from_secs(90), || Ok(()))
    /// });
    /// clock.advance(Duration::from_secs(600));
    /// ```
    pub fn start_with_count<R: IntoDeferred<()>>(
        reactor: &Reactor,
        name: &str,
        first: FirstCall,
        interval: Duration,
        mut f: impl FnMut(u64) -> R + 'static,
    ) -> LoopingCall {
        let (end, resolver) = Deferred::new();
        let inner = Rc::new(Inner {
            core: Rc::downgrade(reactor.core()),
            name: name.into(),
            interval,
            origin: Cell::new(reactor.now()),
            due_count: Cell::new(0),
            call_count: Cell::new(0),
            state: Cell::new(State::Waiting),
            timer: Cell::new(Key::NONE),
            schedule: Cell::new(0),
            f: Cell::new(Some(Box::new(move |count| f(count).into_deferred()))),
            resolver: Cell::new(Some(resolver)),
            end: ObservableDeferred::new(end),
        });
        match first {
            FirstCall::AfterInterval => inner.restart(),
            FirstCall::Now => inner.call_soon(),
        }
        LoopingCall { inner }
    }

    /// Makes no more calls, and gives what [`ended`](Self::ended) gives: at once if no call is under way,
    /// otherwise when that one has its result.
    ///
    /// The call that is under way is not cancelled. Doing this twice does no harm.
    #[track_caller]
    pub fn stop(&self) -> Deferred<()> {
        let inner = &self.inner;
        match inner.state.get() {
            State::Waiting => inner.end(Ok(())),
            State::Calling => inner.state.set(State::Stopping),
            State::Stopping | State::Ended => {}
        }
        self.ended()
    }

    /// Waits for the end: after [`stop`](Self::stop), or the failure of a call.
    ///
    /// Cancelling or dropping ends the waiting only.
    ///
    /// # Errors
    ///
    /// What the last call failed with; [`CancelledError`] if the reactor has stopped.
    #[track_caller]
    pub fn ended(&self) -> Deferred<()> {
        self.inner.end.observe()
    }

    /// Skips the next call: it comes one interval from now, and the others follow from there.
    ///
    /// While a call is under way, the next one comes at the first multiple of the interval from now that
    /// is left when that has ended. Does nothing after the end.
    pub fn reset(&self) {
        match self.inner.state.get() {
            State::Waiting => self.inner.restart(),
            State::Calling => self.inner.set_origin(),
            State::Stopping | State::Ended => {}
        }
    }

    /// Whether calls are still to come.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let reactor_runs =
            self.inner.core.upgrade().is_some_and(|core| core.stage.get() != Stage::Stopped);
        matches!(self.inner.state.get(), State::Waiting | State::Calling) && reactor_runs
    }

    /// Returns how many calls have been made.
    #[must_use]
    pub fn call_count(&self) -> u64 {
        self.inner.call_count.get()
    }

    /// Returns the interval.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.inner.interval
    }
}

// Scheduling.

impl Inner {
    /// Makes now the origin, and schedules the call that is due one interval later.
    fn restart(self: &Rc<Inner>) {
        self.set_origin();
        self.schedule();
    }

    fn set_origin(&self) {
        if let Some(core) = self.core.upgrade() {
            self.origin.set(core.backend.now());
            // The call at the origin itself is one that nobody has missed.
            self.due_count.set(1);
        }
    }

    fn call_soon(self: &Rc<Inner>) {
        let Some(core) = self.core_if_open() else { return self.cancel() };
        core.ready.push(self.job());
    }

    /// Schedules the call for the first multiple of the interval that lies ahead.
    fn schedule(self: &Rc<Inner>) {
        self.state.set(State::Waiting);
        let Some(core) = self.core_if_open() else { return self.cancel() };
        let now = core.backend.now();
        let deadline = match self.interval.as_nanos() {
            0 => now,
            interval => {
                let intervals_gone = (now - self.origin.get()).as_nanos() / interval;
                let nanos = u64::try_from((intervals_gone + 1) * interval).unwrap_or(u64::MAX);
                self.origin.get() + Duration::from_nanos(nanos)
            }
        };
        let job = self.job();
        let before = self.timer.replace(core.timers.borrow_mut().insert(deadline, job));
        let replaced = core.timers.borrow_mut().remove(before);
        drop(replaced);
    }

    /// Makes the job that makes the next call; those that were made before count no more.
    fn job(self: &Rc<Inner>) -> Job {
        let number = self.schedule.get() + 1;
        self.schedule.set(number);
        let scheduled = Scheduled { inner: Some(Rc::clone(self)), number };
        Job::in_context(LogContext::sentinel(), move || scheduled.run())
    }

    fn core_if_open(&self) -> Option<Rc<Core>> {
        self.core.upgrade().filter(|core| core.stage.get() != Stage::Stopped)
    }

    fn cancel(&self) {
        self.end(Err(Failure::plain(CancelledError)));
    }
}

/// A call to come. If it is dropped instead of made, the reactor has stopped.
struct Scheduled {
    inner: Option<Rc<Inner>>,
    number: u64,
}

impl Scheduled {
    fn run(mut self) {
        if let Some(inner) = self.take() {
            inner.call();
        }
    }

    fn take(&mut self) -> Option<Rc<Inner>> {
        self.inner.take().filter(|inner| {
            inner.schedule.get() == self.number && inner.state.get() == State::Waiting
        })
    }
}

impl Drop for Scheduled {
    fn drop(&mut self) {
        if let Some(inner) = self.take() {
            inner.cancel();
        }
    }
}

// Calling.

impl Inner {
    fn call(self: &Rc<Inner>) {
        let Some(mut f) = self.f.take() else { return };
        self.state.set(State::Calling);
        self.timer.set(Key::NONE);
        let count = self.count_due();
        let number = self.call_count.get() + 1;
        self.call_count.set(number);
        let context = LogContext::new(format!("{}-{number}", self.name));
        context.run(|| {
            let result = catch_unwind(AssertUnwindSafe(|| f(count)))
                .unwrap_or_else(|payload| Deferred::fail(Failure::from_panic(payload)));
            self.f.set(Some(f));
            let this = Rc::clone(self);
            let finished = result.add_both(move |outcome| {
                LogContext::current().finish();
                match outcome {
                    Ok(()) if this.state.get() == State::Calling => this.schedule(),
                    outcome => this.end(outcome),
                }
                Ok(())
            });
            finished.detach();
        });
    }

    /// Returns how many calls have become due since the last one was made.
    fn count_due(&self) -> u64 {
        let Some(core) = self.core.upgrade() else { return 1 };
        let intervals_gone = match self.interval.as_nanos() {
            0 => return 1,
            interval => (core.backend.now() - self.origin.get()).as_nanos() / interval,
        };
        let due = u64::try_from(intervals_gone).unwrap_or(u64::MAX).saturating_add(1);
        let before = self.due_count.replace(due);
        due.saturating_sub(before).max(1)
    }

    fn end(&self, outcome: Outcome<()>) {
        self.state.set(State::Ended);
        if let Some(core) = self.core.upgrade() {
            let timer = core.timers.borrow_mut().remove(self.timer.get());
            drop(timer);
        }
        // What the function owns may be anything; it goes with no borrow held.
        drop(self.f.take());
        let Some(resolver) = self.resolver.take() else { return };
        if let Err(failure) = &outcome
            && self.end.observer_count() == 0
        {
            if !failure.is::<CancelledError>() {
                log::error!(
                    "looping call {:?} failed, and makes no more calls: {failure:#}",
                    self.name
                );
            }
            // Whoever asks later still gets it, and it is not reported a second time.
            self.end.observe().add_errback(|_| Ok(())).detach();
        }
        resolver.fire(outcome);
    }
}

impl Drop for Inner {
    /// The deferred of the call that was under way is gone, as those of tasks are when the reactor stops.
    fn drop(&mut self) {
        if let Some(resolver) = self.resolver.take() {
            resolver.errback(Failure::plain(CancelledError));
        }
    }
}

impl fmt::Debug for LoopingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopingCall")
            .field("name", &self.inner.name)
            .field("interval", &self.inner.interval)
            .field("call_count", &self.call_count())
            .field("state", &self.inner.state.get())
            .finish()
    }
}
