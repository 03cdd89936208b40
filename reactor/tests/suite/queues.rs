//! Queues and events: order, bounds in both directions, cancelling, nesting.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{
    CancelledError, Deferred, DeferredEvent, DeferredQueue, LogContext, QueueOverflow,
    QueueUnderflow,
};

#[test]
fn items_are_got_in_the_order_in_which_they_were_put() {
    let queue = DeferredQueue::new(3, 2);
    for item in 1..=3 {
        queue.put(item).unwrap();
    }
    assert!(queue.is_full());
    assert_eq!(queue.put(4), Err(QueueOverflow { size_max: 3 }));
    assert_eq!(success_result_of(queue.get()), 1);
    queue.put(5).unwrap();
    let rest: Vec<i32> = std::iter::from_fn(|| queue.try_get()).collect();
    assert_eq!(rest, [2, 3, 5]);
    assert!(queue.is_empty());
}

#[test]
fn callers_get_items_in_the_order_in_which_they_came_and_only_so_many_may_wait() {
    let queue = DeferredQueue::new(0, 2);
    let (first, second) = (queue.get(), queue.get());
    let failure = failure_result_of(queue.get());
    assert_eq!(failure.downcast_ref(), Some(&QueueUnderflow { backlog_max: 2 }));
    assert_eq!(queue.waiting_count(), 2);
    queue.put("a").unwrap();
    assert_eq!(success_result_of(first), "a");
    assert_no_result(&second);
    queue.put("b").unwrap();
    assert_eq!(success_result_of(second), "b");
    assert_eq!(queue.put("c"), Err(QueueOverflow { size_max: 0 }), "nobody waits for it");
}

#[test]
fn cancelling_in_the_line_leaves_the_item_to_the_next() {
    let queue = DeferredQueue::new(1, 9);
    let (first, second, third) = (queue.get(), queue.get(), queue.get());
    second.cancel();
    assert!(failure_result_of(second).is::<CancelledError>());
    first.cancel();
    queue.put("a").unwrap();
    assert!(failure_result_of(first).is::<CancelledError>());
    assert_eq!(success_result_of(third), "a");
}

#[test]
fn an_item_whose_caller_goes_while_it_is_on_its_way_is_not_lost() {
    let clock = Clock::new();
    let queue = DeferredQueue::new(1, 9);
    let cancelled = Rc::new(Cell::new(Some(queue.get())));
    let dropped = Rc::new(Cell::new(Some(queue.get())));
    let (handle, first, second) = (queue.clone(), cancelled.clone(), dropped.clone());
    clock.reactor().call_soon(move || {
        handle.put("a").unwrap();
        assert_eq!(handle.try_get(), None, "it is promised");
        assert!(handle.is_empty());
        let first = first.take().unwrap();
        first.cancel();
        first.add_errback(|_| Ok("")).detach();
        drop(second.take());
    });
    clock.pump();
    assert_eq!(success_result_of(queue.get()), "a");
}

#[test]
fn callers_that_have_dropped_their_deferreds_do_not_fill_the_line() {
    let queue = DeferredQueue::new(1, 1);
    for _ in 0..3 {
        drop(queue.get());
    }
    let waiting = queue.get();
    queue.put(1).unwrap();
    assert_eq!(success_result_of(waiting), 1);
}

#[test]
fn who_puts_later_waits_for_room_in_order() {
    let clock = Clock::new();
    let queue = DeferredQueue::new(1, 1);
    success_result_of(queue.put_later(1));
    let (second, third, fourth) = (queue.put_later(2), queue.put_later(3), queue.put_later(4));
    assert!(queue.put(5).is_err(), "others wait for room already");
    third.cancel();
    assert!(failure_result_of(third).is::<CancelledError>());
    assert_eq!(success_result_of(queue.get()), 1);
    clock.pump();
    success_result_of(second);
    assert_no_result(&fourth);
    assert_eq!(success_result_of(queue.get()), 2);
    assert_eq!(success_result_of(queue.get()), 4, "the third was taken back");
    success_result_of(fourth);
}

