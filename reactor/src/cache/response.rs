//! `ResponseCache`: a client that asks again joins the answer that is being made.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;
use std::time::Duration;

use super::lru::CacheStatistics;
use crate::context::LogContext;
use crate::deferred::{Deferred, IntoDeferred, ObservableDeferred, maybe_deferred};
use crate::reactor::Reactor;

/// Shares the result of a request among those who make the same request while it is being answered, and
/// for a while afterwards.
///
/// A success is kept for the time given at the start, a failure not at all. Cancelling a caller lets only
/// that caller go; the work goes on, unless [`with_cancellable_work`](Self::with_cancellable_work) says
/// otherwise. Values are bounded by that time only: keep it short, or the key space small.
///
/// A handle is a cheap clone.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::Deferred;
/// use ropewalk::cache::ResponseCache;
/// use ropewalk::testing::{Clock, success_result_of};
///
/// let clock = Clock::new();
/// let cache = ResponseCache::new(clock.reactor(), Duration::from_secs(30));
/// let (answer, resolver) = Deferred::new();
/// let first = cache.wrap(("@anna:hs.example", "s17"), |_| answer);
/// let retried = cache.wrap(("@anna:hs.example", "s17"), |_| -> Deferred<u32> { unreachable!() });
/// resolver.callback(18);
/// assert_eq!((success_result_of(first), success_result_of(retried)), (18, 18));
/// ```
pub struct ResponseCache<K, V: Clone + 'static> {
    shared: Rc<Shared<K, V>>,
}

struct Shared<K, V: Clone + 'static> {
    reactor: Reactor,
    kept_for: Duration,
    cancels_abandoned: bool,
    entries: RefCell<HashMap<K, Entry<V>>>,
    next_id: Cell<u64>,
    statistics: Cell<CacheStatistics>,
}

struct Entry<V: Clone + 'static> {
    id: u64,
    result: ObservableDeferred<V>,
}

/// What the work behind a [`ResponseCache`] entry can say about its own result.
#[derive(Clone, Debug)]
pub struct CacheControl {
    is_kept: Rc<Cell<bool>>,
}

impl CacheControl {
    /// Lets those who wait have the result, and keeps it for nobody else.
    pub fn do_not_keep(&self) {
        self.is_kept.set(false);
    }
}

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static> ResponseCache<K, V> {
    /// Makes a cache that keeps successes for `kept_for` after they have arrived; with zero, only for
    /// those who came before.
    pub fn new(reactor: &Reactor, kept_for: Duration) -> Self {
        Self::make(reactor, kept_for, false)
    }

    /// As [`new`](Self::new); work that nobody has waited for during `kept_for` is cancelled.
    pub fn with_cancellable_work(reactor: &Reactor, kept_for: Duration) -> Self {
        Self::make(reactor, kept_for, true)
    }

    fn make(reactor: &Reactor, kept_for: Duration, cancels_abandoned: bool) -> Self {
        let shared = Shared {
            reactor: reactor.clone(),
            kept_for,
            cancels_abandoned,
            entries: RefCell::default(),
            next_id: Cell::new(0),
            statistics: Cell::default(),
        };
        Self { shared: Rc::new(shared) }
    }

    /// Returns the result for `key`: one that is kept or being made, or that of `work`.
    #[track_caller]
    pub fn wrap<R: IntoDeferred<V>>(
        &self,
        key: K,
        work: impl FnOnce(CacheControl) -> R,
    ) -> Deferred<V> {
        let present = self.shared.entries.borrow().get(&key).map(|entry| entry.result.clone());
        let mut statistics = self.shared.statistics.get();
        statistics.hits += u64::from(present.is_some());
        statistics.misses += u64::from(present.is_none());
        self.shared.statistics.set(statistics);
        match present {
            Some(result) => self.observe(&result),
            None => self.start(key, work),
        }
    }

    /// Returns how often a result was there or on its way, how often not, and how many have expired.
    pub fn statistics(&self) -> CacheStatistics {
        self.shared.statistics.get()
    }

    /// Returns how many results are kept or being made.
    pub fn len(&self) -> usize {
        self.shared.entries.borrow().len()
    }

    /// Whether no result is kept or being made.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[track_caller]
    fn start<R: IntoDeferred<V>>(
        &self,
        key: K,
        work: impl FnOnce(CacheControl) -> R,
    ) -> Deferred<V> {
        // In place before the work starts, which may ask for the same key, and before it is watched: it
        // may have its result at once, and the entry must not outlive that.
        let (deferred, resolver) = Deferred::new();
        let result = ObservableDeferred::new(deferred);
        let id = self.shared.next_id.get();
        self.shared.next_id.set(id + 1);
        self.shared.entries.borrow_mut().insert(key.clone(), Entry { id, result: result.clone() });
        let control = CacheControl { is_kept: Rc::new(Cell::new(true)) };
        let is_kept = Rc::clone(&control.is_kept);
        let observer = self.observe(&result);
        let shared = Rc::clone(&self.shared);
        let work = maybe_deferred(|| work(control));
        let cancel = work.cancel_handle();
        resolver.set_canceller(move || cancel.cancel());
        work.add_both(move |outcome| {
            shared.completed(key, id, outcome.is_ok() && is_kept.get());
            resolver.fire(outcome);
            Ok(())
        })
        .detach();
        observer
    }

    #[track_caller]
    fn observe(&self, result: &ObservableDeferred<V>) -> Deferred<V> {
        if !self.shared.cancels_abandoned || result.is_fired() {
            return result.observe();
        }
        let shared = Rc::clone(&self.shared);
        let result = result.clone();
        let observer = result.observe();
        let cancel = observer.cancel_handle();
        let (deferred, resolver) = Deferred::with_canceller(move || {
            cancel.cancel();
            shared.watch_abandoned(result);
        });
        observer
            .add_both(move |outcome| {
                resolver.fire(outcome);
                Ok(())
            })
            .detach();
        deferred
    }
}

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static> Shared<K, V> {
    fn completed(self: &Rc<Self>, key: K, id: u64, is_kept: bool) {
        if !is_kept || self.kept_for.is_zero() {
            return self.remove(&key, id);
        }
        let shared = Rc::downgrade(self);
        self.call_after_kept_for(move || {
            if let Some(shared) = shared.upgrade() {
                shared.remove(&key, id);
                let mut statistics = shared.statistics.get();
                statistics.expirations += 1;
                shared.statistics.set(statistics);
            }
        });
    }

    fn remove(&self, key: &K, id: u64) {
        let is_current = self.entries.borrow().get(key).is_some_and(|entry| entry.id == id);
        if is_current {
            let entry = self.entries.borrow_mut().remove(key);
            drop(entry);
        }
    }

    /// Expiry is nobody's work, least of all that of a request that has been answered.
    fn call_after_kept_for(&self, f: impl FnOnce() + 'static) {
        LogContext::sentinel().run(|| self.reactor.call_later(self.kept_for, f));
    }

    fn watch_abandoned(&self, result: ObservableDeferred<V>) {
        if result.is_fired() || result.observer_count() > 0 {
            return;
        }
        self.call_after_kept_for(move || {
            if !result.is_fired() && result.observer_count() == 0 {
                result.cancel();
            }
        });
    }
}

impl<K, V: Clone + 'static> Clone for ResponseCache<K, V> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl<K, V: Clone + 'static> fmt::Debug for ResponseCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCache")
            .field("entries", &self.shared.entries.borrow().len())
            .field("kept_for", &self.shared.kept_for)
            .finish()
    }
}
