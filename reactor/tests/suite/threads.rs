//! Thread pools: results, failures, contexts, limits and the end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{
    CancelledError, Deferred, Failure, LogContext, Panicked, QueuePlace, Reactor, ThreadPool,
    ThreadPoolError, ThreadPoolOptions, gather_results,
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

#[test]
fn who_waits_for_a_place_gets_one_when_a_job_begins_first_come_first_served() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("small").threads(1).queue_max(1));
    let (running, release, begun) = blocked(&pool);
    begun.recv().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let job = |n: u32| {
        let order = Arc::clone(&order);
        move || {
            order.lock().unwrap().push(n);
            Ok::<_, Failure>(n)
        }
    };
    let waiting = (0..5).map(|n| pool.defer_when_free(job(n))).collect();
    assert_eq!(pool.statistics().waiting_for_place, 4);
    let refused = failure_result_of(pool.defer(job(9)));
    assert!(refused.is::<ThreadPoolError>(), "nobody jumps the line");
    release.send(7).unwrap();
    assert_eq!(reactor.run_until(gather_results(waiting)).unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(*order.lock().unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(success_result_of(running), 7);
    assert_eq!(pool.statistics().waiting_for_place, 0);
}

#[test]
fn a_place_that_is_not_used_goes_to_the_next_in_line() {
    type Leave = fn(Deferred<QueuePlace>, QueuePlace) -> Option<QueuePlace>;
    let ways: [(&str, Leave); 2] = [
        ("the one in front leaves the line", |line, place| {
            line.cancel();
            assert!(failure_result_of(line).is::<CancelledError>());
            Some(place)
        }),
        ("it is dropped", |line, place| {
            drop(line);
            drop(place);
            None
        }),
    ];
    for (why, leave) in ways {
        let clock = Clock::new();
        let pool = clock.reactor().thread_pool(ThreadPoolOptions::new("sim").queue_max(1));
        let first = success_result_of(pool.reserve());
        let (second, third) = (pool.reserve(), pool.reserve());
        assert_no_result(&second);
        let first = leave(second, first);
        clock.pump();
        drop(first);
        clock.pump();
        let job = success_result_of(third).defer(|| Ok::<_, Failure>(3));
        clock.pump();
        assert_eq!(success_result_of(job), 3, "{why}");
        assert_eq!(pool.statistics().waiting_for_place, 0, "{why}");
    }
}

#[test]
fn those_in_line_are_refused_when_the_pool_is_stopped() {
    let clock = Clock::new();
    let pool = clock.reactor().thread_pool(ThreadPoolOptions::new("sim").queue_max(1));
    let place = success_result_of(pool.reserve());
    let line = pool.reserve();
    assert_eq!(success_result_of(pool.stop(LIMIT)), 0);
    for failure in [
        failure_result_of(line),
        failure_result_of(pool.reserve()),
        failure_result_of(place.defer(|| Ok::<_, Failure>(1))),
    ] {
        assert!(matches!(failure.downcast_ref(), Some(ThreadPoolError::Stopped { .. })));
    }
}

/// A cancelled job leaves the queue, and the place is somebody else's.
#[test]
fn a_cancelled_job_gives_its_place_up() {
    let clock = Clock::new();
    let pool = clock.reactor().thread_pool(ThreadPoolOptions::new("sim").queue_max(1));
    let job = pool.defer(|| Ok::<_, Failure>(1));
    let line = pool.defer_when_free(|| Ok::<_, Failure>(2));
    job.cancel();
    failure_result_of(job);
    clock.pump();
    assert_eq!(success_result_of(line), 2);
    assert_eq!((pool.statistics().cancelled, pool.statistics().completed), (1, 1));
}

/// Says when it is dropped.
struct Dropped(mpsc::Sender<std::thread::ThreadId>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().id());
    }
}

