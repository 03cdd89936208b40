//! Cancelling at each place where a chain can be, with each kind of canceller: a table.
//!
//! Each case ends a chain with `end`, which writes `end=` and what came.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::Clock;
use ropewalk::{
    Deferred, DeferredEvent, DeferredLock, DeferredQueue, DeferredSemaphore, Failure, Linearizer,
    ObservableDeferred, ReadWriteLock, Resolver,
};

use crate::deferred::Trace;
use crate::deferred_order::{No, Number, act, check, end, say};

/// A deferred whose canceller writes its name.
fn watched(trace: &Trace, name: &'static str) -> (Number, Resolver<u32>) {
    let trace = trace.clone();
    Deferred::with_canceller(move || trace.add(name))
}

/// A deferred whose canceller does something with its resolver.
fn answering(f: impl FnOnce(Resolver<u32>) + 'static) -> Number {
    let slot = Rc::new(Cell::new(None));
    let inside = slot.clone();
    let (deferred, resolver) = Deferred::with_canceller(move || f(inside.take().unwrap()));
    slot.set(Some(resolver));
    deferred
}

/// Ends the chain, and cancels it so many times.
fn cancel(trace: &Trace, chain: Number, times: u32) {
    let handle = chain.cancel_handle();
    let chain = chain.add_both(end(trace, "end"));
    for _ in 0..times {
        handle.cancel();
    }
    if !chain.is_fired() {
        trace.add("pending");
    }
    chain.detach();
}

#[test]
fn at_each_place_of_a_chain() {
    check(&[
        (
            "before anything has happened",
            |t| {
                let (d, _resolver) = watched(t, "canceller");
                cancel(t, d, 1);
            },
            "canceller end=cancelled",
        ),
        (
            "twice: the second time finds nothing to cancel",
            |t| {
                let (d, _resolver) = watched(t, "canceller");
                cancel(t, d, 2);
            },
            "canceller end=cancelled",
        ),
        (
            "without a canceller",
            |t| {
                let (d, _resolver) = Deferred::new();
                cancel(t, d, 1);
            },
            "end=cancelled",
        ),
        (
            "when it has its result",
            |t| {
                let (d, resolver) = watched(t, "canceller");
                resolver.callback(1);
                cancel(t, d, 1);
            },
            "end=1",
        ),
        (
            "callbacks are skipped, errbacks are not",
            |t| {
                let (d, _resolver) = watched(t, "canceller");
                let trace = t.clone();
                let d = d.add_callback(say(t, "skipped")).add_errback(move |failure| {
                    trace.add("errback");
                    Err(failure)
                });
                cancel(t, d, 1);
            },
            "canceller errback end=cancelled",
        ),
        (
            "waiting on an inner deferred: that one's canceller, not the outer one's",
            |t| {
                let (d, resolver) = watched(t, "outer");
                let (inner, _inner_resolver) = watched(t, "inner");
                let d = d.add_callback(move |_| inner);
                resolver.callback(1);
                cancel(t, d, 1);
            },
            "inner end=cancelled",
        ),
        (
            "waiting two deep",
            |t| {
                let (one, fire_one) = watched(t, "1");
                let (two, fire_two) = watched(t, "2");
                let (three, _never) = watched(t, "3");
                let two = two.add_callback(move |_| three);
                let one = one.add_callback(move |_| two);
                fire_one.callback(1);
                fire_two.callback(2);
                cancel(t, one, 1);
            },
            "3 end=cancelled",
        ),
        (
            "waiting three deep, of which the middle recovers",
            |t| {
                let (one, fire_one) = watched(t, "1");
                let (two, fire_two) = watched(t, "2");
                let (three, fire_three) = watched(t, "3");
                let (four, _never) = watched(t, "4");
                let three = three.add_callback(move |_| four);
                let two = two.add_callback(move |_| three).add_errback(|_| Ok(2));
                let one = one.add_callback(move |_| two).add_callback(say(t, "goes on"));
                fire_one.callback(1);
                fire_two.callback(2);
                fire_three.callback(3);
                cancel(t, one, 1);
            },
            "4 goes on end=2",
        ),
        (
            "waiting on one that it does not see: the inner chain's own wait",
            |t| {
                let (inner, fire_inner) = watched(t, "inner");
                let (innermost, _never) = watched(t, "innermost");
                let inner = inner.add_callback(move |_| innermost);
                fire_inner.callback(1);
                let (outer, fire_outer) = watched(t, "outer");
                let outer = outer.add_callback(move |_| inner);
                fire_outer.callback(1);
                cancel(t, outer, 1);
            },
            "innermost end=cancelled",
        ),
        (
            "an errback that answers by waiting for something else",
            |t| {
                let (d, _resolver) = watched(t, "first");
                let (cleaning, _never) = watched(t, "cleaning");
                let d = d.add_errback(move |_| cleaning);
                cancel(t, d, 1);
            },
            "first pending end=dropped",
        ),
        (
            "and that is cancelled in turn",
            |t| {
                let (d, _resolver) = watched(t, "first");
                let (cleaning, _never) = watched(t, "cleaning");
                let d = d.add_errback(move |_| cleaning);
                cancel(t, d, 2);
            },
            "first cleaning end=cancelled",
        ),
        (
            "an inner deferred that others wait for too: only this observer goes",
            |t| {
                let (work, _resolver) = watched(t, "work");
                let shared = ObservableDeferred::new(work);
                shared.observe().add_both(end(t, "other")).detach();
                let (d, fire) = Deferred::<u32>::new();
                let mine = shared.observe();
                let d = d.add_callback(move |_| mine);
                fire.callback(1);
                cancel(t, d, 1);
                t.add(format!("left:{}", shared.observer_count()));
                shared.cancel();
            },
            "end=cancelled left:1 work other=cancelled",
        ),
    ]);
}

