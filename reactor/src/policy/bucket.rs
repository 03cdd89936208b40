//! A token bucket: how many bytes may pass by now.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Instant;

/// Fills at a steady pace up to its brim. It may be overdrawn; then it has to fill before anything
/// more is taken.
#[derive(Debug)]
pub(super) struct Bucket {
    bytes_per_second: u64,
    burst_bytes: i64,
    /// Negative while it is overdrawn.
    bytes: Cell<i64>,
    filled: Cell<Instant>,
}

impl Bucket {
    /// Makes a bucket that is full. A pace of nothing would stop everything for ever; it is one byte a
    /// second at least.
    pub(super) fn new(bytes_per_second: u64, burst_bytes: u64, now: Instant) -> Bucket {
        let burst_bytes = i64::try_from(burst_bytes.max(1)).unwrap_or(i64::MAX / 2);
        Bucket {
            bytes_per_second: bytes_per_second.max(1),
            burst_bytes,
            bytes: Cell::new(burst_bytes),
            filled: Cell::new(now),
        }
    }

    /// Returns what is in it.
    pub(super) fn bytes(&self, now: Instant) -> i64 {
        let gone = now.since(self.filled.get());
        let earned = gone.as_nanos() * u128::from(self.bytes_per_second) / NANOS_PER_SECOND;
        if earned == 0 {
            return self.bytes.get();
        }
        let earned_bytes = i64::try_from(earned).unwrap_or(i64::MAX / 2);
        let bytes = self.bytes.get().saturating_add(earned_bytes);
        if bytes >= self.burst_bytes {
            self.bytes.set(self.burst_bytes);
            self.filled.set(now);
        } else {
            // What is left of a byte counts on.
            let spent = earned * NANOS_PER_SECOND / u128::from(self.bytes_per_second);
            let spent = Duration::from_nanos(u64::try_from(spent).unwrap_or(u64::MAX));
            self.bytes.set(bytes);
            self.filled.set(self.filled.get() + spent);
        }
        self.bytes.get()
    }

    /// Takes out so many bytes, whether they are there or not.
    pub(super) fn take(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }

    /// Returns how long it takes until so many bytes are in it, or it is full.
    pub(super) fn time_until(&self, bytes: i64, now: Instant) -> Duration {
        let wanted = bytes.min(self.burst_bytes);
        let missing = wanted.saturating_sub(self.bytes(now)).max(0).unsigned_abs();
        let nanos =
            (u128::from(missing) * NANOS_PER_SECOND).div_ceil(u128::from(self.bytes_per_second));
        let ready =
            self.filled.get() + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        if missing == 0 { Duration::ZERO } else { ready.since(now).max(Duration::from_nanos(1)) }
    }

    /// Returns how many bytes may be sent now.
    ///
    /// # Errors
    ///
    /// How long to wait, if it is less than a piece: whoever took every byte as it drips in would do nothing
    /// else, as time goes on while one is sent.
    pub(super) fn room(&self, now: Instant) -> Result<usize, Duration> {
        let bytes = self.bytes(now);
        match bytes >= self.piece_bytes() {
            true => Ok(usize::try_from(bytes).unwrap_or(0)),
            false => Err(self.time_until(self.piece_bytes(), now)),
        }
    }

    /// Returns a piece that is worth sending: what comes in a twentieth of a second, within bounds.
    pub(super) fn piece_bytes(&self) -> i64 {
        let share = i64::try_from(self.bytes_per_second / 20).unwrap_or(i64::MAX);
        share.clamp(1, PIECE_BYTES_MAX).min(self.burst_bytes)
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// More at a time would let one connection have everything that all wait for.
const PIECE_BYTES_MAX: i64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_fills_at_its_pace_up_to_its_brim() {
        let start = Instant::START;
        let bucket = Bucket::new(1000, 500, start);
        assert_eq!(bucket.bytes(start), 500);
        bucket.take(2500);
        assert_eq!(bucket.bytes(start), -2000);
        assert_eq!(bucket.time_until(1, start), SECOND * 2 + SECOND / 1000);
        assert_eq!(bucket.bytes(start + SECOND), -1000);
        assert_eq!(bucket.time_until(500, start + SECOND), SECOND * 3 / 2);
        assert_eq!(bucket.bytes(start + SECOND * 9), 500);
        assert_eq!(bucket.time_until(9999, start + SECOND * 9), Duration::ZERO, "it is full");
    }

    #[test]
    fn what_drips_in_while_a_piece_is_sent_is_not_worth_sending() {
        let mut now = Instant::START;
        let bucket = Bucket::new(1_000_000, 64 * 1024, now);
        assert_eq!(bucket.room(now), Ok(64 * 1024));
        let (mut sent, mut grants) = (0, 0);
        while sent < 1_000_000 {
            match bucket.room(now) {
                Ok(room) => {
                    bucket.take(room);
                    sent += room;
                    grants += 1;
                    now += Duration::from_micros(10); // That long it takes to send them.
                }
                Err(wait) => now += wait,
            }
        }
        assert!(grants <= 1_000_000 / (16 * 1024) + 1, "sent in {grants} bits");
        let taken = now.since(Instant::START);
        assert!(taken >= Duration::from_micros(1_000_000 - 64 * 1024), "{taken:?}");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_often_it_is_looked_at(
            pace in 1u64..5_000_000, looks in proptest::collection::vec(0u64..400_000_000, 0..50)
        ) {
            let bucket = Bucket::new(pace, u64::MAX / 4, Instant::START);
            bucket.take(usize::try_from(bucket.bytes(Instant::START)).unwrap());
            let mut now = Instant::START;
            for nanos in looks {
                now += Duration::from_nanos(nanos);
                bucket.bytes(now);
            }
            let gone = now.since(Instant::START).as_nanos();
            let expected = gone * u128::from(pace) / NANOS_PER_SECOND;
            prop_assert!((bucket.bytes(now) as i128 - expected as i128).abs() <= 1);
            let wait = bucket.time_until(bucket.bytes(now) + 100, now);
            prop_assert!(bucket.bytes(now + wait) as i128 >= expected as i128 + 98);
        }
    }
}
