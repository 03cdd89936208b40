//! Thread pools: results, failures, contexts, limits and the end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{
    CancelledError, Deferred, Failure, LogContext, Panicked, Reactor, ThreadPool, ThreadPoolError,
    ThreadPoolOptions, gather_results,
};

const LIMIT: Duration = Duration::from_secs(30);

fn reactor() -> Reactor {
    Reactor::new().expect("the system gives a poll")
}

/// A job that waits until the sender is used or dropped, and says when it has begun.
fn blocked(pool: &ThreadPool) -> (Deferred<u32>, mpsc::Sender<u32>, mpsc::Receiver<()>) {
    let (release, released) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let job = pool.defer(move || {
        let _ = begin.send(());
        Ok::<u32, Failure>(released.recv().unwrap_or(0))
    });
    (job, release, begun)
}

#[test]
fn a_job_runs_in_another_thread_and_its_result_comes_back() {
    let reactor = reactor();
    let here = std::thread::current().id();
    let there = reactor.defer_to_thread(|| Ok::<_, Failure>(std::thread::current().id()));
    assert_ne!(reactor.run_until(there).unwrap(), here);
}

#[test]
fn a_failure_and_a_panic_come_back_as_failures() {
    let reactor = reactor();
    let failing = reactor.defer_to_thread(|| "x".parse::<i32>());
    assert!(reactor.run_until(failing).unwrap_err().is::<std::num::ParseIntError>());
    let panicking = reactor.defer_to_thread(|| -> Result<(), Failure> { panic!("no {}", 5) });
    let failure = reactor.run_until(panicking).unwrap_err();
    assert_eq!(failure.downcast_ref::<Panicked>().unwrap().message, "no 5");
    let after = reactor.defer_to_thread(|| Ok::<_, Failure>(1));
    assert_eq!(reactor.run_until(after).unwrap(), 1, "the thread has survived");
}

#[test]
fn thousands_of_jobs_come_back_each_to_its_own_deferred() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("many").threads(3));
    let jobs = (0..5000u64).map(|n| pool.defer(move || Ok::<_, Failure>(n * n))).collect();
    let squares = reactor.run_until(gather_results(jobs)).unwrap();
    assert!(squares.into_iter().eq((0..5000).map(|n| n * n)));
    let statistics = pool.statistics();
    assert_eq!((statistics.completed, statistics.queued, statistics.running), (5000, 0, 0));
    assert!(statistics.threads <= 3);
}

#[test]
fn a_full_queue_refuses_the_next_job() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("small").threads(1).queue_max(2));
    let (running, release, begun) = blocked(&pool);
    begun.recv().unwrap();
    let waiting = [pool.defer(|| Ok::<_, Failure>(1)), pool.defer(|| Ok::<_, Failure>(2))];
    let refused = failure_result_of(pool.defer(|| Ok::<_, Failure>(3)));
    assert!(matches!(
        refused.downcast_ref(),
        Some(ThreadPoolError::QueueFull { queue_max: 2, .. })
    ));
    release.send(7).unwrap();
    assert_eq!(reactor.run_until(running).unwrap(), 7);
    assert_eq!(reactor.run_until(gather_results(waiting.into())).unwrap(), [1, 2]);
}

#[test]
fn cancelling_a_waiting_job_takes_it_out_of_the_queue() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("cancel").threads(1));
    let (running, release, begun) = blocked(&pool);
    begun.recv().unwrap();
    let waiting = pool.defer(|| -> Result<(), Failure> { panic!("must not run") });
    waiting.cancel();
    assert!(failure_result_of(waiting).is::<CancelledError>());
    assert_eq!(pool.statistics().queued, 0);
    running.cancel();
    assert!(failure_result_of(running).is::<CancelledError>(), "a running one is let go");
    drop(release);
    let after = pool.defer(|| Ok::<_, Failure>(1));
    assert_eq!(reactor.run_until(after).unwrap(), 1);
    assert_eq!(pool.statistics().panicked, 0);
}

#[test]
fn a_job_costs_the_context_that_gave_it() {
    let reactor = reactor();
    let request = LogContext::new("GET-1");
    let names = request.run(|| {
        reactor.defer_to_thread(|| {
            let context = LogContext::current();
            context.record_database_transaction(Duration::from_millis(3));
            context.record_events_fetched(4);
            Ok::<_, Failure>(context.name().to_owned())
        })
    });
    assert_eq!(reactor.run_until(names).unwrap(), "GET-1-default");
    let usage = request.usage();
    assert!(usage.thread_time > Duration::ZERO);
    assert_eq!(usage.db_transactions, 1);
    assert_eq!(usage.db_time, Duration::from_millis(3));
    assert_eq!(usage.events_fetched, 4);
    assert_eq!(usage.late, Duration::ZERO);
}

