//! `DeferredCache`: lookups that are under way apart from values that have arrived.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;

use super::caches::{CacheFigures, CacheOptions, ManagedCache};
use super::lru::{self, CacheStatistics, LruCache, OnInvalidate};
use super::prefix::{PrefixOf, TreeKey};
use crate::deferred::{Deferred, IntoDeferred, ObservableDeferred, maybe_deferred};
use crate::failure::Failure;

/// A cache in front of lookups that take a while.
///
/// Callers who ask for a key whose lookup is under way join it. Lookups under way are never evicted;
/// values that have arrived are, least recently used first. Failures reach everyone who waits and are
/// never kept.
///
/// A lookup that was overtaken, by an invalidation or a newer [`set`](Self::set), still answers those
/// who wait for it, and is not kept.
///
/// Cancelling what a caller got lets only that caller go: the lookup goes on for the others and for the
/// cache. It runs in the context of the caller who started it.
///
/// A handle is a cheap clone.
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::cache::DeferredCache;
///
/// let cache = DeferredCache::new(1000);
/// let (lookup, resolver) = Deferred::new();
/// let first = cache.fetch("@anna:hs.example", || lookup);
/// let second = cache.fetch("@anna:hs.example", || -> Deferred<u32> { unreachable!() });
/// resolver.callback(7);
/// assert_eq!(first.into_result().unwrap().unwrap(), 7);
/// assert_eq!(second.into_result().unwrap().unwrap(), 7);
/// ```
pub struct DeferredCache<K, V: Clone + 'static> {
    state: Rc<State<K, V>>,
}

struct State<K, V: Clone + 'static> {
    completed: LruCache<K, V>,
    pending: RefCell<HashMap<K, Rc<Pending<V>>>>,
    next_number: Cell<u64>,
}

