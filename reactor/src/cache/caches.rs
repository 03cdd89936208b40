//! `Caches`: all caches of a program, to be sized, watched and emptied together.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::lru::{CacheStatistics, SizeOf};
use crate::context::LogContext;
use crate::reactor::Reactor;

/// The caches of a program. An operator gives one number for all of them, the *factor*: a cache may hold
/// what its maker found sensible, times the factor.
///
/// Caches join by [`CacheOptions::within`] or [`manage`](Self::manage) and leave when they are dropped.
/// A handle is a cheap clone.
///
/// ```
/// use std::rc::Rc;
/// use ropewalk::cache::{CacheOptions, Caches, DeferredCache};
///
/// let caches = Caches::with_factor(2.0);
/// let names: DeferredCache<u32, Rc<str>> =
///     DeferredCache::with_options(CacheOptions::new("names", 1000).within(&caches));
/// assert_eq!(caches.report()[0].figures.limit, 2000);
/// caches.set_factor(0.5);
/// assert_eq!(caches.report()[0].figures.limit, 500);
/// names.prefill(1, "Anna".into());
/// assert_eq!(caches.report()[0].figures.entries, 1);
/// ```
#[derive(Clone)]
pub struct Caches {
    state: Rc<State>,
}

struct State {
    factor: Cell<f64>,
    /// Factors of caches that have one of their own, by name.
    factors: RefCell<BTreeMap<String, f64>>,
    members: RefCell<Vec<Member>>,
    /// Counts the calls of [`Caches::expire_regularly`], of which the last is in force.
    expiries: Cell<u64>,
}

#[derive(Clone)]
struct Member {
    name: Rc<str>,
    limit: usize,
    expires: bool,
    cache: Weak<dyn ManagedCache>,
}

/// A cache that can be sized, watched and emptied from outside.
///
/// The caches of this module are; others can join them.
pub trait ManagedCache {
    /// Changes the limit; shrinking evicts at once.
    fn set_limit(&self, limit: usize);

    /// Says that time passes, and drops what was not used for `ages` such calls, at most `drops_max`
    /// entries. Returns how many were dropped.
    fn expire(&self, ages: u64, drops_max: usize) -> usize;

    /// Goes on with what [`expire`](Self::expire) has left, without letting time pass.
    fn expire_more(&self, ages: u64, drops_max: usize) -> usize;

    /// Forgets everything.
    fn clear(&self);

    /// Returns what there is to count.
    fn figures(&self) -> CacheFigures;
}

/// What there is to count in a cache: plain numbers, for metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheFigures {
    /// Values that are kept.
    pub entries: usize,
    /// Their total size, which is their number unless the cache has a size callback.
    pub size: usize,
    /// What the size may come to.
    pub limit: usize,
    /// Lookups under way.
    pub pending: usize,
    /// What the cache has done so far.
    pub statistics: CacheStatistics,
}

/// One line of [`Caches::report`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CacheReport {
    /// The cache's name.
    pub name: String,
    /// What there is to count.
    pub figures: CacheFigures,
}

/// How a cache is made: its name, its limit, and what it has in common with others.
///
/// ```
/// use ropewalk::cache::{CacheOptions, DeferredCache};
///
/// let options = CacheOptions::new("members", 10_000).size_of(|users: &Vec<u64>| users.len());
/// let members: DeferredCache<u32, Vec<u64>> = DeferredCache::with_options(options);
/// members.prefill(7, vec![1, 2, 3]);
/// assert_eq!(members.size(), 3);
/// ```
pub struct CacheOptions<V> {
    pub(super) name: Rc<str>,
    pub(super) limit: usize,
    pub(super) size_of: Option<SizeOf<V>>,
    caches: Option<Caches>,
    expires: bool,
}

impl<V> CacheOptions<V> {
    /// Names a cache that may hold `limit` values.
    pub fn new(name: &str, limit: usize) -> Self {
        Self { name: name.into(), limit, size_of: None, caches: None, expires: true }
    }

    /// Has the limit be that of the values' sizes. A value of size 0 counts as 1, so that there is a
    /// limit to how many of them are kept.
    #[must_use]
    pub fn size_of(mut self, size_of: impl Fn(&V) -> usize + 'static) -> Self {
        self.size_of = Some(Box::new(move |value| size_of(value).max(1)));
        self
    }

    /// Puts the cache under a common factor and into the common report.
    #[must_use]
    pub fn within(mut self, caches: &Caches) -> Self {
        self.caches = Some(caches.clone());
        self
    }

    /// Keeps values for as long as there is room, however long nobody has used them.
    #[must_use]
    pub fn without_expiry(mut self) -> Self {
        self.expires = false;
        self
    }

    pub(super) fn join(&self, cache: &Rc<impl ManagedCache + 'static>) {
        if let Some(caches) = &self.caches {
            caches.add(Rc::clone(&self.name), self.limit, self.expires, cache);
        }
    }
}

