//! [`ConnectionPool`]: connections for those who need one for a while.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::Deref;
use std::rc::{Rc, Weak};

use super::pool_options::{PoolError, PoolOptions, PoolStatistics};
use crate::clock::Instant;
use crate::context::LogContext;
use crate::deferred::{CancelHandle, Deferred, Resolver, maybe_deferred};
use crate::failure::{CancelledError, Failure, TimeoutError};
use crate::reactor::Reactor;
use crate::timers::DelayedCall;

/// Keeps connections to several peers, each known by a key, for those who need one for a while.
///
/// A connection `C` is whatever the program makes of one. Who [asks](ConnectionPool::acquire) gets one that
/// nobody uses, the one used last; or a new one, if there may be one more; or waits in a line, first come
/// first served. Where only the number in all stands in the way, the connection that has been unused
/// longest, of any key, makes room. A cheap clone; clones share the connections.
///
/// ```
/// use ropewalk::Deferred;
/// use ropewalk::policy::{ConnectionPool, PoolOptions};
/// use ropewalk::testing::{Clock, success_result_of};
///
/// let clock = Clock::new();
/// let options = PoolOptions { per_key_max: 1, ..PoolOptions::default() };
/// let connect = |_: &_, host: &&str| Deferred::succeed(format!("a connection to {host}"));
/// let pool = ConnectionPool::new(clock.reactor(), options, connect, |_| true);
/// let first = success_result_of(pool.acquire("hs.example"));
/// assert_eq!(*first, "a connection to hs.example");
/// let second = pool.acquire("hs.example");
/// assert!(!second.is_fired());
/// drop(first); // back to the pool, and on to whoever waits
/// clock.pump();
/// success_result_of(second);
/// ```
pub struct ConnectionPool<K: Ord + Clone + 'static, C: 'static> {
    pool: Rc<Pool<K, C>>,
}

/// What makes the connections.
type Connector<K, C> = Box<dyn Fn(&Reactor, &K) -> Deferred<C>>;

struct Pool<K: Ord + Clone + 'static, C: 'static> {
    reactor: Reactor,
    options: PoolOptions,
    connect: Connector<K, C>,
    is_healthy: Box<dyn Fn(&C) -> bool>,
    state: RefCell<State<K, C>>,
    is_serving_queued: Cell<bool>,
}

struct State<K: Ord + Clone + 'static, C: 'static> {
    /// The one that was used last is at the end.
    idle: Vec<Idle<K, C>>,
    /// What there is of each key.
    counts: BTreeMap<K, Counts>,
    total: usize,
    in_use: usize,
    connecting: usize,
    attempts: BTreeMap<(K, u64), CancelHandle>,
    /// Attempts that were cancelled, because nobody waits for what comes of them.
    given_up: BTreeSet<u64>,
    line: VecDeque<Waiter<K, C>>,
    next_number: u64,
    made: u64,
    reused: u64,
    is_closed: bool,
    closing: Vec<Resolver<()>>,
    idle_timer: Option<DelayedCall>,
}

struct Idle<K: Ord + Clone + 'static, C: 'static> {
    key: K,
    connection: C,
    since: Instant,
}

struct Waiter<K: Ord + Clone + 'static, C: 'static> {
    number: u64,
    key: K,
    resolver: Resolver<Pooled<K, C>>,
    limit: DelayedCall,
}

#[derive(Default)]
struct Counts {
    /// Connections in any state.
    connections: usize,
    /// Those that are being made. Each is for whoever waits then.
    connecting: usize,
    waiting: usize,
}

