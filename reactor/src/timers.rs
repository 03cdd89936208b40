//! [`DelayedCall`], the handle on one timer.

use std::fmt;
use std::rc::Weak;
use std::time::Duration;

use crate::clock::Instant;
use crate::core::Core;
use crate::slots::Key;

/// A call that [`Reactor::call_later`](crate::Reactor::call_later) has scheduled.
///
/// Dropping it leaves the call scheduled. Once the call has been made or cancelled, or the reactor
/// has stopped, every method does nothing.
#[derive(Clone)]
pub struct DelayedCall {
    core: Weak<Core>,
    key: Key,
}

impl DelayedCall {
    pub(crate) fn new(core: Weak<Core>, key: Key) -> DelayedCall {
        DelayedCall { core, key }
    }

    /// Drops the call.
    pub fn cancel(&self) {
        let Some(core) = self.core.upgrade() else { return };
        let cancelled = core.timers.borrow_mut().remove(self.key);
        // What the call owns is dropped here, with no borrow held: it may be anything.
        drop(cancelled);
    }

    /// Schedules the call for `delay` from now, whatever it was scheduled for.
    ///
    /// Among calls of the same instant it takes its place as if it were new.
    pub fn reset(&self, delay: Duration) {
        let Some(core) = self.core.upgrade() else { return };
        let deadline = core.backend.now() + delay;
        core.timers.borrow_mut().reschedule(self.key, deadline);
    }

    /// Puts the call off by `more`.
    pub fn delay(&self, more: Duration) {
        let Some(core) = self.core.upgrade() else { return };
        let mut timers = core.timers.borrow_mut();
        if let Some(deadline) = timers.deadline(self.key) {
            timers.reschedule(self.key, deadline + more);
        }
    }

    /// Whether the call is still to come.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.deadline().is_some()
    }

    /// Returns when the call will be made; `None` if it is not to come any more.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.core.upgrade()?.timers.borrow().deadline(self.key)
    }
}

impl fmt::Debug for DelayedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedCall").field("deadline", &self.deadline()).finish()
    }
}
