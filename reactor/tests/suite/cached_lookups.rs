//! `DeferredCache` and `ResponseCache`: lookups under way, and what is kept of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Error;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::cache::{CacheControl, DeferredCache, ResponseCache};
use ropewalk::testing::{
    Clock, UnhandledErrors, assert_no_result, failure_result_of, success_result_of,
};
use ropewalk::{CancelledError, Deferred, Failure, Resolver};

use crate::caches::counter;

mod deferred_cache {
    use super::*;

    fn start(cache: &DeferredCache<u8, u8>, key: u8) -> (Deferred<u8>, Resolver<u8>) {
        let (lookup, resolver) = Deferred::new();
        (cache.set(key, lookup), resolver)
    }

    fn never() -> Deferred<u8> {
        panic!("there is no need to look it up")
    }

    #[test]
    fn a_hit_is_a_deferred_that_has_fired() {
        let cache = DeferredCache::new(10);
        assert_eq!(success_result_of(cache.fetch(1, || Ok(5))), 5);
        assert_eq!(success_result_of(cache.fetch(1, never)), 5);
        assert_eq!(success_result_of(cache.get(&1).unwrap()), 5);
        assert!(cache.get(&2).is_none());
    }

    #[test]
    fn callers_join_a_lookup_under_way_and_one_that_is_cancelled_goes_alone() {
        let cache = DeferredCache::new(10);
        let (first, resolver) = start(&cache, 1);
        let second = cache.fetch(1, never);
        let third = cache.fetch(1, never);
        first.cancel();
        assert!(failure_result_of(first).is::<CancelledError>());
        drop(second);
        assert!(!resolver.is_cancelled());
        resolver.callback(5);
        assert_eq!(success_result_of(third), 5);
        assert_eq!(cache.peek(&1), Some(5));
    }

    #[test]
    fn failures_reach_those_who_wait_and_are_not_kept() {
        let cache = DeferredCache::new(10);
        let (first, resolver) = start(&cache, 1);
        let second = cache.fetch(1, never);
        resolver.errback(Error);
        let (first, second) = (failure_result_of(first), failure_result_of(second));
        assert!(first.is::<Error>() && first.is_same(&second), "the original failure");
        assert_eq!(cache.pending_count(), 0);
        assert_eq!(success_result_of(cache.fetch(1, || Ok(6))), 6);
        let panicked = cache.fetch(2, || -> Result<u8, Failure> { panic!("at once") });
        failure_result_of(panicked);
        assert!(cache.get(&2).is_none());
    }

    /// What happens to a lookup that something overtakes: its waiters get the original result, and the
    /// cache keeps what is newer.
    #[test]
    fn a_lookup_that_was_overtaken_answers_its_waiters_and_is_not_kept() {
        type Overtake = fn(&DeferredCache<u8, u8>);
        let ways: [(&str, Overtake, Option<u8>); 5] = [
            ("invalidate", |cache| cache.invalidate(&1), None),
            ("invalidate_all", DeferredCache::invalidate_all, None),
            ("invalidate_where", |cache| cache.invalidate_where(|key| *key == 1), None),
            ("prefill", |cache| cache.prefill(1, 9), Some(9)),
            ("a newer lookup", |cache| drop(cache.set(1, Deferred::succeed(8))), Some(8)),
        ];
        for (why, overtake, kept) in ways {
            for fails in [false, true] {
                let _nothing_unhandled = UnhandledErrors::trap();
                let cache = DeferredCache::new(10);
                let (count, on_invalidate) = counter();
                let (lookup, resolver) = Deferred::new();
                let waiting = cache.fetch_with(1, on_invalidate, || lookup);
                overtake(&cache);
                assert_eq!(count.get(), 1, "{why}: whoever depends on it is told");
                if fails {
                    resolver.errback(Error);
                    failure_result_of(waiting);
                } else {
                    resolver.callback(5);
                    assert_eq!(success_result_of(waiting), 5, "{why}");
                }
                assert_eq!(cache.peek(&1), kept, "{why}");
                assert_eq!(cache.pending_count(), 0, "{why}");
                assert_eq!(count.get(), 1, "{why}: once");
            }
        }
    }

    #[test]
    fn an_overtaken_lookup_does_not_disturb_a_newer_one_under_way() {
        let cache = DeferredCache::new(10);
        let (old, resolve_old) = start(&cache, 1);
        let (new, resolve_new) = start(&cache, 1);
        resolve_old.callback(1);
        assert_eq!(success_result_of(old), 1);
        assert_eq!(cache.peek(&1), None);
        assert_eq!(cache.pending_count(), 1);
        resolve_new.callback(2);
        assert_eq!(success_result_of(new), 2);
        assert_eq!(cache.peek(&1), Some(2));
    }

    #[test]
    fn a_value_stays_until_the_newer_one_arrives_but_is_not_given_out() {
        let cache = DeferredCache::new(10);
        cache.prefill(1, 1);
        let (new, resolver) = start(&cache, 1);
        assert_eq!(cache.peek(&1), Some(1));
        assert_no_result(&cache.get(&1).unwrap());
        resolver.callback(2);
        assert_eq!(success_result_of(new), 2);
        assert_eq!(success_result_of(cache.get(&1).unwrap()), 2);
    }

