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

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