/// A lookup under way.
struct Pending<V: Clone + 'static> {
    /// Counts lookups, so that what is done with many of them is done in the order of their starts
    /// rather than that of their hashes.
    number: u64,
    lookup: ObservableDeferred<V>,
    callbacks: RefCell<Vec<OnInvalidate>>,
}

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static> DeferredCache<K, V> {
    /// Makes a cache that keeps at most `entries_max` values.
    pub fn new(entries_max: usize) -> Self {
        Self::over(LruCache::new(entries_max))
    }

    /// Makes a cache of collections that keeps at most `items_max` items in all. An empty collection
    /// counts as one, so that there is a limit to how many are kept.
    pub fn with_size(items_max: usize, size_of: impl Fn(&V) -> usize + 'static) -> Self {
        Self::over(LruCache::with_size(items_max, move |value| size_of(value).max(1)))
    }

    /// Makes a cache with a name, which may be one of a program's [`Caches`](super::Caches).
    pub fn with_options(options: CacheOptions<V>) -> Self {
        Self::configured(options, |completed| completed)
    }

    /// As [`with_options`](Self::with_options), with an index for
    /// [`invalidate_prefix`](Self::invalidate_prefix).
    pub fn by_prefix(options: CacheOptions<V>) -> Self
    where
        K: TreeKey,
    {
        Self::configured(options, LruCache::by_prefix)
    }

    fn configured(
        mut options: CacheOptions<V>,
        prepare: impl FnOnce(LruCache<K, V>) -> LruCache<K, V>,
    ) -> Self {
        let completed = match options.size_of.take() {
            Some(size_of) => LruCache::with_size(options.limit, size_of),
            None => LruCache::new(options.limit),
        };
        let cache = Self::over(prepare(completed));
        options.join(&cache.state);
        cache
    }

    fn over(completed: LruCache<K, V>) -> Self {
        Self {
            state: Rc::new(State {
                completed,
                pending: RefCell::default(),
                next_number: Cell::new(0),
            }),
        }
    }

    /// Returns the value, or joins the lookup under way, or starts one with `look_up`.
    ///
    /// Always a deferred: one that has fired on a hit. A panic of `look_up` becomes its failure.
    #[track_caller]
    pub fn fetch<R: IntoDeferred<V>>(&self, key: K, look_up: impl FnOnce() -> R) -> Deferred<V> {
        match self.get(&key) {
            Some(deferred) => deferred,
            None => self.set(key, maybe_deferred(look_up)),
        }
    }

    /// As [`fetch`](Self::fetch); `on_invalidate` is called when what was returned is no longer true.
    #[track_caller]
    pub fn fetch_with<R: IntoDeferred<V>>(
        &self,
        key: K,
        on_invalidate: OnInvalidate,
        look_up: impl FnOnce() -> R,
    ) -> Deferred<V> {
        match self.find(&key, Some(&on_invalidate)) {
            Some(deferred) => deferred,
            None => self.set_with(key, maybe_deferred(look_up), vec![on_invalidate]),
        }
    }

    /// Returns the value, or joins the lookup under way, if there is either.
    #[track_caller]
    pub fn get(&self, key: &K) -> Option<Deferred<V>> {
        self.find(key, None)
    }

    /// Puts a lookup in, and returns a deferred for its result.
    ///
    /// A value that is there stays until the new one arrives, but is not given out any more. A lookup of
    /// the same key that was under way is overtaken, and its invalidation callbacks run.
    #[track_caller]
    pub fn set(&self, key: K, lookup: Deferred<V>) -> Deferred<V> {
        self.set_with(key, lookup, Vec::new())
    }

    /// Puts a value in. A lookup of the same key that is under way is overtaken.
    pub fn prefill(&self, key: K, value: V) {
        let overtaken = self.state.take_pending(&key);
        self.state.completed.insert(key, value);
        call_pending(overtaken);
    }

    /// Forgets a key. Those who wait for a lookup of it still get the result, which is not kept.
    pub fn invalidate(&self, key: &K) {
        let overtaken = self.state.take_pending(key);
        self.state.completed.remove(key);
        call_pending(overtaken);
    }

    /// Forgets all keys that fit, at the cost of a walk over all of them.
    pub fn invalidate_where(&self, mut fits: impl FnMut(&K) -> bool) {
        let overtaken = self.state.take_all_pending(&mut fits);
        self.state.completed.remove_where(fits);
        call_pending(overtaken);
    }

    /// Forgets all keys that begin with `prefix`.
    ///
    /// Costs a walk over all keys unless the cache was made [`by_prefix`](Self::by_prefix), in which case
    /// it is one over the lookups under way.
    pub fn invalidate_prefix<P: PrefixOf<K>>(&self, prefix: &P) {
        let overtaken = self.state.take_all_pending(&mut |key| prefix.is_prefix_of(key));
        self.state.completed.remove_prefix(prefix);
        call_pending(overtaken);
    }

    /// Forgets everything.
    pub fn invalidate_all(&self) {
        self.state.clear();
    }

    /// Changes how much is kept; shrinking evicts at once.
    pub fn set_limit(&self, limit: usize) {
        self.state.completed.set_limit(limit);
    }

    /// Drops values that were not used for a while. See [`LruCache::expire`].
    pub fn expire(&self, ages: u64, drops_max: usize) -> usize {
        self.state.completed.expire(ages, drops_max)
    }

    /// Returns the value if it has arrived; does not count as a use.
    pub fn peek(&self, key: &K) -> Option<V> {
        self.state.completed.peek(key)
    }

    /// Returns the total size of the values that are kept.
    pub fn size(&self) -> usize {
        self.state.completed.size()
    }

    /// Returns how many lookups are under way.
    pub fn pending_count(&self) -> usize {
        self.state.pending.borrow().len()
    }

    /// Returns what there is to count.
    pub fn figures(&self) -> CacheFigures {
        self.state.figures()
    }

    /// Returns what the cache has done so far; joining a lookup counts as a hit.
    pub fn statistics(&self) -> CacheStatistics {
        self.state.completed.statistics()
    }

    pub(super) fn find(
        &self,
        key: &K,
        on_invalidate: Option<&OnInvalidate>,
    ) -> Option<Deferred<V>> {
        let pending = self.state.pending.borrow().get(key).cloned();
        if let Some(pending) = pending {
            pending.callbacks.borrow_mut().extend(on_invalidate.cloned());
            self.state.completed.count(true);
            return Some(pending.lookup.observe());
        }
        let value = match on_invalidate {
            Some(callback) => self.state.completed.get_with(key, Rc::clone(callback)),
            None => self.state.completed.get(key),
        };
        value.map(Deferred::succeed)
    }

    pub(super) fn set_with(
        &self,
        key: K,
        lookup: Deferred<V>,
        callbacks: Vec<OnInvalidate>,
    ) -> Deferred<V> {
        let lookup = ObservableDeferred::new(lookup);
        let number = self.state.next_number.get();
        self.state.next_number.set(number + 1);
        let pending = Rc::new(Pending { number, lookup, callbacks: RefCell::new(callbacks) });
        let overtaken = self.state.pending.borrow_mut().insert(key.clone(), Rc::clone(&pending));
        let state = Rc::clone(&self.state);
        let entry = Rc::clone(&pending);
        // The cache observes first, so that whoever is told next finds the value in place.
        pending
            .lookup
            .observe()
            .add_both(move |outcome| {
                state.complete(key, &entry, outcome);
                Ok(())
            })
            .detach();
        call_pending(overtaken);
        pending.lookup.observe()
    }
}

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static> State<K, V> {
    fn take_pending(&self, key: &K) -> Option<Rc<Pending<V>>> {
        self.pending.borrow_mut().remove(key)
    }

    /// Takes out the lookups whose key fits, in the order in which they were started.
    fn take_all_pending(&self, fits: &mut impl FnMut(&K) -> bool) -> Vec<Rc<Pending<V>>> {
        let mut keys: Vec<(u64, K)> = self
            .pending
            .borrow()
            .iter()
            .map(|(key, pending)| (pending.number, key.clone()))
            .collect();
        keys.sort_unstable_by_key(|(number, _)| *number);
        keys.retain(|(_, key)| fits(key));
        keys.iter().filter_map(|(_, key)| self.take_pending(key)).collect()
    }

    fn complete(&self, key: K, entry: &Rc<Pending<V>>, outcome: Result<V, Failure>) {
        let is_current =
            self.pending.borrow().get(&key).is_some_and(|other| Rc::ptr_eq(other, entry));
        if !is_current {
            return;
        }
        self.take_pending(&key);
        let callbacks = entry.callbacks.take();
        match outcome {
            Ok(value) => self.completed.insert_with(key, value, callbacks),
            Err(_) => lru::call(&callbacks),
        }
    }
}

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static> ManagedCache for State<K, V> {
    fn set_limit(&self, limit: usize) {
        self.completed.set_limit(limit);
    }

    fn expire(&self, ages: u64, drops_max: usize) -> usize {
        self.completed.expire(ages, drops_max)
    }

    fn expire_more(&self, ages: u64, drops_max: usize) -> usize {
        self.completed.expire_more(ages, drops_max)
    }

    fn clear(&self) {
        let overtaken = self.take_all_pending(&mut |_| true);
        self.completed.clear();
        call_pending(overtaken);
    }

    fn figures(&self) -> CacheFigures {
        CacheFigures { pending: self.pending.borrow().len(), ..self.completed.figures() }
    }
}

fn call_pending<V: Clone + 'static>(overtaken: impl IntoIterator<Item = Rc<Pending<V>>>) {
    for pending in overtaken {
        let callbacks = pending.callbacks.take();
        lru::call(&callbacks);
    }
}

impl<K, V: Clone + 'static> Clone for DeferredCache<K, V> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<K, V: Clone + 'static> fmt::Debug for DeferredCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredCache")
            .field("pending", &self.state.pending.borrow().len())
            .field("completed", &self.state.completed)
            .finish()
    }
}
