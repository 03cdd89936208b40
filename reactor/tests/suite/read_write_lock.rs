//! The read-write lock: who waits for whom, cancelling in each place, long rows.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{CancelledError, LogContext, ReadWriteLock};

const KEY: &str = "!room:hs.example";

#[test]
fn readers_share_and_writers_do_not() {
    let lock = ReadWriteLock::new();
    let readers = [lock.read(KEY), lock.read(KEY)].map(success_result_of);
    let writer = lock.write(KEY);
    assert!(lock.is_queued(&KEY));
    let other_key = success_result_of(lock.write("another"));
    drop(readers);
    let writer = success_result_of(writer);
    let waiting = (lock.read(KEY), lock.write(KEY));
    assert_no_result(&waiting.0);
    drop(writer);
    let reader = success_result_of(waiting.0);
    assert_no_result(&waiting.1);
    drop(reader);
    drop((success_result_of(waiting.1), other_key));
    assert_eq!(lock.held_key_count(), 0, "keys that nobody holds cost nothing");
}

#[test]
fn a_reader_behind_a_waiting_writer_waits_for_it_and_joins_the_readers_beside_it() {
    let lock = ReadWriteLock::new();
    let first = success_result_of(lock.read(KEY));
    let writer = lock.write(KEY);
    let (second, third) = (lock.read(KEY), lock.read(KEY));
    let last = lock.write(KEY);
    assert_no_result(&second);
    drop(first);
    let writer = success_result_of(writer);
    assert_no_result(&second);
    drop(writer);
    let both = (success_result_of(second), success_result_of(third));
    assert_no_result(&last);
    drop(both);
    drop(success_result_of(last));
    assert_eq!(lock.held_key_count(), 0);
}

#[test]
fn a_waiting_reader_that_is_cancelled_leaves_at_once() {
    let lock = ReadWriteLock::new();
    let writer = success_result_of(lock.write(KEY));
    let (cancelled, reader) = (lock.read(KEY), lock.read(KEY));
    cancelled.cancel();
    assert!(failure_result_of(cancelled).is::<CancelledError>());
    drop(writer);
    drop(success_result_of(reader));
    assert_eq!(lock.held_key_count(), 0);
}

#[test]
fn a_waiting_writer_that_is_cancelled_lets_the_readers_behind_it_join_those_before_it() {
    let lock = ReadWriteLock::new();
    let before = success_result_of(lock.read(KEY));
    let cancelled = lock.write(KEY);
    let (behind, writer) = (lock.read(KEY), lock.write(KEY));
    cancelled.cancel();
    assert!(failure_result_of(cancelled).is::<CancelledError>());
    let behind = success_result_of(behind);
    assert_no_result(&writer);
    drop(before);
    assert_no_result(&writer);
    drop(behind);
    drop(success_result_of(writer));
    assert_eq!(lock.held_key_count(), 0);
}

#[test]
fn a_writer_that_is_cancelled_behind_a_writer_lets_nobody_run_too_early() {
    let lock = ReadWriteLock::new();
    let first = success_result_of(lock.write(KEY));
    let (cancelled, reader) = (lock.write(KEY), lock.read(KEY));
    cancelled.cancel();
    assert!(failure_result_of(cancelled).is::<CancelledError>());
    assert_no_result(&reader);
    drop(first);
    drop(success_result_of(reader));
    assert_eq!(lock.held_key_count(), 0);
}

#[test]
fn cancelling_between_the_hand_over_and_the_turn_passes_the_lock_on() {
    let clock = Clock::new();
    let lock = ReadWriteLock::new();
    let first = success_result_of(lock.write(KEY));
    let second = Rc::new(Cell::new(Some(lock.write(KEY))));
    let third = lock.read(KEY);
    let inside = second.clone();
    clock.reactor().call_soon(move || {
        drop(first);
        let second = inside.take().unwrap();
        assert_no_result(&second);
        second.cancel();
        assert!(failure_result_of(second).is::<CancelledError>());
    });
    clock.pump();
    drop(success_result_of(third));
    assert_eq!(lock.held_key_count(), 0);
}

#[test]
fn waiters_that_are_dropped_are_passed_over() {
    let lock = ReadWriteLock::new();
    let first = success_result_of(lock.write(KEY));
    drop((lock.read(KEY), lock.write(KEY)));
    let last = lock.write(KEY);
    drop(first);
    drop(success_result_of(last));
    assert_eq!(lock.held_key_count(), 0);
}

#[test]
fn thousands_who_finish_at_once_do_not_nest_and_keep_their_order() {
    let clock = Clock::new();
    let lock = ReadWriteLock::new();
    let first = success_result_of(lock.write(KEY));
    let order: Rc<RefCell<Vec<usize>>> = Rc::default();
    for number in 0..20_000 {
        let order = order.clone();
        if number % 3 == 0 {
            let wrote = lock.write(KEY).add_callback(move |_guard| {
                order.borrow_mut().push(number);
                Ok(())
            });
            wrote.detach();
        } else {
            let read = lock.read(KEY).add_callback(move |_guard| {
                order.borrow_mut().push(number);
                Ok(())
            });
            read.detach();
        }
    }
    drop(first);
    clock.pump();
    assert!(order.borrow().iter().copied().eq(0..20_000));
    assert_eq!(lock.held_key_count(), 0);
}

#[test]
fn a_waiter_goes_on_in_its_own_context() {
    let lock = ReadWriteLock::new();
    let first = LogContext::new("one").run(|| success_result_of(lock.write(KEY)));
    let second = LogContext::new("two")
        .run(|| lock.read(KEY).add_callback(|_guard| Ok(LogContext::current().name().to_owned())));
    LogContext::new("one").run(|| drop(first));
    assert_eq!(success_result_of(second), "two");
}
