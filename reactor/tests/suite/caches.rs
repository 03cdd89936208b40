//! `LruCache` and `StreamChangeCache`: sizes, order, invalidation, safe answers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use proptest::prelude::*;
use ropewalk::cache::{ChangedEntities, LruCache, OnInvalidate, StreamChangeCache};

/// Counts how often it is called.
pub(crate) fn counter() -> (Rc<Cell<u32>>, OnInvalidate) {
    let count = Rc::new(Cell::new(0));
    let inside = count.clone();
    (count, Rc::new(move || inside.set(inside.get() + 1)))
}

mod lru {
    use super::*;

    #[test]
    fn the_entry_used_longest_ago_goes_first() {
        type Use = fn(&LruCache<char, u8>);
        let uses: [(&str, Use, char); 7] = [
            ("nothing", |_| (), 'a'),
            ("get refreshes", |cache| _ = cache.get(&'a'), 'b'),
            ("peek does not", |cache| _ = cache.peek(&'a'), 'a'),
            ("contains does not", |cache| assert!(cache.contains(&'a')), 'a'),
            ("replacing refreshes", |cache| cache.insert('a', 9), 'b'),
            (
                "get_or_insert of what is there does not",
                |cache| assert_eq!(cache.get_or_insert('a', 9), 1),
                'a',
            ),
            ("get of the newest changes nothing", |cache| _ = cache.get(&'c'), 'a'),
        ];
        for (why, use_it, evicted) in uses {
            let cache = LruCache::new(3);
            for (key, value) in [('a', 1), ('b', 2), ('c', 3)] {
                cache.insert(key, value);
            }
            use_it(&cache);
            cache.insert('d', 4);
            let gone: String = "abcd".chars().filter(|key| !cache.contains(key)).collect();
            assert_eq!(gone, evicted.to_string(), "{why}");
        }
    }

    #[test]
    fn the_size_is_kept_in_step_on_every_path() {
        let cache = LruCache::with_size(100, |value: &Vec<u8>| value.len());
        let filled = |size| vec![0; size];
        cache.insert(1, filled(10));
        cache.insert(2, filled(20));
        assert_eq!((cache.size(), cache.len()), (30, 2), "insert");
        cache.insert(1, filled(15));
        assert_eq!(cache.size(), 35, "replace by a larger one");
        cache.insert(1, filled(5));
        assert_eq!(cache.size(), 25, "replace by a smaller one");
        cache.remove(&2);
        assert_eq!(cache.size(), 5, "remove");
        cache.get_or_insert(3, filled(7));
        assert_eq!(cache.size(), 12, "get_or_insert");
        cache.remove_where(|key| *key == 3);
        assert_eq!(cache.size(), 5, "remove_where");
        cache.insert(4, filled(98));
        assert_eq!((cache.size(), cache.len()), (98, 1), "evict");
        cache.set_limit(50);
        assert_eq!((cache.size(), cache.len()), (0, 0), "a smaller limit");
        cache.insert(5, filled(50));
        cache.clear();
        assert_eq!((cache.size(), cache.len()), (0, 0), "clear");
        cache.insert(6, filled(9));
        cache.expire(0, 10);
        assert_eq!(cache.size(), 0, "expire");
    }

    #[test]
    fn a_value_that_changes_its_size_inside_the_cache_does_not_make_the_total_drift() {
        let cache = LruCache::with_size(10, |value: &Rc<RefCell<Vec<u8>>>| value.borrow().len());
        let value = Rc::new(RefCell::new(vec![0; 4]));
        cache.insert(1, value.clone());
        value.borrow_mut().extend([0; 1000]);
        cache.remove(&1);
        assert_eq!(cache.size(), 0);
    }

    #[test]
    fn a_value_larger_than_the_limit_pushes_out_everything_and_then_itself() {
        let cache = LruCache::with_size(10, |size: &usize| *size);
        let (small, on_small) = counter();
        let (large, on_large) = counter();
        cache.insert_with(1, 3, vec![on_small]);
        cache.insert_with(2, 11, vec![on_large]);
        assert_eq!((cache.len(), cache.size()), (0, 0));
        assert_eq!((small.get(), large.get()), (1, 1));
    }

