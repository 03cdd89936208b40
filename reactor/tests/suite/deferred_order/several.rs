//! The order in which several get their turn: tasks, observers, the members of a list.

use ropewalk::testing::Clock;
use ropewalk::{Deferred, DeferredList, ObservableDeferred, Resolver, gather_results, race};

use super::{No, Number, act, check, end, say, slot};
use crate::deferred::Trace;

/// A task that writes its name, awaits, and writes what came.
fn task(clock: &Clock, trace: &Trace, name: &'static str, awaited: Number) -> Number {
    let trace = trace.clone();
    clock.reactor().spawn(async move {
        trace.add(name);
        let n = awaited.await?;
        trace.add(format!("{name}={n}"));
        Ok(n)
    })
}

#[test]
fn tasks_run_after_the_current_callback_in_the_order_in_which_they_were_woken() {
    check(&[
        (
            "spawned: first polled in the order of spawning",
            |t| {
                let clock = Clock::new();
                let tasks = ["a", "b", "c"].map(|name| task(&clock, t, name, Deferred::succeed(1)));
                t.add("spawned");
                clock.pump();
                drop(tasks);
            },
            "spawned a a=1 b b=1 c c=1",
        ),
        (
            "woken: in the order of firing, not of spawning",
            |t| {
                let clock = Clock::new();
                let (one, fire_one) = Deferred::new();
                let (two, fire_two) = Deferred::new();
                let tasks = [task(&clock, t, "a", one), task(&clock, t, "b", two)];
                clock.pump();
                fire_two.callback(2);
                fire_one.callback(1);
                t.add("fired");
                clock.pump();
                drop(tasks);
            },
            "a b fired b=2 a=1",
        ),
        (
            "the callbacks of a task's deferred run within its last poll, before the next task",
            |t| {
                let clock = Clock::new();
                let a = task(&clock, t, "a", Deferred::succeed(1)).add_callback(say(t, "a'"));
                let b = task(&clock, t, "b", Deferred::succeed(2)).add_callback(say(t, "b'"));
                clock.pump();
                drop((a, b));
            },
            "a a=1 a' b b=2 b'",
        ),
        (
            "a task that awaits a task",
            |t| {
                let clock = Clock::new();
                let (gate, open) = Deferred::new();
                let inner = task(&clock, t, "inner", gate);
                let outer = task(&clock, t, "outer", inner);
                clock.pump();
                open.callback(7);
                t.add("opened");
                clock.pump();
                drop(outer);
            },
            "inner outer opened inner=7 outer=7",
        ),
        (
            "a task spawned by a task comes behind those that are ready",
            |t| {
                let clock = Clock::new();
                let (reactor, trace) = (clock.reactor().clone(), t.clone());
                let a = clock.reactor().spawn(async move {
                    trace.add("a");
                    let inside = trace.clone();
                    let child = reactor.spawn(async move {
                        inside.add("child");
                        Ok(())
                    });
                    child.await?;
                    trace.add("a'");
                    Ok(())
                });
                let b = task(&clock, t, "b", Deferred::succeed(1));
                clock.pump();
                drop((a, b));
            },
            "a b b=1 child a'",
        ),
        (
            "a chain that a task's deferred is returned to goes on in the task's last poll",
            |t| {
                let clock = Clock::new();
                let (gate, open) = Deferred::new();
                let inner = task(&clock, t, "task", gate);
                let (outer, start) = Deferred::<u32>::new();
                let outer = outer.add_callback(act(t, "o", move |_| inner)).add_both(end(t, "o2"));
                start.callback(0);
                clock.pump();
                open.callback(7);
                t.add("opened");
                clock.pump();
                drop(outer);
            },
            "o task opened task=7 o2=7",
        ),
    ]);
}

