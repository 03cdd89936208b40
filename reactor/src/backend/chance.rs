//! Chance that a seed decides.

use std::cell::Cell;
use std::time::Duration;

/// A source of numbers that look random and are always the same for one seed.
///
/// SplitMix64: one addition and a few shifts a number, full period.
#[derive(Debug)]
pub(crate) struct Chance {
    state: Cell<u64>,
}
impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance { state: Cell::new(seed) }
    }

    /// Makes a source of its own for what this names, so that drawing from one does not disturb the
    /// other.
    pub(crate) fn of(seed: u64, name: &str, number: u64) -> Chance {
        let mut state = mix(seed ^ number.wrapping_mul(STEP));
        for byte in name.bytes() {
            state = mix(state ^ u64::from(byte));
        }
        Chance::new(state)
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(STEP);
        self.state.set(state);
        mix(state)
    }

    /// Returns a number below `limit`, or zero if that is zero.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        // The bias is below 2^-32 for any limit of interest.
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// Whether something of this probability happens. Draws nothing if that is certain.
    pub(crate) fn happens(&self, probability: f64) -> bool {
        probability > 0.0 && (probability >= 1.0 || self.fraction() < probability)
    }

    /// Returns a duration of at least the first and at most the second.
    pub(crate) fn between(&self, least: Duration, most: Duration) -> Duration {
        let span = nanos(most).saturating_sub(nanos(least));
        least + Duration::from_nanos(self.below(span.saturating_add(1)))
    }

    /// Returns how long it takes until something happens that happens every `mean` on average.
    pub(crate) fn waiting_time(&self, mean: Duration) -> Duration {
        let times = -(1.0 - self.fraction()).ln();
        Duration::from_nanos((nanos(mean) as f64 * times) as u64)
    }

    pub(crate) fn fill(&self, destination: &mut [u8]) {
        for chunk in destination.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// Returns a number from zero, included, to one, excluded.
    fn fraction(&self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn mix(state: u64) -> u64 {
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_all_numbers_and_names_are_apart() {
        let numbers = |chance: Chance| [chance.next(), chance.next(), chance.next()];
        assert_eq!(numbers(Chance::new(7)), numbers(Chance::new(7)));
        assert_ne!(numbers(Chance::new(7)), numbers(Chance::new(8)));
        assert_eq!(numbers(Chance::of(7, "a", 1)), numbers(Chance::of(7, "a", 1)));
        assert_ne!(numbers(Chance::of(7, "a", 1)), numbers(Chance::of(7, "b", 1)));
        assert_ne!(numbers(Chance::of(7, "a", 1)), numbers(Chance::of(7, "a", 2)));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let chance = Chance::new(1);
        let (least, most) = (Duration::from_millis(2), Duration::from_millis(3));
        let mut mean = Duration::ZERO;
        for _ in 0..1_000 {
            assert!(chance.below(3) < 3);
            assert!((least..=most).contains(&chance.between(least, most)));
            mean += chance.waiting_time(most) / 1_000;
        }
        assert_eq!(chance.below(0), 0);
        assert_eq!(chance.between(least, least), least);
        assert_eq!(chance.between(most, least), most, "an empty range is its start");
        assert!((least..2 * least).contains(&mean), "{mean:?}");
        assert!(chance.happens(1.0) && !chance.happens(0.0));
    }
}