impl<K: Ord + Clone + 'static, C: 'static> ConnectionPool<K, C> {
    /// Makes a pool without connections.
    ///
    /// `connect` makes one. `is_healthy` is asked before one is used again, and when one is given back;
    /// those that aren't are dropped, and dropping is what closes a connection.
    pub fn new(
        reactor: &Reactor,
        options: PoolOptions,
        connect: impl Fn(&Reactor, &K) -> Deferred<C> + 'static,
        is_healthy: impl Fn(&C) -> bool + 'static,
    ) -> ConnectionPool<K, C> {
        let state = State {
            idle: Vec::new(),
            counts: BTreeMap::new(),
            total: 0,
            in_use: 0,
            connecting: 0,
            attempts: BTreeMap::new(),
            given_up: BTreeSet::new(),
            line: VecDeque::new(),
            next_number: 0,
            made: 0,
            reused: 0,
            is_closed: false,
            closing: Vec::new(),
            idle_timer: None,
        };
        let pool = Pool {
            reactor: reactor.clone(),
            options,
            connect: Box::new(connect),
            is_healthy: Box::new(is_healthy),
            state: RefCell::new(state),
            is_serving_queued: Cell::new(false),
        };
        ConnectionPool { pool: Rc::new(pool) }
    }

    /// Waits for a connection, which goes back to the pool when it is dropped.
    ///
    /// Cancelling leaves the line, and gives up the connection that is being made for it.
    ///
    /// # Errors
    ///
    /// What connecting fails with; [`TimeoutError`] after the [limit](PoolOptions::waiting_limit);
    /// [`PoolError`].
    #[track_caller]
    pub fn acquire(&self, key: K) -> Deferred<Pooled<K, C>> {
        let pool = &self.pool;
        let mut state = pool.state.borrow_mut();
        if state.is_closed {
            return Deferred::fail(PoolError::Closed { pool: pool.options.name.clone() });
        }
        let number = state.next_number;
        state.next_number = number + 1;
        let weak = Rc::downgrade(pool);
        let (deferred, resolver) = Deferred::with_canceller(move || {
            if let Some(pool) = weak.upgrade() {
                pool.leave(number, Failure::plain(CancelledError));
            }
        });
        let weak = Rc::downgrade(pool);
        let waiting_limit = pool.options.waiting_limit;
        let limit = pool.reactor.call_later(waiting_limit, move || {
            if let Some(pool) = weak.upgrade() {
                pool.leave(number, Failure::plain(TimeoutError { limit: waiting_limit }));
            }
        });
        state.counts.entry(key.clone()).or_default().waiting += 1;
        state.line.push_back(Waiter { number, key, resolver, limit });
        drop(state);
        pool.serve_line();
        let waiting_max = pool.options.waiting_max;
        let is_refused = {
            let state = pool.state.borrow();
            // Those for whom a connection is being made do not count.
            let waiting = state.line.len().saturating_sub(state.connecting);
            waiting > waiting_max && state.line.back().is_some_and(|last| last.number == number)
        };
        if is_refused {
            let error = PoolError::LineFull { pool: pool.options.name.clone(), waiting_max };
            pool.leave(number, error.into());
        }
        deferred
    }

    /// Takes no new requests and drops the connections that nobody uses; those who wait are told. The
    /// deferred fires when the last connection has come back.
    #[track_caller]
    pub fn close(&self) -> Deferred<()> {
        let pool = &self.pool;
        let mut state = pool.state.borrow_mut();
        state.is_closed = true;
        let idle = std::mem::take(&mut state.idle);
        let line = std::mem::take(&mut state.line);
        let attempts = std::mem::take(&mut state.attempts);
        state.given_up.extend(attempts.keys().map(|(_, number)| *number));
        let timer = state.idle_timer.take();
        let (deferred, resolver) = Deferred::new();
        state.closing.push(resolver);
        for connection in &idle {
            state.forget(&connection.key);
        }
        for waiter in &line {
            state.leave(&waiter.key);
        }
        drop(state);
        if let Some(timer) = timer {
            timer.cancel();
        }
        drop(idle);
        for waiter in line {
            waiter.limit.cancel();
            waiter.resolver.errback(PoolError::Closed { pool: pool.options.name.clone() });
        }
        for attempt in attempts.into_values() {
            attempt.cancel();
        }
        pool.tell_if_closed();
        deferred
    }

