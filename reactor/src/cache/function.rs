//! `CachedFunction`: a function whose results are kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::rc::{Rc, Weak};

use super::caches::{CacheFigures, CacheOptions};
use super::deferred_cache::DeferredCache;
use super::lru::OnInvalidate;
use super::prefix::{PrefixOf, TreeKey};
use crate::deferred::{Deferred, IntoDeferred, maybe_deferred};

/// A function of its arguments whose results are kept, and shared by those who call it at the same time.
///
/// The key is made of all arguments: one, or a tuple of several. A call always gives a deferred, one that
/// has fired if the result is kept. Failures, panics included, reach all who wait and are not kept.
///
/// The function runs in the context of the caller who is the first to need the result. Cancelling a call
/// lets that caller go; the function goes on, for the others and for the next.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use ropewalk::Failure;
/// use ropewalk::cache::{CacheOptions, CachedFunction};
/// use ropewalk::testing::success_result_of;
///
/// let calls = Rc::new(Cell::new(0));
/// let counter = Rc::clone(&calls);
/// // In earnest it would ask a database, and return the deferred for that.
/// let membership = CachedFunction::by_prefix(
///     CacheOptions::new("membership", 10_000),
///     move |(room, user): (&str, &str)| {
///         counter.set(counter.get() + 1);
///         Ok::<_, Failure>(format!("{user} in {room}"))
///     },
/// );
/// for _ in 0..3 {
///     let answer = success_result_of(membership.call(("!a:hs", "@anna:hs")));
///     assert_eq!(answer, "@anna:hs in !a:hs");
/// }
/// assert_eq!(calls.get(), 1);
/// membership.invalidate(&("!a:hs", "@anna:hs"));
/// membership.invalidate_prefix(&"!a:hs");
/// success_result_of(membership.call(("!a:hs", "@anna:hs")));
/// assert_eq!(calls.get(), 2);
/// ```
///
/// # Arguments that do not count
///
/// [`with_uncached`](Self::with_uncached) makes a function of a key and something else that has no
/// influence on the result, say who asks or how long the answer may take. It is used only by the call
/// that does the work.
///
/// # Results made of other results
///
/// When a cached function calls another one, what it keeps is no longer true when that is not.
/// [`cascading`](Self::cascading) gives the function a [`CallEntry`] to pass on:
///
/// ```
/// use ropewalk::cache::{CacheOptions, CachedFunction};
/// use ropewalk::testing::success_result_of;
/// use ropewalk::{Deferred, Failure};
///
/// let name = CachedFunction::new(CacheOptions::new("name", 100), |user: u32| {
///     Ok::<_, Failure>(format!("user {user}"))
/// });
/// let inner = name.clone();
/// let greeting = CachedFunction::cascading(CacheOptions::new("greeting", 100), move |user, entry| {
///     inner.call_for(user, entry).add_callback(|name| Ok(format!("Hello, {name}!")))
/// });
/// assert_eq!(success_result_of(greeting.call(7)), "Hello, user 7!");
/// assert_eq!(greeting.figures().entries, 1);
/// name.invalidate(&7);
/// assert_eq!(greeting.figures().entries, 0, "the greeting is gone too");
/// ```
///
/// A handle is a cheap clone.
pub struct CachedFunction<K, V: Clone + 'static, U = ()> {
    state: Rc<State<K, V, U>>,
}

struct State<K, V: Clone + 'static, U> {
    cache: DeferredCache<K, V>,
    function: Function<K, V, U>,
    /// One for each key for which somebody may still call it: what is made again and again of results
    /// that stay must not leave a callback there each time.
    entries: RefCell<Entries<K>>,
}

enum Function<K, V: 'static, U> {
    Cascading(CascadingFunction<K, V, U>),
    Plain(PlainFunction<K, V, U>),
}

