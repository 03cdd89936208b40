//! `ExpiringCache`: keeps things for a time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::caches::CacheFigures;
use super::lru::CacheStatistics;
use crate::clock::Instant;
use crate::context::LogContext;
use crate::reactor::Reactor;

/// How an [`ExpiringCache`] is made.
#[derive(Clone, Debug)]
pub struct ExpiringCacheOptions {
    /// Names the log context in which things are dropped.
    pub name: String,
    /// For how long a thing is there.
    pub age_max: Duration,
    /// How many things there may be; the oldest goes first.
    pub entries_max: usize,
    /// Whether to get a thing makes it new again.
    pub is_renewed_by_use: bool,
}

impl ExpiringCacheOptions {
    /// Names a cache whose things are there for `age_max`, used or not, at most ten thousand of them.
    pub fn new(name: impl Into<String>, age_max: Duration) -> Self {
        Self { name: name.into(), age_max, entries_max: ENTRIES_MAX, is_renewed_by_use: false }
    }

    /// Sets how many things there may be.
    #[must_use]
    pub fn entries_max(mut self, entries_max: usize) -> Self {
        self.entries_max = entries_max;
        self
    }

    /// Makes a thing new again whenever somebody gets it.
    #[must_use]
    pub fn renewed_by_use(mut self) -> Self {
        self.is_renewed_by_use = true;
        self
    }
}

/// A map whose entries are there for a time: who is typing, which transactions have been seen, what a
/// far server said when it was last asked.
///
/// An entry that is too old is not given out. It is dropped, and its memory given back, within half the
/// age after that, by a timer that runs only while there are entries.
///
/// A handle is a cheap clone; the entries go with the last one.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::cache::{ExpiringCache, ExpiringCacheOptions};
/// use ropewalk::testing::Clock;
///
/// let clock = Clock::new();
/// let options = ExpiringCacheOptions::new("typing", Duration::from_secs(30));
/// let typing = ExpiringCache::new(clock.reactor(), options);
/// typing.insert("@anna:hs.example", "!a:hs.example");
/// clock.advance(Duration::from_secs(29));
/// assert_eq!(typing.get(&"@anna:hs.example"), Some("!a:hs.example"));
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(typing.get(&"@anna:hs.example"), None);
/// ```
pub struct ExpiringCache<K, V> {
    state: Rc<State<K, V>>,
}

struct State<K, V> {
    reactor: Reactor,
    options: ExpiringCacheOptions,
    context: LogContext,
    table: RefCell<Table<K, V>>,
    has_timer: Cell<bool>,
}

struct Table<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// The keys by age, oldest first.
    order: BTreeMap<u64, K>,
    next_number: u64,
    statistics: CacheStatistics,
}

struct Entry<V> {
    value: V,
    number: u64,
    since: Instant,
}

impl<K: Clone + Eq + Hash + 'static, V: Clone + 'static> ExpiringCache<K, V> {
    /// Makes a cache.
    pub fn new(reactor: &Reactor, options: ExpiringCacheOptions) -> Self {
        let table = Table {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            next_number: 0,
            statistics: CacheStatistics::default(),
        };
        Self {
            state: Rc::new(State {
                reactor: reactor.clone(),
                context: LogContext::new(format!("expire {}", options.name)),
                options,
                table: RefCell::new(table),
                has_timer: Cell::new(false),
            }),
        }
    }

