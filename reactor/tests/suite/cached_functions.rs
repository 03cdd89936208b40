//! `CachedFunction`, `CachedList` and `Caches`: keys of all arguments, prefixes, cascades, batches.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Error;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::cache::{
    CacheOptions, CachedFunction, CachedList, Caches, DeferredCache, LruCache, OnInvalidate,
};
use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{CancelledError, Deferred, Failure, LogContext, Panicked, Resolver};

use crate::caches::counter;

/// A function that somebody else answers, and the calls of it that wait for an answer.
type Waiting<K, V> = Rc<RefCell<Vec<(K, Resolver<V>)>>>;

fn answered_by_hand<K: Clone + 'static, V: 'static>()
-> (Waiting<K, V>, impl Fn(K) -> Deferred<V> + Clone) {
    let waiting: Waiting<K, V> = Rc::default();
    let inside = waiting.clone();
    let function = move |key| {
        let (deferred, resolver) = Deferred::new();
        inside.borrow_mut().push((key, resolver));
        deferred
    };
    (waiting, function)
}

fn answer_all<K: Clone, V>(waiting: &Waiting<K, V>, f: impl Fn(K) -> V) -> usize {
    let calls = waiting.take();
    let count = calls.len();
    for (key, resolver) in calls {
        resolver.callback(f(key));
    }
    count
}

fn options<V>() -> CacheOptions<V> {
    CacheOptions::new("test", 100)
}

mod function {
    use super::*;

    #[test]
    fn all_arguments_make_the_key_and_callers_share_a_call() {
        let (waiting, function) = answered_by_hand::<(u8, u8), u8>();
        let sum = CachedFunction::new(options(), function);
        let first = [sum.call((1, 2)), sum.call((1, 2)), sum.call((2, 1))];
        assert_eq!(answer_all(&waiting, |(a, b)| a * 10 + b), 2);
        assert_eq!(first.map(success_result_of), [12, 12, 21]);
        assert_eq!(success_result_of(sum.call((1, 2))), 12);
        assert!(waiting.borrow().is_empty());
        let figures = sum.figures();
        assert_eq!((figures.entries, figures.pending), (2, 0));
        assert_eq!((figures.statistics.hits, figures.statistics.misses), (2, 2));
    }

    #[test]
    fn a_failure_or_a_panic_is_the_callers_and_is_not_kept() {
        let calls = Rc::new(Cell::new(0));
        let count = calls.clone();
        let function = CachedFunction::new(options(), move |key: u8| -> Result<u8, Failure> {
            count.set(count.get() + 1);
            match key {
                0 => Err(Error.into()),
                _ => panic!("on purpose"),
            }
        });
        for _ in 0..2 {
            assert!(failure_result_of(function.call(0)).is::<Error>());
            assert!(failure_result_of(function.call(1)).is::<Panicked>());
        }
        assert_eq!((calls.get(), function.figures().entries), (4, 0));
    }

    #[test]
    fn the_caller_who_started_may_go_and_the_work_goes_on_in_his_context() {
        let (gate, open) = Deferred::<()>::new();
        let gate = Rc::new(Cell::new(Some(gate)));
        let function = CachedFunction::new(options(), move |_: u8| {
            let gate = gate.take().expect("called once");
            gate.add_callback(|()| Ok(LogContext::current().name().to_owned()))
        });
        let starter = LogContext::new("starter").run(|| function.call(1));
        let joiner = LogContext::new("joiner").run(|| {
            function
                .call(1)
                .add_callback(|inside| Ok((inside, LogContext::current().name().to_owned())))
        });
        starter.cancel();
        assert!(failure_result_of(starter).is::<CancelledError>());
        assert_no_result(&joiner);
        open.callback(());
        assert_eq!(success_result_of(joiner), ("starter".to_owned(), "joiner".to_owned()));
    }

    #[test]
    fn what_is_uncached_goes_to_the_call_that_does_the_work() {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let log = seen.clone();
        let function = CachedFunction::with_uncached(options(), move |key: u8, who: &str| {
            log.borrow_mut().push((key, who.to_owned()));
            Ok::<_, Failure>(key * 2)
        });
        for who in ["anna", "bob"] {
            assert_eq!(success_result_of(function.call_with(4, who)), 8);
        }
        assert_eq!(*seen.borrow(), [(4, "anna".to_owned())]);
    }