#[test]
fn the_result_of_a_job_that_was_cancelled_while_it_ran_is_dropped_on_the_loop() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("cancel").threads(1));
    let (sender, dropped) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let job = pool.defer(move || {
        begin.send(()).unwrap();
        let _ = released.recv();
        Ok::<_, Failure>(Dropped(sender))
    });
    begun.recv().unwrap();
    job.cancel();
    assert!(failure_result_of(job).is::<CancelledError>());
    assert_eq!(pool.statistics().running, 1, "nothing interrupts it");
    drop(release);
    let after = pool.defer(|| Ok::<_, Failure>(1));
    assert_eq!(reactor.run_until(after).unwrap(), 1);
    assert_eq!(dropped.try_recv(), Ok(std::thread::current().id()));
    assert_eq!(pool.statistics().completed, 2);
}

/// Jobs that a callback gives are handed over after it has returned: until then they can be taken back
/// without the threads' ever having heard of them.
#[test]
fn a_job_can_be_cancelled_in_the_callback_that_gave_it() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("batch").threads(2));
    let inside = pool.clone();
    let task = reactor.spawn(async move {
        let mut kept = Vec::new();
        for n in 0..100u32 {
            let job = inside.defer(move || Ok::<_, Failure>(n));
            match n % 3 {
                0 => kept.push(job),
                _ => job.cancel(),
            }
        }
        gather_results(kept).await
    });
    let expected: Vec<u32> = (0..100).step_by(3).collect();
    assert_eq!(reactor.run_until(task).unwrap(), expected);
    let statistics = pool.statistics();
    assert_eq!((statistics.queued, statistics.running), (0, 0));
    assert_eq!(statistics.completed + statistics.cancelled, 100);
}

#[test]
fn threads_beyond_the_minimum_end_when_there_is_nothing_to_do() {
    let reactor = reactor();
    let options = ThreadPoolOptions::new("idle").threads(3).threads_min(1);
    let pool = reactor.thread_pool(options.idle_time(Duration::from_millis(1)));
    let blocked: Vec<_> = (0..3).map(|_| blocked(&pool)).collect();
    assert_eq!(pool.statistics().threads, 3);
    let mut jobs = Vec::new();
    for (job, release, begun) in blocked {
        begun.recv().unwrap();
        release.send(1).unwrap();
        jobs.push(job);
    }
    reactor.run_until(gather_results(jobs)).unwrap();
    let handle = reactor.clone();
    let watched = pool.clone();
    let shrunk = reactor.spawn(async move {
        while watched.statistics().threads > 1 {
            let (tick, ticked) = Deferred::new();
            handle.call_later(Duration::from_millis(1), || ticked.callback(()));
            tick.await?;
        }
        Ok(())
    });
    reactor.run_until(shrunk.with_timeout(&reactor, LIMIT)).unwrap();
    let statistics = pool.statistics();
    assert_eq!((statistics.threads_started, statistics.threads_ended), (3, 2));
    let again = pool.defer(|| Ok::<_, Failure>(std::thread::current().name().map(str::to_owned)));
    let name = reactor.run_until(again).unwrap().unwrap();
    assert!(name.starts_with("idle-"), "{name}");
}

#[test]
fn statistics_tell_what_has_become_of_jobs() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("counted").threads(1));
    let (running, release, begun) = blocked(&pool);
    begun.recv().unwrap();
    let waiting = pool.defer(|| "x".parse::<i32>());
    let panicking = pool.defer(|| -> Result<(), Failure> { panic!("on purpose") });
    let cancelled = pool.defer(|| Ok::<_, Failure>(1));
    cancelled.cancel();
    failure_result_of(cancelled);
    let now = pool.statistics();
    assert_eq!((now.running, now.queued, now.cancelled), (1, 2, 1));
    release.send(1).unwrap();
    assert_eq!(reactor.run_until(running).unwrap(), 1);
    assert!(reactor.run_until(waiting).is_err());
    assert!(reactor.run_until(panicking).is_err());
    let end = pool.statistics();
    assert_eq!((end.completed, end.failed, end.panicked, end.running), (3, 2, 1, 0));
    assert!(end.wait_time > Duration::ZERO && end.run_time > Duration::ZERO);
    let names: Vec<String> =
        reactor.thread_pools().iter().map(|pool| pool.name().to_owned()).collect();
    assert_eq!(names, ["counted"]);
}

