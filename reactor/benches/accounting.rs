//! Whether what is charged to log contexts adds up to what the process has used.
//!
//! Requests with contexts of their own compute on the loop, in short slices and in long ones, and in
//! threads, where they also wait as for a disk. In the end the sums over all contexts are compared with
//! the processor time that the system has counted, and with what the pool says. The command fails if
//! they are further apart than the tolerance:
//!
//! ```text
//! cargo bench --bench accounting
//! ```

use std::cell::RefCell;
use std::hint::black_box;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::{Failure, LogContext, Reactor, ThreadPool, ThreadPoolOptions, gather_results};
use rustix::time::{ClockId, clock_gettime};

/// How far the sums may fall short of what the system has counted: turns, and callbacks that are nobody's,
/// are charged to no context.
const SHORTFALL_MAX: f64 = 0.10;

/// And how far they may exceed it: slices that were interrupted for less than 0.1 ms.
const EXCESS_MAX: f64 = 0.02;

fn main() -> ExitCode {
    let requests = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(2_000);
    let reactor = Reactor::new().expect("the system gives a poll");
    let pool = reactor.thread_pool(ThreadPoolOptions::new("database").threads(2));
    let contexts: Rc<RefCell<Vec<LogContext>>> = Rc::default();
    let loop_before = clock(ClockId::ThreadCPUTime);
    let process_before = clock(ClockId::ProcessCPUTime);
    let all = (0..requests).map(|number| {
        let context = LogContext::numbered("GET", number);
        contexts.borrow_mut().push(context.clone());
        context.run(|| reactor.spawn(request(reactor.clone(), pool.clone(), number)))
    });
    let all = gather_results(all.collect());
    reactor.run_until(all).expect("no request fails");
    let on_loop = clock(ClockId::ThreadCPUTime) - loop_before;
    let in_process = clock(ClockId::ProcessCPUTime) - process_before;

    let (mut loop_time, mut thread_cpu, mut thread_time) =
        <(Duration, Duration, Duration)>::default();
    let (mut db_time, mut db_transactions, mut wait) = <(Duration, u64, Duration)>::default();
    for context in &*contexts.borrow() {
        let usage = context.usage();
        loop_time += usage.loop_time;
        thread_cpu += usage.thread_cpu_time;
        thread_time += usage.thread_time;
        wait += usage.thread_wait;
        db_time += usage.db_time;
        db_transactions += usage.db_transactions;
    }
    let jobs = pool.statistics();
    println!("{requests} requests, {db_transactions} transactions");
    let rows = [
        ("loop: processor time", loop_time, on_loop),
        ("threads: processor time", thread_cpu, in_process - on_loop),
        ("all: processor time", loop_time + thread_cpu, in_process),
        ("threads: time", thread_time, jobs.run_time),
        ("threads: waiting for one", wait, jobs.wait_time),
        ("database: time in transactions", db_time, jobs.run_time),
    ];
    let mut is_well = db_transactions == jobs.completed;
    for (what, charged, counted) in rows {
        let ratio = charged.as_secs_f64() / counted.as_secs_f64();
        println!("{what:<32} charged {charged:>12?}  counted {counted:>12?}  ratio {ratio:.3}");
        is_well &= (1.0 - SHORTFALL_MAX..=1.0 + EXCESS_MAX).contains(&ratio);
    }
    if !is_well {
        println!("further apart than -{SHORTFALL_MAX} or +{EXCESS_MAX}");
    }
    ExitCode::from(u8::from(!is_well))
}

/// Computes here and there, and talks to a database in between.
async fn request(reactor: Reactor, pool: ThreadPool, number: u64) -> Result<(), Failure> {
    for step in 0..5 {
        compute(20 + (number * 7 + step * 13) % 60);
        if (number + step).is_multiple_of(10) {
            compute(400);
        }
        let stopwatch = reactor.stopwatch();
        pool.defer(move || {
            let began = stopwatch();
            compute(100 + (number * 3 + step) % 200);
            if step == 0 {
                // A disk that takes its time.
                std::thread::park_timeout(Duration::from_micros(300));
            }
            LogContext::current().record_database_transaction(stopwatch() - began);
            Ok::<_, Failure>(())
        })
        .await?;
    }
    Ok(())
}

/// Keeps the processor busy for about so many microseconds.
fn compute(micros: u64) {
    let mut x = 1u64;
    for n in 0..micros * 600 {
        x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n));
    }
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
