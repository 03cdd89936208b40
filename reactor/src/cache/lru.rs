//! `LruCache`: keeps what was used last, up to a total size.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;

use slab::Slab;

use super::caches::{CacheFigures, ManagedCache};
use super::prefix::{PrefixIndex, PrefixOf, TreeKey};

/// Called when an entry leaves a cache or is replaced, whatever the reason; at most once for each time
/// that it was given. The same `Rc` given twice for one entry counts once.
pub type OnInvalidate = Rc<dyn Fn()>;

/// A map that drops the entries that were not used for longest when it grows over its limit.
///
/// The size of an entry is 1, or what the size callback says when the entry is put in; the total is kept
/// in step on insertion, replacement and removal and never recomputed. A value that is larger than the
/// limit pushes out everything else and then itself.
///
/// Invalidation callbacks run after the cache is done with the operation, so they may use the cache.
///
/// ```
/// use ropewalk::cache::LruCache;
///
/// let cache = LruCache::with_size(10, |text: &&str| text.len());
/// cache.insert("a", "12345");
/// cache.insert("b", "123");
/// assert_eq!((cache.get(&"a"), cache.size()), (Some("12345"), 8));
/// cache.insert("c", "123");
/// assert_eq!(cache.get(&"b"), None, "used longest ago");
/// assert_eq!(cache.size(), 8);
/// ```
pub struct LruCache<K, V> {
    inner: RefCell<Inner<K, V>>,
    size_of: Option<SizeOf<V>>,
}

pub(super) type SizeOf<V> = Box<dyn Fn(&V) -> usize>;

/// What a cache has done so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CacheStatistics {
    /// Lookups that found something.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Entries dropped because the cache was over its limit.
    pub evictions: u64,
    /// Entries dropped because nobody had used them for a while.
    pub expirations: u64,
    /// Entries removed or replaced on demand.
    pub invalidations: u64,
}

struct Inner<K, V> {
    places: HashMap<K, usize>,
    /// Groups of keys that share a prefix, if those are to be found quickly.
    index: Option<PrefixIndex<K>>,
    entries: Slab<Entry<K, V>>,
    /// Used last.
    newest: Option<usize>,
    /// Used longest ago.
    oldest: Option<usize>,
    total: usize,
    limit: usize,
    age: u64,
    statistics: CacheStatistics,
}

struct Entry<K, V> {
    key: K,
    value: V,
    /// As counted in the total, even if the value should have changed since.
    size: usize,
    used_at_age: u64,
    callbacks: Vec<OnInvalidate>,
    newer: Option<usize>,
    older: Option<usize>,
}

impl<K: Clone + Eq + Hash, V: Clone> LruCache<K, V> {
    /// Makes a cache for at most `entries_max` entries.
    pub fn new(entries_max: usize) -> Self {
        Self::make(entries_max, None)
    }

    /// Makes a cache for values whose sizes, as `size_of` tells them, add up to at most `limit`.
    ///
    /// An entry of size 0 is never a reason to evict, so a `size_of` that can say 0 does not bound the
    /// number of entries.
    pub fn with_size(limit: usize, size_of: impl Fn(&V) -> usize + 'static) -> Self {
        Self::make(limit, Some(Box::new(size_of)))
    }

    fn make(limit: usize, size_of: Option<SizeOf<V>>) -> Self {
        let inner = Inner {
            places: HashMap::new(),
            index: None,
            entries: Slab::new(),
            newest: None,
            oldest: None,
            total: 0,
            limit,
            age: 0,
            statistics: CacheStatistics::default(),
        };
        Self { inner: RefCell::new(inner), size_of }
    }

    /// Keeps an index of the keys' prefixes, for [`remove_prefix`](Self::remove_prefix).
    ///
    /// It costs some hundred bytes an entry, and makes the removal of a group cost what the group has
    /// entries rather than what the cache has.
    #[must_use]
    pub fn by_prefix(self) -> Self
    where
        K: TreeKey,
    {
        let mut index = PrefixIndex::new();
        let mut inner = self.inner.borrow_mut();
        for (place, entry) in &inner.entries {
            index.insert(&entry.key, place);
        }
        inner.index = Some(index);
        drop(inner);
        self
    }

