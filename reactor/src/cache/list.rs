//! Lookups of many keys at once: only what is missing is looked up, in one batch.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;

use super::deferred_cache::DeferredCache;
use super::function::{CachedFunction, CallEntry};
use super::lru::OnInvalidate;
use crate::deferred::{Deferred, DeferredList, IntoDeferred, ObservableDeferred, maybe_deferred};

/// The list form of a [`CachedFunction`]: asks for many keys, and has those that are neither kept nor
/// under way looked up by one call of a function for many.
///
/// Both forms share what they keep. Keys that the function for many does not answer are known to be
/// absent from then on, which is why the function for one gives an `Option`.
///
/// ```
/// use std::collections::HashMap;
/// use ropewalk::Failure;
/// use ropewalk::cache::{CacheOptions, CachedFunction, CachedList};
/// use ropewalk::testing::success_result_of;
///
/// let name = CachedFunction::new(CacheOptions::new("name", 10_000), |user: u32| {
///     Ok::<_, Failure>(Some(format!("user {user}")))
/// });
/// let names = CachedList::of(&name, |users: Vec<u32>| {
///     assert_eq!(users, [2, 3], "one question for those that are missing");
///     Ok::<_, Failure>(HashMap::from([(2, "user 2".to_owned())]))
/// });
/// success_result_of(name.call(1));
/// let answer = success_result_of(names.call([1, 2, 3, 2]));
/// assert_eq!(answer[&1].as_deref(), Some("user 1"));
/// assert_eq!(answer[&3], None);
/// assert_eq!(success_result_of(name.call(3)), None, "known to be absent");
/// ```
///
/// A handle is a cheap clone.
pub struct CachedList<K: 'static, V: Clone + 'static> {
    cache: DeferredCache<K, Option<V>>,
    function: ManyFunction<K, V>,
}

type ManyFunction<K, V> = Rc<dyn Fn(Vec<K>) -> Deferred<HashMap<K, V>>>;

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static> CachedList<K, V> {
    /// Makes the list form of `single`. `function` gets the missing keys in the order in which they were
    /// asked for, without doubles.
    pub fn of<U: 'static, R: IntoDeferred<HashMap<K, V>>>(
        single: &CachedFunction<K, Option<V>, U>,
        function: impl Fn(Vec<K>) -> R + 'static,
    ) -> Self {
        Self {
            cache: single.cache().clone(),
            function: Rc::new(move |keys| maybe_deferred(|| function(keys))),
        }
    }

    /// Returns the results for all keys, `None` for those that are known to be absent.
    ///
    /// # Errors
    ///
    /// The first failure of any lookup that takes part, for this caller and for those who joined.
    #[track_caller]
    pub fn call(&self, keys: impl IntoIterator<Item = K>) -> Deferred<HashMap<K, Option<V>>> {
        let function = Rc::clone(&self.function);
        self.cache.fetch_many_with(keys, None, move |keys| function(keys))
    }

    /// As [`call`](Self::call); `entry`, for which this is called, is forgotten when any of the results
    /// is.
    #[track_caller]
    pub fn call_for(
        &self,
        keys: impl IntoIterator<Item = K>,
        entry: &CallEntry,
    ) -> Deferred<HashMap<K, Option<V>>> {
        let function = Rc::clone(&self.function);
        let on_invalidate = entry.on_invalidate();
        self.cache.fetch_many_with(keys, Some(&on_invalidate), move |keys| function(keys))
    }
}

impl<K: 'static, V: Clone + 'static> Clone for CachedList<K, V> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone(), function: Rc::clone(&self.function) }
    }
}

impl<K: 'static, V: Clone + 'static> fmt::Debug for CachedList<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedList").field("cache", &self.cache).finish()
    }
}

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static> DeferredCache<K, Option<V>> {
    /// Returns the values of many keys; those that are neither there nor under way are looked up in one
    /// call of `look_up`, which gets them in order and without doubles.
    ///
    /// Keys that the lookup's answer does not name are known to be absent from then on: `None`, in the
    /// answer and in the cache. While the lookup is under way, others who ask for one of its keys join.
    ///
    /// # Errors
    ///
    /// The first failure of any lookup that takes part, for this caller and for those who joined.
    #[track_caller]
    pub fn fetch_many<R: IntoDeferred<HashMap<K, V>>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        look_up: impl FnOnce(Vec<K>) -> R,
    ) -> Deferred<HashMap<K, Option<V>>> {
        self.fetch_many_with(keys, None, look_up)
    }

    /// As [`fetch_many`](Self::fetch_many); `on_invalidate` is called when any of what was returned is no
    /// longer true.
    #[track_caller]
    fn fetch_many_with<R: IntoDeferred<HashMap<K, V>>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        on_invalidate: Option<&OnInvalidate>,
        look_up: impl FnOnce(Vec<K>) -> R,
    ) -> Deferred<HashMap<K, Option<V>>> {
        let mut values = HashMap::new();
        let mut waits: Vec<Deferred<(K, Option<V>)>> = Vec::new();
        let mut missing: Vec<K> = Vec::new();
        let mut seen = HashSet::new();
        for key in keys {
            if !seen.insert(key.clone()) {
                continue;
            }
            match self.find(&key, on_invalidate).map(Deferred::into_result) {
                Some(Ok(Ok(value))) => {
                    values.insert(key, value);
                }
                Some(Ok(Err(failure))) => waits.push(Deferred::fail(failure)),
                Some(Err(waiting)) => waits.push(waiting.add_callback(|value| Ok((key, value)))),
                None => missing.push(key),
            }
        }
        if !missing.is_empty() {
            // Every missing key is under way before the lookup is called, as that may ask in turn.
            let (bulk, resolver) = Deferred::new();
            let bulk: ObservableDeferred<Rc<HashMap<K, V>>> = ObservableDeferred::new(bulk);
            for key in &missing {
                let item = key.clone();
                let value = bulk.observe().add_callback(move |found| Ok(found.get(&item).cloned()));
                let key = key.clone();
                let callbacks = on_invalidate.cloned().into_iter().collect();
                let value = self.set_with(key.clone(), value, callbacks);
                waits.push(value.add_callback(|value| Ok((key, value))));
            }
            maybe_deferred(|| look_up(missing))
                .add_both(move |found| {
                    resolver.fire(found.map(Rc::new));
                    Ok(())
                })
                .detach();
        }
        if waits.is_empty() {
            return Deferred::succeed(values);
        }
        DeferredList::new(waits).fire_on_one_errback().consume_errors().collect().add_callback(
            move |found| {
                for outcome in found {
                    let (key, value) = outcome?;
                    values.insert(key, value);
                }
                Ok(values)
            },
        )
    }
}