    #[test]
    fn a_prefix_names_all_keys_that_begin_with_it_kept_or_under_way() {
        type Key = (u8, char, u8);
        type Forget = fn(&CachedFunction<Key, u8>);
        let all: Vec<Key> = vec![(1, 'a', 1), (1, 'a', 2), (1, 'b', 1), (2, 'a', 1)];
        let cases: [(&str, Forget, &[usize]); 6] = [
            ("a whole key", |f| f.invalidate(&(1, 'a', 1)), &[0]),
            ("two parts", |f| f.invalidate_prefix(&(1, 'a')), &[0, 1]),
            ("one part", |f| f.invalidate_prefix(&1), &[0, 1, 2]),
            ("a part that none has", |f| f.invalidate_prefix(&9), &[]),
            ("two parts that none has", |f| f.invalidate_prefix(&(2, 'b')), &[]),
            ("all", CachedFunction::invalidate_all, &[0, 1, 2, 3]),
        ];
        for indexed in [true, false] {
            for arrives_first in [true, false] {
                for (why, forget, gone) in &cases {
                    let (waiting, function) = answered_by_hand::<Key, u8>();
                    let function = match indexed {
                        true => CachedFunction::by_prefix(options(), function),
                        false => CachedFunction::new(options(), function),
                    };
                    let calls: Vec<_> = all.iter().map(|key| function.call(*key)).collect();
                    if arrives_first {
                        answer_all(&waiting, |key| key.2);
                    }
                    forget(&function);
                    answer_all(&waiting, |key| key.2);
                    for (key, call) in all.iter().zip(calls) {
                        assert_eq!(success_result_of(call), key.2, "{why}");
                    }
                    let left: Vec<_> = all.iter().map(|key| function.peek(key).is_none()).collect();
                    let expected: Vec<_> = (0..all.len()).map(|n| gone.contains(&n)).collect();
                    assert_eq!(left, expected, "{why}, arrived: {arrives_first}");
                }
            }
        }
    }

    /// name(user) <- greeting(user) <- page(user, other): three levels.
    #[test]
    fn invalidation_cascades_from_inner_results_to_outer_ones() {
        let name = CachedFunction::new(options(), |user: u8| Ok::<_, Failure>(user));
        let inner = name.clone();
        let greeting = CachedFunction::cascading(options(), move |user: u8, entry| {
            inner.call_for(user, entry)
        });
        let inner = greeting.clone();
        let page = CachedFunction::cascading(options(), move |(user, other): (u8, u8), entry| {
            let second = inner.call_for(other, entry);
            inner
                .call_for(user, entry)
                .add_callback(move |a| second.add_callback(move |b| Ok((a, b))))
        });
        for key in [(1, 2), (3, 4), (1, 4)] {
            assert_eq!(success_result_of(page.call(key)), key);
        }
        name.invalidate(&4);
        assert_eq!(greeting.peek(&4), None);
        assert_eq!(greeting.peek(&1), Some(1));
        let left = [(1, 2), (3, 4), (1, 4)].map(|key| page.peek(&key).is_some());
        assert_eq!(left, [true, false, false]);
    }

    #[test]
    fn an_outer_result_that_was_overtaken_by_the_invalidation_of_an_inner_one_is_not_kept() {
        let name = CachedFunction::new(options(), |user: u8| Ok::<_, Failure>(user));
        let (gate, open) = Deferred::<()>::new();
        let (inner, gate) = (name.clone(), Rc::new(Cell::new(Some(gate))));
        let outer = CachedFunction::cascading(options(), move |user: u8, entry| {
            let gate = gate.take().expect("called once");
            inner.call_for(user, entry).add_callback(|name| gate.add_callback(move |()| Ok(name)))
        });
        let waiting = outer.call(1);
        name.invalidate(&1);
        open.callback(());
        assert_eq!(success_result_of(waiting), 1);
        assert_eq!(outer.peek(&1), None);
    }

    /// A result that is made again and again of one that stays once left a callback there each time.
    #[test]
    fn a_result_made_often_leaves_one_callback_at_what_it_is_made_of() {
        let seen = Rc::new(RefCell::new(Vec::<OnInvalidate>::new()));
        let log = seen.clone();
        let outer = CachedFunction::cascading(options(), move |user: u8, entry| {
            log.borrow_mut().push(entry.on_invalidate());
            Ok::<_, Failure>(user)
        });
        for _ in 0..3 {
            success_result_of(outer.call(1));
            outer.invalidate(&1);
        }
        let seen = seen.take();
        assert!(seen.windows(2).all(|pair| Rc::ptr_eq(&pair[0], &pair[1])));
        success_result_of(outer.call(1));
        seen[0]();
        assert_eq!(outer.peek(&1), None);
    }

