//! Several deferreds at once: lists, races, timeouts, observers.

use std::cell::Cell;
use std::fmt::Error;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::testing::{
    Clock, UnhandledErrors, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{
    CancelledError, Deferred, DeferredList, ObservableDeferred, Panicked, RaceFailed, Resolver,
    TimeoutError, gather_results, maybe_deferred, race,
};

fn pending<T: 'static>(count: usize) -> (Vec<Deferred<T>>, Vec<Resolver<T>>) {
    (0..count).map(|_| Deferred::new()).unzip()
}

#[test]
fn gathered_results_come_in_the_order_of_the_deferreds() {
    let (deferreds, mut resolvers) = pending(3);
    let all = gather_results(deferreds);
    for n in [2, 1, 0] {
        assert_no_result(&all);
        resolvers.remove(n).callback(n);
    }
    assert_eq!(success_result_of(all), [0, 1, 2]);
    assert_eq!(success_result_of(gather_results::<u8>(Vec::new())), []);
}

#[test]
fn gathering_fails_with_the_first_failure_itself_and_swallows_later_ones() {
    let _nothing_unhandled = UnhandledErrors::trap();
    let (deferreds, mut resolvers) = pending::<u8>(3);
    let all = gather_results(deferreds);
    resolvers.remove(1).errback(Error);
    let failure = failure_result_of(all);
    assert!(failure.is::<Error>(), "not wrapped");
    assert!(resolvers.iter().all(|resolver| !resolver.is_cancelled()), "the others go on");
    resolvers.remove(0).errback(Error);
}

#[test]
fn cancelling_what_was_gathered_cancels_all() {
    let (deferreds, resolvers) = pending::<u8>(3);
    let all = gather_results(deferreds);
    all.cancel();
    assert!(failure_result_of(all).is::<CancelledError>());
    assert!(resolvers.iter().all(Resolver::is_cancelled));
}

#[test]
fn a_list_collects_values_and_failures() {
    let (deferreds, mut resolvers) = pending(3);
    let all = DeferredList::new(deferreds).collect();
    resolvers.remove(2).callback(2);
    resolvers.remove(0).errback(Error);
    resolvers.remove(0).callback(1);
    let outcomes = success_result_of(all);
    assert!(outcomes[0].as_ref().is_err_and(|failure| failure.is::<Error>()));
    assert_eq!(outcomes[1..].iter().flatten().collect::<Vec<_>>(), [&1, &2]);
}

#[test]
fn the_first_value_wins_a_race_and_the_losers_are_cancelled() {
    let (deferreds, mut resolvers) = pending(3);
    let winner = race(deferreds);
    resolvers.remove(0).errback(Error);
    assert_no_result(&winner);
    let loser = resolvers.remove(1);
    resolvers.remove(0).callback("won");
    assert_eq!(success_result_of(winner), (1, "won"));
    assert!(loser.is_cancelled());
}

#[test]
fn the_first_of_a_list_leaves_the_others_alone() {
    let (deferreds, mut resolvers) = pending(2);
    let first = DeferredList::new(deferreds).first();
    resolvers.remove(1).callback('b');
    assert_eq!(success_result_of(first), (1, 'b'));
    assert!(!resolvers[0].is_cancelled());
}

#[test]
fn a_race_that_all_lose_fails_with_all_failures() {
    let (deferreds, mut resolvers) = pending::<u8>(2);
    let winner = race(deferreds);
    resolvers.remove(1).errback(CancelledError);
    resolvers.remove(0).errback(Error);
    let failure = failure_result_of(winner);
    let lost = failure.downcast_ref::<RaceFailed>().expect("it is named");
    assert!(lost.failures[0].is::<Error>() && lost.failures[1].is::<CancelledError>());
    let empty = failure_result_of(race::<u8>(Vec::new()));
    assert_eq!(empty.to_string(), "all 0 deferreds failed, the last one with: there were none");
}

#[test]
fn cancelling_a_race_cancels_all_and_fails_with_that() {
    let (deferreds, resolvers) = pending::<u8>(2);
    let winner = race(deferreds);
    winner.cancel();
    assert!(failure_result_of(winner).is::<CancelledError>());
    assert!(resolvers.iter().all(Resolver::is_cancelled));
}

