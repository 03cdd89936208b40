//! Helpers that decide how much happens at a time, in which order, and what a cancellation reaches.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{
    Clock, UnhandledErrors, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{
    BackgroundQueue, BatchingQueue, CancelledError, Deferred, Failure, LogContext, Panicked,
    QueueOverflow, Resolver, concurrently_execute,
};

use crate::support::{Diary, note, read};

/// Work that ends when the test says so.
#[derive(Clone, Default)]
struct Works<T: 'static>(Rc<RefCell<VecDeque<Resolver<T>>>>, Diary);

impl<T: 'static> Works<T> {
    fn begin(&self, name: &str) -> Deferred<T> {
        note(&self.1, format!("begin {name}"));
        let (diary, cancelled) = (self.1.clone(), name.to_owned());
        let (deferred, resolver) =
            Deferred::with_canceller(move || note(&diary, format!("cancel {cancelled}")));
        self.0.borrow_mut().push_back(resolver);
        deferred
    }

    fn diary(&self) -> Vec<String> {
        read(&self.1)
    }

    /// Takes the resolver of the oldest work that has not been taken.
    fn oldest(&self) -> Resolver<T> {
        self.0.borrow_mut().pop_front().expect("some work is under way")
    }
}

#[test]
fn at_most_so_many_are_under_way_and_the_next_begins_when_one_is_done() {
    let works = Works::<()>::default();
    let begin = works.clone();
    let all = concurrently_execute(2, ["a", "b", "c", "d"], move |name| begin.begin(name));
    assert_eq!(works.diary(), ["begin a", "begin b"]);
    works.oldest().callback(());
    assert_eq!(works.diary(), ["begin c"]);
    works.oldest().callback(());
    assert_eq!(works.diary(), ["begin d"]);
    works.oldest().callback(());
    assert_no_result(&all);
    works.oldest().callback(());
    success_result_of(all);
}

#[test]
fn many_that_have_their_results_at_once_do_not_nest() {
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    success_result_of(concurrently_execute(3, 0..1_000_000, move |_| {
        counted.set(counted.get() + 1);
        Ok(())
    }));
    assert_eq!(count.get(), 1_000_000);
    success_result_of(concurrently_execute(3, std::iter::empty::<()>(), |()| Ok(())));
}

#[test]
fn the_first_failure_comes_at_once_and_the_other_lanes_go_on_to_the_end() {
    let unhandled = UnhandledErrors::trap();
    let works = Works::<()>::default();
    let begin = works.clone();
    let all = concurrently_execute(2, ["a", "b", "c", "d"], move |name| begin.begin(name));
    works.oldest().errback(std::fmt::Error);
    assert!(failure_result_of(all).is::<std::fmt::Error>());
    assert_eq!(works.diary(), ["begin a", "begin b"]);
    works.oldest().callback(());
    works.oldest().callback(());
    assert_eq!(works.diary(), ["begin c", "begin d"]);
    works.oldest().errback(std::fmt::Error);
    assert_eq!(unhandled.take().len(), 0);
}

#[test]
fn a_panic_is_a_failure_and_one_of_the_iterator_ends_it() {
    let all = concurrently_execute(1, 0..3, |_| -> Result<(), Failure> { panic!("in the middle") });
    assert!(failure_result_of(all).is::<Panicked>());
    let broken = (0..3).map(|number| assert!(number < 1, "no more numbers"));
    let all = concurrently_execute(2, broken, |()| Ok(()));
    assert!(failure_result_of(all).is::<Panicked>());
}

#[test]
fn cancelling_cancels_what_is_under_way_and_begins_no_more() {
    let works = Works::<()>::default();
    let begin = works.clone();
    let all = concurrently_execute(2, ["a", "b", "c"], move |name| begin.begin(name));
    all.cancel();
    assert!(failure_result_of(all).is::<CancelledError>());
    assert_eq!(works.diary(), ["begin a", "begin b", "cancel a", "cancel b"]);
}