    #[test]
    fn invalidation_callbacks_follow_the_value_from_lookup_to_eviction() {
        let cache = DeferredCache::new(1);
        let (starter, on_starter) = counter();
        let (joiner, on_joiner) = counter();
        let (late, on_late) = counter();
        let (lookup, resolver) = Deferred::new();
        cache.fetch_with(1, on_starter, || lookup).detach();
        cache.fetch_with(1, on_joiner, never).detach();
        resolver.callback(1);
        cache.fetch_with(1, on_late, never).detach();
        assert_eq!([&starter, &joiner, &late].map(|count| count.get()), [0, 0, 0]);
        cache.prefill(2, 2);
        assert_eq!([&starter, &joiner, &late].map(|count| count.get()), [1, 1, 1], "evicted");
    }

    #[test]
    fn lookups_under_way_are_never_evicted_and_values_are() {
        let cache = DeferredCache::new(2);
        let (lookups, resolvers): (Vec<_>, Vec<_>) = (0..5).map(|key| start(&cache, key)).unzip();
        assert_eq!(cache.pending_count(), 5);
        for (n, resolver) in (0..).zip(resolvers) {
            resolver.callback(n);
        }
        assert_eq!(cache.size(), 2);
        assert_eq!(lookups.into_iter().map(success_result_of).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn empty_collections_count_as_one_item() {
        let cache = DeferredCache::with_size(3, Vec::len);
        for key in 0..10 {
            cache.prefill(key, Vec::<u8>::new());
        }
        assert_eq!(cache.size(), 3);
    }

    #[test]
    fn whoever_is_told_of_the_value_finds_it_in_place() {
        let cache = DeferredCache::new(10);
        let (first, resolver) = start(&cache, 1);
        let inside = cache.clone();
        let seen = first.add_callback(move |_| Ok(inside.peek(&1)));
        resolver.callback(5);
        assert_eq!(success_result_of(seen), Some(5));
    }
}

mod many {
    use super::*;

    type Cache = DeferredCache<u8, Option<u8>>;
    type Found = HashMap<u8, u8>;

    fn sorted(values: HashMap<u8, Option<u8>>) -> Vec<(u8, Option<u8>)> {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable();
        values
    }

    #[test]
    fn only_what_is_missing_is_looked_up_in_one_call_and_absence_is_kept() {
        let cache = Cache::new(10);
        cache.prefill(1, Some(10));
        let asked = Rc::new(RefCell::new(Vec::new()));
        let log = asked.clone();
        let values = cache.fetch_many([3, 1, 2, 3], move |keys| {
            log.borrow_mut().push(keys);
            Ok(Found::from([(3, 30)]))
        });
        assert_eq!(sorted(success_result_of(values)), [(1, Some(10)), (2, None), (3, Some(30))]);
        assert_eq!(*asked.borrow(), [[3, 2]]);
        let again =
            cache.fetch_many([1, 2, 3], |_| -> Result<Found, _> { panic!("all are known") });
        assert_eq!(success_result_of(again).len(), 3);
    }

    #[test]
    fn others_join_the_bulk_lookup_and_it_joins_theirs() {
        let cache = Cache::new(10);
        let (single, resolve_single) = Deferred::new();
        cache.set(1, single).detach();
        let (bulk, resolve_bulk) = Deferred::new();
        let many = cache.fetch_many([1, 2], |keys| {
            assert_eq!(keys, [2]);
            bulk
        });
        let joined = cache.fetch(2, || -> Deferred<Option<u8>> { panic!("it is under way") });
        resolve_bulk.callback(Found::from([(2, 20)]));
        assert_eq!(success_result_of(joined), Some(20));
        assert_no_result(&many);
        resolve_single.callback(Some(10));
        assert_eq!(sorted(success_result_of(many)), [(1, Some(10)), (2, Some(20))]);
    }

    #[test]
    fn a_failure_is_everyones_the_starters_too_and_nothing_is_kept() {
        let _nothing_unhandled = UnhandledErrors::trap();
        let cache = Cache::new(10);
        let (bulk, resolver) = Deferred::<Found>::new();
        let starter = cache.fetch_many([1, 2], |_| bulk);
        let joined = cache.fetch_many([2], |_| -> Result<Found, _> { panic!("it is under way") });
        resolver.errback(Error);
        for waiting in [starter, joined] {
            assert!(failure_result_of(waiting).is::<Error>(), "the original failure");
        }
        assert_eq!((cache.pending_count(), cache.size()), (0, 0));
    }

    #[test]
    fn a_key_invalidated_meanwhile_is_answered_and_not_kept() {
        let cache = Cache::new(10);
        let (bulk, resolver) = Deferred::new();
        let many = cache.fetch_many([1, 2], |_| bulk);
        cache.invalidate(&1);
        resolver.callback(Found::from([(1, 10), (2, 20)]));
        assert_eq!(sorted(success_result_of(many)), [(1, Some(10)), (2, Some(20))]);
        assert_eq!((cache.peek(&1), cache.peek(&2)), (None, Some(Some(20))));
    }

    #[test]
    fn asking_for_nothing_is_answered_at_once() {
        let cache = Cache::new(10);
        let none = cache.fetch_many([], |_| -> Result<Found, _> { panic!("for nothing") });
        assert!(success_result_of(none).is_empty());
    }
}

mod response {
    use super::*;

    const KEPT: Duration = Duration::from_secs(10);

    fn never(_: CacheControl) -> Deferred<u8> {
        panic!("the result is there or on its way")
    }

    #[test]
    fn the_same_request_joins_and_a_success_stays_for_a_while() {
        let clock = Clock::new();
        let cache = ResponseCache::new(clock.reactor(), KEPT);
        let (work, resolver) = Deferred::new();
        let first = cache.wrap("key", |_| work);
        let second = cache.wrap("key", never);
        clock.advance(KEPT * 5);
        assert_no_result(&first);
        resolver.callback(1);
        assert_eq!((success_result_of(first), success_result_of(second)), (1, 1));
        clock.advance(KEPT - Duration::from_nanos(1));
        assert_eq!(success_result_of(cache.wrap("key", never)), 1);
        clock.advance(Duration::from_nanos(1));
        assert!(cache.is_empty());
        assert_eq!(success_result_of(cache.wrap("key", |_| Ok(2))), 2);
        let seen = cache.statistics();
        assert_eq!((seen.hits, seen.misses, seen.expirations), (2, 2, 1));
    }

    /// Whether an entry stays, for work that ends at once and for work that ends later.
    #[test]
    fn what_is_not_to_be_kept_goes_with_its_end() {
        type Work = fn(CacheControl) -> Result<u8, Failure>;
        let cases: [(&str, Duration, Work, bool); 4] = [
            ("a success", KEPT, |_| Ok(1), true),
            ("a failure", KEPT, |_| Err(Error.into()), false),
            (
                "a success that says so",
                KEPT,
                |control| {
                    control.do_not_keep();
                    Ok(1)
                },
                false,
            ),
            ("no time to keep", Duration::ZERO, |_| Ok(1), false),
        ];
        for (why, kept_for, work, stays) in cases {
            for at_once in [true, false] {
                let clock = Clock::new();
                let cache = ResponseCache::new(clock.reactor(), kept_for);
                let result = if at_once {
                    cache.wrap(1, work)
                } else {
                    let (gate, open) = Deferred::new();
                    let result =
                        cache.wrap(1, |control| gate.add_callback(move |()| work(control)));
                    assert_eq!(cache.len(), 1);
                    open.callback(());
                    result
                };
                let _ = result.into_result().expect("it has ended");
                assert_eq!(cache.len(), usize::from(stays), "{why}, at once: {at_once}");
                clock.advance(kept_for);
                assert_eq!((cache.len(), clock.pending_calls()), (0, 0), "{why}");
            }
        }
    }

    #[test]
    fn cancelling_the_first_caller_does_not_stop_the_work() {
        let clock = Clock::new();
        let cache = ResponseCache::new(clock.reactor(), KEPT);
        let (work, resolver) = Deferred::new();
        let first = cache.wrap(1, |_| work);
        let second = cache.wrap(1, never);
        first.cancel();
        assert!(failure_result_of(first).is::<CancelledError>());
        clock.advance(KEPT * 2);
        assert!(!resolver.is_cancelled());
        resolver.callback(3);
        assert_eq!(success_result_of(second), 3);
    }

    #[test]
    fn cancellable_work_that_nobody_waits_for_is_cancelled_after_a_while() {
        let clock = Clock::new();
        let cache = ResponseCache::with_cancellable_work(clock.reactor(), KEPT);
        let (work, resolver) = Deferred::<u8>::new();
        let first = cache.wrap(1, |_| work);
        first.cancel();
        failure_result_of(first);
        clock.advance(KEPT / 2);
        let second = cache.wrap(1, never);
        clock.advance(KEPT / 2);
        assert!(!resolver.is_cancelled(), "somebody came back in time");
        second.cancel();
        failure_result_of(second);
        clock.advance(KEPT);
        assert!(resolver.is_cancelled());
        assert!(cache.is_empty());
    }

    #[test]
    fn work_may_ask_for_its_own_key() {
        let clock = Clock::new();
        let cache = ResponseCache::new(clock.reactor(), KEPT);
        let inside = cache.clone();
        let (gate, open) = Deferred::<u8>::new();
        let inner = Rc::new(Cell::new(None));
        let slot = inner.clone();
        let outer = cache.wrap(1, move |_| {
            slot.set(Some(inside.wrap(1, never)));
            gate
        });
        open.callback(4);
        assert_eq!(success_result_of(outer), 4);
        assert_eq!(success_result_of(inner.take().unwrap()), 4);
    }
}