    /// Returns what the pool has.
    #[must_use]
    pub fn statistics(&self) -> PoolStatistics {
        let state = self.pool.state.borrow();
        PoolStatistics {
            in_use: state.in_use,
            idle: state.idle.len(),
            connecting: state.connecting,
            waiting: state.line.len(),
            made: state.made,
            reused: state.reused,
        }
    }
}

impl<K: Ord + Clone + 'static, C: 'static> Clone for ConnectionPool<K, C> {
    fn clone(&self) -> ConnectionPool<K, C> {
        ConnectionPool { pool: Rc::clone(&self.pool) }
    }
}

impl<K: Ord + Clone + 'static, C: 'static> fmt::Debug for ConnectionPool<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionPool")
            .field("name", &self.pool.options.name)
            .field("statistics", &self.statistics())
            .finish()
    }
}

impl<K: Ord + Clone + 'static, C: 'static> State<K, C> {
    /// One connection less.
    fn forget(&mut self, key: &K) {
        self.change(key, |counts| counts.connections -= 1);
        self.total -= 1;
    }

    /// One who waits less.
    fn leave(&mut self, key: &K) {
        self.change(key, |counts| counts.waiting -= 1);
    }

    fn change(&mut self, key: &K, change: impl FnOnce(&mut Counts)) {
        let Some(counts) = self.counts.get_mut(key) else { return };
        change(counts);
        if counts.connections == 0 && counts.waiting == 0 {
            self.counts.remove(key);
        }
    }

    /// Takes whoever stands there out of the line.
    fn take_waiter(&mut self, at: usize) -> Option<Waiter<K, C>> {
        let waiter = self.line.remove(at)?;
        self.leave(&waiter.key);
        Some(waiter)
    }
}

/// What can be done for somebody in the line.
enum Step<K: Ord + Clone + 'static, C: 'static> {
    Connect(K, u64),
    Drop(Idle<K, C>),
    Give(Waiter<K, C>, Idle<K, C>),
}

impl<K: Ord + Clone + 'static, C: 'static> Pool<K, C> {
    /// Does for those who wait, the first first, what can be done.
    fn serve_line(self: &Rc<Self>) {
        loop {
            let step = self.next_step();
            match step {
                None => return,
                Some(Step::Connect(key, number)) => self.connect(key, number),
                Some(Step::Drop(idle)) => drop(idle),
                Some(Step::Give(waiter, idle)) => {
                    let Idle { key, connection, .. } = idle;
                    if (self.is_healthy)(&connection) {
                        let mut state = self.state.borrow_mut();
                        state.in_use += 1;
                        state.reused += 1;
                        drop(state);
                        waiter.limit.cancel();
                        waiter.resolver.callback(Pooled::new(self, key, connection));
                    } else {
                        self.refuse(waiter, key);
                        drop(connection);
                    }
                }
            }
        }
    }

    /// The connection that somebody was to get is not fit: it waits on, in its old place.
    fn refuse(&self, waiter: Waiter<K, C>, key: K) {
        let mut state = self.state.borrow_mut();
        state.forget(&key);
        state.counts.entry(key).or_default().waiting += 1;
        let at = state.line.partition_point(|other| other.number < waiter.number);
        state.line.insert(at, waiter);
    }

