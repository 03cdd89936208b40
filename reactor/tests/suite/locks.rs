//! Taking turns: order, cancelling, and long rows of holders that finish at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{
    CancelledError, Deferred, DeferredLock, DeferredSemaphore, Failure, Guard, Linearizer,
    LogContext, Panicked,
};

#[test]
fn a_free_key_is_given_at_once_and_the_others_wait_in_order() {
    let clock = Clock::new();
    let lin = Linearizer::new();
    let first = success_result_of(lin.queue("a"));
    let (second, third) = (lin.queue("a"), lin.queue("a"));
    let other_key = success_result_of(lin.queue("b"));
    assert!(lin.is_queued(&"a"));
    assert!(!lin.is_queued(&"b"), "holders do not count");
    drop(first);
    clock.pump();
    assert_no_result(&third);
    drop(success_result_of(second));
    clock.pump();
    drop(success_result_of(third));
    drop(other_key);
    assert_eq!(lin.held_key_count(), 0, "keys that nobody holds cost nothing");
}

#[test]
fn a_slot_changes_hands_after_the_current_callback_when_the_loop_runs() {
    let clock = Clock::new();
    let lin = Linearizer::new();
    let first = success_result_of(lin.queue(1));
    let second = lin.queue(1);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (log, inside) = (seen.clone(), seen.clone());
    second
        .add_callback(move |guard| {
            log.borrow_mut().push("second");
            drop(guard);
            Ok(())
        })
        .detach();
    clock.reactor().call_soon(move || {
        drop(first);
        inside.borrow_mut().push("released");
    });
    clock.pump();
    assert_eq!(*seen.borrow(), ["released", "second"]);
}

#[test]
fn thousands_of_holders_that_finish_at_once_do_not_nest() {
    for with_loop in [false, true] {
        let clock = Clock::new();
        let lin = Linearizer::new();
        let first = success_result_of(lin.queue(()));
        let count = Rc::new(Cell::new(0));
        for _ in 0..100_000 {
            let count = count.clone();
            lin.queue(())
                .add_callback(move |guard| {
                    count.set(count.get() + 1);
                    drop(guard);
                    Ok(())
                })
                .detach();
        }
        if with_loop {
            clock.reactor().call_soon(move || drop(first));
            clock.pump();
        } else {
            drop(first);
        }
        assert_eq!(count.get(), 100_000);
        assert_eq!(lin.held_key_count(), 0);
    }
}

#[test]
fn cancelling_while_waiting_leaves_the_queue_and_the_others_their_places() {
    let lin = Linearizer::new();
    let first = success_result_of(lin.queue(1));
    let (second, third) = (lin.queue(1), lin.queue(1));
    second.cancel();
    assert!(failure_result_of(second).is::<CancelledError>());
    assert_no_result(&third);
    drop(first);
    drop(success_result_of(third));
    assert_eq!(lin.held_key_count(), 0);
}

#[test]
fn cancelling_between_the_hand_over_and_the_turn_passes_the_slot_on() {
    let clock = Clock::new();
    let lin = Linearizer::new();
    let first = success_result_of(lin.queue(1));
    let second = Rc::new(Cell::new(Some(lin.queue(1))));
    let third = lin.queue(1);
    let inside = second.clone();
    clock.reactor().call_soon(move || {
        drop(first);
        let second = inside.take().expect("the test has put it there");
        assert_no_result(&second);
        second.cancel();
        assert!(failure_result_of(second).is::<CancelledError>());
    });
    clock.pump();
    drop(success_result_of(third));
    assert_eq!(lin.held_key_count(), 0);
}

#[test]
fn a_waiter_that_is_dropped_is_passed_over() {
    let lin = Linearizer::new();
    let first = success_result_of(lin.queue(1));
    drop(lin.queue(1));
    let third = lin.queue(1);
    drop(first);
    drop(success_result_of(third));
    assert_eq!(lin.held_key_count(), 0);
}