    #[test]
    fn whoever_watches_a_result_is_told_once_and_may_ask_again_at_once() {
        let (waiting, function) = answered_by_hand::<u8, u8>();
        let function = CachedFunction::new(options(), function);
        let (count, on_invalidate) = counter();
        function.call_watched(1, on_invalidate.clone()).detach();
        answer_all(&waiting, |key| key);
        function.call_watched(1, on_invalidate).detach();
        let (again, calls) = (function.clone(), Rc::new(Cell::new(0)));
        let inside = calls.clone();
        function
            .call_watched(
                1,
                Rc::new(move || {
                    inside.set(inside.get() + 1);
                    again.call(1).detach();
                }),
            )
            .detach();
        function.invalidate(&1);
        assert_eq!((count.get(), calls.get()), (1, 1));
        assert_eq!(answer_all(&waiting, |key| key), 1, "asked again");
        assert_eq!(function.peek(&1), Some(1));
    }

    #[test]
    fn a_prefilled_result_is_not_asked_for() {
        let function = CachedFunction::new(options(), |_: u8| -> Result<u8, Failure> {
            panic!("it is known")
        });
        function.prefill(3, 4);
        assert_eq!(success_result_of(function.call(3)), 4);
    }
}

mod list {
    use super::*;

    type Asked = Waiting<Vec<(u8, u8)>, HashMap<(u8, u8), u8>>;

    type Single = CachedFunction<(u8, u8), Option<u8>>;

    fn list() -> (Asked, Single, CachedList<(u8, u8), u8>) {
        let single = CachedFunction::by_prefix(options(), |_: (u8, u8)| {
            Err::<Option<u8>, Failure>(Error.into())
        });
        let (waiting, function) = answered_by_hand();
        let many = CachedList::of(&single, function);
        (waiting, single, many)
    }

    fn answer(keys: Vec<(u8, u8)>) -> HashMap<(u8, u8), u8> {
        keys.into_iter().filter(|key| key.1 != 9).map(|key| (key, key.0 + key.1)).collect()
    }

    #[test]
    fn both_forms_share_what_they_keep_and_what_is_under_way() {
        let (waiting, single, many) = list();
        single.prefill((1, 1), Some(7));
        let all = many.call([(1, 1), (1, 2), (1, 9), (1, 2)]);
        let joined = single.call((1, 2));
        let other = many.call([(1, 9), (1, 3)]);
        let asked: Vec<_> = waiting.borrow().iter().map(|call| call.0.clone()).collect();
        assert_eq!(asked, [vec![(1, 2), (1, 9)], vec![(1, 3)]]);
        answer_all(&waiting, answer);
        let all = success_result_of(all);
        assert_eq!([all[&(1, 1)], all[&(1, 2)], all[&(1, 9)]], [Some(7), Some(3), None]);
        assert_eq!(all.len(), 3);
        assert_eq!(success_result_of(joined), Some(3));
        assert_eq!(success_result_of(other)[&(1, 3)], Some(4));
        assert_eq!(success_result_of(single.call((1, 9))), None, "known to be absent");
    }

    #[test]
    fn a_prefix_invalidated_meanwhile_is_answered_and_not_kept() {
        let (waiting, single, many) = list();
        let both = many.call([(1, 1), (2, 1)]);
        single.invalidate_prefix(&1);
        answer_all(&waiting, answer);
        assert_eq!(success_result_of(both).len(), 2);
        assert_eq!((single.peek(&(1, 1)), single.peek(&(2, 1))), (None, Some(Some(3))));
    }

    #[test]
    fn a_failure_is_everyones_and_nothing_stays_under_way() {
        let (waiting, single, many) = list();
        let starter = many.call([(1, 1), (1, 2)]);
        let joined = many.call([(1, 2), (1, 3)]);
        for (_, resolver) in waiting.take() {
            resolver.errback(Error);
        }
        for call in [starter, joined] {
            assert!(failure_result_of(call).is::<Error>(), "the original failure");
        }
        assert_eq!((single.figures().pending, single.figures().entries), (0, 0));
    }

    #[test]
    fn an_outer_result_goes_with_any_of_its_list() {
        let (waiting, single, many) = list();
        let outer = CachedFunction::cascading(options(), move |room: u8, entry| {
            many.call_for([(room, 1), (room, 2)], entry).add_callback(|all| Ok(all.len()))
        });
        let count = outer.call(5);
        answer_all(&waiting, answer);
        assert_eq!(success_result_of(count), 2);
        single.invalidate(&(5, 2));
        assert_eq!(outer.peek(&5), None);
    }
}

mod together {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limits(caches: &Caches) -> Vec<(String, usize)> {
        caches.report().into_iter().map(|line| (line.name, line.figures.limit)).collect()
    }