type CascadingFunction<K, V, U> = Box<dyn Fn(K, U, &CallEntry) -> Deferred<V>>;
type PlainFunction<K, V, U> = Box<dyn Fn(K, U) -> Deferred<V>>;

struct Entries<K> {
    by_key: HashMap<K, Weak<dyn Fn()>>,
    /// At how many they are looked through for those that are gone.
    sweep_at: usize,
}

/// What a cached function is called for: the entry that its result will be.
///
/// Passed to other cached calls ([`CachedFunction::call_for`]), it has the entry forgotten when their
/// results are.
#[derive(Clone)]
pub struct CallEntry {
    on_invalidate: OnInvalidate,
}

impl CallEntry {
    /// Returns a callback that has the entry forgotten, for caches and events of other kinds.
    pub fn on_invalidate(&self) -> OnInvalidate {
        Rc::clone(&self.on_invalidate)
    }
}

impl fmt::Debug for CallEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallEntry")
    }
}

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static> CachedFunction<K, V> {
    /// Keeps the results of `function`.
    pub fn new<R: IntoDeferred<V>>(
        options: CacheOptions<V>,
        function: impl Fn(K) -> R + 'static,
    ) -> Self {
        Self::plain(DeferredCache::with_options(options), move |key, ()| function(key))
    }

    /// As [`new`](Self::new), with an index of the keys' first parts: invalidating a prefix then costs
    /// what there is under it.
    pub fn by_prefix<R: IntoDeferred<V>>(
        options: CacheOptions<V>,
        function: impl Fn(K) -> R + 'static,
    ) -> Self
    where
        K: TreeKey,
    {
        Self::plain(DeferredCache::by_prefix(options), move |key, ()| function(key))
    }

    /// Keeps the results of a function that calls other cached functions: see
    /// [the type](Self#results-made-of-other-results).
    pub fn cascading<R: IntoDeferred<V>>(
        options: CacheOptions<V>,
        function: impl Fn(K, &CallEntry) -> R + 'static,
    ) -> Self {
        Self::over(DeferredCache::with_options(options), move |key, (), entry| function(key, entry))
    }

    /// Returns the result: the one that is kept, or is being made, or else that of the function.
    #[track_caller]
    pub fn call(&self, key: K) -> Deferred<V> {
        self.call_with(key, ())
    }

    /// As [`call`](Self::call); `entry`, for which this is called, is forgotten when the result is.
    #[track_caller]
    pub fn call_for(&self, key: K, entry: &CallEntry) -> Deferred<V> {
        self.call_with_callback(key, (), Some(entry.on_invalidate()))
    }

    /// As [`call`](Self::call); `on_invalidate` is called when what was returned is no longer true.
    #[track_caller]
    pub fn call_watched(&self, key: K, on_invalidate: OnInvalidate) -> Deferred<V> {
        self.call_with_callback(key, (), Some(on_invalidate))
    }
}

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static, U: 'static> CachedFunction<K, V, U> {
    /// Keeps the results of a function of a key and of something that has no influence on the result.
    pub fn with_uncached<R: IntoDeferred<V>>(
        options: CacheOptions<V>,
        function: impl Fn(K, U) -> R + 'static,
    ) -> Self {
        Self::plain(DeferredCache::with_options(options), function)
    }

    /// Keeps the results of `function`, which may call other cached functions, in a cache that was made
    /// for it: one with an index of prefixes, say.
    pub fn over<R: IntoDeferred<V>>(
        cache: DeferredCache<K, V>,
        function: impl Fn(K, U, &CallEntry) -> R + 'static,
    ) -> Self {
        Self::make(
            cache,
            Function::Cascading(Box::new(move |key, uncached, entry| {
                maybe_deferred(|| function(key, uncached, entry))
            })),
        )
    }

    fn plain<R: IntoDeferred<V>>(
        cache: DeferredCache<K, V>,
        function: impl Fn(K, U) -> R + 'static,
    ) -> Self {
        Self::make(
            cache,
            Function::Plain(Box::new(move |key, uncached| {
                maybe_deferred(|| function(key, uncached))
            })),
        )
    }

    fn make(cache: DeferredCache<K, V>, function: Function<K, V, U>) -> Self {
        let entries = Entries { by_key: HashMap::new(), sweep_at: SWEEP_MIN };
        Self { state: Rc::new(State { cache, function, entries: RefCell::new(entries) }) }
    }

    /// Returns the result for `key`; `uncached` goes to the function if it is called for it.
    #[track_caller]
    pub fn call_with(&self, key: K, uncached: U) -> Deferred<V> {
        self.call_with_callback(key, uncached, None)
    }

    /// Forgets a result. Those who wait for it still get it.
    pub fn invalidate(&self, key: &K) {
        self.state.cache.invalidate(key);
    }

    /// Forgets the results for all keys that begin with `prefix`.
    pub fn invalidate_prefix<P: PrefixOf<K>>(&self, prefix: &P) {
        self.state.cache.invalidate_prefix(prefix);
    }

    /// Forgets all results.
    pub fn invalidate_all(&self) {
        self.state.cache.invalidate_all();
    }

    /// Puts a result in that is known from elsewhere.
    pub fn prefill(&self, key: K, value: V) {
        self.state.cache.prefill(key, value);
    }

    /// Returns the result if it is kept; does not count as a use.
    pub fn peek(&self, key: &K) -> Option<V> {
        self.state.cache.peek(key)
    }

    /// Returns what there is to count.
    pub fn figures(&self) -> CacheFigures {
        self.state.cache.figures()
    }

    /// Returns the cache behind the function.
    pub fn cache(&self) -> &DeferredCache<K, V> {
        &self.state.cache
    }

    #[track_caller]
    fn call_with_callback(
        &self,
        key: K,
        uncached: U,
        on_invalidate: Option<OnInvalidate>,
    ) -> Deferred<V> {
        if let Some(known) = self.state.cache.find(&key, on_invalidate.as_ref()) {
            return known;
        }
        // Under way before the function is called, which may need the same result.
        let (lookup, resolver) = Deferred::new();
        let callbacks = on_invalidate.into_iter().collect();
        let answer = self.state.cache.set_with(key.clone(), lookup, callbacks);
        let result = match &self.state.function {
            Function::Cascading(function) => {
                let entry = self.entry(&key);
                function(key, uncached, &entry)
            }
            Function::Plain(function) => function(key, uncached),
        };
        result
            .add_both(move |outcome| {
                resolver.fire(outcome);
                Ok(())
            })
            .detach();
        answer
    }

    fn entry(&self, key: &K) -> CallEntry {
        let mut entries = self.state.entries.borrow_mut();
        if let Some(on_invalidate) = entries.by_key.get(key).and_then(Weak::upgrade) {
            return CallEntry { on_invalidate };
        }
        let weak = Rc::downgrade(&self.state);
        let own_key = key.clone();
        let on_invalidate: OnInvalidate = Rc::new(move || {
            if let Some(state) = weak.upgrade() {
                state.cache.invalidate(&own_key);
            }
        });
        entries.by_key.insert(key.clone(), Rc::downgrade(&on_invalidate));
        if entries.by_key.len() >= entries.sweep_at {
            entries.by_key.retain(|_, entry| entry.strong_count() > 0);
            entries.sweep_at = (entries.by_key.len() * 2).max(SWEEP_MIN);
        }
        CallEntry { on_invalidate }
    }
}

impl<K, V: Clone + 'static, U> Clone for CachedFunction<K, V, U> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<K, V: Clone + 'static, U> fmt::Debug for CachedFunction<K, V, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedFunction").field("cache", &self.state.cache).finish()
    }
}

/// Below so many, entries that are gone are not worth looking for.
const SWEEP_MIN: usize = 64;