#[test]
fn maybe_deferred_makes_a_deferred_of_anything() {
    assert_eq!(success_result_of(maybe_deferred(|| Ok(1))), 1);
    assert_eq!(success_result_of(maybe_deferred(|| Deferred::succeed(2))), 2);
    let failed = failure_result_of(maybe_deferred(|| Err::<u8, _>(Error.into())));
    assert!(failed.is::<Error>());
    let panicked = failure_result_of(maybe_deferred(|| -> Result<u8, _> { panic!("no") }));
    assert!(panicked.is::<Panicked>());
}

mod timeouts {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn a_result_in_time_passes_through_and_removes_the_timer() {
        let clock = Clock::new();
        let (deferred, resolver) = Deferred::new();
        let limited = deferred.with_timeout(clock.reactor(), LIMIT);
        clock.advance(LIMIT - Duration::from_nanos(1));
        resolver.callback(1);
        assert_eq!(clock.pending_calls(), 0);
        assert_eq!(success_result_of(limited), 1);
    }

    #[test]
    fn a_deferred_that_has_fired_gets_no_timer() {
        let clock = Clock::new();
        let limited = Deferred::succeed(1).with_timeout(clock.reactor(), LIMIT);
        assert_eq!(clock.pending_calls(), 0);
        assert_eq!(success_result_of(limited), 1);
    }

    /// Whatever the canceller does, the deferred ends at the limit.
    #[test]
    fn the_limit_cancels_the_work_and_is_a_timeout_unless_the_work_says_otherwise() {
        type Canceller = fn(Option<Resolver<u32>>);
        let cases: [(&str, Canceller, &str); 5] = [
            ("does nothing", |resolver| drop(resolver), "no result within 5 s"),
            (
                "fails with CancelledError",
                |resolver| resolver.unwrap().errback(CancelledError),
                "no result within 5 s",
            ),
            ("fails otherwise", |resolver| resolver.unwrap().errback(Error), &Error.to_string()),
            ("gives a value after all", |resolver| resolver.unwrap().callback(7), "7"),
            ("panics", |_| panic!("stuck"), "no result within 5 s"),
        ];
        for (why, canceller, expected) in cases {
            let clock = Clock::new();
            let slot = Rc::new(Cell::new(None));
            let inside = slot.clone();
            let (deferred, resolver) = Deferred::with_canceller(move || canceller(inside.take()));
            slot.set(Some(resolver));
            let limited = deferred.with_timeout(clock.reactor(), LIMIT);
            clock.advance(LIMIT);
            let end = match limited.into_result().expect("the time is up") {
                Ok(value) => value.to_string(),
                Err(failure) => {
                    assert_eq!(failure.is::<TimeoutError>(), expected.contains("within"), "{why}");
                    failure.to_string()
                }
            };
            assert_eq!(end, expected, "the canceller {why}");
        }
    }

    #[test]
    fn work_that_ignores_being_cancelled_does_not_defeat_the_limit() {
        let clock = Clock::new();
        let (deferred, _resolver) = Deferred::<u32>::new();
        let (forever, _never) = Deferred::<u32>::new();
        let stubborn = deferred.add_errback(move |_| forever);
        let limited = stubborn.with_timeout(clock.reactor(), LIMIT);
        clock.advance(LIMIT);
        assert!(failure_result_of(limited).is::<TimeoutError>());
    }

    #[test]
    fn cancelling_cancels_the_work_and_the_timer() {
        let clock = Clock::new();
        let (deferred, resolver) = Deferred::<u32>::new();
        let limited = deferred.with_timeout(clock.reactor(), LIMIT);
        limited.cancel();
        assert!(resolver.is_cancelled());
        assert_eq!(clock.pending_calls(), 0);
        assert!(failure_result_of(limited).is::<CancelledError>());
    }
}

mod observers {
    use super::*;

