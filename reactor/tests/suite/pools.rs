//! Connection pools: who gets which connection, and when.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::policy::{ConnectionPool, PoolError, PoolOptions, PoolStatistics, Pooled};
use ropewalk::testing::{Clock, assert_no_result, failure_result_of, success_result_of};
use ropewalk::{CancelledError, Deferred, Failure, LogContext, Resolver, TimeoutError};

const SECOND: Duration = Duration::from_secs(1);

/// What the pool under test connects to: each connection has a number, and stands when the test says.
#[derive(Clone, Default)]
struct World {
    made: Rc<Cell<u32>>,
    open: Rc<Cell<u32>>,
    waiting: Rc<RefCell<VecDeque<Resolver<Connection>>>>,
    contexts: Rc<RefCell<Vec<String>>>,
}

struct Connection {
    number: u32,
    is_healthy: Cell<bool>,
    open: Rc<Cell<u32>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

type Pool = ConnectionPool<&'static str, Connection>;

impl World {
    fn pool(&self, clock: &Clock, options: PoolOptions) -> Pool {
        let world = self.clone();
        let connect = move |_: &_, _: &&str| {
            world.contexts.borrow_mut().push(LogContext::current().name().to_owned());
            let (deferred, resolver) = Deferred::with_canceller(|| ());
            world.waiting.borrow_mut().push_back(resolver);
            deferred
        };
        ConnectionPool::new(clock.reactor(), options, connect, |connection: &Connection| {
            connection.is_healthy.get()
        })
    }

    /// Lets the connection stand that was begun first, of those that still matter.
    fn establish(&self) {
        let number = self.made.get() + 1;
        self.made.set(number);
        self.open.set(self.open.get() + 1);
        let open = Rc::clone(&self.open);
        self.next_attempt().callback(Connection { number, is_healthy: Cell::new(true), open });
    }

    fn next_attempt(&self) -> Resolver<Connection> {
        loop {
            let resolver = self.waiting.borrow_mut().pop_front().expect("an attempt");
            if !resolver.is_cancelled() {
                return resolver;
            }
        }
    }

