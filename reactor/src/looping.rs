//! [`LoopingCall`]: something done again and again.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::clock::Instant;
use crate::context::LogContext;
use crate::core::{Core, Stage};
use crate::deferred::{Deferred, IntoDeferred};
use crate::failure::Failure;
use crate::reactor::Reactor;
use crate::ready::Job;
use crate::slots::Key;

/// A function that is called at regular intervals, until it is told to stop or the reactor stops.
///
/// Each call runs in a log context of its own, named `<name>-<number>`. A call that returns a
/// deferred counts as running until that has its result; the next call comes at the first multiple
/// of the interval after that, so that calls never overlap and late ones are skipped, not made up
/// for. A failure or panic is logged, and the calls go on.
///
/// Dropping the handle leaves it going.
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
/// call.stop();
/// clock.advance(Duration::from_secs(35));
/// assert_eq!(count.get(), 3);
/// ```
#[derive(Clone)]
pub struct LoopingCall {
    inner: Rc<Inner>,
}

struct Inner {
    core: Weak<Core>,
    name: String,
    interval: Duration,
    started: Instant,
    call_count: Cell<u64>,
    is_stopped: Cell<bool>,
    timer: Cell<Key>,
    /// Out of its place while it runs, and once it is stopped.
    f: RefCell<Option<Repeated>>,
}

type Repeated = Box<dyn FnMut() -> Deferred<()>>;

impl LoopingCall {
    /// Has `f` called each `interval`, for the first time after one.
    pub fn start<R: IntoDeferred<()>>(
        reactor: &Reactor,
        name: &str,
        interval: Duration,
        mut f: impl FnMut() -> R + 'static,
    ) -> LoopingCall {
        let inner = Rc::new(Inner {
            core: Rc::downgrade(reactor.core()),
            name: name.to_owned(),
            // Shorter ones would be due again before the clock has moved.
            interval: interval.max(Duration::from_nanos(1)),
            started: reactor.now(),
            call_count: Cell::new(0),
            is_stopped: Cell::new(false),
            timer: Cell::new(Key::NONE),
            f: RefCell::new(Some(Box::new(move || f().into_deferred()))),
        });
        inner.schedule();
        LoopingCall { inner }
    }

    /// Makes no more calls. One that is waiting for its deferred is left to that.
    pub fn stop(&self) {
        self.inner.is_stopped.set(true);
        if let Some(core) = self.inner.core.upgrade() {
            let timer = core.timers.borrow_mut().remove(self.inner.timer.get());
            drop(timer);
        }
        // What the function owns may be anything; it goes with no borrow held.
        let f = self.inner.f.take();
        drop(f);
    }

    /// Whether calls are still to come.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let inner = &self.inner;
        let reactor_runs =
            inner.core.upgrade().is_some_and(|core| core.stage.get() != Stage::Stopped);
        !inner.is_stopped.get() && reactor_runs
    }

    /// Returns how many calls have been made.
    #[must_use]
    pub fn call_count(&self) -> u64 {
        self.inner.call_count.get()
    }
}

impl Inner {
    fn schedule(self: &Rc<Inner>) {
        let Some(core) = self.core.upgrade() else { return };
        if self.is_stopped.get() || core.stage.get() == Stage::Stopped {
            return;
        }
        let interval = self.interval.as_nanos();
        let intervals_gone = (core.backend.now() - self.started).as_nanos() / interval;
        let nanos = u64::try_from((intervals_gone + 1) * interval).unwrap_or(u64::MAX);
        let deadline = self.started + Duration::from_nanos(nanos);
        let again = Rc::clone(self);
        let job = Job::in_context(LogContext::sentinel(), move || again.call());
        self.timer.set(core.timers.borrow_mut().insert(deadline, job));
    }

    fn call(self: &Rc<Inner>) {
        let Some(mut f) = self.f.take() else { return };
        let number = self.call_count.get() + 1;
        self.call_count.set(number);
        let context = LogContext::new(format!("{}-{number}", self.name));
        context.run(|| {
            let result = catch_unwind(AssertUnwindSafe(&mut f))
                .unwrap_or_else(|payload| Deferred::fail(Failure::from_panic(payload)));
            if !self.is_stopped.get() {
                self.f.replace(Some(f));
            }
            let this = Rc::clone(self);
            let finished = result.add_both(move |outcome| {
                if let Err(failure) = outcome {
                    log::error!("looping call {:?} failed: {failure:#}", this.name);
                }
                LogContext::current().finish();
                this.schedule();
                Ok(())
            });
            finished.detach();
        });
    }
}

impl fmt::Debug for LoopingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopingCall")
            .field("name", &self.inner.name)
            .field("interval", &self.inner.interval)
            .field("call_count", &self.call_count())
            .field("is_running", &self.is_running())
            .finish()
    }
}