    #[test]
    fn all_get_the_result_in_the_order_in_which_they_came() {
        let order = Rc::new(std::cell::RefCell::new(Vec::new()));
        let (deferred, resolver) = Deferred::new();
        let shared = ObservableDeferred::new(deferred);
        for name in ["first", "second", "third"] {
            let order = order.clone();
            shared
                .observe()
                .add_callback(move |n: u8| {
                    order.borrow_mut().push((name, n));
                    Ok(())
                })
                .detach();
        }
        assert_eq!(shared.observer_count(), 3);
        resolver.callback(4);
        assert_eq!(*order.borrow(), [("first", 4), ("second", 4), ("third", 4)]);
        assert_eq!(success_result_of(shared.observe()), 4, "late ones get it at once");
    }

    #[test]
    fn one_that_panics_or_is_cancelled_does_not_disturb_the_others() {
        let trap = UnhandledErrors::trap();
        let (deferred, resolver) = Deferred::new();
        let shared = ObservableDeferred::new(deferred);
        shared.observe().add_callback(|_| -> Result<(), _> { panic!("mine") }).detach();
        let cancelled = shared.observe();
        let other = shared.observe();
        cancelled.cancel();
        assert!(failure_result_of(cancelled).is::<CancelledError>());
        assert!(!resolver.is_cancelled(), "the work goes on");
        assert_eq!(shared.observer_count(), 2);
        resolver.callback(1);
        assert_eq!(success_result_of(other), 1);
        assert_eq!(trap.take().len(), 1, "the panic is the observer's own affair");
    }

    #[test]
    fn an_observer_may_cancel_one_that_comes_after_it() {
        let (deferred, resolver) = Deferred::new();
        let shared = ObservableDeferred::new(deferred);
        let slot = Rc::new(Cell::new(None::<Deferred<u8>>));
        let inside = slot.clone();
        shared
            .observe()
            .add_callback(move |_| {
                let other = inside.take().expect("the test has put it there");
                other.cancel();
                assert!(failure_result_of(other).is::<CancelledError>());
                Ok(())
            })
            .detach();
        slot.set(Some(shared.observe()));
        resolver.callback(1);
        assert_eq!(shared.observer_count(), 0);
    }

    #[test]
    fn a_failure_is_unhandled_only_if_nobody_observed_it() {
        let trap = UnhandledErrors::trap();
        let context = ropewalk::LogContext::new("GET-3");
        let shared = context.run(|| ObservableDeferred::new(Deferred::<u8>::fail(Error)));
        let line = line!() - 1;
        drop(shared);
        let [report] = trap.take().try_into().expect("one report");
        assert_eq!(report.deferred_created.map(|place| place.line()), Some(line));
        assert_eq!(report.context, "GET-3");
        let shared = ObservableDeferred::new(Deferred::<u8>::fail(Error));
        assert!(failure_result_of(shared.observe()).is::<Error>());
        drop(shared);
        assert!(trap.take().is_empty());
    }

    #[test]
    fn cancelling_the_work_itself_fails_all() {
        let (deferred, resolver) = Deferred::<u8>::new();
        let shared = ObservableDeferred::new(deferred);
        let observers = [shared.observe(), shared.observe()];
        shared.cancel();
        assert!(resolver.is_cancelled());
        for observer in observers {
            assert!(failure_result_of(observer).is::<CancelledError>());
        }
    }
}

/// `DeferredList` has the flags of Twisted's: the first value, the first failure, and who hears of
/// failures that are in no result.
mod list_flags {
    use super::*;

    type Make = fn(DeferredList<u8>) -> Deferred<String>;

    fn collected(list: DeferredList<u8>) -> Deferred<String> {
        list.collect().add_callback(|outcomes| {
            let shown = outcomes.iter().map(|outcome| match outcome {
                Ok(value) => value.to_string(),
                Err(_) => "!".to_owned(),
            });
            Ok(shown.collect::<Vec<_>>().join(","))
        })
    }

    fn first(list: DeferredList<u8>) -> Deferred<String> {
        list.first().add_callback(|(index, value)| Ok(format!("{index}:{value}")))
    }

    /// What three deferreds do, one after the other: a value or a failure of the one at that index.
    #[derive(Clone, Copy)]
    enum Fire {
        Value(usize),
        Failure(usize),
    }

