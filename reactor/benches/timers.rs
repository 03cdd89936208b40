//! Cost of timers: scheduled with random delays, then cancelled; scheduled again, and run.
//!
//! `cargo bench --bench timers [-- COUNT]` prints lines of `name phase count nanoseconds`, all but
//! the count per timer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{DelayedCall, Reactor};

fn main() -> std::io::Result<()> {
    let count: u64 =
        std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1_000_000);
    let reactor = Reactor::new()?;
    let fired = Rc::new(Cell::new(0_u64));
    let mut seed = 88_172_645_463_325_252;

    let started = reactor.now();
    let calls: Vec<DelayedCall> = (0..count)
        .map(|_| {
            let delay = Duration::from_nanos(1_000_000_000 + random(&mut seed) % 59_000_000_000);
            schedule(&reactor, delay, &fired)
        })
        .collect();
    report("schedule", count, reactor.now() - started);

    let started = reactor.now();
    calls.iter().for_each(DelayedCall::cancel);
    report("cancel", count, reactor.now() - started);

    for _ in 0..count {
        schedule(&reactor, Duration::from_nanos(random(&mut seed) % 500_000), &fired);
    }
    // They are all due by now, unless the count is small.
    while reactor.now() - started < Duration::from_millis(1) {}
    let stopper = reactor.clone();
    reactor.call_later(Duration::from_micros(500), move || stopper.stop());
    let started = reactor.now();
    reactor.run()?;
    report("fire", count, reactor.now() - started);
    assert_eq!(fired.get(), count);
    Ok(())
}

fn schedule(reactor: &Reactor, delay: Duration, fired: &Rc<Cell<u64>>) -> DelayedCall {
    let fired = Rc::clone(fired);
    reactor.call_later(delay, move || fired.set(fired.get() + 1))
}

/// Marsaglia's xorshift: the same delays in each run.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn report(phase: &str, count: u64, elapsed: Duration) {
    println!(
        "timers_ropewalk\t{phase}\t{count}\t{}",
        elapsed.as_nanos() / u128::from(count.max(1))
    );
}