#[test]
fn callbacks_of_a_job_run_in_the_context_that_added_them() {
    let reactor = reactor();
    let request = LogContext::new("GET-2");
    let job = request.run(|| {
        reactor
            .defer_to_thread(|| Ok::<_, Failure>(()))
            .add_callback(|()| Ok(LogContext::current().name().to_owned()))
    });
    assert_eq!(reactor.run_until(job).unwrap(), "GET-2");
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn a_stopped_pool_finishes_what_it_took_and_takes_no_more() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("stop").threads(1));
    let (running, release, begun) = blocked(&pool);
    begun.recv().unwrap();
    let waiting = pool.defer(|| Ok::<_, Failure>(2));
    let stopped = pool.stop(LIMIT);
    assert_no_result(&stopped);
    let refused = failure_result_of(pool.defer(|| Ok::<_, Failure>(3)));
    assert!(matches!(refused.downcast_ref(), Some(ThreadPoolError::Stopped { .. })));
    release.send(1).unwrap();
    assert_eq!(reactor.run_until(stopped).unwrap(), 0);
    assert_eq!((success_result_of(running), success_result_of(waiting)), (1, 2));
}

#[test]
fn cancelling_the_last_job_of_a_stopped_pool_ends_the_wait() {
    let clock = Clock::new();
    let pool = clock.reactor().thread_pool(ThreadPoolOptions::new("sim"));
    let job = pool.defer(|| Ok::<_, Failure>(1));
    let stopped = pool.stop(LIMIT);
    job.cancel();
    failure_result_of(job);
    assert_eq!(success_result_of(stopped), 0);
}

#[test]
fn a_thread_that_does_not_end_in_time_is_abandoned() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("stuck").threads(1));
    let (running, release, begun) = blocked(&pool);
    begun.recv().unwrap();
    let waiting = pool.defer(|| Ok::<_, Failure>(2));
    let stopped = pool.stop(Duration::from_millis(1));
    assert_eq!(reactor.run_until(stopped).unwrap(), 1, "one thread is still at work");
    assert!(failure_result_of(waiting).is::<ThreadPoolError>());
    release.send(9).unwrap();
    assert_eq!(reactor.run_until(running).unwrap(), 9, "its result counts if it comes after all");
}

#[test]
fn the_end_of_the_reactor_fails_what_is_under_way() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("end").threads(1));
    let (running, release, begun) = blocked(&pool);
    let waiting = pool.defer(|| Ok::<u32, Failure>(2));
    begun.recv().unwrap();
    let ends = Rc::new(RefCell::new(Vec::new()));
    for job in [running, waiting] {
        let ends = Rc::clone(&ends);
        job.add_both(move |outcome| {
            ends.borrow_mut().push(outcome.unwrap_err().is::<ThreadPoolError>());
            Ok(())
        })
        .detach();
    }
    reactor.stop();
    reactor.run().unwrap();
    assert_eq!(*ends.borrow(), [true, true]);
    drop(release);
    let late = failure_result_of(pool.defer(|| Ok::<_, Failure>(3)));
    assert!(late.is::<ThreadPoolError>());
}

#[test]
fn dropping_the_handle_lets_jobs_run_to_their_end() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("dropped").threads(1));
    let jobs = (0..10).map(|n| pool.defer(move || Ok::<_, Failure>(n))).collect();
    drop(pool);
    assert_eq!(reactor.run_until(gather_results(jobs)).unwrap().len(), 10);
}

#[test]
fn on_a_simulated_reactor_jobs_run_on_the_loop_when_it_is_pumped() {
    let clock = Clock::new();
    let here = std::thread::current().id();
    let request = LogContext::new("GET-3");
    let job = request.run(|| {
        clock.reactor().defer_to_thread(move || {
            assert_eq!(std::thread::current().id(), here);
            LogContext::current().record_database_transaction(Duration::from_millis(1));
            Ok::<_, Failure>(LogContext::current().name().to_owned())
        })
    });
    assert_no_result(&job);
    clock.pump();
    assert_eq!(success_result_of(job), "GET-3-default");
    assert_eq!(request.usage().db_transactions, 1);
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn on_a_simulated_reactor_a_pool_stops_when_its_jobs_have_run() {
    let clock = Clock::new();
    let pool = clock.reactor().thread_pool(ThreadPoolOptions::new("sim"));
    let job = pool.defer(|| Ok::<_, Failure>(5));
    let cancelled = pool.defer(|| Ok::<_, Failure>(6));
    cancelled.cancel();
    let stopped = pool.stop(LIMIT);
    assert_no_result(&stopped);
    clock.pump();
    assert_eq!(success_result_of(job), 5);
    assert!(failure_result_of(cancelled).is::<CancelledError>());
    assert_eq!(success_result_of(stopped), 0);
}