    #[test]
    fn decide_when_the_list_fires_and_which_failures_are_reported() {
        use Fire::{Failure, Value};
        let plain: Make = collected;
        let plain_first: Make = first;
        type Case = (&'static str, Make, [Fire; 3], usize, &'static str, usize);
        let cases: [Case; 10] = [
            ("all values", plain, [Value(2), Value(0), Value(1)], 3, "0,1,2", 0),
            (
                "failures are in the result",
                plain,
                [Failure(0), Value(1), Failure(2)],
                3,
                "!,1,!",
                0,
            ),
            (
                "the first failure fires it, the second is nobody's",
                |list| collected(list.fire_on_one_errback()),
                [Value(0), Failure(2), Failure(1)],
                2,
                "!an error",
                1,
            ),
            (
                "unless errors are consumed",
                |list| collected(list.fire_on_one_errback().consume_errors()),
                [Value(0), Failure(2), Failure(1)],
                2,
                "!an error",
                0,
            ),
            ("the first value", plain_first, [Value(1), Value(0), Value(2)], 1, "1:1", 0),
            (
                "the first value; failures before and after it are nobody's",
                plain_first,
                [Failure(0), Value(1), Failure(2)],
                2,
                "1:1",
                2,
            ),
            (
                "unless errors are consumed",
                |list| first(list.consume_errors()),
                [Failure(0), Value(1), Failure(2)],
                2,
                "1:1",
                0,
            ),
            ("no value at all", plain_first, [Failure(0), Failure(2), Failure(1)], 3, "!all 3", 0),
            (
                "the first value or failure: a failure",
                |list| first(list.fire_on_one_errback()),
                [Failure(0), Value(1), Value(2)],
                1,
                "!an error",
                0,
            ),
            (
                "the first value or failure: a value",
                |list| first(list.fire_on_one_errback()),
                [Value(1), Failure(0), Value(2)],
                1,
                "1:1",
                1,
            ),
        ];
        for (why, make, fires, fires_at, expected, unhandled) in cases {
            let trap = UnhandledErrors::trap();
            let (deferreds, resolvers): (Vec<_>, Vec<_>) =
                (0..3).map(|_| Deferred::<u8>::new()).unzip();
            let mut resolvers: Vec<_> = resolvers.into_iter().map(Some).collect();
            let list = make(DeferredList::new(deferreds));
            for (number, fire) in fires.into_iter().enumerate() {
                assert_eq!(list.is_fired(), number >= fires_at, "{why}, before result {number}");
                match fire {
                    Value(index) => resolvers[index].take().unwrap().callback(index as u8),
                    Failure(index) => resolvers[index].take().unwrap().errback(Error),
                }
            }
            let shown = match list.into_result().expect("it has fired") {
                Ok(text) => text,
                Err(failure) => format!("!{failure}"),
            };
            assert!(shown.starts_with(expected), "{why}: {shown}");
            assert_eq!(trap.take().len(), unhandled, "{why}");
        }
    }

    #[test]
    fn a_list_that_nobody_waits_for_reports_its_failures_with_the_place_where_it_was_made() {
        let trap = UnhandledErrors::trap();
        let (deferreds, mut resolvers) = pending::<u8>(2);
        DeferredList::new(deferreds).collect().detach();
        let line = line!() - 1;
        resolvers.remove(0).errback(Error);
        resolvers.remove(0).callback(1);
        let [report] = trap.take().try_into().expect("one failure");
        assert_eq!(report.deferred_created.map(|place| place.line()), Some(line));
    }

    #[test]
    fn a_cancelled_list_has_what_its_members_made_of_that() {
        let (mut deferreds, _resolvers) = pending::<u8>(2);
        deferreds.push(Deferred::succeed(3));
        let recovering = deferreds.remove(0).add_errback(|_| Ok(1));
        deferreds.insert(0, recovering);
        let list = collected(DeferredList::new(deferreds));
        list.cancel();
        assert_eq!(success_result_of(list), "1,!,3");
    }

    #[test]
    fn a_member_that_ignores_the_cancelling_does_not_hold_the_list() {
        let (forever, _never) = Deferred::<u8>::new();
        let (deferred, _resolver) = Deferred::<u8>::new();
        let list = collected(DeferredList::new(vec![deferred.add_errback(move |_| forever)]));
        list.cancel();
        assert!(failure_result_of(list).is::<CancelledError>());
    }
}
