//! The timer queue, and [`DelayedCall`], the handle on one timer.

use std::time::Duration;

/// A call that [`Reactor::call_later`](crate::Reactor::call_later) has scheduled.
///
/// Dropping it leaves the call scheduled.
#[derive(Debug)]
pub struct DelayedCall {}

impl DelayedCall {
    /// Drops the call. Does nothing if it has been made or cancelled.
    pub fn cancel(&self) {}

    /// Schedules the call for `delay` from now, whatever it was scheduled for.
    pub fn reset(&self, delay: Duration) {
        let _ = delay;
    }

    /// Puts the call off by `more`.
    pub fn delay(&self, more: Duration) {
        let _ = more;
    }

    /// Whether the call is still to come.
    #[must_use]
    pub fn is_active(&self) -> bool {
        false
    }
}