impl<V> fmt::Debug for CacheOptions<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheOptions")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Caches {
    /// Begins a set of caches, each of which may hold what its maker said.
    pub fn new() -> Self {
        Self::with_factor(1.0)
    }

    /// Begins a set of caches with a common factor. A factor that is negative or no number counts as 0.
    pub fn with_factor(factor: f64) -> Self {
        let state = State {
            factor: Cell::new(factor),
            factors: RefCell::default(),
            members: RefCell::default(),
            expiries: Cell::new(0),
        };
        Self { state: Rc::new(state) }
    }

    /// Changes the common factor; all caches without one of their own are resized at once.
    pub fn set_factor(&self, factor: f64) {
        self.state.factor.set(factor);
        self.resize();
    }

    /// Gives the caches of this name, present and future ones, a factor of their own.
    pub fn set_factor_of(&self, name: &str, factor: f64) {
        self.state.factors.borrow_mut().insert(name.to_owned(), factor);
        self.resize();
    }

    /// Adds a cache that may hold `limit`, times the factor.
    pub fn manage(&self, name: &str, limit: usize, cache: &Rc<impl ManagedCache + 'static>) {
        self.add(name.into(), limit, true, cache);
    }

    /// Returns what there is to count in each cache, in the order in which they joined.
    pub fn report(&self) -> Vec<CacheReport> {
        let members = self.members();
        let caches = members.into_iter().map(|(member, cache)| CacheReport {
            name: member.name.as_ref().to_owned(),
            figures: cache.figures(),
        });
        caches.collect()
    }

    /// Empties all caches.
    pub fn clear(&self) {
        for (_, cache) in self.members() {
            cache.clear();
        }
    }

    /// From now on drops values that nobody has used for `unused_for`, or up to half a minute longer.
    ///
    /// Takes the place of what an earlier call has set. Ends when the last handle is dropped, and with the
    /// reactor.
    pub fn expire_regularly(&self, reactor: &Reactor, unused_for: Duration) {
        let sweeps = unused_for.as_nanos().div_ceil(SWEEP_INTERVAL.as_nanos()).max(1);
        let ages = u64::try_from(sweeps).unwrap_or(u64::MAX);
        let number = self.state.expiries.get() + 1;
        self.state.expiries.set(number);
        let caches = Rc::downgrade(&self.state);
        let sweep = Sweep { caches, number, ages, stage: Stage::Begin };
        let context = LogContext::new("expire caches");
        context.run(|| call_after(reactor.clone(), SWEEP_INTERVAL, sweep));
    }

    fn add(
        &self,
        name: Rc<str>,
        limit: usize,
        expires: bool,
        cache: &Rc<impl ManagedCache + 'static>,
    ) {
        cache.set_limit(self.scaled(&name, limit));
        let weak: Weak<dyn ManagedCache> = Rc::downgrade(cache) as Weak<dyn ManagedCache>;
        let mut members = self.state.members.borrow_mut();
        members.retain(|member| member.cache.strong_count() > 0);
        members.push(Member { name, limit, expires, cache: weak });
    }

    fn resize(&self) {
        for (member, cache) in self.members() {
            cache.set_limit(self.scaled(&member.name, member.limit));
        }
    }

    fn scaled(&self, name: &str, limit: usize) -> usize {
        let own = self.state.factors.borrow().get(name).copied();
        // The conversion saturates, at 0 for what is negative or no number.
        (limit as f64 * own.unwrap_or_else(|| self.state.factor.get())).round() as usize
    }

    fn members(&self) -> Vec<(Member, Rc<dyn ManagedCache>)> {
        self.state.members()
    }
}

impl State {
    /// Out of the borrow, since caches call others' code.
    fn members(&self) -> Vec<(Member, Rc<dyn ManagedCache>)> {
        let members = self.members.borrow();
        let living =
            members.iter().filter_map(|member| Some((member.clone(), member.cache.upgrade()?)));
        living.collect()
    }
}

impl Default for Caches {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caches")
            .field("factor", &self.state.factor.get())
            .field("members", &self.state.members.borrow().len())
            .finish()
    }
}

/// One walk over all caches, in portions.
struct Sweep {
    caches: Weak<State>,
    /// Which call of [`Caches::expire_regularly`] has begun this.
    number: u64,
    ages: u64,
    stage: Stage,
}

enum Stage {
    Begin,
    /// The caches that may have more to drop.
    GoOn(Vec<Weak<dyn ManagedCache>>),
}

fn call_after(reactor: Reactor, delay: Duration, sweep: Sweep) {
    let handle = reactor.clone();
    // A timer that nobody cancels: it finds out by itself when the caches are gone.
    reactor.call_later(delay, move || sweep.make(handle));
}

impl Sweep {
    fn make(mut self, reactor: Reactor) {
        let Some(state) = self.caches.upgrade() else { return };
        if state.expiries.get() != self.number {
            return;
        }
        let mut room = DROPS_PER_TURN;
        let left = match self.stage {
            Stage::Begin => {
                let mut left = Vec::new();
                for (member, cache) in state.members() {
                    if member.expires {
                        // Each ages, also when there is no room left to drop anything.
                        room -= cache.expire(self.ages, room);
                        left.push(member.cache);
                    }
                }
                left
            }
            Stage::GoOn(mut left) => {
                for cache in left.iter().filter_map(Weak::upgrade) {
                    room -= cache.expire_more(self.ages, room);
                }
                left.retain(|cache| cache.strong_count() > 0);
                left
            }
        };
        drop(state);
        // Others have their turn between the portions.
        let delay = if room == 0 { Duration::ZERO } else { SWEEP_INTERVAL };
        self.stage = if room == 0 { Stage::GoOn(left) } else { Stage::Begin };
        call_after(reactor, delay, self);
    }
}

/// How often caches are looked through for values that nobody uses: what is dropped half a minute late
/// does no harm.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// How many values may be dropped before others have their turn: about a millisecond's worth.
const DROPS_PER_TURN: usize = 10_000;
