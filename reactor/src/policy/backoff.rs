//! [`Backoff`]: how long to wait between attempts.

use std::time::Duration;

use crate::reactor::Reactor;

/// How long to wait before trying again: longer with each failure, up to a limit, and never quite as
/// long as everybody else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub initial_delay: Duration,
    /// The longest wait.
    pub delay_max: Duration,
    /// By how much a wait is longer than the one before it; 1 at least.
    pub factor: f64,
    /// Which part of a wait is left to chance, from 0 to 1: with 0.5, each takes from half its length to
    /// all of it. Many clients that have lost their server together come back one by one.
    pub jitter: f64,
}

impl Default for Backoff {
    /// A second at first, half as long again each time, a minute at most; half of it is chance.
    fn default() -> Backoff {
        Backoff {
            initial_delay: Duration::from_secs(1),
            delay_max: Duration::from_secs(60),
            factor: 1.5,
            jitter: 0.5,
        }
    }
}

impl Backoff {
    /// Returns the wait after so many failures in a row, one at least, with the reactor's chance.
    #[must_use]
    pub fn delay(&self, reactor: &Reactor, failures: u32) -> Duration {
        let mut bytes = [0; 4];
        reactor.random_bytes(&mut bytes);
        let chance = f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0);
        let longest = self.longest_delay(failures).as_secs_f64();
        let jitter = if self.jitter.is_nan() { 0.0 } else { self.jitter.clamp(0.0, 1.0) };
        // No more than the longest, which came from a duration.
        Duration::from_secs_f64(longest * (1.0 - jitter * chance))
    }

    /// Returns the wait after so many failures in a row as it would be without chance.
    fn longest_delay(&self, failures: u32) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        // `max` passes over what is no number.
        let seconds = self.initial_delay.as_secs_f64() * 1f64.max(self.factor).powi(exponent);
        let delay = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        delay.min(self.delay_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Clock;

    #[test]
    fn waits_grow_to_their_limit_and_leave_a_part_to_chance() {
        let clock = Clock::with_seed(7);
        let backoff = Backoff::default();
        for (failures, expected_ms) in [(0, 1000), (1, 1000), (2, 1500), (3, 2250), (11, 57_665)] {
            assert_eq!(backoff.longest_delay(failures).as_millis(), expected_ms);
        }
        for failures in [12, 1000, u32::MAX] {
            assert_eq!(backoff.longest_delay(failures), Duration::from_secs(60));
        }
        let delays: Vec<_> = (0..1000).map(|_| backoff.delay(clock.reactor(), 1)).collect();
        let half = Duration::from_millis(500);
        assert!(delays.iter().all(|delay| *delay > half && *delay <= half * 2));
        let early = delays.iter().filter(|delay| **delay < half * 3 / 2).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
    }

    #[test]
    fn numbers_that_make_no_sense_do_no_harm() {
        let clock = Clock::new();
        let day = Duration::from_secs(24 * 60 * 60);
        for (factor, jitter) in [(f64::NAN, f64::NAN), (-5.0, 9.0), (f64::INFINITY, -1.0)] {
            let backoff = Backoff { factor, jitter, ..Backoff::default() };
            for failures in [0, 1, 2, u32::MAX] {
                assert!(backoff.delay(clock.reactor(), failures) <= Duration::from_secs(60));
            }
        }
        let long = Backoff { initial_delay: Duration::MAX, delay_max: day, ..Backoff::default() };
        assert!(long.delay(clock.reactor(), 3) <= day);
    }
}
