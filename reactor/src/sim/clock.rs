//! A host's clocks, which may run fast or slow and show another time of day than everybody else's.

use std::time::{Duration, SystemTime};

use crate::backend::manual::WALL_CLOCK_START;
use crate::clock::Instant;

/// What a host's clocks show, given the world's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostClock {
    /// The world's time at some moment, and what the host's clocks showed then.
    then: Instant,
    local_then: Instant,
    /// Nanoseconds since 1970.
    wall_then_nanos: i64,
    /// How much both clocks gain on the world's, in parts of a million.
    gain_ppm: i32,
}

impl HostClock {
    /// Makes clocks that start now. The wall clock shows the world's time of day and so many
    /// nanoseconds more.
    pub(super) fn new(now: Instant, gain_ppm: i32, wall_offset_nanos: i64) -> HostClock {
        let start = i64::try_from(WALL_CLOCK_START.as_nanos()).unwrap_or(0);
        let elapsed = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        HostClock {
            then: now,
            local_then: Instant::START,
            wall_then_nanos: start.saturating_add(elapsed).saturating_add(wall_offset_nanos),
            gain_ppm: gain_ppm.clamp(-GAIN_PPM_MAX, GAIN_PPM_MAX),
        }
    }

    /// Starts the monotonic clock again, as a new process sees it.
    pub(super) fn restart(&mut self, now: Instant) {
        self.go_on_from(now);
        self.local_then = Instant::START;
    }

    /// Changes how fast the clocks run, without a jump.
    pub(super) fn set_gain(&mut self, now: Instant, gain_ppm: i32) {
        self.go_on_from(now);
        self.gain_ppm = gain_ppm.clamp(-GAIN_PPM_MAX, GAIN_PPM_MAX);
    }

    pub(super) fn step_wall_clock(&mut self, nanos: i64) {
        self.wall_then_nanos = self.wall_then_nanos.saturating_add(nanos);
    }

    /// Returns what the monotonic clock shows.
    pub(super) fn local(&self, now: Instant) -> Instant {
        self.local_then + Duration::from_nanos(self.elapsed_nanos(now))
    }

    /// Returns the first moment at which the monotonic clock shows `local` or more.
    pub(super) fn world(&self, local: Instant) -> Instant {
        let shown = local.since(self.local_then).as_nanos();
        let passed = shown.saturating_mul(MILLION).div_ceil(self.speed());
        self.then + Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// Returns what the wall clock shows.
    pub(super) fn wall(&self, now: Instant) -> SystemTime {
        let nanos = self.wall_nanos(now);
        SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    fn go_on_from(&mut self, now: Instant) {
        self.wall_then_nanos = self.wall_nanos(now);
        self.local_then = self.local(now);
        self.then = now;
    }

    fn wall_nanos(&self, now: Instant) -> i64 {
        let elapsed = i64::try_from(self.elapsed_nanos(now)).unwrap_or(i64::MAX);
        self.wall_then_nanos.saturating_add(elapsed)
    }

    /// Returns how much the clocks have moved on.
    fn elapsed_nanos(&self, now: Instant) -> u64 {
        let passed = now.since(self.then).as_nanos();
        u64::try_from(passed * self.speed() / MILLION).unwrap_or(u64::MAX)
    }

    fn speed(&self) -> u128 {
        u128::from((1_000_000 + self.gain_ppm).unsigned_abs())
    }
}

const MILLION: u128 = 1_000_000;

/// Half as fast again, or half as fast, is more than any clock that still works.
const GAIN_PPM_MAX: i32 = 500_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_at_its_moment_and_not_before() {
        for gain_ppm in [-500_000, -999, -1, 0, 1, 50, 123_457, 500_000] {
            let clock = HostClock::new(Instant::from_nanos(77), gain_ppm, 0);
            for local in [1, 2, 3, 999, 1_000_000_007, 31_536_000_000_000_001] {
                let local = Instant::from_nanos(local);
                let moment = clock.world(local);
                assert!(clock.local(moment) >= local, "{gain_ppm} {local:?} {moment:?}");
                let before = moment - Duration::from_nanos(1);
                assert!(clock.local(before) < local, "{gain_ppm} {local:?} {moment:?}");
            }
        }
    }

    #[test]
    fn a_change_of_speed_is_no_jump() {
        let mut clock = HostClock::new(Instant::START, 1_000, 5_000_000_000);
        let now = Instant::START + Duration::from_secs(1_000_000);
        let (local, wall) = (clock.local(now), clock.wall(now));
        assert_eq!(local.since(now), Duration::from_secs(1_000));
        clock.set_gain(now, -500_000);
        assert_eq!((clock.local(now), clock.wall(now)), (local, wall));
        let later = now + Duration::from_secs(1_000_000);
        assert_eq!(clock.local(later).since(local), Duration::from_secs(500_000));
        assert_eq!(clock.wall(later).duration_since(wall).unwrap(), Duration::from_secs(500_000));
        clock.restart(later);
        assert_eq!(clock.local(later), Instant::START);
        clock.step_wall_clock(-1_000_000_000);
        assert_eq!(clock.wall(later).duration_since(wall).unwrap(), Duration::from_secs(499_999));
    }
}
