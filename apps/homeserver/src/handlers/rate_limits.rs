//! How often somebody may do something: a token bucket for each action and each somebody.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ropewalk::Instant;

use super::Refusal;
use crate::config::rate_limits::{RateLimit, RateLimits};

/// What is limited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Inviting somebody; by user.
    Invite,
    /// Joining a room; by user.
    Join,
    /// An attempt to log in; by address and by account.
    Login,
    /// Uploading or downloading; by user.
    Media,
    /// Sending an event; by user.
    Message,
    /// An attempt to make an account; by address.
    Registration,
}

/// The buckets of all actions.
#[derive(Debug)]
pub struct RateLimiter {
    /// `None`: nothing is limited.
    buckets: Option<[Buckets; 6]>,
}

impl RateLimiter {
    /// Makes full buckets.
    pub fn new(limits: &RateLimits) -> Self {
        let buckets = [
            &limits.invite,
            &limits.join,
            &limits.login,
            &limits.media,
            &limits.message,
            &limits.registration,
        ];
        Self { buckets: limits.enabled.then(|| buckets.map(Buckets::new)) }
    }

    /// Lets `who` do `action` once.
    ///
    /// # Errors
    ///
    /// `M_LIMIT_EXCEEDED` with the time to wait, if it was done too often lately; the attempt is
    /// not counted then.
    pub fn admit(&self, action: Action, who: &str, now: Instant) -> Result<(), Refusal> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        let bucket = match action {
            Action::Invite => &buckets[0],
            Action::Join => &buckets[1],
            Action::Login => &buckets[2],
            Action::Media => &buckets[3],
            Action::Message => &buckets[4],
            Action::Registration => &buckets[5],
        };
        bucket.take(who, now).map_err(Refusal::limit_exceeded)
    }
}

/// Returns the name under which an address is counted. Whoever has an IPv6 address has 2^64 of
/// them, so these count by their network.
pub fn address_key(address: IpAddr) -> String {
    match address {
        IpAddr::V4(_) => address.to_string(),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        },
    }
}

/// How many somebodies one action remembers at most, in two halves. Each costs about a hundred
/// bytes. Whoever makes us forget has to come from ten thousand addresses, and is limited on each.
const REMEMBERED_MAX: usize = 20_000;

/// The buckets of one action.
///
/// A bucket is one instant: when it would be full again (the generic cell rate algorithm). A full
/// one need not be remembered. Old ones are forgotten half a table at a time: when the younger half
/// is full it becomes the older one, and the older one is dropped; who comes again moves to the
/// younger.
#[derive(Debug)]
struct Buckets {
    /// How long it takes to regain one permission.
    interval: Duration,
    /// How far ahead of now the instant of fullness may lie: the interval for each of the burst.
    capacity: Duration,
    halves: RefCell<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    younger: HashMap<String, Instant>,
    older: HashMap<String, Instant>,
}

impl Buckets {
    fn new(limit: &RateLimit) -> Self {
        // The configuration keeps per_second above zero and finite.
        let interval = Duration::try_from_secs_f64(1.0 / limit.per_second.0)
            .unwrap_or(Duration::MAX)
            .clamp(Duration::from_nanos(1), Duration::from_secs(365 * 86_400));
        Self {
            interval,
            capacity: interval.saturating_mul(limit.burst.get()),
            halves: RefCell::default(),
        }
    }

    /// Takes one permission, or says how long to wait for it.
    fn take(&self, who: &str, now: Instant) -> Result<(), Duration> {
        let mut halves = self.halves.borrow_mut();
        let known = halves.younger.get(who).or_else(|| halves.older.get(who)).copied();
        let full_at = known.filter(|full_at| *full_at > now).unwrap_or(now);
        let full_at_then = full_at + self.interval;
        let ahead = full_at_then.since(now);
        if ahead > self.capacity {
            return Err(ahead - self.capacity);
        }
        if let Some(known) = halves.younger.get_mut(who) {
            *known = full_at_then;
            return Ok(());
        }
        if halves.younger.len() >= REMEMBERED_MAX / 2 {
            halves.older = std::mem::take(&mut halves.younger);
        }
        halves.younger.insert(who.to_owned(), full_at_then);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::PerSecond;

    const START: Instant = Instant::from_nanos(1_000_000_000);

    fn buckets(per_second: f64, burst: u32) -> Buckets {
        let burst = NonZeroU32::new(burst).expect("not zero");
        Buckets::new(&RateLimit { per_second: PerSecond(per_second), burst })
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let buckets = buckets(2.0, 3);
        for _ in 0..3 {
            assert_eq!(buckets.take("a", START), Ok(()));
        }
        assert_eq!(buckets.take("a", START), Err(Duration::from_millis(500)));
        assert_eq!(buckets.take("b", START), Ok(()), "others are not concerned");
        let later = START + Duration::from_millis(499);
        assert_eq!(buckets.take("a", later), Err(Duration::from_millis(1)));
        let later = START + Duration::from_millis(500);
        assert_eq!(buckets.take("a", later), Ok(()));
        assert_eq!(buckets.take("a", later), Err(Duration::from_millis(500)));
    }

    #[test]
    fn refused_attempts_do_not_lengthen_the_wait() {
        let buckets = buckets(1.0, 1);
        assert_eq!(buckets.take("a", START), Ok(()));
        for _ in 0..100 {
            assert_eq!(buckets.take("a", START), Err(Duration::from_secs(1)));
        }
        assert_eq!(buckets.take("a", START + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_long_silence_fills_the_bucket_and_no_more() {
        let buckets = buckets(10.0, 2);
        for _ in 0..2 {
            assert_eq!(buckets.take("a", START), Ok(()));
        }
        let later = START + Duration::from_secs(3600);
        for _ in 0..2 {
            assert_eq!(buckets.take("a", later), Ok(()));
        }
        assert!(buckets.take("a", later).is_err());
    }

    #[test]
    fn the_table_stays_bounded_and_keeps_those_who_come_again() {
        let buckets = buckets(0.001, 2);
        assert_eq!(buckets.take("regular", START), Ok(()));
        for stranger in 0..REMEMBERED_MAX * 3 {
            assert_eq!(buckets.take(&stranger.to_string(), START), Ok(()));
            if stranger == REMEMBERED_MAX / 2 {
                assert_eq!(buckets.take("regular", START), Ok(()));
                assert!(buckets.take("regular", START).is_err());
            }
            let halves = buckets.halves.borrow();
            assert!(halves.younger.len() + halves.older.len() <= REMEMBERED_MAX);
        }
    }

    #[test]
    fn actions_are_counted_apart_and_can_be_unlimited() {
        let login = RateLimit { per_second: PerSecond(1.0), burst: NonZeroU32::MIN };
        let limits = RateLimits { login, ..RateLimits::default() };
        let limiter = RateLimiter::new(&limits);
        assert!(limiter.admit(Action::Login, "a", START).is_ok());
        assert!(limiter.admit(Action::Login, "a", START).is_err());
        assert!(limiter.admit(Action::Registration, "a", START).is_ok());
        let unlimited = RateLimiter::new(&RateLimits { enabled: false, ..limits });
        for _ in 0..1000 {
            assert!(unlimited.admit(Action::Login, "a", START).is_ok());
        }
    }

    #[test]
    fn ipv6_addresses_count_by_network() {
        for (address, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(address_key(address.parse().expect("an address")), expected);
        }
    }
}