    /// Returns the value and makes it the one used last.
    pub fn get(&self, key: &K) -> Option<V> {
        self.look_up(key, None)
    }

    /// As [`get`](Self::get); on a hit, `on_invalidate` will be called when the entry goes.
    pub fn get_with(&self, key: &K, on_invalidate: OnInvalidate) -> Option<V> {
        self.look_up(key, Some(on_invalidate))
    }

    /// Returns the value without counting as a use.
    pub fn peek(&self, key: &K) -> Option<V> {
        let inner = self.inner.borrow();
        inner.places.get(key).and_then(|&place| inner.entries.get(place)).map(|e| e.value.clone())
    }

    /// Whether there is an entry; does not count as a use.
    pub fn contains(&self, key: &K) -> bool {
        self.inner.borrow().places.contains_key(key)
    }

    /// Puts a value in, in place of what was there, whose callbacks run.
    pub fn insert(&self, key: K, value: V) {
        self.put(key, value, Vec::new(), |_, _| false);
    }

    /// As [`insert`](Self::insert), with callbacks for the new entry.
    pub fn insert_with(&self, key: K, value: V, callbacks: Vec<OnInvalidate>) {
        self.put(key, value, callbacks, |_, _| false);
    }

    /// As [`insert_with`](Self::insert_with), but if an equal value was there, its callbacks are kept and
    /// the new ones added.
    pub fn update(&self, key: K, value: V, callbacks: Vec<OnInvalidate>)
    where
        V: PartialEq,
    {
        self.put(key, value, callbacks, V::eq);
    }

    /// Returns what is there, without counting as a use, or puts `value` in and returns that.
    pub fn get_or_insert(&self, key: K, value: V) -> V {
        if let Some(present) = self.peek(&key) {
            return present;
        }
        self.insert(key, value.clone());
        value
    }

    /// Takes an entry out; its callbacks run.
    pub fn remove(&self, key: &K) -> Option<V> {
        let mut inner = self.inner.borrow_mut();
        let entry = inner.take(key)?;
        inner.statistics.invalidations += 1;
        drop(inner);
        call(&entry.callbacks);
        Some(entry.value)
    }

    /// Takes out all entries whose key fits, at the cost of a walk over all of them.
    pub fn remove_where(&self, mut fits: impl FnMut(&K) -> bool) -> usize {
        // A copy of the keys, as `fits` is somebody else's code and may use the cache.
        let mut keys: Vec<K> = self.inner.borrow().walk().map(|entry| entry.key.clone()).collect();
        keys.retain(|key| fits(key));
        keys.iter().filter(|key| self.remove(key).is_some()).count()
    }

    /// Takes out all entries whose key begins with `prefix`, and returns how many there were.
    ///
    /// ```
    /// use ropewalk::cache::LruCache;
    ///
    /// let members = LruCache::new(100).by_prefix();
    /// members.insert(("!a:hs.example", "@anna:hs.example"), "join");
    /// members.insert(("!a:hs.example", "@bob:hs.example"), "leave");
    /// members.insert(("!b:hs.example", "@anna:hs.example"), "join");
    /// assert_eq!(members.remove_prefix(&"!a:hs.example"), 2);
    /// assert_eq!(members.len(), 1);
    /// ```
    ///
    /// Costs a walk over all entries unless the cache is kept [`by_prefix`](Self::by_prefix).
    pub fn remove_prefix<P: PrefixOf<K>>(&self, prefix: &P) -> usize {
        let inner = self.inner.borrow();
        let Some(index) = &inner.index else {
            drop(inner);
            return self.remove_where(|key| prefix.is_prefix_of(key));
        };
        let entries = index.find(prefix).filter_map(|place| inner.entries.get(place));
        let mut keys: Vec<K> = entries.map(|entry| entry.key.clone()).collect();
        drop(inner);
        // Comparing keys is somebody else's code.
        keys.retain(|key| prefix.is_prefix_of(key));
        keys.iter().filter(|key| self.remove(key).is_some()).count()
    }