    fn next_step(&self) -> Option<Step<K, C>> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        for index in 0..state.line.len() {
            let key = &state.line[index].key;
            if let Some(kept) = state.idle.iter().rposition(|idle| idle.key == *key) {
                let idle = state.idle.remove(kept);
                let waiter = state.take_waiter(index)?;
                return Some(Step::Give(waiter, idle));
            }
            let Some(counts) = state.counts.get_mut(key) else { continue };
            let is_enough = counts.connecting >= counts.waiting;
            if is_enough || counts.connections >= self.options.per_key_max.max(1) {
                continue;
            }
            if state.total < self.options.total_max.max(1) {
                counts.connections += 1;
                counts.connecting += 1;
                state.total += 1;
                state.connecting += 1;
                let number = state.next_number;
                state.next_number = number + 1;
                return Some(Step::Connect(key.clone(), number));
            }
            if !state.idle.is_empty() {
                let idle = state.idle.remove(0);
                state.forget(&idle.key);
                return Some(Step::Drop(idle));
            }
        }
        None
    }

    fn connect(self: &Rc<Self>, key: K, number: u64) {
        // It may outlive the work that it is made for, so it does not run in its context.
        let context = LogContext::new(format!("{}-{number}", self.options.name));
        let pool = Rc::clone(self);
        context.run(|| {
            let connecting = maybe_deferred(|| (self.connect)(&self.reactor, &key));
            let attempt = key.clone();
            let connecting = connecting.add_both(move |outcome| {
                pool.connected(key, number, outcome);
                Ok(())
            });
            if !connecting.is_fired() {
                let cancel = connecting.cancel_handle();
                self.state.borrow_mut().attempts.insert((attempt, number), cancel);
            }
            connecting.detach();
        });
    }

    /// Gives what came of connecting to whoever has waited longest.
    fn connected(self: &Rc<Self>, key: K, number: u64, outcome: Result<C, Failure>) {
        let mut state = self.state.borrow_mut();
        state.attempts.remove(&(key.clone(), number));
        state.connecting -= 1;
        state.change(&key, |counts| counts.connecting -= 1);
        let is_given_up = state.given_up.remove(&number);
        let mut waiter = None;
        if outcome.is_ok() || !is_given_up {
            let first = state.line.iter().position(|waiter| waiter.key == key);
            waiter = first.and_then(|first| state.take_waiter(first));
        }
        if let Some(waiter) = &waiter {
            waiter.limit.cancel();
        }
        match (outcome, waiter) {
            (Ok(connection), Some(waiter)) => {
                state.made += 1;
                state.in_use += 1;
                drop(state);
                waiter.resolver.callback(Pooled::new(self, key, connection));
            }
            (Ok(connection), None) => {
                state.made += 1;
                if state.is_closed {
                    state.forget(&key);
                    drop(state);
                    drop(connection);
                } else {
                    drop(state);
                    self.keep(key, connection);
                }
            }
            (Err(failure), waiter) => {
                state.forget(&key);
                drop(state);
                match waiter {
                    Some(waiter) => waiter.resolver.errback(failure),
                    None if is_given_up => {}
                    None => log::debug!("a connection that nobody waits for failed: {failure:#}"),
                }
            }
        }
        self.serve_line();
        self.tell_if_closed();
    }

    /// Somebody does not wait any more.
    fn leave(self: &Rc<Self>, number: u64, failure: Failure) {
        let mut state = self.state.borrow_mut();
        let at = state.line.iter().position(|waiter| waiter.number == number);
        let Some(waiter) = at.and_then(|at| state.take_waiter(at)) else { return };
        // If more connections are being made than are waited for, the youngest is given up.
        let key = waiter.key.clone();
        let is_too_many =
            state.counts.get(&key).is_some_and(|counts| counts.connecting > counts.waiting);
        let mut attempt = None;
        if is_too_many {
            let of_key = (key.clone(), 0)..=(key, u64::MAX);
            let youngest = state.attempts.range(of_key).next_back().map(|(name, _)| name.clone());
            if let Some(youngest) = youngest {
                attempt = state.attempts.remove(&youngest);
                state.given_up.insert(youngest.1);
            }
        }
        drop(state);
        waiter.limit.cancel();
        if let Some(attempt) = attempt {
            attempt.cancel();
        }
        waiter.resolver.errback(failure);
        self.serve_line();
    }

    /// Keeps a connection that nobody uses.
    fn keep(self: &Rc<Self>, key: K, connection: C) {
        let since = self.reactor.now();
        self.state.borrow_mut().idle.push(Idle { key, connection, since });
        self.watch_idle();
    }

    /// Takes a connection back.
    fn take_back(self: &Rc<Self>, key: K, connection: Option<C>) {
        let kept = connection.filter(|connection| (self.is_healthy)(connection));
        let mut state = self.state.borrow_mut();
        state.in_use -= 1;
        match kept.filter(|_| !state.is_closed) {
            Some(connection) => {
                drop(state);
                self.keep(key, connection);
            }
            None => {
                state.forget(&key);
                drop(state);
            }
        }
        self.tell_if_closed();
        // Whoever waits gets it after the current callback, so that a long row of users that finish
        // at once does not nest.
        if !self.state.borrow().line.is_empty() && !self.is_serving_queued.replace(true) {
            let pool = Rc::clone(self);
            self.reactor.call_soon(move || {
                pool.is_serving_queued.set(false);
                pool.serve_line();
            });
        }
    }

    /// Has the connections looked at when the first of them has been unused for too long.
    fn watch_idle(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let oldest = state.idle.iter().map(|idle| idle.since).min();
        let is_watched = state.idle_timer.as_ref().is_some_and(DelayedCall::is_active);
        let Some(oldest) = oldest.filter(|_| !is_watched) else { return };
        let wait = (oldest + self.options.idle_limit).since(self.reactor.now());
        let weak = Rc::downgrade(self);
        let timer = LogContext::sentinel().run(|| {
            self.reactor.call_later(wait, move || {
                if let Some(pool) = weak.upgrade() {
                    pool.drop_idle();
                }
            })
        });
        state.idle_timer = Some(timer);
    }

    fn drop_idle(self: &Rc<Self>) {
        let now = self.reactor.now();
        let limit = self.options.idle_limit;
        let mut state = self.state.borrow_mut();
        let (old, young): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.idle).into_iter().partition(|i| now - i.since >= limit);
        state.idle = young;
        for idle in &old {
            state.forget(&idle.key);
        }
        drop(state);
        drop(old);
        self.watch_idle();
    }

    fn tell_if_closed(&self) {
        let mut state = self.state.borrow_mut();
        if state.is_closed && state.total == 0 {
            let closing = std::mem::take(&mut state.closing);
            drop(state);
            for resolver in closing {
                resolver.callback(());
            }
        }
    }
}

