//! Primes counted in threads: on the clock, where jobs run when it is pumped, and in earnest.

#[path = "../../../examples/thread_pool.rs"]
#[expect(dead_code, reason = "its main is not called")]
mod example;

use std::cell::Cell;
use std::rc::Rc;

use ropewalk::testing::{Clock, success_result_of};
use ropewalk::{Reactor, ThreadPoolOptions};

#[test]
fn primes_are_counted_and_the_next_limit_is_asked_for_when_there_is_a_place() {
    let clock = Clock::new();
    let pool = clock.reactor().thread_pool(ThreadPoolOptions::new("primes").queue_max(2));
    let asked = Rc::new(Cell::new(0u32));
    let (seen, watched) = (Rc::clone(&asked), pool.clone());
    let limits = [10, 100, 1000, 10, 100].into_iter().inspect(move |_| {
        seen.set(seen.get() + 1);
        assert!(watched.statistics().queued < 2, "no more work ahead than the queue takes");
    });
    let counts = example::count_all(clock.reactor(), &pool, limits);
    clock.pump();
    assert_eq!(success_result_of(counts), [4, 25, 168, 4, 25]);
    assert_eq!(asked.get(), 5);
}

#[test]
fn threads_count_the_same() {
    let reactor = Reactor::new().unwrap();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("primes").threads(2).queue_max(2));
    let counts = example::count_all(&reactor, &pool, (0..20).map(|n| n * 10));
    let counts = reactor.run_until(counts).unwrap();
    assert_eq!((counts.len(), counts[10]), (20, 25));
}
