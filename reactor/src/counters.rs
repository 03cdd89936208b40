//! What a reactor has done since it was made, in numbers.

use std::cell::Cell;
use std::fmt;

/// Counts for the metrics; each costs one addition where it is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) turns: Count,
    /// Things that became ready, as the system reported them.
    pub(crate) events: Count,
    /// Reads of connections that brought something.
    pub(crate) reads: Count,
    pub(crate) bytes_in: Count,
    pub(crate) bytes_out: Count,
    pub(crate) accepts: Count,
    /// Connections that were made or accepted, and those of them that have ended.
    pub(crate) connections_opened: Count,
    pub(crate) connections_closed: Count,
    /// Background processes that were started; numbers their contexts.
    pub(crate) background_processes: Count,
    /// How long turns took that did something in a context.
    pub(crate) turn_nanos: Histogram,
    /// How late the first timer of a turn was.
    pub(crate) timer_lag_nanos: Histogram,
}

/// A number that only grows.
#[derive(Default)]
pub(crate) struct Count(Cell<u64>);

impl Count {
    #[inline]
    pub(crate) fn add(&self, more: usize) {
        self.0.set(self.0.get().wrapping_add(more as u64));
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }
}

/// How many durations fell into which bucket.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Cell<u64>; BUCKETS],
    sum_nanos: Cell<u64>,
}

/// The first bucket holds what is below 16 us, each next one four times that of the one before, and the last
/// one, from 4.3 s, all the rest.
const BUCKETS: usize = 11;
const FIRST_BITS: u32 = 14;

impl Histogram {
    #[inline]
    pub(crate) fn observe(&self, nanos: u64) {
        let above = (u64::BITS - nanos.leading_zeros()).saturating_sub(FIRST_BITS);
        let bucket = &self.buckets[(above.div_ceil(2) as usize).min(BUCKETS - 1)];
        bucket.set(bucket.get().wrapping_add(1));
        self.sum_nanos.set(self.sum_nanos.get().wrapping_add(nanos));
    }

    /// Returns the buckets, each with its upper bound in seconds, and the sum in seconds.
    pub(crate) fn read(&self) -> (Vec<(f64, u64)>, f64) {
        let bound = |index: usize| match index + 1 == BUCKETS {
            true => f64::INFINITY,
            false => (1u64 << (FIRST_BITS + 2 * index as u32)) as f64 / 1e9,
        };
        let counts = self.buckets.iter().enumerate();
        let buckets = counts.map(|(index, count)| (bound(index), count.get())).collect();
        (buckets, self.sum_nanos.get() as f64 / 1e9)
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_that_bounds_them() {
        let histogram = Histogram::default();
        for nanos in
            [0, 16_383, 16_384, 65_535, 65_536, 4_294_967_295, 4_294_967_296, u64::MAX >> 1]
        {
            histogram.observe(nanos);
        }
        let (buckets, _) = histogram.read();
        let counts: Vec<u64> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 2, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(buckets[0].0, 16_384e-9);
        assert_eq!(buckets[1].0, 65_536e-9);
        assert_eq!(buckets[9].0, 4_294_967_296e-9);
    }
}