impl<K: Ord + Clone + 'static, C: 'static> Drop for Pool<K, C> {
    fn drop(&mut self) {
        if let Some(timer) = self.state.get_mut().idle_timer.take() {
            timer.cancel();
        }
    }
}

/// A connection of a pool, which it goes back to when this is dropped.
pub struct Pooled<K: Ord + Clone + 'static, C: 'static> {
    pool: Weak<Pool<K, C>>,
    /// `None` only while it is dropped.
    lent: Option<(K, C)>,
}

impl<K: Ord + Clone + 'static, C: 'static> Pooled<K, C> {
    fn new(pool: &Rc<Pool<K, C>>, key: K, connection: C) -> Pooled<K, C> {
        Pooled { pool: Rc::downgrade(pool), lent: Some((key, connection)) }
    }

    /// Drops the connection, which is not fit to be used again.
    pub fn discard(mut self) {
        if let Some((key, connection)) = self.lent.take() {
            drop(connection);
            if let Some(pool) = self.pool.upgrade() {
                pool.take_back(key, None);
            }
        }
    }
}

impl<K: Ord + Clone + 'static, C: 'static> Deref for Pooled<K, C> {
    type Target = C;

    fn deref(&self) -> &C {
        match &self.lent {
            Some((_, connection)) => connection,
            None => unreachable!("it is taken out only by methods that consume this"),
        }
    }
}

impl<K: Ord + Clone + 'static, C: 'static> Drop for Pooled<K, C> {
    fn drop(&mut self) {
        if let Some((key, connection)) = self.lent.take()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.take_back(key, Some(connection));
        }
    }
}

impl<K: Ord + Clone + 'static, C: fmt::Debug + 'static> fmt::Debug for Pooled<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pooled").field(&**self).finish()
    }
}
