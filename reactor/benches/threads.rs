//! Round trips of thread jobs: given on the loop, run in a thread, the result back in a callback.
//!
//! `cargo bench --bench threads` prints how many there are a second with 64 in flight and one thread, and
//! how long one alone takes. Called with a number of jobs alone, it prints tab-separated lines (name,
//! phase, count, value) for a script that runs it in turn with others; with `only-64` behind that, it
//! leaves out all but the first figure, for a profiler.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ropewalk::{Deferred, Failure, LogContext, Reactor, Resolver, ThreadPool, ThreadPoolOptions};

const IN_FLIGHT: u64 = 64;

fn main() {
    let count = std::env::args().skip(1).find_map(|text| text.parse().ok());
    let is_for_people = count.is_none();
    let count: u64 = count.unwrap_or(200_000);
    let reactor = Reactor::new().expect("the system gives a poll");
    let pool = reactor.thread_pool(ThreadPoolOptions::new("bench").threads(1));
    if std::env::args().any(|text| text == "only-64") {
        let elapsed = round_trips(&reactor, &pool, count, IN_FLIGHT, None);
        return println!("xthread\trt_per_s_64\t{count}\t{}", count as f64 / elapsed.as_secs_f64());
    }
    round_trips(&reactor, &pool, count / 10, 1, None);
    let alone = latencies(&reactor, &pool, count / 10);
    let sentinel = round_trips(&reactor, &pool, count, IN_FLIGHT, None);
    let request = LogContext::numbered("GET", 17);
    let in_context = round_trips(&reactor, &pool, count, IN_FLIGHT, Some(request));
    let rate = |elapsed: Duration| count as f64 / elapsed.as_secs_f64();
    if is_for_people {
        println!("one at a time: median {} ns", alone[alone.len() / 2]);
        println!("{IN_FLIGHT} in flight: {:.0} a second", rate(sentinel));
        println!("{IN_FLIGHT} in flight, in a request's context: {:.0} a second", rate(in_context));
    } else {
        println!("xthread\tp50_ns\t{count}\t{}", alone[alone.len() / 2]);
        println!("xthread\tp99_ns\t{count}\t{}", alone[alone.len() * 99 / 100]);
        let total: u64 = alone.iter().sum();
        println!("xthread\trt_per_s\t{count}\t{:.1}", alone.len() as f64 / total as f64 * 1e9);
        println!("xthread\trt_per_s_64\t{count}\t{:.1}", rate(sentinel));
        println!("xthread\trt_per_s_64_context\t{count}\t{:.1}", rate(in_context));
    }
}

/// Keeps so many jobs in flight until `count` have come back.
struct Rounds {
    pool: ThreadPool,
    to_send: Cell<u64>,
    to_come: Cell<u64>,
    done: Cell<Option<Resolver<()>>>,
}

fn round_trips(
    reactor: &Reactor,
    pool: &ThreadPool,
    count: u64,
    in_flight: u64,
    context: Option<LogContext>,
) -> Duration {
    let (deferred, resolver) = Deferred::new();
    let rounds = Rc::new(Rounds {
        pool: pool.clone(),
        to_send: Cell::new(count),
        to_come: Cell::new(count),
        done: Cell::new(Some(resolver)),
    });
    let context = context.unwrap_or_default();
    let (elapsed, ()) = time(|| {
        let start = Rc::clone(&rounds);
        context.run(|| {
            reactor.call_soon(move || {
                for _ in 0..in_flight {
                    send(&start);
                }
            });
        });
        reactor.run_until(deferred).expect("no job fails");
    });
    elapsed
}

fn send(rounds: &Rc<Rounds>) {
    let Some(left) = rounds.to_send.get().checked_sub(1) else { return };
    rounds.to_send.set(left);
    let next = Rc::clone(rounds);
    rounds
        .pool
        .defer(|| Ok::<u64, Failure>(black_box(1)))
        .add_callback(move |n| {
            next.to_come.set(next.to_come.get() - n);
            if next.to_come.get() == 0
                && let Some(done) = next.done.take()
            {
                done.callback(());
            }
            send(&next);
            Ok(())
        })
        .detach();
}

/// Runs jobs one by one, and returns the times that they took, in nanoseconds and sorted.
fn latencies(reactor: &Reactor, pool: &ThreadPool, count: u64) -> Vec<u64> {
    let pool = pool.clone();
    let task = reactor.spawn(async move {
        let mut all = Vec::new();
        for _ in 0..count.max(1) {
            let started = now();
            pool.defer(|| Ok::<u64, Failure>(black_box(1))).await?;
            all.push(started.elapsed().as_nanos() as u64);
        }
        all.sort_unstable();
        Ok(all)
    });
    reactor.run_until(task).expect("no job fails")
}

fn time<T>(f: impl FnOnce() -> T) -> (Duration, T) {
    let started = now();
    let result = f();
    (started.elapsed(), result)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}