#[test]
fn cancelling_from_inside_the_function_cancels_what_it_gives() {
    let works = Works::<()>::default();
    let handle = Rc::new(RefCell::new(None::<ropewalk::CancelHandle>));
    let (begin, inside) = (works.clone(), handle.clone());
    let all = concurrently_execute(1, ["a", "b", "c"], move |name| {
        if name == "b" {
            inside.borrow().as_ref().unwrap().cancel();
        }
        begin.begin(name)
    });
    handle.replace(Some(all.cancel_handle()));
    works.oldest().callback(());
    assert!(failure_result_of(all).is::<CancelledError>());
    assert_eq!(works.diary(), ["begin a", "begin b", "cancel b"]);
}

#[test]
fn a_shielded_cancellation_fails_the_shield_and_leaves_the_work() {
    let unhandled = UnhandledErrors::trap();
    let works = Works::<u32>::default();
    let shielded = works.begin("a").stop_cancellation();
    shielded.cancel();
    assert!(failure_result_of(shielded).is::<CancelledError>());
    works.oldest().callback(1);
    let failing = works.begin("b").stop_cancellation();
    failing.cancel();
    assert!(failure_result_of(failing).is::<CancelledError>());
    works.oldest().errback(std::fmt::Error);
    assert_eq!(unhandled.take().len(), 1, "nobody else could have handled it");
    assert_eq!(works.diary(), ["begin a", "begin b"]);
}

#[test]
fn without_a_cancellation_the_shields_pass_everything_on() {
    let shields: [fn(Deferred<u32>) -> Deferred<u32>; 2] =
        [Deferred::stop_cancellation, Deferred::delay_cancellation];
    for shield in shields {
        assert_eq!(success_result_of(shield(Deferred::succeed(1))), 1);
        let works = Works::<u32>::default();
        let (good, bad) = (shield(works.begin("a")), shield(works.begin("b")));
        works.oldest().callback(2);
        works.oldest().errback(std::fmt::Error);
        assert_eq!(success_result_of(good), 2);
        assert!(failure_result_of(bad).is::<std::fmt::Error>());
    }
}

#[test]
fn a_delayed_cancellation_is_told_when_the_work_has_ended() {
    let unhandled = UnhandledErrors::trap();
    let works = Works::<u32>::default();
    let (good, bad) =
        (works.begin("a").delay_cancellation(), works.begin("b").delay_cancellation());
    for _ in 0..3 {
        good.cancel();
        bad.cancel();
    }
    assert_no_result(&good);
    works.oldest().callback(1);
    assert!(failure_result_of(good).is::<CancelledError>());
    assert_no_result(&bad);
    works.oldest().errback(std::fmt::Error);
    assert!(failure_result_of(bad).is::<CancelledError>());
    assert_eq!(unhandled.take().len(), 1, "nobody else could have handled it");
    assert_eq!(works.diary(), ["begin a", "begin b"]);
}

#[test]
fn values_of_the_same_turn_share_a_pass_and_later_ones_wait_for_the_next() {
    let clock = Clock::new();
    let works = Works::<&str>::default();
    let begin = works.clone();
    let queue = BatchingQueue::new(clock.reactor(), "batch", move |key: &u8, values: Vec<u32>| {
        begin.begin(&format!("{key}: {values:?}"))
    });
    let early = [queue.add(1, 10), queue.add(1, 11)];
    let other_key = queue.add(2, 20);
    assert_eq!(works.diary(), [""; 0], "a pass starts in the next turn");
    clock.pump();
    assert_eq!(works.diary(), ["begin 1: [10, 11]", "begin 2: [20]"]);
    let late = [queue.add(1, 12), queue.add(1, 13)];
    clock.pump();
    assert_eq!(queue.waiting_count(&1), 2);
    works.oldest().callback("first");
    works.oldest().callback("other key");
    clock.pump();
    assert_eq!(early.map(success_result_of), ["first"; 2]);
    assert_eq!(success_result_of(other_key), "other key");
    assert_eq!(works.diary(), ["begin 1: [12, 13]"]);
    works.oldest().errback(std::fmt::Error);
    clock.pump();
    assert!(late.map(failure_result_of).iter().all(Failure::is::<std::fmt::Error>));
    assert_eq!((clock.pending_tasks(), clock.pending_calls()), (0, 0));
}