#[test]
fn a_queue_without_room_hands_over_from_one_to_the_other() {
    let clock = Clock::new();
    let queue = DeferredQueue::new(0, 1);
    let put = queue.put_later("a");
    clock.pump();
    assert_no_result(&put);
    let got = queue.get();
    clock.pump();
    assert_eq!(success_result_of(got), "a");
    success_result_of(put);
}

#[test]
fn cancelling_what_has_been_put_already_comes_too_late() {
    let clock = Clock::new();
    let queue = DeferredQueue::new(1, 1);
    queue.put(1).unwrap();
    let put = Rc::new(Cell::new(Some(queue.put_later(2))));
    let (handle, inside) = (queue.clone(), put.clone());
    clock.reactor().call_soon(move || {
        assert_eq!(handle.try_get(), Some(1));
        let put = inside.take().unwrap();
        put.cancel();
        inside.set(Some(put));
    });
    clock.pump();
    success_result_of(put.take().unwrap());
    assert_eq!(queue.try_get(), Some(2));
}

#[test]
fn two_who_feed_each_other_do_not_nest() {
    fn bounce(from: DeferredQueue<u32>, to: DeferredQueue<u32>) {
        let (next_from, next_to) = (from.clone(), to.clone());
        from.get()
            .add_callback(move |count| {
                if count > 0 {
                    bounce(next_from, next_to.clone());
                    next_to.put(count - 1)?;
                }
                Ok(())
            })
            .detach();
    }
    let clock = Clock::new();
    let (left, right) = (DeferredQueue::new(1, 1), DeferredQueue::new(1, 1));
    bounce(left.clone(), right.clone());
    bounce(right.clone(), left.clone());
    left.put(100_000).unwrap();
    clock.pump();
    // One of the two has stopped asking.
    assert_eq!(left.waiting_count() + right.waiting_count(), 1);
}

#[test]
fn an_item_is_got_in_the_context_of_whoever_asked() {
    let queue = DeferredQueue::new(1, 1);
    let got = LogContext::new("consumer")
        .run(|| queue.get().add_callback(|()| Ok(LogContext::current().name().to_owned())));
    LogContext::new("producer").run(|| queue.put(())).unwrap();
    assert_eq!(success_result_of(got), "consumer");
}

#[test]
fn an_event_lets_everybody_go_on_in_order_and_whoever_comes_later_at_once() {
    let event = DeferredEvent::new();
    let seen: Rc<RefCell<Vec<u32>>> = Rc::default();
    for number in 1..=3 {
        let seen = seen.clone();
        event
            .wait()
            .add_callback(move |()| {
                seen.borrow_mut().push(number);
                Ok(())
            })
            .detach();
    }
    let gone = event.wait();
    gone.cancel();
    assert!(failure_result_of(gone).is::<CancelledError>());
    assert_eq!(event.waiting_count(), 3);
    event.set();
    assert_eq!(*seen.borrow(), [1, 2, 3]);
    success_result_of(event.wait());
    event.clear();
    assert!(!event.is_set());
    let waiting = event.wait();
    assert_no_result(&waiting);
    event.set();
    event.set();
    success_result_of(waiting);
}

#[test]
fn those_who_wait_go_on_even_if_the_first_of_them_clears_the_event() {
    let event = DeferredEvent::new();
    let again: Rc<Cell<Option<Deferred<()>>>> = Rc::default();
    let (handle, slot) = (event.clone(), again.clone());
    event
        .wait()
        .add_callback(move |()| {
            handle.clear();
            slot.set(Some(handle.wait()));
            Ok(())
        })
        .detach();
    let second = event.wait();
    event.set();
    success_result_of(second);
    let again = again.take().unwrap();
    assert_no_result(&again);
    event.set();
    success_result_of(again);
}

#[test]
fn one_who_waits_for_an_event_may_cancel_another() {
    let event = DeferredEvent::new();
    let other: Rc<Cell<Option<Deferred<()>>>> = Rc::default();
    let slot = other.clone();
    let first = event.wait().add_callback(move |()| {
        let other = slot.take().unwrap();
        other.cancel();
        assert!(failure_result_of(other).is::<CancelledError>());
        Ok(())
    });
    other.set(Some(event.wait()));
    event.set();
    success_result_of(first);
}