    #[test]
    fn callbacks_run_once_for_whatever_reason_the_entry_goes() {
        type Go = fn(&LruCache<u8, u8>);
        let ways: [(&str, Go, u32); 8] = [
            ("remove", |cache| _ = cache.remove(&1), 1),
            ("replace", |cache| cache.insert(1, 2), 1),
            ("replace by an equal one", |cache| cache.insert(1, 1), 1),
            ("update by an equal one", |cache| cache.update(1, 1, vec![]), 0),
            ("update by another one", |cache| cache.update(1, 2, vec![]), 1),
            ("evict", |cache| (2..=3).for_each(|key| cache.insert(key, 0)), 1),
            ("clear", LruCache::clear, 1),
            ("expire", |cache| _ = cache.expire(0, 10), 1),
        ];
        for (why, go, expected) in ways {
            let cache = LruCache::new(2);
            let (count, on_invalidate) = counter();
            cache.insert_with(1, 1, vec![on_invalidate.clone()]);
            cache.get_with(&1, on_invalidate.clone());
            cache.get_with(&1, on_invalidate);
            go(&cache);
            assert_eq!(count.get(), expected, "{why}");
            cache.clear();
            assert_eq!(count.get(), 1, "{why}, then clear");
        }
    }

    #[test]
    fn a_callback_may_use_the_cache() {
        let cache = Rc::new(LruCache::new(2));
        let inside = Rc::downgrade(&cache);
        let on_invalidate: OnInvalidate = Rc::new(move || {
            let cache = inside.upgrade().expect("the test keeps it");
            assert!(!cache.contains(&1), "the entry has gone");
            cache.insert(9, 9);
            cache.remove(&2);
        });
        cache.insert_with(1, 1, vec![on_invalidate]);
        cache.insert(2, 2);
        cache.remove(&1);
        assert_eq!((cache.peek(&9), cache.peek(&2)), (Some(9), None));
    }

    #[test]
    fn entries_that_nobody_used_for_some_ages_expire_in_portions() {
        let cache = LruCache::new(100);
        for key in 0..10 {
            cache.insert(key, ());
        }
        assert_eq!(cache.expire(2, 100), 0);
        cache.get(&5);
        assert_eq!(cache.expire(2, 100), 0);
        assert_eq!(cache.expire(2, 4), 4, "at most so many at a time");
        assert_eq!(cache.expire_more(2, 100), 5);
        assert!(cache.contains(&5) && cache.len() == 1);
        assert_eq!(cache.statistics().expirations, 9);
    }

    #[test]
    fn statistics_count_what_happened() {
        let cache = LruCache::new(2);
        for key in 0..3 {
            cache.insert(key, ());
        }
        cache.get(&0);
        cache.get(&1);
        cache.remove(&1);
        let seen = cache.statistics();
        assert_eq!((seen.hits, seen.misses, seen.evictions, seen.invalidations), (1, 1, 1, 1));
    }

    #[test]
    fn a_group_of_keys_goes_together_and_the_index_follows_every_path() {
        for indexed in [true, false] {
            let cache = LruCache::new(4);
            let cache = if indexed { cache.by_prefix() } else { cache };
            for key in [(1, 1), (1, 2), (2, 1), (2, 2), (1, 3)] {
                cache.insert(key, ());
            }
            cache.insert((1, 2), ());
            cache.remove(&(2, 2));
            assert_eq!(cache.remove_prefix(&1), 2, "one was evicted");
            assert_eq!((cache.len(), cache.remove_prefix(&1)), (1, 0));
            cache.clear();
            assert_eq!(cache.remove_prefix(&2), 0);
            cache.insert((2, 7), ());
            cache.expire(0, 10);
            assert_eq!(cache.remove_prefix(&2), 0);
        }
    }

    /// Its value's drop once found the cache in the middle of an insertion.
    #[test]
    fn a_value_may_use_the_cache_when_it_is_dropped() {
        type Cache = LruCache<u8, Rc<Looks>>;
        struct Looks(Rc<RefCell<Option<Rc<Cache>>>>);
        impl Drop for Looks {
            fn drop(&mut self) {
                if let Some(cache) = self.0.borrow().as_ref() {
                    cache.insert(9, Rc::new(Looks(Rc::default())));
                }
            }
        }
        let cache = Rc::new(LruCache::new(10));
        let handle = Rc::new(RefCell::new(Some(cache.clone())));
        cache.insert(1, Rc::new(Looks(handle.clone())));
        cache.insert(1, Rc::new(Looks(Rc::default())));
        assert!(cache.contains(&9));
        handle.take();
    }

