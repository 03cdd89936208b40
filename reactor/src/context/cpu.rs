//! Processor time, without asking for it at every change of context.
//!
//! The monotonic clock, which tells how long a slice lasted, costs 20 ns; the thread's processor time is
//! a system call of 360. They differ where the system gave the processor to somebody else, and it does
//! that for milliseconds: a slice that was short has had the processor all the time. So only the end of
//! a *long* slice has the processor time read, and the slice costs what has come together since the last
//! reading, less the short slices since then and less what the loop itself takes a turn. That is learnt
//! from a reading every few hundred turns.

use std::cell::{Cell, RefCell};
#[cfg(test)]
use std::rc::Rc;

use super::CURRENT;
use crate::clock;

/// Where a thread's processor time comes from.
#[derive(Clone)]
pub(crate) enum CpuClock {
    /// Of time that does not really pass, all is processor time.
    None,
    #[cfg(test)]
    Test(Rc<dyn Fn() -> u64>),
    /// The calling thread's.
    Thread,
}

impl CpuClock {
    fn read(&self) -> Option<u64> {
        match self {
            CpuClock::None => None,
            #[cfg(test)]
            CpuClock::Test(clock) => Some(clock()),
            CpuClock::Thread => Some(clock::thread_cpu_nanos()),
        }
    }
}

/// What has happened on this thread since its processor time was last read.
pub(super) struct CpuMeter {
    clock: RefCell<CpuClock>,
    last_reading: Cell<u64>,
    short_slices_nanos: Cell<u64>,
    turns: Cell<u32>,
    /// What a turn takes beside the slices: polling, serving, sending.
    turn_nanos: Cell<u64>,
}

impl CpuMeter {
    pub(super) const fn new() -> CpuMeter {
        CpuMeter {
            clock: RefCell::new(CpuClock::None),
            last_reading: Cell::new(0),
            short_slices_nanos: Cell::new(0),
            turns: Cell::new(0),
            turn_nanos: Cell::new(TURN_NANOS),
        }
    }

    pub(super) fn install(&self, clock: CpuClock) {
        let reading = clock.read();
        self.clock.replace(clock);
        self.restart(reading.unwrap_or_default());
    }

    #[inline(always)]
    pub(super) fn count_short_slice(&self, nanos: u64) {
        self.short_slices_nanos.set(self.short_slices_nanos.get().wrapping_add(nanos));
    }

    /// Counts a turn in which a context was in force; returns whether it is time for [`sample`].
    #[inline(always)]
    pub(super) fn count_turn(&self) -> bool {
        let turns = self.turns.get().wrapping_add(1);
        self.turns.set(turns);
        turns >= TURNS_PER_SAMPLE
    }

    fn read(&self) -> Option<u64> {
        self.clock.borrow().read()
    }

    fn restart(&self, reading: u64) {
        self.last_reading.set(reading);
        self.short_slices_nanos.set(0);
        self.turns.set(0);
    }
}

/// Reads the processor time, and learns what turns take beside the slices.
#[cold]
#[inline(never)]
pub(super) fn sample() {
    CURRENT.with(|current| {
        let meter = &current.cpu;
        let (turns, slices) = (u64::from(meter.turns.get()), meter.short_slices_nanos.get());
        let Some(reading) = meter.read() else { return meter.restart(0) };
        let elapsed = reading.saturating_sub(meter.last_reading.get());
        let turn = elapsed.saturating_sub(slices) / turns.max(1);
        // Half of it at a time: one odd sample does not count for much.
        meter.turn_nanos.set((meter.turn_nanos.get() + turn) / 2);
        meter.restart(reading);
    });
}

/// Returns the processor time of a slice that has just ended and lasted for `nanos`.
pub(super) fn of_long_slice(nanos: u64) -> u64 {
    CURRENT.with(|current| {
        let meter = &current.cpu;
        let Some(reading) = meter.read() else { return nanos };
        let elapsed = reading.saturating_sub(meter.last_reading.get());
        let turns = u64::from(meter.turns.get()).saturating_mul(meter.turn_nanos.get());
        let others = meter.short_slices_nanos.get().saturating_add(turns);
        meter.restart(reading);
        elapsed.saturating_sub(others).min(nanos)
    })
}

/// Says that what this thread has done so far was nobody's: a pool's thread has waited for a job.
pub(crate) fn restart_cpu_meter() {
    CURRENT.with(|current| {
        if let Some(reading) = current.cpu.read() {
            current.cpu.restart(reading);
        }
    });
}

/// Somebody else who gets the processor keeps it for longer than that; and against a slice that is
/// longer, reading the processor time costs next to nothing.
pub(super) const SHORT_SLICE_NANOS_MAX: u64 = 100_000;

/// Often enough to keep errors from adding up, and a nanosecond and a half a turn.
const TURNS_PER_SAMPLE: u32 = 256;

/// What a turn takes before anything has been learnt: a poll, and an event.
const TURN_NANOS: u64 = 1_500;