#[test]
fn with_each_kind_of_canceller() {
    check(&[
        (
            "it gives the value after all",
            |t| cancel(t, answering(|resolver| resolver.callback(5)), 1),
            "end=5",
        ),
        (
            "it fails otherwise",
            |t| cancel(t, answering(|resolver| resolver.errback(No)), 1),
            "end=!no",
        ),
        ("it drops the resolver", |t| cancel(t, answering(drop), 1), "end=cancelled"),
        (
            "it keeps the resolver, which brings its result later: too late",
            |t| {
                let kept = Rc::new(Cell::new(None));
                let inside = kept.clone();
                cancel(t, answering(move |resolver| inside.set(Some(resolver))), 1);
                let resolver: Resolver<u32> = kept.take().unwrap();
                t.add(format!("cancelled:{}", resolver.is_cancelled()));
                resolver.callback(9);
            },
            "end=cancelled cancelled:true",
        ),
        ("it panics", |t| cancel(t, answering(|_| panic!("stuck")), 1), "end=cancelled"),
        (
            "it fires and then panics",
            |t| {
                let d = answering(|resolver| {
                    resolver.callback(5);
                    panic!("after that");
                });
                cancel(t, d, 1);
            },
            "end=5",
        ),
        (
            "it cancels the very chain again",
            |t| {
                let slot = Rc::new(Cell::new(None::<ropewalk::CancelHandle>));
                let (inside, trace) = (slot.clone(), t.clone());
                let (d, _resolver) = Deferred::<u32>::with_canceller(move || {
                    trace.add("canceller");
                    inside.take().unwrap().cancel();
                });
                slot.set(Some(d.cancel_handle()));
                cancel(t, d, 1);
            },
            "canceller end=cancelled",
        ),
        (
            "the last one that was set",
            |t| {
                let (d, resolver) = watched(t, "first");
                let trace = t.clone();
                resolver.set_canceller(move || trace.add("second"));
                cancel(t, d, 1);
            },
            "second end=cancelled",
        ),
        (
            "one that fires an inner deferred whose chain fails it",
            |t| {
                let (outer, fire) = Deferred::<u32>::new();
                let inner = answering(|resolver| resolver.callback(1));
                let inner = inner.add_callback(|_| Err::<u32, _>(No.into()));
                let outer = outer.add_callback(move |_| inner);
                fire.callback(0);
                cancel(t, outer, 1);
            },
            "end=!no",
        ),
    ]);
}

