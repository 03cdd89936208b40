//! `DictionaryCache` and `ExpiringCache`: parts of dictionaries, and things that are there for a time.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use ropewalk::LogContext;
use ropewalk::cache::{
    CacheOptions, DictionaryCache, DictionaryNews, ExpiringCache, ExpiringCacheOptions,
};
use ropewalk::testing::Clock;

mod dictionary {
    use super::*;

    type Cache = DictionaryCache<u8, char, u8>;

    fn cache(limit: usize) -> Cache {
        DictionaryCache::new(CacheOptions::new("test", limit))
    }

    fn whole(items: &[(char, u8)]) -> Rc<HashMap<char, u8>> {
        Rc::new(items.iter().copied().collect())
    }

    fn some(asked: &str, found: &[(char, u8)]) -> DictionaryNews<char, u8> {
        let found = found.iter().copied().collect();
        DictionaryNews::Some { asked: asked.chars().collect(), found }
    }

    #[test]
    fn nothing_is_known_of_what_was_never_looked_up() {
        let cache = cache(10);
        let answer = cache.get(&1, ['a', 'b']);
        assert_eq!(answer.missing, ['a', 'b']);
        assert!(!answer.is_complete() && answer.found.is_empty() && answer.absent.is_empty());
        assert_eq!(cache.get_all(&1), None);
    }

    #[test]
    fn a_whole_dictionary_is_given_out_as_it_is_and_answers_for_its_items() {
        let cache = cache(10);
        let all = whole(&[('a', 1), ('b', 2)]);
        assert!(cache.update(cache.read_mark(), &1, DictionaryNews::All(all.clone())));
        assert!(Rc::ptr_eq(&cache.get_all(&1).unwrap(), &all), "not a copy");
        let answer = cache.get(&1, ['b', 'x']);
        assert!(answer.is_complete());
        assert_eq!((answer.found, answer.absent), (vec![('b', 2)], vec!['x']));
        assert_eq!(cache.figures().size, 4, "the dictionary's two, and the two asked for");
        let statistics = cache.figures().statistics;
        assert_eq!((statistics.hits, statistics.misses), (3, 0));
    }

    #[test]
    fn items_asked_for_stay_when_the_whole_is_evicted() {
        let cache = cache(4);
        let all = whole(&[('a', 1), ('b', 2)]);
        cache.update(cache.read_mark(), &1, DictionaryNews::All(all));
        cache.get(&1, ['a', 'x']);
        cache.update(cache.read_mark(), &2, some("c", &[('c', 3)]));
        assert_eq!(cache.get_all(&1), None, "asking for parts did not count as a use of it");
        let answer = cache.get(&1, ['a', 'b', 'x']);
        assert_eq!((answer.found, answer.missing), (vec![('a', 1)], vec!['b']));
        assert_eq!(answer.absent, ['x']);
    }

    #[test]
    fn what_was_asked_for_and_not_found_is_absent_and_more_may_come_than_was_asked_for() {
        let cache = cache(10);
        cache.update(cache.read_mark(), &1, some("abb", &[('b', 2), ('z', 26)]));
        let answer = cache.get(&1, ['a', 'b', 'z', 'y']);
        assert_eq!(answer.found, [('b', 2), ('z', 26)]);
        assert_eq!((answer.absent, answer.missing), (vec!['a'], vec!['y']));
        assert_eq!(cache.figures().size, 3);
    }

    /// A partial update of a dictionary that is there as a whole once made it a part.
    #[test]
    fn a_partial_update_leaves_the_whole_whole() {
        let cache = cache(10);
        let all = whole(&[('a', 1)]);
        cache.update(cache.read_mark(), &1, DictionaryNews::All(all.clone()));
        cache.update(cache.read_mark(), &1, some("a", &[('a', 1)]));
        assert!(Rc::ptr_eq(&cache.get_all(&1).unwrap(), &all));
    }

    #[test]
    fn news_from_before_an_invalidation_are_not_kept() {
        type Invalidate = fn(&Cache);
        let ways: [(&str, Invalidate); 3] = [
            ("this one", |cache| cache.invalidate(&1)),
            ("another one", |cache| cache.invalidate(&2)),
            ("all", Cache::invalidate_all),
        ];
        for (why, invalidate) in ways {
            let cache = cache(10);
            let mark = cache.read_mark();
            invalidate(&cache);
            assert!(!cache.update(mark, &1, some("a", &[('a', 1)])), "{why}");
            assert!(!cache.get(&1, ['a']).is_complete(), "{why}");
            assert!(cache.update(cache.read_mark(), &1, some("a", &[('a', 1)])), "{why}");
        }
    }