    /// Takes everything out; all callbacks run.
    pub fn clear(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.places.clear();
        if let Some(index) = &mut inner.index {
            index.clear();
        }
        let entries = std::mem::take(&mut inner.entries);
        (inner.newest, inner.oldest, inner.total) = (None, None, 0);
        inner.statistics.invalidations += entries.len() as u64;
        drop(inner);
        for (_, entry) in entries {
            call(&entry.callbacks);
        }
    }

    /// Changes the limit; shrinking evicts at once.
    pub fn set_limit(&self, limit: usize) {
        self.inner.borrow_mut().limit = limit;
        self.evict();
    }

    /// Says that time passes, and drops what was not used for `ages` such calls, at most `drops_max`
    /// entries at a time. Returns how many were dropped; as many as `drops_max` means there may be more
    /// (ask again with [`expire_more`](Self::expire_more)).
    pub fn expire(&self, ages: u64, drops_max: usize) -> usize {
        self.inner.borrow_mut().age += 1;
        self.expire_more(ages, drops_max)
    }

    /// Goes on with what [`expire`](Self::expire) left, without letting time pass.
    pub fn expire_more(&self, ages: u64, drops_max: usize) -> usize {
        for dropped in 0..drops_max {
            let mut inner = self.inner.borrow_mut();
            let Some(entry) = inner.take_oldest(|age, entry| age - entry.used_at_age > ages) else {
                return dropped;
            };
            inner.statistics.expirations += 1;
            drop(inner);
            call(&entry.callbacks);
        }
        drops_max
    }

    /// Returns the limit of the total size.
    pub fn limit(&self) -> usize {
        self.inner.borrow().limit
    }