/// A chain that waits for something in a line, and what the line does without it.
#[test]
fn in_a_line_the_place_is_given_up_and_the_others_keep_theirs() {
    fn number<G: 'static>(deferred: Deferred<G>) -> Deferred<(u32, G)> {
        deferred.add_callback(|guard| Ok((1, guard)))
    }
    fn wait<G: 'static>(trace: &Trace, name: &'static str, turn: Deferred<G>) -> Deferred<()> {
        let (start, go) = Deferred::<()>::new();
        let chain = start.add_callback(move |()| number(turn));
        go.callback(());
        let trace = trace.clone();
        chain.add_both(move |outcome| {
            trace.add(match &outcome {
                Ok(_) => name.to_owned(),
                Err(failure) => format!("{name}:{failure}"),
            });
            Ok(())
        })
    }
    /// The second of three who wait behind a holder is cancelled.
    fn three<G: 'static>(t: &Trace, mut turn: impl FnMut() -> Deferred<G>, release: impl FnOnce()) {
        let [a, b, c] = ["a", "b", "c"].map(|name| wait(t, name, turn()));
        b.cancel();
        t.add("release");
        release();
        drop((a, b, c));
    }
    check(&[
        (
            "a lock's",
            |t| {
                let lock = DeferredLock::new();
                let held = lock.acquire().into_result().unwrap().unwrap();
                three(t, || lock.acquire(), || drop(held));
                assert!(!lock.is_locked());
            },
            "b:cancelled release a c",
        ),
        (
            "a semaphore's",
            |t| {
                let semaphore = DeferredSemaphore::new(1);
                let held = semaphore.acquire().into_result().unwrap().unwrap();
                three(t, || semaphore.acquire(), || drop(held));
                assert_eq!(semaphore.held_count(), 0);
            },
            "b:cancelled release a c",
        ),
        (
            "a linearizer's",
            |t| {
                let linearizer = Linearizer::new();
                let held = linearizer.queue("room").into_result().unwrap().unwrap();
                three(t, || linearizer.queue("room"), || drop(held));
                assert_eq!(linearizer.held_key_count(), 0);
            },
            "b:cancelled release a c",
        ),
        (
            "a read-write lock's",
            |t| {
                let lock = ReadWriteLock::new();
                let held = lock.write("room").into_result().unwrap().unwrap();
                three(t, || lock.write("room"), || drop(held));
                assert_eq!(lock.held_key_count(), 0);
            },
            "b:cancelled release a c",
        ),
        (
            "a queue's",
            |t| {
                let queue = DeferredQueue::new(8, 8);
                three(
                    t,
                    || queue.get(),
                    || {
                        for item in 0..2 {
                            queue.put(item).unwrap();
                        }
                    },
                );
                assert!(queue.is_empty());
            },
            "b:cancelled release a c",
        ),
        (
            "an event's",
            |t| {
                let event = DeferredEvent::new();
                three(t, || event.wait(), || event.set());
                assert_eq!(event.waiting_count(), 0);
            },
            "b:cancelled release a c",
        ),
    ]);
}

/// A task that awaits `first`, and then does with the outcome what `then` says.
fn task(
    clock: &Clock,
    trace: &Trace,
    first: Number,
    then: impl AsyncFnOnce(Result<u32, Failure>) -> Result<u32, Failure> + 'static,
) -> Number {
    let trace = trace.clone();
    clock.reactor().spawn(async move {
        let outcome = first.await;
        trace.add(if outcome.is_ok() { "resumed" } else { "told" });
        then(outcome).await
    })
}