    #[test]
    fn the_factor_sizes_all_caches_now_and_later() {
        let caches = Caches::with_factor(0.5);
        let named = |name, limit| {
            DeferredCache::<u8, u8>::with_options(CacheOptions::new(name, limit).within(&caches))
        };
        let (first, second) = (named("first", 10), named("second", 7));
        (0..10).for_each(|n| first.prefill(n, n));
        assert_eq!(first.size(), 5);
        caches.set_factor(0.2);
        assert_eq!(first.size(), 2, "shrinking evicts at once");
        caches.set_factor_of("second", 3.0);
        let third = named("third", 5);
        let expected = [("first", 2), ("second", 21), ("third", 1)];
        assert_eq!(limits(&caches), expected.map(|(name, limit)| (name.to_owned(), limit)));
        drop((second, third));
        assert_eq!(limits(&caches).len(), 1, "those that are gone are not reported");
        for nonsense in [f64::NAN, -1.0] {
            caches.set_factor(nonsense);
            assert_eq!(limits(&caches)[0].1, 0);
        }
    }

    #[test]
    fn the_report_counts_what_there_is_in_each() {
        let caches = Caches::new();
        let options = CacheOptions::new("sized", 10).size_of(|v: &Vec<u8>| v.len()).within(&caches);
        let sized: DeferredCache<u8, Vec<u8>> = DeferredCache::with_options(options);
        let plain = Rc::new(LruCache::new(1));
        caches.manage("plain", 2, &plain);
        sized.prefill(1, vec![1, 2, 3]);
        let (lookup, _under_way) = Deferred::new();
        sized.set(2, lookup).detach();
        assert!(sized.get(&3).is_none());
        (0..3).for_each(|n| plain.insert(n, n));
        let report = caches.report();
        assert_eq!(report[0].name, "sized");
        let figures = report[0].figures;
        assert_eq!((figures.entries, figures.size, figures.limit, figures.pending), (1, 3, 10, 1));
        assert_eq!(figures.statistics.misses, 1);
        let figures = report[1].figures;
        assert_eq!((figures.entries, figures.limit, figures.statistics.evictions), (2, 2, 1));
        caches.clear();
        assert_eq!((sized.size(), sized.pending_count(), plain.len()), (0, 0, 0));
    }

    #[test]
    fn values_that_nobody_uses_expire_and_others_have_their_turn_in_between() {
        let clock = Clock::new();
        let caches = Caches::new();
        let options = || CacheOptions::new("names", 100_000).within(&caches);
        let names: DeferredCache<u32, u32> = DeferredCache::with_options(options());
        let for_ever: DeferredCache<u32, u32> =
            DeferredCache::with_options(options().without_expiry());
        caches.expire_regularly(clock.reactor(), MINUTE * 5);
        (0..25_000).for_each(|n| names.prefill(n, n));
        for_ever.prefill(1, 1);
        clock.advance(MINUTE * 3);
        names.get(&7).expect("it is there").detach();
        clock.advance(MINUTE * 2);
        assert_eq!(names.size(), 25_000);
        clock.advance(MINUTE);
        assert_eq!((names.size(), for_ever.size()), (1, 1));
        assert_eq!(names.statistics().expirations, 24_999);
        clock.advance(MINUTE * 10);
        assert_eq!((names.size(), for_ever.size()), (0, 1));
        drop(caches);
        drop((names, for_ever));
    }

    #[test]
    fn another_age_takes_the_place_of_the_first() {
        let clock = Clock::new();
        let caches = Caches::new();
        let cache: DeferredCache<u8, u8> =
            DeferredCache::with_options(CacheOptions::new("names", 10).within(&caches));
        caches.expire_regularly(clock.reactor(), MINUTE);
        caches.expire_regularly(clock.reactor(), MINUTE * 10);
        cache.prefill(1, 1);
        clock.advance(MINUTE * 9);
        assert_eq!((cache.size(), clock.pending_calls()), (1, 1));
        clock.advance(MINUTE * 2);
        assert_eq!(cache.size(), 0);
    }

    #[test]
    fn the_sweep_ends_with_its_caches() {
        let clock = Clock::new();
        let caches = Caches::new();
        caches.expire_regularly(clock.reactor(), MINUTE);
        assert_eq!(clock.pending_calls(), 1);
        drop(caches);
        clock.advance(MINUTE);
        assert_eq!(clock.pending_calls(), 0);
    }
}

mod truth {
    use proptest::prelude::*;

    use super::*;