    /// Puts a thing in, new, and returns what was there and not too old.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        let state = &self.state;
        let now = state.reactor.now();
        let mut table = state.table.borrow_mut();
        let replaced = table.take(&key);
        table.put(key, value, now);
        let mut evicted = Vec::new();
        while table.entries.len() > state.options.entries_max {
            let Some(oldest) = table.take_oldest() else { break };
            table.statistics.evictions += 1;
            evicted.push(oldest);
        }
        let is_empty = table.entries.is_empty();
        drop(table);
        drop(evicted);
        if !is_empty {
            state.arm();
        }
        replaced.filter(|entry| !state.is_too_old(entry.since, now)).map(|entry| entry.value)
    }

    /// Returns a thing that is not too old.
    pub fn get(&self, key: &K) -> Option<V> {
        let state = &self.state;
        let now = state.reactor.now();
        let mut table = state.table.borrow_mut();
        let found = table.entries.get(key).filter(|entry| !state.is_too_old(entry.since, now));
        let Some(entry) = found else {
            table.statistics.misses += 1;
            return None;
        };
        let value = entry.value.clone();
        table.statistics.hits += 1;
        if state.options.is_renewed_by_use {
            table.renew(key, now);
        }
        Some(value)
    }

    /// Whether there is a thing that is not too old; does not renew it.
    pub fn contains(&self, key: &K) -> bool {
        let now = self.state.reactor.now();
        let table = self.state.table.borrow();
        table.entries.get(key).is_some_and(|entry| !self.state.is_too_old(entry.since, now))
    }

    /// Takes a thing out, and returns it if it was not too old.
    pub fn remove(&self, key: &K) -> Option<V> {
        let now = self.state.reactor.now();
        let mut table = self.state.table.borrow_mut();
        let entry = table.take(key)?;
        table.statistics.invalidations += 1;
        drop(table);
        (!self.state.is_too_old(entry.since, now)).then_some(entry.value)
    }

    /// Takes everything out.
    pub fn clear(&self) {
        let mut table = self.state.table.borrow_mut();
        table.statistics.invalidations += table.entries.len() as u64;
        let entries = std::mem::take(&mut table.entries);
        let order = std::mem::take(&mut table.order);
        drop(table);
        drop((entries, order));
    }

    /// Returns how many things take up memory, those that are too old and not dropped yet included.
    pub fn len(&self) -> usize {
        self.state.table.borrow().entries.len()
    }

    /// Whether nothing takes up memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns what there is to count.
    pub fn figures(&self) -> CacheFigures {
        let table = self.state.table.borrow();
        CacheFigures {
            entries: table.entries.len(),
            size: table.entries.len(),
            limit: self.state.options.entries_max,
            pending: 0,
            statistics: table.statistics,
        }
    }
}

impl<K: Clone + Eq + Hash + 'static, V: 'static> State<K, V> {
    fn is_too_old(&self, since: Instant, now: Instant) -> bool {
        now.since(since) >= self.options.age_max
    }

    /// Sees to it that old entries are dropped. That is nobody's work, least of all that of the request
    /// which has put one in.
    fn arm(self: &Rc<Self>) {
        if self.has_timer.replace(true) {
            return;
        }
        let weak = Rc::downgrade(self);
        let interval = (self.options.age_max / 2).max(INTERVAL_MIN);
        self.context.run(|| {
            self.reactor.call_later(interval, move || Self::sweep(&weak));
        });
    }

    fn sweep(weak: &Weak<Self>) {
        let Some(state) = weak.upgrade() else { return };
        state.has_timer.set(false);
        let now = state.reactor.now();
        loop {
            let mut table = state.table.borrow_mut();
            let Some(since) = table.oldest_since() else { return };
            if !state.is_too_old(since, now) {
                break;
            }
            let dropped = table.take_oldest();
            table.statistics.expirations += 1;
            drop(table);
            drop(dropped);
        }
        state.arm();
    }
}

impl<K: Clone + Eq + Hash, V> Table<K, V> {
    fn put(&mut self, key: K, value: V, since: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        self.order.insert(number, key.clone());
        self.entries.insert(key, Entry { value, number, since });
    }

    fn take(&mut self, key: &K) -> Option<Entry<V>> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.number);
        Some(entry)
    }

    fn take_oldest(&mut self) -> Option<Entry<V>> {
        let (_, key) = self.order.pop_first()?;
        self.entries.remove(&key)
    }

    fn oldest_since(&self) -> Option<Instant> {
        let (_, key) = self.order.first_key_value()?;
        self.entries.get(key).map(|entry| entry.since)
    }

    fn renew(&mut self, key: &K, now: Instant) {
        let number = self.next_number;
        self.next_number += 1;
        if let Some(entry) = self.entries.get_mut(key) {
            let key = self.order.remove(&entry.number);
            (entry.number, entry.since) = (number, now);
            self.order.extend(key.map(|key| (number, key)));
        }
    }
}

impl<K, V> Clone for ExpiringCache<K, V> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<K, V> fmt::Debug for ExpiringCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpiringCache")
            .field("name", &self.state.options.name)
            .field("entries", &self.state.table.borrow().entries.len())
            .finish()
    }
}

/// Some megabytes of small things.
const ENTRIES_MAX: usize = 10_000;

/// Things of a very short age are dropped together, rather than one by one.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