#[test]
fn a_task_at_its_await() {
    check(&[
        (
            "passes the cancelling on",
            |t| {
                let clock = Clock::new();
                let (first, _resolver) = watched(t, "canceller");
                let task = task(&clock, t, first, async |outcome| outcome);
                clock.pump();
                cancel(t, task, 1);
                clock.pump();
            },
            "canceller pending told end=cancelled",
        ),
        (
            "recovers",
            |t| {
                let clock = Clock::new();
                let (first, _resolver) = watched(t, "canceller");
                let task = task(&clock, t, first, async |_| Ok(3));
                clock.pump();
                cancel(t, task, 1);
                clock.pump();
            },
            "canceller pending told end=3",
        ),
        (
            "before its first poll: it is dropped",
            |t| {
                let clock = Clock::new();
                let (first, _resolver) = watched(t, "canceller");
                let task = task(&clock, t, first, async |outcome| outcome);
                cancel(t, task, 1);
                clock.pump();
            },
            "end=cancelled",
        ),
        (
            "twice before it could answer: it is dropped",
            |t| {
                let clock = Clock::new();
                let (first, _resolver) = watched(t, "canceller");
                let task = task(&clock, t, first, async |_| Ok(3));
                clock.pump();
                cancel(t, task, 2);
                clock.pump();
            },
            "canceller end=cancelled",
        ),
        (
            "cleaning up: it is dropped",
            |t| {
                let clock = Clock::new();
                let (first, _resolver) = watched(t, "first");
                let (second, _resolver) = watched(t, "second");
                let task = task(&clock, t, first, async |_| second.await);
                clock.pump();
                task.cancel();
                clock.pump();
                cancel(t, task, 1);
                clock.pump();
            },
            "first told end=cancelled",
        ),
        (
            "that awaits a task: the innermost await is told, then each in turn",
            |t| {
                let clock = Clock::new();
                let (first, _resolver) = watched(t, "canceller");
                let inner = task(&clock, t, first, async |outcome| outcome);
                let outer = task(&clock, t, inner, async |_| Ok(4));
                clock.pump();
                cancel(t, outer, 1);
                clock.pump();
            },
            "canceller pending told told end=4",
        ),
        (
            "that awaits a chain which waits for a task",
            |t| {
                let clock = Clock::new();
                let (first, _resolver) = watched(t, "canceller");
                let inner = task(&clock, t, first, async |outcome| outcome);
                let (start, go) = Deferred::<u32>::new();
                let chain = start.add_callback(act(t, "chain", move |_| inner));
                go.callback(0);
                let outer = task(&clock, t, chain, async |outcome| outcome);
                clock.pump();
                cancel(t, outer, 1);
                clock.pump();
            },
            "chain canceller pending told told end=cancelled",
        ),
        (
            "that sleeps",
            |t| {
                let clock = Clock::new();
                let reactor = clock.reactor().clone();
                let sleeper = clock.reactor().spawn(async move {
                    let (nap, wake) = Deferred::<u32>::new();
                    let call = reactor.call_later(Duration::from_secs(9), || wake.callback(1));
                    let outcome = nap.await;
                    call.cancel();
                    outcome
                });
                clock.pump();
                cancel(t, sleeper, 1);
                clock.pump();
                t.add(format!("calls:{}", clock.pending_calls()));
            },
            "pending end=cancelled calls:0",
        ),
        (
            "that has ended",
            |t| {
                let clock = Clock::new();
                let task = task(&clock, t, Deferred::succeed(1), async |outcome| outcome);
                clock.pump();
                cancel(t, task, 1);
            },
            "resumed end=1",
        ),
    ]);
}