    #[test]
    fn invalidating_forgets_the_whole_and_all_parts_of_one_dictionary() {
        let cache = cache(10);
        for key in [1, 2] {
            cache.update(cache.read_mark(), &key, DictionaryNews::All(whole(&[('a', 1)])));
            cache.get(&key, ['a', 'x']);
        }
        cache.invalidate(&1);
        assert_eq!(cache.get(&1, ['a', 'x']).missing, ['a', 'x']);
        assert_eq!(cache.get_all(&1), None);
        assert!(cache.get(&2, ['a', 'x']).is_complete());
        assert_eq!(cache.figures().size, 3);
    }

    #[test]
    fn empty_dictionaries_count_as_one_item() {
        let cache = cache(3);
        for key in 0..10 {
            cache.update(cache.read_mark(), &key, DictionaryNews::All(whole(&[])));
        }
        assert_eq!((cache.figures().size, cache.figures().entries), (3, 3));
    }

    #[derive(Clone, Debug)]
    enum Step {
        ReadAll(u8),
        ReadSome(u8, Vec<char>),
        Write(u8, char, Option<u8>),
        Ask(u8, Vec<char>),
        AskAll(u8),
        /// Lets the oldest lookup arrive.
        Arrive,
    }

    fn step() -> impl Strategy<Value = Step> {
        let items = || prop::collection::vec(prop::char::range('a', 'e'), 0..4);
        prop_oneof![
            (0u8..3).prop_map(Step::ReadAll),
            (0u8..3, items()).prop_map(|(key, items)| Step::ReadSome(key, items)),
            (0u8..3, prop::char::range('a', 'e'), prop::option::of(0u8..9))
                .prop_map(|(key, item, value)| Step::Write(key, item, value)),
            (0u8..3, items()).prop_map(|(key, items)| Step::Ask(key, items)),
            (0u8..3).prop_map(Step::AskAll),
            Just(Step::Arrive),
            Just(Step::Arrive),
        ]
    }

    proptest! {
        /// Against plain maps that stand for a database: whatever the cache says is true, lookups may
        /// take any time, and with room enough what was looked up and not invalidated is there.
        #[test]
        fn says_nothing_but_the_truth(
            limit in prop_oneof![0usize..12, Just(100_000)],
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let cache = cache(limit);
            let mut database: BTreeMap<u8, BTreeMap<char, u8>> = BTreeMap::new();
            let mut under_way = std::collections::VecDeque::new();
            for step in steps {
                match step {
                    Step::ReadAll(key) => {
                        let all = database.get(&key).cloned().unwrap_or_default();
                        let news = DictionaryNews::All(Rc::new(all.into_iter().collect()));
                        under_way.push_back((cache.read_mark(), key, news));
                    }
                    Step::ReadSome(key, asked) => {
                        let all = database.get(&key).cloned().unwrap_or_default();
                        let found = asked.iter().filter_map(|item| Some((*item, *all.get(item)?)));
                        let news = DictionaryNews::Some { found: found.collect(), asked };
                        under_way.push_back((cache.read_mark(), key, news));
                    }
                    Step::Write(key, item, value) => {
                        let all = database.entry(key).or_default();
                        match value {
                            Some(value) => _ = all.insert(item, value),
                            None => _ = all.remove(&item),
                        }
                        cache.invalidate(&key);
                    }
                    Step::Ask(key, items) => {
                        let all = database.get(&key).cloned().unwrap_or_default();
                        let answer = cache.get(&key, items.iter().copied());
                        for (item, value) in &answer.found {
                            prop_assert_eq!(all.get(item), Some(value));
                        }
                        prop_assert!(answer.absent.iter().all(|item| !all.contains_key(item)));
                        let told = answer.found.len() + answer.absent.len() + answer.missing.len();
                        prop_assert_eq!(told, items.len());
                    }
                    Step::AskAll(key) => {
                        let all = database.get(&key).cloned().unwrap_or_default();
                        if let Some(known) = cache.get_all(&key) {
                            let known: BTreeMap<_, _> =
                                known.iter().map(|(item, value)| (*item, *value)).collect();
                            prop_assert_eq!(known, all);
                        }
                    }
                    Step::Arrive => {
                        let Some((mark, key, news)) = under_way.pop_front() else { continue };
                        let kept = cache.update(mark, &key, news.clone());
                        prop_assert_eq!(kept, mark == cache.read_mark());
                        if kept && limit > 1_000 {
                            match news {
                                DictionaryNews::All(_) => {
                                    prop_assert!(cache.get_all(&key).is_some());
                                }
                                DictionaryNews::Some { asked, .. } => {
                                    prop_assert!(cache.get(&key, asked).is_complete());
                                }
                            }
                        }
                    }
                }
                prop_assert!(cache.figures().size <= limit);
            }
            cache.invalidate_all();
            prop_assert_eq!(cache.figures().size, 0, "the total has not drifted");
        }
    }
}