#[test]
fn a_holder_that_panics_releases() {
    let lin = Linearizer::new();
    let first: Deferred<()> = lin.queue(1).add_callback(|guard| -> Result<(), _> {
        let _guard = guard;
        panic!("in the middle")
    });
    drop(success_result_of(lin.queue(1)));
    failure_result_of(first);
}

#[test]
fn a_semaphore_lets_so_many_in() {
    let semaphore = DeferredSemaphore::new(2);
    let mut guards: Vec<Guard> = (0..2).map(|_| success_result_of(semaphore.acquire())).collect();
    let waiting = semaphore.acquire();
    assert_no_result(&waiting);
    assert!(semaphore.is_queued());
    guards.pop();
    drop(success_result_of(waiting));
    drop(success_result_of(semaphore.acquire()));
    drop(guards);
    assert!(!semaphore.is_queued());
}

#[test]
fn a_waiter_goes_on_in_its_own_context() {
    let lin = Linearizer::new();
    let first = LogContext::new("one").run(|| success_result_of(lin.queue(1)));
    let second = LogContext::new("two")
        .run(|| lin.queue(1).add_callback(|_guard| Ok(LogContext::current().name().to_owned())));
    LogContext::new("one").run(|| drop(first));
    assert_eq!(success_result_of(second), "two");
    assert!(LogContext::current().is_sentinel());
}

#[test]
fn run_holds_the_lock_until_the_result_is_there_and_passes_it_on() {
    let clock = Clock::new();
    let lock = DeferredLock::new();
    let (gate, resolver) = Deferred::new();
    let first = lock.run(move || gate);
    let second = lock.run(|| Ok("second"));
    assert!(lock.is_locked() && lock.is_queued());
    assert!(lock.try_acquire().is_none());
    clock.pump();
    assert_no_result(&second);
    resolver.callback("first");
    clock.pump();
    assert_eq!(success_result_of(first), "first");
    assert_eq!(success_result_of(second), "second");
    drop(lock.try_acquire().expect("nobody holds it"));
    assert!(!lock.is_locked());
}

#[test]
fn run_releases_whatever_comes_of_the_function() {
    let lin = Linearizer::new();
    let failed = lin.run(1, || Deferred::<()>::fail(std::fmt::Error));
    let panicked = lin.run(1, || -> Result<(), Failure> { panic!("in the middle") });
    assert!(failure_result_of(failed).is::<std::fmt::Error>());
    assert!(failure_result_of(panicked).is::<Panicked>());
    assert_eq!(lin.held_key_count(), 0);
}

#[test]
fn cancelling_what_runs_under_a_lock_cancels_the_work_and_releases() {
    let lock = DeferredLock::new();
    let was_cancelled = Rc::new(Cell::new(false));
    let noted = was_cancelled.clone();
    let (work, _resolver) = Deferred::<()>::with_canceller(move || noted.set(true));
    let running = lock.run(move || work);
    let was_called = Rc::new(Cell::new(false));
    let called = was_called.clone();
    let waiting: Deferred<()> = lock.run(move || {
        called.set(true);
        Ok(())
    });
    waiting.cancel();
    running.cancel();
    assert!(was_cancelled.get());
    assert!(failure_result_of(running).is::<CancelledError>());
    assert!(failure_result_of(waiting).is::<CancelledError>());
    assert!(!was_called.get(), "it was cancelled in the line");
    assert!(!lock.is_locked());
}

#[test]
fn a_semaphore_tells_how_it_stands() {
    let semaphore = DeferredSemaphore::new(2);
    let one = semaphore.try_acquire().unwrap();
    let other = success_result_of(semaphore.acquire());
    assert!(semaphore.try_acquire().is_none());
    let waiting = [semaphore.acquire(), semaphore.acquire()];
    assert_eq!(
        (semaphore.holders_max(), semaphore.held_count(), semaphore.waiting_count()),
        (2, 2, 2)
    );
    drop((one, other));
    for guard in waiting {
        drop(success_result_of(guard));
    }
    assert_eq!((semaphore.held_count(), semaphore.waiting_count()), (0, 0));
}
