//! Instants of the reactor's clock, and the only code that asks the operating system for the time.
//!
//! Everything else reads time from the [`Reactor`](crate::Reactor), whose backend decides whether
//! it is the machine's time or a simulated one.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A point on a reactor's monotonic clock.
///
/// Instants of one reactor can be compared and subtracted; they mean nothing to another reactor,
/// another process or a person. A simulated reactor starts at [`Instant::START`].
///
/// Arithmetic saturates: the last instant is some 584 years after the first.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Instant {
    nanos: u64,
}

impl Instant {
    /// The instant at which a clock starts.
    pub const START: Instant = Instant { nanos: 0 };

    /// Returns the instant that is this long after [`Instant::START`].
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant { nanos }
    }

    /// Returns the nanoseconds since [`Instant::START`].
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.nanos
    }

    /// Returns the time that passed from `earlier` to this instant, zero if it lies behind it.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant { nanos: self.nanos.saturating_add(nanos) }
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Instant { nanos: self.nanos.saturating_sub(nanos) }
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

/// Same as [`Instant::since`].
impl Sub<Instant> for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Display for Instant {
    /// Writes seconds since the clock's start, to the microsecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.nanos / 1_000_000_000, self.nanos / 1_000 % 1_000_000)
    }
}

/// The machine's monotonic clock, counted from the moment this value was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SystemClock {
    epoch_nanos: u64,
}

impl SystemClock {
    pub(crate) fn new() -> SystemClock {
        SystemClock { epoch_nanos: read(ClockId::Monotonic) }
    }

    #[inline]
    pub(crate) fn now(&self) -> Instant {
        // This clock never goes back, so the difference needs no check.
        Instant { nanos: read(ClockId::Monotonic).wrapping_sub(self.epoch_nanos) }
    }

    /// Reads the time of the system's last tick, which costs a third of reading the clock.
    #[inline]
    pub(crate) fn coarse_now(&self) -> Instant {
        Instant { nanos: read(COARSE).saturating_sub(self.epoch_nanos) }
    }

    #[expect(clippy::disallowed_methods, reason = "this is where the reactor's time comes from")]
    pub(crate) fn wall_clock() -> std::time::SystemTime {
        std::time::SystemTime::now()
    }
}

/// Returns how long the calling thread has had a processor, in nanoseconds. A system call: a dozen times
/// as expensive as reading the other clocks.
pub(crate) fn thread_cpu_nanos() -> u64 {
    read(ClockId::ThreadCPUTime)
}

/// Returns nanoseconds since some moment before the process began, for example the machine's start.
#[inline]
fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Neither is ever negative on a monotonic clock.
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(target_os = "linux")]
const COARSE: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const COARSE: ClockId = ClockId::Monotonic;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let last = Instant::from_nanos(u64::MAX);
        assert_eq!(last + Duration::MAX, last);
        assert_eq!(Instant::START - Duration::from_secs(1), Instant::START);
        assert_eq!(Instant::START - last, Duration::ZERO);
    }

    #[test]
    fn an_instant_is_shown_in_seconds() {
        let instant = Instant::START + Duration::from_millis(12_345);
        assert_eq!(instant.to_string(), "12.345000s");
    }
}