    type Key = (u8, u8);

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Asks for one key, or for both of a room at once.
        Ask(Key),
        AskMany(u8),
        /// Changes what the database says, and tells the cache.
        Write(Key),
        WriteRoom(u8),
        /// Has a question answered that waits: the one at this place, by what the database said when it
        /// was asked, or by a failure.
        Answer(usize),
        Fail(usize),
        GiveUp(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || (0u8..2, 0u8..2);
        prop_oneof![
            3 => key().prop_map(Step::Ask),
            1 => (0u8..2).prop_map(Step::AskMany),
            2 => key().prop_map(Step::Write),
            1 => (0u8..2).prop_map(Step::WriteRoom),
            4 => (0usize..8).prop_map(Step::Answer),
            1 => (0usize..8).prop_map(Step::Fail),
            1 => (0usize..8).prop_map(Step::GiveUp),
        ]
    }

    type Question = Box<dyn FnOnce(Result<(), Failure>)>;

    /// Takes what the database says now along to the answer, whenever that comes.
    struct Database {
        versions: RefCell<HashMap<Key, u64>>,
        questions: RefCell<Vec<Question>>,
    }

    impl Database {
        fn ask(&self, keys: &[Key]) -> Deferred<HashMap<Key, u64>> {
            let (deferred, resolver) = Deferred::new();
            let said = keys.iter().map(|key| (*key, self.version(*key))).collect();
            let answer: Question = Box::new(move |order| resolver.fire(order.map(|()| said)));
            self.questions.borrow_mut().push(answer);
            deferred
        }

        fn version(&self, key: Key) -> u64 {
            self.versions.borrow().get(&key).copied().unwrap_or(0)
        }
    }

    proptest! {
        /// Whoever asks after a change is never told what was true before it, whatever is under way,
        /// invalidated, failed or given up meanwhile; and nothing stays under way in the end.
        #[test]
        fn nobody_is_told_what_was_no_longer_true_when_he_asked(
            limit in 0usize..6,
            steps in prop::collection::vec(step(), 0..80),
        ) {
            let database = Rc::new(Database {
                versions: RefCell::default(),
                questions: RefCell::default(),
            });
            let source = database.clone();
            let single = CachedFunction::by_prefix(CacheOptions::new("test", limit), move |key: Key| {
                source.ask(&[key]).add_callback(move |found| Ok(found.get(&key).copied()))
            });
            let source = database.clone();
            let many = CachedList::of(&single, move |keys: Vec<Key>| source.ask(&keys));
            let stale: Rc<RefCell<Vec<String>>> = Rc::default();
            let mut waiting: Vec<Deferred<()>> = Vec::new();
            let check = |key: Key, wanted: u64| {
                let stale = stale.clone();
                move |got: Option<u64>| {
                    if got.is_none_or(|got| got < wanted) {
                        stale.borrow_mut().push(format!("{key:?}: {got:?} instead of {wanted}"));
                    }
                }
            };
            for step in steps {
                match step {
                    Step::Ask(key) => {
                        let check = check(key, database.version(key));
                        waiting.push(single.call(key).add_callback(move |got| {
                            check(got);
                            Ok(())
                        }));
                    }
                    Step::AskMany(room) => {
                        let keys = [(room, 0), (room, 1)];
                        let checks = keys.map(|key| (key, check(key, database.version(key))));
                        waiting.push(many.call(keys).add_callback(move |got| {
                            for (key, check) in checks {
                                check(got[&key]);
                            }
                            Ok(())
                        }));
                    }
                    Step::Write(key) => {
                        *database.versions.borrow_mut().entry(key).or_default() += 1;
                        single.invalidate(&key);
                    }
                    Step::WriteRoom(room) => {
                        for user in 0..2 {
                            *database.versions.borrow_mut().entry((room, user)).or_default() += 1;
                        }
                        single.invalidate_prefix(&room);
                    }
                    Step::Answer(at) | Step::Fail(at) => {
                        let count = database.questions.borrow().len();
                        if at < count {
                            let answer = database.questions.borrow_mut().remove(at);
                            let is_failure = matches!(step, Step::Fail(_));
                            answer(if is_failure { Err(Error.into()) } else { Ok(()) });
                        }
                    }
                    Step::GiveUp(at) => {
                        if let Some(call) = waiting.get(at) {
                            call.cancel();
                        }
                    }
                }
                prop_assert!(stale.borrow().is_empty(), "{:?}", stale.borrow());
                prop_assert!(single.figures().size <= limit);
            }
            for answer in database.questions.take() {
                answer(Ok(()));
            }
            prop_assert!(stale.borrow().is_empty(), "{:?}", stale.borrow());
            prop_assert_eq!(single.figures().pending, 0);
            for call in waiting {
                // Answered, failed or given up.
                prop_assert!(call.into_result().is_ok());
            }
        }
    }
}
