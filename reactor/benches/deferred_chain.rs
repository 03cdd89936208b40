//! Cost of a chain of ten callbacks: made, fired and dropped, with the context captured at each step
//! and put in force when it runs.
//!
//! `cargo bench --bench deferred_chain` prints nanoseconds a chain. For instructions, count two runs
//! and divide the difference:
//!
//! ```text
//! valgrind --tool=callgrind <binary> 1000
//! valgrind --tool=callgrind <binary> 11000
//! ```

use std::hint::black_box;
use std::time::Duration;

use ropewalk::{Deferred, LogContext};

fn main() {
    let count = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1_000_000);
    let context = LogContext::new("bench");
    let elapsed = time(|| {
        for i in 0..count {
            chain(&context, i);
        }
    });
    println!("deferred chain of ten: {} ns", elapsed.as_nanos() / u128::from(count.max(1)));
}

/// Chains ten callbacks in `context`, and fires from the sentinel context as the reactor would.
fn chain(context: &LogContext, start: u64) {
    let (deferred, resolver) = Deferred::new();
    let mut deferred = deferred;
    deferred = context.run(move || {
        for step in 0..10u64 {
            let step = black_box(step);
            deferred = deferred.add_callback(move |x: u64| Ok(x.wrapping_add(step)));
        }
        deferred
    });
    resolver.callback(start);
    let end = black_box(deferred).into_result();
    assert!(matches!(end, Ok(Ok(end)) if end == start + 45));
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn time(f: impl FnOnce()) -> Duration {
    let started = std::time::Instant::now();
    f();
    started.elapsed()
}