    proptest! {
        /// Against a plain list, newest first: sizes, order, and each callback called once when its
        /// entry goes.
        #[test]
        fn behaves_like_a_list(
            limit in 0usize..12,
            is_indexed: bool,
            steps in prop::collection::vec((0u8..12, 0u8..3, 0u8..4, 0usize..6), 0..200),
        ) {
            let cache = LruCache::with_size(limit, |size: &usize| *size);
            let cache = if is_indexed { cache.by_prefix() } else { cache };
            let mut model = Model { limit, entries: Vec::new(), gone: 0 };
            let gone = Rc::new(Cell::new(0));
            for (what, room, user, size) in steps {
                let key = (room, user);
                let called = gone.clone();
                let on_invalidate: OnInvalidate = Rc::new(move || called.set(called.get() + 1));
                match what {
                    0..=2 => {
                        cache.insert_with(key, size, vec![on_invalidate]);
                        model.insert(key, size, 1);
                    }
                    3 | 4 => {
                        let found = cache.get_with(&key, on_invalidate);
                        prop_assert_eq!(found, model.touch(key));
                    }
                    5 => {
                        cache.update(key, size, vec![on_invalidate]);
                        model.update(key, size);
                    }
                    6 => {
                        let there = model.entries.iter().find(|entry| entry.0 == key).copied();
                        let kept = there.map_or(size, |entry| entry.1);
                        prop_assert_eq!(cache.get_or_insert(key, size), kept);
                        if there.is_none() {
                            model.insert(key, size, 0);
                        }
                    }
                    7 => {
                        prop_assert_eq!(cache.remove(&key).is_some(), model.forget(|k| k == key) > 0);
                    }
                    8 => prop_assert_eq!(cache.remove_prefix(&room), model.forget(|k| k.0 == room)),
                    9 => {
                        let count = cache.remove_where(|k| k.1 == user);
                        prop_assert_eq!(count, model.forget(|k| k.1 == user));
                    }
                    10 => {
                        cache.set_limit(size * 2);
                        model.limit = size * 2;
                        model.evict();
                    }
                    _ if size == 0 => {
                        cache.clear();
                        model.forget(|_| true);
                    }
                    // Nothing is that old.
                    _ => prop_assert_eq!(cache.expire(1_000, 10), 0),
                }
                prop_assert_eq!(cache.size(), model.entries.iter().map(|entry| entry.1).sum::<usize>());
                prop_assert_eq!(cache.len(), model.entries.len());
                prop_assert!(model.entries.iter().all(|entry| cache.peek(&entry.0) == Some(entry.1)));
                prop_assert_eq!(gone.get(), model.gone, "callbacks of entries that have gone");
            }
        }
    }

    type Key = (u8, u8);

    struct Model {
        limit: usize,
        /// Key, size, and how many callbacks there are; newest first.
        entries: Vec<(Key, usize, u32)>,
        /// How many callbacks have been called.
        gone: u32,
    }

    impl Model {
        fn insert(&mut self, key: Key, size: usize, callbacks: u32) {
            self.forget(|other| other == key);
            self.entries.insert(0, (key, size, callbacks));
            self.evict();
        }

        fn update(&mut self, key: Key, size: usize) {
            match self.entries.iter().position(|entry| (entry.0, entry.1) == (key, size)) {
                Some(at) => {
                    let (key, size, callbacks) = self.entries.remove(at);
                    self.entries.insert(0, (key, size, callbacks + 1));
                    self.evict();
                }
                None => self.insert(key, size, 1),
            }
        }

        fn touch(&mut self, key: Key) -> Option<usize> {
            let at = self.entries.iter().position(|entry| entry.0 == key)?;
            let (key, size, callbacks) = self.entries.remove(at);
            self.entries.insert(0, (key, size, callbacks + 1));
            Some(size)
        }

        fn forget(&mut self, fits: impl Fn(Key) -> bool) -> usize {
            let before = self.entries.len();
            let gone = self.entries.iter().filter(|entry| fits(entry.0)).map(|entry| entry.2);
            self.gone += gone.sum::<u32>();
            self.entries.retain(|entry| !fits(entry.0));
            before - self.entries.len()
        }

        fn evict(&mut self) {
            while self.entries.iter().map(|entry| entry.1).sum::<usize>() > self.limit {
                if let Some((_, _, callbacks)) = self.entries.pop() {
                    self.gone += callbacks;
                }
            }
        }
    }
}

mod stream_change {
    use super::*;