#[test]
fn several_who_wait_for_one_hear_of_it_in_the_order_in_which_they_came() {
    check(&[
        (
            "observers with callbacks, each chain to its end",
            |t| {
                let (d, r) = Deferred::new();
                let shared = ObservableDeferred::new(d);
                for (first, second) in [("a", "a'"), ("b", "b'")] {
                    shared
                        .observe()
                        .add_callback(say(t, first))
                        .add_callback(say(t, second))
                        .detach();
                }
                r.callback(1);
                shared.observe().add_callback(say(t, "late")).detach();
            },
            "a a' b b' late",
        ),
        (
            "observers that are tasks",
            |t| {
                let clock = Clock::new();
                let (d, r) = Deferred::new();
                let shared = ObservableDeferred::new(d);
                let tasks = ["a", "b", "c"].map(|name| task(&clock, t, name, shared.observe()));
                clock.pump();
                r.callback(1);
                shared.observe().add_callback(say(t, "callback")).detach();
                clock.pump();
                drop(tasks);
            },
            "a b c callback a=1 b=1 c=1",
        ),
        (
            "an observer that cancels the next one",
            |t| {
                let (d, r) = Deferred::new();
                let shared = ObservableDeferred::new(d);
                let kept = slot::<Deferred<()>>();
                let inside = kept.clone();
                shared
                    .observe()
                    .add_callback(act(t, "a(", move |_: u32| {
                        let next: Deferred<()> = inside.take().expect("put there below");
                        next.cancel();
                        next.detach();
                        Ok(())
                    }))
                    .detach();
                *kept.borrow_mut() = Some(shared.observe().add_both(end(t, "b")));
                r.callback(1);
            },
            "a( b=cancelled",
        ),
    ]);
}

#[test]
fn lists_fire_within_the_call_that_brings_the_last_result_they_need() {
    fn three() -> (Vec<Number>, [Resolver<u32>; 3]) {
        let (deferreds, resolvers): (Vec<_>, Vec<_>) = (0..3).map(|_| Deferred::new()).unzip();
        (deferreds, resolvers.try_into().unwrap_or_else(|_| unreachable!("three were made")))
    }
    check(&[
        (
            "gathering: with the last value",
            |t| {
                let (deferreds, [a, b, c]) = three();
                let all = gather_results(deferreds)
                    .add_callback(|all| Ok(all.iter().sum()))
                    .add_both(end(t, "sum"));
                for (name, resolver) in [("c", c), ("a", a), ("b", b)] {
                    t.add(name);
                    resolver.callback(1);
                }
                t.add("fired");
                drop(all);
            },
            "c a b sum=3 fired",
        ),
        (
            "gathering: with the first failure",
            |t| {
                let (deferreds, [a, b, c]) = three();
                let all = gather_results(deferreds)
                    .add_callback(|all| Ok(all.iter().sum()))
                    .add_both(end(t, "sum"));
                c.callback(1);
                a.errback(No);
                t.add("failed");
                b.callback(1);
                drop(all);
            },
            "sum=!no failed",
        ),
        (
            "a race: the losers are cancelled before the winner is told",
            |t| {
                let (mut deferreds, [a, b, c]) = three();
                let loser = deferreds.remove(0).add_errback({
                    let trace = t.clone();
                    move |failure| {
                        trace.add("loser");
                        Err(failure)
                    }
                });
                deferreds.insert(0, loser);
                let winner = race(deferreds).add_callback(|(_, n)| Ok(n)).add_both(end(t, "won"));
                b.callback(2);
                drop((a, c, winner));
            },
            "loser won=2",
        ),
        (
            "the first of a list: with the first value, whatever failed before",
            |t| {
                let (deferreds, [a, b, c]) = three();
                let first = DeferredList::new(deferreds)
                    .consume_errors()
                    .first()
                    .add_callback(|(_, n)| Ok(n))
                    .add_both(end(t, "first"));
                a.errback(No);
                t.add("failed");
                c.callback(3);
                b.callback(2);
                drop(first);
            },
            "failed first=3",
        ),
    ]);
}