#[test]
fn jobs_begin_in_the_order_in_which_they_were_given() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("order").threads(1));
    let order = Arc::new(Mutex::new(Vec::new()));
    let give = |n: u32| {
        let order = Arc::clone(&order);
        pool.defer(move || {
            order.lock().unwrap().push(n);
            Ok::<_, Failure>(n)
        })
    };
    let outside = (0..20).map(give).collect();
    reactor.run_until(gather_results(outside)).unwrap();
    let (jobs, given) = Deferred::new();
    let jobs = jobs.add_callback(gather_results);
    let (pool, inside) = (pool.clone(), Arc::clone(&order));
    reactor.call_soon(move || {
        given.callback(
            (20..120)
                .map(|n| {
                    let order = Arc::clone(&inside);
                    pool.defer(move || {
                        order.lock().unwrap().push(n);
                        Ok::<_, Failure>(n)
                    })
                })
                .collect(),
        );
    });
    reactor.run_until(jobs).unwrap();
    assert!(order.lock().unwrap().iter().copied().eq(0..120));
}

/// Jobs given from inside and outside of callbacks, cancelled at any moment, from pools of any size: each
/// deferred gets a result, and the statistics add up.
#[test]
fn whatever_is_cancelled_when_the_jobs_add_up() {
    for (threads, queue_max, seed) in [(1, 4, 1u64), (2, 1000, 2), (3, 16, 3), (4, 1, 4)] {
        let reactor = reactor();
        let options = ThreadPoolOptions::new("any").threads(threads).queue_max(queue_max);
        let pool = reactor.thread_pool(options.idle_time(Duration::ZERO));
        let mut random = seed;
        let mut next = move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random >> 33
        };
        let inside = pool.clone();
        let handle = reactor.clone();
        let task = reactor.spawn(async move {
            let (mut done, mut cancelled, mut refused) = (0u64, 0u64, 0u64);
            let mut jobs: Vec<(u64, Deferred<u64>)> = Vec::new();
            for n in 0..3_000u64 {
                let job = move || Ok::<_, Failure>(n);
                let job = match next() % 3 {
                    0 => inside.defer_when_free(job),
                    _ => inside.defer(job),
                };
                jobs.push((n, job));
                if next().is_multiple_of(4) {
                    let at = next() as usize % jobs.len();
                    jobs[at].1.cancel();
                }
                if next().is_multiple_of(16) {
                    handle.defer_later(Duration::ZERO, || Ok(())).await?;
                }
            }
            for (n, job) in jobs {
                match job.await {
                    Ok(result) => {
                        assert_eq!(result, n);
                        done += 1;
                    }
                    Err(failure) if failure.is::<CancelledError>() => cancelled += 1,
                    Err(failure) => {
                        assert!(failure.is::<ThreadPoolError>(), "{failure}");
                        refused += 1;
                    }
                }
            }
            Ok((done, cancelled, refused))
        });
        let (done, cancelled, refused) = reactor.run_until(task).unwrap();
        assert_eq!(reactor.run_until(pool.stop(LIMIT)).unwrap(), 0);
        let end = pool.statistics();
        assert_eq!(done + cancelled + refused, 3_000);
        assert!(done > 0 && cancelled > 0, "seed {seed}");
        assert_eq!((end.queued, end.running, end.waiting_for_place), (0, 0, 0), "seed {seed}");
        // Some were cancelled while they ran, or in the line for a place.
        assert!(end.completed >= done && end.completed + end.cancelled <= done + cancelled);
        assert_eq!(end.failed, 0);
    }
}

/// A zero byte in a pool's name once made the loop panic where it starts the thread.
#[test]
fn any_name_will_do_for_a_pool() {
    let reactor = reactor();
    let pool = reactor.thread_pool(ThreadPoolOptions::new("a\0b"));
    let name = pool.defer(|| Ok::<_, Failure>(std::thread::current().name().map(str::to_owned)));
    assert_eq!(reactor.run_until(name).unwrap().as_deref(), Some("a?b-0"));
}