    fn cache() -> StreamChangeCache<&'static str> {
        let mut cache = StreamChangeCache::new(10, 3);
        for (entity, position) in [("a", 11), ("b", 12), ("a", 13)] {
            cache.entity_has_changed(entity, position);
        }
        cache
    }

    #[test]
    fn answers_err_on_the_safe_side() {
        let cache = cache();
        for (why, entity, position, expected) in [
            ("before the cache can tell", "x", 9, true),
            ("at its beginning, unknown entity", "x", 10, false),
            ("changed after", "a", 12, true),
            ("changed at that very position", "a", 13, false),
            ("changed before", "b", 12, false),
            ("a later position", "b", 99, false),
        ] {
            assert_eq!(cache.has_entity_changed(&entity, position), expected, "{why}");
        }
        assert!(cache.has_any_changed(9) && cache.has_any_changed(12));
        assert!(!cache.has_any_changed(13));
    }

    #[test]
    fn lists_of_changes_are_in_order() {
        let cache = cache();
        assert_eq!(cache.all_changed_since(9), ChangedEntities::Unknown);
        assert_eq!(cache.all_changed_since(10), ChangedEntities::Known(vec!["b", "a"]));
        assert_eq!(cache.all_changed_since(12), ChangedEntities::Known(vec!["a"]));
        assert_eq!(cache.all_changed_since(13), ChangedEntities::Known(vec![]));
        assert_eq!(cache.entities_changed(&["x", "b", "a"], 11), ["b", "a"]);
        assert_eq!(cache.entities_changed(&["x", "b"], 9), ["x", "b"]);
    }

    #[test]
    fn over_the_limit_the_lowest_position_is_forgotten() {
        let mut cache = StreamChangeCache::new(10, 3);
        for (entity, position) in [("a", 11), ("b", 12), ("c", 12), ("d", 13), ("e", 14)] {
            cache.entity_has_changed(entity, position);
        }
        assert_eq!(cache.earliest_known_position(), 11);
        assert!(cache.has_entity_changed(&"x", 10), "not known any more");
        assert!(!cache.has_entity_changed(&"a", 11), "after the forgotten position it can tell");
        assert_eq!(cache.last_change(&"a"), None);
        cache.entity_has_changed("f", 15);
        assert_eq!(cache.earliest_known_position(), 12);
        assert_eq!((cache.last_change(&"b"), cache.last_change(&"c")), (None, None));
    }

    #[test]
    fn old_news_are_ignored() {
        let mut cache = cache();
        cache.entity_has_changed("a", 12);
        assert_eq!(cache.last_change(&"a"), Some(13));
        cache.entity_has_changed("z", 10);
        assert_eq!(cache.last_change(&"z"), None);
        cache.entity_has_changed("a", 14);
        assert_eq!(cache.all_changed_since(12), ChangedEntities::Known(vec!["a"]));
    }

    /// Nothing has changed since the position at which a cache began that has heard of nothing.
    #[test]
    fn an_empty_cache_can_tell_from_its_beginning_on() {
        let cache = StreamChangeCache::<&str>::new(10, 3);
        assert!(cache.has_entity_changed(&"x", 9) && cache.has_any_changed(9));
        assert!(!cache.has_entity_changed(&"x", 10) && !cache.has_any_changed(10));
        assert_eq!(cache.entities_changed(&["x"], 9), ["x"]);
        assert!(cache.entities_changed(&["x"], 10).is_empty());
        assert_eq!(cache.all_changed_since(10), ChangedEntities::Known(vec![]));
    }

    #[test]
    fn everything_may_have_changed_at_once() {
        let mut cache = cache();
        cache.all_entities_changed(20);
        assert!(cache.has_entity_changed(&"x", 19));
        assert!(!cache.has_entity_changed(&"a", 20));
        cache.all_entities_changed(15);
        assert_eq!(cache.earliest_known_position(), 20, "it never goes back");
    }

    #[test]
    fn prefilled_from_the_newest_rows_it_can_tell_from_the_lowest_of_them_on() {
        let rows = [("c", 9), ("a", 8), ("b", 7), ("a", 7)];
        let cache = StreamChangeCache::prefilled(9, 4, rows);
        assert_eq!(cache.earliest_known_position(), 7);
        assert!(cache.has_entity_changed(&"x", 6), "rows at 7 may have been cut off");
        assert_eq!(cache.all_changed_since(7), ChangedEntities::Known(vec!["a", "c"]));
        let empty = StreamChangeCache::<&str>::prefilled(9, 4, []);
        assert_eq!(empty.earliest_known_position(), 9);
        assert!(!empty.has_entity_changed(&"x", 9));
    }

    proptest! {
        /// Against a list of all changes: what the cache says has not changed, has not.
        #[test]
        fn never_denies_a_change(
            positions_max in 1usize..6,
            changes in prop::collection::vec((0u8..5, 1u64..30), 0..60),
            entity in 0u8..5,
            position in 0u64..32,
        ) {
            let mut sorted = changes;
            sorted.sort_by_key(|change| change.1);
            let mut cache = StreamChangeCache::new(0, positions_max);
            for (entity, position) in &sorted {
                cache.entity_has_changed(*entity, *position);
            }
            let has_changed = sorted.iter().any(|(other, at)| *other == entity && *at > position);
            if has_changed {
                prop_assert!(cache.has_entity_changed(&entity, position));
                prop_assert!(cache.has_any_changed(position));
                match cache.all_changed_since(position) {
                    ChangedEntities::Known(entities) => prop_assert!(entities.contains(&entity)),
                    ChangedEntities::Unknown => {}
                }
            }
            if position >= cache.earliest_known_position() {
                prop_assert_eq!(cache.has_entity_changed(&entity, position), has_changed);
            }
        }
    }
}
