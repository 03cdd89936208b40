//! How much of a turn one of its phases may take.

use std::time::Duration;

use crate::backend::Backend;
use crate::clock::Instant;

/// Calls that a phase may still make before the other phases get their turn again: up to a number, and
/// up to a time in case they take long.
pub(crate) struct Allowance<'a> {
    backend: &'a dyn Backend,
    calls: u32,
    ends: Instant,
}

impl Allowance<'_> {
    pub(crate) fn new(backend: &dyn Backend, calls: u32) -> Allowance<'_> {
        Allowance { backend, calls, ends: backend.coarse_now() + PHASE_TIME_MAX }
    }

    /// Takes one call out of it. Returns whether that was there.
    #[inline]
    pub(crate) fn take(&mut self) -> bool {
        if self.calls == 0 {
            return false;
        }
        self.calls -= 1;
        if self.calls.is_multiple_of(CALLS_PER_LOOK) && self.is_over() {
            self.calls = 0;
        }
        true
    }

    /// Whether its time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.backend.coarse_now() >= self.ends
    }
}

/// After this a phase leaves the rest to the next turn: little enough that a turn in which all phases
/// are busy is not noticed, and enough for a thousand ordinary callbacks.
const PHASE_TIME_MAX: Duration = Duration::from_millis(10);

/// Reading the clock costs about as much as a short callback; after this many it does not count.
pub(crate) const CALLS_PER_LOOK: u32 = 16;