#[test]
fn a_value_whose_caller_is_cancelled_is_taken_back_until_its_pass_begins() {
    let clock = Clock::new();
    let works = Works::<()>::default();
    let begin = works.clone();
    let queue = BatchingQueue::new(clock.reactor(), "batch", move |(): &(), values: Vec<u32>| {
        begin.begin(&format!("{values:?}"))
    })
    .with_batch_max(2);
    let mut added: Vec<_> = (1..=4).map(|value| queue.add((), value)).collect();
    let second = added.remove(1);
    second.cancel();
    assert!(failure_result_of(second).is::<CancelledError>());
    clock.pump();
    assert_eq!(works.diary(), ["begin [1, 3]"], "no more than two a pass");
    let first = added.remove(0);
    first.cancel();
    assert!(failure_result_of(first).is::<CancelledError>());
    works.oldest().callback(());
    clock.pump();
    success_result_of(added.remove(0));
    assert_eq!(works.diary(), ["begin [4]"], "the pass of the first was left alone");
    drop(added);
}

#[test]
fn a_pass_runs_in_a_context_of_its_own_and_its_callers_in_theirs() {
    let clock = Clock::new();
    let queue = BatchingQueue::new(clock.reactor(), "batch", |(): &(), _: Vec<()>| {
        Ok(LogContext::current().name().to_owned())
    });
    let names = LogContext::new("caller").run(|| {
        queue.add((), ()).add_callback(|name| Ok((name, LogContext::current().name().to_owned())))
    });
    clock.pump();
    let (pass, caller) = success_result_of(names);
    assert!(pass.starts_with("batch-"), "{pass}");
    assert_eq!(caller, "caller");
}

#[test]
fn who_waits_for_a_batch_hears_when_the_reactor_stops() {
    let clock = Clock::new();
    let queue = BatchingQueue::new(clock.reactor(), "batch", |(): &(), _: Vec<()>| Ok(()));
    let waiting = queue.add((), ());
    drop(clock);
    assert!(failure_result_of(waiting).is::<CancelledError>());
    assert!(failure_result_of(queue.add((), ())).is::<CancelledError>());
}

#[test]
fn items_of_a_key_are_processed_in_order_one_at_a_time_and_keys_apart() {
    let clock = Clock::new();
    let works = Works::<u32>::default();
    let begin = works.clone();
    let queue = BackgroundQueue::new(clock.reactor(), "work", move |key: &&str, item: u32| {
        begin.begin(&format!("{key}{item}"))
    });
    let (first, second) = (queue.put("a", 1), queue.put("a", 2));
    let other = queue.put("b", 1);
    clock.pump();
    assert_eq!(works.diary(), ["begin a1", "begin b1"]);
    assert_eq!((queue.waiting_count(&"a"), queue.active_key_count()), (1, 2));
    works.oldest().errback(std::fmt::Error);
    clock.pump();
    assert!(failure_result_of(first).is::<std::fmt::Error>());
    assert_eq!(works.diary(), ["begin a2"], "a failure concerns its item only");
    works.oldest().callback(10);
    works.oldest().callback(20);
    clock.pump();
    assert_eq!((success_result_of(other), success_result_of(second)), (10, 20));
    assert_eq!((queue.active_key_count(), clock.pending_tasks()), (0, 0));
}

#[test]
fn cancelling_an_item_takes_it_out_of_the_line_or_cancels_its_work() {
    let clock = Clock::new();
    let works = Works::<()>::default();
    let begin = works.clone();
    let queue = BackgroundQueue::new(clock.reactor(), "work", move |(): &(), item: u32| {
        begin.begin(&item.to_string())
    });
    let [first, second, third] = [1, 2, 3].map(|item| queue.put((), item));
    clock.pump();
    second.cancel();
    assert!(failure_result_of(second).is::<CancelledError>());
    first.cancel();
    assert!(failure_result_of(first).is::<CancelledError>());
    clock.pump();
    assert_eq!(works.diary(), ["begin 1", "cancel 1", "begin 3"]);
    works.oldest();
    works.oldest().callback(());
    clock.pump();
    success_result_of(third);
}