    /// Returns the total size, which is the number of entries unless there is a size callback.
    pub fn size(&self) -> usize {
        self.inner.borrow().total
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.inner.borrow().places.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns what the cache has done so far.
    pub fn statistics(&self) -> CacheStatistics {
        self.inner.borrow().statistics
    }

    /// Counts a lookup that was made elsewhere.
    pub(super) fn count(&self, is_hit: bool) {
        let statistics = &mut self.inner.borrow_mut().statistics;
        statistics.hits += u64::from(is_hit);
        statistics.misses += u64::from(!is_hit);
    }

    fn look_up(&self, key: &K, on_invalidate: Option<OnInvalidate>) -> Option<V> {
        let mut inner = self.inner.borrow_mut();
        let Some(&place) = inner.places.get(key) else {
            inner.statistics.misses += 1;
            return None;
        };
        inner.statistics.hits += 1;
        inner.touch(place);
        let entry = inner.entries.get_mut(place)?;
        add_callbacks(&mut entry.callbacks, on_invalidate);
        Some(entry.value.clone())
    }

    fn put(
        &self,
        key: K,
        value: V,
        callbacks: Vec<OnInvalidate>,
        is_same: impl FnOnce(&V, &V) -> bool,
    ) {
        // Asked, compared and dropped while nothing is borrowed: it is all somebody else's code.
        let size = self.size_of.as_ref().map_or(1, |size_of| size_of(&value));
        let replaced = self.inner.borrow_mut().take(&key);
        let (mut kept, mut to_call) = (Vec::new(), Vec::new());
        if let Some(replaced) = &replaced {
            match is_same(&replaced.value, &value) {
                true => kept.clone_from(&replaced.callbacks),
                false => {
                    self.inner.borrow_mut().statistics.invalidations += 1;
                    to_call.clone_from(&replaced.callbacks);
                }
            }
        }
        drop(replaced);
        add_callbacks(&mut kept, callbacks);
        let mut inner = self.inner.borrow_mut();
        let entry = Entry {
            key,
            value,
            size,
            used_at_age: inner.age,
            callbacks: kept,
            newer: None,
            older: None,
        };
        inner.put(entry);
        drop(inner);
        call(&to_call);
        self.evict();
    }

    fn evict(&self) {
        loop {
            let mut inner = self.inner.borrow_mut();
            if inner.total <= inner.limit {
                return;
            }
            let Some(entry) = inner.take_oldest(|_, _| true) else { return };
            inner.statistics.evictions += 1;
            drop(inner);
            call(&entry.callbacks);
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> ManagedCache for LruCache<K, V> {
    fn set_limit(&self, limit: usize) {
        self.set_limit(limit);
    }

    fn expire(&self, ages: u64, drops_max: usize) -> usize {
        self.expire(ages, drops_max)
    }

    fn expire_more(&self, ages: u64, drops_max: usize) -> usize {
        self.expire_more(ages, drops_max)
    }

    fn clear(&self) {
        self.clear();
    }

    fn figures(&self) -> CacheFigures {
        let inner = self.inner.borrow();
        CacheFigures {
            entries: inner.places.len(),
            size: inner.total,
            limit: inner.limit,
            pending: 0,
            statistics: inner.statistics,
        }
    }
}

impl<K: Clone + Eq + Hash, V> Inner<K, V> {
    fn put(&mut self, entry: Entry<K, V>) {
        self.total += entry.size;
        let key = entry.key.clone();
        let place = self.entries.insert(entry);
        if let Some(index) = &mut self.index {
            index.insert(&key, place);
        }
        self.places.insert(key, place);
        self.link_newest(place);
    }

    fn take(&mut self, key: &K) -> Option<Entry<K, V>> {
        let place = self.places.remove(key)?;
        self.unlink(place);
        let entry = self.entries.try_remove(place)?;
        if let Some(index) = &mut self.index {
            index.remove(&entry.key, place);
        }
        self.total -= entry.size;
        Some(entry)
    }

    fn take_oldest(&mut self, is_due: impl Fn(u64, &Entry<K, V>) -> bool) -> Option<Entry<K, V>> {
        let entry = self.entries.get(self.oldest?)?;
        if !is_due(self.age, entry) {
            return None;
        }
        let key = entry.key.clone();
        self.take(&key)
    }

    fn touch(&mut self, place: usize) {
        if self.newest != Some(place) {
            self.unlink(place);
            self.link_newest(place);
        }
        let age = self.age;
        if let Some(entry) = self.entries.get_mut(place) {
            entry.used_at_age = age;
        }
    }

    fn link_newest(&mut self, place: usize) {
        let second = self.newest.replace(place);
        if let Some(entry) = self.entries.get_mut(place) {
            (entry.newer, entry.older) = (None, second);
        }
        match second {
            Some(second) => {
                if let Some(entry) = self.entries.get_mut(second) {
                    entry.newer = Some(place);
                }
            }
            None => self.oldest = Some(place),
        }
    }

    fn unlink(&mut self, place: usize) {
        let Some(entry) = self.entries.get(place) else { return };
        let (newer, older) = (entry.newer, entry.older);
        match newer.and_then(|newer| self.entries.get_mut(newer)) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match older.and_then(|older| self.entries.get_mut(older)) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// Goes over the entries from the one used last to the one used longest ago.
    fn walk(&self) -> impl Iterator<Item = &Entry<K, V>> {
        let first = self.newest.and_then(|place| self.entries.get(place));
        std::iter::successors(first, |entry| entry.older.and_then(|place| self.entries.get(place)))
    }
}

impl<K, V> fmt::Debug for LruCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.inner.borrow();
        f.debug_struct("LruCache")
            .field("entries", &inner.places.len())
            .field("size", &inner.total)
            .field("limit", &inner.limit)
            .finish()
    }
}

fn add_callbacks(callbacks: &mut Vec<OnInvalidate>, added: impl IntoIterator<Item = OnInvalidate>) {
    for callback in added {
        if !callbacks.iter().any(|other| Rc::ptr_eq(other, &callback)) {
            callbacks.push(callback);
        }
    }
}

pub(super) fn call(callbacks: &[OnInvalidate]) {
    for callback in callbacks {
        callback();
    }
}