    fn attempts(&self) -> usize {
        self.waiting.borrow().iter().filter(|resolver| !resolver.is_cancelled()).count()
    }
}

fn options(per_key_max: usize, total_max: usize) -> PoolOptions {
    PoolOptions { per_key_max, total_max, ..PoolOptions::default() }
}

fn number(pooled: Deferred<Pooled<&'static str, Connection>>) -> u32 {
    success_result_of(pooled).number
}

#[test]
fn a_connection_that_comes_back_is_used_again_and_the_last_one_first() {
    let clock = Clock::new();
    let world = World::default();
    let pool = world.pool(&clock, options(8, 8));
    let [first, second] = [0, 1].map(|_| pool.acquire("a"));
    assert_no_result(&first);
    world.establish();
    world.establish();
    let (first, second) = (success_result_of(first), success_result_of(second));
    assert_eq!((first.number, second.number), (1, 2));
    drop(second);
    drop(first);
    assert_eq!(number(pool.acquire("a")), 1, "it went back last");
    let other = pool.acquire("b");
    assert_no_result(&other);
    world.establish();
    assert_eq!(number(other), 3, "another key has its own");
    let contexts = world.contexts.borrow();
    assert!(contexts.iter().all(|name| name.starts_with("pool-")), "{contexts:?}");
    let statistics = pool.statistics();
    assert_eq!((statistics.idle, statistics.made, statistics.reused), (3, 3, 1));
}

#[test]
fn those_beyond_the_limits_wait_in_one_fair_line() {
    let clock = Clock::new();
    let world = World::default();
    let pool = world.pool(&clock, options(2, 3));
    let held: Vec<_> = ["a", "a", "b"].map(|key| pool.acquire(key)).into();
    (0..3).for_each(|_| world.establish());
    let mut held: VecDeque<_> = held.into_iter().map(success_result_of).collect();
    let waiting = ["a", "b", "a", "c"].map(|key| pool.acquire(key));
    waiting.iter().for_each(assert_no_result);
    assert_eq!(world.attempts(), 0, "nothing may be begun");
    assert_eq!(pool.statistics().waiting, 4);
    let [first_a, first_b, second_a, first_c] = waiting;
    // The first in line waits for a, and gets the connection that comes back.
    drop(held.pop_front());
    clock.pump();
    let first_a = success_result_of(first_a);
    assert_eq!(first_a.number, 1);
    // The next waits for b, for which there may be one more, but not in all: a connection of a is
    // dropped for it, although somebody waits for a, too, who came later.
    drop(first_a);
    clock.pump();
    assert_no_result(&second_a);
    assert_eq!((world.open.get(), world.attempts()), (2, 1));
    world.establish();
    let first_b = success_result_of(first_b);
    drop(held.pop_front());
    clock.pump();
    let second_a = success_result_of(second_a);
    assert_eq!(second_a.number, 2);
    assert_no_result(&first_c);
    drop((first_b, second_a));
    clock.pump();
    world.establish();
    success_result_of(first_c);
    assert!(world.open.get() <= 3);
}

#[test]
fn whoever_has_waited_longest_gets_what_comes_first() {
    let clock = Clock::new();
    let world = World::default();
    let pool = world.pool(&clock, options(2, 8));
    let held = pool.acquire("a");
    world.establish();
    let held = success_result_of(held);
    let (first, second) = (pool.acquire("a"), pool.acquire("a"));
    assert_eq!(world.attempts(), 1, "for one of them");
    drop(held);
    clock.pump();
    let first = success_result_of(first);
    assert_eq!(first.number, 1, "the one that came back was there sooner");
    world.establish();
    assert_eq!(number(second), 2, "and the new one is for the next");
    drop(first);
}

#[test]
fn a_connection_that_is_not_fit_is_not_used_again() {
    let clock = Clock::new();
    let world = World::default();
    let pool = world.pool(&clock, options(1, 1));
    let first = pool.acquire("a");
    world.establish();
    let first = success_result_of(first);
    let waiting = pool.acquire("a");
    first.is_healthy.set(false);
    drop(first);
    assert_eq!(world.open.get(), 0, "it was dropped as it came back");
    clock.pump();
    world.establish();
    let second = success_result_of(waiting);
    let waiting = pool.acquire("a");
    second.discard();
    assert_eq!(world.open.get(), 0);
    clock.pump();
    world.establish();
    drop(success_result_of(waiting));
    // One that goes bad while nobody uses it.
    let idle = success_result_of(pool.acquire("a"));
    let sick = Rc::new(Cell::new(false));
    let pool = {
        let (world, sick) = (world.clone(), Rc::clone(&sick));
        drop(idle);
        let connect = move |_: &_, _: &&str| {
            world.made.set(world.made.get() + 1);
            world.open.set(world.open.get() + 1);
            let (number, open) = (world.made.get(), Rc::clone(&world.open));
            Deferred::succeed(Connection { number, is_healthy: Cell::new(true), open })
        };
        ConnectionPool::new(clock.reactor(), options(1, 1), connect, move |_: &Connection| {
            !sick.get()
        })
    };
    let before = number(pool.acquire("a"));
    sick.set(true);
    assert_ne!(number(pool.acquire("a")), before, "another one is made in its place");
}

#[test]
fn failures_go_to_one_each_and_the_next_may_try() {
    let clock = Clock::new();
    let world = World::default();
    let pool = world.pool(&clock, options(1, 1));
    let (first, second) = (pool.acquire("a"), pool.acquire("a"));
    world.next_attempt().errback(Failure::new("refused"));
    assert_eq!(failure_result_of(first).to_string(), "refused");
    assert_no_result(&second);
    world.establish();
    assert_eq!(number(second), 1);
}

#[test]
fn waiting_ends_by_cancelling_or_in_time_and_takes_the_attempt_along() {
    let clock = Clock::new();
    let world = World::default();
    let pool = world.pool(&clock, options(1, 1));
    let cancelled = pool.acquire("a");
    assert_eq!(world.attempts(), 1);
    cancelled.cancel();
    assert!(failure_result_of(cancelled).is::<CancelledError>());
    assert_eq!(world.attempts(), 0, "nobody waits for it any more");
    assert_eq!(pool.statistics(), PoolStatistics::default());
    let (late, patient) = (pool.acquire("a"), pool.acquire("a"));
    clock.advance(SECOND * 29);
    let later = pool.acquire("a");
    clock.advance(SECOND);
    assert!(failure_result_of(late).is::<TimeoutError>());
    assert!(failure_result_of(patient).is::<TimeoutError>());
    assert_no_result(&later);
    world.establish();
    assert_eq!(number(later), 1);
    assert_eq!(pool.statistics().idle, 1);
}

#[test]
fn the_line_has_an_end() {
    let clock = Clock::new();
    let world = World::default();
    let options = PoolOptions { waiting_max: 2, ..options(1, 1) };
    let pool = world.pool(&clock, options);
    let waiting = [0, 1, 2].map(|_| pool.acquire("a"));
    let refused = failure_result_of(pool.acquire("a"));
    assert!(matches!(refused.downcast_ref(), Some(PoolError::LineFull { waiting_max: 2, .. })));
    waiting.iter().for_each(assert_no_result);
    world.establish();
    for next in waiting {
        drop(success_result_of(next));
        clock.pump();
    }
    assert_eq!(world.made.get(), 1);
}

#[test]
fn a_connection_that_nobody_uses_is_dropped_in_time() {
    let clock = Clock::new();
    let world = World::default();
    let pool = world.pool(&clock, options(8, 8));
    for _ in 0..2 {
        let pooled = pool.acquire("a");
        if world.attempts() > 0 {
            world.establish();
        }
        drop(success_result_of(pooled));
        let another = pool.acquire("b");
        if world.attempts() > 0 {
            world.establish();
        }
        clock.advance(SECOND * 40);
        drop(success_result_of(another));
    }
    assert_eq!(world.open.get(), 2);
    clock.advance(SECOND * 20);
    assert_eq!(world.open.get(), 1, "a has not been used for a minute");
    clock.advance(SECOND * 40);
    assert_eq!(world.open.get(), 0);
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn closing_ends_what_is_unused_and_waits_for_the_rest() {
    let clock = Clock::new();
    let world = World::default();
    let pool = world.pool(&clock, options(2, 3));
    let held = [0, 1].map(|_| pool.acquire("a"));
    world.establish();
    world.establish();
    let [held, returned] = held.map(success_result_of);
    drop(returned);
    let connecting = pool.acquire("b");
    let closed = pool.close();
    assert_no_result(&closed);
    assert_eq!(world.open.get(), 1, "the one in use");
    assert!(failure_result_of(connecting).is::<PoolError>());
    assert_eq!(world.attempts(), 0);
    assert!(failure_result_of(pool.acquire("a")).is::<PoolError>());
    drop(held);
    success_result_of(closed);
    assert_eq!(world.open.get(), 0);
    success_result_of(pool.close());
    clock.pump();
    assert_eq!(clock.pending_calls(), 0);
}