#[test]
fn a_background_queue_has_a_bound_and_lets_others_have_their_turns() {
    let clock = Clock::new();
    let done = Rc::new(Cell::new(0));
    let counted = done.clone();
    let queue = BackgroundQueue::new(clock.reactor(), "work", move |(): &(), (): ()| {
        counted.set(counted.get() + 1);
        Ok(())
    })
    .with_waiting_max(1000);
    for _ in 0..1000 {
        queue.put((), ()).detach();
    }
    let failure = failure_result_of(queue.put((), ()));
    assert_eq!(failure.downcast_ref(), Some(&QueueOverflow { size_max: 1000 }));
    let done_before_timer = Rc::new(Cell::new(0));
    let (noted, done_so_far) = (done_before_timer.clone(), done.clone());
    let reactor = clock.reactor().clone();
    // Not due before the loop turns, and the queue has begun by then.
    clock.reactor().call_soon(move || {
        reactor.call_later(Duration::ZERO, move || noted.set(done_so_far.get()));
    });
    clock.pump();
    assert_eq!(done.get(), 1000);
    assert!(done_before_timer.get() < 1000, "the timer came in between");
}

#[test]
fn items_run_in_a_context_of_the_queue_and_hear_when_the_reactor_stops() {
    let clock = Clock::new();
    let (never, _resolver) = Deferred::<String>::new();
    let never = RefCell::new(Some(never));
    let queue = BackgroundQueue::new(clock.reactor(), "work", move |(): &(), waits: bool| {
        let name = LogContext::current().name().to_owned();
        if waits { never.take().unwrap() } else { Deferred::succeed(name) }
    });
    let named = LogContext::new("caller").run(|| queue.put((), false));
    let (running, waiting) = (queue.put((), true), queue.put((), false));
    clock.pump();
    assert!(success_result_of(named).starts_with("work-"));
    drop(clock);
    assert!(failure_result_of(waiting).is::<CancelledError>());
    drop(running);
}

#[test]
fn a_call_that_is_deferred_can_be_cancelled_before_and_while_it_waits() {
    let clock = Clock::new();
    let works = Works::<()>::default();
    let (begin, second) = (works.clone(), works.clone());
    let early = clock.reactor().defer_later(Duration::from_secs(1), move || begin.begin("early"));
    let late = clock.reactor().defer_later(Duration::from_secs(1), move || second.begin("late"));
    early.cancel();
    assert!(failure_result_of(early).is::<CancelledError>());
    assert_eq!(clock.pending_calls(), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(works.diary(), ["begin late"]);
    late.cancel();
    assert!(failure_result_of(late).is::<CancelledError>());
    assert_eq!(works.diary(), ["cancel late"]);
}

#[test]
fn a_deferred_call_runs_in_its_context_and_hears_when_the_reactor_stops() {
    let clock = Clock::new();
    let named = LogContext::new("request").run(|| {
        clock.reactor().defer_later(Duration::ZERO, || Ok(LogContext::current().name().to_owned()))
    });
    clock.pump();
    assert_eq!(success_result_of(named), "request");
    let never = clock.reactor().defer_later(Duration::MAX, || Ok(()));
    let reactor = clock.reactor().clone();
    drop(clock);
    assert!(failure_result_of(never).is::<CancelledError>());
    let too_late = reactor.defer_later(Duration::ZERO, || Ok(()));
    assert!(failure_result_of(too_late).is::<CancelledError>());
}

#[test]
fn a_task_that_sleeps_can_be_cancelled() {
    let clock = Clock::new();
    let reactor = clock.reactor().clone();
    let task = clock.reactor().spawn(async move {
        let outcome = reactor.defer_later(Duration::from_secs(9), || Ok(())).await;
        Ok(outcome.is_err_and(|failure| failure.is::<CancelledError>()))
    });
    clock.pump();
    task.cancel();
    clock.pump();
    assert!(success_result_of(task));
    assert_eq!(clock.pending_calls(), 0);
}