mod expiring {
    use super::*;

    const AGE: Duration = Duration::from_secs(60);
    const MOMENT: Duration = Duration::from_nanos(1);

    fn options() -> ExpiringCacheOptions {
        ExpiringCacheOptions::new("test", AGE)
    }

    #[test]
    fn a_thing_is_there_for_its_time_and_its_memory_half_of_it_longer() {
        let clock = Clock::new();
        let cache = ExpiringCache::new(clock.reactor(), options());
        cache.insert(1, 'a');
        clock.advance(AGE / 4);
        cache.insert(2, 'b');
        clock.advance(AGE * 3 / 4 - MOMENT);
        assert_eq!((cache.get(&1), cache.get(&2)), (Some('a'), Some('b')));
        clock.advance(MOMENT);
        assert_eq!((cache.get(&1), cache.contains(&1), cache.get(&2)), (None, false, Some('b')));
        clock.advance(AGE / 2);
        assert!(cache.is_empty());
        let statistics = cache.figures().statistics;
        assert_eq!((statistics.expirations, statistics.hits, statistics.misses), (2, 3, 1));
        assert_eq!(clock.pending_calls(), 0, "nothing is left to wait for");
        cache.insert(3, 'c');
        assert_eq!(clock.pending_calls(), 1);
    }

    #[test]
    fn use_renews_if_the_cache_was_made_so() {
        for (renews, left) in [(true, Some('a')), (false, None)] {
            let clock = Clock::new();
            let options = if renews { options().renewed_by_use() } else { options() };
            let cache = ExpiringCache::new(clock.reactor(), options);
            cache.insert(1, 'a');
            cache.insert(2, 'b');
            clock.advance(AGE * 3 / 4);
            assert_eq!(cache.get(&1), Some('a'));
            clock.advance(AGE / 2);
            assert_eq!((cache.get(&1), cache.get(&2)), (left, None), "renews: {renews}");
        }
    }

    #[test]
    fn over_the_limit_the_oldest_goes_and_replacing_makes_new() {
        let clock = Clock::new();
        let cache = ExpiringCache::new(clock.reactor(), options().entries_max(2));
        cache.insert(1, 'a');
        cache.insert(2, 'b');
        assert_eq!(cache.insert(1, 'c'), Some('a'));
        cache.insert(3, 'd');
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (Some('c'), None, Some('d')));
        assert_eq!(cache.figures().statistics.evictions, 1);
        assert_eq!((cache.remove(&1), cache.remove(&1)), (Some('c'), None));
        cache.clear();
        assert!(cache.is_empty());
        let none = ExpiringCache::new(clock.reactor(), options().entries_max(0));
        none.insert(1, 'a');
        assert_eq!(none.get(&1), None);
    }

    #[test]
    fn what_is_too_old_is_not_given_back_either() {
        let clock = Clock::new();
        let cache = ExpiringCache::new(clock.reactor(), options());
        cache.insert(1, 'a');
        cache.insert(2, 'b');
        clock.advance(AGE / 4);
        cache.insert(9, 'z');
        clock.advance(AGE * 3 / 4);
        assert_eq!(cache.insert(1, 'c'), None);
        assert_eq!(cache.remove(&2), None);
    }

    #[test]
    fn expiry_is_not_the_work_of_whoever_has_put_something_in() {
        struct Noted(Rc<std::cell::RefCell<Vec<String>>>);
        impl Drop for Noted {
            fn drop(&mut self) {
                self.0.borrow_mut().push(LogContext::current().name().to_owned());
            }
        }
        let clock = Clock::new();
        let seen = Rc::default();
        let cache = ExpiringCache::new(clock.reactor(), options());
        LogContext::new("GET-1").run(|| cache.insert(1, Rc::new(Noted(Rc::clone(&seen)))));
        clock.advance(AGE * 2);
        assert_eq!(*seen.borrow(), ["expire test"]);
    }
}
