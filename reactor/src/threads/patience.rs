//! How long to look out for something before going to sleep.

use std::hint;
use std::thread;

/// Going to sleep and being woken costs two system calls and some ten microseconds; looking out costs a
/// processor. So a thread without work looks out for a while first, and less and less often if that is in
/// vain.
pub(super) struct Patience {
    looks_max: u32,
    credit: u32,
    sleeps: u32,
}

impl Patience {
    pub(super) fn new() -> Patience {
        // Whoever looks out on the only processor keeps those away for whom he looks out.
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let looks_max = if processors > 1 { LOOKS_MAX } else { 0 };
        Patience { looks_max, credit: 1, sleeps: 0 }
    }

    /// Returns for how many looks to wait now; often that is none.
    pub(super) fn looks(&mut self) -> u32 {
        if self.credit > 0 {
            return self.looks_max;
        }
        self.sleeps += 1;
        if self.sleeps.is_multiple_of(SLEEPS_PER_TRIAL) { self.looks_max } else { 0 }
    }

    /// Looks so often whether what was looked for has come.
    pub(super) fn look_out(&mut self, looks: u32, has_come: impl Fn() -> bool) {
        for _ in 0..looks {
            if has_come() {
                self.credit = (self.credit + 1).min(CREDIT_MAX);
                return;
            }
            hint::spin_loop();
        }
        self.credit = self.credit.saturating_sub(1);
    }
}

/// Some 15 µs, about as long as it takes to put a thread to sleep and to wake it.
const LOOKS_MAX: u32 = 1000;

/// So often in a row may it have been in vain to look out before it is left off.
const CREDIT_MAX: u32 = 8;

/// So often a thread that has left off looking out goes to sleep at once before it tries again.
const SLEEPS_PER_TRIAL: u32 = 32;
