//! [`TimerService`]: something done again and again, as long as the program runs.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::Service;
use crate::deferred::{Deferred, IntoDeferred};
use crate::failure::Failure;
use crate::looping::{FirstCall, LoopingCall};
use crate::reactor::Reactor;

/// Calls a function at regular intervals from its start to its stop, for the first time at once.
///
/// When calls are made, and in which contexts, [`LoopingCall`] says. Other than there, a call that fails
/// is logged as an error and followed by others: a job that failed once need not fail the next time, and
/// should not silently stay away until the program is restarted.
///
/// Stopping waits for the call that is under way; it is not cancelled.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::{MultiService, TimerService};
///
/// let server = MultiService::new("server", Duration::from_secs(8));
/// server.add(TimerService::new("prune sessions", Duration::from_secs(3600), || {
///     // ...
///     Ok(())
/// }));
/// ```
pub struct TimerService {
    name: Box<str>,
    interval: Duration,
    first: FirstCall,
    f: Rc<Cell<Option<Repeated>>>,
    call: RefCell<Option<LoopingCall>>,
}

type Repeated = Box<dyn FnMut() -> Deferred<()>>;

impl TimerService {
    /// Makes a service that calls `f` each `interval`.
    pub fn new<R: IntoDeferred<()>>(
        name: impl Into<Box<str>>,
        interval: Duration,
        mut f: impl FnMut() -> R + 'static,
    ) -> TimerService {
        TimerService {
            name: name.into(),
            interval,
            first: FirstCall::Now,
            f: Rc::new(Cell::new(Some(Box::new(move || f().into_deferred())))),
            call: RefCell::default(),
        }
    }

    /// Has the first call made after one interval, so that starting costs less.
    #[must_use]
    pub fn after_interval(mut self) -> TimerService {
        self.first = FirstCall::AfterInterval;
        self
    }
}

impl Service for TimerService {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, reactor: &Reactor) -> Deferred<()> {
        let (slot, name) = (Rc::clone(&self.f), self.name.clone());
        let call_once = move |_| {
            let Some(mut f) = slot.take() else { return Deferred::succeed(()) };
            let called = catch_unwind(AssertUnwindSafe(&mut f));
            slot.set(Some(f));
            let name = name.clone();
            called
                .unwrap_or_else(|payload| Deferred::fail(Failure::from_panic(payload)))
                .add_errback(move |failure| {
                    log::error!("timer service {name:?} failed: {failure:#}");
                    Ok(())
                })
        };
        let call = LoopingCall::start_with_count(
            reactor,
            &self.name,
            self.first,
            self.interval,
            call_once,
        );
        self.call.replace(Some(call));
        Deferred::succeed(())
    }

    fn stop(&self) -> Deferred<()> {
        let call = self.call.take();
        call.map_or_else(|| Deferred::succeed(()), |call| call.stop())
    }
}

impl fmt::Debug for TimerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerService")
            .field("name", &self.name)
            .field("interval", &self.interval)
            .field("call", &self.call.borrow())
            .finish()
    }
}
